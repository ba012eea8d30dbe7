// A model by hand, with all programs of training: pictures of 8 x 8 grey pixels, 3 classes.
//
//   infer, train      logits = head.weight x + head.bias, softmax cross-entropy
//   pretrain          cells of 4 x 4: pred_d = token_d + bias_d + weight_d * mean of visible
//   pixels;
//                     mean squared error over the hidden cells
#ifndef FAKE_TRAINING_H
#define FAKE_TRAINING_H
#include "runtime/cnxrt.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { FAKE_SIDE = 8, FAKE_PIXELS = 64, FAKE_CLASSES = 3, FAKE_CELL = 16, FAKE_CELLS = 4 };
enum { FAKE_BIAS = 3 * 64 * 4, FAKE_BYTES = 832 }; // head: weight at 0, bias behind it
enum { FAKE_TOKEN = 64, FAKE_PRED = 128, FAKE_PRE_BYTES = 192 };

static const CnxrtParam fake_head[] = {
    {"head.weight", 2, {3, 64}, 0, CNXRT_INIT_NORMAL, 0.02},
    {"head.bias", 1, {3}, FAKE_BIAS, CNXRT_INIT_CONSTANT, 0},
};
static const CnxrtParam fake_pre[] = {
    {"downsample_layers.0.0.weight", 4, {16, 1, 1, 1}, 0, CNXRT_INIT_NORMAL, 0.02},
    {"mask_token", 1, {16}, FAKE_TOKEN, CNXRT_INIT_NORMAL, 0.02},
    {"pred.bias", 1, {16}, FAKE_PRED, CNXRT_INIT_UNIFORM, 0.1},
};

static inline void fake_prepare(const CnxrtFrame *f, int64_t thread, int64_t bytes) {
    if (thread == 0) memcpy(f->weights, f->params, (size_t)bytes);
}
static inline void fake_prepare_head(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    fake_prepare(f, thread, FAKE_BYTES);
}
static inline void fake_prepare_pre(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    fake_prepare(f, thread, FAKE_PRE_BYTES);
}

static inline void fake_logits(const CnxrtFrame *f, int64_t image, float *logits) {
    const float *w = (const float *)(void *)f->weights, *b = w + FAKE_BIAS / 4;
    const float *x = (const float *)f->inputs[0] + image * FAKE_PIXELS;
    for (int k = 0; k < FAKE_CLASSES; k++) {
        logits[k] = b[k];
        for (int i = 0; i < FAKE_PIXELS; i++) logits[k] += w[k * FAKE_PIXELS + i] * x[i];
    }
}

static inline void fake_infer(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    for (int64_t i = thread; i < f->batch; i += nthreads)
        fake_logits(f, i, (float *)f->outputs[0] + i * FAKE_CLASSES);
}

static inline void fake_train(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    float *gw = (float *)(void *)f->state[CNXRT_STATE_GRAD], *gb = gw + FAKE_BIAS / 4;
    for (int64_t i = 0; i < f->batch && thread == 0; i++) {
        const float *x = (const float *)f->inputs[0] + i * FAKE_PIXELS;
        const float *target = (const float *)f->inputs[1] + i * FAKE_CLASSES;
        float scale = ((const float *)f->inputs[2])[i], drop = ((const float *)f->inputs[3])[i];
        float *logits = (float *)f->outputs[1] + i * FAKE_CLASSES, sum = 0, loss = 0;
        fake_logits(f, i, logits);
        for (int k = 0; k < FAKE_CLASSES; k++) sum += expf(logits[k]);
        for (int k = 0; k < FAKE_CLASSES; k++) {
            float p = expf(logits[k]) / sum, d = (p - target[k]) * scale * (drop > 0 ? 1 : 0.5f);
            loss -= target[k] * logf(p);
            gb[k] += d;
            for (int c = 0; c < FAKE_PIXELS; c++) gw[k * FAKE_PIXELS + c] += d * x[c];
        }
        ((float *)f->outputs[0])[i] = loss;
    }
}

