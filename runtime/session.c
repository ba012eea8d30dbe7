// Sessions: check the CPU, load a checkpoint, run `prepare`, take all memory; and give it back.
//
// On any error whatever was taken so far is released by cnxrt_destroy, which therefore accepts
// sessions that are built only in part.
#include "session.h"
#include "cpu.h"
#include <stdlib.h>
#include <string.h>

static CnxrtStatus no_memory(CnxrtError *err, const char *what, int64_t bytes) {
    cnxrt_error_set(err, "out of memory: %.1f MB for %s", (double)bytes / 1e6, what);
    return CNXRT_ERROR_MEMORY;
}

static void prepared_release(CnxrtPrepared *p) {
    if (!p || atomic_fetch_sub(&p->users, 1) != 1) return;
    cnxrt_memory_give(p->owned);
    free(p->class_names);
    free(p);
}

static CnxrtPrepared *prepared_new(void) {
    CnxrtPrepared *p = calloc(1, sizeof *p);
    if (p) atomic_init(&p->users, 1);
    return p;
}

// Runs `prepare` on a filled raw blob into p->owned, with memory of its own for the time.
static CnxrtStatus prepared_compute(CnxrtPrepared *p, const CnxrtModel *m, int threads,
                                    const void *params, CnxrtError *err) {
    const CnxrtProgram *prepare = cnxrt_program(m, "prepare");
    if (!prepare) {
        cnxrt_error_set(err, "model %s has no prepare program: it runs on its embedded weights",
                        m->name);
        return CNXRT_ERROR_ARGUMENT;
    }
    CnxrtPlan plan = cnxrt_plan(m, "prepare", 1, threads);
    p->owned = cnxrt_memory_take(m->weight_bytes);
    p->data = p->owned;
    CnxrtFrame frame = {.arena = cnxrt_memory_take(plan.arena),
                        .scratch = cnxrt_memory_take(plan.scratch),
                        .weights = p->owned,
                        .params = params,
                        .batch = 1};
    CnxrtTeam team;
    cnxrt_team_init(&team);
    bool ok = p->owned && frame.arena && frame.scratch;
    if (ok) cnxrt_frame_run(&team, prepare, threads, &frame);
    cnxrt_memory_give(frame.arena);
    cnxrt_memory_give(frame.scratch);
    if (ok) return CNXRT_OK;
    return no_memory(err, "preparing the weights", m->weight_bytes + plan.arena + plan.scratch);
}

// Reads a checkpoint into a raw blob that lives until it is prepared.
static CnxrtStatus prepared_load(CnxrtPrepared *p, const CnxrtModel *m, const CnxrtOptions *o,
                                 int threads, CnxrtError *err) {
    CnxrtWeights *w = NULL;
    CnxrtStatus status = cnxrt_weights_open(o->weights, &w, err);
    if (status != CNXRT_OK) return status;
    void *params = cnxrt_memory_take(m->param_bytes);
    if (params)
        status = (o->encoder ? cnxrt_weights_load_encoder
                             : cnxrt_weights_load)(w, m->params, m->nparams, params, err);
    else
        status = no_memory(err, "the checkpoint", m->param_bytes);
    if (status == CNXRT_OK && strstr(m->precision, "int8"))
        status = cnxrt_weights_finite(o->weights, m->params, m->nparams, params, err);
    const char *classes = status == CNXRT_OK ? cnxrt_weights_metadata(w, "classes") : NULL;
    if (classes && !(p->class_names = strdup(classes)))
        status = no_memory(err, "class names", (int64_t)strlen(classes));
    cnxrt_weights_close(w);
    if (status == CNXRT_OK) status = prepared_compute(p, m, threads, params, err);
    cnxrt_memory_give(params);
    return status;
}

