// Linears in bf16 or int8, layer by layer, as the plan says. With x what the linear multiplies:
//
//   bf16   linear(cast x, cast W, b)
//   int8   x ~ step (q - zero), q = quantize(x, [1/step, zero]); W ~ diag(s) Q, (Q, s) =
//   quantize_rows(W):
//          x W^T + b ~ linear(q, Q) * (step s) + (b - step zero sum_k W~)
//
// W is what stands there after fusion, so the folded scales are rounded with it, once, in prepare.
// Everything else stays f32: sums, statistics, norms, the residual stream.
//
// A conversion goes where it saves memory traffic: into the group that makes x when the linear is
// its only reader; else it ends the linear's own prologue. What a scale (GRN) multiplies before it
// is converted is stored as bf16 by its maker and widened. Depths that are no multiple of 2 (bf16)
// or 4 (int8) stay f32; so do, in int8, programs of training, the layer that reads the image and
// the one that gives the logits unless a rule names them.
#include "group.h"
#include "precision.h"
#include <math.h>

// The form of a linear or of a group around one; `body` NULL: the node itself.
typedef struct {
    const Node *n, *linear; // linear: of the body
    const Graph *g;         // of `linear`
    GroupForm f;
} Site;

static bool site_of(const Graph *g, const Node *n, Site *s) {
    *s = (Site){.n = n, .g = g};
    if (n->op == OP_LINEAR) {
        s->linear = n;
        s->f = (GroupForm){.widen = -1, .narrow = -1, .tail = -1, .store = -1, .result = n->first};
        return graph_type(g, n->args[0]).rank >= 2;
    }
    if (n->op != OP_GROUP || !group_form(n->body, &s->f)) return false;
    s->g = n->body;
    s->linear = &n->body->nodes.v[s->f.anchor];
    return s->linear->op == OP_LINEAR;
}

// The operand of the node that the chain of ops starts from.
static Value chain_start(const Site *s) {
    if (s->n->op == OP_LINEAR) return s->n->args[0];
    const Node *first = s->f.nprologue ? &s->n->body->nodes.v[s->f.prologue[0]] : s->linear;
    for (int i = 0; i < s->n->body->inputs.n; i++)
        if (s->n->body->inputs.v[i] == first->args[0]) return s->n->args[i];
    return NO_VALUE;
}

static const ActivationRange *range_of(const PrecisionPlan *plan, const char *label) {
    for (int i = 0; label && i < plan->ranges.n; i++)
        if (strcmp(plan->ranges.v[i].label, label) == 0) return &plan->ranges.v[i];
    return NULL;
}

static bool is_edge(const Rewrite *r, const Site *s) {
    return graph_def(r->src, chain_start(s))->op == OP_INPUT ||
           graph_type(s->g, s->linear->first).rank == 2;
}

static Precision precision_at(const Rewrite *r, const Site *s) {
    bool named, trains = program_trains(r->src);
    Precision p = precision_of(r->p->precision, s->n->label, &named);
    int64_t depth = type_last(graph_type(s->g, s->linear->args[0]));
    if (graph_type(s->g, s->linear->args[0]).dt != DT_F32) return PRECISION_FP32;
    if (p == PRECISION_INT8 && (trains || depth % 4 || (!named && is_edge(r, s))))
        return PRECISION_FP32;
    return p == PRECISION_BF16 && depth % 2 ? PRECISION_FP32 : p;
}

// ---- conversions -------------------------------------------------------------------------------
static Value to_dtype(Graph *g, const Node *like, Value v, DType dt) {
    Attr a = attr_int(A_dtype, dtype_word(dt));
    return graph_op(g, OP_CAST, like->loc, like->label, &v, 1, &a, 1);
}

typedef struct {
    double step;
    int64_t zero;
} Grid;

// The u8 grid over a range, 0 being one of its points.
static Grid grid_of(const Rewrite *r, const Node *n) {
    const ActivationRange *range = range_of(r->p->precision, n->label);
    if (!range) return (Grid){1, 128};
    double low = fmin(range->low, 0), high = fmax(range->high, 0);
    double step = (high - low) / 255;
    if (step < 1e-30) step = 1; // 1/step is an f32, too
    return (Grid){step, (int64_t)rint(-low / step)};
}

// x of dst, or of group b, as the linear of n takes it.
static Value convert(const Rewrite *r, Group *b, const Node *n, Precision p, Value x) {
    Graph *g = b ? b->body : r->dst;
    if (p == PRECISION_BF16) return to_dtype(g, n, x, DT_BF16);
    Grid grid = grid_of(r, n);
    double data[] = {1 / grid.step, (double)grid.zero};
    Value v = graph_constant(r->dst, type_make(DT_F32, 1, (Dim[]){dim_c(2)}), data, 2, n->loc);
    if (b) v = group_operand(b, v);
    return graph_op(g, OP_QUANTIZE, n->loc, n->label, (Value[]){x, v}, 2, NULL, 0);
}

// The weight and the vectors of a linear, made in dst.
typedef struct {
    Value w, scale, bias; // scale, bias: NO_VALUE: none
} Operands3;

