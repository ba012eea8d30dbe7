// The end of a block: y = x + g * linear(h, W, b), g the layer scale of ConvNeXt V1.
//
//   scale(linear(h, W, b), g) = linear(h, diag(g) W, g b)   g, W, b weight-only
//   add(linear(..), x)                                       one group: x joins the epilogue
//
// The linear may already be the anchor of a group; nothing else may read its result.
#include "group.h"

static Value scaled_weight(Rewrite *r, const Node *n, Value w, Value g) {
    return graph_op(r->dst, OP_SCALE_ROWS, n->loc, n->label, (Value[]){w, g}, 2, NULL, 0);
}

static Value scaled_bias(Rewrite *r, const Node *n, Value b, Value g) {
    return graph_op(r->dst, OP_MUL, n->loc, n->label, (Value[]){b, g}, 2, NULL, 0);
}

static bool is_weight(const Graph *dst, Value v) {
    const Node *n = graph_def(dst, v);
    if (n->op == OP_PARAM || n->op == OP_CONSTANT) return true;
    if ((op_info[n->op].traits & (T_LEAF | T_EFFECT | T_RANDOM)) ||
        type_has_batch(graph_type(dst, v)))
        return false;
    for (int i = 0; i < n->nargs; i++)
        if (!is_weight(dst, n->args[i])) return false;
    return n->nargs > 0;
}

// Index among the inputs of the body of operand i of its anchor, when only the anchor reads it; -1.
static int anchor_input(const Graph *body, const Node *anchor, int i) {
    int readers = 0, index = -1;
    for (int k = 0; k < body->nodes.n; k++)
        for (int a = 0; a < body->nodes.v[k].nargs; a++)
            readers += body->nodes.v[k].args[a] == anchor->args[i];
    for (int k = 0; k < body->inputs.n; k++)
        if (body->inputs.v[k] == anchor->args[i]) index = k;
    return readers == 1 ? index : -1;
}

// The group that makes v with its weight and bias scaled by g, or NO_VALUE.
static Value scaled_group(Rewrite *r, Value v, Value g) {
    const Node n = *graph_def(r->dst, v);
    GroupForm f;
    if (!group_form(n.body, &f) || f.nepilogue || f.tail >= 0 || f.store >= 0) return NO_VALUE;
    const Node *anchor = &n.body->nodes.v[f.anchor];
    Value *args = NEWN(r->p->arena, Value, n.nargs);
    for (int i = 0; i < n.nargs; i++) args[i] = n.args[i];
    for (int i = 1; i < anchor->nargs; i++) {
        int at = anchor_input(n.body, anchor, i);
        if (at < 0 || !is_weight(r->dst, n.args[at])) return NO_VALUE;
        args[at] = i == 1 ? scaled_weight(r, &n, args[at], g) : scaled_bias(r, &n, args[at], g);
    }
    return graph_add(r->dst, &(NodeSpec){.op = OP_GROUP,
                                         .args = args,
                                         .nargs = n.nargs,
                                         .attrs = n.attrs,
                                         .nattrs = n.nattrs,
                                         .loc = n.loc,
                                         .label = n.label,
                                         .body = n.body});
}

static bool fuse_scale(Rewrite *r, const Node *n) {
    Value x = mapped(r, n, 0), g = mapped(r, n, 1);
    if (!r->weight[n->args[1]] || r->weight[n->args[0]] || graph_type(r->dst, g).rank != 1 ||
        r->uses[n->args[0]] != 1 || !takes_epilogue(r->dst, x))
        return false;
    const Node p = *graph_def(r->dst, x);
    Value y = NO_VALUE;
    if (p.op == OP_GROUP) {
        if (p.nresults == 1) y = scaled_group(r, x, g);
    } else if (is_weight(r->dst, p.args[1]) && (p.nargs < 3 || is_weight(r->dst, p.args[2]))) {
        Value bias = p.nargs > 2 ? scaled_bias(r, &p, p.args[2], g) : NO_VALUE;
        y = build_linear(r->dst, &p, p.args[0], scaled_weight(r, &p, p.args[1], g), bias);
    }
    if (y == NO_VALUE || !pass_may_rewrite(r->p)) return false;
    r->map[n->first] = y;
    return true;
}

static bool absorbs(const Rewrite *r, const Node *n, int i) {
    Value v = n->args[i];
    return r->uses[v] == 1 && takes_epilogue(r->dst, r->map[v]) &&
           graph_def(r->dst, r->map[v])->nresults == 1;
}

static bool fuse_add(Rewrite *r, const Node *n) {
    if (!type_eq(graph_type(r->src, n->args[0]), graph_type(r->src, n->args[1]))) return false;
    if (r->weight[n->args[0]] || r->weight[n->args[1]] || n->args[0] == n->args[1]) return false;
    bool can[2] = {absorbs(r, n, 0), absorbs(r, n, 1)};
    // of two linears the later one: the other's result is there by then
    int i = can[0] && can[1] ? n->args[1] > n->args[0] : can[1];
    if (!can[i] || !pass_may_rewrite(r->p)) return false;
    Group b;
    group_begin(&b, r->dst, graph_def(r->dst, mapped(r, n, i)));
    Value v = group_absorb(&b, mapped(r, n, i));
    Value args[2] = {v, group_operand(&b, mapped(r, n, 1 - i))};
    b.results.v[b.results.n - 1] = group_append(&b, n, args, 2);
    r->map[n->first] = group_end(&b);
    return true;
}

static bool fuse_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op == OP_SCALE) return fuse_scale(r, n);
    if (n->op == OP_ADD) return fuse_add(r, n);
    return false;
}

void pass_fuse_residual(Pipeline *p) { rewrite_programs(p, fuse_node); }
