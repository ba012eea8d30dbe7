// A run: open the data, plan, find or make the parameters, then step after step until the end.
#include "trainer.h"
#include "cnxrt_clock.h"
#include "memory.h"
#include "parallel.h"
#include "trainer_state.h"
#include "training_mask.h"
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

CnxrtStatus trainer_no_memory(CnxrtError *err) {
    cnxrt_error_set(err, "out of memory");
    return CNXRT_ERROR_MEMORY;
}

void trainer_say(const Trainer *t, const char *fmt, ...) {
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n >= 0) t->options->say(t->options->user, text);
    if (n >= 0) free(text);
}

int trainer_slot(const Trainer *t) { return t->plan.ema > 0 ? CNXRT_STATE_EMA : CNXRT_STATE_PARAM; }

const CnxrtModel *trainer_model(const TrainerOptions *o) {
    return o->recipe.kind == CNXRT_PRETRAIN ? o->model->pretrain : o->model->train;
}

const CnxrtFcmae *trainer_fcmae(const Trainer *t) {
    return t->model->fcmae ? t->model->fcmae : t->options->model->fcmae;
}

// ---- state --------------------------------------------------------------------------------------

// The first line of `now` that `then` has otherwise.
static void config_differs(const char *then, const char *now, CnxrtError *err) {
    while (*now && *then) {
        int a = (int)strcspn(now, "\n"), b = (int)strcspn(then, "\n");
        if (a != b || strncmp(now, then, (size_t)a) != 0) {
            cnxrt_error_set(
                err,
                "the state was made with %.*s, this run has %.*s: give the same data and "
                "options to resume, or another --out to start afresh",
                b, then, a, now);
            return;
        }
        now += a + (now[a] != 0);
        then += b + (then[b] != 0);
    }
    cnxrt_error_set(err, "the state was made by another version of this program");
}

// Opens the newest state when resuming; refuses a folder with states otherwise.
static CnxrtStatus find_state(Trainer *t, StateFile *s, CnxrtError *err) {
    const TrainerOptions *o = t->options;
    CnxrtError note = {0};
    if (!o->resume && state_exists(o->out)) {
        cnxrt_error_set(err,
                        "%s holds a run already: --resume continues it, another --out starts "
                        "afresh",
                        o->out);
        return CNXRT_ERROR_ARGUMENT;
    }
    CnxrtStatus status = o->resume ? state_open(o->out, s, &note, err) : CNXRT_OK;
    if (note.text) trainer_say(t, "%s", note.text);
    cnxrt_error_free(&note);
    if (status != CNXRT_OK || !o->resume) return status;
    if (!s->file) {
        trainer_say(t, "%s holds no state yet: starting from the beginning", o->out);
        return CNXRT_OK;
    }
    if (strcmp(s->state.config, t->state.config) == 0) return CNXRT_OK;
    config_differs(s->state.config, t->state.config, err);
    return CNXRT_ERROR_ARGUMENT;
}

static CnxrtStatus start_fresh(Trainer *t, CnxrtError *err) {
    const TrainerOptions *o = t->options;
    double scale = t->recipe.head_init_scale > 0 ? t->recipe.head_init_scale : 1;
    CnxrtError note = {0};
    if (t->recipe.kind == CNXRT_FINETUNE && !o->init) {
        cnxrt_error_set(err, "fine-tuning starts from a checkpoint: --init CKPT");
        return CNXRT_ERROR_ARGUMENT;
    }
    training_init(t->training, o->seed, scale);
    CnxrtStatus status = o->init ? checkpoint_load(t->training, o->init, &note, err) : CNXRT_OK;
    if (note.text) trainer_say(t, "%s", note.text);
    cnxrt_error_free(&note);
    training_begin(t->training);
    t->state.best = NAN;
    return status;
}

