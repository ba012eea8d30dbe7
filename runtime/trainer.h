// A training run from its options to its last checkpoint: pre-training, fine-tuning or training.
// Everything it has to say goes through the callbacks.
//
// In RUN it leaves last.safetensors and best.safetensors (the averaged weights where there are
// averages), metrics.jsonl, metrics.csv and the newest three state files; what it computes depends
// on the data, the options and the seed alone, neither on threads nor on where it was interrupted.
#ifndef TRAINER_H
#define TRAINER_H
#include "checkpoint.h"
#include "trainer_plan.h"

// How the run goes.
typedef struct {
    int64_t step, steps; // done, of all
    MetricsRow row;      // of the last step
    double loss;         // mean since the run (or its resumption) began or the last epoch ended
    double images_per_second; // in steps alone
    bool validated;           // row has a validation
    bool best;                // which is the best so far
} TrainerNews;

typedef struct {
    const CnxrtModel *model; // of inference, which points at the training models
    CnxrtRecipe recipe;      // with what was changed
    PlanAsked asked;
    const char *data, *val; // val NULL: the validation part of the data, if it has one
    const char *out;
    const char *init; // checkpoint, NULL: fresh parameters
    int64_t micro;    // 0: chosen
    uint64_t seed;
    int threads;
    double label_fraction;          // 0: all
    int64_t save_every, eval_every; // steps; 0: chosen
    bool resume;
    void (*say)(void *user, const char *text);           // a line for people
    void (*news)(void *user, const TrainerNews *news);   // after every step
    void (*wait)(void *user, int64_t done, int64_t all); // images of a validation; may be NULL
    bool (*stop)(void *user);                            // asked after every step
    void *user;
} TrainerOptions;

typedef enum { TRAINER_DONE, TRAINER_STOPPED } TrainerEnd;

// Runs to the end, or until stop says so (the state is saved then).
CnxrtStatus trainer_run(const TrainerOptions *o, TrainerEnd *end, CnxrtError *err);

#endif
