// Inside the trainer: what a run holds, and its parts.
#ifndef TRAINER_STATE_H
#define TRAINER_STATE_H
#include "cnxrt.h"
#include "dataset_loader.h"
#include "set_scores.h"
#include "trainer.h"

typedef struct {
    Dataset *data; // NULL: no validation
    Augment augment;
    int64_t batch;
    CnxrtSession *session; // of the inference model; train and finetune
    float *params;         // of the inference model
    int *from;             // per parameter of it: that of the training model
    float *logits;
    SetScores sets; // of the run, where samples have sets of labels
} Validation;

typedef struct {
    const TrainerOptions *options;
    CnxrtRecipe recipe;
    TrainPlan plan;
    const CnxrtModel *model; // of training
    const char *program;
    bool pretrain;
    bool sets; // samples have sets of labels: validated by mean average precision
    Dataset *data;
    Augment augment;
    MixOptions mix;
    Loader *loader;
    int loader_ahead;
    Training *training;
    Validation val;
    RunState state;
    int64_t save_every, eval_every;
    char *classes;       // metadata of checkpoints, or NULL
    float *own_groups;   // where the recipe has none
    const float *groups; // of the optimiser
    // of a batch
    float *scales, *targets, *masks, *drops, *losses;
    Metrics metrics;
    // since the last epoch
    double loss_sum;
    int64_t loss_steps;
    double saved; // clock
    int64_t started_step;
    double step_seconds; // in steps since then, without validations and saving
} Trainer;

int trainer_slot(const Trainer *t); // the parameters that are validated and written
// The training model of the recipe's kind; NULL when it was not built.
const CnxrtModel *trainer_model(const TrainerOptions *o);
void trainer_say(const Trainer *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
CnxrtStatus trainer_no_memory(CnxrtError *err);

const CnxrtFcmae *trainer_fcmae(const Trainer *t);
int64_t trainer_image_bytes(const Trainer *t);

// Opens the data and sets how pictures are changed.
CnxrtStatus trainer_open_data(Trainer *t, CnxrtError *err);
// Fills plan, intervals, mixing and the config of the state.
CnxrtStatus trainer_plan_run(Trainer *t, CnxrtError *err);
// One optimiser step; row gets what it gave.
CnxrtStatus trainer_step(Trainer *t, MetricsRow *row, CnxrtError *err);

// Bytes that validation will take.
int64_t validation_bytes(const Trainer *t);
CnxrtStatus validation_open(Trainer *t, CnxrtError *err);
// Fills the val_ fields, unless it was told to stop.
CnxrtStatus validation_run(Trainer *t, MetricsRow *row, bool *stopped, CnxrtError *err);
void validation_close(Validation *v);

#endif
