// Strings blocks together: stem, stages, head, and the decoder of FCMAE. The same construction
// checks a spec (into a scratch graph) and makes its programs.
#include "network.h"
#include <math.h>

Builder network_builder(Arena *a, Diag *d, const ModelSpec *spec, const char *program) {
    return (Builder){.schema = {a, d},
                     .spec = spec,
                     .graph = graph_new(a, program),
                     .stride = {1, 1},
                     .prefix = "",
                     .mask = NO_VALUE};
}

static bool check_dim(Builder *b, const StageSpec *stage, int i, const char *what, Value x) {
    if (x == NO_VALUE) return false;
    int64_t c = type_last(graph_type(b->graph, x));
    if (c == stage->dim) return true;
    diag_error(b->schema.diag, stage->loc, "stage %d has dim %lld but its %s makes %lld channels",
               i, (long long)stage->dim, what, (long long)c);
    b->failed = true;
    return false;
}

int64_t spec_blocks(const ModelSpec *spec, int stages) {
    int64_t n = 0;
    for (int i = 0; i < stages; i++) n += spec->stages.v[i].depth;
    return n;
}

// share of block j of stage i in the network's drop rate: b/(B-1), b of all B blocks.
static double drop_share(const ModelSpec *spec, int i, int64_t j) {
    int64_t all = spec_blocks(spec, spec->stages.n);
    return all > 1 ? (double)(spec_blocks(spec, i) + j) / (double)(all - 1) : 0;
}

static Value build_stage(Builder *b, int i, Value x) {
    const StageSpec *stage = &b->spec->stages.v[i];
    Arena *a = b->schema.arena;
    b->place = (Place){PLACE_DOWN, i, 0};
    b->share = 0;
    if (stage->downsample.block)
        x = block_build(b, &stage->downsample, stage->dim, stage->downsample.name, x);
    if (!check_dim(b, stage, i, stage->downsample.block ? "downsample" : "input", x))
        return NO_VALUE;
    for (int64_t j = 0; j < stage->depth; j++) {
        const char *prefix = arena_printf(a, "%s.%lld", stage->use.name, (long long)j);
        b->place = (Place){PLACE_BLOCK, i, j};
        b->share = drop_share(b->spec, i, j);
        x = block_build(b, &stage->use, stage->dim, prefix, x);
        if (!check_dim(b, stage, i, "block", x)) return NO_VALUE;
    }
    return x;
}

static Value build_head(Builder *b, Value x) {
    const HeadSpec *head = &b->spec->head;
    b->place = (Place){PLACE_HEAD, 0, 0};
    x = block_op(b, OP_GLOBAL_AVG_POOL, head->loc, "pool", &x, 1, NULL, 0);
    if (x != NO_VALUE && head->present && head->norm)
        x = block_layernorm(b, head->loc, "norm", head->eps, x);
    return x;
}

Value network_image(Builder *b) {
    const InputSpec *in = &b->spec->input;
    Dim d[] = {dim_b(1), dim_c(in->height), dim_c(in->width), dim_c(in->channels)};
    return graph_input(b->graph, "image", type_make(DT_F32, 4, d), (Loc){0});
}

Value network_stage(Builder *b, int i, Value x) {
    x = build_stage(b, i, x);
    return b->failed ? NO_VALUE : x;
}

Value network_logits(Builder *b, Value x, Value *pooled) {
    const HeadSpec *head = &b->spec->head;
    *pooled = build_head(b, x);
    if (*pooled == NO_VALUE || !head->classes) return NO_VALUE;
    return block_linear(b, head->loc, "head", head->classes, true, *pooled);
}

bool network_build(Builder *b, bool features) {
    Value x = network_image(b);
    for (int i = 0; i < b->spec->stages.n; i++) {
        x = network_stage(b, i, x);
        if (x == NO_VALUE) return false;
        if (features) graph_output(b->graph, arena_printf(b->schema.arena, "stage%d", i), x);
    }
    Value pooled, logits = network_logits(b, x, &pooled);
    if (pooled == NO_VALUE || b->failed) return false;
    if (logits != NO_VALUE && !features) graph_output(b->graph, "logits", logits);
    graph_output(b->graph, "pooled", pooled);
    if (logits != NO_VALUE && features) graph_output(b->graph, "logits", logits);
    return true;
}

