// What a run works on: its data, how pictures are changed, and the plan that follows from both.
#include "report.h"
#include "trainer_state.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// ---- data ---------------------------------------------------------------------------------------

static CnxrtStatus open_augment(Trainer *t, CnxrtError *err) {
    const CnxrtRecipe *r = &t->recipe;
    CnxrtStatus status = preprocess_of_model(t->options->model, &t->augment.base, err);
    if (status != CNXRT_OK) return status;
    t->val.augment.base = t->augment.base;
    Augment *a = &t->augment;
    if (r->interpolation)
        a->base.filter =
            strcmp(r->interpolation, "bilinear") == 0 ? FILTER_BILINEAR : FILTER_BICUBIC;
    a->crop = r->crop_scale[0] > 0;
    memcpy(a->scale, r->crop_scale, sizeof a->scale);
    memcpy(a->ratio, r->crop_ratio, sizeof a->ratio);
    if (!(a->ratio[0] > 0)) a->ratio[0] = 3.0 / 4, a->ratio[1] = 4.0 / 3;
    a->flip = r->flip;
    a->erase = r->erase;
    if (!r->rand_augment || !*r->rand_augment) return CNXRT_OK;
    char text[256];
    bool named = strncmp(r->rand_augment, "rand-", 5) == 0;
    snprintf(text, sizeof text, "%s%s", named ? "" : "rand-", r->rand_augment);
    return augment_parse(text, &a->policy, err);
}

static void report_corrupt(void *user, const char *sample, const char *reason) {
    trainer_say(user, "corrupt sample replaced: %s: %s", sample, reason);
}

static CnxrtStatus check_classes(const Trainer *t, CnxrtError *err) {
    int have = dataset_classes(t->data), want = t->model->classes;
    int64_t count = dataset_count(t->data), labelled = dataset_labelled(t->data);
    if (t->pretrain) return CNXRT_OK;
    if (labelled < count) {
        cnxrt_error_set(err, "%s: %" PRId64 " of %" PRId64 " samples have no label",
                        t->options->data, count - labelled, count);
        return CNXRT_ERROR_MISMATCH;
    }
    if (have == want) return sets_check(t->model, t->data, err);
    cnxrt_error_set(err,
                    "%s has %d classes, the model's head %d; the number is compiled in: rebuild "
                    "with cnxc build --set head.classes=%d",
                    t->options->data, have, want, have);
    return CNXRT_ERROR_MISMATCH;
}

// Class names, one a line, for the metadata of checkpoints (JSON, so bytes that are no UTF-8 are
// replaced).
static CnxrtStatus class_text(Trainer *t, CnxrtError *err) {
    int n = dataset_classes(t->data);
    size_t size = 1;
    if (t->pretrain || n == 0) return CNXRT_OK;
    for (int i = 0; i < n; i++) {
        const char *name = dataset_class_name(t->data, i);
        size += strlen(name) + 1;
        if (!strpbrk(name, "\r\n")) continue;
        cnxrt_error_set(err, "%s: the name of class %s has a line end", t->options->data, name);
        return CNXRT_ERROR_FORMAT;
    }
    char *text = calloc(size, 1);
    for (int i = 0; text && i < n; i++) {
        if (i) strcat(text, "\n");
        strcat(text, dataset_class_name(t->data, i));
    }
    json_t *clean = text ? report_json_text(text) : NULL;
    if (clean) t->classes = strdup(json_string_value(clean));
    json_decref(clean);
    free(text);
    return t->classes ? CNXRT_OK : trainer_no_memory(err);
}

static CnxrtStatus open_validation_data(Trainer *t, CnxrtError *err) {
    const TrainerOptions *o = t->options;
    int n = dataset_classes(t->data);
    const char **names = calloc((size_t)n + 1, sizeof *names);
    if (!names) return trainer_no_memory(err);
    for (int i = 0; i < n; i++) names[i] = dataset_class_name(t->data, i);
    DatasetOptions d = {.path = o->val ? o->val : o->data,
                        .split = SPLIT_VAL,
                        .whole = o->val != NULL,
                        .classes = n && !t->pretrain ? names : NULL,
                        .nclasses = t->pretrain ? 0 : n,
                        .seed = o->seed,
                        .report = report_corrupt,
                        .user = t};
    CnxrtError why = {0};
    CnxrtStatus status = dataset_open(&d, &t->val.data, &why);
    free(names);
    if (status == CNXRT_ERROR_MISMATCH && !o->val) {
        trainer_say(t, "no validation: %s", why.text ? why.text : "the data have no such part");
        status = CNXRT_OK;
    }
    if (status != CNXRT_OK) cnxrt_error_set(err, "%s", why.text ? why.text : "out of memory");
    cnxrt_error_free(&why);
    return status;
}

// Validation needs a program to run.
static bool can_validate(const Trainer *t) {
    const CnxrtModel *m = t->options->model;
    if (t->pretrain) return cnxrt_program(t->model, "reconstruct") != NULL;
    return cnxrt_program(m, "infer") && cnxrt_program(m, "prepare");
}

