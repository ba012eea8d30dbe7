// LayerNorm joins what is around it. With N = normalize:
//
//   linear(layernorm(x, g, b), W, c)  =  linear(N(x), W diag(g), W b + c)
//
// when nothing else reads the LayerNorm and W, g, b are weight-only; a patchify without padding may
// stand between (g and b are then repeated per tap; padding would need b inside and 0 outside).
// What is left of it, or a LayerNorm that stays whole, becomes the tail of the group of the
// dwconv2d or linear that made x when it is the only reader, else N becomes a prologue of the
// linear. A patchify read by one linear becomes its prologue.
#include "group.h"

// What stands before a linear in src, each read by the next only; NULL: not there.
typedef struct {
    const Node *linear, *patchify, *norm;
} Chain;

static Chain chain_of(const Rewrite *r, const Node *linear) {
    Chain c = {.linear = linear};
    Value x = linear->args[0];
    c.patchify = single_use(r, x, OP_PATCHIFY);
    if (c.patchify) x = c.patchify->args[0];
    c.norm = single_use(r, x, OP_LAYERNORM);
    return c;
}

static bool folds(const Rewrite *r, const Chain *c) {
    if (!c->norm || r->weight[c->norm->args[0]]) return false;
    if (c->patchify && (node_ints(c->patchify, A_pad, 0) || node_ints(c->patchify, A_pad, 1)))
        return false;
    for (int i = 1; i < c->linear->nargs; i++)
        if (!r->weight[c->linear->args[i]]) return false;
    return r->weight[c->norm->args[1]] && r->weight[c->norm->args[2]] &&
           graph_type(r->src, c->linear->args[1]).rank == 2;
}

// gamma or beta in the order of the linear's columns.
static Value per_column(Rewrite *r, const Chain *c, Value v) {
    if (!c->patchify) return v;
    int64_t taps = node_ints(c->patchify, A_kernel, 0) * node_ints(c->patchify, A_kernel, 1);
    Attr times = attr_int(A_times, taps);
    if (taps == 1) return v;
    return graph_op(r->dst, OP_TILE, c->norm->loc, c->norm->label, &v, 1, &times, 1);
}

static void fold_affine(Rewrite *r, const Chain *c, Value *w, Value *bias) {
    Value gamma = per_column(r, c, mapped(r, c->norm, 1));
    Value beta = per_column(r, c, mapped(r, c->norm, 2));
    *bias = build_linear(r->dst, c->linear, beta, *w, *bias);
    *w = graph_op(r->dst, OP_SCALE, c->linear->loc, c->linear->label, (Value[]){*w, gamma}, 2, NULL,
                  0);
}

// A node like n on the result of the group (or single op) that makes x, as its tail.
static Value add_tail(Rewrite *r, Value x, const Node *n) {
    Group b;
    group_begin(&b, r->dst, graph_def(r->dst, x));
    Value args[3] = {group_absorb(&b, x), NO_VALUE, NO_VALUE};
    for (int i = 1; i < n->nargs; i++) args[i] = group_operand(&b, mapped(r, n, i));
    b.results.v[b.results.n - 1] = group_append(&b, n, args, n->nargs);
    return group_end(&b);
}

static bool tail_fits(const Rewrite *r, Value src) {
    const Node *n = graph_def(r->dst, r->map[src]);
    return r->uses[src] == 1 && n->nresults == 1 && takes_tail(r->dst, r->map[src]);
}

static Value build_group(Rewrite *r, const Chain *c, Value x, const Node *norm, Value w,
                         Value bias) {
    Group b;
    group_begin(&b, r->dst, c->linear);
    Value v = group_operand(&b, x);
    if (norm) v = group_append(&b, norm, &v, 1);
    if (c->patchify) v = group_append(&b, c->patchify, &v, 1);
    Value args[3] = {v, group_operand(&b, w), NO_VALUE};
    if (bias != NO_VALUE) args[2] = group_operand(&b, bias);
    v = group_append(&b, c->linear, args, bias == NO_VALUE ? 2 : 3);
    vec_push(r->p->arena, &b.results, v);
    return group_end(&b);
}

static bool fuse_linear(Rewrite *r, const Node *n) {
    Chain c = chain_of(r, n);
    bool fold = folds(r, &c);
    if (r->weight[n->args[0]] || (!fold && !c.patchify) || !pass_may_rewrite(r->p)) return false;
    Value w = mapped(r, n, 1), bias = mapped_bias(r, n);
    Value x = c.patchify ? mapped(r, c.patchify, 0) : mapped(r, n, 0);
    Node norm = {0};
    const Node *prologue = NULL;
    if (fold) {
        norm = *c.norm;
        norm.op = OP_NORMALIZE;
        norm.nargs = 1;
        x = mapped(r, c.norm, 0);
        fold_affine(r, &c, &w, &bias);
        if (tail_fits(r, c.norm->args[0]))
            x = add_tail(r, x, &norm);
        else
            prologue = &norm;
    }
    r->map[n->first] = prologue || c.patchify ? build_group(r, &c, x, prologue, w, bias)
                                              : build_linear(r->dst, n, x, w, bias);
    return true;
}

// A LayerNorm that will be folded into its reader is left to that.
static bool fuse_norm(Rewrite *r, const Node *n) {
    int reader = r->uses[n->first] == 1 ? r->reader[n->first] : -1;
    const Node *next = reader >= 0 ? &r->src->nodes.v[reader] : NULL;
    if (next && next->op == OP_PATCHIFY && r->uses[next->first] == 1 && r->reader[next->first] >= 0)
        next = &r->src->nodes.v[r->reader[next->first]];
    if (next && next->op == OP_LINEAR) {
        Chain c = chain_of(r, next);
        if (c.norm == n && folds(r, &c)) return false;
    }
    if (!tail_fits(r, n->args[0]) || !pass_may_rewrite(r->p)) return false;
    r->map[n->first] = add_tail(r, mapped(r, n, 0), n);
    return true;
}

static bool fuse_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op == OP_LINEAR) return fuse_linear(r, n);
    if (n->op == OP_LAYERNORM || n->op == OP_NORMALIZE) return fuse_norm(r, n);
    return false;
}

void pass_fuse_layernorm_pointwise(Pipeline *p) { rewrite_programs(p, fuse_node); }
