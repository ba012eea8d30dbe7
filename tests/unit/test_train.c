// Programs of training and what goes with their parameters: names, initial values, factors of
// recipes by the published rules, drop keys; and that hidden pixels do not reach the encoder.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "frontend/train.h"
#include "ir/eval.h"
#include "runtime/cnxrt_weights.h"

typedef struct {
    Arena *a;
    Diag *d;
} World;

static ModelSpec *load(World *w, const char *name, const char *const *sets, int n) {
    static const char *const dirs[] = {CNX_SOURCE_DIR "/models"};
    *w = (World){.a = arena_new()};
    w->d = diag_new(w->a, stderr);
    ModelSpec *spec = spec_load(w->a, w->d, name, (YamlDirs){dirs, 1}, sets, n, NULL);
    assert_non_null(spec);
    return spec;
}

static TrainModel build(World *w, const ModelSpec *spec, bool masked) {
    TrainModel t;
    assert_true(masked ? pretrain_build(&t, spec, w->d) : train_build(&t, spec, w->d));
    for (int i = 0; i < t.module->graphs.n; i++) assert_null(graph_verify(t.module->graphs.v[i]));
    return t;
}

static const ParamInfo *find(const TrainModel *t, const char *name, int *index) {
    for (int i = 0; i < t->params.n; i++)
        if (strcmp(t->params.v[i].name, name) == 0) return *index = i, &t->params.v[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

static const RecipeSpec *recipe(const ModelSpec *spec, const char *name) {
    for (int i = 0; i < spec->recipes.n; i++)
        if (!strcmp(spec->recipes.v[i].name, name)) return &spec->recipes.v[i];
    fail_msg("no recipe %s", name);
    return NULL;
}

// ---- factors of recipes ------------------------------------------------------------------------

typedef struct {
    const char *param;
    double lr;
    int decay;
} Factor;

static void check_factors(const char *model, const char *recipe_name, bool masked,
                          const Factor *rows, int n) {
    World w;
    ModelSpec *spec = load(&w, model, NULL, 0);
    TrainModel t = build(&w, spec, masked);
    const float *groups =
        recipe_groups(w.a, spec, recipe(spec, recipe_name), t.params.v, t.params.n);
    for (int i = 0; i < n; i++) {
        int at = -1;
        find(&t, rows[i].param, &at);
        double lr = (double)groups[2 * at], decay = (double)groups[2 * at + 1];
        if (lr < rows[i].lr * (1 - 1e-6) || lr > rows[i].lr * (1 + 1e-6) || decay != rows[i].decay)
            fail_msg("%s %s: %s has %.9g and %g, not %.9g and %d", model, recipe_name,
                     rows[i].param, lr, decay, rows[i].lr, rows[i].decay);
    }
    arena_free(w.a);
}
#define CHECK_FACTORS(model, recipe, masked, rows)                                                 \
    check_factors(model, recipe, masked, rows, sizeof rows / sizeof *rows)

// rate 0.9, 12 blocks: 0.9^12 at the stem, one power less per block.
static void single_decay(void **state) {
    (void)state;
    static const Factor rows[] = {
        {"downsample_layers.0.0.weight", 0.282429536481, 1},
        {"downsample_layers.0.1.weight", 0.282429536481, 0},
        {"stages.0.0.dwconv.weight", 0.282429536481, 1},
        {"stages.0.0.grn.gamma", 0.282429536481, 0},
        {"stages.0.1.pwconv1.weight", 0.31381059609, 1},
        {"stages.0.1.pwconv1.bias", 0.31381059609, 0},
        {"downsample_layers.1.0.weight", 0.3486784401, 0},
        {"downsample_layers.1.1.weight", 0.3486784401, 1},
        {"stages.1.0.dwconv.weight", 0.3486784401, 1},
        {"stages.1.1.norm.bias", 0.387420489, 0},
        {"stages.2.0.pwconv2.weight", 0.43046721, 1},
        {"stages.2.5.pwconv2.weight", 0.729, 1},
        {"downsample_layers.3.1.weight", 0.81, 1},
        {"stages.3.0.pwconv2.weight", 0.81, 1},
        {"stages.3.1.grn.beta", 0.9, 0},
        {"norm.weight", 1, 0},
        {"head.weight", 1, 1},
        {"head.bias", 1, 0},
    };
    CHECK_FACTORS("convnextv2_atto", "finetune", false, rows);
}

// rate 0.6, depths 3,3,27,3 in twelve groups.
static void group_decay(void **state) {
    (void)state;
    static const Factor rows[] = {
        {"downsample_layers.0.0.weight", 0.0013060694016, 1}, // 0.6^13
        {"stages.0.0.dwconv.weight", 0.002176782336, 1},      // 0.6^12
        {"stages.0.2.dwconv.weight", 0.002176782336, 1},
        {"downsample_layers.1.1.weight", 0.00362797056, 1}, // 0.6^11
        {"stages.1.0.dwconv.weight", 0.00362797056, 1},
        {"stages.1.2.dwconv.weight", 0.00362797056, 1},
        {"downsample_layers.2.1.weight", 0.0060466176, 1}, // 0.6^10
        {"stages.2.0.dwconv.weight", 0.0060466176, 1},
        {"stages.2.2.dwconv.weight", 0.0060466176, 1},
        {"stages.2.3.dwconv.weight", 0.010077696, 1}, // 0.6^9
        {"stages.2.23.dwconv.weight", 0.216, 1},      // 0.6^3
        {"stages.2.24.dwconv.weight", 0.36, 1},       // 0.6^2
        {"stages.2.26.pwconv2.bias", 0.36, 0},
        {"downsample_layers.3.1.weight", 0.6, 1},
        {"stages.3.0.dwconv.weight", 0.6, 1},
        {"stages.3.2.dwconv.weight", 0.6, 1},
        {"norm.bias", 1, 0},
        {"head.weight", 1, 1},
    };
    CHECK_FACTORS("convnextv2_base", "finetune", false, rows);
}

// Pre-training decays GRN's vectors (rank 4 in the official code) and the mask token.
static void pretrain_decay(void **state) {
    (void)state;
    static const Factor rows[] = {
        {"encoder.downsample_layers.0.0.weight", 1, 1},
        {"encoder.downsample_layers.0.0.bias", 1, 0},
        {"encoder.downsample_layers.0.1.weight", 1, 0},
        {"encoder.stages.0.0.grn.gamma", 1, 1},
        {"encoder.stages.0.0.grn.beta", 1, 1},
        {"encoder.stages.0.0.norm.weight", 1, 0},
        {"mask_token", 1, 1},
        {"proj.weight", 1, 1},
        {"proj.bias", 1, 0},
        {"decoder.0.grn.gamma", 1, 1},
        {"decoder.0.dwconv.bias", 1, 0},
        {"pred.weight", 1, 1},
        {"pred.bias", 1, 0},
    };
    CHECK_FACTORS("convnextv2_atto", "pretrain", true, rows);
    static const Factor v1[] = {{"stages.0.0.gamma", 1, 0}, {"stages.0.0.pwconv1.weight", 1, 1}};
    CHECK_FACTORS("convnext_tiny", "train", false, v1);
}

// ---- initial values ----------------------------------------------------------------------------

typedef struct {
    const char *param;
    InitRule rule;
    double value;
} Init;

static void check_inits(const char *model, bool masked, bool official, const Init *rows, int n) {
    World w;
    ModelSpec *spec = load(&w, model, NULL, 0);
    TrainModel t = build(&w, spec, masked);
    for (int i = 0; i < n; i++) {
        int at;
        double value = -1;
        InitRule rule = param_init(find(&t, rows[i].param, &at), official, &value);
        if (rule != rows[i].rule || value < rows[i].value - 1e-12 || value > rows[i].value + 1e-12)
            fail_msg("%s: rule %d of %g", rows[i].param, (int)rule, value);
    }
    arena_free(w.a);
}
#define CHECK_INITS(model, masked, official, rows)                                                 \
    check_inits(model, masked, official, rows, sizeof rows / sizeof *rows)

static void standard_init(void **state) {
    (void)state;
    static const Init rows[] = {
        {"encoder.downsample_layers.0.0.weight", INIT_NORMAL, .02},
        {"encoder.downsample_layers.0.0.bias", INIT_CONSTANT, 0},
        {"encoder.downsample_layers.0.1.weight", INIT_CONSTANT, 1},
        {"encoder.downsample_layers.0.1.bias", INIT_CONSTANT, 0},
        {"encoder.stages.0.0.dwconv.weight", INIT_NORMAL, .02},
        {"encoder.stages.0.0.grn.gamma", INIT_CONSTANT, 0},
        {"encoder.stages.0.0.grn.beta", INIT_CONSTANT, 0},
        {"mask_token", INIT_NORMAL, .02},
        {"decoder.0.pwconv1.weight", INIT_NORMAL, .02},
        {"pred.weight", INIT_NORMAL, .02},
    };
    CHECK_INITS("convnextv2_atto", true, false, rows);
    static const Init v1[] = {{"stages.0.0.gamma", INIT_CONSTANT, 1e-6},
                              {"head.weight", INIT_NORMAL, .02},
                              {"head.bias", INIT_CONSTANT, 0}};
    CHECK_INITS("convnext_tiny", false, false, v1);
}

static void official_init(void **state) {
    (void)state;
    static const Init rows[] = {
        {"encoder.downsample_layers.0.0.weight", INIT_NORMAL, 1},
        {"encoder.downsample_layers.1.1.weight", INIT_NORMAL, .02},
        {"encoder.downsample_layers.1.1.bias", INIT_CONSTANT, 0},
        {"encoder.stages.0.0.dwconv.weight", INIT_NORMAL, 1},
        {"encoder.stages.0.0.pwconv1.weight", INIT_NORMAL, 1},
        {"encoder.stages.0.0.pwconv1.bias", INIT_CONSTANT, 0},
        {"encoder.stages.0.0.norm.weight", INIT_CONSTANT, 1},
        {"mask_token", INIT_NORMAL, .02},
        {"proj.weight", INIT_NORMAL, 1},
        {"decoder.0.dwconv.weight", INIT_NORMAL, 1},
        {"decoder.0.dwconv.bias", INIT_CONSTANT, 0},
        {"decoder.0.pwconv1.weight", INIT_UNIFORM, 0.04419417382415922}, // 1/sqrt(512)
        {"decoder.0.pwconv1.bias", INIT_UNIFORM, 0.04419417382415922},
        {"decoder.0.pwconv2.weight", INIT_UNIFORM, 0.02209708691207961}, // 1/sqrt(2048)
        {"pred.weight", INIT_NORMAL, 1},
        {"pred.bias", INIT_CONSTANT, 0},
    };
    CHECK_INITS("convnextv2_atto", true, true, rows);
}

// ---- programs ----------------------------------------------------------------------------------

static const char *port_list(World *w, const Graph *g, bool outputs) {
    Str s = {.arena = w->a};
    for (int i = 0; i < (outputs ? g->outputs.n : g->inputs.n); i++)
        str_printf(&s, "%s%s", i ? " " : "",
                   outputs ? g->outputs.v[i].name : node_str(graph_def(g, g->inputs.v[i]), A_name));
    return str_cstr(&s);
}

static void ports_of_programs(void **state) {
    (void)state;
    World w;
    ModelSpec *spec = load(&w, "convnextv2_atto", NULL, 0);
    TrainModel t = build(&w, spec, false), p = build(&w, spec, true);
    const Graph *g = module_find(t.module, "train");
    assert_string_equal(port_list(&w, g, false), "image target");
    assert_string_equal(port_list(&w, g, true), "loss logits");
    g = module_find(p.module, "pretrain");
    assert_string_equal(port_list(&w, g, false), "image mask");
    assert_string_equal(port_list(&w, g, true), "loss");
    assert_string_equal(type_print(w.a, graph_type(g, g->inputs.v[1])), "f32[B,7,7]");
    g = module_find(p.module, "reconstruct");
    assert_string_equal(port_list(&w, g, true), "loss pred");
    assert_string_equal(type_print(w.a, graph_type(g, g->outputs.v[1].value)), "f32[B,7,7,3072]");
    g = module_find(t.module, "update");
    assert_int_equal(g->inputs.n, 2 + 4 * t.params.n);
    assert_int_equal(g->outputs.n, 3 * t.params.n);
    g = module_find(p.module, "update.ema");
    assert_int_equal(g->inputs.n, 2 + 5 * p.params.n);
    assert_int_equal(g->outputs.n, 4 * p.params.n);
    arena_free(w.a);
}

// The official parameters of FCMAE, all of them.
static void pretrain_has_official_names(void **state) {
    (void)state;
    static const struct {
        const char *name, *type;
    } rows[] = {
        {"encoder.downsample_layers.0.0.weight", "f32[40,3,4,4]"},
        {"encoder.stages.2.5.pwconv1.weight", "f32[640,160]"},
        {"mask_token", "f32[1,512,1,1]"},
        {"proj.weight", "f32[512,320,1,1]"},
        {"decoder.0.dwconv.weight", "f32[512,1,7,7]"},
        {"decoder.0.grn.gamma", "f32[2048]"},
        {"pred.weight", "f32[3072,512,1,1]"},
        {"pred.bias", "f32[3072]"},
    };
    World w;
    ModelSpec *spec = load(&w, "convnextv2_atto", NULL, 0);
    TrainModel t = build(&w, spec, true);
    int64_t total = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int at;
        assert_string_equal(type_print(w.a, find(&t, rows[i].name, &at)->type), rows[i].type);
    }
    for (int i = 0; i < t.params.n; i++) {
        assert_null(strstr(t.params.v[i].name, "head"));
        total += type_elems_at(t.params.v[i].type, 1);
    }
    assert_int_equal(total, 3386760 + 3871232); // encoder, decoder
    arena_free(w.a);
}

// Block b of 12 has key b+1 and the share b/11; the first is never dropped.
static void drops_grow_linearly(void **state) {
    (void)state;
    World w;
    static const char *const sets[] = {"drop_path=0"}; // rates are the run's: keys stay
    TrainModel t = build(&w, load(&w, "convnextv2_atto", sets, 1), false);
    assert_int_equal(t.drops.n, 11);
    for (int i = 0; i < 11; i++) {
        assert_int_equal(t.drops.v[i].key, i + 2);
        assert_true(t.drops.v[i].share == (i + 1) / 11.0);
    }
    const Graph *g = module_find(t.module, "train");
    int found = 0;
    for (int i = 0; i < g->nodes.n; i++)
        if (g->nodes.v[i].op == OP_DROP_PATH) {
            assert_int_equal(node_int(&g->nodes.v[i], A_key), ++found + 1);
            assert_true(node_f64(&g->nodes.v[i], A_rate) > 0);
        }
    assert_int_equal(found, 11);
    arena_free(w.a);
    static const char *const own[] = {"drop_path=0.2", "residual.drop_path=0.1"};
    t = build(&w, load(&w, "convnextv2_atto", own, 2), false);
    assert_int_equal(t.drops.n, 12);
    for (int i = 0; i < 12; i++) assert_true(t.drops.v[i].share == .5);
    arena_free(w.a);
}

static void loss_of_recipes(void **state) {
    (void)state;
    World w;
    static const char *const sets[] = {"recipes.train.loss=bce", "recipes.finetune.loss=bce"};
    ModelSpec *spec = load(&w, "convnextv2_atto", sets, 2);
    TrainModel t = build(&w, spec, false);
    const Graph *g = module_find(t.module, "train");
    assert_int_equal(graph_def(g, g->outputs.v[0].value)->op, OP_BCE_WITH_LOGITS);
    assert_int_equal(supervised_loss(spec), LOSS_BCE);
    arena_free(w.a);
}

// ---- what the mask hides -----------------------------------------------------------------------

static const char *seeded(void *user, const char *name, Type type, Tensor *out) {
    int64_t d[MAX_RANK];
    *out = tensor_for(user, DT_F32, type, 1);
    for (int i = 0; i < type.rank; i++) d[i] = type.d[i].c;
    cnxrt_seed_weights(name, type.rank, d, 5, out->data);
    return NULL;
}

enum { SIDE = 32, UNIT = 8, CELLS = 4 };

// The prediction for an image of random pixels, those of hidden cells times `hidden`.
static Tensor predict(World *w, const Graph *g, float hidden) {
    static const float mask[CELLS * CELLS] = {1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 0};
    Tensor in[] = {tensor_new(w->a, DT_F32, 4, (int64_t[]){1, SIDE, SIDE, 3}),
                   tensor_new(w->a, DT_F32, 3, (int64_t[]){1, CELLS, CELLS})};
    float *x = in[0].data;
    cnxrt_seed_uniform("image", 1, SIDE * SIDE * 3, x);
    memcpy(in[1].data, mask, sizeof mask);
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        if (mask[i / 3 / SIDE / UNIT * CELLS + i / 3 % SIDE / UNIT] != 0) x[i] *= hidden;
    EvalContext ctx = {
        .arena = w->a, .dt = DT_F32, .batch = 1, .inputs = in, .param = seeded, .user = w->a};
    Tensor out[2];
    assert_null(eval_graph(&ctx, g, out));
    return out[1];
}

static void hidden_pixels_are_never_seen(void **state) {
    (void)state;
    World w;
    ModelSpec *spec = load(&w, "convnextv2_cifar", NULL, 0);
    const Graph *g = module_find(build(&w, spec, true).module, "reconstruct");
    Tensor x = predict(&w, g, 1), y = predict(&w, g, -3);
    size_t bytes = (size_t)tensor_elems(&x) * sizeof(float);
    assert_memory_equal(x.data, y.data, bytes);
    bool any = false;
    for (int64_t i = 0; i < tensor_elems(&x); i++) any |= ((float *)x.data)[i] != 0;
    assert_true(any);
    arena_free(w.a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_decay),
        cmocka_unit_test(group_decay),
        cmocka_unit_test(pretrain_decay),
        cmocka_unit_test(standard_init),
        cmocka_unit_test(official_init),
        cmocka_unit_test(ports_of_programs),
        cmocka_unit_test(pretrain_has_official_names),
        cmocka_unit_test(drops_grow_linearly),
        cmocka_unit_test(loss_of_recipes),
        cmocka_unit_test(hidden_pixels_are_never_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