Module *spec_module(const ModelSpec *spec, Diag *d) {
    Module *m = module_new(spec->arena);
    static const char *const names[] = {"infer", "features"};
    for (int i = 0; i < 2; i++) {
        Builder b = network_builder(spec->arena, d, spec, names[i]);
        if (!network_build(&b, i == 1)) return NULL;
        vec_push(m->arena, &m->graphs, b.graph);
    }
    return m;
}

// ---- totals ------------------------------------------------------------------------------------

int64_t graph_params(const Graph *g) {
    int64_t total = 0;
    for (int i = 0; i < g->nodes.n; i++) {
        if (g->nodes.v[i].op != OP_PARAM) continue;
        total += type_elems_at(graph_type(g, g->nodes.v[i].first), 1);
    }
    return total;
}

typedef struct {
    int64_t params, macs;
} Mark;
static Mark mark(const Graph *g) { return (Mark){graph_params(g), graph_macs(g)}; }

static StageInfo since(const Graph *g, Value x, Mark from) {
    Mark now = mark(g);
    return (StageInfo){graph_type(g, x), now.params - from.params, now.macs - from.macs};
}

NetworkInfo network_info(Arena *a, const ModelSpec *spec) {
    Builder b = network_builder(a, diag_new(a, stderr), spec, "info");
    NetworkInfo info = {.stage = NEWN(a, StageInfo, spec->stages.n)};
    Value x = network_image(&b);
    Mark zero = {0, 0};
    const StageSpec *first = &spec->stages.v[0];
    info.stem = since(
        b.graph, block_build(&b, &first->downsample, first->dim, first->downsample.name, x), zero);
    b = network_builder(a, b.schema.diag, spec, "info");
    x = network_image(&b);
    for (int i = 0; i < spec->stages.n; i++) {
        Mark before = mark(b.graph);
        x = build_stage(&b, i, x);
        info.stage[i] = since(b.graph, x, before);
    }
    Mark before = mark(b.graph);
    x = build_head(&b, x);
    if (spec->head.classes)
        x = block_linear(&b, spec->head.loc, "head", spec->head.classes, true, x);
    info.head = since(b.graph, x, before);
    info.params = graph_params(b.graph);
    info.macs = graph_macs(b.graph);
    return info;
}

// ---- FCMAE -------------------------------------------------------------------------------------

// Why the spec cannot be pre-trained, with its place; NULL when it can.
typedef struct {
    Loc loc;
    const char *why, *hint;
} Obstacle;

static Obstacle find_leak(Arena *a, const Builder *encoder) {
    if (!encoder->leaks.n) return (Obstacle){0};
    const ConvSite *c = &encoder->leaks.v[0];
    if (c->kernel[0] <= c->stride[0] && c->kernel[1] <= c->stride[1])
        return (Obstacle){c->loc,
                          "a padded convolution shifts its patches off the mask: it would leak "
                          "masked pixels into visible ones, so FCMAE cannot use it",
                          "set pad to 0, or build without pretrain"};
    return (Obstacle){
        c->loc,
        arena_printf(a,
                     "the kernel %lldx%lld exceeds the stride %lldx%lld: it would leak masked "
                     "pixels into visible ones, so FCMAE cannot use it",
                     (long long)c->kernel[0], (long long)c->kernel[1], (long long)c->stride[0],
                     (long long)c->stride[1]),
        "make the kernel equal to the stride, or build without pretrain"};
}

static Obstacle find_misfit(Arena *a, const ModelSpec *spec) {
    static const char *const names[] = {"height", "width"};
    const FcmaeSpec *f = &spec->fcmae;
    const int64_t size[] = {spec->input.height, spec->input.width};
    for (int k = 0; k < 2; k++) {
        int64_t unit = f->stride[k] * f->mask_unit;
        if (size[k] % unit == 0) continue;
        const Yaml *at = yaml_get(yaml_get(spec->root, "input"), names[k]);
        return (Obstacle){
            at ? at->loc : f->loc,
            arena_printf(a,
                         "FCMAE needs a %s divisible by %lld (total stride %lld, mask unit %lld),"
                         " not %lld",
                         names[k], (long long)unit, (long long)f->stride[k],
                         (long long)f->mask_unit, (long long)size[k]),
            size[k] > unit
                ? arena_printf(a, "%lld and %lld are", (long long)(size[k] / unit * unit),
                               (long long)((size[k] / unit + 1) * unit))
                : arena_printf(a, "%lld is", (long long)unit)};
    }
    return (Obstacle){0};
}

