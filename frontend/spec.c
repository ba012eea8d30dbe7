// The schema of a spec, section by section, then the network as a whole. Every section reports all
// it finds; the network is built only from a spec whose sections are sound.
#include "spec.h"
#include "network.h"
#include <math.h>

enum { MAX_SIDE = 1 << 14, MAX_DIM = 1 << 16, MAX_BLOCKS = 512, MAX_STAGES = 16 };
#define COUNT(t) ((int)(sizeof(t) / sizeof *(t)))

typedef struct {
    Schema schema;
    ModelSpec *spec;
    const Yaml *root;
    bool ok;
} Check;

static const Yaml *section(const Check *c, const char *name) { return yaml_get(c->root, name); }

// ---- top level ---------------------------------------------------------------------------------

typedef struct {
    const char *name, *description;
    double drop_path;
    unsigned programs;
    const Yaml *node;
} Top;

#define NODE(name, doc)                                                                            \
    { name, F_NODE, offsetof(Top, node), 0, 0, NULL, NULL, 0, doc }
#define NODE_REQUIRED(name, doc)                                                                   \
    { name, F_NODE, offsetof(Top, node), 0, 0, NULL, NULL, FIELD_REQUIRED, doc }
static const Field top_fields[] = {
    {"name", F_STR, offsetof(Top, name), 0, 0, NULL, NULL, FIELD_REQUIRED, "the model's name"},
    {"description", F_STR, offsetof(Top, description), 0, 0, NULL, NULL, 0, "free text"},
    NODE_REQUIRED("input", "what images look like"),
    NODE_REQUIRED("blocks", "named blocks"),
    NODE_REQUIRED("stem", "the block in front of stage 0"),
    NODE("stage", "defaults of every stage"),
    NODE_REQUIRED("stages", "list of stages"),
    NODE("head", "classifier, or none"),
    {"drop_path", F_NUM, offsetof(Top, drop_path), 0, 0.99, NULL, "0", 0,
     "drop rate of the last block in training; earlier ones grow linearly from 0"},
    NODE("fcmae", "masked pre-training, or none"),
    NODE("recipes", "training recipes by name"),
    NODE("precision", "fp32, bf16 or int8, or a map of `default` and layers to these"),
    {"programs", F_WORDS, offsetof(Top, programs), 0, 0, PROGRAM_WORDS, NULL, 0,
     "what the artifact holds; default: all that the spec supports"},
};

static void check_top(Check *c) {
    const char *extra[32];
    int n = layer_count();
    for (int i = 0; i < n; i++) extra[i] = layer_name(i);
    Top top = {0};
    c->ok &= schema_keys(&c->schema, c->root, "a spec", top_fields, COUNT(top_fields), extra, n);
    c->ok &= schema_read(&c->schema, c->root, NULL, c->root->loc, "a spec", top_fields,
                         COUNT(top_fields), NULL, &top);
    c->spec->name = top.name ? top.name : "";
    c->spec->drop_path = top.drop_path;
    c->spec->asked = top.programs;
    for (int i = 0; i < n; i++) {
        int nfields;
        const Field *fields = layer_fields(i, &nfields);
        const Yaml *y = section(c, layer_name(i));
        if (y) c->ok &= schema_keys(&c->schema, y, layer_name(i), fields, nfields, NULL, 0);
    }
    if (strchr(c->spec->name, '/') || strlen(c->spec->name) > 100) {
        diag_error(c->schema.diag, section(c, "name")->loc,
                   "a name has at most 100 characters and no '/'");
        c->ok = false;
    }
}

// ---- input -------------------------------------------------------------------------------------

typedef struct {
    int64_t channels, height, width;
    NumList mean, std;
    double crop_pct;
    int interpolation, resize;
} InputFields;

