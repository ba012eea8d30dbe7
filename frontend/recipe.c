// Checks recipes: a field table each for the run, its layer decay and its augmentation, then the
// rules that tie fields together.
#include "recipe.h"

#define AT(m) offsetof(RecipeSpec, m)
#define UNIT 0, 1
static const Field fields[] = {
    {"program", F_WORD, AT(kind), 0, 0, "pretrain|finetune|train", NULL, 0,
     "what the run does; defaults to the recipe's name"},
    {"optimizer", F_WORD, AT(optimizer), 0, 0, "adamw", "adamw", 0, "update rule"},
    {"loss", F_WORD, AT(loss), 0, 0, "cross_entropy|bce|masked_mse", NULL, 0,
     "masked_mse for pretrain, else cross_entropy"},
    {"precision", F_WORD, AT(precision), 0, 0, "fp32|fp16|bf16", "fp32", 0,
     "arithmetic of the run; fp32 is what there is"},
    {"betas", F_NUM2, AT(betas), 0, 0.999999, NULL, NULL, 0, "moment decays of AdamW"},
    {"eps", F_NUM, AT(eps), 0, 1, NULL, "1e-8", 0, "epsilon of AdamW"},
    {"base_lr", F_NUM, AT(base_lr), 0, 100, NULL, "0", 0, "learning rate per 256 images"},
    {"lr", F_NUM, AT(lr), 0, 100, NULL, "0", 0, "absolute learning rate, instead of base_lr"},
    {"min_lr", F_NUM, AT(min_lr), 0, 100, NULL, "0", 0, "where the cosine ends"},
    {"weight_decay", F_NUM, AT(weight_decay), 0, 100, NULL, "0.05", 0, "decoupled decay"},
    {"clip", F_NUM, AT(clip), 0, 1e9, NULL, "none", FIELD_NONE, "bound of the gradient's norm"},
    {"batch", F_INT, AT(batch), 1, 1 << 20, NULL, NULL, FIELD_REQUIRED,
     "images per optimiser step"},
    {"epochs", F_NUM, AT(epochs), 1e-6, 1e6, NULL, NULL, FIELD_REQUIRED, "length"},
    {"warmup_epochs", F_NUM, AT(warmup_epochs), 0, 1e6, NULL, "0", 0, "linear warm-up"},
    {"no_decay", F_WORDS, AT(no_decay), 0, 0, "vectors|bias|scale", NULL, 0,
     "parameters without weight decay: of rank 1, named bias, of GRN and layer scale"},
    {"layer_decay", F_NODE, AT(part), 0, 0, NULL, NULL, 0, "{kind: none|single|group, rate}"},
    {"drop_path", F_NUM, AT(drop_path), 0, 0.99, NULL, NULL, 0, "largest drop-path rate"},
    {"label_smoothing", F_NUM, AT(label_smoothing), 0, 0.99, NULL, "0", 0, "share spread evenly"},
    {"mixup", F_NUM, AT(mixup), 0, 100, NULL, "0", 0, "alpha of mixup, 0: off"},
    {"cutmix", F_NUM, AT(cutmix), 0, 100, NULL, "0", 0, "alpha of cutmix, 0: off"},
    {"mix_switch", F_NUM, AT(mix_switch), UNIT, NULL, "0.5", 0,
     "share of cutmix where both are on"},
    {"ema", F_NUM, AT(ema), UNIT, NULL, "none", FIELD_NONE, "decay of the averaged weights"},
    {"head_init_scale", F_NUM, AT(head_init_scale), 0, 1000, NULL, "1", 0,
     "factor on the new head's initial weights"},
    {"augment", F_NODE, AT(part), 0, 0, NULL, NULL, 0, "what is done to training images"},
};
static const Field decay_fields[] = {
    {"kind", F_WORD, AT(layer_decay.kind), 0, 0, "none|single|group", "none", 0,
     "one step per block (single), or twelve groups (group, depths 3,3,27,3 only)"},
    {"rate", F_NUM, AT(layer_decay.rate), 1e-3, 1, NULL, "1", 0, "factor per layer from the head"},
};
static const Field augment_fields[] = {
    {"crop_scale", F_NUM2, AT(augment.crop_scale), 1e-4, 1, NULL, NULL, 0, "area of the crop"},
    {"crop_ratio", F_NUM2, AT(augment.crop_ratio), 1e-2, 100, NULL, NULL, 0, "its aspect"},
    {"flip", F_NUM, AT(augment.flip), UNIT, NULL, "0.5", 0, "chance of a horizontal flip"},
    {"erase", F_NUM, AT(augment.erase), UNIT, NULL, "0", 0, "chance of random erasing"},
    {"rand_augment", F_STR, AT(augment.rand_augment), 0, 0, NULL, "none", FIELD_NONE,
     "RandAugment in timm's notation, e.g. m9-mstd0.5-inc1"},
    {"interpolation", F_WORD, AT(augment.interpolation), 0, 0, "bicubic|bilinear", "bicubic", 0,
     "resampling of the crop"},
};
#define COUNT(t) ((int)(sizeof(t) / sizeof *(t)))