// Loss of image i; adds gradients when grad is not NULL, writes predictions when pred is not NULL.
static inline float fake_mae(const CnxrtFrame *f, int64_t image, float scale, float *grad,
                             float *pred) {
    const float *w = (const float *)(void *)f->weights, *m = f->inputs[1];
    const float *x = (const float *)f->inputs[0] + image * FAKE_PIXELS;
    float mean = 0, loss = 0;
    int hidden = 0;
    m += image * FAKE_CELLS;
    for (int i = 0; i < FAKE_PIXELS; i++) mean += m[i / 32 * 2 + i % 8 / 4] > 0 ? 0 : x[i];
    for (int c = 0; c < FAKE_CELLS; c++) hidden += m[c] > 0;
    mean /= (float)((FAKE_CELLS - hidden) * FAKE_CELL);
    for (int i = 0; i < FAKE_PIXELS; i++) {
        int cell = i / 32 * 2 + i % 8 / 4, d = i / 8 % 4 * 4 + i % 4;
        float y = w[d] * mean + w[FAKE_TOKEN / 4 + d] + w[FAKE_PRED / 4 + d], e = y - x[i];
        if (pred) pred[cell * FAKE_CELL + d] = y;
        if (!(m[cell] > 0)) continue;
        float part = 1 / (float)(hidden * FAKE_CELL);
        loss += e * e * part;
        if (!grad) continue;
        grad[d] += 2 * e * part * scale * mean;
        grad[FAKE_TOKEN / 4 + d] += 2 * e * part * scale;
        grad[FAKE_PRED / 4 + d] += 2 * e * part * scale;
    }
    return loss;
}

static inline void fake_pretrain(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    float *grad = (float *)(void *)f->state[CNXRT_STATE_GRAD];
    for (int64_t i = 0; i < f->batch && thread == 0; i++)
        ((float *)f->outputs[0])[i] = fake_mae(f, i, ((const float *)f->inputs[2])[i], grad, NULL);
}

static inline void fake_reconstruct(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    for (int64_t i = thread; i < f->batch; i += nthreads)
        ((float *)f->outputs[0])[i] =
            fake_mae(f, i, 0, NULL, (float *)f->outputs[1] + i * FAKE_PIXELS);
}

static inline void fake_adamw(const CnxrtFrame *f, int64_t thread, const CnxrtParam *params, int n,
                              bool ema) {
    const float *h = f->inputs[0], *groups = f->inputs[1];
    for (int i = 0; i < n && thread == 0; i++) {
        float *s[CNXRT_STATES];
        int64_t count = 1;
        for (int k = 0; k < params[i].rank; k++) count *= params[i].dims[k];
        for (int k = 0; k < CNXRT_STATES; k++)
            s[k] = f->state[k] ? (float *)(void *)(f->state[k] + params[i].offset) : NULL;
        float lr = h[CNXRT_HYPER_LR] * groups[2 * i];
        for (int64_t c = 0; c < count; c++) {
            float g = s[1][c] * h[CNXRT_HYPER_GRAD_SCALE];
            s[0][c] *= 1 - lr * h[CNXRT_HYPER_DECAY] * groups[2 * i + 1];
            s[2][c] = h[CNXRT_HYPER_BETA1] * s[2][c] + h[CNXRT_HYPER_ONE_MINUS_BETA1] * g;
            s[3][c] = h[CNXRT_HYPER_BETA2] * s[3][c] + h[CNXRT_HYPER_ONE_MINUS_BETA2] * g * g;
            s[0][c] -= lr * h[CNXRT_HYPER_CORRECTION1] * s[2][c] /
                       (sqrtf(s[3][c]) * h[CNXRT_HYPER_CORRECTION2] + h[CNXRT_HYPER_EPS]);
            if (ema)
                s[4][c] = h[CNXRT_HYPER_EMA] * s[4][c] + h[CNXRT_HYPER_ONE_MINUS_EMA] * s[0][c];
        }
    }
}
static inline void fake_update_head(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    fake_adamw(f, thread, fake_head, 2, false);
}
static inline void fake_update_ema_head(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    fake_adamw(f, thread, fake_head, 2, true);
}
static inline void fake_update_pre(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    fake_adamw(f, thread, fake_pre, 3, false);
}

#define FAKE_PORT_IMAGE                                                                            \
    { "image", 3, {8, 8, 1}, 256 }
static const CnxrtPort fake_image[] = {FAKE_PORT_IMAGE};
static const CnxrtPort fake_logits_port[] = {{"logits", 1, {3}, 12}};
static const CnxrtPort fake_train_in[] = {
    FAKE_PORT_IMAGE, {"target", 1, {3}, 12}, {"loss_scale", 0, {0}, 4}, {"drop.0", 0, {0}, 4}};
static const CnxrtPort fake_train_out[] = {{"loss", 0, {0}, 4}, {"logits", 1, {3}, 12}};
static const CnxrtPort fake_pre_in[] = {
    FAKE_PORT_IMAGE, {"mask", 2, {2, 2}, 16}, {"loss_scale", 0, {0}, 4}};
