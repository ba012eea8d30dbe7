// Batches of a data set, decoded and augmented by worker threads ahead of their use.
//
// Samples form one endless stream: position q is sample order_e[q mod count] of epoch e = q /
// count, where order_e is the permutation of the stream (seed, RNG_ORDER, e, 0), or the identity
// without shuffling. Step s is the positions s * batch ... (s + 1) * batch - 1. So a step's
// contents depend on its number alone, neither on the threads nor on where a run was resumed, and
// every epoch holds every sample once whatever the batch.
#ifndef DATASET_LOADER_H
#define DATASET_LOADER_H
#include "augment.h"
#include "dataset.h"

typedef struct {
    Dataset *data;
    const Augment *augment;
    int64_t batch;
    uint64_t seed; // of order and augmentation
    bool shuffle;
    int64_t step; // to begin with
    int threads;  // workers, at least 1
    int ahead;    // batches made ahead of the one in use, at least 1
} LoaderOptions;

typedef struct {
    int64_t step;
    float *images;          // batch * height * width * channels
    const int64_t *samples; // wanted at each position
    const int64_t *used;    // read: that one, or another in the place of a corrupt one
} LoaderBatch;

typedef struct Loader Loader;

// Takes the memory of all batches and starts the workers.
CnxrtStatus loader_open(const LoaderOptions *o, Loader **out, CnxrtError *err);
// The next step. Waits for it; what it points to may be written to, and stays until the next call.
CnxrtStatus loader_next(Loader *l, LoaderBatch *out, CnxrtError *err);
// Stops the workers. NULL is allowed.
void loader_close(Loader *l);

#endif
