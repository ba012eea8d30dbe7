// Inside the engine of training: what training.h's Training holds.
#ifndef TRAINING_STATE_H
#define TRAINING_STATE_H
#include "parallel.h"
#include "training.h"

// A program that will be run, and the buffers of its ports.
typedef struct {
    const CnxrtProgram *program;
    char **own;          // per input: its memory
    const void **inputs; // per input: own, or what training_point set
    void **outputs;
    double *seconds; // per call, what training_profile set
} TrainingProgram;

struct Training {
    const CnxrtModel *model;
    int threads;
    int64_t micro;
    CnxrtTeam team;
    char *state[CNXRT_STATES]; // NULL: not asked for
    char *weights, *arena, *scratch;
    TrainingProgram *programs; // those of the options, then update, then prepare
    int nprograms;
    double *sums; // per block of gradients
    double *profile_rows;
};

// The program list of the options with what they imply: "train,update.ema,prepare". buf of size
// bytes; false: too long.
bool training_program_list(const TrainingOptions *o, char *buf, size_t size);

#endif
