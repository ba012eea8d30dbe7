// Validation. Trained classifiers run as their users will run them: the inference model on current
// (averaged) weights. Pre-training runs `reconstruct` with masks that depend on the sample alone,
// so that losses of different steps and runs compare.
#include "memory.h"
#include "session.h"
#include "trainer_state.h"
#include "training_mask.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MASK_EPOCH = -1 }; // of validation's masks; no step has this number

static int64_t image_floats(const Trainer *t) {
    const Preprocess *p = &t->augment.base;
    return (int64_t)p->height * p->width * p->channels;
}

int64_t validation_bytes(const Trainer *t) {
    const CnxrtModel *m = t->options->model;
    if (!t->val.data) return 0;
    int64_t bytes = 3 * t->val.batch * image_floats(t) * (int64_t)sizeof(float);
    if (t->pretrain) return bytes;
    if (t->sets) bytes += set_scores_bytes(dataset_count(t->val.data), m->classes);
    int threads = cnxrt_usable_threads(t->options->threads);
    return bytes + m->param_bytes + cnxrt_planned_bytes(m, "infer,prepare", t->val.batch, threads);
}

// Which parameter of the training model each one of inference is.
static CnxrtStatus map_params(Trainer *t, CnxrtError *err) {
    const CnxrtModel *m = t->options->model;
    Validation *v = &t->val;
    v->from = calloc((size_t)m->nparams + 1, sizeof *v->from);
    v->params = cnxrt_memory_take(m->param_bytes);
    if (!v->from || !v->params) return trainer_no_memory(err);
    for (int i = 0; i < m->nparams; i++) {
        const CnxrtParam *p = &m->params[i];
        int k = v->from[i] = training_param_find(t->training, p->name);
        if (k >= 0 && training_param_count(&t->model->params[k]) == training_param_count(p))
            continue;
        cnxrt_error_set(err, "the training model has no %s of inference's shape", p->name);
        return CNXRT_ERROR_MISMATCH;
    }
    return CNXRT_OK;
}

CnxrtStatus validation_open(Trainer *t, CnxrtError *err) {
    Validation *v = &t->val;
    if (!v->data || t->pretrain) return CNXRT_OK;
    CnxrtOptions o = {.threads = t->options->threads,
                      .max_batch = v->batch,
                      .weights = "seed:0",
                      .programs = "infer,prepare"};
    CnxrtStatus status = cnxrt_create(t->options->model, &o, &v->session, err);
    if (status != CNXRT_OK) return status;
    size_t logits = (size_t)(v->batch * t->model->classes);
    v->logits = malloc(logits * sizeof *v->logits);
    if (!v->logits) return trainer_no_memory(err);
    if (t->sets && !set_scores_open(&v->sets, dataset_count(v->data), t->model->classes))
        return trainer_no_memory(err);
    return map_params(t, err);
}

void validation_close(Validation *v) {
    dataset_close(v->data);
    cnxrt_destroy(v->session);
    cnxrt_memory_give(v->params);
    set_scores_close(&v->sets);
    free(v->from);
    free(v->logits);
}

typedef struct {
    double loss;
    int64_t images, top1, top5;
} Score;

// Softmax cross-entropy of a label: log(sum e^(x - max)) - (x_label - max).
static double cross_entropy(const float *x, int n, int label) {
    double top = (double)x[0], sum = 0;
    for (int k = 1; k < n; k++) top = (double)x[k] > top ? (double)x[k] : top;
    for (int k = 0; k < n; k++) sum += rng_exp((double)x[k] - top);
    return rng_log(sum) - ((double)x[label] - top);
}

static void score_logits(const Trainer *t, const float *x, LabelSet labels, Score *s) {
    int n = t->model->classes, label = labels.count == 1 ? labels.ids[0] : -1;
    if (labels.count < 0) return;
    s->loss +=
        t->model->loss == CNXRT_LOSS_BCE ? set_loss(x, n, labels) : cross_entropy(x, n, label);
    s->images++;
    if (t->sets) return;
    int better = 0;
    for (int k = 0; k < n; k++) better += x[k] > x[label] || (x[k] == x[label] && k < label);
    s->top1 += better < 1;
    s->top5 += better < 5;
}

