// Choices that depend on the size of the data, and the learning rate.
#include "trainer_plan.h"
#include <math.h>
#include <stdbool.h>

static void note(TrainPlan *p, const char *text) {
    cnxrt_error_add(&p->notes, "%s%s", p->notes.text ? "\n" : "", text);
}

static void plan_batch(const CnxrtRecipe *r, const PlanAsked *asked, TrainPlan *p) {
    CnxrtError text = {0};
    p->batch = asked->batch ? asked->batch : r->batch;
    if (asked->batch || (p->batch <= 1024 && p->batch * 16 <= p->images)) return;
    int64_t batch = 16;
    while (batch < 512 && batch * 2 * 64 <= p->images) batch *= 2;
    if (batch > r->batch) batch = r->batch;
    if (batch > p->images) batch = p->images;
    p->batch = batch;
    cnxrt_error_set(&text,
                    "batch %lld in the place of the recipe's %lld for %lld images; the learning "
                    "rate follows it (--batch)",
                    (long long)batch, (long long)r->batch, (long long)p->images);
    if (text.text) note(p, text.text);
    cnxrt_error_free(&text);
}

static void plan_length(const CnxrtRecipe *r, const PlanAsked *asked, TrainPlan *p) {
    double per_epoch = (double)p->images / (double)p->batch;
    bool by_steps = asked->steps && isnan(asked->epochs);
    p->epochs = by_steps ? (double)asked->steps / per_epoch
                         : (isnan(asked->epochs) ? r->epochs : asked->epochs);
    double steps = ceil(p->epochs * per_epoch - 1e-9);
    p->steps = steps < 1 ? 1 : (int64_t)steps;
    if (asked->steps && asked->steps < p->steps) p->steps = asked->steps;
    if (by_steps) p->steps = asked->steps;
    p->warmup_epochs = r->warmup_epochs;
    if (!isnan(asked->warmup_epochs))
        p->warmup_epochs = asked->warmup_epochs;
    else if (p->epochs < r->epochs && r->epochs > 0)
        p->warmup_epochs *= p->epochs / r->epochs;
}

static void plan_rates(const CnxrtRecipe *r, const PlanAsked *asked, TrainPlan *p) {
    double batch = (double)p->batch;
    if (!isnan(asked->lr))
        p->peak_lr = asked->lr;
    else if (r->lr > 0) // tuned at the recipe's batch
        p->peak_lr = r->lr * (asked->batch ? 1 : batch / (double)r->batch);
    else
        p->peak_lr = r->base_lr * batch / 256;
    p->min_lr = r->min_lr < p->peak_lr ? r->min_lr : p->peak_lr;
    p->ema = isnan(asked->ema) ? r->ema : asked->ema;
    double most = 1 - 10 / (double)p->steps;
    if (!isnan(asked->ema) || p->ema <= most || p->ema <= 0) return;
    CnxrtError text = {0};
    p->ema = most > 0 ? most : 0;
    cnxrt_error_set(&text,
                    "averaged weights decay by %.6g a step in the place of the recipe's %.6g, for "
                    "a run of %lld steps (--ema)",
                    p->ema, r->ema, (long long)p->steps);
    if (text.text) note(p, text.text);
    cnxrt_error_free(&text);
}

void train_plan(const CnxrtRecipe *r, const PlanAsked *asked, int64_t images, TrainPlan *p) {
    *p = (TrainPlan){.images = images};
    plan_batch(r, asked, p);
    plan_length(r, asked, p);
    plan_rates(r, asked, p);
}

double plan_epoch(const TrainPlan *p, int64_t steps) {
    return (double)steps * (double)p->batch / (double)p->images;
}

// e < w: peak * e / w; else min + (peak - min) * (1 + cos(pi * (e - w) / (E - w))) / 2
double plan_lr(const TrainPlan *p, double e) {
    if (e < p->warmup_epochs) return p->peak_lr * e / p->warmup_epochs;
    double length = p->epochs - p->warmup_epochs, at = length > 0 ? (e - p->warmup_epochs) : 0;
    double part = length > 0 ? at / length : 1;
    if (part > 1) part = 1;
    return p->min_lr + (p->peak_lr - p->min_lr) * 0.5 * (1 + cos(3.14159265358979323846 * part));
}

void plan_hyper(const TrainPlan *p, const CnxrtRecipe *r, int64_t step, double scale,
                float hyper[CNXRT_HYPERS]) {
    double t = (double)(step + 1);
    hyper[CNXRT_HYPER_LR] = (float)plan_lr(p, plan_epoch(p, step));
    hyper[CNXRT_HYPER_BETA1] = (float)r->beta1;
    hyper[CNXRT_HYPER_BETA2] = (float)r->beta2;
    hyper[CNXRT_HYPER_EPS] = (float)r->eps;
    hyper[CNXRT_HYPER_DECAY] = (float)r->weight_decay;
    hyper[CNXRT_HYPER_CORRECTION1] = (float)(1 / (1 - pow(r->beta1, t)));
    hyper[CNXRT_HYPER_CORRECTION2] = (float)(1 / sqrt(1 - pow(r->beta2, t)));
    hyper[CNXRT_HYPER_GRAD_SCALE] = (float)scale;
    hyper[CNXRT_HYPER_EMA] = (float)p->ema;
    hyper[CNXRT_HYPER_ONE_MINUS_BETA1] = (float)(1 - r->beta1);
    hyper[CNXRT_HYPER_ONE_MINUS_BETA2] = (float)(1 - r->beta2);
    hyper[CNXRT_HYPER_ONE_MINUS_EMA] = (float)(1 - p->ema);
}
