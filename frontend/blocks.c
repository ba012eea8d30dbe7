// Builders of layer kinds over graph ops. Walks a body with a scope of the block's parameters plus
// `dim` (channels of the stage) and `in` (channels at the entry of the block). Everything a text
// can get wrong is reported here at the layer's place; the graph builder sees only well-typed
// nodes. Dimensions by role: h w c of activations [B,h,w,c], kh kw of kernels, o i of weights.
#include "blocks.h"

enum { MAX_CHANNELS = 1 << 16, MAX_KERNEL = 255, MAX_BLOCK_DEPTH = 16 };
#define NOMINAL_DROP_PATH 0.1
#define MAX_ELEMENTS ((double)(1ll << 33)) // of one parameter or one image's activation

typedef struct {
    const char *name;
    int64_t out, kernel[2], stride[2], pad[2];
    bool bias, residual;
    double eps, init, drop_path;
    int approx, aggregate, normalise, statistics;
    const Yaml *body;
} LayerArgs;

typedef struct {
    Loc loc;
    const char *prefix;
    Scope *scope;
    int64_t dim;
} Site;

#define AT(m) offsetof(LayerArgs, m)
#define F_NAME                                                                                     \
    { "name", F_STR, AT(name), 0, 0, NULL, NULL, FIELD_REQUIRED, "name of its parameters" }
#define F_OUT                                                                                      \
    { "out", F_INT, AT(out), 1, MAX_CHANNELS, NULL, NULL, FIELD_REQUIRED, "channels of the result" }
#define F_KERNEL(init)                                                                             \
    { "kernel", F_INT2, AT(kernel), 1, MAX_KERNEL, NULL, init, 0, "kernel size" }
#define F_STRIDE                                                                                   \
    { "stride", F_INT2, AT(stride), 1, MAX_KERNEL, NULL, "1", 0, "step" }
#define F_PAD(init)                                                                                \
    {                                                                                              \
        "pad", F_INT2, AT(pad), -1, MAX_KERNEL, NULL, init, 0,                                     \
            "zeros on each side, -1: half the kernel"                                              \
    }
#define F_BIAS                                                                                     \
    { "bias", F_BOOL, AT(bias), 0, 0, NULL, "true", 0, "whether it has a bias" }
#define F_EPS                                                                                      \
    { "eps", F_NUM, AT(eps), 0, 1, NULL, "1e-6", 0, "epsilon" }
#define F_APPROX                                                                                   \
    { "approx", F_WORD, AT(approx), 0, 0, "erf|tanh", "erf", 0, "form" }
#define F_AGGREGATE                                                                                \
    {                                                                                              \
        "aggregate", F_WORD, AT(aggregate), 0, 0, "l2|l1|mean|std", "l2", 0,                       \
            "how a channel's positions are aggregated"                                             \
    }
#define F_NORMALISE                                                                                \
    {                                                                                              \
        "normalise", F_WORD, AT(normalise), 0, 0, "mean|sum|standardise|none", "mean", 0,          \
            "how aggregates are normalised over channels"                                          \
    }
#define F_RESIDUAL                                                                                 \
    { "residual", F_BOOL, AT(residual), 0, 0, NULL, "true", 0, "whether the input is added" }
#define F_STATISTICS                                                                               \
    {                                                                                              \
        "statistics", F_WORD, AT(statistics), 0, 0, "image|batch", "image", 0,                     \
            "positions aggregated: of an image or of the batch"                                    \
    }
#define F_INIT                                                                                     \
    { "init", F_NUM, AT(init), -1e6, 1e6, NULL, "1e-6", 0, "value at initialisation" }
#define F_DROP_PATH                                                                                \
    { "drop_path", F_NUM, AT(drop_path), 0, 0.99, NULL, NULL, FIELD_NONE, "drop rate in training" }
#define F_BODY                                                                                     \
    { "body", F_NODE, AT(body), 0, 0, NULL, NULL, FIELD_REQUIRED, "list of layers" }
#define FIELDS(...)                                                                                \
    { __VA_ARGS__ }

#define LAYER(name, fields, doc) static const Field fields_##name[] = fields;
#include "blocks.def"
#undef LAYER

// ---- checked graph building --------------------------------------------------------------------

