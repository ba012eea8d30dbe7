// The operations of RandAugment on 8-bit pixels, by Pillow's formulas (ImageOps, ImageEnhance,
// ImageFilter.SMOOTH, Image.rotate and Image.transform with bicubic interpolation) and in its
// precisions, so that results are the same bit for bit.
#include "augment.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

static CnxrtStatus no_memory(CnxrtError *err) {
    cnxrt_error_set(err, "out of memory");
    return CNXRT_ERROR_MEMORY;
}

static size_t pixel_count(const Image *m) { return (size_t)m->width * (size_t)m->height; }

// ---- tables -------------------------------------------------------------------------------------

static void table_apply(Image *m, uint8_t table[][256], bool shared) {
    size_t c = (size_t)m->channels, n = pixel_count(m);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < c; k++)
            m->pixels[i * c + k] = table[shared ? 0 : k][m->pixels[i * c + k]];
}

static void histogram(const Image *m, int channel, int64_t *h) {
    size_t c = (size_t)m->channels, n = pixel_count(m);
    memset(h, 0, 256 * sizeof *h);
    for (size_t i = 0; i < n; i++) h[m->pixels[i * c + (size_t)channel]]++;
}

static void autocontrast_table(const int64_t *h, uint8_t *table) {
    int lo = 0, hi = 255;
    while (lo < 255 && !h[lo]) lo++;
    while (hi > 0 && !h[hi]) hi--;
    for (int i = 0; i < 256; i++) table[i] = (uint8_t)i;
    if (hi <= lo) return;
    double scale = 255.0 / (hi - lo), offset = -lo * scale;
    for (int i = 0; i < 256; i++) {
        int v = (int)(i * scale + offset);
        table[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

static void equalize_table(const int64_t *h, uint8_t *table) {
    int64_t total = 0, last = 0;
    int levels = 0;
    for (int i = 0; i < 256; i++) {
        table[i] = (uint8_t)i;
        total += h[i];
        if (h[i]) last = h[i], levels++;
    }
    int64_t step = (total - last) / 255;
    if (levels <= 1 || !step) return;
    int64_t n = step / 2;
    for (int i = 0; i < 256; i++) {
        int64_t v = n / step;
        table[i] = (uint8_t)(v > 255 ? 255 : v);
        n += h[i];
    }
}

static void histogram_apply(Image *m, void (*make)(const int64_t *, uint8_t *)) {
    uint8_t table[4][256];
    int64_t h[256];
    for (int k = 0; k < m->channels; k++) {
        histogram(m, k, h);
        make(h, table[k]);
    }
    table_apply(m, table, false);
}

static uint8_t point(AugmentOp op, int value, int i) {
    switch (op) {
    case AUGMENT_INVERT: return (uint8_t)(255 - i);
    case AUGMENT_POSTERIZE:
        return (uint8_t)(value >= 8 ? i : i & ~((1 << (8 - (value < 0 ? 0 : value))) - 1));
    case AUGMENT_SOLARIZE: return (uint8_t)(i < value ? i : 255 - i);
    default: return (uint8_t)(i >= 128 ? i : i + value > 255 ? 255 : i + value);
    }
}

static void point_apply(Image *m, AugmentOp op, int value) {
    uint8_t table[1][256];
    for (int i = 0; i < 256; i++) table[0][i] = point(op, value, i);
    table_apply(m, table, true);
}

// ---- enhancement --------------------------------------------------------------------------------

// Image.blend(a, b, alpha) for one value, in single precision; inside [0, 1] no clipping is needed.
static uint8_t blend(int a, int b, float alpha) {
    float v = (float)a + alpha * (float)(b - a);
    return (uint8_t)(v <= 0 ? 0 : v >= 255 ? 255 : v);
}

static CnxrtStatus grey_of(const Image *m, Image *grey, CnxrtError *err) {
    return image_from_pixels(m->pixels, m->width, m->height, m->channels, 1, grey, err);
}

static CnxrtStatus color(Image *m, float factor, CnxrtError *err) {
    Image grey;
    CnxrtStatus s = m->channels == 1 ? CNXRT_OK : grey_of(m, &grey, err);
    if (s != CNXRT_OK || m->channels == 1) return s;
    for (size_t i = 0, n = pixel_count(m); i < n; i++)
        for (size_t k = 0; k < 3; k++)
            m->pixels[3 * i + k] = blend(grey.pixels[i], m->pixels[3 * i + k], factor);
    image_free(&grey);
    return CNXRT_OK;
}

static void blend_constant(Image *m, int value, float factor) {
    uint8_t table[1][256];
    for (int i = 0; i < 256; i++) table[0][i] = blend(value, i, factor);
    table_apply(m, table, true);
}

static CnxrtStatus contrast(Image *m, float factor, CnxrtError *err) {
    Image grey;
    CnxrtStatus s = grey_of(m, &grey, err);
    if (s != CNXRT_OK) return s;
    int64_t sum = 0;
    size_t n = pixel_count(m);
    for (size_t i = 0; i < n; i++) sum += grey.pixels[i];
    image_free(&grey);
    blend_constant(m, (int)((double)sum / (double)n + 0.5), factor);
    return CNXRT_OK;
}

// A row of the 3x3 kernel: w (left and right), centre.
static float row3(const uint8_t *p, size_t c, float w, float centre) {
    return (float)p[-(ptrdiff_t)c] * w + (float)p[0] * centre + (float)p[c] * w;
}

// SMOOTH: weights 1 around 5, over 13; the border stays.
static CnxrtStatus sharpness(Image *m, float factor, CnxrtError *err) {
    if (m->width < 3 || m->height < 3) return CNXRT_OK;
    const float w = 1.0f / 13, centre = 5.0f / 13;
    size_t c = (size_t)m->channels, row = (size_t)m->width * c;
    uint8_t *old = malloc(row * (size_t)m->height);
    if (!old) return no_memory(err);
    memcpy(old, m->pixels, row * (size_t)m->height);
    for (int y = 1; y < m->height - 1; y++)
        for (size_t x = c; x < row - c; x++) {
            const uint8_t *p = old + (size_t)y * row + x;
            float v = 0.5f;
            v += row3(p + row, c, w, w);
            v += row3(p, c, w, centre);
            v += row3(p - row, c, w, w);
            int smooth = v <= 0 ? 0 : v >= 255 ? 255 : (int)v;
            m->pixels[(size_t)y * row + x] = blend(smooth, *p, factor);
        }
    free(old);
    return CNXRT_OK;
}

// ---- geometry -----------------------------------------------------------------------------------

static int clamp(int v, int n) { return v < 0 ? 0 : v < n ? v : n - 1; }

static double cubic(double v1, double v2, double v3, double v4, double d) {
    double p1 = v2, p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
    return p1 + d * (p2 + d * (p3 + d * p4));
}

// The bicubic value of all channels at (xin, yin), which lies inside of the picture. Rows below the
// last one repeat the interpolated row before them, rows above the first one are the first.
static void sample_bicubic(const Image *m, const uint8_t *pixels, double xin, double yin,
                           uint8_t *dst) {
    size_t c = (size_t)m->channels, row = (size_t)m->width * c, at[4];
    xin -= 0.5;
    yin -= 0.5;
    int x = (int)floor(xin), y = (int)floor(yin);
    double dx = xin - x, dy = yin - y;
    for (int i = 0; i < 4; i++) at[i] = (size_t)clamp(x - 1 + i, m->width) * c;
    for (size_t k = 0; k < c; k++) {
        double v[4];
        for (int i = 0; i < 4; i++) {
            int r = y - 1 + i;
            if (i > 0 && (r < 0 || r >= m->height)) {
                v[i] = v[i - 1];
                continue;
            }
            const uint8_t *p = pixels + (size_t)clamp(r, m->height) * row + k;
            v[i] = cubic(p[at[0]], p[at[1]], p[at[2]], p[at[3]], dx);
        }
        double out = cubic(v[0], v[1], v[2], v[3], dy);
        dst[k] = (uint8_t)(out <= 0 ? 0 : out >= 255 ? 255 : out);
    }
}

// Output (x, y) takes the source at a (x + 1/2, y + 1/2, 1); outside: the fill colour.
static CnxrtStatus affine(Image *m, const double a[6], const uint8_t *fill, CnxrtError *err) {
    size_t c = (size_t)m->channels, n = pixel_count(m) * c;
    uint8_t *old = malloc(n), *dst = m->pixels;
    if (!old) return no_memory(err);
    memcpy(old, m->pixels, n);
    for (int y = 0; y < m->height; y++)
        for (int x = 0; x < m->width; x++, dst += c) {
            double xin = a[0] * (x + 0.5) + a[1] * (y + 0.5) + a[2];
            double yin = a[3] * (x + 0.5) + a[4] * (y + 0.5) + a[5];
            if (xin < 0 || xin >= m->width || yin < 0 || yin >= m->height)
                memcpy(dst, fill, c);
            else
                sample_bicubic(m, old, xin, yin, dst);
        }
    free(old);
    return CNXRT_OK;
}

// round(v, 15) of Python.
static double round15(double v) {
    char text[40];
    snprintf(text, sizeof text, "%.15f", v);
    return strtod(text, NULL);
}

static void half_turn(Image *m) {
    size_t c = (size_t)m->channels, n = pixel_count(m);
    for (size_t i = 0, j = n - 1; i < j; i++, j--)
        for (size_t k = 0; k < c; k++) {
            uint8_t t = m->pixels[i * c + k];
            m->pixels[i * c + k] = m->pixels[j * c + k];
            m->pixels[j * c + k] = t;
        }
}

static CnxrtStatus rotate(Image *m, double degrees, const uint8_t *fill, CnxrtError *err) {
    double angle = fmod(degrees, 360);
    if (angle < 0) angle += 360;
    if (angle == 0) return CNXRT_OK;
    if (angle == 180) {
        half_turn(m);
        return CNXRT_OK;
    }
    double radians = -(angle * (3.14159265358979323846 / 180)), x = m->width / 2.0;
    double y = m->height / 2.0, co = round15(cos(radians)), si = round15(sin(radians));
    double a[6] = {co, si, 0, -si, co, 0};
    a[2] = a[0] * -x + a[1] * -y + 0.0;
    a[5] = a[3] * -x + a[4] * -y + 0.0;
    a[2] += x;
    a[5] += y;
    return affine(m, a, fill, err);
}

CnxrtStatus augment_apply(AugmentOp op, double value, const uint8_t *fill, Image *m,
                          CnxrtError *err) {
    switch (op) {
    case AUGMENT_AUTOCONTRAST: histogram_apply(m, autocontrast_table); return CNXRT_OK;
    case AUGMENT_EQUALIZE: histogram_apply(m, equalize_table); return CNXRT_OK;
    case AUGMENT_INVERT:
    case AUGMENT_POSTERIZE:
    case AUGMENT_SOLARIZE:
    case AUGMENT_SOLARIZE_ADD: point_apply(m, op, (int)value); return CNXRT_OK;
    case AUGMENT_ROTATE: return rotate(m, value, fill, err);
    case AUGMENT_COLOR: return color(m, (float)value, err);
    case AUGMENT_CONTRAST: return contrast(m, (float)value, err);
    case AUGMENT_BRIGHTNESS: blend_constant(m, 0, (float)value); return CNXRT_OK;
    case AUGMENT_SHARPNESS: return sharpness(m, (float)value, err);
    case AUGMENT_SHEAR_X: return affine(m, (double[]){1, value, 0, 0, 1, 0}, fill, err);
    case AUGMENT_SHEAR_Y: return affine(m, (double[]){1, 0, 0, value, 1, 0}, fill, err);
    case AUGMENT_TRANSLATE_X:
        return affine(m, (double[]){1, 0, value * m->width, 0, 1, 0}, fill, err);
    case AUGMENT_TRANSLATE_Y:
        return affine(m, (double[]){1, 0, 0, 0, 1, value * m->height}, fill, err);
    case AUGMENT_OPS: break;
    }
    return CNXRT_OK;
}
