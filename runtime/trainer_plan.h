// What a run will do, as a function of its recipe, its data and what the user changed; and the
// rates of each step.
#ifndef TRAINER_PLAN_H
#define TRAINER_PLAN_H
#include "cnxrt_weights.h"

// What was asked for; 0, or NaN for reals, where nothing was.
typedef struct {
    int64_t batch, steps;
    double epochs, warmup_epochs, lr, ema;
} PlanAsked;

typedef struct {
    int64_t images; // of an epoch
    int64_t batch, steps;
    double epochs, warmup_epochs; // of the schedule; `steps` may end it before
    double peak_lr, min_lr, ema;
    CnxrtError notes; // a line for every choice that is not the recipe's
} TrainPlan;

// Batch: the recipe's, unless an epoch has fewer than 16 of them or it is above 1024: then a power
// of two near a 64th of the data, 16 to 512. Rates per 256 images follow it. Steps: those asked
// for, else the epochs. Warm-up: as large a part of the run as in the recipe. Averages: over at
// most a tenth of the run.
void train_plan(const CnxrtRecipe *recipe, const PlanAsked *asked, int64_t images, TrainPlan *plan);

// The fraction of epochs that `steps` steps are.
double plan_epoch(const TrainPlan *plan, int64_t steps);
// Linear warm-up from 0, then half a cosine to min_lr, at epoch e.
double plan_lr(const TrainPlan *plan, double epoch);
// What the optimiser takes at step `step` (from 0); scale: factor of the gradients.
void plan_hyper(const TrainPlan *plan, const CnxrtRecipe *recipe, int64_t step, double scale,
                float hyper[CNXRT_HYPERS]);

#endif
