// Augmentation: every operation bit for bit against Pillow, whole samples against timm's functions
// on the same draws, and the properties of erasing, mixup and cutmix.
#include "runtime/augment.h"
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FIXTURES CNX_SOURCE_DIR "/tests/unit/data/augment/"
#define IMAGES CNX_SOURCE_DIR "/tests/unit/data/images/"

static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
static const uint8_t fill[] = {124, 116, 104};

static CnxrtNpy fixture_pixels(void) {
    CnxrtNpy t;
    CnxrtError err = {0};
    if (cnxrt_npy_read(FIXTURES "pixels.npy", &t, &err) != CNXRT_OK) fail_msg("%s", err.text);
    assert_string_equal(t.dtype, "u1");
    return t;
}

// Runs on the text after the word `kind` of every line that begins with it; returns how many.
static int cases_run(const char *kind, void (*run)(const char *args, const CnxrtNpy *pixels)) {
    CnxrtNpy pixels = fixture_pixels();
    FILE *f = fopen(FIXTURES "cases.txt", "r");
    assert_non_null(f);
    char line[256];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        size_t k = strlen(kind);
        if (strncmp(line, kind, k) != 0 || line[k] != ' ') continue;
        run(line + k + 1, &pixels);
        n++;
    }
    fclose(f);
    cnxrt_npy_free(&pixels);
    return n;
}

// A picture of the fixtures on the heap.
static Image picture(const CnxrtNpy *pixels, int w, int h, int c, int64_t at) {
    size_t n = (size_t)w * (size_t)h * (size_t)c;
    Image m = {w, h, c, malloc(n)};
    assert_non_null(m.pixels);
    assert_true(at >= 0 && at + (int64_t)n <= pixels->dims[0]);
    memcpy(m.pixels, (const uint8_t *)pixels->data + at, n);
    return m;
}

static AugmentOp op_of(const char *name) {
    static const char *const names[] = {"autocontrast", "equalize",    "invert",       "rotate",
                                        "posterize",    "solarize",    "solarize_add", "color",
                                        "contrast",     "brightness",  "sharpness",    "shear_x",
                                        "shear_y",      "translate_x", "translate_y"};
    for (int i = 0; i < AUGMENT_OPS; i++)
        if (strcmp(name, names[i]) == 0) return (AugmentOp)i;
    fail_msg("operation %s", name);
    return AUGMENT_OPS;
}

static void op_case(const char *args, const CnxrtNpy *pixels) {
    char name[32];
    double value;
    int w, h, c;
    long at, want_at;
    assert_int_equal(
        sscanf(args, "%31s %lf %d %d %d %ld %ld", name, &value, &w, &h, &c, &at, &want_at), 7);
    Image m = picture(pixels, w, h, c, at), want = picture(pixels, w, h, c, want_at);
    CnxrtError err = {0};
    assert_int_equal(augment_apply(op_of(name), value, fill, &m, &err), CNXRT_OK);
    for (int i = 0; i < w * h * c; i++)
        if (m.pixels[i] != want.pixels[i])
            fail_msg("%s %g of %dx%dx%d: row %d column %d channel %d is %d, expected %d", name,
                     value, w, h, c, i / c / w, i / c % w, i % c, m.pixels[i], want.pixels[i]);
    image_free(&m);
    image_free(&want);
}

static void test_ops(void **state) {
    (void)state;
    assert_true(cases_run("op", op_case) >= 150);
}

static Augment full_policy(int channels, int size) {
    Augment a = {.base = {channels, size, size, 1, false, FILTER_BICUBIC, mean, std},
                 .crop = true,
                 .scale = {0.08, 1},
                 .ratio = {3.0 / 4, 4.0 / 3},
                 .flip = 0.5};
    CnxrtError err = {0};
    assert_int_equal(augment_parse("rand-m9-mstd0.5-inc1", &a.policy, &err), CNXRT_OK);
    return a;
}

