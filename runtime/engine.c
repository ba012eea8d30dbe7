// Running programs: one parallel region per piece of the batch, no memory taken.
#include "session.h"
#include <string.h>

const CnxrtModel *cnxrt_model(const CnxrtSession *s) { return s->model; }

int cnxrt_threads(const CnxrtSession *s) { return s->threads; }

const char *cnxrt_class_names(const CnxrtSession *s) {
    return s->prepared->class_names ? s->prepared->class_names : s->model->class_names;
}

const CnxrtProgram *cnxrt_program(const CnxrtModel *m, const char *name) {
    for (int i = 0; i < m->nprograms; i++)
        if (strcmp(m->programs[i].name, name) == 0) return &m->programs[i];
    return NULL;
}

typedef struct {
    const CnxrtProgram *program;
    const CnxrtFrame *frame;
    int64_t threads; // how many ran
} RunTask;

static void run_task(void *user, int64_t thread, int64_t nthreads) {
    RunTask *t = user;
    if (thread == 0) t->threads = nthreads;
    t->program->run(t->frame, thread, nthreads);
}

int64_t cnxrt_frame_run(CnxrtTeam *team, const CnxrtProgram *p, int threads, CnxrtFrame *frame) {
    frame->team = team;
    RunTask task = {p, frame, 1};
    cnxrt_parallel(threads, run_task, &task);
    return task.threads;
}

// Ports of the piece of the batch that starts at image `at`; outputs not wanted go to the spare
// block, each to its own part of it (a later step may read what an earlier one put out).
static void piece_ports(CnxrtSession *s, const CnxrtProgram *p, int64_t at,
                        const void *const *inputs, void *const *outputs) {
    for (int i = 0; i < p->ninputs; i++)
        s->inputs[i] = (const char *)inputs[i] + at * p->inputs[i].bytes;
    char *spare = s->spare;
    for (int i = 0; i < p->noutputs; i++) {
        if (outputs[i])
            s->outputs[i] = (char *)outputs[i] + at * p->outputs[i].bytes;
        else
            s->outputs[i] = spare;
        spare += s->max_batch * ((p->outputs[i].bytes + 63) / 64 * 64);
    }
}

// Runs one piece on the ports set; returns how many threads there were.
static int64_t piece_run(CnxrtSession *s, const CnxrtProgram *p, int64_t batch,
                         CnxrtProfile *profile) {
    CnxrtFrame frame = {.arena = s->arena,
                        .scratch = s->scratch,
                        .weights = (char *)s->prepared->data,
                        .inputs = s->inputs,
                        .outputs = s->outputs,
                        .batch = batch,
                        .profile = profile};
    return cnxrt_frame_run(&s->team, p, s->threads, &frame);
}

static CnxrtStatus run_check(const CnxrtSession *s, const CnxrtProgram *p, int64_t batch,
                             const void *const *inputs, CnxrtError *err) {
    if (!p || p < s->model->programs || p >= s->model->programs + s->model->nprograms) {
        cnxrt_error_set(err, "no such program in model %s", s->model->name);
        return CNXRT_ERROR_ARGUMENT;
    }
    if (!cnxrt_program_listed(s->programs, p->name)) {
        cnxrt_error_set(err, "program %s was not asked for when the session was created (%s)",
                        p->name, s->programs ? s->programs : "all but prepare");
        return CNXRT_ERROR_ARGUMENT;
    }
    if (batch < 0) {
        cnxrt_error_set(err, "a batch of %lld images", (long long)batch);
        return CNXRT_ERROR_ARGUMENT;
    }
    for (int i = 0; i < p->ninputs; i++)
        if (!inputs[i] && batch > 0) {
            cnxrt_error_set(err, "input %s of program %s is NULL", p->inputs[i].name, p->name);
            return CNXRT_ERROR_ARGUMENT;
        }
    return CNXRT_OK;
}

CnxrtStatus cnxrt_run(CnxrtSession *s, const CnxrtProgram *p, int64_t batch,
                      const void *const *inputs, void *const *outputs, CnxrtError *err) {
    CnxrtStatus status = run_check(s, p, batch, inputs, err);
    if (status != CNXRT_OK) return status;
    for (int64_t at = 0; at < batch; at += s->max_batch) {
        int64_t left = batch - at;
        piece_ports(s, p, at, inputs, outputs);
        (void)piece_run(s, p, left < s->max_batch ? left : s->max_batch, NULL);
    }
    return CNXRT_OK;
}

CnxrtStatus cnxrt_run_profiled(CnxrtSession *s, const CnxrtProgram *p, int64_t batch,
                               const void *const *inputs, void *const *outputs, double *seconds,
                               CnxrtError *err) {
    CnxrtStatus status = run_check(s, p, batch, inputs, err);
    if (status != CNXRT_OK) return status;
    if (batch > s->max_batch) {
        cnxrt_error_set(err, "profiling a batch of %lld with a session for %lld images",
                        (long long)batch, (long long)s->max_batch);
        return CNXRT_ERROR_ARGUMENT;
    }
    if (batch == 0) return CNXRT_OK;
    piece_ports(s, p, 0, inputs, outputs);
    CnxrtProfile profile;
    cnxrt_profile_start(&profile, s->profile_rows, p->ncalls, s->threads);
    int64_t threads = piece_run(s, p, batch, &profile);
    cnxrt_profile_sum(&profile, threads, seconds);
    return CNXRT_OK;
}
