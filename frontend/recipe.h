// Training recipes as data: optimiser, schedule, regularisation and augmentation of one run, with
// the published ones in models/. Checked here; training programs take their constants from them.
#ifndef CNX_FRONTEND_RECIPE_H
#define CNX_FRONTEND_RECIPE_H
#include "schema.h"

enum { RECIPE_PRETRAIN, RECIPE_FINETUNE, RECIPE_TRAIN };
enum { LOSS_CROSS_ENTROPY, LOSS_BCE, LOSS_MASKED_MSE };
enum { NO_DECAY_VECTORS = 1, NO_DECAY_BIAS = 2, NO_DECAY_SCALE = 4 }; // rank 1; bias; grn, gamma
enum { DECAY_NONE, DECAY_SINGLE, DECAY_GROUP };

typedef struct {
    const char *name;
    Loc loc;
    const Yaml *part; // the map of layer_decay or augment while reading
    int kind;         // RECIPE_*
    int optimizer;    // 0 adamw
    int loss;         // LOSS_*
    int precision;    // 0 fp32, 1 fp16, 2 bf16
    double betas[2], eps;
    double base_lr; // per 256 images of the batch
    double lr;      // absolute; 0: base_lr * batch / 256
    double min_lr, weight_decay, clip;
    int64_t batch;
    double epochs, warmup_epochs;
    unsigned no_decay; // NO_DECAY_*
    struct {
        int kind; // DECAY_*
        double rate;
    } layer_decay;
    double drop_path, label_smoothing, mixup, cutmix, mix_switch, ema, head_init_scale;
    struct {
        double crop_scale[2], crop_ratio[2], flip, erase;
        const char *rand_augment; // NULL: none
        int interpolation;
    } augment;
} RecipeSpec;

// Reads recipe `name` from its map at loc; the depths of the stages decide whether group decay
// exists. Returns false after errors.
bool recipe_read(Schema *s, const char *name, const Yaml *map, Loc loc, const int64_t *depths,
                 int nstages, RecipeSpec *out);

#endif
