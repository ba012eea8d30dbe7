// .npy files: what is read, what is written, what is refused.
#include "weights_case.h"

static CnxrtStatus parse(const char *header, int version, const void *data, size_t n, CnxrtNpy *out,
                         CnxrtError *err) {
    size_t len = strlen(header), lenbytes = version == 1 ? 2 : 4, size = 8 + lenbytes + len + n;
    unsigned char *b = calloc(1, size); // exact, so that overreads are seen
    memcpy(b, "\x93NUMPY", 6);
    b[6] = (unsigned char)version;
    b[8] = (unsigned char)len;
    memcpy(b + 8 + lenbytes, header, len);
    if (n) memcpy(b + 8 + lenbytes + len, data, n);
    CnxrtStatus status = npy_parse(b, size, "x.npy", out, err);
    free(b);
    return status;
}

static void reads_types(void **state) {
    (void)state;
    static const double wide[2] = {1.5, -2};
    static const int64_t longs[2] = {7, -1};
    CnxrtNpy t;
    assert_int_equal(
        parse("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n", 1, wide, 16, &t, NULL),
        CNXRT_OK);
    assert_string_equal(t.dtype, "f8");
    assert_int_equal(t.rank, 1);
    assert_memory_equal(t.data, wide, 16);
    cnxrt_npy_free(&t);
    assert_int_equal(parse("{\"shape\":(1,2),\"fortran_order\":False,\"descr\":\"<i8\"}", 2, longs,
                           16, &t, NULL),
                     CNXRT_OK);
    assert_int_equal(t.rank, 2);
    assert_int_equal(t.dims[1], 2);
    cnxrt_npy_free(&t);
    assert_int_equal(
        parse("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", 3, "a", 1, &t, NULL),
        CNXRT_OK);
    assert_int_equal(t.rank, 0);
    cnxrt_npy_free(&t);
    assert_int_equal(
        parse("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3L), }", 1, "", 0, &t, NULL),
        CNXRT_OK);
    cnxrt_npy_free(&t);
}

// Every real and boolean type as f32.
static void converts_types(void **state) {
    (void)state;
    static const struct {
        const char *descr;
        size_t size;
        unsigned char bytes[16];
        float values[2];
    } cases[] = {
        {"|b1", 1, {1, 0}, {1, 0}},
        {"|i1", 1, {0xff, 2}, {-1, 2}},
        {"|u1", 1, {0xff, 2}, {255, 2}},
        {"<i2", 2, {0xfe, 0xff, 3}, {-2, 3}},
        {"<u2", 2, {0xfe, 0xff, 3}, {65534, 3}},
        {"<i4", 4, {0xfd, 0xff, 0xff, 0xff, 4}, {-3, 4}},
        {"<u4", 4, {0, 0, 0, 0x80, 4}, {2147483648.0f, 4}},
        {"<i8", 8, {0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 5}, {-4, 5}},
        {"<u8", 8, {0, 0, 0, 0, 0, 0, 0, 0x80, 5}, {0x1p63f, 5}},
        {"<f2", 2, {0, 0x3c, 0, 0xc0}, {1, -2}},
        {"<f4", 4, {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}, {1, -2}},
        {"<f8", 8, {0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0}, {1, -2}},
    };
    char path[] = "/tmp/test_npy_XXXXXX";
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[118], head[129];
        snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (2,), }",
                 cases[i].descr);
        snprintf(head, sizeof head, "%-118s", header);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        fwrite("\x93NUMPY\x01\0\x76\0", 1, 10, f);
        fwrite(head, 1, 118, f);
        fwrite(cases[i].bytes, 1, 2 * cases[i].size, f);
        fclose(f);
        CnxrtNpy t;
        CnxrtError err = {0};
        if (cnxrt_npy_read_f32(path, &t, &err) != CNXRT_OK) fail_msg("%s", err.text);
        for (int k = 0; k < 2; k++)
            if (((float *)t.data)[k] != cases[i].values[k])
                fail_msg("%s: element %d is %g", cases[i].descr, k, (double)((float *)t.data)[k]);
        cnxrt_npy_free(&t);
    }
    unlink(path);
}

