// Masked pre-training on packed rows is what the masked dense program says, with and without
// rematerialisation and fusion: losses and every gradient of small networks through the passes and
// the evaluator, in f64.
#include "passes/pipeline.h"
#include "ir/eval.h"
#include "ir/text.h"
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

// ---- networks ----------------------------------------------------------------------------------
// Masked auto-encoders: a stem, stages of one block with a downsample before each but the first, a
// decoder of one block. A cell is a position of the last stage.
typedef struct {
    int image[3];                          // height, width, channels
    int stem, stages, grid[2], unit, keep; // keep: visible mask units, unit: their side in cells
    bool norm_pix, encoder_only;
    const char *stat;
} Net;

enum { WIDTH = 3, DECODER = 5, BATCH = 3 };

static void block(Str *s, const char *p, const char *x, int c, bool masked, const Net *net,
                  int visible) {
    str_printf(s, "%%%sdw = param {name=\"%s.dwconv.weight\"} : f32[%d,1,7,7]\n", p, p, c);
    str_printf(s, "%%%sdb = param {name=\"%s.dwconv.bias\"} : f32[%d]\n", p, p, c);
    if (masked)
        str_printf(s, "%%%sm = mask %s, %%mask {count=%d}\n", p, x, visible);
    else
        str_printf(s, "%%%sm = reshape %s {shape=[B,%d,%d,%d]}\n", p, x, net->grid[0], net->grid[1],
                   c);
    str_printf(s, "%%%sa = dwconv2d %%%sm, %%%sdw, %%%sdb {stride=[1,1], pad=[3,3]}\n", p, p, p, p);
    str_printf(s, "%%%sng = param {name=\"%s.norm.weight\"} : f32[%d]\n", p, p, c);
    str_printf(s, "%%%snb = param {name=\"%s.norm.bias\"} : f32[%d]\n", p, p, c);
    str_printf(s, "%%%sb = layernorm %%%sa, %%%sng, %%%snb {eps=1e-6}\n", p, p, p, p);
    str_printf(s, "%%%sw1 = param {name=\"%s.pwconv1.weight\"} : f32[%d,%d]\n", p, p, 4 * c, c);
    str_printf(s, "%%%sb1 = param {name=\"%s.pwconv1.bias\"} : f32[%d]\n", p, p, 4 * c);
    str_printf(s, "%%%sc = linear %%%sb, %%%sw1, %%%sb1\n%%%sd = gelu %%%sc\n", p, p, p, p, p, p);
    str_printf(s, "%%%sgg = param {name=\"%s.grn.gamma\"} : f32[%d]\n", p, p, 4 * c);
    str_printf(s, "%%%sgb = param {name=\"%s.grn.beta\"} : f32[%d]\n", p, p, 4 * c);
    if (masked) {
        str_printf(s, "%%%sdm = mask %%%sd, %%mask {count=%d}\n", p, p, visible);
        str_printf(s, "%%%sst = grn_stat %%%sdm {%s}\n", p, p, net->stat);
        str_printf(s, "%%%ssc = grn_scale %%%sst, %%%sgg {eps=1e-6, residual=true}\n", p, p, p);
        str_printf(s, "%%%ses = scale %%%sd, %%%ssc\n%%%se = add %%%ses, %%%sgb\n", p, p, p, p, p,
                   p);
    } else {
        str_printf(s, "%%%se = grn %%%sd, %%%sgg, %%%sgb {eps=1e-6, residual=true}\n", p, p, p, p);
    }
    str_printf(s, "%%%sw2 = param {name=\"%s.pwconv2.weight\"} : f32[%d,%d]\n", p, p, c, 4 * c);
    str_printf(s, "%%%sb2 = param {name=\"%s.pwconv2.bias\"} : f32[%d]\n", p, p, c);
    str_printf(s, "%%%sf = linear %%%se, %%%sw2, %%%sb2\n", p, p, p, p);
    str_printf(s, "%%%sy = add %s, %%%sf\n", p, x, p);
}