#define AT(m) offsetof(InputFields, m)
static const Field input_fields[] = {
    {"channels", F_INT, AT(channels), 1, 1024, NULL, "3", 0, "channels of an image"},
    {"height", F_INT, AT(height), 1, MAX_SIDE, NULL, NULL, FIELD_REQUIRED, "pixels"},
    {"width", F_INT, AT(width), 1, MAX_SIDE, NULL, NULL, FIELD_REQUIRED, "pixels"},
    {"mean", F_NUMS, AT(mean), -1e6, 1e6, NULL, NULL, 0,
     "of pixels in 0..1, one or one per channel"},
    {"std", F_NUMS, AT(std), 1e-6, 1e6, NULL, NULL, 0, "likewise"},
    {"crop_pct", F_NUM, AT(crop_pct), 0.05, 1, NULL, "0.875", 0,
     "evaluation resizes the short side to size/crop_pct"},
    {"interpolation", F_WORD, AT(interpolation), 0, 0, "bicubic|bilinear", "bicubic", 0,
     "resampling"},
    {"resize", F_WORD, AT(resize), 0, 0, "crop|warp", "crop", 0,
     "centre crop, or both sides resized whatever the aspect"},
};
#undef AT

static const double imagenet_mean[] = {0.485, 0.456, 0.406}, imagenet_std[] = {0.229, 0.224, 0.225};

// One value per channel: as given, one for all, or ImageNet's average where its three do not fit.
static const double *per_channel(Check *c, const char *name, NumList list, const double *imagenet,
                                 int64_t channels) {
    double *v = NEWN(c->spec->arena, double, channels);
    bool default3 = list.n == 3 && memcmp(list.v, imagenet, 3 * sizeof *v) == 0;
    for (int64_t i = 0; i < channels && list.n; i++) v[i] = list.v[list.n == channels ? i : 0];
    if (list.n == channels || list.n == 1) return v;
    if (!default3) {
        diag_error(c->schema.diag, yaml_get(section(c, "input"), name)->loc,
                   "%s has %d values but the input has %lld channels", name, list.n,
                   (long long)channels);
        diag_hint(c->schema.diag, "give one value for all channels, or %lld", (long long)channels);
        c->ok = false;
        return v;
    }
    double average = (imagenet[0] + imagenet[1] + imagenet[2]) / 3;
    for (int64_t i = 0; i < channels; i++) v[i] = average;
    vec_push(c->spec->arena, &c->spec->notes,
             arena_printf(c->spec->arena, "input.%s: ImageNet's average %.4f for all %lld channels",
                          name, average, (long long)channels));
    return v;
}

static void check_input(Check *c) {
    const Yaml *y = section(c, "input");
    if (!y) return;
    InputFields f = {.channels = 3, .mean = {imagenet_mean, 3}, .std = {imagenet_std, 3}};
    bool ok = schema_keys(&c->schema, y, "input", input_fields, COUNT(input_fields), NULL, 0);
    ok &= schema_read(&c->schema, y, NULL, y->loc, "input", input_fields, COUNT(input_fields), NULL,
                      &f);
    c->ok &= ok;
    InputSpec *in = &c->spec->input;
    *in = (InputSpec){f.channels, f.height,   f.width,         NULL,
                      NULL,       f.crop_pct, f.interpolation, f.resize == 1};
    if (!ok) return;
    in->mean = per_channel(c, "mean", f.mean, imagenet_mean, f.channels);
    in->std = per_channel(c, "std", f.std, imagenet_std, f.channels);
}

// ---- blocks and their uses ---------------------------------------------------------------------

typedef struct {
    const Yaml *params, *body;
} BlockFields;
static const Field block_fields[] = {
    {"params", F_NODE, offsetof(BlockFields, params), 0, 0, NULL, NULL, 0, "names with defaults"},
    {"body", F_NODE, offsetof(BlockFields, body), 0, 0, NULL, NULL, FIELD_REQUIRED,
     "list of layers"},
};

static void check_block(Check *c, const YamlEntry *e) {
    BlockFields f = {0};
    const char *what = arena_printf(c->spec->arena, "block '%s'", e->key);
    if (layer_find(e->key) >= 0) {
        diag_error(c->schema.diag, e->loc, "'%s' is a layer; a block needs another name", e->key);
        c->ok = false;
    }
    if (!schema_keys(&c->schema, e->value, what, block_fields, 2, NULL, 0)) c->ok = false;
    if (!schema_read(&c->schema, e->value, NULL, e->loc, what, block_fields, 2, NULL, &f) ||
        !f.body) {
        c->ok = false;
        return;
    }
    if (f.params && yaml_is_none(f.params)) f.params = NULL;
    if (f.params && f.params->kind != YAML_MAP) {
        diag_error(c->schema.diag, f.params->loc, "params must be a map of names and defaults");
        c->ok = false;
        return;
    }
    vec_push(c->spec->arena, &c->spec->blocks, ((BlockSpec){e->key, e->loc, f.params, f.body}));
}