static Value fail(Builder *b) {
    b->failed = true;
    return NO_VALUE;
}

static const char *shape_text(Builder *b, Value x) {
    Type t = graph_type(b->graph, x);
    Str s = {.arena = b->schema.arena};
    for (int i = 1; i < t.rank; i++)
        str_printf(&s, "%s%lld", i > 1 ? "x" : "", (long long)t.d[i].c);
    return str_cstr(&s);
}

Value block_op(Builder *b, Op op, Loc loc, const char *label, const Value *args, int nargs,
               const Attr *attrs, int nattrs) {
    for (int i = 0; i < nargs; i++)
        if (args[i] == NO_VALUE) return fail(b);
    NodeSpec spec = {.op = op,
                     .args = args,
                     .nargs = nargs,
                     .attrs = attrs,
                     .nattrs = nattrs,
                     .loc = loc,
                     .label = label};
    const char *why = graph_check(b->graph, &spec);
    if (why) {
        diag_error(b->schema.diag, loc, "%s: %s", op_info[op].name, why);
        return fail(b);
    }
    Value v = graph_add(b->graph, &spec);
    int64_t fixed, per_image;
    type_elems(graph_type(b->graph, v), &fixed, &per_image);
    if ((double)per_image <= MAX_ELEMENTS) return v;
    diag_error(b->schema.diag, loc, "the result, %s, is too large", shape_text(b, v));
    return fail(b);
}

Value block_param(Builder *b, const ParamInfo *info, int rank, const int64_t *dims, Loc loc) {
    if (b->failed) return NO_VALUE;
    const char *name =
        *b->prefix ? arena_printf(b->schema.arena, "%s%s", b->prefix, info->name) : info->name;
    Dim d[MAX_RANK];
    double elements = 1;
    for (int i = 0; i < rank; i++) {
        d[i] = dim_c(dims[i]);
        elements *= (double)dims[i];
    }
    for (int i = 0; i < b->params.n; i++)
        if (strcmp(b->params.v[i].name, name) == 0) {
            diag_error(b->schema.diag, loc, "two layers have the parameter '%s'", name);
            diag_hint(b->schema.diag, "give one of them another name");
            return fail(b);
        }
    if (elements > MAX_ELEMENTS) {
        diag_error(b->schema.diag, loc, "parameter '%s' has %.0f elements", name, elements);
        return fail(b);
    }
    ParamInfo made = *info;
    made.name = name;
    made.type = type_make(DT_F32, rank, d);
    made.place = b->place;
    vec_push(b->schema.arena, &b->params, made);
    return graph_param(b->graph, name, made.type, loc);
}

static const char *join(Builder *b, const char *prefix, const char *name) {
    return *prefix ? arena_printf(b->schema.arena, "%s.%s", prefix, name) : name;
}

static Value vector(Builder *b, ParamInfo info, const char *name, const char *part, int64_t n,
                    Loc loc) {
    info.name = join(b, name, part);
    return block_param(b, &info, 1, &n, loc);
}

// Weight [o,i,...] and bias [o] (NO_VALUE without) of a linear map.
static void affine(Builder *b, Op op, const char *name, int rank, const int64_t *d, bool bias,
                   Loc loc, Value *args) {
    ParamInfo info = {.name = join(b, name, "weight"), .role = ROLE_WEIGHT, .op = op, .fan_in = 1};
    for (int i = 1; i < rank; i++) info.fan_in *= d[i];
    args[0] = block_param(b, &info, rank, d, loc);
    info.role = ROLE_BIAS;
    args[1] = bias ? vector(b, info, name, "bias", d[0], loc) : NO_VALUE;
}

Value block_layernorm(Builder *b, Loc loc, const char *name, double eps, Value x) {
    int64_t c = type_last(graph_type(b->graph, x));
    ParamInfo gamma = {.role = ROLE_NORM, .op = OP_LAYERNORM};
    ParamInfo beta = {.role = ROLE_NORM_BIAS, .op = OP_LAYERNORM};
    Value weight = vector(b, gamma, name, "weight", c, loc);
    Value bias = vector(b, beta, name, "bias", c, loc);
    Attr attr = attr_f64(A_eps, eps);
    return block_op(b, OP_LAYERNORM, loc, name, (Value[]){x, weight, bias}, 3, &attr, 1);
}

