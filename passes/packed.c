// Ops on rows of maps (packed.h).
#include "packed.h"

bool program_masked(const Graph *g) {
    return strcmp(g->name, "pretrain") == 0 || strcmp(g->name, "reconstruct") == 0;
}

bool operand_is_map(const Graph *g, const Node *n, int i) {
    Type x = graph_type(g, n->args[i]), y = graph_type(g, n->first);
    if (x.rank != 4 || y.rank != 4) return false;
    for (int k = 0; k < 3; k++)
        if (!dim_eq(x.d[k], y.d[k])) return false;
    return true;
}

bool op_keeps_rows(const Graph *g, const Node *n) {
    if (graph_type(g, n->first).rank != 4) return false;
    switch (n->op) {
    case OP_EXPAND: return true;
    case OP_LINEAR:
    case OP_LAYERNORM:
    case OP_NORMALIZE:
    case OP_NORM_PIX:
    case OP_GELU:
    case OP_ADD:
    case OP_MUL:
    case OP_SCALE:
    case OP_SCALE_ROWS: return operand_is_map(g, n, 0);
    default: return false;
    }
}

Value build_on_rows(Graph *dst, const Graph *src, const Node *n, const Value *map,
                    const Value *rows, Type type) {
    Value args[4];
    for (int i = 0; i < n->nargs; i++)
        args[i] = operand_is_map(src, n, i) ? rows[n->args[i]] : map[n->args[i]];
    Attr shape = attr_dims(dst->arena, A_shape, type.d, type.rank);
    bool expands = n->op == OP_EXPAND;
    return graph_op(dst, n->op, n->loc, n->label, args, n->nargs, expands ? &shape : n->attrs,
                    expands ? 1 : n->nattrs);
}

void copy_before(Graph *dst, const Graph *src, Value v, Value *map, bool *done) {
    done[src->values.v[v].node] = true;
    for (int i = src->nodes.n - 1; i >= 0; i--) {
        const Node *n = &src->nodes.v[i];
        for (int k = 0; done[i] && k < n->nargs; k++) done[src->values.v[n->args[k]].node] = true;
        done[i] |= n->op == OP_INPUT;
    }
    for (int i = 0; i < src->nodes.n; i++)
        if (done[i]) graph_copy_node(dst, src, i, map);
}

bool patches_tile(const Node *n) {
    for (int i = 0; i < 2; i++)
        if (node_ints(n, A_kernel, i) != node_ints(n, A_stride, i) || node_ints(n, A_pad, i))
            return false;
    return n->op == OP_PATCHIFY;
}