static Value splat(Rewrite *r, const Node *n, int64_t count, double v) {
    return graph_constant(r->dst, type_make(DT_F32, 1, (Dim[]){dim_c(count)}), &v, 1, n->loc);
}

static Operands3 narrow_weights(Rewrite *r, const Node *n, Precision p, Value w, Value bias) {
    Graph *g = r->dst;
    if (p == PRECISION_BF16) return (Operands3){to_dtype(g, n, w, DT_BF16), NO_VALUE, bias};
    Type t = graph_type(g, w);
    Grid grid = grid_of(r, n);
    Value q = graph_op(g, OP_QUANTIZE_ROWS, n->loc, n->label, &w, 1, NULL, 0), s = q + 1;
    Value step = splat(r, n, t.d[0].c, grid.step);
    Value scale = graph_op(g, OP_MUL, n->loc, n->label, (Value[]){s, step}, 2, NULL, 0);
    if (!grid.zero) return (Operands3){q, scale, bias};
    Value back = to_dtype(g, n, q, DT_F32);
    back = graph_op(g, OP_SCALE_ROWS, n->loc, n->label, (Value[]){back, s}, 2, NULL, 0);
    Value shift = splat(r, n, t.d[1].c, -grid.step * (double)grid.zero);
    return (Operands3){q, scale, build_linear(g, n, shift, back, bias)};
}

// The product with operands of graph g, which is dst or a body.
static Value product(Graph *g, const Node *n, Precision p, Value x, Operands3 o) {
    if (p != PRECISION_INT8) return build_linear(g, n, x, o.w, o.bias);
    Value v = build_linear(g, n, x, o.w, NO_VALUE);
    v = graph_op(g, OP_SCALE, n->loc, n->label, (Value[]){v, o.scale}, 2, NULL, 0);
    if (o.bias == NO_VALUE) return v;
    return graph_op(g, OP_ADD, n->loc, n->label, (Value[]){v, o.bias}, 2, NULL, 0);
}

// ---- where a value is stored narrow ------------------------------------------------------------
// How the main result of node n is stored for its only reader: FP32 leaves it, *scaled says that
// the reader scales it first.
static const Node *store_reader(const Rewrite *r, const Node *n, const GroupForm *f, bool *scaled) {
    Value v = NO_VALUE;
    bool linear = n->body->nodes.v[f->anchor].op == OP_LINEAR;
    for (int i = 0; i < n->body->outputs.n; i++)
        if (n->body->outputs.v[i].value == f->result) v = n->first + (Value)i;
    if (v == NO_VALUE || r->uses[v] != 1 || r->reader[v] < 0 || linear != (f->tail < 0))
        return NULL;
    Site s;
    const Node *u = &r->src->nodes.v[r->reader[v]];
    if (!site_of(r->src, u, &s) || chain_start(&s) != v) return NULL;
    if (precision_at(r, &s) == PRECISION_FP32) return NULL;
    *scaled = s.f.nprologue == 1 && s.n->body->nodes.v[s.f.prologue[0]].op == OP_SCALE;
    return s.f.nprologue == 0 || (linear && *scaled) ? u : NULL;
}

static Value store(const Rewrite *r, Group *b, const Node *u, bool scaled, Value v) {
    Site s;
    site_of(r->src, u, &s);
    return scaled ? to_dtype(b->body, u, v, DT_BF16) : convert(r, b, u, precision_at(r, &s), v);
}

// ---- groups ------------------------------------------------------------------------------------
static Value operand_or_none(Group *b, Value v) { return v == NO_VALUE ? v : group_operand(b, v); }

// The linear of group n under construction; map takes values of n's body to values of b's.
static Value group_product(Rewrite *r, Group *b, const Node *n, const Site *s, Precision p,
                           const Value *map) {
    Value outer[3] = {NO_VALUE, NO_VALUE, NO_VALUE}; // operands of the linear in dst
    for (int k = 1; k < s->linear->nargs; k++)
        for (int i = 0; i < n->body->inputs.n; i++)
            if (n->body->inputs.v[i] == s->linear->args[k]) outer[k] = mapped(r, n, i);
    Value x = map[s->linear->args[0]];
    if (graph_type(b->body, x).dt == DT_F32) x = convert(r, b, n, p, x);
    Operands3 o = narrow_weights(r, n, p, outer[1], outer[2]);
    o.w = group_operand(b, o.w);
    o.scale = operand_or_none(b, o.scale);
    o.bias = operand_or_none(b, o.bias);
    return product(b->body, s->linear, p, x, o);
}

// Value v of the body is the linear's weight or bias.
static bool is_weight_of(const Site *s, Value v) {
    for (int k = 1; k < s->linear->nargs; k++)
        if (s->linear->args[k] == v) return true;
    return false;
}

