// Specs: parameters and MACs of every model file, what overrides change, FCMAE's geometry, recipes,
// and the graphs that come out.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "diag_case.h"
#include "frontend/network.h"

enum { MAX_SETS = 8 };
// sets: separated by spaces.
static ModelSpec *load(World *w, const char *name, const char *sets, const char *programs) {
    static const char *const dirs[] = {CNX_SOURCE_DIR "/models"};
    const char *v[MAX_SETS];
    int n = 0;
    char *save = NULL;
    for (char *s = strtok_r(arena_strdup(w->a, sets), " ", &save); s && n < MAX_SETS;
         s = strtok_r(NULL, " ", &save))
        v[n++] = s;
    return spec_load(w->a, w->d, name, (YamlDirs){dirs, 1}, v, n, programs);
}

static ModelSpec *good(World *w, const char *name, const char *sets) {
    ModelSpec *spec = load(w, name, sets, NULL);
    fflush(w->out);
    if (!spec) fail_msg("%s %s: %s", name, sets, w->errors);
    return spec;
}

static void bad(const char *name, const char *sets, const char *programs, const char *error) {
    World w;
    world_init(&w);
    ModelSpec *spec = load(&w, name, sets, programs);
    fflush(w.out);
    if (spec) fail_msg("%s %s: no error", name, sets);
    if (!strstr(w.errors, error)) fail_msg("%s %s: no '%s' in:\n%s", name, sets, error, w.errors);
    world_free(&w);
}

// Official parameter counts; MACs of convolutions and linears, head included.
static void models(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t params;
        double gmacs;
    } rows[] = {
        {"convnextv2_atto", 3708400, .5473},          {"convnextv2_femto", 5233240, .7796},
        {"convnextv2_pico", 9066280, 1.3671},         {"convnextv2_nano", 15623800, 2.4455},
        {"convnextv2_tiny", 28635496, 4.4555},        {"convnextv2_base", 88717800, 15.3547},
        {"convnextv2_large", 197956840, 34.3614},     {"convnextv2_huge", 660289640, 114.9221},
        {"convnextv2_nano_384", 15623800, 7.1856},    {"convnextv2_tiny_384", 28635496, 13.0923},
        {"convnextv2_base_384", 88717800, 45.1221},   {"convnextv2_large_384", 197956840, 100.9776},
        {"convnextv2_huge_384", 660289640, 337.7248}, {"convnextv2_huge_512", 660289640, 600.3974},
        {"convnext_tiny", 28589128, 4.4555},          {"convnext_small", 50223688, 8.6837},
        {"convnext_base", 88591464, 15.3547},         {"convnext_large", 197767336, 34.3614},
        {"convnextv2_atto_32", 3706600, .1771},       {"convnextv2_femto_32", 5231080, .2526},
        {"convnextv2_pico_32", 9063400, .4438},       {"convnextv2_nano_32", 15620200, .7953},
        {"convnextv2_tiny_32", 28631176, 1.4510},     {"convnextv2_atto_64", 3706960, .1775},
        {"convnextv2_femto_64", 5231512, .2531},      {"convnextv2_pico_64", 9063976, .4444},
        {"convnextv2_nano_64", 15620920, .7960},      {"convnextv2_tiny_64", 28632040, 1.4518},
        {"convnextv2_cifar", 686170, .0331},          {"convnextv2_fashion", 103722, .0078},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        World w;
        world_init(&w);
        ModelSpec *spec = good(&w, rows[i].name, "");
        assert_string_equal(spec->name, rows[i].name);
        NetworkInfo info = network_info(w.a, spec);
        assert_int_equal(info.params, rows[i].params);
        assert_true(info.macs / 1e9 > rows[i].gmacs - 5.1e-5 &&
                    info.macs / 1e9 < rows[i].gmacs + 5.1e-5);
        world_free(&w);
    }
}

static const Node *param(const Graph *g, const char *name) {
    for (int i = 0; i < g->nodes.n; i++)
        if (g->nodes.v[i].op == OP_PARAM && !strcmp(node_str(&g->nodes.v[i], A_name), name))
            return &g->nodes.v[i];
    return NULL;
}

static void assert_param(World *w, const Graph *g, const char *name, const char *type) {
    const Node *n = param(g, name);
    if (!n) fail_msg("no parameter %s", name);
    assert_string_equal(type_print(w->a, graph_type(g, n->first)), type);
}

