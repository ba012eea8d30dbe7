// The middle of a ConvNeXt V2 block, linear -> gelu -> grn -> linear, with grn in parts:
//
//   h = gelu(linear(x, W1, b1))     one group, whose side result is grn_stat(h)
//   s = grn_scale(grn_stat(h), gamma)
//   linear(scale(h, s) + beta, W2, b2) = linear(scale(h, s), W2, W2 beta + b2)
//                                   one group: the scale is a prologue of the linear
//
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
    Value v = group_append(&b, scale, (Value[]){group_operand(&b, x), group_operand(&b, s)}, 2);
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

static bool fuse_gelu(Rewrite *r, const Node *n) {
    Value x = mapped(r, n, 0);
    if (r->uses[n->args[0]] != 1 || !takes_epilogue(r->dst, x) ||
        graph_def(r->dst, x)->nresults != 1 || !pass_may_rewrite(r->p))
        return false;
    Group b;
    group_begin(&b, r->dst, graph_def(r->dst, x));
    Value v = group_absorb(&b, x);
    b.results.v[b.results.n - 1] = group_append(&b, n, &v, 1);
    r->map[n->first] = group_end(&b);
    return true;
}

static bool read_before(const Graph *g, Value v, int node) {
    for (int i = g->values.v[v].node + 1; i < node; i++)
        for (int k = 0; k < g->nodes.v[i].nargs; k++)
            if (g->nodes.v[i].args[k] == v) return true;
    return false;
}

static bool fuse_stat(Rewrite *r, const Node *n, int node) {
    Value x = mapped(r, n, 0);
    bool streams = node_int(n, A_aggregate) != attr_word_index(A_aggregate, "std", 3);
    if (!streams || !takes_epilogue(r->dst, x) || graph_def(r->dst, x)->nresults != 1 ||
        !type_has_batch(graph_type(r->dst, x)) || read_before(r->src, n->args[0], node) ||
        !pass_may_rewrite(r->p))
        return false;
    Group b;
    group_begin(&b, r->dst, graph_def(r->dst, x));
    Value v = group_absorb(&b, x);
    vec_push(r->p->arena, &b.results, group_append(&b, n, &v, 1));
    Value first = group_end(&b);
    r->map[n->args[0]] = first;
    r->map[n->first] = first + 1;
    return true;
}

static bool fuse_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op == OP_LINEAR) return fuse_linear(r, n);
    if (n->op == OP_GELU) return fuse_gelu(r, n);
    if (n->op == OP_GRN_STAT) return fuse_stat(r, n, node);
    return false;
}

void pass_fuse_grn_gelu(Pipeline *p) { rewrite_programs(p, fuse_node); }