static void check_blocks(Check *c) {
    const Yaml *y = section(c, "blocks");
    if (!y) return;
    if (y->kind != YAML_MAP || !y->entries.n) {
        diag_error(c->schema.diag, y->loc, "blocks must be a map of named blocks, not %s",
                   yaml_describe(c->spec->arena, y));
        c->ok = false;
        return;
    }
    for (int i = 0; i < y->entries.n; i++) check_block(c, &y->entries.v[i]);
    for (int i = 0; i < c->spec->blocks.n; i++)
        c->ok &= block_check(&c->schema, c->spec, &c->spec->blocks.v[i]);
}

static const BlockSpec *named_block(Check *c, const Yaml *map, const char *what) {
    const Yaml *y = yaml_get(map, "block");
    if (!y || y->kind != YAML_TEXT) {
        diag_error(c->schema.diag, y ? y->loc : map->loc, "%s needs 'block', the name of a block",
                   what);
        return NULL;
    }
    const BlockSpec *block = block_find(c->spec, y->text);
    if (block) return block;
    const char **names = NEWN(c->spec->arena, const char *, c->spec->blocks.n + 1);
    for (int i = 0; i < c->spec->blocks.n; i++) names[i] = c->spec->blocks.v[i].name;
    diag_error(c->schema.diag, y->loc, "no block '%s'", y->text);
    const char *near = nearest_name(y->text, names, c->spec->blocks.n);
    if (near) diag_hint(c->schema.diag, "did you mean '%s'?", near);
    return NULL;
}

// Reads {block, name, <parameters>} plus the keys of extra. name: prefix where none is given.
static bool check_use(Check *c, const Yaml *map, const char *what, const char *name,
                      const Field *extra, int nextra, BlockUse *use) {
    Arena *a = c->spec->arena;
    if (map->kind != YAML_MAP) {
        diag_error(c->schema.diag, map->loc, "%s must be a map with 'block', not %s", what,
                   yaml_describe(a, map));
        return c->ok = false;
    }
    const BlockSpec *block = named_block(c, map, what);
    if (!block) return c->ok = false;
    int n = block->params ? block->params->entries.n : 0;
    const char **keys = NEWN(a, const char *, n + 2);
    keys[0] = "block";
    keys[1] = "name";
    for (int i = 0; i < n; i++) keys[i + 2] = block->params->entries.v[i].key;
    bool ok = schema_keys(&c->schema, map, what, extra, nextra, keys, n + 2);
    const Yaml *given = yaml_get(map, "name");
    if (given && (given->kind != YAML_TEXT || !*given->text)) {
        diag_error(c->schema.diag, given->loc, "name must be a word");
        ok = false;
    }
    *use = (BlockUse){block, map, map->loc, given && ok ? given->text : name};
    c->ok &= ok;
    return ok;
}

// ---- stages ------------------------------------------------------------------------------------

typedef struct {
    int64_t dim, depth;
    const Yaml *downsample;
} StageFields;
static const Field stage_fields[] = {
    {"dim", F_INT, offsetof(StageFields, dim), 1, MAX_DIM, NULL, NULL, FIELD_REQUIRED, "channels"},
    {"depth", F_INT, offsetof(StageFields, depth), 0, MAX_BLOCKS, NULL, NULL, FIELD_REQUIRED,
     "blocks"},
    {"downsample", F_NODE, offsetof(StageFields, downsample), 0, 0, NULL, NULL, 0,
     "the block in front, or none"},
};

