// What the commands share that run a training model once: grad, reconstruct, bench.
#ifndef CLI_TRAINING_H
#define CLI_TRAINING_H
#include "cli_run.h"
#include "training.h"

// The model of `program` ("train", "pretrain", "reconstruct"), or NULL after a message.
const CnxrtModel *cli_training_model(const Cli *c, const char *program);
// How many of n images to run at once: --micro, or all that fit into memory.
int64_t cli_training_micro(const Cli *c, const TrainingOptions *o, int64_t n);
// Opens a training model on --threads, with its parameters from --weights (seed:0 when `seeded` and
// there are none), prepared. CLI_OK or the exit status after a message.
int cli_training_open(Cli *c, TrainingOptions o, bool seeded, Training **out);

// The mask of the cells of one image (mask[units] of mask units, 0 or 1) for program pretrain.
void fcmae_cells(const CnxrtFcmae *f, const unsigned char *units, float *cells);

#endif
