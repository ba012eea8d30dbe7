// Sizes and crop positions as torchvision (square) and timm (other shapes) compute them, Python's
// rounding included: int() truncates, round() takes ties to even.
#include "preprocess.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

CnxrtStatus preprocess_of_model(const CnxrtModel *m, Preprocess *p, CnxrtError *err) {
    if (m->channels != 1 && m->channels != 3 && m->channels != 4) {
        cnxrt_error_set(err,
                        "model %s takes %d channels and pictures have 1 (grey), 3 (RGB) or 4 "
                        "(RGBA); give it tensors: --input X.npy --output Y.npy",
                        m->name, m->channels);
        return CNXRT_ERROR_ARGUMENT;
    }
    bool bilinear = m->interpolation && strcmp(m->interpolation, "bilinear") == 0;
    *p = (Preprocess){.channels = m->channels,
                      .height = m->height,
                      .width = m->width,
                      .crop_pct = m->crop_pct > 0 && m->crop_pct <= 1 ? m->crop_pct : 1,
                      .warp = m->warp != 0,
                      .filter = bilinear ? FILTER_BILINEAR : FILTER_BICUBIC,
                      .mean = m->mean,
                      .std = m->std};
    return CNXRT_OK;
}

// The size of the whole resized picture.
static void resized_size(const Preprocess *p, const Image *m, int64_t *width, int64_t *height) {
    int64_t w = m->width, h = m->height;
    double target_h = floor(p->height / p->crop_pct), target_w = floor(p->width / p->crop_pct);
    if (p->warp) {
        *width = p->width;
        *height = p->height;
    } else if (p->height == p->width) {
        int64_t size = (int64_t)target_h;
        *width = w <= h ? size : (int64_t)((double)(size * w) / (double)h);
        *height = w <= h ? (int64_t)((double)(size * h) / (double)w) : size;
    } else {
        double ratio = fmin((double)h / target_h, (double)w / target_w);
        *width = (int64_t)nearbyint((double)w / ratio);
        *height = (int64_t)nearbyint((double)h / ratio);
    }
}

// CenterCrop along one side: where the crop starts in the full size, how much of it there is, and
// the zero padding before it.
typedef struct {
    int64_t start;
    int count, before;
} Span;

static Span crop_span(int64_t full, int crop) {
    if (full >= crop) return (Span){(int64_t)nearbyint((double)(full - crop) / 2.0), crop, 0};
    return (Span){0, (int)full, (int)((crop - full) / 2)};
}

CnxrtStatus preprocess_pixels(const Preprocess *p, const Image *image, uint8_t *dst,
                              CnxrtError *err) {
    ResizeWindow win;
    resized_size(p, image, &win.full_width, &win.full_height);
    Span x = crop_span(win.full_width, p->width), y = crop_span(win.full_height, p->height);
    win.left = x.start, win.top = y.start;
    win.width = x.count, win.height = y.count;
    if (x.count == p->width && y.count == p->height)
        return image_resize(image, &win, p->filter, dst, err);
    size_t c = (size_t)p->channels, row = (size_t)x.count * c;
    uint8_t *part = malloc(row * (size_t)y.count);
    if (!part) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    CnxrtStatus s = image_resize(image, &win, p->filter, part, err);
    memset(dst, 0, (size_t)p->height * (size_t)p->width * c);
    for (int i = 0; s == CNXRT_OK && i < y.count; i++)
        memcpy(dst + ((size_t)(y.before + i) * (size_t)p->width + (size_t)x.before) * c,
               part + row * (size_t)i, row);
    free(part);
    return s;
}

CnxrtStatus preprocess_image(const Preprocess *p, const Image *image, float *dst, CnxrtError *err) {
    size_t n = (size_t)p->height * (size_t)p->width;
    size_t c = (size_t)p->channels;
    uint8_t *pixels = malloc(n * c);
    if (!pixels) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    CnxrtStatus s = preprocess_pixels(p, image, pixels, err);
    float table[4][256];
    for (size_t k = 0; k < c; k++)
        for (int v = 0; v < 256; v++) table[k][v] = ((float)v / 255.0f - p->mean[k]) / p->std[k];
    for (size_t i = 0; s == CNXRT_OK && i < n; i++)
        for (size_t k = 0; k < c; k++) dst[i * c + k] = table[k][pixels[i * c + k]];
    free(pixels);
    return s;
}