static void sample_case(const char *args, const CnxrtNpy *pixels) {
    int index, w, h, c, size;
    long at, want_at;
    assert_int_equal(
        sscanf(args, "%d %d %d %d %ld %d %ld", &index, &w, &h, &c, &at, &size, &want_at), 7);
    Image m = picture(pixels, w, h, c, at), want = picture(pixels, size, size, c, want_at);
    Augment a = full_policy(c, size);
    AugmentDraw d = {.augment = &a, .seed = 7, .epoch = 3, .sample = (uint64_t)index};
    float out[20 * 20 * 3];
    CnxrtError err = {0};
    assert_int_equal(augment_image(&d, &m, out, &err), CNXRT_OK);
    for (int i = 0; i < size * size * c; i++) {
        float v = ((float)want.pixels[i] / 255.0f - mean[i % c]) / std[i % c];
        if (out[i] != v)
            fail_msg("sample %d of %dx%dx%d: row %d column %d channel %d is %g, expected %g", index,
                     w, h, c, i / c / size, i / c % size, i % c, (double)out[i], (double)v);
    }
    image_free(&m);
    image_free(&want);
}

static void test_samples(void **state) {
    (void)state;
    assert_true(cases_run("sample", sample_case) >= 60);
}

static void test_parse(void **state) {
    (void)state;
    RandAugment a;
    CnxrtError err = {0};
    assert_int_equal(augment_parse("rand-m9-mstd0.5-inc1", &a, &err), CNXRT_OK);
    assert_int_equal(a.ops, 2);
    assert_true(a.magnitude == 9 && a.std == 0.5 && a.increasing && a.probability == 0.5 &&
                a.most == 10);
    assert_int_equal(augment_parse("rand-n3-mmax20-p0.25-mstdinf", &a, &err), CNXRT_OK);
    assert_int_equal(a.ops, 3);
    assert_true(a.magnitude == 10 && isinf(a.std) && !a.increasing && a.most == 20 &&
                a.probability == 0.25);
    static const char *const bad[] = {"m9",       "rand-m", "rand-x3", "rand-m9x",
                                      "rand-m9-", "",       "randm9",  "rand--m9"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(augment_parse(bad[i], &a, &err), CNXRT_ERROR_ARGUMENT);
        assert_non_null(strstr(err.text, "as in rand-m9-mstd0.5-inc1"));
    }
    assert_int_equal(augment_parse("rand-p1.5", &a, &err), CNXRT_ERROR_ARGUMENT);
    assert_non_null(strstr(err.text, "p is 1.5, expected 0 to 1"));
    assert_int_equal(augment_parse("rand-n99", &a, &err), CNXRT_ERROR_ARGUMENT);
    cnxrt_error_free(&err);
}

static void test_values(void **state) {
    (void)state;
    RandAugment up = {.increasing = true}, down = {0};
    assert_true(augment_value(&up, AUGMENT_ROTATE, 9, true) == -27);
    assert_true(augment_value(&up, AUGMENT_POSTERIZE, 9, false) == 1);
    assert_true(augment_value(&down, AUGMENT_POSTERIZE, 9, false) == 3);
    assert_true(augment_value(&up, AUGMENT_SOLARIZE, 9, false) == 26);
    assert_true(augment_value(&down, AUGMENT_SOLARIZE, 9, false) == 230);
    assert_true(augment_value(&up, AUGMENT_SOLARIZE_ADD, 9, false) == 99);
    assert_true(fabs(augment_value(&up, AUGMENT_COLOR, 9, true) - 0.19) < 1e-12);
    assert_true(augment_value(&up, AUGMENT_COLOR, 10, true) == 0.1);
    assert_true(fabs(augment_value(&down, AUGMENT_COLOR, 9, true) - 1.72) < 1e-12);
    assert_true(fabs(augment_value(&up, AUGMENT_TRANSLATE_X, 9, true) + 0.405) < 1e-12);
}

