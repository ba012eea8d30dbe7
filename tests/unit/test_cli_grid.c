// Grids of reconstructions: pixels of patches, statistics, layout, and the PNG that is written.
#include "runtime/cli_grid.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { H = 4, W = 6, UNIT = 1 }; // cells of 2 x 3 pixels: 2 x 2 of them

static const float mean[4] = {0.5f, 0.25f, 0.75f, 0}, deviation[4] = {0.5f, 0.25f, 0.125f, 1};
static const CnxrtFcmae plain = {.grid = {2, 2}, .mask_unit = UNIT, .stride = {2, 3}},
                        normalised = {
                            .grid = {1, 1}, .mask_unit = 2, .stride = {2, 3}, .norm_pix = 1};

static CnxrtModel model(int channels, const CnxrtFcmae *f) {
    return (CnxrtModel){
        .channels = channels, .height = H, .width = W, .mean = mean, .std = deviation, .fcmae = f};
}

// Cells 1 and 2 (top right, bottom left) are hidden.
static const float cells[4] = {0, 1, 1, 0};

static bool hidden(int y, int x) { return (y < 2) == (x >= 3); }

static void pastes_patches(void **state) {
    (void)state;
    for (int c = 1; c <= 4; c++) {
        CnxrtModel m = model(c, &plain);
        float image[H * W * 4], pred[H * W * 4], out[H * W * 4];
        for (int i = 0; i < H * W * c; i++) image[i] = (float)i, pred[i] = (float)(1000 + i);
        reconstruct_paste(&m, image, cells, pred, out);
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                for (int k = 0; k < c; k++) {
                    int i = (y * W + x) * c + k, cell = y / 2 * 2 + x / 3;
                    int inside = (y % 2 * 3 + x % 3) * c + k; // row, column, channel
                    float want = hidden(y, x) ? (float)(1000 + cell * 6 * c + inside) : image[i];
                    assert_true(out[i] == want);
                }
        reconstruct_hide(&m, image, cells, out);
        for (int i = 0; i < H * W * c; i++) {
            float grey = (0.5f - mean[i % c]) / deviation[i % c];
            assert_true(out[i] == (hidden(i / c / W, i / c % W) ? grey : image[i]));
        }
    }
}

// A prediction equal to the normalised target gives the image back.
static void undoes_the_normalisation(void **state) {
    (void)state;
    CnxrtModel m = model(3, &normalised);
    float image[H * W * 3], pred[H * W * 3], out[H * W * 3];
    const float all[4] = {1, 1, 1, 1};
    for (int i = 0; i < H * W * 3; i++) image[i] = (float)((i * 37 + 11) % 64) / 16 - 2;
    for (int cell = 0; cell < 4; cell++) {
        int at[18];
        double sum = 0, squares = 0;
        for (int i = 0; i < 18; i++)
            at[i] = ((cell / 2 * 2 + i / 9) * W + cell % 2 * 3 + i % 9 / 3) * 3 + i % 3;
        for (int i = 0; i < 18; i++) sum += (double)image[at[i]];
        for (int i = 0; i < 18; i++) squares += pow((double)image[at[i]] - sum / 18, 2);
        for (int i = 0; i < 18; i++)
            pred[cell * 18 + i] =
                (float)(((double)image[at[i]] - sum / 18) / sqrt(squares / 17 + 1e-6));
    }
    reconstruct_paste(&m, image, all, pred, out);
    for (int i = 0; i < H * W * 3; i++) assert_true(fabs((double)(out[i] - image[i])) < 1e-5);
}

static void paints_and_writes(void **state) {
    (void)state;
    static const int channels_of[] = {0, 1, 1, 3, 3}; // of the grid, by those of the model
    for (int c = 1; c <= 4; c++) {
        CnxrtModel m = model(c, &plain);
        Grid g;
        assert_true(grid_new(&g, &m, 5));
        assert_int_equal(g.image.channels, channels_of[c]);
        assert_int_equal(g.scale, 128 / W);
        float image[H * W * 4];
        for (int i = 0; i < H * W * c; i++) // pixel values 10, 11, ... and beyond the range
            image[i] = ((float)(10 + i) / 255 - mean[i % c]) / deviation[i % c];
        image[0] = -100, image[c] = 100;
        for (int which = 0; which < 3; which++) grid_put(&g, &m, 4, which, image);
        char path[] = "/tmp/test_grid_XXXXXX";
        close(mkstemp(path));
        CnxrtError err = {0};
        if (image_png_write(path, &g.image, &err) != CNXRT_OK) fail_msg("%s", err.text);
        uint8_t *bytes;
        size_t size;
        assert_int_equal(image_file_read(path, &bytes, &size, &err), CNXRT_OK);
        Image back;
        ImageOptions o = {.channels = g.image.channels};
        assert_int_equal(image_decode(bytes, size, &o, &back, &err), CNXRT_OK);
        assert_int_equal(back.width, g.image.width);
        assert_int_equal(back.height, g.image.height);
        size_t n = (size_t)back.width * (size_t)back.height * (size_t)back.channels;
        assert_memory_equal(back.pixels, g.image.pixels, n);
        // The last picture ends at the right and lower gap, where it has 9 + H * W * c.
        int group = 4 % g.groups, row = 4 / g.groups;
        int left = g.gap + group * (3 * g.width + 5 * g.gap),
            top = g.gap + row * (g.height + g.gap);
        const uint8_t *first =
            back.pixels + ((size_t)top * (size_t)back.width + (size_t)left) * (size_t)back.channels;
        assert_int_equal(first[0], 0);
        assert_int_equal(first[g.scale * back.channels], 255);
        assert_int_equal(first[2 * g.scale * back.channels], 10 + 2 * c);
        assert_int_equal(first[-1], 255); // the gap
        free(bytes);
        image_free(&back);
        image_free(&g.image);
        unlink(path);
    }
}

static void grids_are_compact(void **state) {
    (void)state;
    CnxrtModel m = model(3, &plain);
    for (int n = 1; n < 40; n++) {
        Grid g;
        assert_true(grid_new(&g, &m, n));
        assert_true(g.groups <= n);
        assert_true(g.image.width < 6 * g.image.height * n);
        image_free(&g.image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pastes_patches),
        cmocka_unit_test(undoes_the_normalisation),
        cmocka_unit_test(paints_and_writes),
        cmocka_unit_test(grids_are_compact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