static CnxrtStatus start(Trainer *t, const StateFile *s, CnxrtError *err) {
    t->state.micro = training_micro_batch(t->training);
    if (!s->file) return start_fresh(t, err);
    t->state.step = s->state.step;
    t->state.best = s->state.best;
    t->state.row = s->state.row;
    t->state.pending = s->state.pending;
    if (s->state.micro != t->state.micro)
        trainer_say(t,
                    "micro-batches of %" PRId64 " in the place of the state's %" PRId64
                    ": sums are rounded differently",
                    t->state.micro, s->state.micro);
    CnxrtStatus status = state_load(s, t->training, err);
    if (status == CNXRT_OK) trainer_say(t, "resumed at step %" PRId64, t->state.step);
    return status;
}

static CnxrtStatus open_training(Trainer *t, const StateFile *s, CnxrtError *err) {
    int64_t batch = t->plan.batch, image = trainer_image_bytes(t);
    t->loader_ahead = 3 * batch * image > training_memory_available() / 8 ? 1 : 2;
    int64_t row = t->pretrain ? mask_cells(trainer_fcmae(t)) : t->model->classes + t->model->ndrops;
    int64_t reserve =
        (t->loader_ahead + 1) * batch * image + batch * (row + 2) * 4 + validation_bytes(t);
    bool reconstruct = t->pretrain && t->val.data;
    TrainingOptions o = {.model = t->model,
                         .programs = reconstruct ? "pretrain,reconstruct" : t->program,
                         .threads = t->options->threads,
                         .micro = t->options->micro ? t->options->micro : s->state.micro,
                         .batch = batch,
                         .reserve = reserve,
                         .optimizer = true,
                         .ema = t->plan.ema > 0};
    CnxrtStatus status = training_open(&o, &t->training, err);
    if (status != CNXRT_OK) return status;
    int64_t micro = training_micro_batch(t->training);
    trainer_say(t, "%.0f MB of memory in micro-batches of %" PRId64,
                (double)(training_plan_bytes(&o, micro) + reserve) / 1e6, micro);
    return CNXRT_OK;
}

// Rank 1 and names of biases and scales are not decayed, all rates are the same.
static CnxrtStatus default_groups(Trainer *t, CnxrtError *err) {
    t->groups = t->recipe.groups;
    if (t->groups) return CNXRT_OK;
    int n = t->model->nparams;
    float *g = t->own_groups = calloc((size_t)n * 2 + 2, sizeof *g);
    if (!g) return trainer_no_memory(err);
    for (int i = 0; i < n; i++) {
        const char *name = t->model->params[i].name, *dot = strrchr(name, '.');
        bool scale = dot && (strcmp(dot, ".bias") == 0 || strcmp(dot, ".gamma") == 0 ||
                             strcmp(dot, ".beta") == 0);
        g[2 * i] = 1;
        g[2 * i + 1] = t->model->params[i].rank == 1 || scale ? 0 : 1;
    }
    t->groups = g;
    return CNXRT_OK;
}

static CnxrtStatus open_buffers(Trainer *t, CnxrtError *err) {
    size_t batch = (size_t)t->plan.batch;
    t->scales = calloc(batch, sizeof(float));
    t->losses = calloc(batch, sizeof(float));
    if (t->pretrain)
        t->masks = calloc(batch * (size_t)mask_cells(trainer_fcmae(t)), sizeof(float));
    else
        t->targets = calloc(batch * (size_t)t->model->classes, sizeof(float));
    t->drops = calloc(batch * (size_t)t->model->ndrops + 1, sizeof(float));
    if (!t->scales || !t->losses || !(t->pretrain ? t->masks : t->targets) || !t->drops)
        return trainer_no_memory(err);
    LoaderOptions o = {.data = t->data,
                       .augment = &t->augment,
                       .batch = t->plan.batch,
                       .seed = t->options->seed,
                       .shuffle = true,
                       .step = t->state.step,
                       .threads = cnxrt_usable_threads(t->options->threads),
                       .ahead = t->loader_ahead};
    return loader_open(&o, &t->loader, err);
}

// ---- checkpoints --------------------------------------------------------------------------------

static CnxrtStatus write_weights(const Trainer *t, const char *file, CnxrtError *err) {
    char path[4096], step[32];
    snprintf(path, sizeof path, "%.4000s/%s", t->options->out, file);
    snprintf(step, sizeof step, "%" PRId64, t->state.step);
    const char *metadata[10] = {"format", "pt", "model", t->options->model->name, "step", step};
    if (t->classes) {
        metadata[6] = "classes";
        metadata[7] = t->classes;
    }
    return checkpoint_write(path, t->training, trainer_slot(t), metadata, err);
}

