// One block of memory per purpose, taken at once; programs run on it by the frame of
// cnxrt_model.h. Sums over gradients are made per block of them and then in the blocks' order, so
// that threads change nothing.
#include "training.h"
#include "cnxrt.h"
#include "memory.h"
#include "session.h"
#include "training_state.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const CnxrtModel *training_model(const Training *t) { return t->model; }
int training_threads(const Training *t) { return t->threads; }
int64_t training_micro_batch(const Training *t) { return t->micro; }

// ---- parameters ---------------------------------------------------------------------------------

int64_t training_param_count(const CnxrtParam *p) {
    int64_t n = 1;
    for (int i = 0; i < p->rank; i++) n *= p->dims[i];
    return n;
}

float *training_param(const Training *t, int slot, int i) {
    char *blob = t->state[slot];
    return blob ? (float *)(void *)(blob + t->model->params[i].offset) : NULL;
}

int training_param_find(const Training *t, const char *name) {
    for (int i = 0; i < t->model->nparams; i++)
        if (strcmp(t->model->params[i].name, name) == 0) return i;
    return -1;
}

void *training_state(const Training *t, int slot) { return t->state[slot]; }

// ---- opening ------------------------------------------------------------------------------------

static CnxrtStatus options_check(const TrainingOptions *o, const char *list, CnxrtError *err) {
    if (o->threads < 0 || o->threads > CNXRT_MAX_THREADS || o->micro < 0 || o->batch < 0) {
        cnxrt_error_set(err, "%d threads, micro-batches of %lld and batches of %lld images",
                        o->threads, (long long)o->micro, (long long)o->batch);
        return CNXRT_ERROR_ARGUMENT;
    }
    return cnxrt_model_check(o->model, list, err);
}

static double mega(int64_t bytes) { return (double)bytes / 1e6; }

// Chooses the micro-batch, and refuses one that does not fit.
static CnxrtStatus micro_choose(const TrainingOptions *o, int64_t *micro, CnxrtError *err) {
    int64_t available = training_memory_available();
    *micro = o->micro;
    if (o->batch && *micro > o->batch) *micro = o->batch;
    if (*micro == 0) *micro = training_micro(o, available);
    int64_t asked = *micro ? *micro : 1, needs = training_plan_bytes(o, asked);
    if (*micro && needs <= available - o->reserve) return CNXRT_OK;
    int64_t fits = training_micro_fits(o, available);
    cnxrt_error_set(err, "%s in micro-batches of %" PRId64 " needs %.0f MB, %.0f MB are available",
                    o->model->name, asked, mega(needs) + mega(o->reserve), mega(available));
    if (fits)
        cnxrt_error_add(err, "; --micro %" PRId64 " fits", fits);
    else
        cnxrt_error_add(err, "; not even one image at a time fits (%.0f MB)",
                        mega(training_plan_bytes(o, 1)) + mega(o->reserve));
    return CNXRT_ERROR_MEMORY;
}

static void *take_zeroed(int64_t bytes) {
    void *p = cnxrt_memory_take(bytes);
    if (p) memset(p, 0, (size_t)bytes);
    return p;
}

static bool program_open(TrainingProgram *q, const CnxrtProgram *p, int64_t micro) {
    q->program = p;
    q->own = calloc((size_t)p->ninputs + 1, sizeof *q->own);
    q->inputs = calloc((size_t)p->ninputs + 1, sizeof *q->inputs);
    q->outputs = calloc((size_t)p->noutputs + 1, sizeof *q->outputs);
    if (!q->own || !q->inputs || !q->outputs) return false;
    for (int i = 0; i < p->ninputs; i++) {
        q->inputs[i] = q->own[i] = take_zeroed(micro * p->inputs[i].bytes);
        if (!q->own[i]) return false;
    }
    for (int i = 0; i < p->noutputs; i++)
        if (!(q->outputs[i] = take_zeroed(micro * p->outputs[i].bytes))) return false;
    return true;
}

static void program_close(TrainingProgram *q) {
    for (int i = 0; q->own && i < q->program->ninputs; i++) cnxrt_memory_give(q->own[i]);
    for (int i = 0; q->outputs && i < q->program->noutputs; i++) cnxrt_memory_give(q->outputs[i]);
    free(q->own);
    free(q->inputs);
    free(q->outputs);
}

