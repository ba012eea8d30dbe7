// Drawing and applying the changes of one sample. Order as in timm: crop and resize, flip,
// RandAugment, normalise, erase.
#include "augment.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

enum { ATTEMPTS = 10 };
#define LEVELS 10.0 // the level at which ranges end

// Section "key" followed by a number; NULL when the text has another key.
static const char *section(const char *text, const char *key, double *value) {
    size_t n = strlen(key);
    char *end;
    if (strncmp(text, key, n) != 0) return NULL;
    bool infinite = strncmp(text + n, "inf", 3) == 0;
    if (!infinite && (text[n] < '0' || text[n] > '9')) return NULL;
    *value = infinite ? INFINITY : strtod(text + n, &end);
    if (infinite) end = (char *)text + n + 3;
    return *end == 0 || *end == '-' ? end : NULL;
}

CnxrtStatus augment_parse(const char *text, RandAugment *out, CnxrtError *err) {
    double ops = 2, increasing = 0;
    RandAugment a = {.probability = 0.5, .magnitude = LEVELS, .most = LEVELS};
    struct {
        const char *key;
        double *value, least, most;
    } keys[] = {{"mstd", &a.std, 0, INFINITY}, {"mmax", &a.most, 1, 100},
                {"m", &a.magnitude, 0, 100},   {"n", &ops, 1, 15},
                {"p", &a.probability, 0, 1},   {"inc", &increasing, 0, 1}};
    const char *p = strncmp(text, "rand", 4) == 0 ? text + 4 : NULL;
    while (p && *p == '-') {
        const char *next = NULL;
        for (size_t i = 0; i < sizeof keys / sizeof *keys && !next; i++) {
            next = section(p + 1, keys[i].key, keys[i].value);
            if (next && !(*keys[i].value >= keys[i].least && *keys[i].value <= keys[i].most)) {
                cnxrt_error_set(err, "RandAugment \"%s\": %s is %g, expected %g to %g", text,
                                keys[i].key, *keys[i].value, keys[i].least, keys[i].most);
                return CNXRT_ERROR_ARGUMENT;
            }
        }
        p = next;
    }
    if (!p || *p) {
        cnxrt_error_set(err,
                        "RandAugment \"%s\": expected rand and sections mNUMBER, nNUMBER, pNUMBER, "
                        "mstdNUMBER, mmaxNUMBER, inc0 or inc1, as in rand-m9-mstd0.5-inc1",
                        text);
        return CNXRT_ERROR_ARGUMENT;
    }
    a.ops = (int)ops;
    a.increasing = increasing != 0;
    if (a.std > 100) a.std = INFINITY; // as in timm
    *out = a;
    return CNXRT_OK;
}

static double enhancement(const RandAugment *a, double part, bool negative) {
    if (!a->increasing) return part * 1.8 + 0.1;
    return fmax(0.1, 1 + (negative ? -part * 0.9 : part * 0.9));
}

double augment_value(const RandAugment *a, AugmentOp op, double level, bool negative) {
    double part = level / LEVELS, sign = negative ? -1 : 1;
    int bits = (int)(part * 4), threshold = (int)fmin(256, floor(part * 256));
    switch (op) {
    case AUGMENT_ROTATE: return sign * (part * 30);
    case AUGMENT_POSTERIZE: return a->increasing ? 4 - bits : bits;
    case AUGMENT_SOLARIZE: return a->increasing ? 256 - threshold : threshold;
    case AUGMENT_SOLARIZE_ADD: return fmin(128, floor(part * 110));
    case AUGMENT_COLOR:
    case AUGMENT_CONTRAST:
    case AUGMENT_BRIGHTNESS:
    case AUGMENT_SHARPNESS: return enhancement(a, part, negative);
    case AUGMENT_SHEAR_X:
    case AUGMENT_SHEAR_Y: return sign * (part * 0.3);
    case AUGMENT_TRANSLATE_X:
    case AUGMENT_TRANSLATE_Y: return sign * (part * 0.45);
    default: return 0;
    }
}