static void test_box(void **state) {
    (void)state;
    static const double scale[] = {0.08, 1}, ratio[] = {3.0 / 4, 4.0 / 3};
    double area = 0;
    for (uint64_t i = 0; i < 4000; i++) {
        Rng r = rng_stream(1, RNG_AUGMENT, 0, i);
        Box b = augment_crop_box(scale, ratio, 200, 150, &r);
        assert_true(b.left >= 0 && b.top >= 0 && b.width > 0 && b.height > 0);
        assert_true(b.left + b.width <= 200 && b.top + b.height <= 150);
        area += (double)b.width * b.height / (200 * 150);
    }
    assert_true(area / 4000 > 0.431 && area / 4000 < 0.432);
    Rng r = rng_stream(1, RNG_AUGMENT, 0, 0);
    Box strip = augment_crop_box(scale, ratio, 1000, 3, &r); // nothing fits: the centre
    assert_true(strip.width == 4 && strip.height == 3 && strip.left == 498 && strip.top == 0);
    strip = augment_crop_box(scale, ratio, 3, 1000, &r);
    assert_true(strip.width == 3 && strip.height == 4 && strip.top == 498);
}

// Without a random crop: the model's own preprocessing.
static void test_plain(void **state) {
    (void)state;
    CnxrtNpy pixels = fixture_pixels();
    Image m = picture(&pixels, 29, 23, 3, 0);
    Augment a = full_policy(3, 16);
    a.crop = false, a.flip = 0, a.policy.ops = 0;
    AugmentDraw d = {.augment = &a};
    float out[16 * 16 * 3], want[16 * 16 * 3];
    CnxrtError err = {0};
    assert_int_equal(augment_image(&d, &m, out, &err), CNXRT_OK);
    assert_int_equal(preprocess_image(&a.base, &m, want, &err), CNXRT_OK);
    assert_memory_equal(out, want, sizeof out);
    assert_int_equal(augment_shrink(&d, 4000, 4000), 1);
    a.flip = 1;
    assert_int_equal(augment_image(&d, &m, out, &err), CNXRT_OK);
    for (int i = 0; i < 16 * 16; i++)
        assert_memory_equal(out + 3 * i, want + 3 * (i / 16 * 16 + 15 - i % 16), 3 * sizeof *out);
    a.base.channels = 4, a.policy.ops = 2;
    assert_int_equal(augment_image(&d, &m, out, &err), CNXRT_ERROR_ARGUMENT);
    cnxrt_error_free(&err);
    image_free(&m);
    cnxrt_npy_free(&pixels);
}

static void test_erase(void **state) {
    (void)state;
    enum { SIDE = 32, N = SIDE * SIDE };
    Image m = {SIDE, SIDE, 1, calloc(N, 1)};
    assert_non_null(m.pixels);
    Augment a = {.base = {1, SIDE, SIDE, 1, false, FILTER_BICUBIC, mean, std}, .erase = 0.25};
    CnxrtError err = {0};
    int erased = 0;
    double sum = 0, square = 0, count = 0;
    float plain = (0 - mean[0]) / std[0], out[N];
    for (uint64_t i = 0; i < 2000; i++) {
        AugmentDraw d = {.augment = &a, .sample = i};
        assert_int_equal(augment_image(&d, &m, out, &err), CNXRT_OK);
        int changed = 0;
        for (int k = 0; k < N; k++)
            if (out[k] != plain) changed++, sum += out[k], square += out[k] * out[k];
        count += changed;
        erased += changed > 0;
        if (changed) assert_true(changed >= 0.015 * N && changed <= 0.36 * N);
    }
    assert_true(erased > 420 && erased < 580);
    assert_true(fabs(sum / count) < 0.02 && fabs(square / count - 1) < 0.03);
    image_free(&m);
}

// ---- scaled decoding -------------------------------------------------------------------------

static uint8_t *file_bytes(const char *path, size_t *size) {
    uint8_t *bytes;
    CnxrtError err = {0};
    if (image_file_read(path, &bytes, size, &err) != CNXRT_OK) fail_msg("%s", err.text);
    return bytes;
}

static int shrink_four(void *user, int width, int height) {
    int *seen = user;
    seen[0] = width, seen[1] = height;
    return 4;
}

