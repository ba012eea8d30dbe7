// Mixup (Zhang et al. 2017) and cutmix (Yun et al. 2019) as timm's Mixup in batch mode: one draw
// for the batch, partners are mirrored positions.
#include "augment.h"
#include <math.h>
#include <string.h>

static int clip(int64_t v, int n) { return (int)(v < 0 ? 0 : v > n ? n : v); }

// A box of sqrt(1 - lambda) of the sides around a uniform centre, cut at the borders.
static Box cutmix_box(double lambda, int height, int width, Rng *r) {
    double part = sqrt(1 - lambda);
    int h = (int)(height * part), w = (int)(width * part);
    int64_t cy = rng_below(r, height), cx = rng_below(r, width);
    int top = clip(cy - h / 2, height), left = clip(cx - w / 2, width);
    int bottom = clip(cy + (h + 1) / 2, height), right = clip(cx + (w + 1) / 2, width);
    return (Box){left, top, right - left, bottom - top};
}

MixPlan mix_draw(const MixOptions *o, int height, int width, uint64_t seed, uint64_t epoch,
                 uint64_t batch) {
    Rng r = rng_stream(seed, RNG_MIX, epoch, batch);
    MixPlan p = {.lambda = 1};
    if (!(o->mixup > 0) && !(o->cutmix > 0)) return p;
    if (rng_uniform(&r) >= o->probability) return p;
    bool both = o->mixup > 0 && o->cutmix > 0;
    p.cutmix = both ? rng_uniform(&r) < o->switching : o->cutmix > 0;
    p.lambda = rng_beta(&r, p.cutmix ? o->cutmix : o->mixup);
    if (!p.cutmix) return p;
    p.box = cutmix_box(p.lambda, height, width, &r);
    p.lambda = 1 - (double)p.box.width * p.box.height / ((double)width * height);
    return p;
}

static void blend_pair(float *a, float *b, size_t n, float own, float other) {
    for (size_t i = 0; i < n; i++) {
        float x = a[i], y = b[i];
        a[i] = x * own + y * other;
        b[i] = y * own + x * other;
    }
}

static void swap_box(float *a, float *b, const Box *box, size_t width, size_t c) {
    size_t row = (size_t)box->width * c;
    for (int y = box->top; y < box->top + box->height; y++) {
        size_t at = ((size_t)y * width + (size_t)box->left) * c;
        for (size_t i = at; i < at + row; i++) {
            float t = a[i];
            a[i] = b[i];
            b[i] = t;
        }
    }
}

void mix_images(const MixPlan *p, int64_t n, int height, int width, int channels, float *x) {
    size_t c = (size_t)channels, size = (size_t)height * (size_t)width * c;
    if (p->lambda == 1) return;
    for (int64_t i = 0; i < n / 2; i++) {
        float *a = x + (size_t)i * size, *b = x + (size_t)(n - 1 - i) * size;
        if (p->cutmix)
            swap_box(a, b, &p->box, (size_t)width, c);
        else
            blend_pair(a, b, size, (float)p->lambda, (float)(1 - p->lambda));
    }
}

void target_row(const int32_t *labels, int count, double s, int classes, float *row) {
    for (int k = 0; k < classes; k++) row[k] = (float)(s / classes);
    for (int i = 0; i < count; i++) row[labels[i]] = (float)(1 - s + s / classes);
}

void mix_targets(const MixPlan *p, int64_t n, int classes, float *targets) {
    size_t k = (size_t)classes;
    for (int64_t i = 0; i < n / 2 && p->lambda != 1; i++)
        blend_pair(targets + (size_t)i * k, targets + (size_t)(n - 1 - i) * k, k, (float)p->lambda,
                   (float)(1 - p->lambda));
}