Box augment_crop_box(const double scale[2], const double ratio[2], int width, int height, Rng *r) {
    double area = (double)width * height;
    for (int i = 0; i < ATTEMPTS; i++) {
        double target = rng_range(r, scale[0], scale[1]) * area;
        double aspect = rng_log_range(r, ratio[0], ratio[1]);
        double w = nearbyint(sqrt(target * aspect)), h = nearbyint(sqrt(target / aspect));
        if (!(w > 0 && w <= width && h > 0 && h <= height)) continue;
        Box b = {.width = (int)w, .height = (int)h};
        b.top = (int)rng_below(r, height - b.height + 1);
        b.left = (int)rng_below(r, width - b.width + 1);
        return b;
    }
    double in = (double)width / height; // else the centre, its aspect brought into range
    Box b = {0, 0, width, height};
    if (in < ratio[0])
        b.height = (int)nearbyint(width / ratio[0]);
    else if (in > ratio[1])
        b.width = (int)nearbyint(height * ratio[1]);
    b.top = (height - b.height) / 2;
    b.left = (width - b.width) / 2;
    return b;
}

static CnxrtStatus no_memory(CnxrtError *err) {
    cnxrt_error_set(err, "out of memory");
    return CNXRT_ERROR_MEMORY;
}

// The crop, resized to the model's size, into out->pixels.
static CnxrtStatus crop_resize(const Preprocess *p, const Image *m, Box b, Image *out,
                               CnxrtError *err) {
    size_t c = (size_t)m->channels, row = (size_t)b.width * c;
    Image part = {b.width, b.height, m->channels, malloc(row * (size_t)b.height)};
    if (!part.pixels) return no_memory(err);
    for (int y = 0; y < b.height; y++)
        memcpy(part.pixels + row * (size_t)y,
               m->pixels + ((size_t)(b.top + y) * (size_t)m->width + (size_t)b.left) * c, row);
    ResizeWindow win = {p->width, p->height, 0, 0, p->width, p->height};
    CnxrtStatus s = image_resize(&part, &win, p->filter, out->pixels, err);
    image_free(&part);
    return s;
}

static void flip(Image *m) {
    size_t c = (size_t)m->channels;
    for (int y = 0; y < m->height; y++) {
        uint8_t *a = m->pixels + (size_t)y * (size_t)m->width * c;
        uint8_t *b = a + (size_t)(m->width - 1) * c;
        for (; a < b; a += c, b -= c)
            for (size_t k = 0; k < c; k++) {
                uint8_t t = a[k];
                a[k] = b[k];
                b[k] = t;
            }
    }
}

static CnxrtStatus policy_apply(const Augment *a, Image *m, Rng *r, CnxrtError *err) {
    const RandAugment *p = &a->policy;
    uint8_t fill[4];
    AugmentOp ops[16];
    for (int k = 0; k < m->channels; k++)
        fill[k] = (uint8_t)fmax(0, fmin(255, nearbyint(255.0 * (double)a->base.mean[k])));
    for (int i = 0; i < p->ops; i++) ops[i] = (AugmentOp)rng_below(r, AUGMENT_OPS);
    CnxrtStatus s = CNXRT_OK;
    for (int i = 0; i < p->ops && s == CNXRT_OK; i++) {
        if (p->probability < 1 && rng_uniform(r) > p->probability) continue;
        double level = p->magnitude;
        if (isinf(p->std))
            level = rng_range(r, 0, level);
        else if (p->std > 0)
            level += p->std * rng_normal(r);
        level = fmax(0, fmin(level, p->most));
        bool negative = rng_uniform(r) > 0.5;
        s = augment_apply(ops[i], augment_value(p, ops[i], level, negative), fill, m, err);
    }
    return s;
}

