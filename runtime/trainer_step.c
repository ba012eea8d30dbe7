// A step of the optimiser: the batch of that number is mixed as a whole, run in micro-batches that
// add up their gradients, and applied. All random draws are named by the seed, the step and the
// position in the batch.
#include "trainer_state.h"
#include "training_mask.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// drops[key][sample]: 0 or 1 / (1 - rate), where rate = share * drop_path.
static void draw_drops(const Trainer *t, int64_t step) {
    const CnxrtModel *m = t->model;
    int64_t batch = t->plan.batch;
    for (int64_t i = 0; i < batch && m->ndrops; i++) {
        Rng r = rng_stream(t->options->seed, RNG_DROP, (uint64_t)step, (uint64_t)i);
        for (int k = 0; k < m->ndrops; k++) {
            double rate = m->drops[k].share * t->recipe.drop_path, u = rng_uniform(&r);
            t->drops[k * batch + i] = u < rate ? 0.0f : (float)(1 / (1 - rate));
        }
    }
}

static void draw_masks(const Trainer *t, int64_t step) {
    const CnxrtFcmae *f = trainer_fcmae(t);
    int64_t cells = mask_cells(f);
    for (int64_t i = 0; i < t->plan.batch; i++)
        mask_draw(f, t->options->seed, (uint64_t)step, (uint64_t)i, t->masks + i * cells);
}

static void mix_batch(const Trainer *t, const LoaderBatch *b) {
    const Preprocess *p = &t->augment.base;
    MixPlan plan = mix_draw(&t->mix, p->height, p->width, t->options->seed, 0, (uint64_t)b->step);
    mix_images(&plan, t->plan.batch, p->height, p->width, p->channels, b->images);
    int classes = t->model->classes;
    for (int64_t i = 0; i < t->plan.batch; i++) {
        LabelSet s = dataset_labels(t->data, b->used[i]);
        target_row(s.ids, s.count, t->recipe.label_smoothing, classes, t->targets + i * classes);
    }
    mix_targets(&plan, t->plan.batch, classes, t->targets);
}

static void point_drops(const Trainer *t, int64_t at) {
    for (int k = 0; k < t->model->ndrops; k++) {
        char name[32];
        snprintf(name, sizeof name, "drop.%d", (int)t->model->drops[k].key);
        training_point(t->training, t->program, name, t->drops + k * t->plan.batch + at);
    }
}

static CnxrtStatus run_micro(Trainer *t, const LoaderBatch *b, int64_t at, int64_t n,
                             CnxrtError *err) {
    const Preprocess *p = &t->augment.base;
    int64_t pixels = (int64_t)p->height * p->width * p->channels;
    training_point(t->training, t->program, "image", b->images + at * pixels);
    training_point(t->training, t->program, "loss_scale", t->scales + at);
    if (t->pretrain) {
        int64_t cells = mask_cells(trainer_fcmae(t));
        training_point(t->training, t->program, "mask", t->masks + at * cells);
    } else {
        training_point(t->training, t->program, "target", t->targets + at * t->model->classes);
        point_drops(t, at);
    }
    CnxrtStatus status = training_run(t->training, t->program, n, err);
    if (status == CNXRT_OK)
        memcpy(t->losses + at, training_output(t->training, t->program, "loss"),
               (size_t)n * sizeof(float));
    return status;
}

// Names the samples whose loss is not finite, or, when it is the gradient, those of the batch.
static CnxrtStatus not_finite(const Trainer *t, const LoaderBatch *b, double norm,
                              CnxrtError *err) {
    int bad = 0, named = 0;
    char name[512];
    for (int64_t i = 0; i < t->plan.batch; i++) bad += !isfinite(t->losses[i]);
    cnxrt_error_set(err, "step %" PRId64 ": %s is not finite (%g); samples:", b->step + 1,
                    bad ? "the loss" : "the gradient", bad ? (double)NAN : norm);
    for (int64_t i = 0; i < t->plan.batch && named < 8; i++) {
        if (bad && isfinite(t->losses[i])) continue;
        dataset_sample_name(t->data, b->samples[i], name, sizeof name);
        cnxrt_error_add(err, "%s %s", named++ ? "," : "", name);
    }
    int64_t all = bad ? bad : t->plan.batch;
    if (all > named) cnxrt_error_add(err, " and %" PRId64 " more", all - named);
    return CNXRT_ERROR_FORMAT;
}

static CnxrtStatus gradients(Trainer *t, const LoaderBatch *b, CnxrtError *err) {
    int64_t batch = t->plan.batch, micro = training_micro_batch(t->training);
    for (int64_t i = 0; i < batch; i++) t->scales[i] = (float)(1.0 / (double)batch);
    if (t->pretrain) {
        draw_masks(t, b->step);
    } else {
        draw_drops(t, b->step);
        mix_batch(t, b);
    }
    training_zero_grads(t->training);
    for (int64_t at = 0; at < batch; at += micro) {
        CnxrtStatus status = run_micro(t, b, at, batch - at < micro ? batch - at : micro, err);
        if (status != CNXRT_OK) return status;
    }
    return CNXRT_OK;
}

CnxrtStatus trainer_step(Trainer *t, MetricsRow *row, CnxrtError *err) {
    LoaderBatch b;
    CnxrtStatus status = loader_next(t->loader, &b, err);
    if (status == CNXRT_OK) status = gradients(t, &b, err);
    if (status != CNXRT_OK) return status;
    double loss = 0, norm = training_grad_norm(t->training), clip = t->recipe.clip;
    for (int64_t i = 0; i < t->plan.batch; i++) loss += (double)t->losses[i];
    loss /= (double)t->plan.batch;
    if (!isfinite(loss) || !isfinite(norm)) return not_finite(t, &b, norm, err);
    double scale = clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1;
    float hyper[CNXRT_HYPERS];
    plan_hyper(&t->plan, &t->recipe, b.step, scale, hyper);
    status = training_update(t->training, hyper, t->groups, err);
    training_prepare(t->training);
    *row = (MetricsRow){.step = b.step + 1,
                        .epoch = plan_epoch(&t->plan, b.step + 1),
                        .lr = plan_lr(&t->plan, plan_epoch(&t->plan, b.step)),
                        .loss = loss,
                        .grad_norm = norm,
                        .val_loss = NAN,
                        .val_top1 = NAN,
                        .val_top5 = NAN,
                        .val_map = NAN};
    return status;
}