// The body of group n again, with its linear in precision p and its main result stored for `u`.
static void rebuild_group(Rewrite *r, const Node *n, const Site *s, Precision p, const Node *u,
                          bool scaled) {
    Group b;
    group_begin(&b, r->dst, n);
    const Graph *body = n->body;
    Value *map = NEWN(r->p->arena, Value, body->values.n + 1);
    const int *uses = graph_use_counts(body);
    for (int i = 0, in = 0; i < body->nodes.n; i++) {
        const Node *op = &body->nodes.v[i];
        if (op->op == OP_INPUT) {
            bool own = p != PRECISION_FP32 && uses[op->first] == 1 && is_weight_of(s, op->first);
            map[op->first] = own ? NO_VALUE : group_operand(&b, mapped(r, n, in));
            in++;
        } else if (p != PRECISION_FP32 && op == s->linear) {
            map[op->first] = group_product(r, &b, n, s, p, map);
        } else {
            bool widen = p != PRECISION_FP32 && s->f.nprologue && i == s->f.prologue[0];
            Value *x = &map[op->args[0]];
            if (widen && graph_type(b.body, *x).dt != DT_F32) *x = to_dtype(b.body, op, *x, DT_F32);
            graph_copy_node(b.body, body, i, map);
        }
    }
    Value stored = u ? store(r, &b, u, scaled, map[s->f.result]) : map[s->f.result];
    for (int i = 0; i < body->outputs.n; i++) {
        Value v = body->outputs.v[i].value;
        vec_push(r->p->arena, &b.results, v == s->f.result ? stored : map[v]);
    }
    Value first = group_end(&b);
    for (int i = 0; i < n->nresults; i++) r->map[n->first + (Value)i] = first + (Value)i;
}

// A linear by itself: a group, so that the conversion of x is part of its step; plain nodes where
// nothing is fused.
static void rebuild_linear(Rewrite *r, const Node *n, Precision p) {
    Operands3 o = narrow_weights(r, n, p, mapped(r, n, 1), mapped_bias(r, n));
    Value x = mapped(r, n, 0);
    if (!r->p->fuse_steps) {
        r->map[n->first] = product(r->dst, n, p, convert(r, NULL, n, p, x), o);
        return;
    }
    Group b;
    group_begin(&b, r->dst, n);
    Value in = group_operand(&b, x);
    if (graph_type(b.body, in).dt == DT_F32) in = convert(r, &b, n, p, in);
    o.w = group_operand(&b, o.w);
    o.scale = operand_or_none(&b, o.scale);
    o.bias = operand_or_none(&b, o.bias);
    vec_push(r->p->arena, &b.results, product(b.body, n, p, in, o));
    r->map[n->first] = group_end(&b);
}

// The gradient of a weight: both operands, which its kernel rounds as it reads them.
static bool narrow_dw(Rewrite *r, const Node *n) {
    bool named;
    if (precision_of(r->p->precision, n->label, &named) != PRECISION_BF16 || !r->p->fuse_steps ||
        graph_type(r->src, n->args[0]).dt != DT_F32 || !pass_may_rewrite(r->p))
        return false;
    Value v[2];
    for (int k = 0; k < 2; k++) v[k] = to_dtype(r->dst, n, mapped(r, n, k), DT_BF16);
    r->map[n->first] = graph_op(r->dst, OP_LINEAR_DW, n->loc, n->label, v, 2, NULL, 0);
    return true;
}

static bool narrow_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op == OP_LINEAR_DW) return narrow_dw(r, n);
    Site s;
    GroupForm f;
    bool linear = site_of(r->src, n, &s), scaled = false;
    Precision p = linear ? precision_at(r, &s) : PRECISION_FP32;
    if (n->op == OP_LINEAR && p != PRECISION_FP32 && pass_may_rewrite(r->p)) {
        rebuild_linear(r, n, p);
        return true;
    }
    if (n->op != OP_GROUP || !group_form(n->body, &f)) return false;
    s.f = f;
    s.linear = &n->body->nodes.v[f.anchor];
    const Node *u = store_reader(r, n, &f, &scaled);
    if ((p == PRECISION_FP32 && !u) || !pass_may_rewrite(r->p)) return false;
    rebuild_group(r, n, &s, p, u, scaled);
    return true;
}

// Reports the int8 layers of program g whose range is not known.
static bool check_ranges(Pipeline *p, const Graph *g) {
    Rewrite r = {.p = p, .src = g};
    int missing = 0;
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        Site s;
        if (!site_of(g, n, &s) || precision_at(&r, &s) != PRECISION_INT8 ||
            range_of(p->precision, n->label))
            continue;
        diag_error(p->diag, n->loc, "int8 needs the range of the inputs of layer %s",
                   n->label ? n->label : "(unnamed)");
        if (!missing++)
            diag_hint(p->diag, "give --calibrate=PICTURES, or another precision for it");
    }
    return missing == 0;
}

void pass_precision(Pipeline *p) {
    const PrecisionPlan *plan = p->precision;
    if (!plan || (!precision_uses(plan, PRECISION_BF16) && !precision_uses(plan, PRECISION_INT8)))
        return;
    bool ok = true;
    for (int i = 0; ok && i < p->module->graphs.n; i++) // programs have the same layers
        if (strcmp(p->module->graphs.v[i]->name, "prepare") != 0)
            ok = check_ranges(p, p->module->graphs.v[i]);
    if (ok) rewrite_programs(p, narrow_node);
}
