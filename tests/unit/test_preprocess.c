// Preprocessing: bit-identical with Pillow and torchvision's rules on small committed pictures and,
// when CNX_DATA names the folder with test-vectors, on whole photographs.
#include "image_cases.h"
#include "runtime/preprocess.h"
#include <zlib.h>

static const float mean[] = {0.485f, 0.456f, 0.406f, 0.5f}, std[] = {0.229f, 0.224f, 0.225f, 0.25f};

static void preprocess_case(const char *args) {
    char file[128], filter[16], expected[256], path[512];
    Preprocess p = {.mean = mean, .std = std};
    int warp;
    assert_int_equal(sscanf(args, "%127s %d %d %d %lf %d %15s %255s", file, &p.channels, &p.height,
                            &p.width, &p.crop_pct, &warp, filter, expected),
                     8);
    p.warp = warp != 0;
    p.filter = strcmp(filter, "bilinear") == 0 ? FILTER_BILINEAR : FILTER_BICUBIC;
    snprintf(path, sizeof path, IMAGES "%s", file);
    Image image;
    CnxrtError err = {0};
    if (image_case_load(path, p.channels, &image, &err) != CNXRT_OK)
        fail_msg("%s: %s", file, err.text);
    uint8_t *pixels = malloc((size_t)(p.height * p.width * p.channels));
    assert_non_null(pixels);
    assert_int_equal(preprocess_pixels(&p, &image, pixels, &err), CNXRT_OK);
    image_case_compare(file, expected, pixels, p.height, p.width, p.channels);
    free(pixels);
    image_free(&image);
}

static void test_cases(void **state) {
    (void)state;
    assert_true(image_cases_run("preprocess", preprocess_case) >= 15);
}

// The line of vectors.txt: FILE SIZE CROP WARP CRC32 of the pixels.
static void vector_case(const char *folder, const char *line) {
    char file[128], path[1024];
    Preprocess p = {.channels = 3, .mean = mean, .std = std, .filter = FILTER_BICUBIC};
    int warp;
    unsigned want;
    assert_int_equal(sscanf(line, "%127s %d %lf %d %x", file, &p.height, &p.crop_pct, &warp, &want),
                     5);
    p.width = p.height, p.warp = warp != 0;
    snprintf(path, sizeof path, "%s/test-vectors/%s", folder, file);
    Image image;
    CnxrtError err = {0};
    if (image_case_load(path, 3, &image, &err) != CNXRT_OK) fail_msg("%s: %s", path, err.text);
    size_t n = (size_t)(p.height * p.width * 3);
    uint8_t *pixels = malloc(n);
    assert_non_null(pixels);
    assert_int_equal(preprocess_pixels(&p, &image, pixels, &err), CNXRT_OK);
    unsigned got = (unsigned)crc32(0, pixels, (uInt)n);
    if (got != want) fail_msg("%s at %d: CRC %08x, expected %08x", file, p.height, got, want);
    free(pixels);
    image_free(&image);
}

static void test_vectors(void **state) {
    (void)state;
    const char *folder = getenv("CNX_DATA");
    if (!folder) {
        print_message("CNX_DATA is not set: the photographs of test-vectors are not checked\n");
        skip();
    }
    FILE *f = fopen(IMAGES "vectors.txt", "r");
    assert_non_null(f);
    char line[256];
    while (fgets(line, sizeof line, f)) vector_case(folder, line);
    fclose(f);
}

static void test_normalise(void **state) {
    (void)state;
    uint8_t pixels[2 * 2 * 3] = {0, 51, 255, 10, 20, 30, 1, 2, 3, 250, 251, 252};
    Image image = {2, 2, 3, pixels};
    Preprocess p = {3, 2, 2, 1, false, FILTER_BICUBIC, mean, std};
    float out[12];
    CnxrtError err = {0};
    assert_int_equal(preprocess_image(&p, &image, out, &err), CNXRT_OK);
    for (int i = 0; i < 12; i++) {
        float want = ((float)pixels[i] / 255.0f - mean[i % 3]) / std[i % 3];
        assert_memory_equal(&out[i], &want, sizeof want);
    }
}

// A strip whose resized form would be enormous: only the window is computed.
static void test_strip(void **state) {
    (void)state;
    enum { LONG = 65535 };
    Image image = {LONG, 1, 1, malloc(LONG)};
    assert_non_null(image.pixels);
    memset(image.pixels, 77, LONG);
    Preprocess p = {1, 224, 224, 0.875, false, FILTER_BICUBIC, mean, std};
    uint8_t *out = malloc(224 * 224);
    assert_non_null(out);
    CnxrtError err = {0};
    assert_int_equal(preprocess_pixels(&p, &image, out, &err), CNXRT_OK);
    for (int i = 0; i < 224 * 224; i++) assert_int_equal(out[i], 77);
    image = (Image){1, LONG, 1, image.pixels};
    p.warp = true;
    assert_int_equal(preprocess_pixels(&p, &image, out, &err), CNXRT_OK);
    for (int i = 0; i < 224 * 224; i++) assert_int_equal(out[i], 77);
    free(out);
    free(image.pixels);
}

static void test_model(void **state) {
    (void)state;
    CnxrtModel m = {.name = "m", .channels = 12, .height = 8, .width = 9, .crop_pct = 0.5};
    Preprocess p;
    CnxrtError err = {0};
    assert_int_equal(preprocess_of_model(&m, &p, &err), CNXRT_ERROR_ARGUMENT);
    assert_non_null(strstr(err.text, "takes 12 channels"));
    assert_non_null(strstr(err.text, "--input"));
    cnxrt_error_free(&err);
    m.channels = 4;
    m.interpolation = "bilinear";
    assert_int_equal(preprocess_of_model(&m, &p, &err), CNXRT_OK);
    assert_int_equal(p.filter, FILTER_BILINEAR);
    assert_int_equal(p.width, 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),     cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_normalise), cmocka_unit_test(test_strip),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