// RandomErasing of timm: a box of 2 to 33 % of the area, aspect 0.3 to 1 / 0.3, of normal noise.
static void erase(const Augment *a, Rng *r, float *x) {
    int height = a->base.height, width = a->base.width;
    size_t c = (size_t)a->base.channels;
    if (rng_uniform(r) >= a->erase) return;
    for (int i = 0; i < ATTEMPTS; i++) {
        double target = rng_range(r, 0.02, 1.0 / 3) * height * width;
        double aspect = rng_log_range(r, 0.3, 1 / 0.3);
        int h = (int)nearbyint(sqrt(target * aspect)), w = (int)nearbyint(sqrt(target / aspect));
        if (w >= width || h >= height) continue;
        int64_t top = rng_below(r, height - h + 1), left = rng_below(r, width - w + 1);
        for (int64_t y = top; y < top + h; y++)
            for (size_t k = 0; k < (size_t)w * c; k++)
                x[(size_t)(y * width + left) * c + k] = (float)rng_normal(r);
        return;
    }
}

static void normalise(const Preprocess *p, const uint8_t *pixels, float *dst) {
    size_t c = (size_t)p->channels, n = (size_t)p->height * (size_t)p->width;
    float table[4][256];
    for (size_t k = 0; k < c; k++)
        for (int v = 0; v < 256; v++) table[k][v] = ((float)v / 255.0f - p->mean[k]) / p->std[k];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < c; k++) dst[i * c + k] = table[k][pixels[i * c + k]];
}

static Box draw_box(const AugmentDraw *d, int width, int height, Rng *r) {
    return augment_crop_box(d->augment->scale, d->augment->ratio, width, height, r);
}

static Rng draw_stream(const AugmentDraw *d) {
    return rng_stream(d->seed, RNG_AUGMENT, d->epoch, d->sample);
}

int augment_shrink(void *draw, int width, int height) {
    AugmentDraw *d = draw;
    const Preprocess *p = &d->augment->base;
    d->width = width;
    d->height = height;
    if (!d->augment->crop) return 1;
    Rng r = draw_stream(d);
    Box b = draw_box(d, width, height, &r);
    int n = 8;
    while (n > 1 && (b.width < n * p->width || b.height < n * p->height)) n /= 2;
    return n;
}

// The part [start, start + length) of `full` pixels in a side of `side` pixels, rounded outwards.
static void side_shrink(int *start, int *length, int64_t full, int64_t side) {
    int64_t end = ((*start + *length) * side + full - 1) / full;
    *start = (int)(*start * side / full);
    *length = (int)end - *start;
}

static CnxrtStatus picture_crop(const AugmentDraw *d, const Image *image, Rng *r, Image *out,
                                CnxrtError *err) {
    const Preprocess *p = &d->augment->base;
    if (!d->augment->crop) return preprocess_pixels(p, image, out->pixels, err);
    int width = d->width ? d->width : image->width, height = d->height ? d->height : image->height;
    Box b = draw_box(d, width, height, r);
    side_shrink(&b.left, &b.width, width, image->width);
    side_shrink(&b.top, &b.height, height, image->height);
    return crop_resize(p, image, b, out, err);
}

CnxrtStatus augment_image(const AugmentDraw *d, const Image *image, float *dst, CnxrtError *err) {
    const Augment *a = d->augment;
    const Preprocess *p = &a->base;
    if (a->policy.ops && p->channels == 4) {
        cnxrt_error_set(err, "RandAugment is for pictures of 1 or 3 channels, and the model has 4");
        return CNXRT_ERROR_ARGUMENT;
    }
    Rng r = draw_stream(d);
    size_t n = (size_t)p->height * (size_t)p->width * (size_t)p->channels;
    Image m = {p->width, p->height, p->channels, malloc(n)};
    if (!m.pixels) return no_memory(err);
    CnxrtStatus s = picture_crop(d, image, &r, &m, err);
    if (s == CNXRT_OK && rng_uniform(&r) < a->flip) flip(&m);
    if (s == CNXRT_OK && a->policy.ops) s = policy_apply(a, &m, &r, err);
    if (s == CNXRT_OK) normalise(p, m.pixels, dst);
    if (s == CNXRT_OK && a->erase > 0) {
        Rng own = rng_stream(d->seed, RNG_ERASE, d->epoch, d->sample);
        erase(a, &own, dst);
    }
    image_free(&m);
    return s;
}
