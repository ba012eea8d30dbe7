// grn becomes its parts, by definition (ops.def):
//   grn(x, gamma, beta) = scale(x, grn_scale(grn_stat(x), gamma)) + beta
#include "pass.h"

static const Attr *attrs_of(Arena *a, const Node *n, const AttrId *ids, int count, int *out) {
    Attr *v = NEWN(a, Attr, count);
    *out = 0;
    for (int i = 0; i < count; i++)
        if (node_attr(n, ids[i])) v[(*out)++] = *node_attr(n, ids[i]);
    return v;
}

static bool lower_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op != OP_GRN) return false;
    r->p->rewrites++;
    static const AttrId stat_ids[] = {A_aggregate, A_statistics};
    static const AttrId scale_ids[] = {A_eps, A_normalise, A_residual};
    int nstat, nscale;
    const Attr *stat_attrs = attrs_of(r->p->arena, n, stat_ids, 2, &nstat);
    const Attr *scale_attrs = attrs_of(r->p->arena, n, scale_ids, 3, &nscale);
    Value x = mapped(r, n, 0);
    Value g = graph_op(r->dst, OP_GRN_STAT, n->loc, n->label, &x, 1, stat_attrs, nstat);
    Value s = graph_op(r->dst, OP_GRN_SCALE, n->loc, n->label, (Value[]){g, mapped(r, n, 1)}, 2,
                       scale_attrs, nscale);
    Value y = graph_op(r->dst, OP_SCALE, n->loc, n->label, (Value[]){x, s}, 2, NULL, 0);
    r->map[n->first] =
        graph_op(r->dst, OP_ADD, n->loc, n->label, (Value[]){y, mapped(r, n, 2)}, 2, NULL, 0);
    return true;
}

void pass_lower_grn(Pipeline *p) { rewrite_all(p, lower_node); }