// Seeded values in the place of a checkpoint; `seed` is the decimal number after "seed:".
static CnxrtStatus prepared_seed(CnxrtPrepared *p, const CnxrtModel *m, const char *seed,
                                 int threads, CnxrtError *err) {
    char *end;
    unsigned long long value = strtoull(seed, &end, 10);
    if (*seed < '0' || *seed > '9' || *end) {
        cnxrt_error_set(err, "seed:%s: expected seed:N with a decimal number", seed);
        return CNXRT_ERROR_ARGUMENT;
    }
    char *params = cnxrt_memory_take(m->param_bytes);
    if (!params) return no_memory(err, "seeded weights", m->param_bytes);
    for (int i = 0; i < m->nparams; i++) {
        const CnxrtParam *q = &m->params[i];
        cnxrt_seed_weights(q->name, q->rank, q->dims, value, (float *)(params + q->offset));
    }
    CnxrtStatus status = prepared_compute(p, m, threads, params, err);
    cnxrt_memory_give(params);
    return status;
}

// The raw parameters of the artifact; narrow ones are widened as a checkpoint's are.
static CnxrtStatus prepared_raw(CnxrtPrepared *p, const CnxrtModel *m, int threads,
                                CnxrtError *err) {
    if (strcmp(m->raw_dtype, "F32") == 0) return prepared_compute(p, m, threads, m->raw, err);
    void *params = cnxrt_memory_take(m->param_bytes);
    if (!params) return no_memory(err, "the embedded weights", m->param_bytes);
    cnxrt_weights_widen(m->raw_dtype, m->raw, m->param_bytes / (int64_t)sizeof(float), params);
    CnxrtStatus status = prepared_compute(p, m, threads, params, err);
    cnxrt_memory_give(params);
    return status;
}

static CnxrtStatus session_weights(CnxrtSession *s, const CnxrtOptions *o, CnxrtError *err) {
    if (o->share) {
        if (o->share->model != s->model) {
            cnxrt_error_set(err, "weights of model %s cannot be shared with model %s",
                            o->share->model->name, s->model->name);
            return CNXRT_ERROR_ARGUMENT;
        }
        s->prepared = o->share->prepared;
        atomic_fetch_add(&s->prepared->users, 1);
        return CNXRT_OK;
    }
    if (!(s->prepared = prepared_new())) return no_memory(err, "a session", sizeof(CnxrtPrepared));
    if (o->weights && strncmp(o->weights, "seed:", 5) == 0)
        return prepared_seed(s->prepared, s->model, o->weights + 5, s->threads, err);
    if (o->weights) return prepared_load(s->prepared, s->model, o, s->threads, err);
    if (s->model->embedded || s->model->weight_bytes == 0) {
        s->prepared->data = s->model->embedded;
        return CNXRT_OK;
    }
    if (s->model->raw) return prepared_raw(s->prepared, s->model, s->threads, err);
    if (o->seeded) return prepared_seed(s->prepared, s->model, "0", s->threads, err);
    cnxrt_error_set(err, "model %s has no embedded weights: a checkpoint is needed",
                    s->model->name);
    return CNXRT_ERROR_ARGUMENT;
}

// Space for the port pointers and the profile of any program.
static bool session_tables(CnxrtSession *s) {
    int64_t inputs = 1, outputs = 1, calls = 0;
    for (int i = 0; i < s->model->nprograms; i++) {
        const CnxrtProgram *p = &s->model->programs[i];
        if (p->ninputs > inputs) inputs = p->ninputs;
        if (p->noutputs > outputs) outputs = p->noutputs;
        if (p->ncalls > calls) calls = p->ncalls;
    }
    s->inputs = calloc((size_t)inputs, sizeof *s->inputs);
    s->outputs = calloc((size_t)outputs, sizeof *s->outputs);
    s->profile_rows =
        cnxrt_memory_take((int64_t)sizeof(double) * cnxrt_profile_doubles(calls, s->threads));
    return s->inputs && s->outputs && s->profile_rows;
}

static CnxrtStatus session_memory(CnxrtSession *s, CnxrtError *err) {
    CnxrtPlan plan = cnxrt_plan(s->model, s->programs, s->max_batch, s->threads);
    if (plan.overflow) {
        cnxrt_error_set(err, "a batch of %lld images on %d threads needs more memory than there is",
                        (long long)s->max_batch, s->threads);
        return CNXRT_ERROR_MEMORY;
    }
    s->arena = cnxrt_memory_take(plan.arena);
    s->scratch = cnxrt_memory_take(plan.scratch);
    s->spare = cnxrt_memory_take(plan.spare);
    if (s->arena && s->scratch && s->spare && session_tables(s)) return CNXRT_OK;
    return no_memory(err, "activations", plan.arena + plan.scratch + plan.spare);
}

