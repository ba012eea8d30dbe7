// The C ABI of compiled models: create a session from weights, run programs on batches, destroy.
// A session may be used by one thread at a time, any number of sessions at once: all they share is
// a count of the threads that run (parallel.c).
// Prepared weights are read-only: sessions may share them (CnxrtOptions.share), the last one frees.
#ifndef CNXRT_H
#define CNXRT_H
#include "cnxrt_model.h"
#include "cnxrt_weights.h"

typedef struct CnxrtSession CnxrtSession;

typedef struct {
    int threads;          // 0: OMP_NUM_THREADS or all CPUs
    int64_t max_batch;    // memory is taken for this many images at creation; 0: 1
    const char *weights;  // checkpoint path, or "seed:N" for the values of cnxrt_seed_weights with
                          // seed N; NULL: the weights embedded in the artifact
    const char *programs; // comma-separated names the session will run; NULL: all but prepare
    int encoder; // head and final norm may be missing in the checkpoint (zeros, the identity): for
                 // features of an encoder from pre-training
    int seeded;  // without a path and embedded weights: as "seed:0"
    const CnxrtSession *share; // take this session's prepared weights (same model) instead
} CnxrtOptions;

// The version of a model to run here: of a list that ends with NULL, all of one model, from the
// least demanding target to the most, the last whose features the CPU has; the first, which
// cnxrt_create then refuses, when there is none. The environment variable CNXRT_TARGET names
// another: CNXRT_ERROR_ARGUMENT when it is not there, CNXRT_ERROR_CPU when it cannot run.
CnxrtStatus cnxrt_pick(const CnxrtModel *const *versions, const CnxrtModel **out, CnxrtError *err);
// Checks the CPU, loads and prepares weights, takes all memory. *out is NULL on error.
CnxrtStatus cnxrt_create(const CnxrtModel *model, const CnxrtOptions *options, CnxrtSession **out,
                         CnxrtError *err);
void cnxrt_destroy(CnxrtSession *s); // NULL is allowed
const CnxrtModel *cnxrt_model(const CnxrtSession *s);
// Class names of the checkpoint's metadata, else of the artifact, else NULL; newline-separated.
const char *cnxrt_class_names(const CnxrtSession *s);
const CnxrtProgram *cnxrt_program(const CnxrtModel *m, const char *name); // NULL: absent

// Runs a program on `batch` images (any number: cut into max_batch pieces, each a run of its own
// for statistics over the batch). inputs/outputs: one pointer per port, channels-last f32; an
// output may be NULL when not wanted. Takes no memory.
CnxrtStatus cnxrt_run(CnxrtSession *s, const CnxrtProgram *p, int64_t batch,
                      const void *const *inputs, void *const *outputs, CnxrtError *err);

// Timing: as cnxrt_run, adding seconds per call of the program to seconds[ncalls] (mean over
// threads). batch <= max_batch.
CnxrtStatus cnxrt_run_profiled(CnxrtSession *s, const CnxrtProgram *p, int64_t batch,
                               const void *const *inputs, void *const *outputs, double *seconds,
                               CnxrtError *err);
// Best rate of a pure FMA loop in FLOP/s on `threads` threads over about `seconds`, f32, in the
// vector width the model was compiled for (the loop is generated code: program "peak").
double cnxrt_peak_flops(const CnxrtModel *m, int threads, double seconds);
int cnxrt_threads(const CnxrtSession *s);
// Bytes a session of this model takes for programs at a batch: arena, scratch, prepared weights.
int64_t cnxrt_planned_bytes(const CnxrtModel *m, const char *programs, int64_t batch, int threads);

#endif