static void test_shrink(void **state) {
    (void)state;
    static const struct {
        const char *file;
        bool jpeg;
    } files[] = {
        {IMAGES "exif6.jpg", true}, {IMAGES "exif6.png", false}, {IMAGES "cmyk.jpg", true}};
    for (int i = 0; i < 3; i++) {
        int seen[2] = {0};
        size_t size;
        uint8_t *bytes = file_bytes(files[i].file, &size);
        Image whole, small;
        ImageOptions plain = {.channels = 3};
        ImageOptions o = {.channels = 3, .shrink = shrink_four, .user = seen};
        CnxrtError err = {0};
        assert_int_equal(image_decode(bytes, size, &plain, &whole, &err), CNXRT_OK);
        assert_int_equal(image_decode(bytes, size, &o, &small, &err), CNXRT_OK);
        assert_int_equal(seen[0], whole.width); // upright
        assert_int_equal(seen[1], whole.height);
        int n = files[i].jpeg ? 4 : 1;
        assert_int_equal(small.width, (whole.width + n - 1) / n);
        assert_int_equal(small.height, (whole.height + n - 1) / n);
        image_free(&whole);
        image_free(&small);
        free(bytes);
    }
}

// A large photograph: the same crop, nearly the same pixels.
static void test_shrink_draw(void **state) {
    (void)state;
    const char *folder = getenv("CNX_DATA");
    if (!folder) {
        print_message("CNX_DATA is not set: the photographs of test-vectors are not checked\n");
        skip();
    }
    char path[1024];
    size_t size;
    snprintf(path, sizeof path, "%s/test-vectors/ivy_cat.jpg", folder);
    uint8_t *bytes = file_bytes(path, &size);
    Augment a = full_policy(3, 64);
    a.policy.ops = 0;
    int shrunk = 0;
    float *x = malloc(2 * 64 * 64 * 3 * sizeof *x), *y = x + 64 * 64 * 3;
    assert_non_null(x);
    for (uint64_t i = 0; i < 6; i++) {
        AugmentDraw d = {.augment = &a, .sample = i}, plain = d;
        ImageOptions o = {.channels = 3, .shrink = augment_shrink, .user = &d},
                     all = {.channels = 3};
        Image m, whole;
        CnxrtError err = {0};
        assert_int_equal(image_decode(bytes, size, &o, &m, &err), CNXRT_OK);
        assert_int_equal(image_decode(bytes, size, &all, &whole, &err), CNXRT_OK);
        assert_int_equal(d.width, whole.width);
        shrunk += m.width < whole.width;
        assert_int_equal(augment_image(&d, &m, x, &err), CNXRT_OK);
        assert_int_equal(augment_image(&plain, &whole, y, &err), CNXRT_OK);
        double difference = 0;
        for (int k = 0; k < 64 * 64 * 3; k++) difference += fabs((double)x[k] - (double)y[k]);
        assert_true(difference / (64 * 64 * 3) < 0.15);
        plain.sample = i + 100; // another crop is far from it
        assert_int_equal(augment_image(&plain, &whole, y, &err), CNXRT_OK);
        difference = 0;
        for (int k = 0; k < 64 * 64 * 3; k++) difference += fabs((double)x[k] - (double)y[k]);
        assert_true(difference / (64 * 64 * 3) > 0.3);
        image_free(&m);
        image_free(&whole);
    }
    assert_true(shrunk >= 4);
    free(x);
    free(bytes);
}

// ---- batches ---------------------------------------------------------------------------------

static void test_mix_draw(void **state) {
    (void)state;
    MixOptions o = {.mixup = 0.8, .cutmix = 1, .probability = 1, .switching = 0.5};
    int cut = 0;
    double lambda = 0;
    for (uint64_t i = 0; i < 4000; i++) {
        MixPlan p = mix_draw(&o, 24, 40, 3, 0, i);
        assert_true(p.lambda >= 0 && p.lambda <= 1);
        lambda += p.lambda;
        if (!p.cutmix) continue;
        cut++;
        Box b = p.box;
        assert_true(b.left >= 0 && b.top >= 0 && b.left + b.width <= 40 && b.top + b.height <= 24);
        assert_true(fabs(p.lambda - (1 - b.width * b.height / 960.0)) < 1e-12);
    }
    assert_true(cut > 1850 && cut < 2150);
    assert_true(lambda / 4000 > 0.5 && lambda / 4000 < 0.65);
    o.cutmix = 0;
    for (uint64_t i = 0; i < 50; i++) assert_false(mix_draw(&o, 24, 40, 3, 0, i).cutmix);
    o.mixup = 0, o.cutmix = 1;
    for (uint64_t i = 0; i < 50; i++) assert_true(mix_draw(&o, 24, 40, 3, 0, i).cutmix);
    o.probability = 0;
    assert_true(mix_draw(&o, 24, 40, 3, 0, 0).lambda == 1);
    o.cutmix = 0, o.probability = 1;
    assert_true(mix_draw(&o, 24, 40, 3, 0, 0).lambda == 1);
}

