// Whole steps of training on made-up data, to be timed.
#ifndef CLI_STEP_H
#define CLI_STEP_H
#include "cli_training.h"

typedef struct {
    Training *training;
    const char *program; // "train" or "pretrain"
    int64_t batch, micro;
    float *groups, hyper[CNXRT_HYPERS];
    CnxrtCall *calls; // those of its programs, `program` first; then zero_grads, grad_norm
    int ncalls;
    double *seconds; // per call, to which step_run adds; NULL: it does not (step_profile)
} Step;

// Opens a training program for steps of `batch` images in micro-batches (--micro, or what a run
// would take). CLI_OK or the exit status after a message; close it in any case.
int step_open(Step *s, Cli *c, const char *program, int64_t batch);
// Zeroed gradients, every micro-batch, their norm, update, prepare.
CnxrtStatus step_run(Step *s, CnxrtError *err);
// From now on steps add the time of every call to seconds[ncalls]; NULL: no longer.
void step_profile(Step *s, double *seconds);
// Bytes that the plan says it takes.
int64_t step_bytes(const Step *s);
void step_close(Step *s);

// n values in [-2, 2), the range of normalised pictures, without a pattern.
void bench_fill(float *x, int64_t n);

#endif