static void graphs_have_official_names_and_shapes(void **state) {
    (void)state;
    World w;
    world_init(&w);
    ModelSpec *spec =
        good(&w, "convnextv2_atto", "input.height=160 input.channels=4 head.classes=7");
    Module *m = spec_module(spec, w.d);
    assert_int_equal(m->graphs.n, 2);
    const Graph *g = module_find(m, "infer");
    assert_param(&w, g, "downsample_layers.0.0.weight", "f32[40,4,4,4]");
    assert_param(&w, g, "downsample_layers.0.1.bias", "f32[40]");
    assert_param(&w, g, "downsample_layers.2.0.weight", "f32[80]");
    assert_param(&w, g, "downsample_layers.2.1.weight", "f32[160,80,2,2]");
    assert_param(&w, g, "stages.2.5.dwconv.weight", "f32[160,1,7,7]");
    assert_param(&w, g, "stages.2.5.norm.weight", "f32[160]");
    assert_param(&w, g, "stages.2.5.pwconv1.weight", "f32[640,160]");
    assert_param(&w, g, "stages.2.5.grn.gamma", "f32[640]");
    assert_param(&w, g, "stages.2.5.pwconv2.bias", "f32[160]");
    assert_param(&w, g, "norm.weight", "f32[320]");
    assert_param(&w, g, "head.weight", "f32[7,320]");
    assert_int_equal(g->outputs.n, 2);
    assert_string_equal(g->outputs.v[0].name, "logits");
    assert_string_equal(g->outputs.v[1].name, "pooled");
    const Graph *f = module_find(m, "features");
    assert_int_equal(f->outputs.n, 6);
    assert_string_equal(f->outputs.v[2].name, "stage2");
    assert_string_equal(type_print(w.a, graph_type(f, f->outputs.v[2].value)), "f32[B,10,14,160]");
    for (int i = 0; i < g->nodes.n; i++) assert_int_not_equal(g->nodes.v[i].op, OP_DROP_PATH);
    world_free(&w);
}

static void layerscale_of_v1(void **state) {
    (void)state;
    World w;
    world_init(&w);
    Module *m = spec_module(good(&w, "convnext_tiny", "head=none"), w.d);
    const Graph *g = module_find(m, "infer");
    assert_param(&w, g, "stages.3.2.gamma", "f32[768]");
    assert_null(param(g, "norm.weight"));
    assert_null(param(g, "stages.0.0.grn.gamma"));
    assert_int_equal(g->outputs.n, 1);
    world_free(&w);
}

static const Node *first_of(const Graph *g, Op op) {
    for (int i = 0; i < g->nodes.n; i++)
        if (g->nodes.v[i].op == op) return &g->nodes.v[i];
    return NULL;
}

static void options_reach_ops(void **state) {
    (void)state;
    World w;
    world_init(&w);
    ModelSpec *spec = good(&w, "convnextv2_atto",
                           "grn.statistics=batch grn.aggregate=std grn.normalise=sum "
                           "grn.residual=false grn.eps=1e-3 gelu.approx=tanh layernorm.eps=1e-5");
    const Graph *g = module_find(spec_module(spec, w.d), "infer");
    const Node *grn = first_of(g, OP_GRN);
    assert_int_equal(node_int(grn, A_statistics), 1);
    assert_int_equal(node_int(grn, A_aggregate), 3);
    assert_int_equal(node_int(grn, A_normalise), 1);
    assert_int_equal(node_int(grn, A_residual), 0);
    assert_true(node_f64(grn, A_eps) == 1e-3);
    assert_int_equal(node_int(first_of(g, OP_GELU), A_approx), 1);
    assert_true(node_f64(first_of(g, OP_LAYERNORM), A_eps) == 1e-5);
    world_free(&w);
}

static void head_sizes(void **state) {
    (void)state;
    World w;
    world_init(&w);
    // classes 0 keeps the norm, none is the encoder alone.
    assert_int_equal(network_info(w.a, good(&w, "convnextv2_atto", "head.classes=0")).params,
                     3387400);
    assert_int_equal(network_info(w.a, good(&w, "convnextv2_atto", "head=none")).params, 3386760);
    assert_int_equal(network_info(w.a, good(&w, "convnextv2_huge", "head=none")).params, 657467008);
    assert_int_equal(good(&w, "convnextv2_atto", "head=none")->programs,
                     PROGRAM_INFER | PROGRAM_PRETRAIN);
    world_free(&w);
}

static void strides_are_fields(void **state) {
    (void)state;
    World w;
    world_init(&w);
    ModelSpec *spec = good(&w, "convnextv2_atto",
                           "stem.stride=2 stages.3.downsample.stride=1 "
                           "input.height=32 input.width=48");
    const Graph *f = module_find(spec_module(spec, w.d), "features");
    assert_string_equal(type_print(w.a, graph_type(f, f->outputs.v[3].value)), "f32[B,4,6,320]");
    assert_param(&w, f, "downsample_layers.3.1.weight", "f32[320,160,1,1]");
    spec = good(&w, "convnextv2_atto", "stem.kernel=7 stem.stride=4 stem.pad=2 programs=infer");
    f = module_find(spec_module(spec, w.d), "features");
    assert_string_equal(type_print(w.a, graph_type(f, f->outputs.v[0].value)), "f32[B,56,56,40]");
    world_free(&w);
}

