// The cases of data/images/cases.txt (made by tests/parity/make_image_fixtures.py) for the tests of
// decoding and preprocessing.
#ifndef IMAGE_CASES_H
#define IMAGE_CASES_H
#include "runtime/cnxrt_weights.h"
#include "runtime/image.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define IMAGES CNX_SOURCE_DIR "/tests/unit/data/images/"

// Calls run on the text after the first word of every line that begins with `kind`; returns how
// many there were.
static inline int image_cases_run(const char *kind, void (*run)(const char *args)) {
    FILE *f = fopen(IMAGES "cases.txt", "r");
    assert_non_null(f);
    char line[512];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        size_t k = strlen(kind);
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, kind, k) != 0 || line[k] != ' ') continue;
        run(line + k + 1);
        n++;
    }
    fclose(f);
    return n;
}

static inline CnxrtStatus image_case_load(const char *path, int channels, Image *out,
                                          CnxrtError *err) {
    uint8_t *bytes;
    size_t size;
    CnxrtStatus s = image_file_read(path, &bytes, &size, err);
    if (s != CNXRT_OK) return s;
    // An exact copy on the heap, so that a sanitizer sees reads beyond the end.
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, bytes, size);
    free(bytes);
    ImageOptions o = {.channels = channels};
    s = image_decode(copy, size, &o, out, err);
    free(copy);
    return s;
}

// Fails with the first difference when pixels are not those of the .npy file.
static inline void image_case_compare(const char *file, const char *expected, const uint8_t *pixels,
                                      int height, int width, int channels) {
    char path[512];
    snprintf(path, sizeof path, IMAGES "%s", expected);
    CnxrtNpy want;
    CnxrtError err = {0};
    if (cnxrt_npy_read(path, &want, &err) != CNXRT_OK) fail_msg("%s: %s", path, err.text);
    assert_int_equal(want.rank, 3);
    assert_int_equal(want.dims[0], height);
    assert_int_equal(want.dims[1], width);
    assert_int_equal(want.dims[2], channels);
    const uint8_t *w = want.data;
    for (int i = 0; i < height * width * channels; i++)
        if (pixels[i] != w[i])
            fail_msg("%s, %s: row %d column %d channel %d is %d, expected %d", file, expected,
                     i / channels / width, i / channels % width, i % channels, pixels[i], w[i]);
    cnxrt_npy_free(&want);
}

#endif
