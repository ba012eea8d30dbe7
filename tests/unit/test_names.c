// Name patterns in both directions, and conversion between the schemes.
#include "weights_case.h"
#include "runtime/names.h"

static const char *const official[] = {"downsample_layers.0.0.weight",
                                       "downsample_layers.0.1.bias",
                                       "downsample_layers.2.0.weight",
                                       "downsample_layers.3.1.bias",
                                       "stages.0.0.dwconv.weight",
                                       "stages.2.26.norm.bias",
                                       "stages.1.1.pwconv1.weight",
                                       "stages.1.1.pwconv2.bias",
                                       "stages.3.2.grn.gamma",
                                       "stages.3.2.grn.beta",
                                       "norm.weight",
                                       "head.bias",
                                       "stages.3.2.gamma",
                                       "stages.0.1.own.weight"};
static const char *const timm[] = {"stem.0.weight",
                                   "stem.1.bias",
                                   "stages.2.downsample.0.weight",
                                   "stages.3.downsample.1.bias",
                                   "stages.0.blocks.0.conv_dw.weight",
                                   "stages.2.blocks.26.norm.bias",
                                   "stages.1.blocks.1.mlp.fc1.weight",
                                   "stages.1.blocks.1.mlp.fc2.bias",
                                   "stages.3.blocks.2.mlp.grn.weight",
                                   "stages.3.blocks.2.mlp.grn.bias",
                                   "head.norm.weight",
                                   "head.fc.bias",
                                   "stages.3.blocks.2.gamma",
                                   "stages.0.blocks.1.own.weight"};
static const char *const hf[] = {"convnextv2.embeddings.patch_embeddings.weight",
                                 "convnextv2.embeddings.layernorm.bias",
                                 "convnextv2.encoder.stages.2.downsampling_layer.0.weight",
                                 "convnextv2.encoder.stages.3.downsampling_layer.1.bias",
                                 "convnextv2.encoder.stages.0.layers.0.dwconv.weight",
                                 "convnextv2.encoder.stages.2.layers.26.layernorm.bias",
                                 "convnextv2.encoder.stages.1.layers.1.pwconv1.weight",
                                 "convnextv2.encoder.stages.1.layers.1.pwconv2.bias",
                                 "convnextv2.encoder.stages.3.layers.2.grn.weight",
                                 "convnextv2.encoder.stages.3.layers.2.grn.bias",
                                 "convnextv2.layernorm.weight",
                                 "classifier.bias",
                                 "convnextv2.encoder.stages.3.layers.2.layer_scale_parameter",
                                 "convnextv2.encoder.stages.0.layers.1.own.weight"};

static void from_official(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof official / sizeof *official; i++) {
        char *a = names_from_official(official[i], "timm", 2);
        char *b = names_from_official(official[i], "hf", 2);
        assert_string_equal(a, timm[i]);
        assert_string_equal(b, hf[i]);
        free(a);
        free(b);
    }
    char *v1 = names_from_official("norm.bias", "hf", 1);
    assert_string_equal(v1, "convnext.layernorm.bias");
    free(v1);
}

// A file with these names and prefixes is recognised and translated.
static void check_file(const char *scheme, const char *prefix, const char *const *names, int n) {
    CnxrtWeights w = {.path = NULL};
    for (int i = 0; i < n; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, names[i]);
        assert_non_null(weights_add(&w, name, ST_F32, 0, NULL, NULL, NULL));
    }
    assert_true(names_translate(&w));
    assert_string_equal(w.scheme, scheme);
    for (int i = 0; i < n; i++) {
        assert_string_equal(w.tensors[i].official, official[i]);
        free(w.tensors[i].official);
        free((char *)(uintptr_t)w.tensors[i].info.name);
    }
    free(w.tensors);
}

static void to_official(void **state) {
    (void)state;
    static const char *const prefixes[] = {"", "module.", "model.", "backbone.",
                                           "module._orig_mod."};
    const int n = sizeof official / sizeof *official;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        check_file("official", prefixes[i], official, n);
        check_file("timm", prefixes[i], timm, n);
        check_file("hf", prefixes[i], hf, n);
    }
    check_file("official", "encoder.", official, n);
    check_file("official", "module.encoder.", official, n);
    check_file("fcmae", "encoder.", official, 10); // neither norm nor head
}

