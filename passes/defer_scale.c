// A factor for each image (drop path) on the way back of a residual block: what reads the scaled
// gradient gets the plain one, which the block's input wants as well, and scales what it makes of
// it.
//
//   linear(scale_rows(dy, s), W)     = scale_rows(linear(dy, W), s)
//   linear_dw(scale_rows(dy, s), x)  = linear_dw(dy, scale_rows(x, s))
//
// The factors end up beside elementwise work on linear's result and on x; the scaled gradient is
// left to sum_rows alone, which needs no map of it in memory.
#include "pass.h"

// The scale_rows by images that makes v, of a value with other readers; NULL: none.
static const Node *image_scale(const Rewrite *r, Value v) {
    const Node *n = graph_def(r->src, v);
    if (n->op != OP_SCALE_ROWS || r->uses[n->args[0]] < 2) return NULL;
    Type s = graph_type(r->src, n->args[1]);
    return type_has_batch(s) && s.rank == 1 && s.d[0].c == 1 ? n : NULL;
}

static Value scaled(Rewrite *r, const Node *scale, Value x) {
    return graph_op(r->dst, OP_SCALE_ROWS, scale->loc, scale->label,
                    (Value[]){x, mapped(r, scale, 1)}, 2, NULL, 0);
}

static bool defer_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    bool dw = n->op == OP_LINEAR_DW;
    if (!dw && (n->op != OP_LINEAR || n->nargs > 2)) return false;
    const Node *scale = image_scale(r, n->args[0]);
    if (!scale || !pass_may_rewrite(r->p)) return false;
    Value x = mapped(r, n, 1);
    Value args[] = {mapped(r, scale, 0), dw ? scaled(r, scale, x) : x};
    Value y = graph_op(r->dst, n->op, n->loc, n->label, args, 2, n->attrs, n->nattrs);
    r->map[n->first] = dw ? y : scaled(r, scale, y);
    return true;
}

void pass_defer_scale(Pipeline *p) { rewrite_all(p, defer_node); }