static void check_stage(Check *c, int i, const Yaml *own) {
    Arena *a = c->spec->arena;
    const char *what = arena_printf(a, "stage %d", i);
    StageFields f = {0};
    StageSpec stage = {.loc = own->loc};
    if (i == 0 && yaml_get(own, "downsample")) {
        diag_error(c->schema.diag, yaml_get(own, "downsample")->loc,
                   "stage 0 has no downsample: the stem stands in front of it");
        c->ok = false;
    }
    const Yaml *map = own->kind == YAML_MAP ? yaml_merge(a, section(c, "stage"), own) : own;
    if (!check_use(c, map, what, arena_printf(a, "stages.%d", i), stage_fields, COUNT(stage_fields),
                   &stage.use))
        return;
    if (!schema_read(&c->schema, map, NULL, own->loc, what, stage_fields, COUNT(stage_fields), NULL,
                     &f)) {
        c->ok = false;
        return;
    }
    stage.dim = f.dim;
    stage.depth = f.depth;
    const Yaml *down = i ? f.downsample : section(c, "stem");
    if (down && !(i && yaml_is_none(down)))
        check_use(c, down, i ? arena_printf(a, "the downsample of stage %d", i) : "stem",
                  arena_printf(a, "downsample_layers.%d", i), NULL, 0, &stage.downsample);
    vec_push(a, &c->spec->stages, stage);
}

static void check_stages(Check *c) {
    const Yaml *y = section(c, "stages");
    if (!y || !section(c, "blocks") || !section(c, "stem")) return;
    const Yaml *defaults = section(c, "stage");
    if (defaults && defaults->kind != YAML_MAP) {
        diag_error(c->schema.diag, defaults->loc, "stage must be a map of defaults, not %s",
                   yaml_describe(c->spec->arena, defaults));
        c->ok = false;
        return;
    }
    if (y->kind != YAML_LIST || y->entries.n < 1 || y->entries.n > MAX_STAGES) {
        diag_error(c->schema.diag, y->loc, "stages must be a list of 1 to %d maps", MAX_STAGES);
        c->ok = false;
        return;
    }
    int64_t blocks = 0;
    for (int i = 0; i < y->entries.n; i++) check_stage(c, i, y->entries.v[i].value);
    for (int i = 0; i < c->spec->stages.n; i++) blocks += c->spec->stages.v[i].depth;
    if (blocks <= MAX_BLOCKS) return;
    diag_error(c->schema.diag, y->loc, "%lld blocks in all; at most %d", (long long)blocks,
               MAX_BLOCKS);
    c->ok = false;
}

// ---- head, fcmae, recipes, programs ------------------------------------------------------------

static const Field head_fields[] = {
    {"classes", F_INT, offsetof(HeadSpec, classes), 0, 1 << 20, NULL, NULL, FIELD_REQUIRED,
     "logits; 0: features only"},
    {"norm", F_BOOL, offsetof(HeadSpec, norm), 0, 0, NULL, "true", 0,
     "layer normalisation of pooled features"},
    {"eps", F_NUM, offsetof(HeadSpec, eps), 0, 1, NULL, "1e-6", 0, "its epsilon"},
};

static void check_head(Check *c) {
    const Yaml *y = section(c, "head");
    HeadSpec *head = &c->spec->head;
    if (!y || yaml_is_none(y)) return;
    *head = (HeadSpec){.present = true, .loc = y->loc};
    c->ok &= schema_keys(&c->schema, y, "head", head_fields, COUNT(head_fields), NULL, 0) &&
             schema_read(&c->schema, y, section(c, "layernorm"), y->loc, "head", head_fields,
                         COUNT(head_fields), NULL, head);
}

typedef struct {
    double mask_ratio;
    int64_t mask_unit;
    bool norm_pix_loss;
    int init;
    const Yaml *decoder;
} FcmaeFields;
#define AT(m) offsetof(FcmaeFields, m)
static const Field fcmae_fields[] = {
    {"mask_ratio", F_NUM, AT(mask_ratio), 0, 0.999999, NULL, "0.6", 0,
     "share of mask units hidden"},
    {"mask_unit", F_INT, AT(mask_unit), 1, 64, NULL, "1", 0,
     "side of a mask unit in total strides"},
    {"norm_pix_loss", F_BOOL, AT(norm_pix_loss), 0, 0, NULL, "true", 0,
     "targets are normalised by their patch's mean and variance"},
    {"init", F_WORD, AT(init), 0, 0, "standard|official", "standard", 0,
     "initial weights: deviation 0.02 everywhere, or as the official code draws them"},
    {"decoder", F_NODE, AT(decoder), 0, 0, NULL, NULL, FIELD_REQUIRED, "{block, dim, depth}"},
};
#undef AT
static const Field decoder_fields[] = {
    {"dim", F_INT, offsetof(FcmaeSpec, decoder_dim), 1, MAX_DIM, NULL, "512", 0, "channels"},
    {"depth", F_INT, offsetof(FcmaeSpec, decoder_depth), 0, 64, NULL, "1", 0, "blocks"},
};