enum { NORM_BLOCK = 1 << 18 }; // bytes
static int64_t norm_blocks(const CnxrtModel *m) { return m->param_bytes / NORM_BLOCK + 1; }

static bool memory_open(Training *t, const TrainingOptions *o, const char *list) {
    const CnxrtModel *m = t->model;
    bool wanted[CNXRT_STATES] = {true, true, o->optimizer, o->optimizer, o->ema};
    CnxrtPlan plan = cnxrt_plan(m, list, t->micro, t->threads);
    int64_t calls = 0;
    for (int i = 0; i < CNXRT_STATES; i++)
        if (wanted[i] && !(t->state[i] = take_zeroed(m->param_bytes))) return false;
    t->programs = calloc((size_t)m->nprograms, sizeof *t->programs);
    if (!t->programs) return false;
    for (int i = 0; i < m->nprograms; i++) {
        const CnxrtProgram *p = &m->programs[i];
        if (!cnxrt_program_listed(list, p->name)) continue;
        if (p->ncalls > calls) calls = p->ncalls;
        if (!program_open(&t->programs[t->nprograms++], p, t->micro)) return false;
    }
    t->weights = take_zeroed(m->weight_bytes);
    t->arena = cnxrt_memory_take(plan.arena);
    t->scratch = cnxrt_memory_take(plan.scratch);
    t->sums = calloc((size_t)norm_blocks(m), sizeof *t->sums);
    t->profile_rows =
        cnxrt_memory_take((int64_t)sizeof(double) * cnxrt_profile_doubles(calls, t->threads));
    return t->weights && t->arena && t->scratch && t->sums && t->profile_rows;
}

CnxrtStatus training_open(const TrainingOptions *o, Training **out, CnxrtError *err) {
    *out = NULL;
    char list[256];
    int64_t micro;
    if (!training_program_list(o, list, sizeof list)) {
        cnxrt_error_set(err, "a list of programs that is too long");
        return CNXRT_ERROR_ARGUMENT;
    }
    CnxrtStatus status = options_check(o, list, err);
    if (status == CNXRT_OK) status = micro_choose(o, &micro, err);
    if (status != CNXRT_OK) return status;
    Training *t = take_zeroed(sizeof *t);
    if (t) {
        cnxrt_team_init(&t->team);
        t->model = o->model;
        t->threads = cnxrt_usable_threads(o->threads);
        t->micro = micro;
        if (memory_open(t, o, list)) {
            *out = t;
            return CNXRT_OK;
        }
    }
    training_close(t);
    cnxrt_error_set(err, "out of memory: %.0f MB for training %s",
                    mega(training_plan_bytes(o, micro)), o->model->name);
    return CNXRT_ERROR_MEMORY;
}

void training_close(Training *t) {
    if (!t) return;
    for (int i = 0; i < t->nprograms; i++) program_close(&t->programs[i]);
    for (int i = 0; i < CNXRT_STATES; i++) cnxrt_memory_give(t->state[i]);
    free(t->programs);
    cnxrt_memory_give(t->weights);
    cnxrt_memory_give(t->arena);
    cnxrt_memory_give(t->scratch);
    free(t->sums);
    cnxrt_memory_give(t->profile_rows);
    cnxrt_memory_give(t);
}

// ---- programs -----------------------------------------------------------------------------------

static TrainingProgram *program_find(const Training *t, const char *name) {
    for (int i = 0; i < t->nprograms; i++)
        if (strcmp(t->programs[i].program->name, name) == 0) return &t->programs[i];
    return NULL;
}

static int port_find(const CnxrtPort *ports, int n, const char *name) {
    int i = 0;
    while (i < n && strcmp(ports[i].name, name) != 0) i++;
    return i < n ? i : -1;
}

float *training_input(Training *t, const char *program, const char *port) {
    TrainingProgram *q = program_find(t, program);
    int i = q ? port_find(q->program->inputs, q->program->ninputs, port) : -1;
    return i < 0 ? NULL : (float *)(void *)q->own[i];
}

float *training_output(const Training *t, const char *program, const char *port) {
    const TrainingProgram *q = program_find(t, program);
    int i = q ? port_find(q->program->outputs, q->program->noutputs, port) : -1;
    return i < 0 ? NULL : q->outputs[i];
}