static CnxrtStatus save(Trainer *t, CnxrtError *err) {
    metrics_sync(&t->metrics);
    CnxrtStatus status = state_write(t->options->out, t->training, &t->state, err);
    if (status == CNXRT_OK) status = write_weights(t, "last.safetensors", err);
    if (status == CNXRT_OK && !t->val.data) status = write_weights(t, "best.safetensors", err);
    t->saved = cnxrt_seconds();
    return status;
}

// Every save_every steps; when that is left open, every epoch but at most once a minute.
static bool save_due(const Trainer *t) {
    if (t->save_every) return t->state.step % t->save_every == 0;
    int64_t epoch = (t->plan.images + t->plan.batch - 1) / t->plan.batch;
    double since = cnxrt_seconds() - t->saved;
    return (t->state.step % epoch == 0 && since > 60) || since > 600;
}

// Higher accuracy or mean average precision, or in pre-training a lower loss.
static bool better(const Trainer *t, double value) {
    if (isnan(t->state.best)) return !isnan(value);
    return t->pretrain ? value < t->state.best : value > t->state.best;
}

// Pending afterwards when it was told to stop.
static CnxrtStatus validate(Trainer *t, MetricsRow *row, bool *best, CnxrtError *err) {
    CnxrtStatus status = validation_run(t, row, &t->state.pending, err);
    double value = t->pretrain ? row->val_loss : t->sets ? row->val_map : row->val_top1;
    if (status != CNXRT_OK || t->state.pending || !better(t, value)) return status;
    t->state.best = value;
    *best = true;
    return write_weights(t, "best.safetensors", err);
}

// ---- the loop -----------------------------------------------------------------------------------

static void tell(Trainer *t, const MetricsRow *row, bool validated, bool best) {
    int64_t epoch = (t->plan.images + t->plan.batch - 1) / t->plan.batch;
    int64_t steps = t->state.step - t->started_step;
    t->loss_sum += row->loss;
    t->loss_steps++;
    TrainerNews news = {.step = t->state.step,
                        .steps = t->plan.steps,
                        .row = *row,
                        .loss = t->loss_sum / (double)t->loss_steps,
                        .images_per_second =
                            (double)(steps * t->plan.batch) / (t->step_seconds + 1e-9),
                        .validated = validated,
                        .best = best};
    if (t->options->news) t->options->news(t->options->user, &news);
    if (t->state.step % epoch == 0) {
        t->loss_sum = 0;
        t->loss_steps = 0;
    }
}

// What follows a step: validation, the row of the metrics, the state.
static CnxrtStatus finish_step(Trainer *t, CnxrtError *err) {
    MetricsRow row = t->state.row;
    CnxrtStatus status = CNXRT_OK;
    bool best = false, last = t->state.step == t->plan.steps;
    bool due = t->val.data && (last || t->state.step % t->eval_every == 0);
    if (due) status = validate(t, &row, &best, err);
    if (status == CNXRT_OK && t->state.pending) return save(t, err);
    if (status == CNXRT_OK) status = metrics_add(&t->metrics, &row, err);
    if (status == CNXRT_OK && (last || save_due(t))) status = save(t, err);
    if (status == CNXRT_OK) tell(t, &row, due, best);
    return status;
}

static CnxrtStatus advance(Trainer *t, CnxrtError *err) {
    MetricsRow row;
    double began = cnxrt_seconds();
    CnxrtStatus status = trainer_step(t, &row, err);
    t->step_seconds += cnxrt_seconds() - began;
    if (status == CNXRT_ERROR_FORMAT) { // not finite
        CnxrtError second = {0};
        if (save(t, &second) == CNXRT_OK)
            cnxrt_error_add(err, "\nthe state before it is saved in %s", t->options->out);
        cnxrt_error_free(&second);
    }
    if (status != CNXRT_OK) return status;
    t->state.step++;
    t->state.row = row;
    return finish_step(t, err);
}

