// Programs of training from a checked spec, with the tables that go with their parameters: how a
// new one is drawn, and each recipe's learning-rate and decay factors.
#ifndef CNX_FRONTEND_TRAIN_H
#define CNX_FRONTEND_TRAIN_H
#include "network.h"

// One training model: its programs, and its parameters in the order of the tables.
typedef struct {
    Module *module;
    ParamInfos params;
    VEC(DropSite) drops; // of train
} TrainModel;

// Programs train, update, update.ema of a spec with classes. False after errors on d.
//   train   image, target [B,classes] -> loss [B], logits; drop_path on every residual but those
//           that are never dropped
bool train_build(TrainModel *out, const ModelSpec *spec, Diag *d);
// Programs pretrain, reconstruct, update, update.ema of a spec with fcmae, masked dense. Names of
// parameters are encoder.*, mask_token, proj.*, decoder.*, pred.*. False after errors on d.
//   pretrain     image, mask [B,rows,cols] by cell -> loss [B]
//   reconstruct  the same -> loss, pred [B,rows,cols,values]
bool pretrain_build(TrainModel *out, const ModelSpec *spec, Diag *d);

// Input `hyper` of the update programs.
enum { HYPER_VALUES = 12 };

// How a new parameter is drawn: all of one value; normal of that deviation; uniform within it.
typedef enum { INIT_CONSTANT, INIT_NORMAL, INIT_UNIFORM } InitRule;
// official: as the official code of FCMAE does.
InitRule param_init(const ParamInfo *p, bool official, double *value);
// The loss of the recipes with labels: LOSS_CROSS_ENTROPY, LOSS_BCE.
int supervised_loss(const ModelSpec *spec);
// {lr scale, weight decay factor} of every parameter under a recipe.
float *recipe_groups(Arena *a, const ModelSpec *spec, const RecipeSpec *r, const ParamInfo *params,
                     int n);

#endif