static void conv(Str *s, const char *p, const char *x, int o, int i, int k) {
    str_printf(s, "%%%sw = param {name=\"%s.weight\"} : f32[%d,%d,%d,%d]\n", p, p, o, i, k, k);
    str_printf(s, "%%%sb = param {name=\"%s.bias\"} : f32[%d]\n", p, p, o);
    str_printf(s, "%%%sy = conv2d %s, %%%sw, %%%sb {stride=[%d,%d], pad=[0,0]}\n", p, x, p, p, k,
               k);
}

static void norm(Str *s, const char *p, const char *x, int c) {
    str_printf(s, "%%%sg = param {name=\"%s.weight\"} : f32[%d]\n", p, p, c);
    str_printf(s, "%%%so = param {name=\"%s.bias\"} : f32[%d]\n", p, p, c);
    str_printf(s, "%%%sy = layernorm %s, %%%sg, %%%so {eps=1e-6}\n", p, x, p, p);
}

// The encoder's output under zeros is %x.
static void encoder(Str *s, const Net *n, int visible) {
    Arena *a = s->arena;
    const char *x = "%stemny";
    conv(s, "stem", "%image", WIDTH, n->image[2], n->stem);
    norm(s, "stemn", "%stemy", WIDTH);
    for (int i = 0; i < n->stages; i++) {
        const char *p = arena_printf(a, "s%d", i);
        if (i) {
            norm(s, arena_printf(a, "dn%d", i), x, WIDTH + i - 1);
            conv(s, arena_printf(a, "d%d", i), arena_printf(a, "%%dn%dy", i), WIDTH + i,
                 WIDTH + i - 1, 2);
            x = arena_printf(a, "%%d%dy", i);
        }
        block(s, p, x, WIDTH + i, true, n, visible);
        x = arena_printf(a, "%%%sy", p);
    }
    str_printf(s, "%%x = mask %s, %%mask {count=%d}\n", x, visible);
}

static void decoder(Str *s, const Net *n, int visible) {
    int stride = n->image[0] / n->grid[0], d = stride * stride * n->image[2];
    int gh = n->grid[0], gw = n->grid[1], c = DECODER;
    conv(s, "proj", "%x", c, WIDTH + n->stages - 1, 1);
    str_printf(s, "%%projm = mask %%projy, %%mask {count=%d}\n", visible);
    str_printf(s, "%%tok = param {name=\"mask_token\"} : f32[1,%d,1,1]\n", c);
    str_printf(s, "%%tokv = reshape %%tok {shape=[%d]}\n", c);
    str_printf(s, "%%toke = expand %%tokv {shape=[B,%d,%d,%d]}\n", gh, gw, c);
    str_printf(s, "%%tokm = mask %%toke, %%mask {hidden=true}\n%%in = add %%projm, %%tokm\n");
    block(s, "dec", "%in", c, false, n, visible);
    conv(s, "pred", "%decy", d, c, 1);
    str_printf(s, "%%patches = patchify %%image {kernel=[%d,%d], stride=[%d,%d]}\n", stride, stride,
               stride, stride);
    if (n->norm_pix)
        str_printf(s, "%%target = norm_pix %%patches {eps=1e-6}\n");
    else
        str_printf(s, "%%target = reshape %%patches {shape=[B,%d,%d,%d]}\n", gh, gw, d);
    str_printf(s, "%%loss = masked_mse %%predy, %%target, %%mask\n");
}