static bool told_to_stop(const Trainer *t) {
    return t->options->stop && t->options->stop(t->options->user);
}

static CnxrtStatus loop(Trainer *t, TrainerEnd *end, CnxrtError *err) {
    CnxrtStatus status = CNXRT_OK;
    *end = TRAINER_DONE;
    t->saved = cnxrt_seconds();
    t->started_step = t->state.step;
    if (t->state.pending) {
        status = finish_step(t, err);
    } else if (t->state.step >= t->plan.steps) {
        trainer_say(t, "all %" PRId64 " steps are done already", t->plan.steps);
        status = write_weights(t, "last.safetensors", err);
        if (status != CNXRT_OK || t->val.data) return status;
        return write_weights(t, "best.safetensors", err);
    }
    while (status == CNXRT_OK && t->state.step < t->plan.steps && !t->state.pending) {
        if (t->state.step > t->started_step && told_to_stop(t)) {
            *end = TRAINER_STOPPED;
            return save(t, err);
        }
        status = advance(t, err);
    }
    if (t->state.pending) *end = TRAINER_STOPPED;
    return status;
}

static CnxrtStatus prepare_run(Trainer *t, CnxrtError *err) {
    StateFile s = {0};
    CnxrtStatus status = run_folder(t->options->out, err);
    if (status == CNXRT_OK) status = find_state(t, &s, err);
    if (status == CNXRT_OK) status = open_training(t, &s, err);
    if (status == CNXRT_OK) status = start(t, &s, err);
    state_close(&s);
    if (status == CNXRT_OK) status = validation_open(t, err);
    if (status == CNXRT_OK) status = default_groups(t, err);
    if (status == CNXRT_OK) status = open_buffers(t, err);
    int64_t rows = t->state.step - t->state.pending;
    if (status == CNXRT_OK) status = metrics_open(&t->metrics, t->options->out, rows, err);
    if (status == CNXRT_OK) training_prepare(t->training);
    return status;
}

static void trainer_close(Trainer *t) {
    loader_close(t->loader);
    validation_close(&t->val);
    training_close(t->training);
    dataset_close(t->data);
    metrics_close(&t->metrics);
    cnxrt_error_free(&t->plan.notes);
    free(t->state.config);
    free(t->classes);
    free(t->own_groups);
    free(t->scales);
    free(t->targets);
    free(t->masks);
    free(t->drops);
    free(t->losses);
}

static void announce(const Trainer *t) {
    const TrainPlan *p = &t->plan;
    trainer_say(t,
                "%s with recipe %s: %" PRId64 " images%s, batch %" PRId64 ", %" PRId64
                " steps (%.4g epochs), peak lr %.4g, seed %" PRIu64,
                t->program, t->recipe.name, p->images, t->val.data ? " and validation" : "",
                p->batch, p->steps, plan_epoch(p, p->steps), p->peak_lr, t->options->seed);
}

CnxrtStatus trainer_run(const TrainerOptions *o, TrainerEnd *end, CnxrtError *err) {
    Trainer t = {.options = o, .recipe = o->recipe, .model = trainer_model(o)};
    *end = TRAINER_DONE;
    t.pretrain = o->recipe.kind == CNXRT_PRETRAIN;
    t.program = t.pretrain ? "pretrain" : "train";
    if (!t.model) {
        cnxrt_error_set(err, "model %s was built without the program %s", o->model->name,
                        t.program);
        return CNXRT_ERROR_ARGUMENT;
    }
    CnxrtStatus status = trainer_open_data(&t, err);
    if (status == CNXRT_OK) status = trainer_plan_run(&t, err);
    if (status == CNXRT_OK) announce(&t);
    if (status == CNXRT_OK) status = prepare_run(&t, err);
    if (status == CNXRT_OK) status = loop(&t, end, err);
    if (status == CNXRT_OK && dataset_corrupt(t.data))
        trainer_say(&t, "%" PRId64 " corrupt samples were replaced", dataset_corrupt(t.data));
    trainer_close(&t);
    return status;
}