Value block_linear(Builder *b, Loc loc, const char *name, int64_t out, bool bias, Value x) {
    int64_t d[] = {out, type_last(graph_type(b->graph, x))};
    Value args[3] = {x, NO_VALUE, NO_VALUE};
    affine(b, OP_LINEAR, name, 2, d, bias, loc, args + 1);
    return block_op(b, OP_LINEAR, loc, name, args, bias ? 3 : 2, NULL, 0);
}

Value block_masked(Builder *b, Loc loc, const char *label, Value x, Value m, bool hidden) {
    const FcmaeSpec *f = &b->spec->fcmae;
    Attr attrs[] = {attr_int(A_count, f->keep * f->mask_unit * f->mask_unit),
                    attr_int(A_hidden, 1)};
    return block_op(b, OP_MASK, loc, label, (Value[]){x, m}, 2, attrs, hidden ? 2 : 1);
}

Value block_mask(Builder *b, Loc loc, const char *label, Value x) {
    return b->mask == NO_VALUE ? x : block_masked(b, loc, label, x, b->mask, false);
}

// ---- layers ------------------------------------------------------------------------------------

// Whether the kernel fits into the padded input.
static bool conv_fits(Builder *b, const LayerArgs *l, Loc loc, Value x) {
    Type t = graph_type(b->graph, x);
    int64_t h = t.d[1].c + 2 * l->pad[0], w = t.d[2].c + 2 * l->pad[1];
    if (l->kernel[0] <= h && l->kernel[1] <= w) return true;
    diag_error(b->schema.diag, loc,
               "the kernel is %lldx%lld but its input, padding included, is %lldx%lld",
               (long long)l->kernel[0], (long long)l->kernel[1], (long long)h, (long long)w);
    diag_hint(b->schema.diag, "use a larger image or smaller strides");
    return false;
}

// Shared by both convolutions: weight [o,i,kh,kw], bias [o].
static Value convolve(Builder *b, Op op, const LayerArgs *l, const Site *at, int64_t o, int64_t i,
                      Value x) {
    if (!conv_fits(b, l, at->loc, x)) return fail(b);
    const char *name = join(b, at->prefix, l->name);
    int64_t d[] = {o, i, l->kernel[0], l->kernel[1]};
    Value args[3] = {x, NO_VALUE, NO_VALUE};
    affine(b, op, name, 4, d, l->bias, at->loc, args + 1);
    Attr attrs[] = {attr_ints2(b->schema.arena, A_stride, l->stride[0], l->stride[1]),
                    attr_ints2(b->schema.arena, A_pad, l->pad[0], l->pad[1])};
    for (int k = 0; k < 2; k++) b->stride[k] *= l->stride[k];
    return block_op(b, op, at->loc, name, args, l->bias ? 3 : 2, attrs, 2);
}

static Value build_conv(Builder *b, const LayerArgs *args, const Site *at, Value x) {
    LayerArgs l = *args;
    for (int k = 0; k < 2; k++)
        if (l.pad[k] < 0) l.pad[k] = l.kernel[k] / 2;
    if (l.kernel[0] > l.stride[0] || l.kernel[1] > l.stride[1] || l.pad[0] || l.pad[1])
        vec_push(b->schema.arena, &b->leaks,
                 ((ConvSite){at->loc,
                             {l.kernel[0], l.kernel[1]},
                             {l.stride[0], l.stride[1]},
                             {l.pad[0], l.pad[1]}}));
    return convolve(b, OP_CONV2D, &l, at, l.out, type_last(graph_type(b->graph, x)), x);
}

static Value build_dwconv(Builder *b, const LayerArgs *args, const Site *at, Value x) {
    LayerArgs l = *args;
    for (int k = 0; k < 2; k++)
        if (l.pad[k] < 0) l.pad[k] = l.kernel[k] / 2;
    x = block_mask(b, at->loc, join(b, at->prefix, l.name), x);
    if (x == NO_VALUE) return x;
    return convolve(b, OP_DWCONV2D, &l, at, type_last(graph_type(b->graph, x)), 1, x);
}

static Value build_linear(Builder *b, const LayerArgs *l, const Site *at, Value x) {
    return block_linear(b, at->loc, join(b, at->prefix, l->name), l->out, l->bias, x);
}