static void test_mix_images(void **state) {
    (void)state;
    enum { H = 3, W = 4, C = 2, SIZE = H * W * C, BATCH = 5 };
    float x[BATCH * SIZE], was[BATCH * SIZE];
    for (int i = 0; i < BATCH * SIZE; i++) was[i] = x[i] = (float)i;
    MixPlan up = {.lambda = 0.75};
    mix_images(&up, BATCH, H, W, C, x);
    for (int s = 0; s < BATCH; s++)
        for (int k = 0; k < SIZE; k++) {
            float want = was[s * SIZE + k] * 0.75f + was[(BATCH - 1 - s) * SIZE + k] * 0.25f;
            assert_true(x[s * SIZE + k] == want);
        }
    memcpy(x, was, sizeof x);
    MixPlan cut = {.cutmix = true, .box = {1, 1, 2, 1}, .lambda = 1 - 2.0 / 12};
    mix_images(&cut, BATCH, H, W, C, x);
    for (int s = 0; s < BATCH; s++)
        for (int k = 0; k < SIZE; k++) {
            int row = k / C / W, column = k / C % W;
            bool in = row == 1 && column >= 1 && column < 3;
            assert_true(x[s * SIZE + k] == was[(in ? BATCH - 1 - s : s) * SIZE + k]);
        }
    MixPlan none = {.lambda = 1};
    memcpy(x, was, sizeof x);
    mix_images(&none, BATCH, H, W, C, x);
    assert_memory_equal(x, was, sizeof x);
}

static void test_mix_targets(void **state) {
    (void)state;
    static const int32_t labels[] = {2, 0, 1}, set[] = {0, 3};
    MixPlan p = {.lambda = 0.75};
    float t[4 * 4];
    for (int i = 0; i < 3; i++) target_row(&labels[i], 1, 0.2, 4, t + 4 * i);
    mix_targets(&p, 3, 4, t); // smoothed: 0.85 and 0.05; the middle of 3 stays
    static const float want[] = {0.05f, 0.25f, 0.65f, 0.05f, 0.85f, 0.05f,
                                 0.05f, 0.05f, 0.05f, 0.65f, 0.25f, 0.05f};
    for (int i = 0; i < 12; i++) assert_true(fabsf(t[i] - want[i]) < 1e-6f);
    // Rows of several labels, of none: smoothed alike, mixed as rows.
    target_row(set, 2, 0.2, 4, t);
    target_row(set, 0, 0.2, 4, t + 4);
    mix_targets(&p, 2, 4, t);
    static const float sets[] = {0.65f, 0.05f, 0.05f, 0.65f, 0.25f, 0.05f, 0.05f, 0.25f};
    for (int i = 0; i < 8; i++) assert_true(fabsf(t[i] - sets[i]) < 1e-6f);
    p.lambda = 1;
    for (int i = 0; i < 3; i++) target_row(&labels[i], 1, 0, 4, t + 4 * i);
    target_row(labels, -1, 0, 4, t + 12); // unlabelled
    mix_targets(&p, 4, 4, t);
    for (int i = 0; i < 16; i++) assert_true(t[i] == (i < 12 && labels[i / 4] == i % 4 ? 1 : 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),         cmocka_unit_test(test_samples),
        cmocka_unit_test(test_parse),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_box),         cmocka_unit_test(test_plain),
        cmocka_unit_test(test_erase),       cmocka_unit_test(test_shrink),
        cmocka_unit_test(test_shrink_draw), cmocka_unit_test(test_mix_draw),
        cmocka_unit_test(test_mix_images),  cmocka_unit_test(test_mix_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