static const char *net_text(Arena *a, const Net *n, const char *program) {
    Str s = {.arena = a};
    int visible = n->keep * n->unit * n->unit, c = WIDTH + n->stages - 1;
    str_printf(&s, "program %s {\n", program);
    str_printf(&s, "%%image = input {name=\"image\"} : f32[B,%d,%d,%d]\n", n->image[0], n->image[1],
               n->image[2]);
    str_printf(&s, "%%mask = input {name=\"mask\"} : f32[B,%d,%d]\n", n->grid[0], n->grid[1]);
    if (n->encoder_only) // loss: the encoder's output times a random upstream gradient
        str_printf(&s, "%%up = input {name=\"up\"} : f32[B,%d,%d,%d]\n", n->grid[0], n->grid[1], c);
    encoder(&s, n, visible);
    if (n->encoder_only)
        str_printf(&s,
                   "%%xu = mul %%x, %%up\n%%xr = reshape %%xu {shape=[B,%d,1]}\n"
                   "%%xs = image_sum %%xr\n%%loss = reshape %%xs {shape=[B]}\n",
                   n->grid[0] * n->grid[1] * c);
    else
        decoder(&s, n, visible);
    str_printf(&s, "return loss=%%loss%s\n}\n",
               strcmp(program, "reconstruct") == 0 ? ", pred=%predy" : "");
    return str_cstr(&s);
}

// ---- values ------------------------------------------------------------------------------------
static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static double uniform(uint64_t stream, int64_t i) {
    return (double)(mix(mix(stream + 1) + (uint64_t)i * 0x9E3779B97F4A7C15u) >> 11) * 0x1p-53;
}

static Tensor noise(Arena *a, const char *name, Type type, double lo, double hi) {
    uint64_t stream = 14695981039346656037u;
    for (; *name; name++) stream = (stream ^ (unsigned char)*name) * 1099511628211u;
    Tensor t = tensor_for(a, DT_F64, type, BATCH);
    for (int64_t i = 0; i < tensor_elems(&t); i++)
        ((double *)t.data)[i] = lo + (hi - lo) * uniform(stream, i);
    return t;
}

static const char *give_param(void *user, const char *name, Type type, Tensor *out) {
    bool factor = strstr(name, "gamma") || strstr(name, "norm.weight");
    *out = noise(user, name, type, factor ? 0.5 : -0.6, factor ? 1.5 : 0.6);
    return NULL;
}

// 1 in all cells but those of `keep` random mask units of each image.
static Tensor give_mask(Arena *a, const Net *n) {
    int uh = n->grid[0] / n->unit, uw = n->grid[1] / n->unit, units = uh * uw;
    Tensor m = tensor_new(a, DT_F64, 3, (int64_t[]){BATCH, n->grid[0], n->grid[1]});
    for (int b = 0; b < BATCH; b++) {
        int shown = 0;
        for (int u = 0; u < units; u++) {
            bool show = uniform(7, b * units + u) * (units - u) < n->keep - shown;
            shown += show;
            for (int i = 0; !show && i < n->unit * n->unit; i++) {
                int row = u / uw * n->unit + i / n->unit, col = u % uw * n->unit + i % n->unit;
                ((double *)m.data)[(b * n->grid[0] + row) * n->grid[1] + col] = 1;
            }
        }
        assert_int_equal(shown, n->keep);
    }
    return m;
}

static Tensor *run(Arena *a, const Net *net, const Graph *g) {
    Tensor *in = NEWN(a, Tensor, g->inputs.n), *out = NEWN(a, Tensor, g->outputs.n);
    for (int i = 0; i < g->inputs.n; i++) {
        const Node *n = graph_def(g, g->inputs.v[i]);
        const char *name = node_str(n, A_name);
        bool mask = strcmp(name, "mask") == 0;
        in[i] = mask ? give_mask(a, net) : noise(a, name, graph_type(g, n->first), -1, 1);
    }
    EvalContext ctx = {
        .arena = a, .dt = DT_F64, .batch = BATCH, .inputs = in, .param = give_param, .user = a};
    const char *why = eval_graph(&ctx, g, out);
    if (why) fail_msg("%s", why);
    return out;
}

static Graph *compile(Arena *a, const char *text, const char *passes) {
    Module *m = module_parse(a, diag_new(a, stderr), "t.ir", text, strlen(text));
    assert_non_null(m);
    Pipeline p = {.arena = a, .module = m};
    PipelineOptions opt = {.passes = passes, .rewrite_limit = -1};
    assert_true(pipeline_run(&p, &opt, diag_new(a, stderr)));
    return p.module->graphs.v[0];
}

