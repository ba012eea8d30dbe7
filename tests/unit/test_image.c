// Decoding: every kind of JPEG and PNG against Pillow's pixels, and the messages for broken files.
#include "image_cases.h"

static void decode_case(const char *args) {
    char file[128], expected[256], path[512];
    int channels;
    assert_int_equal(sscanf(args, "%127s %d %255s", file, &channels, expected), 3);
    snprintf(path, sizeof path, IMAGES "%s", file);
    Image image;
    CnxrtError err = {0};
    if (image_case_load(path, channels, &image, &err) != CNXRT_OK)
        fail_msg("%s: %s", file, err.text);
    assert_int_equal(image.channels, channels);
    image_case_compare(file, expected, image.pixels, image.height, image.width, channels);
    image_free(&image);
}

static void error_case(const char *args) {
    char file[128], path[512];
    int used;
    assert_int_equal(sscanf(args, "%127s %n", file, &used), 1);
    snprintf(path, sizeof path, IMAGES "%s", file);
    Image image;
    CnxrtError err = {0};
    if (image_case_load(path, 3, &image, &err) == CNXRT_OK) fail_msg("%s: no error", file);
    assert_null(image.pixels);
    if (!strstr(err.text, args + used))
        fail_msg("%s: \"%s\" lacks \"%s\"", file, err.text, args + used);
    cnxrt_error_free(&err);
}

static void test_decode(void **state) {
    (void)state;
    assert_true(image_cases_run("decode", decode_case) >= 50);
}

static void test_errors(void **state) {
    (void)state;
    assert_true(image_cases_run("error", error_case) >= 13);
}

// Every prefix of a file and every single damaged byte: an error or pixels, never anything else.
static void damage(const char *file) {
    char path[512];
    snprintf(path, sizeof path, IMAGES "%s", file);
    uint8_t *bytes;
    size_t size;
    assert_int_equal(image_file_read(path, &bytes, &size, NULL), CNXRT_OK);
    ImageOptions o = {.channels = 3, .max_pixels = 1 << 16};
    for (size_t i = 0; i < 2 * size; i++) {
        size_t n = i < size ? i : size;
        uint8_t *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, n);
        if (i >= size) copy[i - size] ^= (uint8_t)(1 + i % 255);
        Image image;
        CnxrtError err = {0};
        CnxrtStatus s = image_decode(copy, n, &o, &image, &err);
        assert_true((s == CNXRT_OK) == (image.pixels != NULL));
        assert_true((s == CNXRT_OK) == (err.text == NULL));
        cnxrt_error_free(&err);
        image_free(&image);
        free(copy);
    }
    free(bytes);
}

static void test_damage(void **state) {
    (void)state;
    damage("exif6.jpg");
    damage("progressive.jpg");
    damage("exif6.png");
    damage("palette_trns.png");
}

static void test_limits(void **state) {
    (void)state;
    Image image;
    CnxrtError err = {0};
    uint8_t *bytes;
    size_t size;
    assert_int_equal(image_file_read(IMAGES "rgb.png", &bytes, &size, &err), CNXRT_OK);
    ImageOptions o = {.channels = 3, .max_pixels = 29 * 34 - 1};
    assert_int_not_equal(image_decode(bytes, size, &o, &image, &err), CNXRT_OK);
    assert_string_equal(err.text, "29x34 pixels; the limits are 65535 a side and 985 in all");
    cnxrt_error_free(&err);
    o.max_pixels++;
    assert_int_equal(image_decode(bytes, size, &o, &image, &err), CNXRT_OK);
    image_free(&image);
    free(bytes);
}

static void test_files(void **state) {
    (void)state;
    uint8_t *bytes;
    size_t size;
    CnxrtError err = {0};
    assert_int_equal(image_file_read(IMAGES "absent.png", &bytes, &size, &err), CNXRT_ERROR_IO);
    assert_non_null(strstr(err.text, "No such file"));
    assert_int_equal(image_file_read(IMAGES, &bytes, &size, &err), CNXRT_ERROR_IO);
    assert_string_equal(err.text, "a folder");
    cnxrt_error_free(&err);
    assert_true(image_name_supported("a/b.JPEG"));
    assert_true(image_name_supported("x.png"));
    assert_false(image_name_supported("png"));
    assert_false(image_name_supported("labels.tsv"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode), cmocka_unit_test(test_errors), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
