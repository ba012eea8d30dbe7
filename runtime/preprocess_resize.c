// Pillow's Image.resize (its libImaging/Resample.c), on a window of the result.
//
// Two passes, horizontal then vertical, with 8 bits in between. An output pixel is a weighted sum
// of the input pixels under a filter that is stretched when shrinking (antialiasing); the weights
// are computed in double, normalised to sum 1, and rounded to PRECISION_BITS fixed point. A pass
// whose size does not change is left out, as in Pillow. Only rows and columns of the window are
// computed.
#include "preprocess.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// 8 bits of result, 2 of headroom for the negative lobes and sums above 1.
enum { PRECISION_BITS = 32 - 8 - 2 };

static double weight_bilinear(double x) {
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double weight_bicubic(double x) { // Keys, a = -1/2
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

// The weights of output positions first .. first+count-1: position i sums taps[i].size inputs from
// taps[i].first with weights[i * stride ...].
typedef struct {
    int first, size;
} Tap;

typedef struct {
    Tap *taps;
    int32_t *weights;
    int stride;
} Taps;

static void taps_free(Taps *t) {
    free(t->taps);
    free(t->weights);
    *t = (Taps){0};
}

static Tap tap_weights(double centre, double scale, ResizeFilter filter, int in, double *w) {
    double (*weight)(double) = filter == FILTER_BICUBIC ? weight_bicubic : weight_bilinear;
    double support = (filter == FILTER_BICUBIC ? 2.0 : 1.0) * scale;
    int lo = (int)(centre - support + 0.5), hi = (int)(centre + support + 0.5);
    if (lo < 0) lo = 0;
    if (hi > in) hi = in;
    double sum = 0, inverse = 1.0 / scale;
    for (int i = lo; i < hi; i++) sum += w[i - lo] = weight((i - centre + 0.5) * inverse);
    for (int i = 0; i < hi - lo; i++)
        if (sum != 0) w[i] /= sum;
    return (Tap){lo, hi - lo};
}

static bool taps_compute(Taps *t, int in, int64_t out, int64_t first, int count,
                         ResizeFilter filter) {
    double step = (double)in / (double)out, scale = step < 1 ? 1 : step;
    t->stride = (int)ceil((filter == FILTER_BICUBIC ? 2.0 : 1.0) * scale) * 2 + 1;
    t->taps = malloc((size_t)count * sizeof *t->taps);
    t->weights = malloc((size_t)count * (size_t)t->stride * sizeof *t->weights);
    double *w = malloc((size_t)t->stride * sizeof *w);
    bool ok = t->taps && t->weights && w;
    for (int i = 0; ok && i < count; i++) {
        t->taps[i] = tap_weights(((double)(first + i) + 0.5) * step, scale, filter, in, w);
        int32_t *fixed = t->weights + (size_t)i * (size_t)t->stride;
        for (int k = 0; k < t->taps[i].size; k++)
            fixed[k] = (int32_t)((w[k] < 0 ? -0.5 : 0.5) + w[k] * (1 << PRECISION_BITS));
    }
    free(w);
    return ok;
}

static uint8_t clip8(int32_t v) {
    v >>= PRECISION_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

// One output pixel of c channels: taps lie `step` bytes apart.
static inline void resample_pixel(const uint8_t *src, size_t step, const int32_t *w, int n, int c,
                                  uint8_t *dst) {
    for (int k = 0; k < c; k++) {
        int32_t sum = 1 << (PRECISION_BITS - 1);
        for (int i = 0; i < n; i++) sum += src[(size_t)i * step + (size_t)k] * w[i];
        dst[k] = clip8(sum);
    }
}

// A row of `width` output pixels; specialised for the channel counts there are.
static void row_horizontal(const uint8_t *src, const Taps *t, int width, int c, uint8_t *dst) {
    for (int x = 0; x < width; x++) {
        const uint8_t *p = src + (size_t)t->taps[x].first * (size_t)c;
        const int32_t *w = t->weights + (size_t)x * (size_t)t->stride;
        int n = t->taps[x].size;
        switch (c) {
        case 1: resample_pixel(p, 1, w, n, 1, dst + x); break;
        case 3: resample_pixel(p, 3, w, n, 3, dst + 3 * x); break;
        default: resample_pixel(p, (size_t)c, w, n, c, dst + (size_t)c * (size_t)x); break;
        }
    }
}

// A row of `bytes` output bytes from n rows; row sums are independent and stay in the cache.
static void row_vertical(const uint8_t *src, size_t stride, const int32_t *w, int n, size_t bytes,
                         int32_t *sums, uint8_t *dst) {
    for (size_t i = 0; i < bytes; i++) sums[i] = 1 << (PRECISION_BITS - 1);
    for (int k = 0; k < n; k++, src += stride)
        for (size_t i = 0; i < bytes; i++) sums[i] += src[i] * w[k];
    for (size_t i = 0; i < bytes; i++) dst[i] = clip8(sums[i]);
}

typedef struct {
    Taps x, y;
    uint8_t *middle; // rows first_row.. after the horizontal pass
    int32_t *sums;
} Scratch;

static void scratch_free(Scratch *s) {
    taps_free(&s->x);
    taps_free(&s->y);
    free(s->middle);
    free(s->sums);
}

// Runs both passes (each may be a plain copy of the window).
static bool resize_run(const Image *m, const ResizeWindow *win, ResizeFilter filter, Scratch *s,
                       uint8_t *dst) {
    const size_t c = (size_t)m->channels, in_row = (size_t)m->width * c;
    const size_t out_row = (size_t)win->width * c;
    bool across = win->full_width != m->width, down = win->full_height != m->height;
    int first = (int)win->top, last = first + win->height; // input rows needed
    if (down) {
        if (!taps_compute(&s->y, m->height, win->full_height, win->top, win->height, filter))
            return false;
        const Tap *end = &s->y.taps[win->height - 1];
        first = s->y.taps[0].first;
        last = end->first + end->size;
    }
    if (across && !taps_compute(&s->x, m->width, win->full_width, win->left, win->width, filter))
        return false;
    s->middle = malloc(out_row * (size_t)(last - first));
    s->sums = malloc(out_row * sizeof *s->sums);
    if (!s->middle || !s->sums) return false;
    for (int y = first; y < last; y++) {
        const uint8_t *src = m->pixels + in_row * (size_t)y;
        uint8_t *row = s->middle + out_row * (size_t)(y - first);
        if (across)
            row_horizontal(src, &s->x, win->width, m->channels, row);
        else
            memcpy(row, src + (size_t)win->left * c, out_row);
    }
    if (!down) {
        memcpy(dst, s->middle, out_row * (size_t)win->height);
        return true;
    }
    for (int y = 0; y < win->height; y++) {
        Tap t = s->y.taps[y];
        row_vertical(s->middle + out_row * (size_t)(t.first - first), out_row,
                     s->y.weights + (size_t)y * (size_t)s->y.stride, t.size, out_row, s->sums,
                     dst + out_row * (size_t)y);
    }
    return true;
}

static void pixels_premultiply(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++, p += 4)
        for (int k = 0; k < 3; k++) {
            unsigned t = p[k] * p[3] + 128u;
            p[k] = (uint8_t)(((t >> 8) + t) >> 8);
        }
}

static void pixels_unpremultiply(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++, p += 4)
        for (int k = 0; k < 3 && p[3] != 0 && p[3] != 255; k++) {
            unsigned v = 255u * p[k] / p[3];
            p[k] = (uint8_t)(v > 255 ? 255 : v);
        }
}

CnxrtStatus image_resize(const Image *image, const ResizeWindow *window, ResizeFilter filter,
                         uint8_t *dst, CnxrtError *err) {
    Scratch s = {0};
    Image source = *image;
    bool same = window->full_width == image->width && window->full_height == image->height;
    bool premultiply = image->channels == 4 && !same, ok = true;
    size_t n = (size_t)image->width * (size_t)image->height;
    if (premultiply) {
        source.pixels = malloc(4 * n);
        if ((ok = source.pixels != NULL)) {
            memcpy(source.pixels, image->pixels, 4 * n);
            pixels_premultiply(source.pixels, n);
        }
    }
    ok = ok && resize_run(&source, window, filter, &s, dst);
    scratch_free(&s);
    if (premultiply) {
        if (ok) pixels_unpremultiply(dst, (size_t)window->width * (size_t)window->height);
        free(source.pixels);
    }
    if (ok) return CNXRT_OK;
    cnxrt_error_set(err, "out of memory while resizing %dx%d pixels", image->width, image->height);
    return CNXRT_ERROR_MEMORY;
}