bool training_point(Training *t, const char *program, const char *port, const void *data) {
    TrainingProgram *q = program_find(t, program);
    int i = q ? port_find(q->program->inputs, q->program->ninputs, port) : -1;
    if (i < 0) return false;
    q->inputs[i] = data ? data : q->own[i];
    return true;
}

void training_profile(Training *t, const char *program, double *seconds) {
    TrainingProgram *q = program_find(t, program);
    if (q) q->seconds = seconds;
}

static void program_run(Training *t, TrainingProgram *q, int64_t n, const void *params) {
    CnxrtProfile profile;
    CnxrtFrame frame = {.arena = t->arena,
                        .scratch = t->scratch,
                        .weights = t->weights,
                        .params = params,
                        .inputs = q->inputs,
                        .outputs = q->outputs,
                        .batch = n,
                        .profile = q->seconds ? &profile : NULL,
                        .state = t->state};
    if (q->seconds) cnxrt_profile_start(&profile, t->profile_rows, q->program->ncalls, t->threads);
    int64_t threads = cnxrt_frame_run(&t->team, q->program, t->threads, &frame);
    if (q->seconds) cnxrt_profile_sum(&profile, threads, q->seconds);
}

void training_prepare_from(Training *t, int slot) {
    program_run(t, program_find(t, "prepare"), 1, t->state[slot]);
}

void training_prepare(Training *t) { training_prepare_from(t, CNXRT_STATE_PARAM); }

CnxrtStatus training_run(Training *t, const char *program, int64_t n, CnxrtError *err) {
    TrainingProgram *q = program_find(t, program);
    if (!q || n < 0 || n > t->micro) {
        cnxrt_error_set(err, "program %s on %lld images, in a run opened for %lld%s", program,
                        (long long)n, (long long)t->micro, q ? "" : " of other programs");
        return CNXRT_ERROR_ARGUMENT;
    }
    if (n > 0) program_run(t, q, n, t->state[CNXRT_STATE_PARAM]);
    return CNXRT_OK;
}

CnxrtStatus training_update(Training *t, const float hyper[CNXRT_HYPERS], const float *groups,
                            CnxrtError *err) {
    const char *name = t->state[CNXRT_STATE_EMA] ? "update.ema" : "update";
    TrainingProgram *q = program_find(t, name);
    if (!q) {
        cnxrt_error_set(err, "%s was opened without an optimiser", t->model->name);
        return CNXRT_ERROR_ARGUMENT;
    }
    training_point(t, name, "hyper", hyper);
    training_point(t, name, "groups", groups);
    program_run(t, q, 1, t->state[CNXRT_STATE_PARAM]);
    return CNXRT_OK;
}

// ---- gradients ----------------------------------------------------------------------------------

static void zero_task(void *user, int64_t thread, int64_t nthreads) {
    const Training *t = user;
    int64_t n = t->model->param_bytes, part = (n / nthreads + 63) / 64 * 64, at = thread * part;
    int64_t end = thread == nthreads - 1 || at + part > n ? n : at + part;
    if (at < end) memset(t->state[CNXRT_STATE_GRAD] + at, 0, (size_t)(end - at));
}

void training_zero_grads(Training *t) { cnxrt_parallel(t->threads, zero_task, t); }

enum { LANES = 8 };

static double sum_squares(const float *x, int64_t n) {
    double lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) lane[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++) sum += (double)x[i] * (double)x[i];
    for (int k = 0; k < LANES; k++) sum += lane[k];
    return sum;
}

// The whole blob: between parameters it is 0.
static void norm_task(void *user, int64_t thread, int64_t nthreads) {
    const Training *t = user;
    int64_t blocks = norm_blocks(t->model);
    for (int64_t i = thread * blocks / nthreads; i < (thread + 1) * blocks / nthreads; i++) {
        int64_t at = i * NORM_BLOCK, left = t->model->param_bytes - at;
        const char *x = t->state[CNXRT_STATE_GRAD] + at;
        t->sums[i] = sum_squares((const float *)(const void *)x,
                                 (left < NORM_BLOCK ? left : NORM_BLOCK) / (int64_t)sizeof(float));
    }
}

double training_grad_norm(Training *t) {
    cnxrt_parallel(t->threads, norm_task, t);
    double sum = 0;
    for (int64_t i = 0; i < norm_blocks(t->model); i++) sum += t->sums[i];
    return sqrt(sum);
}