static void check_fcmae(Check *c) {
    const Yaml *y = section(c, "fcmae");
    if (!y || yaml_is_none(y)) return;
    FcmaeFields f = {0};
    FcmaeSpec *out = &c->spec->fcmae;
    c->ok &= schema_keys(&c->schema, y, "fcmae", fcmae_fields, COUNT(fcmae_fields), NULL, 0);
    c->ok &= schema_read(&c->schema, y, NULL, y->loc, "fcmae", fcmae_fields, COUNT(fcmae_fields),
                         NULL, &f);
    *out = (FcmaeSpec){.present = true,
                       .loc = y->loc,
                       .mask_ratio = f.mask_ratio,
                       .mask_unit = f.mask_unit,
                       .norm_pix_loss = f.norm_pix_loss,
                       .official_init = f.init == 1};
    if (f.decoder && check_use(c, f.decoder, "decoder", "decoder", decoder_fields,
                               COUNT(decoder_fields), &out->decoder))
        c->ok &= schema_read(&c->schema, f.decoder, NULL, f.decoder->loc, "decoder", decoder_fields,
                             COUNT(decoder_fields), NULL, out);
}

static void check_recipes(Check *c) {
    const Yaml *y = section(c, "recipes");
    if (!y || yaml_is_none(y)) return;
    if (y->kind != YAML_MAP) {
        diag_error(c->schema.diag, y->loc, "recipes must be a map of named recipes, not %s",
                   yaml_describe(c->spec->arena, y));
        c->ok = false;
        return;
    }
    int64_t depths[MAX_STAGES];
    for (int i = 0; i < c->spec->stages.n; i++) depths[i] = c->spec->stages.v[i].depth;
    for (int i = 0; i < y->entries.n; i++) {
        const YamlEntry *e = &y->entries.v[i];
        if (yaml_is_none(e->value)) continue;
        RecipeSpec r;
        if (!recipe_read(&c->schema, e->key, e->value, e->loc, depths, c->spec->stages.n, &r)) {
            c->ok = false;
            continue;
        }
        if (r.precision)
            vec_push(c->spec->arena, &c->spec->notes,
                     arena_printf(c->spec->arena,
                                  "recipe %s: runs compute in what --precision says, not in %s",
                                  r.name, r.precision == 1 ? "fp16" : "bf16"));
        if (r.drop_path < 0) r.drop_path = r.kind ? c->spec->drop_path : 0;
        vec_push(c->spec->arena, &c->spec->recipes, r);
    }
}

// One word, or a map of `default` and layers to words.
static void check_precision(Check *c) {
    const Yaml *y = section(c, "precision");
    if (!y || yaml_is_none(y)) return;
    Arena *a = c->spec->arena;
    int n = y->kind == YAML_MAP ? y->entries.n : 1;
    c->spec->precision = NEWN(a, struct SpecPrecision, n + 1);
    for (int i = 0; i < n; i++) {
        const YamlEntry *e = y->kind == YAML_MAP ? &y->entries.v[i] : NULL;
        const Yaml *word = e ? e->value : y;
        if (word->kind != YAML_TEXT || (e && (!*e->key || strpbrk(e->key, ",=")))) {
            diag_error(c->schema.diag, word->loc,
                       "precision must be a word or a map of layers to words");
            c->ok = false;
            return;
        }
        bool layer = e && strcmp(e->key, "default") != 0;
        const char *text = layer ? arena_printf(a, "%s=%s", e->key, word->text) : word->text;
        c->spec->precision[c->spec->nprecision++] = (struct SpecPrecision){text, word->loc};
    }
}

