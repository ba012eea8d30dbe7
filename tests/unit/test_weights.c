// Loading checkpoints into a model: every scheme and container, and all that does not fit.
#include "weights_case.h"

static const struct {
    const char *file, *scheme;
    NetworkKind kind;
    double tolerance;
    bool identity; // the file has no final norm
} loads[] = {
    {"official.safetensors", "official", NET_V2, 0, false},
    {"official_f16.safetensors", "official", NET_V2, 0x1p-11, false},
    {"official_bf16.safetensors", "official", NET_V2, 0x1p-8, false},
    {"official_f64.safetensors", "official", NET_V2, 0, false},
    {"official.pt", "official", NET_V2, 0, false},
    {"deflated.pt", "official", NET_V2, 0, false},
    {"protocol3.pt", "official", NET_V1, 0, false},
    {"legacy.pt", "official", NET_V2, 0, false},
    {"ddp.pt", "official", NET_V2, 0, false},
    {"timm.safetensors", "timm", NET_V2, 0, false},
    {"timm_conv.pt", "timm", NET_V2, 0, false},
    {"timm_v1.pt", "timm", NET_V1, 0, false},
    {"hf.safetensors", "hf", NET_V2, 0, false},
    {"hf_v1.safetensors", "hf", NET_V1, 0, false},
    {"hf_old.pt", "hf", NET_V2, 0, false},
    {"mmpretrain.pt", "mmpretrain", NET_V2, 0x1p-11, false},
    {"fcmae.pt", "fcmae", NET_HEADLESS, 0, true},
    {"fcmae_only.pt", "fcmae", NET_HEADLESS, 0, true},
    {"protocol4.pt", "fcmae", NET_HEADLESS, 0, true},
    {"protocol5.pt", "fcmae", NET_HEADLESS, 0, true},
    {"fcmae_sparse.pt", "fcmae-sparse", NET_HEADLESS, 0, true},
    {"official.pt", "official", NET_HEADLESS, 0, false}, // the head is left out
    {"hf.safetensors", "hf", NET_HEADLESS, 0, false},
};

static void loads_every_form(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        CnxrtWeights *w = weights_open_case(loads[i].file);
        assert_string_equal(cnxrt_weights_scheme(w), loads[i].scheme);
        Network net;
        network_make(&net, loads[i].kind);
        CnxrtError err = {0};
        if (cnxrt_weights_load(w, net.params, net.n, net.blob, &err) != CNXRT_OK)
            fail_msg("%s: %s", loads[i].file, err.text);
        if (loads[i].identity)
            TEXT_HAS(err.text, "norm.weight", "norm.bias", "identity");
        else
            assert_null(err.text);
        network_check(&net, loads[i].tolerance, loads[i].identity, loads[i].file);
        cnxrt_error_free(&err);
        network_free(&net);
        cnxrt_weights_close(w);
    }
}

// Loads and returns the message of the failure.
static char *load_failure(const char *file, Network *net) {
    CnxrtWeights *w = weights_open_case(file);
    CnxrtError err = {0};
    assert_int_equal(cnxrt_weights_load(w, net->params, net->n, net->blob, &err),
                     CNXRT_ERROR_MISMATCH);
    cnxrt_weights_close(w);
    return err.text;
}

static void encoder_for_a_classifier(void **state) {
    (void)state;
    static const char *const files[] = {"fcmae.pt", "fcmae_only.pt", "fcmae_sparse.pt"};
    for (int i = 0; i < 3; i++) {
        Network net;
        network_make(&net, NET_V2);
        char *text = load_failure(files[i], &net);
        TEXT_HAS(text, files[i], "missing (4):", "norm.weight (10)", "norm.bias (10)",
                 "head.weight (5, 10)", "head.bias (5)", "hint:", "without a classifier");
        assert_null(strstr(text, "stages."));
        free(text);
        network_free(&net);
    }
}

// For features an encoder is enough: its head becomes zeros.
static void encoder_for_features(void **state) {
    (void)state;
    static const char *const files[] = {"fcmae.pt", "fcmae_only.pt", "fcmae_sparse.pt"};
    for (int i = 0; i < 3; i++) {
        Network net;
        network_make(&net, NET_V2);
        CnxrtWeights *w = weights_open_case(files[i]);
        CnxrtError err = {0};
        assert_int_equal(cnxrt_weights_load_encoder(w, net.params, net.n, net.blob, &err),
                         CNXRT_OK);
        TEXT_HAS(err.text, "norm.weight: not in", "identity", "head.bias: not in", "zeros");
        for (int k = 0; k < 2; k++) {
            const CnxrtParam *p = network_param(&net, k ? "head.bias" : "head.weight");
            for (int64_t e = 0; e < param_count(p); e++)
                assert_true(net.blob[p->offset / 4 + e] == 0);
        }
        net.n -= 2;
        network_check(&net, 0, true, files[i]);
        cnxrt_error_free(&err);
        cnxrt_weights_close(w);
        network_free(&net);
    }
}