static int count_ops(const Graph *g, Op op) {
    int n = 0;
    for (int i = 0; i < g->nodes.n; i++) n += g->nodes.v[i].op == op;
    return n;
}

// ---- packed equals dense -----------------------------------------------------------------------
static const char dense[] = "simplify,lower-conv,lower-grn,autodiff";
static const char packed[] = "simplify,lower-conv,lower-grn,specialize-rulebook,autodiff";
static const char pruned[] =
    "simplify,lower-conv,lower-grn,specialize-rulebook,drop-dead-rows,autodiff";
static const char remat[] = "simplify,lower-conv,lower-grn,specialize-rulebook,drop-dead-rows,"
                            "autodiff,remat,fuse-layernorm-pointwise,fuse-grn-gelu,fuse-residual";

static void compare(Arena *a, const Net *net, const Graph *want, const Graph *got) {
    Tensor *w = run(a, net, want), *g = run(a, net, got);
    assert_int_equal(want->outputs.n, got->outputs.n);
    for (int i = 0; i < want->outputs.n; i++) {
        const double *x = w[i].data, *y = g[i].data;
        double most = 0;
        assert_string_equal(want->outputs.v[i].name, got->outputs.v[i].name);
        assert_int_equal(tensor_elems(&w[i]), tensor_elems(&g[i]));
        for (int64_t k = 0; k < tensor_elems(&w[i]); k++) most = fmax(most, fabs(x[k]));
        for (int64_t k = 0; k < tensor_elems(&w[i]); k++)
            if (!(fabs(x[k] - y[k]) <= 1e-12 * (most + 1e-3)))
                fail_msg("%s[%lld]: %.17g, dense %.17g", want->outputs.v[i].name, (long long)k,
                         y[k], x[k]);
    }
}

static void check_net(const Net *net) {
    Arena *a = arena_new();
    const char *text = net_text(a, net, "pretrain");
    Graph *whole = compile(a, text, dense), *rows = compile(a, text, packed);
    Graph *less = compile(a, text, pruned);
    compare(a, net, whole, rows);
    compare(a, net, whole, less);
    Graph *again = compile(a, text, remat);
    compare(a, net, whole, again);
    assert_true(count_ops(again, OP_RECALL) > 2 * net->stages);
    // Nothing of the encoder is left on whole maps, and one list serves all layers of a stage.
    assert_int_equal(count_ops(rows, OP_DWCONV2D), !net->encoder_only);
    assert_int_equal(count_ops(rows, OP_DWCONV2D_PACKED), net->stages);
    assert_int_equal(count_ops(rows, OP_RULEBOOK), net->stages);
    assert_int_equal(count_ops(rows, OP_CELLS), 1);
    assert_true(graph_macs(rows) <= graph_macs(whole));
    assert_true(graph_macs(less) <= graph_macs(rows));
    bool hides = net->keep * net->unit * net->unit < net->grid[0] * net->grid[1];
    assert_int_equal(count_ops(less, OP_CELLS), !net->encoder_only && hides ? 2 : 1);
    arena_free(a);
}

#define L2 "aggregate=l2"

static void test_ratios(void **state) {
    (void)state;
    // 3 x 4 cells of side 4, 2, 1: ratios 0.25, 0.6 and 0.75 keep int(12 (1 - r))
    static const int keep[] = {9, 4, 3, 1};
    for (int i = 0; i < 4; i++)
        check_net(&(Net){{24, 32, 4}, 2, 3, {3, 4}, 1, keep[i], i % 2 == 0, false, L2});
}

static void test_mask_units(void **state) {
    (void)state;
    check_net(&(Net){{24, 48, 3}, 3, 2, {4, 8}, 2, 3, true, false, L2});
    check_net(&(Net){{16, 32, 1}, 1, 4, {2, 4}, 2, 1, false, false, L2});
    check_net(&(Net){{8, 12, 2}, 4, 1, {2, 3}, 1, 4, true, false, L2});
}