// The programs asked for on the command line, over the spec's own.
static void check_asked(Check *c, const char *text) {
    if (!text) return;
    Field f = {"--programs", F_WORDS, 0, 0, 0, PROGRAM_WORDS, NULL, 0, ""};
    Yaml *list = NEW(c->spec->arena, Yaml);
    list->kind = YAML_LIST;
    for (const char *p = text; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        Yaml *word = NEW(c->spec->arena, Yaml);
        word->text = arena_strndup(c->spec->arena, p, strcspn(p, ","));
        vec_push(c->spec->arena, &list->entries, ((YamlEntry){.value = word}));
    }
    Yaml map = {.kind = YAML_MAP};
    vec_push(c->spec->arena, &map.entries, ((YamlEntry){"--programs", {0}, list}));
    c->ok &= schema_read(&c->schema, &map, NULL, (Loc){0}, "", &f, 1, NULL, &c->spec->asked);
}

// Program train computes one loss, so the recipes it serves must agree.
static bool check_losses(Check *c) {
    static const char *const names[] = {"cross_entropy", "bce", "masked_mse"};
    const RecipeSpec *first = NULL;
    for (int i = 0; i < c->spec->recipes.n; i++) {
        const RecipeSpec *r = &c->spec->recipes.v[i];
        if (r->kind == RECIPE_PRETRAIN) continue;
        if (!first) first = r;
        if (r->loss == first->loss) continue;
        diag_error(c->schema.diag, r->loc, "recipe '%s' has loss %s but recipe '%s' %s", r->name,
                   names[r->loss], first->name, names[first->loss]);
        diag_hint(c->schema.diag,
                  "an artifact computes one: change it, or take a recipe out "
                  "(recipes.%s=none)",
                  r->name);
        return false;
    }
    return true;
}

static void check_programs(Check *c) {
    ModelSpec *s = c->spec;
    const Yaml *y = section(c, "programs");
    Loc loc = y ? y->loc : c->root->loc;
    s->programs = PROGRAM_INFER | (s->head.classes ? PROGRAM_TRAIN : 0u) |
                  (s->fcmae.present ? PROGRAM_PRETRAIN : 0u);
    unsigned missing = s->asked & ~s->programs;
    if (missing & PROGRAM_PRETRAIN)
        diag_error(c->schema.diag, loc, "program pretrain needs an 'fcmae' section");
    if (missing & PROGRAM_TRAIN)
        diag_error(c->schema.diag, loc, "program train needs a head with classes");
    if (missing) c->ok = false;
    if (s->asked) s->programs = s->asked;
    if (s->programs & PROGRAM_TRAIN) c->ok &= check_losses(c);
}

// ---- the whole ---------------------------------------------------------------------------------

static bool check_network(Check *c) {
    Builder b = network_builder(c->spec->arena, c->schema.diag, c->spec, "check");
    return network_build(&b, false) && fcmae_check(c->spec, c->schema.diag, &b);
}

ModelSpec *spec_check(Arena *a, Diag *d, const Yaml *root, const char *programs) {
    ModelSpec *spec = NEW(a, ModelSpec);
    spec->arena = a;
    spec->root = root;
    Check c = {{a, d}, spec, root, true};
    check_top(&c);
    check_input(&c);
    check_blocks(&c);
    check_stages(&c);
    check_head(&c);
    check_fcmae(&c);
    check_recipes(&c);
    check_precision(&c);
    check_asked(&c, programs);
    if (c.ok) check_programs(&c);
    return c.ok && check_network(&c) && diag_count(d) == 0 ? spec : NULL;
}

ModelSpec *spec_load(Arena *a, Diag *d, const char *name, YamlDirs dirs, const char *const *sets,
                     int nsets, const char *programs) {
    const char *path = yaml_find(a, name, dirs);
    if (!path) {
        diag_error(d, (Loc){0}, "no spec '%s'", name);
        const char *near = yaml_nearest(a, name, dirs);
        if (near)
            diag_hint(d, "did you mean '%s'?", near);
        else
            diag_hint(d, "give a file, or the name of a model such as convnextv2_atto");
        return NULL;
    }
    Yaml *root = yaml_load(a, d, path, dirs);
    if (!root) return NULL;
    yaml_override(a, d, root, sets, nsets);
    return diag_count(d) ? NULL : spec_check(a, d, root, programs);
}