static CnxrtStatus classify(Trainer *t, const LoaderBatch *b, int64_t n, Score *s,
                            CnxrtError *err) {
    Validation *v = &t->val;
    const CnxrtProgram *p = cnxrt_program(t->options->model, "infer");
    const void *inputs[1] = {b->images};
    void *outputs[8] = {NULL};
    for (int i = 0; i < p->noutputs && i < 8; i++)
        if (strcmp(p->outputs[i].name, "logits") == 0) outputs[i] = v->logits;
    CnxrtStatus status = cnxrt_run(v->session, p, n, inputs, outputs, err);
    for (int64_t i = 0; status == CNXRT_OK && i < n; i++) {
        const float *logits = v->logits + i * t->model->classes;
        LabelSet labels = dataset_labels(v->data, b->used[i]);
        score_logits(t, logits, labels, s);
        if (t->sets) set_scores_add(&v->sets, logits, labels);
    }
    return status;
}

static CnxrtStatus reconstruct(Trainer *t, const LoaderBatch *b, int64_t n, Score *s,
                               CnxrtError *err) {
    const CnxrtFcmae *f = trainer_fcmae(t);
    int64_t micro = training_micro_batch(t->training), cells = mask_cells(f);
    float *masks = training_input(t->training, "reconstruct", "mask");
    for (int64_t at = 0; at < n; at += micro) {
        int64_t part = n - at < micro ? n - at : micro;
        for (int64_t i = 0; i < part; i++)
            mask_draw(f, 0, (uint32_t)MASK_EPOCH, (uint64_t)b->samples[at + i], masks + i * cells);
        training_point(t->training, "reconstruct", "image", b->images + at * image_floats(t));
        CnxrtStatus status = training_run(t->training, "reconstruct", part, err);
        if (status != CNXRT_OK) return status;
        const float *loss = training_output(t->training, "reconstruct", "loss");
        for (int64_t i = 0; i < part; i++) s->loss += (double)loss[i];
        s->images += part;
    }
    return CNXRT_OK;
}

static CnxrtStatus weights_set(Trainer *t, CnxrtError *err) {
    const CnxrtModel *m = t->options->model;
    int slot = trainer_slot(t);
    if (t->pretrain) {
        if (slot != CNXRT_STATE_PARAM) training_prepare_from(t->training, slot);
        return CNXRT_OK;
    }
    for (int i = 0; i < m->nparams; i++)
        memcpy((char *)t->val.params + m->params[i].offset,
               training_param(t->training, slot, t->val.from[i]),
               (size_t)training_param_count(&m->params[i]) * sizeof(float));
    return cnxrt_session_params(t->val.session, t->val.params, err);
}

static CnxrtStatus score_all(Trainer *t, Loader *loader, Score *s, bool *stopped, CnxrtError *err) {
    int64_t count = dataset_count(t->val.data);
    for (int64_t at = 0; at < count; at += t->val.batch) {
        int64_t n = count - at < t->val.batch ? count - at : t->val.batch;
        LoaderBatch b;
        CnxrtStatus status = loader_next(loader, &b, err);
        if (status == CNXRT_OK)
            status = t->pretrain ? reconstruct(t, &b, n, s, err) : classify(t, &b, n, s, err);
        if (status != CNXRT_OK) return status;
        if (t->options->wait) t->options->wait(t->options->user, at + n, count);
        *stopped = at + n < count && t->options->stop && t->options->stop(t->options->user);
        if (*stopped) return CNXRT_OK;
    }
    return CNXRT_OK;
}

CnxrtStatus validation_run(Trainer *t, MetricsRow *row, bool *stopped, CnxrtError *err) {
    Validation *v = &t->val;
    LoaderOptions o = {.data = v->data,
                       .augment = &v->augment,
                       .batch = v->batch,
                       .threads = cnxrt_usable_threads(t->options->threads),
                       .ahead = 2};
    Loader *loader = NULL;
    *stopped = false;
    v->sets.n = 0;
    Score s = {0};
    CnxrtStatus status = weights_set(t, err);
    if (status == CNXRT_OK) status = loader_open(&o, &loader, err);
    if (status == CNXRT_OK) status = score_all(t, loader, &s, stopped, err);
    loader_close(loader);
    if (t->pretrain && trainer_slot(t) != CNXRT_STATE_PARAM) training_prepare(t->training);
    if (*stopped) return status;
    double n = s.images ? (double)s.images : 1;
    row->val_loss = s.loss / n;
    if (t->sets) row->val_map = 100 * set_scores_map(&v->sets);
    if (t->pretrain || t->sets) return status;
    row->val_top1 = 100 * (double)s.top1 / n;
    row->val_top5 = 100 * (double)s.top5 / n;
    return status;
}