static void patterns(void **state) {
    (void)state;
    assert_true(name_matches("stages.#.#.*", "stages.10.2.x.y"));
    assert_false(name_matches("stages.#.#.*", "stages.10.2."));
    assert_false(name_matches("stages.#.#.*", "stages.a.2.x"));
    assert_false(name_matches("norm.*", "norm"));
    assert_false(name_matches("mask_token", "mask_token2"));
    assert_true(name_is_spare("decoder.0.dwconv.weight"));
    assert_true(name_is_spare("norm2.bias"));
    assert_false(name_is_spare("norm.bias"));
    assert_false(name_is_spare("head.weight"));
}

static int64_t dims_of(const char *path, const char *name, int *rank, int64_t *last) {
    CnxrtWeights *w = weights_open_case(path);
    int i = weights_find(w, name);
    if (i < 0) fail_msg("%s has no %s", path, name);
    const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
    *rank = t->rank;
    *last = t->rank ? t->dims[t->rank - 1] : 0;
    int64_t first = t->rank ? t->dims[0] : 0;
    cnxrt_weights_close(w);
    return first;
}

static void check_shape(const char *path, const char *name, int rank, int64_t first, int64_t last) {
    int r;
    int64_t l, f = dims_of(path, name, &r, &l);
    if (r != rank || f != first || l != last)
        fail_msg("%s: rank %d, first %d, last %d", name, r, (int)f, (int)l);
}

// Any form to any scheme, and back into the model with the same values.
static void converts(void **state) {
    (void)state;
    static const struct {
        const char *file;
        NetworkKind kind;
        bool identity;
    } files[] = {{"official.pt", NET_V2, false},       {"timm_conv.pt", NET_V2, false},
                 {"timm.safetensors", NET_V2, false},  {"hf.safetensors", NET_V2, false},
                 {"hf_v1.safetensors", NET_V1, false}, {"fcmae_sparse.pt", NET_HEADLESS, true},
                 {"fcmae.pt", NET_HEADLESS, true}};
    static const char *const schemes[] = {"official", "timm", "hf"};
    char path[] = "/tmp/test_names_XXXXXX";
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (int s = 0; s < 3; s++) {
            char in[512];
            snprintf(in, sizeof in, WEIGHTS "%s", files[i].file);
            CnxrtError err = {0};
            if (cnxrt_weights_convert(in, path, schemes[s], "F32", &err) != CNXRT_OK)
                fail_msg("%s to %s: %s", files[i].file, schemes[s], err.text);
            CnxrtWeights *w = weights_open_case(path);
            if (!files[i].identity) assert_string_equal(cnxrt_weights_scheme(w), schemes[s]);
            Network net;
            network_make(&net, files[i].kind);
            if (cnxrt_weights_load(w, net.params, net.n, net.blob, &err) != CNXRT_OK)
                fail_msg("%s to %s: %s", files[i].file, schemes[s], err.text);
            network_check(&net, 0, files[i].identity, files[i].file);
            cnxrt_error_free(&err);
            network_free(&net);
            cnxrt_weights_close(w);
        }
    unlink(path);
}

static void converted_shapes(void **state) {
    (void)state;
    char path[] = "/tmp/test_names_XXXXXX";
    close(mkstemp(path));
    CnxrtError err = {0};
    assert_int_equal(
        cnxrt_weights_convert(WEIGHTS "official.safetensors", path, "timm", "F32", &err), 0);
    check_shape(path, "stages.1.blocks.0.mlp.grn.weight", 1, 24, 24);
    check_shape(path, "stages.1.blocks.0.mlp.fc1.weight", 4, 24, 1); // below 96 channels: 1x1
    check_shape(path, "head.fc.weight", 2, 5, 10);
    CnxrtWeights *w = weights_open_case(path);
    TEXT_HAS(cnxrt_weights_metadata(w, "classes"), "class 3");
    assert_string_equal(cnxrt_weights_metadata(w, "format"), "pt");
    cnxrt_weights_close(w);
    assert_int_equal(cnxrt_weights_convert(path, path, "hf", "F32", &err), 0); // in place
    check_shape(path, "convnextv2.encoder.stages.1.layers.0.grn.bias", 4, 1, 24);
    check_shape(path, "convnextv2.encoder.stages.1.layers.0.pwconv1.weight", 2, 24, 6);
    assert_int_equal(
        cnxrt_weights_convert(WEIGHTS "fcmae_sparse.pt", path, "official", "F32", &err), 0);
    check_shape(path, "stages.1.0.grn.gamma", 4, 1, 24);
    check_shape(path, "stages.1.0.dwconv.weight", 4, 6, 7);
    check_shape(path, "stages.1.0.dwconv.bias", 1, 6, 6);
    check_shape(path, "downsample_layers.1.1.weight", 4, 6, 2);
    check_shape(path, "mask_token", 4, 1, 1);
    unlink(path);
}