static Value build_layernorm(Builder *b, const LayerArgs *l, const Site *at, Value x) {
    return block_layernorm(b, at->loc, join(b, at->prefix, l->name), l->eps, x);
}

static Value build_gelu(Builder *b, const LayerArgs *l, const Site *at, Value x) {
    Attr attr = attr_int(A_approx, l->approx);
    return block_op(b, OP_GELU, at->loc, join(b, at->prefix, "gelu"), &x, 1, &attr, 1);
}

// grn from its parts, with statistics of the visible positions alone.
static Value masked_grn(Builder *b, const Attr *attrs, const char *name, Loc loc, Value x,
                        Value gamma, Value beta) {
    Value visible = block_mask(b, loc, name, x);
    Value stat = block_op(b, OP_GRN_STAT, loc, name, &visible, 1, (Attr[]){attrs[1], attrs[4]}, 2);
    Value scale = block_op(b, OP_GRN_SCALE, loc, name, (Value[]){stat, gamma}, 2,
                           (Attr[]){attrs[0], attrs[2], attrs[3]}, 3);
    x = block_op(b, OP_SCALE, loc, name, (Value[]){x, scale}, 2, NULL, 0);
    return block_op(b, OP_ADD, loc, name, (Value[]){x, beta}, 2, NULL, 0);
}

static Value build_grn(Builder *b, const LayerArgs *l, const Site *at, Value x) {
    const char *name = join(b, at->prefix, l->name);
    int64_t k = type_last(graph_type(b->graph, x));
    ParamInfo info = {.role = ROLE_GRN, .op = OP_GRN};
    Value gamma = vector(b, info, name, "gamma", k, at->loc);
    Value beta = vector(b, info, name, "beta", k, at->loc);
    Attr attrs[] = {attr_f64(A_eps, l->eps), attr_int(A_aggregate, l->aggregate),
                    attr_int(A_normalise, l->normalise), attr_int(A_residual, l->residual),
                    attr_int(A_statistics, l->statistics)};
    if (b->mask != NO_VALUE) return masked_grn(b, attrs, name, at->loc, x, gamma, beta);
    return block_op(b, OP_GRN, at->loc, name, (Value[]){x, gamma, beta}, 3, attrs, 5);
}

static Value build_layerscale(Builder *b, const LayerArgs *l, const Site *at, Value x) {
    const char *name = join(b, at->prefix, l->name);
    int64_t c = type_last(graph_type(b->graph, x));
    ParamInfo info = {.name = name, .role = ROLE_LAYERSCALE, .op = OP_SCALE, .value = l->init};
    Value s = block_param(b, &info, 1, &c, at->loc);
    return block_op(b, OP_SCALE, at->loc, name, (Value[]){x, s}, 2, NULL, 0);
}

static Value build_body(Builder *b, const Yaml *body, const Site *in, Value x);

// The branch as training drops it. Every residual has a key, dropped or not, so that keys do not
// depend on rates. Rates are set at run time: the attribute is what the spec says, or a
// stand-in where it says 0.
static Value drop_branch(Builder *b, const LayerArgs *l, Loc loc, const char *label, Value y) {
    double network = b->spec->drop_path, share = b->share;
    if (l->drop_path >= 0) share = network > 0 ? l->drop_path / network : 0;
    int key = ++b->residuals;
    if (!b->training || share <= 0) return y;
    double rate = share * (network > 0 ? network : NOMINAL_DROP_PATH);
    Attr attrs[] = {attr_f64(A_rate, rate), attr_int(A_key, key)};
    vec_push(b->schema.arena, &b->drops, ((DropSite){key, share}));
    return block_op(b, OP_DROP_PATH, loc, label, &y, 1, attrs, 2);
}

static Value build_residual(Builder *b, const LayerArgs *l, const Site *at, Value x) {
    Value y = build_body(b, l->body, at, x);
    if (y == NO_VALUE) return y;
    if (!type_eq(graph_type(b->graph, x), graph_type(b->graph, y))) {
        diag_error(b->schema.diag, at->loc, "a residual branch must keep its shape: %s in, %s out",
                   shape_text(b, x), shape_text(b, y));
        return fail(b);
    }
    const char *label = join(b, at->prefix, "residual");
    y = drop_branch(b, l, at->loc, label, y);
    return block_op(b, OP_ADD, at->loc, label, (Value[]){x, y}, 2, NULL, 0);
}