// Parameters of a pre-training model are found with and without their prefix.
static void encoder_prefix(void **state) {
    (void)state;
    CnxrtParam p = {"encoder.stages.0.0.dwconv.bias", 1, {4}, 0, 0, 0};
    float values[4] = {0}, want[4];
    cnxrt_seed_weights("stages.0.0.dwconv.bias", 1, p.dims, 0, want);
    CnxrtTensor t[] = {{"stages.0.0.dwconv.bias", 1, {4}, want}};
    CnxrtError err = {0};
    char path[] = "/tmp/test_weights_XXXXXX";
    close(mkstemp(path));
    for (int i = 0; i < 2; i++) {
        t[0].name = i ? p.name : p.name + 8;
        assert_int_equal(cnxrt_safetensors_write(path, t, 1, NULL, &err), CNXRT_OK);
        CnxrtWeights *w = weights_open_case(path);
        memset(values, 0, sizeof values);
        if (cnxrt_weights_load(w, &p, 1, values, &err) != CNXRT_OK) fail_msg("%s", err.text);
        assert_memory_equal(values, want, sizeof want);
        cnxrt_weights_close(w);
    }
    unlink(path);
}

static void wrong_version(void **state) {
    (void)state;
    Network net;
    network_make(&net, NET_V1);
    char *text = load_failure("official.safetensors", &net);
    TEXT_HAS(text, "missing (4):", "stages.3.0.gamma (10)",
             "not in the model (8):", "stages.2.0.grn.beta (1, 1, 1, 32)");
    free(text);
    text = load_failure("timm.safetensors", &net);
    TEXT_HAS(text, "stages.3.0.gamma (10)", "stages.2.blocks.0.mlp.grn.bias (32)");
    free(text);
    network_free(&net);
}

static void wrong_shapes(void **state) {
    (void)state;
    Network net;
    network_make(&net, NET_V2);
    network_param(&net, "stages.1.0.grn.gamma")->dims[0] = 25;
    network_param(&net, "downsample_layers.0.0.weight")->dims[1] = 4;
    network_param(&net, "stages.2.0.pwconv1.weight")->dims[0] = 8; // transposed
    network_param(&net, "stages.2.0.pwconv1.weight")->dims[1] = 32;
    char *text = load_failure("hf.safetensors", &net);
    TEXT_HAS(text, "shapes that differ (3):",
             "stages.1.0.grn.gamma: the model has (25), the file (1, 1, 1, 24) (as "
             "convnextv2.encoder.stages.1.layers.0.grn.weight)",
             "downsample_layers.0.0.weight: the model has (4, 4, 4, 4), the file (4, 3, 4, 4)",
             "stages.2.0.pwconv1.weight: the model has (8, 32), the file (32, 8)",
             "--set input.channels=3");
    free(text);
    network_param(&net, "stages.3.0.dwconv.weight")->dims[2] = 9; // 9x7 and 7x7 kernels
    text = load_failure("fcmae_sparse.pt", &net);
    TEXT_HAS(text, "stages.3.0.dwconv.weight: the model has (10, 1, 9, 7), the file (49, 10)",
             "stages.1.0.grn.gamma: the model has (25), the file (1, 24)", "missing (4):");
    free(text);
    network_free(&net);
}

static void wrong_classes(void **state) {
    (void)state;
    Network net;
    network_make(&net, NET_V2);
    network_param(&net, "head.weight")->dims[0] = 1000;
    network_param(&net, "head.bias")->dims[0] = 1000;
    char *text = load_failure("mmpretrain.pt", &net);
    TEXT_HAS(text, "head.weight: the model has (1000, 10), the file (5, 10) (as head.fc.weight)",
             "head.bias: the model has (1000), the file (5)", "--set head.classes=5");
    free(text);
    network_free(&net);
}

static void unknown_names(void **state) {
    (void)state;
    Network net;
    network_make(&net, NET_V2);
    char *text = load_failure("views.pt", &net);
    TEXT_HAS(text, "unknown names", "not in the model (11):", "transposed (8, 6)",
             "no naming scheme");
    free(text);
    // A model made of the user's own blocks takes names as they are.
    CnxrtParam own = {"parameter", 2, {3, 2}, 0, 0, 0};
    float values[6];
    CnxrtWeights *w = weights_open_case("evil.pt");
    CnxrtError err = {0};
    own.name = "a";
    own.dims[0] = 2, own.dims[1] = 3;
    assert_int_equal(cnxrt_weights_load(w, &own, 1, values, &err), CNXRT_OK);
    float want[6];
    cnxrt_seed_weights("a", 2, own.dims, 0, want);
    assert_memory_equal(values, want, sizeof want);
    cnxrt_weights_close(w);
    network_free(&net);
}

static void one_parameter_twice(void **state) {
    (void)state;
    float x[2] = {1, 2};
    CnxrtTensor t[] = {{"module.a", 1, {2}, x}, {"a", 1, {2}, x}};
    CnxrtParam p = {"a", 1, {2}, 0, 0, 0};
    CnxrtError err = {0};
    char path[] = "/tmp/test_weights_XXXXXX";
    close(mkstemp(path));
    assert_int_equal(cnxrt_safetensors_write(path, t, 2, NULL, &err), CNXRT_OK);
    CnxrtWeights *w = weights_open_case(path);
    assert_int_equal(cnxrt_weights_load(w, &p, 1, x, &err), CNXRT_ERROR_MISMATCH);
    TEXT_HAS(err.text, "there twice (1):", "a: from", "module.a");
    cnxrt_error_free(&err);
    cnxrt_weights_close(w);
    unlink(path);
}