static void refuses(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n;
        const char *message;
    } cases[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", 8, "'>f4' is not read"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8, "'<c8' is not read"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8, "'|O' is not read"},
        {"{'descr': '', 'fortran_order': False, 'shape': (1,), }", 8, "'' is not read"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1,2), }", 8, "ascontiguousarray"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 8, "truncated: (3)"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,4), }", 8,
         "truncated"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 8,
         "not a dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 8,
         "not a dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 8, "not a dict"},
        {"{'descr': '<f4', 'shape': (1,), }", 8, "not a dict"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", 8, "not a dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", 8, "not a dict"},
        {"", 0, "not a dict"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CnxrtNpy t;
        CnxrtError err = {0};
        assert_int_equal(parse(cases[i].header, 1, "12345678", cases[i].n, &t, &err),
                         CNXRT_ERROR_FORMAT);
        assert_null(t.data);
        TEXT_HAS(err.text, "x.npy", cases[i].message);
        cnxrt_error_free(&err);
    }
    CnxrtNpy t;
    CnxrtError err = {0};
    assert_int_equal(npy_parse((const unsigned char *)"PK\3\4______", 10, "x", &t, &err),
                     CNXRT_ERROR_FORMAT);
    TEXT_HAS(err.text, "not a .npy file");
    assert_int_equal(npy_parse((const unsigned char *)"\x93NUMPY\x01\0\xff\xff", 10, "x", &t, &err),
                     CNXRT_ERROR_FORMAT);
    TEXT_HAS(err.text, "truncated: a header of 65535 bytes in a file of 10");
    assert_int_equal(npy_parse((const unsigned char *)"\x93NUMPY\x07\0\xff\xff", 10, "x", &t, &err),
                     CNXRT_ERROR_FORMAT);
    TEXT_HAS(err.text, "version 7");
    assert_int_equal(cnxrt_npy_read("/nonexistent.npy", &t, &err), CNXRT_ERROR_IO);
    cnxrt_error_free(&err);
}

static void writes(void **state) {
    (void)state;
    char path[] = "/tmp/test_npy_XXXXXX";
    close(mkstemp(path));
    float x[6] = {1, 2, 3, -4, 0.5f, 6e20f};
    const int64_t dims[3] = {1, 2, 3};
    CnxrtError err = {0};
    for (int rank = 0; rank <= 3; rank += 3) {
        assert_int_equal(cnxrt_npy_write_f32(path, rank, dims, x, &err), CNXRT_OK);
        CnxrtNpy t;
        assert_int_equal(cnxrt_npy_read_f32(path, &t, &err), CNXRT_OK);
        assert_int_equal(t.rank, rank);
        assert_memory_equal(t.dims, dims, (size_t)rank * sizeof *dims);
        assert_memory_equal(t.data, x, rank ? sizeof x : sizeof *x);
        cnxrt_npy_free(&t);
        size_t size;
        unsigned char *b = read_whole(path, &size);
        assert_int_equal((10 + b[8] + 256 * b[9]) % 64, 0); // as numpy aligns it
        free(b);
    }
    const int64_t labels[2] = {-1, (int64_t)1 << 40};
    CnxrtNpy t;
    assert_int_equal(cnxrt_npy_write_i64(path, 1, dims + 1, labels, &err), CNXRT_OK);
    assert_int_equal(cnxrt_npy_read(path, &t, &err), CNXRT_OK);
    assert_string_equal(t.dtype, "i8");
    assert_int_equal(t.dims[0], 2);
    assert_memory_equal(t.data, labels, sizeof labels);
    cnxrt_npy_free(&t);
    assert_int_equal(cnxrt_npy_write_f32("/nonexistent/x.npy", 1, dims, x, &err), CNXRT_ERROR_IO);
    assert_int_equal(cnxrt_npy_write_f32(path, 9, dims, x, &err), CNXRT_ERROR_ARGUMENT);
    cnxrt_error_free(&err);
    unlink(path);
}

// What is no regular file is written, not replaced.
static void writes_through(void **state) {
    (void)state;
    char path[] = "/tmp/test_npy_XXXXXX";
    close(mkstemp(path));
    char *link = malloc(sizeof path + 5);
    sprintf(link, "%s.link", path);
    assert_int_equal(symlink(path, link), 0);
    const float x[2] = {1, 2};
    const int64_t dims[1] = {2};
    CnxrtError err = {0};
    assert_int_equal(cnxrt_npy_write_f32(link, 1, dims, x, &err), CNXRT_OK);
    char target[64];
    assert_int_equal(readlink(link, target, sizeof target), (int)strlen(path));
    CnxrtNpy t;
    assert_int_equal(cnxrt_npy_read_f32(path, &t, &err), CNXRT_OK);
    assert_memory_equal(t.data, x, sizeof x);
    cnxrt_npy_free(&t);
    unlink(link);
    unlink(path);
    if (access("/dev/full", W_OK) == 0) {
        // a link to the device: the device itself is not at stake
        assert_int_equal(symlink("/dev/full", link), 0);
        assert_int_equal(cnxrt_npy_write_f32(link, 1, dims, x, &err), CNXRT_ERROR_IO);
        unlink(link);
    }
    cnxrt_error_free(&err);
    free(link);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(reads_types),
                                       cmocka_unit_test(converts_types), cmocka_unit_test(refuses),
                                       cmocka_unit_test(writes), cmocka_unit_test(writes_through)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