static void test_statistics(void **state) {
    (void)state;
    check_net(&(Net){{24, 32, 3}, 4, 2, {3, 4}, 1, 4, true, false, "aggregate=l1"});
    check_net(
        &(Net){{24, 32, 3}, 4, 2, {3, 4}, 1, 4, true, false, "aggregate=l2, statistics=batch"});
}

// Nothing is hidden: the loss is 0 by rule; the encoder is checked under an upstream gradient.
static void test_ratio_zero(void **state) {
    (void)state;
    check_net(&(Net){{24, 32, 4}, 2, 3, {3, 4}, 1, 12, true, false, L2});
    check_net(&(Net){{24, 32, 4}, 2, 3, {3, 4}, 1, 12, true, true, L2});
    check_net(&(Net){{24, 32, 4}, 2, 3, {3, 4}, 1, 5, true, true, L2});
}

// The prediction is asked for everywhere: only the encoder is packed.
static void test_reconstruct(void **state) {
    (void)state;
    Arena *a = arena_new();
    Net net = {{24, 32, 4}, 2, 3, {3, 4}, 1, 4, true, false, L2};
    const char *text = net_text(a, &net, "reconstruct");
    const char *lower = "simplify,lower-conv,lower-grn";
    Graph *less =
        compile(a, text, "simplify,lower-conv,lower-grn,specialize-rulebook,drop-dead-rows");
    compare(a, &net, compile(a, text, lower), less);
    assert_int_equal(count_ops(less, OP_CELLS), 1);
    assert_int_equal(count_ops(less, OP_DWCONV2D), 1);
    arena_free(a);
}

// A list of the wrong length is refused by the definition, not read.
static void test_wrong_count(void **state) {
    (void)state;
    Arena *a = arena_new();
    Net net = {{8, 12, 2}, 4, 1, {2, 3}, 1, 4, true, false, L2};
    Graph *g = compile(a, net_text(a, &net, "pretrain"), packed);
    Tensor *in = NEWN(a, Tensor, g->inputs.n), out[64];
    for (int i = 0; i < g->inputs.n; i++)
        in[i] = tensor_for(a, DT_F64, graph_type(g, g->inputs.v[i]), BATCH);
    EvalContext ctx = {
        .arena = a, .dt = DT_F64, .batch = BATCH, .inputs = in, .param = give_param, .user = a};
    const char *why = eval_graph(&ctx, g, out);
    assert_non_null(why);
    assert_string_equal(why, "image 0 has 6 visible cells, expected 4");
    arena_free(a);
}

// Without names given both passes run for a program that trains, unless it is to be dense.
static void test_option(void **state) {
    (void)state;
    for (int sparse = SPARSE_PACKED; sparse <= SPARSE_DENSE; sparse++) {
        Arena *a = arena_new();
        Net net = {{8, 12, 2}, 4, 1, {2, 3}, 1, 4, true, false, L2};
        const char *text = net_text(a, &net, "pretrain");
        Pipeline p = {.arena = a,
                      .module = module_parse(a, diag_new(a, stderr), "t.ir", text, strlen(text))};
        PipelineOptions opt = {.stop_level = LEVEL_FUSED,
                               .stop_after = "autodiff",
                               .sparse = (Sparse)sparse,
                               .rewrite_limit = -1};
        assert_true(pipeline_run(&p, &opt, diag_new(a, stderr)));
        assert_int_equal(count_ops(p.module->graphs.v[0], OP_CELLS),
                         sparse == SPARSE_PACKED ? 2 : 0);
        arena_free(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ratios),      cmocka_unit_test(test_mask_units),
        cmocka_unit_test(test_statistics),  cmocka_unit_test(test_ratio_zero),
        cmocka_unit_test(test_reconstruct), cmocka_unit_test(test_wrong_count),
        cmocka_unit_test(test_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