static void info_and_metadata(void **state) {
    (void)state;
    CnxrtWeights *w = weights_open_case("official.safetensors");
    TEXT_HAS(cnxrt_weights_metadata(w, "classes"), "class 0\nclass 1\n", "class 4");
    assert_null(cnxrt_weights_metadata(w, "absent"));
    assert_string_equal(cnxrt_weights_about(w), "safetensors");
    cnxrt_weights_close(w);
    w = weights_open_case("official_f64.safetensors");
    int i = weights_find(w, "counter");
    assert_string_equal(cnxrt_weights_info(w, i)->dtype, "I64");
    float counter[3];
    assert_int_equal(cnxrt_weights_read(w, i, counter, NULL), CNXRT_OK);
    assert_true(counter[0] == 0 && counter[2] == 2);
    assert_int_equal(cnxrt_weights_read(w, cnxrt_weights_count(w), counter, NULL),
                     CNXRT_ERROR_ARGUMENT);
    cnxrt_weights_close(w);
    w = weights_open_case("timm.safetensors");
    assert_string_equal(
        cnxrt_weights_official_name(w, weights_find(w, "stages.2.blocks.0.mlp.grn.bias")),
        "stages.2.0.grn.beta");
    cnxrt_weights_close(w);
}

// Exact values of half and bfloat16, at the ends of their ranges too.
static void narrow_floats(void **state) {
    (void)state;
    static const struct {
        StDtype type;
        uint16_t bits;
        float value;
    } cases[] = {{ST_F16, 0x3C00, 1},
                 {ST_F16, 0xC000, -2},
                 {ST_F16, 0x0001, 0x1p-24f},
                 {ST_F16, 0x83FF, -0x1.FF8p-15f},
                 {ST_F16, 0x0400, 0x1p-14f},
                 {ST_F16, 0x7BFF, 65504},
                 {ST_F16, 0xFC00, -INFINITY},
                 {ST_BF16, 0x3F80, 1},
                 {ST_BF16, 0xC000, -2},
                 {ST_BF16, 0x0001, 0x1p-133f},
                 {ST_BF16, 0x7F7F, 0x1.FEp127f},
                 {ST_BF16, 0x7F80, INFINITY}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char b[2] = {cases[i].bits & 255, (unsigned char)(cases[i].bits >> 8)};
        if (st_element(cases[i].type, b, 0) != cases[i].value)
            fail_msg("%s %04x: %a", st_dtype_name(cases[i].type), cases[i].bits,
                     (double)st_element(cases[i].type, b, 0));
    }
    unsigned char nan[2] = {1, 0x7C}, zero[2] = {0, 0x80};
    assert_true(isnan(st_element(ST_F16, nan, 0)));
    assert_true(signbit(st_element(ST_F16, zero, 0)));
}

// First and last values by seeded() of tests/parity/reference.py.
static void seeded_values(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int rank;
        int64_t dims[4];
        uint64_t seed;
        float first, last;
    } cases[] = {
        {"norm.weight", 1, {3}, 7, 0x1.c243p-1f, 0x1.0fe404p+0f},
        {"conv.weight", 4, {2, 3, 2, 2}, 1, -0x1.1cccp-5f, -0x1.1a4b8p-4f},
        {"stages.0.0.grn.gamma", 4, {1, 1, 1, 4}, 0, -0x1.986e5p-2f, 0x1.4e7efp-3f},
        {"stages.0.0.gamma", 1, {4}, 0, 0x1.0d5eb4p-2f, 0x1.47da58p-1f},
        {"mask_token", 4, {1, 4, 1, 1}, 2, -0x1.1c8f0ap-7f, -0x1.9356e2p-7f},
        {"head.bias", 1, {4}, (uint64_t)1 << 40, -0x1.9524cp-5f, 0x1.60e07ap-5f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float v[24];
        int64_t n = 0;
        dims_count(cases[i].rank, cases[i].dims, &n);
        cnxrt_seed_weights(cases[i].name, cases[i].rank, cases[i].dims, cases[i].seed, v);
        if (v[0] != cases[i].first || v[n - 1] != cases[i].last)
            fail_msg("%s: %a ... %a", cases[i].name, (double)v[0], (double)v[n - 1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_every_form),     cmocka_unit_test(encoder_for_a_classifier),
        cmocka_unit_test(encoder_for_features), cmocka_unit_test(encoder_prefix),
        cmocka_unit_test(wrong_version),        cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(wrong_classes),        cmocka_unit_test(unknown_names),
        cmocka_unit_test(one_parameter_twice),  cmocka_unit_test(info_and_metadata),
        cmocka_unit_test(narrow_floats),        cmocka_unit_test(seeded_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