// ---- the table ---------------------------------------------------------------------------------

typedef Value (*BuildFn)(Builder *b, const LayerArgs *args, const Site *at, Value x);
static const struct {
    const char *name;
    const Field *fields;
    int nfields;
    BuildFn build;
    const char *doc;
} layers[] = {
#define LAYER(name, fields, doc)                                                                   \
    {#name, fields_##name, sizeof fields_##name / sizeof(Field), build_##name, doc},
#include "blocks.def"
#undef LAYER
};

int layer_count(void) { return (int)(sizeof layers / sizeof *layers); }
const char *layer_name(int i) { return layers[i].name; }
const char *layer_doc(int i) { return layers[i].doc; }
const Field *layer_fields(int i, int *n) { return *n = layers[i].nfields, layers[i].fields; }

int layer_find(const char *name) {
    for (int i = 0; i < layer_count(); i++)
        if (strcmp(layers[i].name, name) == 0) return i;
    return -1;
}

const BlockSpec *block_find(const ModelSpec *spec, const char *name) {
    for (int i = 0; i < spec->blocks.n; i++)
        if (strcmp(spec->blocks.v[i].name, name) == 0) return &spec->blocks.v[i];
    return NULL;
}

// A list item of a body: a bare word, or a map of one key. args is NULL where there are none.
static bool item_split(Schema *s, const Yaml *item, const char **name, Loc *loc,
                       const Yaml **args) {
    *args = NULL;
    *loc = item->loc;
    if (item->kind == YAML_TEXT && *item->text) return *name = item->text, true;
    if (item->kind == YAML_MAP && item->entries.n == 1) {
        *name = item->entries.v[0].key;
        *args = item->entries.v[0].value;
        if (yaml_is_none(*args)) *args = NULL;
        return true;
    }
    diag_error(s->diag, item->loc, "a layer is a name, or one key with a map of fields");
    return false;
}

static Value build_layer(Builder *b, int kind, const Yaml *fields, const Site *at, Value x) {
    LayerArgs args = {.drop_path = -1};
    const Yaml *defaults = yaml_get(b->spec->root, layers[kind].name);
    if (!schema_read(&b->schema, fields, defaults, at->loc, layers[kind].name, layers[kind].fields,
                     layers[kind].nfields, at->scope, &args))
        return fail(b);
    return layers[kind].build(b, &args, at, x);
}

// The scope of a block: given values first, then defaults, then dim and in.
static Scope *block_scope(Builder *b, const BlockUse *use, int64_t dim, int64_t in, Scope *outer) {
    Arena *a = b->schema.arena;
    Scope *s = NEW(a, Scope);
    const Yaml *params = use->block->params;
    for (int i = 0; params && i < params->entries.n; i++) {
        const YamlEntry *p = &params->entries.v[i];
        const Yaml *given = yaml_get(use->args, p->key);
        scope_node(a, s, p->key, given ? given : p->value, given ? outer : s);
    }
    scope_int(a, s, "dim", dim);
    scope_int(a, s, "in", in);
    return s;
}

static Value build_block(Builder *b, const BlockUse *use, int64_t dim, const char *prefix,
                         Scope *outer, Value x) {
    if (b->depth >= MAX_BLOCK_DEPTH) {
        diag_error(b->schema.diag, use->loc,
                   "blocks nest more than %d deep (does '%s' hold itself?)", MAX_BLOCK_DEPTH,
                   use->block->name);
        return fail(b);
    }
    int64_t in = type_last(graph_type(b->graph, x));
    Site site = {use->loc, prefix, block_scope(b, use, dim, in, outer), dim};
    b->depth++;
    x = build_body(b, use->block->body, &site, x);
    b->depth--;
    return x;
}

Value block_build(Builder *b, const BlockUse *use, int64_t dim, const char *prefix, Value x) {
    Scope *outer = NEW(b->schema.arena, Scope);
    scope_int(b->schema.arena, outer, "dim", dim);
    return build_block(b, use, dim, prefix, outer, x);
}

static Value build_nested(Builder *b, const BlockSpec *block, const Yaml *args, const Site *at,
                          Value x) {
    const Yaml *name = yaml_get(args, "name");
    const char *prefix =
        name && name->kind == YAML_TEXT ? join(b, at->prefix, name->text) : at->prefix;
    BlockUse use = {block, args, at->loc, prefix};
    return build_block(b, &use, at->dim, prefix, at->scope, x);
}

static Value build_body(Builder *b, const Yaml *body, const Site *in, Value x) {
    if (body->kind != YAML_LIST) {
        diag_error(b->schema.diag, body->loc, "a body is a list of layers, not %s",
                   yaml_describe(b->schema.arena, body));
        return fail(b);
    }
    for (int i = 0; i < body->entries.n && x != NO_VALUE && !b->failed; i++) {
        Site at = *in;
        const char *name;
        const Yaml *args;
        if (!item_split(&b->schema, body->entries.v[i].value, &name, &at.loc, &args))
            return fail(b);
        int kind = layer_find(name);
        const BlockSpec *block = kind < 0 ? block_find(b->spec, name) : NULL;
        if (kind < 0 && !block) return fail(b); // reported by block_check
        x = block ? build_nested(b, block, args, &at, x) : build_layer(b, kind, args, &at, x);
    }
    return b->failed ? NO_VALUE : x;
}

// ---- checks without building -------------------------------------------------------------------

static bool check_unknown(Schema *s, const ModelSpec *spec, const char *name, Loc loc) {
    const char **names = NEWN(s->arena, const char *, layer_count() + spec->blocks.n);
    int n = 0;
    for (int i = 0; i < layer_count(); i++) names[n++] = layers[i].name;
    for (int i = 0; i < spec->blocks.n; i++) names[n++] = spec->blocks.v[i].name;
    diag_error(s->diag, loc, "no layer or block '%s'", name);
    const char *near = nearest_name(name, names, n);
    if (near) diag_hint(s->diag, "did you mean '%s'?", near);
    return false;
}

static bool check_block_args(Schema *s, const BlockSpec *block, const Yaml *args) {
    static const char *const extra[] = {"name"};
    if (!args) return true;
    int n = block->params ? block->params->entries.n : 0;
    Field *params = NEWN(s->arena, Field, n + 1);
    for (int i = 0; i < n; i++) params[i].name = block->params->entries.v[i].key;
    return schema_keys(s, args, arena_printf(s->arena, "block '%s'", block->name), params, n, extra,
                       1);
}

static bool check_body(Schema *s, const ModelSpec *spec, const Yaml *body) {
    if (body->kind != YAML_LIST) {
        diag_error(s->diag, body->loc, "a body is a list of layers, not %s",
                   yaml_describe(s->arena, body));
        return false;
    }
    bool ok = true;
    for (int i = 0; i < body->entries.n; i++) {
        const char *name;
        const Yaml *args;
        Loc loc;
        if (!item_split(s, body->entries.v[i].value, &name, &loc, &args)) {
            ok = false;
            continue;
        }
        int kind = layer_find(name);
        const BlockSpec *block = kind < 0 ? block_find(spec, name) : NULL;
        if (kind >= 0) {
            if (args)
                ok &=
                    schema_keys(s, args, name, layers[kind].fields, layers[kind].nfields, NULL, 0);
            if (yaml_get(args, "body")) ok &= check_body(s, spec, yaml_get(args, "body"));
        } else {
            ok &= block ? check_block_args(s, block, args) : check_unknown(s, spec, name, loc);
        }
    }
    return ok;
}

bool block_check(Schema *s, const ModelSpec *spec, const BlockSpec *block) {
    bool ok = true;
    for (int i = 0; block->params && i < block->params->entries.n; i++) {
        const YamlEntry *p = &block->params->entries.v[i];
        static const char *const taken[] = {"dim", "in", "name", "block", "depth", "downsample"};
        for (size_t k = 0; k < sizeof taken / sizeof *taken; k++)
            if (strcmp(p->key, taken[k]) == 0) {
                diag_error(s->diag, p->loc, "a parameter of a block cannot be called '%s'", p->key);
                ok = false;
            }
    }
    return check_body(s, spec, block->body) && ok;
}