CnxrtStatus trainer_open_data(Trainer *t, CnxrtError *err) {
    const TrainerOptions *o = t->options;
    DatasetOptions d = {.path = o->data,
                        .split = SPLIT_TRAIN,
                        .whole = true,
                        .label_fraction = o->label_fraction,
                        .min_classes = t->model->loss == CNXRT_LOSS_BCE ? t->model->classes : 0,
                        .seed = o->seed,
                        .report = report_corrupt,
                        .user = t};
    CnxrtStatus status = open_augment(t, err);
    if (status == CNXRT_OK) status = dataset_open(&d, &t->data, err);
    if (status == CNXRT_OK) status = check_classes(t, err);
    if (status == CNXRT_OK) status = class_text(t, err);
    if (status != CNXRT_OK) return status;
    if (can_validate(t))
        status = open_validation_data(t, err);
    else
        trainer_say(t, "no validation: the model was built without the programs for it");
    if (status != CNXRT_OK || t->pretrain) return status;
    if (t->val.data) status = sets_check(t->model, t->val.data, err);
    t->sets = dataset_sets(t->data) || (t->val.data && dataset_sets(t->val.data));
    t->sets &= t->model->loss == CNXRT_LOSS_BCE;
    return status;
}

// ---- plan ---------------------------------------------------------------------------------------

int64_t trainer_image_bytes(const Trainer *t) {
    const Preprocess *p = &t->augment.base;
    return (int64_t)p->height * p->width * p->channels * (int64_t)sizeof(float);
}

// A validation batch of about 2^20 pixels.
static int64_t validation_batch(const Trainer *t) {
    int64_t pixels = (int64_t)t->augment.base.height * t->augment.base.width, batch = 8;
    while (batch < 128 && 2 * batch * pixels <= INT64_C(1) << 20) batch *= 2;
    int64_t count = dataset_count(t->val.data);
    return batch < count ? batch : count;
}

// What is compiled in and results depend on: " in bf16 with 19 of 49 mask units visible".
static void print_built(const Trainer *t, char *text, size_t size) {
    const CnxrtFcmae *f = t->pretrain ? trainer_fcmae(t) : NULL;
    const char *precision = t->model->precision;
    bool plain = !precision || strcmp(precision, "fp32") == 0;
    size_t n = (size_t)snprintf(text, size, "%s%s", plain ? "" : " in ", plain ? "" : precision);
    if (!t->pretrain && t->model->loss == CNXRT_LOSS_BCE && n < size)
        snprintf(text + n, size - n, " with binary cross-entropy");
    if (f && n < size)
        snprintf(text + n, size - n, " with %d of %d mask units visible%s", f->keep, f->units,
                 f->norm_pix ? "" : ", plain targets");
}

// What the results depend on, a line each; a resumed run must have the same.
static CnxrtStatus make_config(Trainer *t, CnxrtError *err) {
    const CnxrtRecipe *r = &t->recipe;
    const TrainPlan *p = &t->plan;
    char built[1024];
    print_built(t, built, sizeof built);
    int n = asprintf(
        &t->state.config,
        "model=%s%s\nprogram=%s\nparameters=%d\nimages=%" PRId64 "\nclasses=%d\nseed=%" PRIu64
        "\nlabel_fraction=%.9g\nbatch=%" PRId64 "\nepochs=%.9g\nwarmup_epochs=%.9g\nlr=%.9g\n"
        "min_lr=%.9g\nweight_decay=%.9g\nbetas=%.9g,%.9g\neps=%.9g\nclip=%.9g\nema=%.9g\n"
        "drop_path=%.9g\nsmoothing=%.9g\nmixup=%.9g\ncutmix=%.9g\nmix_switch=%.9g\n"
        "crop_scale=%.9g,%.9g\ncrop_ratio=%.9g,%.9g\nflip=%.9g\nerase=%.9g\nrand_augment=%s\n",
        t->model->name, built, t->program, (int)t->model->nparams, p->images,
        t->pretrain ? 0 : dataset_classes(t->data), t->options->seed, t->options->label_fraction,
        p->batch, p->epochs, p->warmup_epochs, p->peak_lr, p->min_lr, r->weight_decay, r->beta1,
        r->beta2, r->eps, r->clip, p->ema, r->drop_path, r->label_smoothing, r->mixup, r->cutmix,
        r->mix_switch, r->crop_scale[0], r->crop_scale[1], r->crop_ratio[0], r->crop_ratio[1],
        r->flip, r->erase, r->rand_augment ? r->rand_augment : "none");
    if (n >= 0) return CNXRT_OK;
    t->state.config = NULL;
    return trainer_no_memory(err);
}

static void plan_intervals(Trainer *t) {
    const TrainerOptions *o = t->options;
    int64_t epoch = (t->plan.images + t->plan.batch - 1) / t->plan.batch;
    int64_t part = (t->plan.steps + 19) / 20;
    t->eval_every = o->eval_every ? o->eval_every : epoch > part ? epoch : part;
    t->save_every = o->save_every;
}

CnxrtStatus trainer_plan_run(Trainer *t, CnxrtError *err) {
    train_plan(&t->recipe, &t->options->asked, dataset_count(t->data), &t->plan);
    if (t->plan.notes.text) trainer_say(t, "%s", t->plan.notes.text);
    plan_intervals(t);
    t->mix = (MixOptions){.mixup = t->recipe.mixup,
                          .cutmix = t->recipe.cutmix,
                          .probability = 1,
                          .switching = t->recipe.mix_switch};
    if (t->val.data) t->val.batch = validation_batch(t);
    return make_config(t, err);
}
