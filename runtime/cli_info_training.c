// What info says of training: the memory of a run is fixed + images of a micro-batch * per image.
#include "cli_info.h"
#include "training.h"
#include <string.h>

typedef struct {
    int64_t fixed, image, states;
} Memory;

static bool uses_ema(const CnxrtModel *m) {
    for (int i = 0; i < m->nrecipes; i++)
        if (m->recipes[i].ema > 0) return true;
    return false;
}

// Of a run with the optimiser (and averages where a recipe has them), on the default threads.
static Memory memory_of(const CnxrtModel *m, const char *programs) {
    TrainingOptions o = {.model = m, .programs = programs, .optimizer = true, .ema = uses_ema(m)};
    enum { SOME = 64 };
    int64_t at = training_plan_bytes(&o, SOME), next = training_plan_bytes(&o, SOME + 1);
    return (Memory){at - SOME * (next - at), next - at, m->param_bytes * (o.ema ? 5 : 4)};
}

static const char *kind_name(const CnxrtRecipe *r) {
    return r->kind == CNXRT_PRETRAIN   ? "pretrain"
           : r->kind == CNXRT_FINETUNE ? "finetune"
                                       : "train";
}

// The peak rate for the recipe's own batch.
static double recipe_lr(const CnxrtRecipe *r) {
    return r->lr > 0 ? r->lr : r->base_lr * (double)r->batch / 256;
}

static json_t *pair_json(const double v[2]) {
    json_t *a = json_array();
    for (int i = 0; i < 2; i++) json_array_append_new(a, json_real(v[i]));
    return a;
}

static json_t *recipe_json(const CnxrtRecipe *r) {
    const struct {
        const char *key;
        double value;
    } reals[] = {{"lr", recipe_lr(r)},
                 {"base_lr", r->base_lr},
                 {"min_lr", r->min_lr},
                 {"weight_decay", r->weight_decay},
                 {"beta1", r->beta1},
                 {"beta2", r->beta2},
                 {"eps", r->eps},
                 {"clip", r->clip},
                 {"epochs", r->epochs},
                 {"warmup_epochs", r->warmup_epochs},
                 {"drop_path", r->drop_path},
                 {"label_smoothing", r->label_smoothing},
                 {"mixup", r->mixup},
                 {"cutmix", r->cutmix},
                 {"mix_switch", r->mix_switch},
                 {"ema", r->ema},
                 {"head_init_scale", r->head_init_scale},
                 {"flip", r->flip},
                 {"erase", r->erase}};
    json_t *o = json_object();
    json_object_set_new(o, "name", report_json_text(r->name));
    json_object_set_new(o, "kind", json_string(kind_name(r)));
    json_object_set_new(o, "batch", json_integer(r->batch));
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        json_object_set_new(o, reals[i].key, json_real(reals[i].value));
    json_object_set_new(o, "crop_scale", pair_json(r->crop_scale));
    json_object_set_new(o, "crop_ratio", pair_json(r->crop_ratio));
    json_object_set_new(o, "rand_augment",
                        r->rand_augment ? report_json_text(r->rand_augment) : json_null());
    json_object_set_new(o, "interpolation",
                        report_json_text(r->interpolation ? r->interpolation : "bicubic"));
    return o;
}

static json_t *fcmae_json(const CnxrtFcmae *f) {
    json_t *o = json_object(), *grid = json_array(), *patch = json_array();
    for (int i = 0; i < 2; i++) {
        json_array_append_new(grid, json_integer(f->grid[i]));
        json_array_append_new(patch, json_integer((int64_t)f->stride[i] * f->mask_unit));
    }
    json_object_set_new(o, "grid", grid);
    json_object_set_new(o, "patch", patch);
    json_object_set_new(o, "mask_unit", json_integer(f->mask_unit));
    json_object_set_new(o, "patches", json_integer(f->units));
    json_object_set_new(o, "keep", json_integer(f->keep));
    json_object_set_new(o, "mask_ratio", json_real(f->mask_ratio));
    json_object_set_new(o, "norm_pix_loss", json_boolean(f->norm_pix));
    json_object_set_new(o, "sparse", json_string(f->packed ? "packed" : "dense"));
    return o;
}

static json_t *model_json(const CnxrtModel *m, const char *program) {
    Memory memory = memory_of(m, program);
    json_t *o = json_object(), *recipes = json_array();
    json_object_set_new(o, "fixed_bytes", json_integer(memory.fixed));
    json_object_set_new(o, "image_bytes", json_integer(memory.image));
    json_object_set_new(o, "state_bytes", json_integer(memory.states));
    json_object_set_new(o, "param_bytes", json_integer(m->param_bytes));
    json_object_set_new(o, "programs", info_programs_json(m));
    for (int i = 0; i < m->nrecipes; i++)
        json_array_append_new(recipes, recipe_json(&m->recipes[i]));
    json_object_set_new(o, "recipes", recipes);
    if (m->fcmae) json_object_set_new(o, "fcmae", fcmae_json(m->fcmae));
    return o;
}

json_t *info_training_json(const CnxrtModel *m) {
    if (!m->train && !m->pretrain) return NULL;
    json_t *o = json_object();
    if (m->train) json_object_set_new(o, "train", model_json(m->train, "train"));
    if (m->pretrain) json_object_set_new(o, "pretrain", model_json(m->pretrain, "pretrain"));
    return o;
}

static void fcmae_print(const CnxrtFcmae *f) {
    printf("masks       %d x %d patches of %d x %d pixels, %d of %d visible (mask ratio %g)\n",
           f->grid[0], f->grid[1], f->stride[0] * f->mask_unit, f->stride[1] * f->mask_unit,
           f->keep, f->units, f->mask_ratio);
    printf("targets     pixels%s\n", f->norm_pix ? ", normalised by patch" : "");
    printf("encoder     %s\n", f->packed ? "on packed visible rows (sparse)" : "masked dense");
}

static bool recipes_print(const CnxrtModel *m) {
    Table t = {.right = "llrrrrrr"};
    bool ok = table_row(&t, "recipe\tcommand\tbatch\tlr\tepochs\twarm-up\tdecay\tdrop path");
    for (int i = 0; ok && i < m->nrecipes; i++) {
        const CnxrtRecipe *r = &m->recipes[i];
        ok = table_row(&t, "%s\t%s\t%lld\t%.3g\t%g\t%g\t%g\t%g", r->name, kind_name(r),
                       (long long)r->batch, recipe_lr(r), r->epochs, r->warmup_epochs,
                       r->weight_decay, r->drop_path);
    }
    if (ok && m->nrecipes) {
        putchar('\n');
        table_print(&t, stdout);
    }
    table_free(&t);
    return ok;
}

static bool model_print(const CnxrtModel *m, const char *program) {
    Memory memory = memory_of(m, program);
    printf("\n--- %s\n", program);
    printf("memory      %.1f MB + %.3f MB per image of a micro-batch\n", (double)memory.fixed / 1e6,
           (double)memory.image / 1e6);
    printf("            of it %.1f MB: parameters, gradients, moments%s\n",
           (double)memory.states / 1e6, uses_ema(m) ? ", averages" : "");
    if (m->fcmae) fcmae_print(m->fcmae);
    putchar('\n');
    return info_programs_print(m) && recipes_print(m);
}

bool info_training_print(const CnxrtModel *m) {
    return (!m->train || model_print(m->train, "train")) &&
           (!m->pretrain || model_print(m->pretrain, "pretrain"));
}