// Values stored in 2 bytes, read back: rounded to nearest, ties to even, subnormals kept.
static void converts_to_halves(void **state) {
    (void)state;
    char in[] = "/tmp/test_names_XXXXXX", out[] = "/tmp/test_names_XXXXXX";
    close(mkstemp(in));
    close(mkstemp(out));
    const float x[8] = {1, -2.5f, 2049, 2051, 6e-8f, -1e-9f, 65504, 0.33325195f};
    const float half[8] = {1, -2.5f, 2048, 2052, 0x1p-24f, -0.0f, 65504, 0.33325195f};
    const float bfloat[8] = {1, -2.5f, 2048, 2048, 0x1.02p-24f, -0x1.12p-30f, 65536, 0.33398438f};
    CnxrtTensor t[] = {{"downsample_layers.0.0.bias", 1, {8}, x}};
    CnxrtError err = {0};
    for (int k = 0; k < 2; k++) {
        float y[8];
        assert_int_equal(cnxrt_safetensors_write(in, t, 1, NULL, &err), CNXRT_OK);
        assert_int_equal(cnxrt_weights_convert(in, out, "official", k ? "BF16" : "F16", &err),
                         CNXRT_OK);
        CnxrtWeights *w = weights_open_case(out);
        assert_string_equal(cnxrt_weights_info(w, 0)->dtype, k ? "BF16" : "F16");
        assert_int_equal(cnxrt_weights_read(w, 0, y, &err), CNXRT_OK);
        for (int i = 0; i < 8; i++)
            if (y[i] != (k ? bfloat : half)[i]) fail_msg("%a gives %a", x[i], y[i]);
        cnxrt_weights_close(w);
    }
    t[0].data = (const float[8]){0, 1, 65520};
    assert_int_equal(cnxrt_safetensors_write(in, t, 1, NULL, &err), CNXRT_OK);
    assert_int_equal(cnxrt_weights_convert(in, out, "official", "F16", &err), CNXRT_ERROR_FORMAT);
    TEXT_HAS(err.text, "downsample_layers.0.0.bias", "65520", "beyond the range of F16; BF16");
    t[0].data = (const float[8]){0, 1, -3.4e38F};
    assert_int_equal(cnxrt_safetensors_write(in, t, 1, NULL, &err), CNXRT_OK);
    assert_int_equal(cnxrt_weights_convert(in, out, "official", "BF16", &err), CNXRT_ERROR_FORMAT);
    TEXT_HAS(err.text, "downsample_layers.0.0.bias", "-3.4e+38", "beyond the range of BF16");
    cnxrt_error_free(&err);
    unlink(in);
    unlink(out);
}

static void cannot_convert(void **state) {
    (void)state;
    CnxrtError err = {0};
    assert_int_equal(cnxrt_weights_convert(WEIGHTS "views.pt", "/tmp/no", "timm", "F32", &err),
                     CNXRT_ERROR_MISMATCH);
    TEXT_HAS(err.text, "views.pt", "no naming scheme");
    assert_int_equal(cnxrt_weights_convert(WEIGHTS "timm_v1.pt", "/tmp/no", "keras", "F32", &err),
                     CNXRT_ERROR_ARGUMENT);
    TEXT_HAS(err.text, "'keras'", "official, timm or hf");
    assert_int_equal(cnxrt_weights_convert("/nonexistent", "/tmp/no", "hf", "F32", &err),
                     CNXRT_ERROR_IO);
    assert_int_not_equal(access("/tmp/no", F_OK), 0);
    cnxrt_error_free(&err);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_official),      cmocka_unit_test(to_official),
        cmocka_unit_test(patterns),           cmocka_unit_test(converts),
        cmocka_unit_test(converted_shapes),   cmocka_unit_test(cannot_convert),
        cmocka_unit_test(converts_to_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
