// The engine of training: parameters with their gradients, moments and averages, the programs of a
// training model (train or pretrain, see cnxrt_model.h) and the memory they need, which is all
// taken when it is opened. What a step is made of:
//
//   training_zero_grads; for each micro-batch: fill the inputs, training_run(train or pretrain);
//   training_grad_norm; training_update; training_prepare
//
// One thread at a time. Results do not depend on the number of threads. Nothing is printed.
#ifndef TRAINING_H
#define TRAINING_H
#include "cnxrt_weights.h"
#include <stdbool.h>

typedef struct {
    const CnxrtModel *model; // of training: CnxrtModel.train or .pretrain
    const char *programs; // to be run, comma-separated: "train", "pretrain", "pretrain,reconstruct"
    int threads;          // 0: OMP_NUM_THREADS or every CPU
    int64_t micro;        // images of a micro-batch; 0: what suits, see training_micro
    int64_t batch;        // of the optimiser, which a micro-batch never exceeds; 0: no bound
    int64_t reserve;      // bytes the run takes besides; 0: none
    bool optimizer;       // moments, for training_update
    bool ema;             // averages, too
} TrainingOptions;

typedef struct Training Training;

// Bytes that training_open takes with micro-batches of `micro` images; INT64_MAX when they
// overflow.
int64_t training_plan_bytes(const TrainingOptions *o, int64_t micro);
// Bytes this process may still take: what the system has available, within the limits of its
// cgroup. INT64_MAX when unknown.
int64_t training_memory_available(void);
// The largest micro-batch that fits into so many bytes; 0: none does.
int64_t training_micro_fits(const TrainingOptions *o, int64_t bytes);
// The micro-batch for a run that leaves the choice open: large enough for efficient kernels, small
// enough for the caches, within the batch and the memory available.
int64_t training_micro(const TrainingOptions *o, int64_t bytes);

// Checks the CPU and the memory ("... needs 5312 MB, 2100 MB are available; --micro 12 fits"),
// takes everything. Parameters are not set. *out is NULL on error.
CnxrtStatus training_open(const TrainingOptions *o, Training **out, CnxrtError *err);
void training_close(Training *t); // NULL is allowed

const CnxrtModel *training_model(const Training *t);
int training_threads(const Training *t);
int64_t training_micro_batch(const Training *t); // images the inputs and outputs have room for

// ---- parameters ---------------------------------------------------------------------------------
int64_t training_param_count(const CnxrtParam *p); // elements
// Values of parameter i (official layout) in a state blob, CNXRT_STATE_*; NULL where the slot was
// not asked for.
float *training_param(const Training *t, int slot, int i);
int training_param_find(const Training *t, const char *name); // -1: none
// The whole blob of a slot, CnxrtModel.param_bytes; NULL where it was not asked for.
void *training_state(const Training *t, int slot);

// New values by the model's rules: a parameter depends on (seed, its name) alone. head.weight and
// head.bias are multiplied by head_scale; moments and gradients become 0, averages copies.
void training_init(Training *t, uint64_t seed, double head_scale);
// The same for parameter i alone.
void training_init_param(Training *t, int i, uint64_t seed, double head_scale);
// Sets moments and gradients to 0 and the averages to the parameters: the start of a run.
void training_begin(Training *t);

// ---- programs -------------------------------------------------------------------------------
// Where the values of a port are: room for training_micro_batch images. NULL: there is no such
// port, or the program was not asked for.
float *training_input(Training *t, const char *program, const char *port);
float *training_output(const Training *t, const char *program, const char *port);
// Reads an input from other memory from now on; NULL: from its own again. False: no such port.
bool training_point(Training *t, const char *program, const char *port, const void *data);

// Raw parameters to what programs read. Needed after the parameters changed, before programs run.
void training_prepare(Training *t);
// The same from another slot (CNXRT_STATE_EMA: run with the averages).
void training_prepare_from(Training *t, int slot);
void training_zero_grads(Training *t);
// Runs a program on n <= micro images of its inputs. train and pretrain add to the gradients.
CnxrtStatus training_run(Training *t, const char *program, int64_t n, CnxrtError *err);
// From now on the time of every call of a program is added to seconds[ncalls]; NULL: no longer.
// Programs that were not asked for are ignored.
void training_profile(Training *t, const char *program, double *seconds);
// Euclidean norm of all gradients, in double and a fixed order; not finite when one of them is not.
double training_grad_norm(Training *t);
// One step of the optimiser; averages too when they were asked for. groups: nparams x {lr scale,
// weight decay factor}, as CnxrtRecipe.groups.
CnxrtStatus training_update(Training *t, const float hyper[CNXRT_HYPERS], const float *groups,
                            CnxrtError *err);

#endif