static void channels_and_statistics(void **state) {
    (void)state;
    World w;
    world_init(&w);
    ModelSpec *spec = good(&w, "convnextv2_atto", "input.channels=12");
    assert_int_equal(spec->notes.n, 2);
    assert_true(spec->input.mean[11] > 0.4489 && spec->input.mean[11] < 0.4491);
    spec = good(&w, "convnextv2_atto", "input.channels=2 input.mean=0.5 input.std=[0.25,0.75]");
    assert_int_equal(spec->notes.n, 0);
    assert_true(spec->input.mean[1] == 0.5 && spec->input.std[1] == 0.75);
    world_free(&w);
    bad("convnextv2_atto", "input.channels=4 input.mean=[1,2,3]", NULL, "mean has 3 values");
}

static void fcmae_geometry(void **state) {
    (void)state;
    static const struct {
        const char *name, *sets;
        int64_t units, keep, params;
    } rows[] = {
        {"convnextv2_atto", "", 49, 19, 3871232},
        {"convnextv2_base", "", 49, 19, 4231680},
        {"convnextv2_huge", "", 49, 19, 5149184},
        {"convnextv2_atto", "fcmae.mask_ratio=0.75 input.height=160", 35, 8, 3871232},
        {"convnextv2_atto", "fcmae.mask_ratio=0", 49, 49, 3871232},
        {"convnextv2_atto", "fcmae.mask_unit=7 fcmae.mask_ratio=0", 1, 1, 3871232},
        {"convnextv2_atto_32", "", 16, 6, 0},
        {"convnextv2_atto_64", "", 16, 6, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        World w;
        world_init(&w);
        ModelSpec *spec = good(&w, rows[i].name, rows[i].sets);
        assert_true(spec->programs & PROGRAM_PRETRAIN);
        assert_int_equal(spec->fcmae.units, rows[i].units);
        assert_int_equal(spec->fcmae.keep, rows[i].keep);
        if (rows[i].params) assert_int_equal(spec->fcmae.params, rows[i].params);
        world_free(&w);
    }
}

// What cannot be pre-trained is left out with a note, or refused where it was asked for.
static void fcmae_obstacles(void **state) {
    (void)state;
    static const struct {
        const char *sets, *error;
    } rows[] = {
        {"input.height=100", "divisible by 32 (total stride 32, mask unit 1), not 100"},
        {"fcmae.mask_unit=2", "divisible by 64 (total stride 32, mask unit 2), not 224"},
        {"input.height=32 input.width=32", "mask_ratio 0.6 of 1 mask units leaves none visible"},
        {"stem.kernel=5 stem.pad=1", "the kernel 5x5 exceeds the stride 4x4"},
        {"stages.2.downsample.kernel=3 stages.2.downsample.pad=1", "the kernel 3x3 exceeds"},
        {"stages.2.downsample.pad=1", "a padded convolution shifts its patches off the mask"},
        {"stem.stride=[4,2]", "FCMAE needs square strides, but the total is 32x16"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        World w;
        world_init(&w);
        ModelSpec *spec = good(&w, "convnextv2_atto", rows[i].sets);
        assert_false(spec->programs & PROGRAM_PRETRAIN);
        assert_int_equal(spec->notes.n, 1);
        assert_non_null(strstr(spec->notes.v[0], rows[i].error));
        world_free(&w);
        bad("convnextv2_atto", rows[i].sets, "infer,pretrain", rows[i].error);
    }
    bad("convnextv2_atto", "fcmae.mask_ratio=0.99", NULL, "leaves none visible");
}

static const RecipeSpec *recipe(const ModelSpec *spec, const char *name) {
    for (int i = 0; i < spec->recipes.n; i++)
        if (!strcmp(spec->recipes.v[i].name, name)) return &spec->recipes.v[i];
    fail_msg("no recipe %s", name);
    return NULL;
}

// The published fine-tuning table.
static void recipes(void **state) {
    (void)state;
    static const struct {
        const char *size;
        double base_lr, decay, layer;
        int kind;
        double warmup, epochs, smooth, mixup, cutmix, drop;
    } rows[] = {
        {"atto", 2e-4, .3, .9, 1, 0, 600, .2, 0, 0, .1},
        {"femto", 2e-4, .05, .9, 1, 0, 600, .2, .3, .3, 0},
        {"pico", 2e-4, .3, .9, 1, 0, 600, .2, .3, .3, 0},
        {"nano", 2e-4, .3, .9, 1, 0, 600, .2, .5, .5, .1},
        {"tiny", 8e-4, .05, .9, 1, 40, 300, .1, .8, 1, .2},
        {"base", 6.25e-4, .05, .6, 2, 20, 100, .1, .8, 1, .1},
        {"large", 6.25e-4, .05, .6, 2, 20, 100, .1, .8, 1, .2},
        {"huge", 1.25e-3, .05, .75, 1, 10, 50, .1, .8, 1, .3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        World w;
        world_init(&w);
        ModelSpec *spec = good(&w, arena_printf(w.a, "convnextv2_%s", rows[i].size), "");
        const RecipeSpec *r = recipe(spec, "finetune"), *p = recipe(spec, "pretrain");
        assert_true(r->base_lr == rows[i].base_lr && r->weight_decay == rows[i].decay);
        assert_true(r->layer_decay.rate == rows[i].layer && r->layer_decay.kind == rows[i].kind);
        assert_true(r->warmup_epochs == rows[i].warmup && r->epochs == rows[i].epochs);
        assert_true(r->label_smoothing == rows[i].smooth && r->drop_path == rows[i].drop);
        assert_true(r->mixup == rows[i].mixup && r->cutmix == rows[i].cutmix);
        assert_true(r->ema == .9999 && r->batch == 1024 && r->betas[1] == .999 && r->clip == 0);
        assert_string_equal(r->augment.rand_augment, "m9-mstd0.5-inc1");
        assert_int_equal(r->no_decay, 7);
        assert_true(p->base_lr == 1.5e-4 && p->betas[1] == .95 && p->batch == 4096);
        assert_true(p->epochs == 1600 && p->warmup_epochs == 40 && p->drop_path == 0);
        assert_true(p->augment.crop_scale[0] == .2 && !p->augment.rand_augment && p->loss == 2);
        assert_int_equal(p->no_decay, 3);
        world_free(&w);
    }
}

static void recipes_with_22k(void **state) {
    (void)state;
    World w;
    world_init(&w);
    ModelSpec *spec = good(&w, "convnextv2_huge", "");
    assert_true(recipe(spec, "finetune_22k")->drop_path == .3);
    assert_true(recipe(spec, "finetune_22k")->ema == 0);
    const RecipeSpec *r = recipe(spec, "finetune_1k_after_22k");
    assert_true(r->weight_decay == 1e-8 && r->batch == 512 && r->epochs == 30 && r->ema == 0);
    assert_true(r->layer_decay.rate == .85 && r->drop_path == .5 && r->mixup == 0);
    r = recipe(good(&w, "convnextv2_nano", ""), "finetune_1k_after_22k");
    assert_true(r->epochs == 90 && r->layer_decay.rate == .9 && r->ema == .9999);
    world_free(&w);
}

static void places_of_errors(void **state) {
    (void)state;
    bad("convnextv2_atto", "input.heigth=3", NULL,
        "--set:1:7: error: unknown key 'heigth' in input");
    bad("convnextv2_atto", "a=1 head.classes=x", NULL,
        "--set:2:14: error: 'x': expected an integer");
    bad("convnextv2_atto", "stages.2.dim=0", NULL, "dim is 0; it must be from 1 to 65536");
    bad("convnextv2_atto", "stem.strid=3", NULL, "did you mean 'stride'?");
    bad("convnextv2_atto", "", "infer,trian",
        "--programs is one of infer|train|pretrain, not 'trian'");
    bad("convnextv2_atto", "head=none", "train", "program train needs a head with classes");
    bad("convnextv2_atto", "recipes.train.loss=bce", NULL,
        "recipe 'finetune' has loss cross_entropy but recipe 'train' bce");
    bad("convnextv2_ato", "", NULL, "did you mean 'convnextv2_atto'?");
    bad("convnextv2_atto", "input.height=16384 input.width=16384 stem.stride=1", NULL,
        "is too large");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models),
        cmocka_unit_test(graphs_have_official_names_and_shapes),
        cmocka_unit_test(layerscale_of_v1),
        cmocka_unit_test(options_reach_ops),
        cmocka_unit_test(head_sizes),
        cmocka_unit_test(strides_are_fields),
        cmocka_unit_test(channels_and_statistics),
        cmocka_unit_test(fcmae_geometry),
        cmocka_unit_test(fcmae_obstacles),
        cmocka_unit_test(recipes),
        cmocka_unit_test(recipes_with_22k),
        cmocka_unit_test(places_of_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
