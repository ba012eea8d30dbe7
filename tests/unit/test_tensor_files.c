// The containers themselves: safetensors byte by byte, PyTorch's views and storages, pickles that
// want to do harm, truncation at every length, and writing.
#include "weights_case.h"
#include "runtime/unpickle.h"
#include <sys/stat.h>

// ---- safetensors --------------------------------------------------------------------------------

static CnxrtStatus open_text(const char *header, size_t data, CnxrtWeights **w, CnxrtError *err,
                             unsigned char *buf) {
    size_t n = strlen(header);
    memset(buf, 0, 8 + n + data);
    buf[0] = (unsigned char)n;
    buf[1] = (unsigned char)(n >> 8);
    memcpy(buf + 8, header, n);
    return cnxrt_weights_open_memory(buf, 8 + n + data, w, err);
}

static void bad_headers(void **state) {
    (void)state;
    static const struct {
        const char *header;
        int data;
        const char *message;
    } cases[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4,
         "truncated: tensor a ends at byte 70, the file has 66"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9,
         "1 bytes follow the last tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
         "shape (3) of F32 does not take its 8 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
         "not a non-negative integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
         "does not take its 0 bytes"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0,
         "does not take its 0 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "more than 8 dimensions"},
        {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
         "element type F8_E4M3 is not known"},
        {"{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "tensor a: no dtype"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, "tensor a: no shape"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}", 4, "not [begin, end]"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[-4,0]}}", 4, "not [begin, end]"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "not [begin, end]"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
         6, "tensor b: overlaps"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6,
         "unused bytes lie before it"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, "duplicate"},
        {"{\"a\":", 0, "safetensors header"},
        {"{\"a\":7}", 0, "tensor a: no dtype"},
        {"{\"__metadata__\":3}", 0, "not an object"},
        {"{\"__metadata__\":{\"k\":3}}", 0, "not a string"},
        {"[]        ", 0, "neither a safetensors file nor a PyTorch checkpoint"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char buf[512];
        CnxrtWeights *w = (CnxrtWeights *)buf;
        CnxrtError err = {0};
        assert_int_equal(open_text(cases[i].header, (size_t)cases[i].data, &w, &err, buf),
                         CNXRT_ERROR_FORMAT);
        assert_null(w);
        TEXT_HAS(err.text, cases[i].message);
        cnxrt_error_free(&err);
    }
}

static void good_headers(void **state) {
    (void)state;
    unsigned char buf[512];
    CnxrtWeights *w;
    assert_int_equal(open_text("{\"e\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[0,0]},"
                               "\"s\":{\"dtype\":\"I8\",\"shape\":[],\"data_offsets\":[0,1]}}  ",
                               1, &w, NULL, buf),
                     CNXRT_OK);
    assert_int_equal(cnxrt_weights_count(w), 2);
    assert_int_equal(cnxrt_weights_info(w, 1)->rank, 0);
    cnxrt_weights_close(w);
    assert_int_equal(open_text("{}  ", 0, &w, NULL, buf), CNXRT_OK);
    assert_int_equal(cnxrt_weights_count(w), 0);
    cnxrt_weights_close(w);
}