CnxrtStatus cnxrt_model_check(const CnxrtModel *m, const char *programs, CnxrtError *err) {
    if (m->abi != CNXRT_ABI) {
        cnxrt_error_set(err, "model %s has ABI %u, this runtime has %d", m->name, m->abi,
                        CNXRT_ABI);
        return CNXRT_ERROR_ARGUMENT;
    }
    for (const char *p = programs; p && *p;) {
        char name[64] = "";
        size_t n = strcspn(p, ",");
        if (n < sizeof name) memcpy(name, p, n);
        if (!cnxrt_program(m, name)) {
            cnxrt_error_set(err, "model %s has no program %.*s", m->name, (int)n, p);
            return CNXRT_ERROR_ARGUMENT;
        }
        p += n + (p[n] == ',');
    }
    return cnxrt_cpu_check(m->target, m->target_features, err);
}

static CnxrtStatus options_check(const CnxrtModel *m, const CnxrtOptions *o, CnxrtError *err) {
    if (o->threads < 0 || o->threads > CNXRT_MAX_THREADS || o->max_batch < 0) {
        cnxrt_error_set(err, "%d threads and batches of %lld images", o->threads,
                        (long long)o->max_batch);
        return CNXRT_ERROR_ARGUMENT;
    }
    return cnxrt_model_check(m, o->programs, err);
}

static CnxrtSession *session_new(const CnxrtModel *m, const CnxrtOptions *o) {
    CnxrtSession *s = cnxrt_memory_take(sizeof *s);
    if (!s) return NULL;
    memset(s, 0, sizeof *s);
    cnxrt_team_init(&s->team);
    s->model = m;
    s->threads = cnxrt_usable_threads(o->threads);
    s->max_batch = o->max_batch ? o->max_batch : 1;
    if (o->programs && !(s->programs = strdup(o->programs))) {
        cnxrt_memory_give(s);
        return NULL;
    }
    return s;
}

CnxrtStatus cnxrt_create(const CnxrtModel *model, const CnxrtOptions *options, CnxrtSession **out,
                         CnxrtError *err) {
    *out = NULL;
    CnxrtOptions o = options ? *options : (CnxrtOptions){0};
    CnxrtStatus status = options_check(model, &o, err);
    if (status != CNXRT_OK) return status;
    CnxrtSession *s = session_new(model, &o);
    if (!s) return no_memory(err, "a session", sizeof *s);
    status = session_weights(s, &o, err);
    if (status == CNXRT_OK) status = session_memory(s, err);
    if (status == CNXRT_OK)
        *out = s;
    else
        cnxrt_destroy(s);
    return status;
}

CnxrtStatus cnxrt_session_params(CnxrtSession *s, const void *params, CnxrtError *err) {
    const CnxrtProgram *prepare = cnxrt_program(s->model, "prepare");
    if (!prepare || !s->prepared->owned || atomic_load(&s->prepared->users) != 1 ||
        !cnxrt_program_listed(s->programs, "prepare")) {
        cnxrt_error_set(err, "the weights of this session of model %s cannot be changed",
                        s->model->name);
        return CNXRT_ERROR_ARGUMENT;
    }
    CnxrtFrame frame = {.arena = s->arena,
                        .scratch = s->scratch,
                        .weights = s->prepared->owned,
                        .params = params,
                        .batch = 1};
    cnxrt_frame_run(&s->team, prepare, s->threads, &frame);
    return CNXRT_OK;
}

void cnxrt_destroy(CnxrtSession *s) {
    if (!s) return;
    prepared_release(s->prepared);
    cnxrt_memory_give(s->arena);
    cnxrt_memory_give(s->scratch);
    cnxrt_memory_give(s->spare);
    cnxrt_memory_give(s->profile_rows);
    free(s->inputs);
    free(s->outputs);
    free(s->programs);
    cnxrt_memory_give(s);
}
