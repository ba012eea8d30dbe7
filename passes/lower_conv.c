// conv2d becomes patchify and linear:
//   conv2d(x, w[o,i,kh,kw], b) = linear(patchify(x), w'[o, kh*kw*i], b),  w' = w permuted to
//   [o,kh,kw,i]: as it is where kh = kw = 1 or i = 1
// A 1x1 convolution of stride 1 needs no patchify. The weight's new order is weight-only work.
#include "pass.h"

static Value conv_weight(Rewrite *r, const Node *n) {
    Arena *a = r->p->arena;
    Value w = mapped(r, n, 1);
    Type t = graph_type(r->dst, w);
    Attr perm = attr_ints(a, A_perm, (int64_t[]){0, 2, 3, 1}, 4);
    if (t.d[1].c > 1 && t.d[2].c * t.d[3].c > 1)
        w = graph_op(r->dst, OP_TRANSPOSE, n->loc, n->label, &w, 1, &perm, 1);
    Dim shape[2] = {t.d[0], dim_c(t.d[1].c * t.d[2].c * t.d[3].c)};
    Attr flat = attr_dims(a, A_shape, shape, 2);
    return graph_op(r->dst, OP_RESHAPE, n->loc, n->label, &w, 1, &flat, 1);
}

// Attribute with its default written out: stride [1,1], pad [0,0].
static Attr pair(Arena *a, const Node *n, AttrId id, int64_t otherwise) {
    const Attr *x = node_attr(n, id);
    if (!x || x->ints.n == 0) return attr_ints2(a, id, otherwise, otherwise);
    return attr_ints2(a, id, x->ints.v[0], x->ints.v[x->ints.n - 1]);
}

static bool lower_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op != OP_CONV2D) return false;
    r->p->rewrites++;
    Arena *a = r->p->arena;
    Type w = graph_type(r->src, n->args[1]);
    Attr attrs[3] = {attr_ints2(a, A_kernel, w.d[2].c, w.d[3].c), pair(a, n, A_stride, 1),
                     pair(a, n, A_pad, 0)};
    bool pixel = w.d[2].c == 1 && w.d[3].c == 1 && attrs[1].ints.v[0] == 1 &&
                 attrs[1].ints.v[1] == 1 && !attrs[2].ints.v[0] && !attrs[2].ints.v[1];
    Value x = mapped(r, n, 0);
    if (!pixel) x = graph_op(r->dst, OP_PATCHIFY, n->loc, n->label, &x, 1, attrs, 3);
    r->map[n->first] = build_linear(r->dst, n, x, conv_weight(r, n), mapped_bias(r, n));
    return true;
}

void pass_lower_conv(Pipeline *p) { rewrite_all(p, lower_node); }
