// The data are the same for every micro-batch: uniform pictures, labels in turn, drawn masks.
#include "cli_step.h"
#include "cnxrt_clock.h"
#include "training_mask.h"
#include <stdlib.h>
#include <string.h>

void bench_fill(float *x, int64_t n) {
    uint32_t s = 12345;
    for (int64_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) * 0x1p-22f - 2.0f;
    }
}

static void input_fill(const Step *s, const CnxrtPort *port) {
    const CnxrtModel *m = training_model(s->training);
    float *dst = training_input(s->training, s->program, port->name);
    int64_t size = port_values(port), n = s->micro;
    if (strcmp(port->name, "image") == 0) {
        bench_fill(dst, n * size);
    } else if (strcmp(port->name, "target") == 0) {
        memset(dst, 0, (size_t)(n * size) * sizeof *dst);
        for (int64_t i = 0; i < n; i++) dst[i * size + i % size] = 1;
    } else if (strcmp(port->name, "mask") == 0) {
        for (int64_t i = 0; i < n; i++) mask_draw(m->fcmae, 0, 0, (uint64_t)i, dst + i * size);
    } else { // loss_scale, drop paths
        float v = strcmp(port->name, "loss_scale") == 0 ? (float)(1.0 / (double)s->batch) : 1;
        for (int64_t i = 0; i < n * size; i++) dst[i] = v;
    }
}

// A rate so small that the values stay what they are, however many steps.
static void hyper_fill(Step *s) {
    static const double beta1 = 0.9, beta2 = 0.95, decay = 0.05, rate = 1e-9;
    s->hyper[CNXRT_HYPER_LR] = (float)rate;
    s->hyper[CNXRT_HYPER_BETA1] = (float)beta1;
    s->hyper[CNXRT_HYPER_BETA2] = (float)beta2;
    s->hyper[CNXRT_HYPER_EPS] = 1e-8f;
    s->hyper[CNXRT_HYPER_DECAY] = (float)decay;
    s->hyper[CNXRT_HYPER_CORRECTION1] = 1;
    s->hyper[CNXRT_HYPER_CORRECTION2] = 1;
    s->hyper[CNXRT_HYPER_GRAD_SCALE] = 1;
    s->hyper[CNXRT_HYPER_ONE_MINUS_BETA1] = (float)(1 - beta1);
    s->hyper[CNXRT_HYPER_ONE_MINUS_BETA2] = (float)(1 - beta2);
}

static TrainingOptions step_options(const Step *s, const CnxrtModel *m, int threads,
                                    int64_t micro) {
    return (TrainingOptions){.model = m,
                             .programs = s->program,
                             .threads = threads,
                             .micro = micro,
                             .batch = s->batch,
                             .optimizer = true};
}

// The programs a step runs, `program` first.
enum { PROGRAMS = 3, BESIDES = 2 };
static void step_programs(const Step *s, const CnxrtProgram *out[PROGRAMS]) {
    const char *names[PROGRAMS] = {s->program, "update", "prepare"};
    for (int i = 0; i < PROGRAMS; i++)
        out[i] = cnxrt_program(training_model(s->training), names[i]);
}

static bool calls_list(Step *s) {
    static const CnxrtCall besides[BESIDES] = {{"zero_grads", "gradients", 0},
                                               {"grad_norm", "gradients", 0}};
    const CnxrtProgram *p[PROGRAMS];
    step_programs(s, p);
    int n = BESIDES;
    for (int i = 0; i < PROGRAMS; i++) n += p[i]->ncalls;
    s->calls = malloc((size_t)n * sizeof *s->calls);
    if (!s->calls) return false;
    for (int i = 0; i < PROGRAMS; i++)
        for (int k = 0; k < p[i]->ncalls; k++) s->calls[s->ncalls++] = p[i]->calls[k];
    for (int k = 0; k < BESIDES; k++) s->calls[s->ncalls++] = besides[k];
    return true;
}

void step_profile(Step *s, double *seconds) {
    const CnxrtProgram *p[PROGRAMS];
    step_programs(s, p);
    s->seconds = seconds;
    for (int i = 0; i < PROGRAMS; i++) {
        training_profile(s->training, p[i]->name, seconds);
        if (seconds) seconds += p[i]->ncalls;
    }
}

int step_open(Step *s, Cli *c, const char *program, int64_t batch) {
    *s = (Step){.program = program, .batch = batch};
    const CnxrtModel *m = cli_training_model(c, program);
    if (!m) return CLI_ERROR;
    TrainingOptions o = step_options(s, m, (int)c->args.threads, c->args.micro);
    int status = cli_training_open(c, o, true, &s->training);
    if (status != CLI_OK) return status;
    s->micro = training_micro_batch(s->training);
    s->groups = malloc(2 * (size_t)m->nparams * sizeof *s->groups + 1);
    if (!s->groups || !calls_list(s)) return cli_fail(c, "out of memory");
    for (int i = 0; i < 2 * m->nparams; i++) s->groups[i] = 1;
    hyper_fill(s);
    const CnxrtProgram *p = cnxrt_program(m, program);
    for (int i = 0; i < p->ninputs; i++) input_fill(s, &p->inputs[i]);
    training_begin(s->training);
    return CLI_OK;
}

// The time since `start` belongs to call `last` before the end.
static void step_tick(const Step *s, double start, int last) {
    if (s->seconds) s->seconds[s->ncalls - last] += cnxrt_seconds() - start;
}

CnxrtStatus step_run(Step *s, CnxrtError *err) {
    CnxrtStatus status = CNXRT_OK;
    double start = cnxrt_seconds();
    training_zero_grads(s->training);
    step_tick(s, start, 2);
    for (int64_t at = 0; status == CNXRT_OK && at < s->batch; at += s->micro) {
        int64_t n = s->batch - at < s->micro ? s->batch - at : s->micro;
        status = training_run(s->training, s->program, n, err);
    }
    if (status != CNXRT_OK) return status;
    start = cnxrt_seconds();
    (void)training_grad_norm(s->training);
    step_tick(s, start, 1);
    status = training_update(s->training, s->hyper, s->groups, err);
    training_prepare(s->training);
    return status;
}

int64_t step_bytes(const Step *s) {
    TrainingOptions o =
        step_options(s, training_model(s->training), training_threads(s->training), s->micro);
    return training_plan_bytes(&o, s->micro);
}

void step_close(Step *s) {
    training_close(s->training);
    free(s->groups);
    free(s->calls);
}
