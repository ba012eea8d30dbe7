// The middle of a ConvNeXt V2 block, linear -> gelu -> grn -> linear, with grn in parts:
//
//   h = gelu(linear(x, W1, b1))     one group, whose side result is grn_stat(h)
//   s = grn_scale(grn_stat(h), gamma)
//   linear(scale(h, s) + beta, W2, b2) = linear(scale(h, s), W2, W2 beta + b2)
//                                   one group: the scale is a prologue of the linear
//
// A linear that somebody else reads, GELU's derivative say, is a result of the first group too.
// The offset moves when beta, W2 and b2 are weight-only. A statistic joins the group when its
// partial sums can be taken on the way (l2, l1, mean) and nothing read the value before.
#include "group.h"

// An add of a weight-only vector along the channels, read by the linear only.
static const Node *offset_before(const Rewrite *r, const Node *linear) {
    const Node *add = single_use(r, linear->args[0], OP_ADD);
    if (!add || !r->weight[add->args[1]] || graph_type(r->src, add->args[1]).rank != 1) return NULL;
    for (int i = 1; i < linear->nargs; i++)
        if (!r->weight[linear->args[i]]) return NULL;
    return add;
}

// linear(scale(x, s), ..) as one group; a weight-only s goes into the weight instead.
static Value scaled_linear(Rewrite *r, const Node *n, const Node *scale, Value w, Value bias) {
    Value x = mapped(r, scale, 0), s = mapped(r, scale, 1);
    if (r->weight[scale->args[1]] && graph_type(r->dst, s).rank == 1 && r->weight[n->args[1]]) {
        w = graph_op(r->dst, OP_SCALE, n->loc, n->label, (Value[]){w, s}, 2, NULL, 0);
        return build_linear(r->dst, n, x, w, bias);
    }
    Group b;
    group_begin(&b, r->dst, n);
    x = group_operand(&b, x);
    s = group_operand(&b, s);
    Value v = group_append(&b, scale, (Value[]){x, s}, 2);
    Value args[3] = {v, group_operand(&b, w), NO_VALUE};
    if (bias != NO_VALUE) args[2] = group_operand(&b, bias);
    v = group_append(&b, n, args, bias == NO_VALUE ? 2 : 3);
    vec_push(r->p->arena, &b.results, v);
    return group_end(&b);
}

static bool fuse_linear(Rewrite *r, const Node *n) {
    if (r->weight[n->args[0]] || graph_type(r->src, n->args[0]).rank < 2) return false;
    const Node *add = offset_before(r, n);
    const Node *scale = single_use(r, add ? add->args[0] : n->args[0], OP_SCALE);
    if ((!add && !scale) || !pass_may_rewrite(r->p)) return false;
    Value w = mapped(r, n, 1), bias = mapped_bias(r, n);
    if (add) bias = build_linear(r->dst, n, mapped(r, add, 1), w, bias);
    if (scale)
        r->map[n->first] = scaled_linear(r, n, scale, w, bias);
    else
        r->map[n->first] = build_linear(r->dst, n, mapped(r, add, 0), w, bias);
    return true;
}

// Whether a node of dst reads a result of the one that gives x.
static bool read_already(const Graph *dst, Value x) {
    const Node *def = graph_def(dst, x);
    for (int i = dst->values.v[x].node + 1; i < dst->nodes.n; i++)
        for (int k = 0; k < dst->nodes.v[i].nargs; k++) {
            Value v = dst->nodes.v[i].args[k];
            if (v >= def->first && v < def->first + (Value)def->nresults) return true;
        }
    return false;
}

// The node that gives x and n after it, as one group: results of before, then n's if new, which
// else takes the place of x. Returns the first.
static Value absorb(Rewrite *r, const Node *n, Value x, bool new) {
    const Node def = *graph_def(r->dst, x);
    Group b;
    group_begin(&b, r->dst, &def);
    Value v = group_absorb(&b, x), y = group_append(&b, n, &v, 1);
    if (new)
        vec_push(r->p->arena, &b.results, y);
    else
        b.results.v[r->dst->values.v[x].result] = y;
    Value first = group_end(&b);
    for (int i = 0; i < r->src->values.n; i++)
        if (r->map[i] != NO_VALUE && r->map[i] >= def.first &&
            r->map[i] < def.first + (Value)def.nresults)
            r->map[i] += first - def.first;
    return first;
}

// Where more than the GELU reads the linear (its derivative does) both are results.
static bool fuse_gelu(Rewrite *r, const Node *n) {
    Value x = mapped(r, n, 0);
    bool alone = r->uses[n->args[0]] == 1;
    if (!takes_epilogue(r->dst, x) || graph_def(r->dst, x)->nresults != 1 ||
        (!alone && (!type_has_batch(graph_type(r->dst, x)) || read_already(r->dst, x))) ||
        !pass_may_rewrite(r->p))
        return false;
    r->map[n->first] = absorb(r, n, x, !alone) + !alone;
    return true;
}

static bool fuse_stat(Rewrite *r, const Node *n) {
    Value x = mapped(r, n, 0);
    bool streams = node_int(n, A_aggregate) != AGG_STD;
    int results = graph_def(r->dst, x)->nresults;
    if (!streams || !takes_epilogue(r->dst, x) || results > 2 ||
        !type_has_batch(graph_type(r->dst, x)) || read_already(r->dst, x) ||
        !pass_may_rewrite(r->p))
        return false;
    r->map[n->first] = absorb(r, n, x, true) + (Value)results;
    return true;
}

static bool fuse_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op == OP_LINEAR) return fuse_linear(r, n);
    if (n->op == OP_GELU) return fuse_gelu(r, n);
    if (n->op == OP_GRN_STAT) return fuse_stat(r, n);
    return false;
}

void pass_fuse_grn_gelu(Pipeline *p) { rewrite_programs(p, fuse_node); }