static Loc place(const Yaml *map, const char *key) {
    const Yaml *y = yaml_get(map, key);
    return y ? y->loc : map->loc;
}

static bool read_part(Schema *s, const Yaml *y, const char *what, const Field *f, int n, Loc loc,
                      RecipeSpec *out) {
    if (y && !schema_keys(s, y, what, f, n, NULL, 0)) return false;
    return schema_read(s, y, NULL, loc, what, f, n, NULL, out);
}

static bool read_parts(Schema *s, const Yaml *map, Loc loc, RecipeSpec *r) {
    bool ok = read_part(s, yaml_get(map, "layer_decay"), "layer_decay", decay_fields,
                        COUNT(decay_fields), loc, r);
    return read_part(s, yaml_get(map, "augment"), "augment", augment_fields, COUNT(augment_fields),
                     loc, r) &&
           ok;
}

static bool check_range(Schema *s, const Yaml *map, const char *key, const double *v) {
    if (v[0] <= v[1]) return true;
    diag_error(s->diag, place(yaml_get(map, "augment"), key), "%s runs from %g down to %g", key,
               v[0], v[1]);
    return false;
}

// "m9-mstd0.5-inc1": a magnitude first, then options n, p, w, mstd, mmax, inc with numbers.
static bool check_rand_augment(Schema *s, const Yaml *map, const char *text) {
    static const char *const keys[] = {"mstd", "mmax", "inc", "m", "n", "p", "w"};
    const char *p = text;
    bool good = text == NULL || *p == 'm';
    while (good && p && *p) {
        size_t len = 0;
        for (int i = 0; i < COUNT(keys) && !len; i++)
            if (strncmp(p, keys[i], strlen(keys[i])) == 0) len = strlen(keys[i]);
        size_t digits = len ? strspn(p + len, "0123456789.") : 0;
        p += len + digits;
        good = digits > 0 && (*p == 0 || (*p == '-' && p[1]));
        p += *p == '-';
    }
    if (good) return true;
    diag_error(s->diag, place(yaml_get(map, "augment"), "rand_augment"),
               "rand_augment is '%s'; it looks like m9-mstd0.5-inc1", text);
    return false;
}

static bool check_lr(Schema *s, const Yaml *map, const RecipeSpec *r) {
    if (r->lr > 0 && r->base_lr > 0) {
        diag_error(s->diag, place(map, "lr"), "lr %g and base_lr %g are both given", r->lr,
                   r->base_lr);
        return false;
    }
    double peak = r->lr > 0 ? r->lr : r->base_lr * (double)r->batch / 256;
    if (peak <= 0) {
        diag_error(s->diag, r->loc, "recipe '%s' needs base_lr or lr", r->name);
        return false;
    }
    if (peak >= r->min_lr) return true;
    diag_error(s->diag, place(map, "min_lr"), "min_lr %g is above the peak rate %g", r->min_lr,
               peak);
    return false;
}

