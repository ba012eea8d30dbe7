// What the runtime must know of a training model besides its programs: recipes with their factors
// by parameter, initial values, drop keys, the geometry of masks.
#include "cmd_compile.h"

_Static_assert((int)INIT_CONSTANT == CNXRT_INIT_CONSTANT && (int)INIT_NORMAL == CNXRT_INIT_NORMAL &&
                   (int)INIT_UNIFORM == CNXRT_INIT_UNIFORM,
               "rules of initial values");
_Static_assert((int)RECIPE_PRETRAIN == CNXRT_PRETRAIN && (int)RECIPE_FINETUNE == CNXRT_FINETUNE &&
                   (int)RECIPE_TRAIN == CNXRT_TRAIN,
               "kinds of recipes");
_Static_assert((int)LOSS_CROSS_ENTROPY == CNXRT_LOSS_SOFTMAX && (int)LOSS_BCE == CNXRT_LOSS_BCE,
               "losses of classifiers");
_Static_assert((int)HYPER_VALUES == CNXRT_HYPERS, "input hyper");

// The tables follow the order of training->params: the index that adamw has.
static void fill_inits(CompiledModel *c, bool official) {
    CodegenModel *m = &c->model;
    if (!m->nparams) return;
    if (m->nparams != c->training->params.n)
        ice((Loc){0}, "%d of %d parameters have a place in the raw blob", m->nparams,
            c->training->params.n);
    for (int i = 0; i < m->nparams; i++) {
        const ParamInfo *p = &c->training->params.v[i];
        if (strcmp(p->name, m->params[i].name) != 0)
            ice((Loc){0}, "parameter %d is %s and %s", i, p->name, m->params[i].name);
        m->params[i].init = (int)param_init(p, official, &m->params[i].init_value);
    }
}

static CnxrtRecipe make_recipe(Arena *a, const ModelSpec *spec, const RecipeSpec *r,
                               const ParamInfos *params) {
    return (CnxrtRecipe){
        .name = r->name,
        .kind = r->kind,
        .batch = r->batch,
        .base_lr = r->lr > 0 ? 0 : r->base_lr,
        .lr = r->lr,
        .min_lr = r->min_lr,
        .weight_decay = r->weight_decay,
        .beta1 = r->betas[0],
        .beta2 = r->betas[1],
        .eps = r->eps,
        .clip = r->clip,
        .epochs = r->epochs,
        .warmup_epochs = r->warmup_epochs,
        .drop_path = r->drop_path,
        .label_smoothing = r->label_smoothing,
        .mixup = r->mixup,
        .cutmix = r->cutmix,
        .mix_switch = r->mix_switch,
        .ema = r->ema,
        .head_init_scale = r->head_init_scale,
        .crop_scale = {r->augment.crop_scale[0], r->augment.crop_scale[1]},
        .crop_ratio = {r->augment.crop_ratio[0], r->augment.crop_ratio[1]},
        .flip = r->augment.flip,
        .erase = r->augment.erase,
        .rand_augment = r->augment.rand_augment,
        .interpolation = r->augment.interpolation ? "bilinear" : "bicubic",
        .groups = recipe_groups(a, spec, r, params->v, params->n),
    };
}

static void fill_recipes(CompiledModel *c, int which, const ModelSpec *spec) {
    Arena *a = spec->arena;
    CnxrtRecipe *recipes = NEWN(a, CnxrtRecipe, spec->recipes.n + 1);
    for (int i = 0; i < spec->recipes.n; i++) {
        const RecipeSpec *r = &spec->recipes.v[i];
        if ((r->kind == RECIPE_PRETRAIN) == (which == MODEL_PRETRAIN))
            recipes[c->model.nrecipes++] = make_recipe(a, spec, r, &c->training->params);
    }
    c->model.recipes = recipes;
}

static void fill_drops(CompiledModel *c, Arena *a) {
    CnxrtDrop *drops = NEWN(a, CnxrtDrop, c->training->drops.n + 1);
    for (int i = 0; i < c->training->drops.n; i++)
        drops[i] = (CnxrtDrop){c->training->drops.v[i].key, c->training->drops.v[i].share};
    c->model.drops = drops;
    c->model.ndrops = c->training->drops.n;
}

static const CnxrtFcmae *make_fcmae(Arena *a, const FcmaeSpec *f, bool packed) {
    CnxrtFcmae *out = NEW(a, CnxrtFcmae);
    *out = (CnxrtFcmae){
        .grid = {(int32_t)f->grid[0], (int32_t)f->grid[1]},
        .mask_unit = (int32_t)f->mask_unit,
        .stride = {(int32_t)f->stride[0], (int32_t)f->stride[1]},
        .units = (int32_t)f->units,
        .keep = (int32_t)f->keep,
        .norm_pix = f->norm_pix_loss,
        .packed = packed,
        .mask_ratio = f->mask_ratio,
    };
    return out;
}

void compile_tables(CompiledModel *c, int which, const ModelSpec *spec, bool packed) {
    bool masked = which == MODEL_PRETRAIN;
    fill_inits(c, masked && spec->fcmae.official_init);
    fill_recipes(c, which, spec);
    fill_drops(c, spec->arena);
    if (masked) c->model.fcmae = make_fcmae(spec->arena, &spec->fcmae, packed);
}