// A cell must be square in the positions of every map: the mask is enlarged by one factor.
static Obstacle find_oblong(Arena *a, const ModelSpec *spec) {
    const FcmaeSpec *f = &spec->fcmae;
    if (f->stride[0] == f->stride[1]) return (Obstacle){0};
    return (Obstacle){f->loc,
                      arena_printf(a, "FCMAE needs square strides, but the total is %lldx%lld",
                                   (long long)f->stride[0], (long long)f->stride[1]),
                      "use strides that are equal in both directions, or build without pretrain"};
}

// Fewer units than this may leave none visible at an ordinary ratio: then pre-training is left out
// rather than refused.
enum { FEW_UNITS = 4 };

static Obstacle find_empty(Arena *a, const ModelSpec *spec) {
    const FcmaeSpec *f = &spec->fcmae;
    if (f->keep > 0) return (Obstacle){0};
    const Yaml *at = yaml_get(yaml_get(spec->root, "fcmae"), "mask_ratio");
    return (Obstacle){at ? at->loc : f->loc,
                      arena_printf(a, "mask_ratio %g of %lld mask units leaves none visible",
                                   f->mask_ratio, (long long)f->units),
                      f->units > 1 ? arena_printf(a, "at most %.6g", 1 - 1.0 / (double)f->units)
                                   : "use a larger image or smaller strides"};
}

// Parameters of decoder blocks, projections and mask token.
static bool count_decoder(ModelSpec *spec, Diag *d) {
    FcmaeSpec *f = &spec->fcmae;
    Builder b = network_builder(spec->arena, d, spec, "decoder");
    Dim dims[] = {dim_b(1), dim_c(f->grid[0] * f->mask_unit), dim_c(f->grid[1] * f->mask_unit),
                  dim_c(f->decoder_dim)};
    Value x = graph_input(b.graph, "tokens", type_make(DT_F32, 4, dims), f->loc);
    for (int64_t j = 0; j < f->decoder_depth; j++) {
        const char *prefix = arena_printf(spec->arena, "decoder.%lld", (long long)j);
        x = block_build(&b, &f->decoder, f->decoder_dim, prefix, x);
        if (x == NO_VALUE) return false;
        if (type_eq(graph_type(b.graph, x), type_make(DT_F32, 4, dims))) continue;
        diag_error(d, f->decoder.loc, "a decoder block must keep its shape");
        return false;
    }
    int64_t last = spec->stages.v[spec->stages.n - 1].dim, dim = f->decoder_dim;
    f->params = graph_params(b.graph) + last * dim + dim + dim + dim * f->values + f->values;
    return true;
}

static bool leave_out(ModelSpec *spec, Diag *d, Obstacle o, bool refuse) {
    if (refuse || (spec->asked & PROGRAM_PRETRAIN)) {
        diag_error(d, o.loc, "%s", o.why);
        diag_hint(d, "%s", o.hint);
        return false;
    }
    spec->programs &= ~(unsigned)PROGRAM_PRETRAIN;
    vec_push(spec->arena, &spec->notes,
             arena_printf(spec->arena, "program pretrain is left out: %s (%s)", o.why, o.hint));
    return true;
}

bool fcmae_check(ModelSpec *spec, Diag *d, const Builder *encoder) {
    FcmaeSpec *f = &spec->fcmae;
    if (!f->present || !(spec->programs & PROGRAM_PRETRAIN)) return true;
    memcpy(f->stride, encoder->stride, sizeof f->stride);
    Obstacle o = find_leak(spec->arena, encoder);
    if (!o.why) o = find_oblong(spec->arena, spec);
    if (!o.why) o = find_misfit(spec->arena, spec);
    if (o.why) return leave_out(spec, d, o, false);
    f->grid[0] = spec->input.height / (f->stride[0] * f->mask_unit);
    f->grid[1] = spec->input.width / (f->stride[1] * f->mask_unit);
    f->units = f->grid[0] * f->grid[1];
    f->keep = (int64_t)((double)f->units * (1 - f->mask_ratio));
    f->values = f->stride[0] * f->stride[1] * spec->input.channels;
    o = find_empty(spec->arena, spec);
    if (o.why) return leave_out(spec, d, o, f->units >= FEW_UNITS);
    return count_decoder(spec, d);
}