static const CnxrtPort fake_rec_out[] = {{"loss", 0, {0}, 4}, {"pred", 3, {2, 2, 16}, 256}};
static const CnxrtPort fake_update_in[] = {{"hyper", 1, {12}, 48}, {"groups", 2, {3, 2}, 24}};

#define FAKE_PROGRAM(name, run, in, ni, out, no)                                                   \
    { name, run, 64, 64, 0, 64, ni, no, 0, in, out, NULL, 0 }
static const CnxrtProgram fake_infer_programs[] = {
    FAKE_PROGRAM("prepare", fake_prepare_head, NULL, 0, NULL, 0),
    FAKE_PROGRAM("infer", fake_infer, fake_image, 1, fake_logits_port, 1),
};
static const CnxrtProgram fake_train_programs[] = {
    FAKE_PROGRAM("prepare", fake_prepare_head, NULL, 0, NULL, 0),
    FAKE_PROGRAM("train", fake_train, fake_train_in, 4, fake_train_out, 2),
    FAKE_PROGRAM("update", fake_update_head, fake_update_in, 2, NULL, 0),
    FAKE_PROGRAM("update.ema", fake_update_ema_head, fake_update_in, 2, NULL, 0),
};
static const CnxrtProgram fake_pre_programs[] = {
    FAKE_PROGRAM("prepare", fake_prepare_pre, NULL, 0, NULL, 0),
    FAKE_PROGRAM("pretrain", fake_pretrain, fake_pre_in, 3, fake_train_out, 1),
    FAKE_PROGRAM("reconstruct", fake_reconstruct, fake_pre_in, 2, fake_rec_out, 2),
    FAKE_PROGRAM("update", fake_update_pre, fake_update_in, 2, NULL, 0),
};

static const CnxrtRecipe fake_recipes[] = {
    {.name = "train",
     .kind = CNXRT_TRAIN,
     .batch = 12,
     .lr = 0.02,
     .beta1 = 0.9,
     .beta2 = 0.999,
     .eps = 1e-8,
     .weight_decay = 0.01,
     .epochs = 4,
     .warmup_epochs = 0.5,
     .drop_path = 0.3,
     .mixup = 0.2,
     .label_smoothing = 0.1,
     .ema = 0.9,
     .head_init_scale = 1,
     .crop_scale = {0.9, 1},
     .crop_ratio = {0.9, 1.1},
     .erase = 0.1},
    {.name = "pretrain",
     .kind = CNXRT_PRETRAIN,
     .batch = 12,
     .lr = 0.02,
     .beta1 = 0.9,
     .beta2 = 0.95,
     .eps = 1e-8,
     .epochs = 4,
     .crop_scale = {0.9, 1},
     .crop_ratio = {0.9, 1.1},
     .flip = 0.5},
};
static const CnxrtFcmae fake_fcmae = {{2, 2}, 1, {4, 4}, 4, 2, 0, 0, 0.5};
static const CnxrtDrop fake_drops[] = {{0, 1}};
static const float fake_mean[] = {0.5f}, fake_std[] = {0.25f};

#define FAKE_MODEL(kind, progs, nprogs, pars, npars, bytes)                                        \
    .abi = CNXRT_ABI, .name = "fake", .target = "any", .precision = "fp32", .target_features = "", \
    .channels = 1, .height = FAKE_SIDE, .width = FAKE_SIDE, .classes = FAKE_CLASSES,               \
    .mean = fake_mean, .std = fake_std, .crop_pct = 1, .interpolation = "bicubic",                 \
    .nprograms = nprogs, .nparams = npars, .programs = progs, .params = pars,                      \
    .param_bytes = bytes, .weight_bytes = bytes

static const CnxrtModel fake_train_model = {
    FAKE_MODEL(train, fake_train_programs, 4, fake_head, 2, FAKE_BYTES), .nrecipes = 1,
    .recipes = fake_recipes, .ndrops = 1, .drops = fake_drops};
static const CnxrtModel fake_pretrain_model = {
    FAKE_MODEL(pretrain, fake_pre_programs, 4, fake_pre, 3, FAKE_PRE_BYTES), .nrecipes = 1,
    .recipes = fake_recipes + 1, .fcmae = &fake_fcmae};
static const CnxrtModel fake_model = {
    FAKE_MODEL(infer, fake_infer_programs, 2, fake_head, 2, FAKE_BYTES), .train = &fake_train_model,
    .pretrain = &fake_pretrain_model};

#endif