static bool check_schedule(Schema *s, const Yaml *map, const RecipeSpec *r) {
    bool ok = true;
    if (r->warmup_epochs >= r->epochs) {
        diag_error(s->diag, place(map, "warmup_epochs"),
                   "warmup_epochs is %g but the run has %g epochs", r->warmup_epochs, r->epochs);
        ok = false;
    }
    if ((r->mixup > 0 || r->cutmix > 0) && r->batch % 2) {
        diag_error(s->diag, place(map, "batch"),
                   "batch is %lld: mixing pairs images, so it must be even", (long long)r->batch);
        ok = false;
    }
    return ok;
}

static bool check_kind(Schema *s, const Yaml *map, const RecipeSpec *r) {
    if ((r->loss == 2) == (r->kind == 0)) {
        if (r->kind || (!r->mixup && !r->cutmix && !r->label_smoothing)) return true;
        diag_error(s->diag, map->loc,
                   "label_smoothing %g, mixup %g, cutmix %g: pretrain has no labels",
                   r->label_smoothing, r->mixup, r->cutmix);
        return false;
    }
    diag_error(s->diag, place(map, "loss"), "loss %s does not belong to program %s",
               (const char *[]){"cross_entropy", "bce", "masked_mse"}[r->loss],
               (const char *[]){"pretrain", "finetune", "train"}[r->kind]);
    return false;
}

static bool check_decay(Schema *s, const Yaml *map, const RecipeSpec *r, const int64_t *depths,
                        int n) {
    static const int64_t grouped[] = {3, 3, 27, 3};
    if (r->layer_decay.kind != 2) return true;
    if (n == 4 && memcmp(depths, grouped, sizeof grouped) == 0) return true;
    Str got = {.arena = s->arena};
    for (int i = 0; i < n; i++) str_printf(&got, "%s%lld", i ? "," : "", (long long)depths[i]);
    diag_error(s->diag, place(yaml_get(map, "layer_decay"), "kind"),
               "layer decay 'group' is defined for depths 3,3,27,3 only, not %s", str_cstr(&got));
    diag_hint(s->diag, "use kind: single");
    return false;
}

bool recipe_read(Schema *s, const char *name, const Yaml *map, Loc loc, const int64_t *depths,
                 int nstages, RecipeSpec *r) {
    int kind = schema_word(fields[0].words, name);
    *r = (RecipeSpec){.name = name, .loc = loc, .kind = kind, .loss = -1, .drop_path = -1};
    const char *what = arena_printf(s->arena, "recipe '%s'", name);
    bool known = schema_keys(s, map, what, fields, COUNT(fields), NULL, 0);
    if (map->kind != YAML_MAP) return false;
    const Yaml *program = yaml_get(map, "program");
    if (program && program->kind == YAML_TEXT)
        r->kind = schema_word(fields[0].words, program->text);
    memcpy(r->betas, (double[]){0.9, r->kind ? 0.999 : 0.95}, sizeof r->betas);
    memcpy(r->augment.crop_scale, (double[]){r->kind ? 0.08 : 0.2, 1}, sizeof r->betas);
    memcpy(r->augment.crop_ratio, (double[]){3.0 / 4, 4.0 / 3}, sizeof r->betas);
    r->no_decay = r->kind ? 7 : 3;
    if (!schema_read(s, map, NULL, loc, what, fields, COUNT(fields), NULL, r)) return false;
    if (r->kind < 0) {
        diag_error(s->diag, loc, "recipe '%s' needs 'program': pretrain, finetune or train", name);
        return false;
    }
    if (r->loss < 0) r->loss = r->kind ? 0 : 2;
    if (!read_parts(s, map, loc, r)) return false;
    bool ok = check_lr(s, map, r);
    ok &= check_schedule(s, map, r);
    ok &= check_kind(s, map, r);
    ok &= check_decay(s, map, r, depths, nstages);
    ok &= check_range(s, map, "crop_scale", r->augment.crop_scale);
    ok &= check_range(s, map, "crop_ratio", r->augment.crop_ratio);
    return check_rand_augment(s, map, r->augment.rand_augment) && ok && known;
}