static void writes_and_reads(void **state) {
    (void)state;
    char path[] = "/tmp/test_weights_XXXXXX";
    close(mkstemp(path));
    float x[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
    CnxrtTensor t[] = {{"z\"\n", 2, {3, 2}, x}, {"a", 0, {0}, x}, {"none", 2, {0, 4}, NULL}};
    const char *metadata[] = {"classes", "cat\ndog", "k", "v", NULL};
    CnxrtError err = {0};
    assert_int_equal(cnxrt_safetensors_write(path, t, 3, metadata, &err), CNXRT_OK);
    CnxrtWeights *w = weights_open_case(path);
    assert_string_equal(cnxrt_weights_metadata(w, "classes"), "cat\ndog");
    assert_string_equal(cnxrt_weights_info(w, 2)->name, "z\"\n");
    float y[6];
    assert_int_equal(cnxrt_weights_read(w, 2, y, &err), CNXRT_OK);
    assert_memory_equal(x, y, sizeof x);
    cnxrt_weights_close(w);
    // The order given does not matter to the bytes.
    size_t n1, n2;
    unsigned char *first = read_whole(path, &n1);
    CnxrtTensor swapped[] = {t[2], t[0], t[1]};
    assert_int_equal(cnxrt_safetensors_write(path, swapped, 3, metadata, &err), CNXRT_OK);
    unsigned char *second = read_whole(path, &n2);
    assert_int_equal(n1, n2);
    assert_memory_equal(first, second, n1);
    free(first);
    free(second);
    unlink(path);
}

static void cannot_write(void **state) {
    (void)state;
    float x[1] = {1};
    CnxrtTensor t[] = {{"a", 1, {1}, x}, {"a", 1, {1}, x}, {"\xff", 1, {1}, x}};
    CnxrtError err = {0};
    assert_int_equal(cnxrt_safetensors_write("/nonexistent/x", t, 1, NULL, &err), CNXRT_ERROR_IO);
    TEXT_HAS(err.text, "/nonexistent/x: cannot write");
    assert_int_not_equal(cnxrt_safetensors_write("/tmp/test_weights_no", t, 2, NULL, &err),
                         CNXRT_OK);
    TEXT_HAS(err.text, "tensor a", "twice");
    assert_int_not_equal(cnxrt_safetensors_write("/tmp/test_weights_no", t + 2, 1, NULL, &err),
                         CNXRT_OK);
    assert_int_not_equal(access("/tmp/test_weights_no", F_OK), 0);
    cnxrt_error_free(&err);
}

// ---- PyTorch ------------------------------------------------------------------------------------

static float *read_named(const CnxrtWeights *w, const char *name, int rank, const int64_t *dims) {
    int i = weights_find(w, name);
    if (i < 0) fail_msg("no tensor %s", name);
    const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
    assert_int_equal(t->rank, rank);
    assert_memory_equal(t->dims, dims, (size_t)rank * sizeof *dims);
    int64_t n = 0;
    dims_count(rank, dims, &n);
    float *v = calloc((size_t)n + 1, sizeof *v);
    assert_int_equal(cnxrt_weights_read(w, i, v, NULL), CNXRT_OK);
    return v;
}
#define READ(name, ...)                                                                            \
    read_named(w, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                 \
               (int64_t[]){__VA_ARGS__})

static void check_views(const char *file) {
    CnxrtWeights *w = weights_open_case(file);
    float base[48], row[4], cube[24];
    cnxrt_seed_weights("base", 2, (int64_t[]){6, 8}, 0, base);
    cnxrt_seed_weights("row", 2, (int64_t[]){1, 4}, 0, row);
    cnxrt_seed_weights("cube", 3, (int64_t[]){2, 3, 4}, 0, cube);
    float *v = READ("transposed", 8, 6);
    for (int i = 0; i < 48; i++) assert_true(v[i] == base[i % 6 * 8 + i / 6]);
    free(v);
    v = READ("columns", 6, 3);
    for (int i = 0; i < 18; i++) assert_true(v[i] == base[i / 3 * 8 + 1 + 2 * (i % 3)]);
    free(v);
    v = READ("rows", 2, 8);
    assert_memory_equal(v, base + 16, 16 * sizeof *v);
    free(v);
    v = READ("expanded", 3, 4);
    for (int i = 0; i < 12; i++) assert_true(v[i] == row[i % 4]);
    free(v);
    v = READ("permuted", 4, 2, 3);
    for (int i = 0; i < 24; i++) assert_true(v[i] == cube[i % 6 * 4 + i / 6]);
    free(v);
    v = READ("half", 5, 4);
    for (int i = 0; i < 20; i++)
        assert_true(fabsf(v[i] - base[(i / 4 + 1) * 8 + 2 * (i % 4)]) < 1e-3f);
    free(v);
    v = READ("wide", 3, 8);
    for (int i = 0; i < 24; i++) assert_true(v[i] == base[i / 8 * 16 + i % 8]);
    free(v);
    v = read_named(w, "scalar", 0, NULL);
    assert_true(*v == base[10]);
    free(v);
    v = read_named(w, "counter", 0, NULL);
    assert_true(*v == 7);
    free(v);
    v = READ("flags", 2);
    assert_true(v[0] == 1 && v[1] == 0);
    free(v);
    free(READ("empty", 0, 3));
    free(READ("parameter", 3, 2));
    cnxrt_weights_close(w);
}

static void strided_views(void **state) {
    (void)state;
    check_views("views.pt");
    check_views("views_legacy.pt");
}

static void says_what_it_took(void **state) {
    (void)state;
    CnxrtWeights *w = weights_open_case("official.pt");
    assert_string_equal(cnxrt_weights_about(w),
                        "PyTorch zip file, entry model (not read: optimizer, epoch, scaler, args, "
                        "model_ema)");
    cnxrt_weights_close(w);
    w = weights_open_case("legacy.pt");
    TEXT_HAS(cnxrt_weights_about(w), "before 1.6", "entry model (not read: args)");
    cnxrt_weights_close(w);
    w = weights_open_case("timm_conv.pt");
    assert_string_equal(cnxrt_weights_about(w), "PyTorch zip file");
    cnxrt_weights_close(w);
}

static void runs_nothing(void **state) {
    (void)state;
    CnxrtWeights *w = weights_open_case("evil.pt");
    assert_int_equal(cnxrt_weights_count(w), 1);
    cnxrt_weights_close(w);
    assert_int_not_equal(access("/tmp/cnxrt-unpickler-ran-this", F_OK), 0);
}

static void not_a_checkpoint(void **state) {
    (void)state;
    static const struct {
        const char *file, *message;
    } cases[] = {{"object.pt", "it holds a pickled object (torch.nn.modules.linear Linear)"},
                 {"object.pt", "hint: save torch.save({\"model\": model.state_dict()}, path)"},
                 {"plain.pkl", "a plain pickle"},
                 {"../eval.npy", "No such file"},
                 {"..", "not a regular file"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        snprintf(path, sizeof path, WEIGHTS "%s", cases[i].file);
        CnxrtWeights *w;
        CnxrtError err = {0};
        assert_int_not_equal(cnxrt_weights_open(path, &w, &err), CNXRT_OK);
        assert_null(w);
        TEXT_HAS(err.text, path, cases[i].message);
        cnxrt_error_free(&err);
    }
}

// Every prefix of every container is refused with a message.
static void truncated(void **state) {
    (void)state;
    static const char *const files[] = {"official_f16.safetensors", "evil.pt", "views.pt",
                                        "views_legacy.pt"};
    for (int i = 0; i < 4; i++) {
        char path[512];
        snprintf(path, sizeof path, WEIGHTS "%s", files[i]);
        size_t size;
        unsigned char *bytes = read_whole(path, &size);
        for (size_t n = 0; n < size; n += n < 4096 ? 1 : 61) {
            unsigned char *part = malloc(n ? n : 1); // exact, so that overreads are seen
            memcpy(part, bytes, n);
            CnxrtWeights *w;
            CnxrtError err = {0};
            if (cnxrt_weights_open_memory(part, n, &w, &err) == CNXRT_OK)
                fail_msg("%s cut to %zu of %zu bytes opens", files[i], n, size);
            assert_non_null(err.text);
            cnxrt_error_free(&err);
            free(part);
        }
        free(bytes);
    }
}

// ---- pickles ------------------------------------------------------------------------------------

static Value *unpickle(Unpickler *u, const char *bytes, size_t n, CnxrtError *err) {
    unpickle_begin(u, "p", (const unsigned char *)bytes, n, err);
    return unpickle_next(u);
}

static void bad_pickles(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } cases[] = {
#define P(s, message) {s, sizeof s - 1, message}
        P("\x80\x02", "truncated"),
        P("\x80\x09N.", "protocol newer than 5"),
        P(".", "the stack is empty"),
        P("a.", "the stack is empty"),
        P("s.", "the stack is empty"),
        P("t.", "no mark"),
        P("u.", "no mark"),
        P("(u.", "the stack is empty"),
        P("}(K\x01u.", "a key without a value"),
        P("((\x85.", "the stack is empty"),
        P("h\x05.", "an unknown memo index"),
        P("Nr\xff\xff\xff\x7f.", "memo index beyond"),
        P("X\xff\xff\xff\xff"
          "a.",
          "truncated"),
        P("\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "truncated"),
        P("cos\nsystem", "truncated"),
        P("NQ.", "a persistent id that is not a storage"),
        P("I1\n.", "an opcode that torch.save does not write"),
        P("ctorch._utils\n_rebuild_tensor_v2\nN\x85R.", "a tensor is not (storage"),
        P("R.", "the stack is empty"),
        P("(0", "truncated"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Unpickler u;
        CnxrtError err = {0};
        assert_null(unpickle(&u, cases[i].bytes, cases[i].n, &err));
        assert_int_equal(u.status, CNXRT_ERROR_FORMAT);
        TEXT_HAS(err.text, cases[i].message, "(at byte ");
        cnxrt_error_free(&err);
        unpickle_end(&u);
    }
}

static void good_pickles(void **state) {
    (void)state;
    Unpickler u;
    CnxrtError err = {0};
    static const char cycle[] = "\x80\x02}q\x00X\x01\x00\x00\x00kh\x00s.";
    Value *v = unpickle(&u, cycle, sizeof cycle - 1, &err);
    assert_non_null(v);
    assert_ptr_equal(value_get(v, "k"), v);
    unpickle_end(&u);
    static const char ints[] = "(J\xff\xff\xff\xffM\x34\x12\x8a\x02\x00\x80\x8a\x00\x8a\x09"
                               "abcdefghit.";
    v = unpickle(&u, ints, sizeof ints - 1, &err);
    assert_int_equal(v->n, 5);
    assert_true(v->items[0]->i == -1 && v->items[1]->i == 0x1234 && v->items[2]->i == -32768);
    assert_true(v->items[3]->i == 0 && v->items[4]->kind == V_OPAQUE);
    unpickle_end(&u);
    static const char object[] = "cos\nsystem\nX\x02\x00\x00\x00ls\x85R}b.";
    v = unpickle(&u, object, sizeof object - 1, &err);
    assert_int_equal(v->kind, V_OPAQUE);
    assert_string_equal(v->s, "os system");
    unpickle_end(&u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_headers),      cmocka_unit_test(good_headers),
        cmocka_unit_test(writes_and_reads), cmocka_unit_test(cannot_write),
        cmocka_unit_test(strided_views),    cmocka_unit_test(says_what_it_took),
        cmocka_unit_test(runs_nothing),     cmocka_unit_test(not_a_checkpoint),
        cmocka_unit_test(truncated),        cmocka_unit_test(bad_pickles),
        cmocka_unit_test(good_pickles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
