// The masked encoder on packed visible rows: ops on masked maps become the same ops on rows, only
// depthwise convolutions know about blocks, and those read the rulebook of their stage.
//
//   before   %y = dwconv2d(mask(%x, %m), %w)            every position of every map
//   after    %c = cells(%m), %r = rulebook(%c)          once for all layers of a stage
//            %q = dwconv2d_packed(%p, %r, %w)           %p, %q: rows of visible cells only
//
// What a mask lets through is needed on visible rows; walking back from there, so is what it is
// computed from, up to the image (patchify_rows). Where something else reads the masked map, zeros
// are put in again (unpack_rows). With P(x) the packed rows of x:
//   P(mask(x)) = P(x)      P(op(x, ...)) = op(P(x), ...) where op works on each position alone
//   P(dwconv2d(mask(x))) = dwconv2d_packed(P(x))        grn_stat(mask(x)) = grn_stat(P(x))
//   P(2x2 patches of x) = reshape(P(x)), in Morton order the four rows of a patch are neighbours
//   mask(x) = unpack_rows(P(x))
// Exact for l2 and l1 statistics. What cannot be packed is an error: the program must cost what is
// visible, --sparse=dense builds it as it is written.
#include "packed.h"

typedef struct {
    Pipeline *p;
    const Graph *src;
    Graph *dst;
    Value *map, *rows; // of src values: the map, its packed rows
    bool *need;        // of src values: rows are needed
    bool *data;        // of src values: depends on no parameter
    Value mask;        // src value [n,gh,gw]
    int64_t grid[2], count;
    Value cells; // dst value
    bool failed;
} Packing;

#define REFUSE(k, n, ...)                                                                          \
    do {                                                                                           \
        diag_error((k)->p->diag, (n)->loc, __VA_ARGS__);                                           \
        diag_hint((k)->p->diag, "--sparse=dense builds the masked encoder on whole maps");         \
        (k)->failed = true;                                                                        \
        return;                                                                                    \
    } while (0)

static long long ll(int64_t i) { return (long long)i; }

static bool is_visible_mask(const Node *n) { return n->op == OP_MASK && !node_int(n, A_hidden); }

// ---- what the masks say ------------------------------------------------------------------------
// Grid and count of the program's masks.
static void read_mask(Packing *k, const Node *n) {
    Type m = graph_type(k->src, n->args[1]);
    int64_t count = node_int(n, A_count);
    if (!count) REFUSE(k, n, "the mask does not say how many cells are visible (count)");
    if (k->mask == NO_VALUE) {
        k->mask = n->args[1];
        k->grid[0] = m.d[1].c;
        k->grid[1] = m.d[2].c;
        k->count = count;
    } else if (k->mask != n->args[1] || k->count != count) {
        REFUSE(k, n, "masks of program %s differ: only one can be packed", k->src->name);
    }
}

// Side of a cell of map v in positions.
static int64_t block_of(const Packing *k, Value v) {
    return graph_type(k->src, v).d[1].c / k->grid[0];
}

static Type packed_type(const Packing *k, Value v) {
    Type x = graph_type(k->src, v);
    int64_t b = block_of(k, v);
    return type_make(x.dt, 3, (Dim[]){x.d[0], dim_c(k->count * b * b), x.d[3]});
}

// ---- what is needed packed ---------------------------------------------------------------------
static void need_map(Packing *k, const Node *reader, Value v) {
    Type x = graph_type(k->src, v);
    int64_t b = x.rank == 4 ? block_of(k, v) : 0;
    if (x.rank != 4 || b < 1 || b * k->grid[0] != x.d[1].c || b * k->grid[1] != x.d[2].c)
        REFUSE(k, reader, "%s of %s: no map of %lld x %lld cells", op_info[reader->op].name,
               type_print(k->p->arena, x), ll(k->grid[0]), ll(k->grid[1]));
    if (b & (b - 1))
        REFUSE(k, reader,
               "cells of %lld x %lld positions cannot be packed, their side must be a "
               "power of two",
               ll(b), ll(b));
    k->need[v] = true;
}

// A depthwise convolution that keeps the map's size, of what a mask lets through.
static void need_depthwise(Packing *k, const Node *n) {
    const Node *m = graph_def(k->src, n->args[0]);
    Type w = graph_type(k->src, n->args[1]);
    for (int i = 0; i < 2; i++) {
        int64_t side = w.d[2 + i].c;
        if (node_ints(n, A_stride, i) != 1 || side % 2 == 0 ||
            node_ints(n, A_pad, i) != (side - 1) / 2)
            REFUSE(k, n,
                   "a depthwise convolution of %lld x %lld, stride [%lld,%lld], pad "
                   "[%lld,%lld] cannot be packed: it must be odd and keep the size of its map",
                   ll(w.d[2].c), ll(w.d[3].c), ll(node_ints(n, A_stride, 0)),
                   ll(node_ints(n, A_stride, 1)), ll(node_ints(n, A_pad, 0)),
                   ll(node_ints(n, A_pad, 1)));
    }
    if (!is_visible_mask(m))
        REFUSE(k, n, "a depthwise convolution in the encoder reads positions that are not masked");
    need_map(k, n, m->args[0]);
}

static void need_operands(Packing *k, const Node *n) {
    if (op_keeps_rows(k->src, n)) {
        for (int i = 0; i < n->nargs; i++)
            if (operand_is_map(k->src, n, i)) need_map(k, n, n->args[i]);
    } else if (n->op == OP_MASK) {
        if (!is_visible_mask(n)) REFUSE(k, n, "the encoder reads hidden cells");
    } else if (n->op == OP_DWCONV2D) {
        need_depthwise(k, n);
    } else if (k->data[n->first]) {
        return;
    } else if (patches_tile(n)) {
        int64_t kh = node_ints(n, A_kernel, 0), kw = node_ints(n, A_kernel, 1);
        if (kh != 2 || kw != 2)
            REFUSE(k, n, "patches of %lld x %lld cannot be packed, only 2 x 2", ll(kh), ll(kw));
        need_map(k, n, n->args[0]);
    } else {
        REFUSE(k, n, "%s cannot be packed", op_info[n->op].name);
    }
}

// A statistic over the visible positions: hidden ones add nothing to a sum.
static void check_statistic(Packing *k, const Node *n) {
    static const char *const aggregates[] = {"l2", "l1", "mean", "std"};
    int64_t how = node_int(n, A_aggregate);
    if (how > 1)
        REFUSE(k, n, "GRN's aggregate %s counts hidden positions and cannot be packed",
               aggregates[how]);
}

static void find_needs(Packing *k) {
    const Graph *g = k->src;
    for (int i = 0; i < g->nodes.n && !k->failed; i++) {
        const Node *n = &g->nodes.v[i];
        bool data = n->op != OP_PARAM;
        for (int a = 0; a < n->nargs; a++) data &= k->data[n->args[a]];
        for (int r = 0; r < n->nresults; r++) k->data[n->first + (Value)r] = data;
        if (is_visible_mask(n)) read_mask(k, n);
    }
    for (int i = g->nodes.n - 1; i >= 0 && !k->failed; i--) {
        const Node *n = &g->nodes.v[i];
        if (is_visible_mask(n)) need_map(k, n, n->args[0]);
        if (n->op == OP_GRN_STAT && is_visible_mask(graph_def(g, n->args[0])))
            check_statistic(k, n);
        if (!k->failed && k->need[n->first]) need_operands(k, n);
    }
}

// ---- building ----------------------------------------------------------------------------------
static Value visible_cells(Packing *k, const Node *n) {
    Attr count = attr_int(A_count, k->count);
    if (k->cells == NO_VALUE)
        k->cells = graph_op(k->dst, OP_CELLS, n->loc, "mask", &k->map[k->mask], 1, &count, 1);
    return k->cells;
}

static Value rulebook(Packing *k, const Node *n) {
    Type w = graph_type(k->src, n->args[1]);
    Value cells = visible_cells(k, n);
    Attr attrs[] = {attr_ints(k->p->arena, A_grid, k->grid, 2),
                    attr_int(A_block, block_of(k, n->first)),
                    attr_ints2(k->p->arena, A_kernel, w.d[2].c, w.d[3].c)};
    return graph_op(k->dst, OP_RULEBOOK, n->loc, "mask", &cells, 1, attrs, 3);
}

static Value pack_data(Packing *k, const Node *n) {
    Attr attrs[2] = {attr_int(A_block, block_of(k, n->first))};
    Value cells = visible_cells(k, n);
    if (!patches_tile(n))
        return graph_op(k->dst, OP_PACK_ROWS, n->loc, n->label, (Value[]){k->map[n->first], cells},
                        2, attrs, 1);
    attrs[1] = *node_attr(n, A_kernel);
    return graph_op(k->dst, OP_PATCHIFY_ROWS, n->loc, n->label,
                    (Value[]){k->map[n->args[0]], cells}, 2, attrs, 2);
}

static Value pack_depthwise(Packing *k, const Node *n) {
    Value x = k->rows[graph_def(k->src, n->args[0])->args[0]];
    Value args[4] = {x, rulebook(k, n), k->map[n->args[1]], NO_VALUE};
    if (n->nargs > 2) args[3] = k->map[n->args[2]];
    return graph_op(k->dst, OP_DWCONV2D_PACKED, n->loc, n->label, args, n->nargs + 1, NULL, 0);
}

static Value pack_node(Packing *k, const Node *n) {
    Type type = packed_type(k, n->first);
    if (n->op == OP_MASK) return k->rows[n->args[0]];
    if (n->op == OP_DWCONV2D) return pack_depthwise(k, n);
    if (op_keeps_rows(k->src, n)) return build_on_rows(k->dst, k->src, n, k->map, k->rows, type);
    if (k->data[n->first]) return pack_data(k, n);
    Attr shape = attr_dims(k->p->arena, A_shape, type.d, type.rank);
    return graph_op(k->dst, OP_RESHAPE, n->loc, n->label, &k->rows[n->args[0]], 1, &shape, 1);
}

// mask(x) with zeros in hidden cells, from the rows of x.
static Value unpack(Packing *k, const Node *n) {
    Type type = graph_type(k->src, n->first);
    Attr attrs[] = {attr_int(A_block, block_of(k, n->first)),
                    attr_dims(k->p->arena, A_shape, type.d, type.rank)};
    Value args[] = {k->rows[n->args[0]], visible_cells(k, n)};
    return graph_op(k->dst, OP_UNPACK_ROWS, n->loc, n->label, args, 2, attrs, 2);
}

static void build_node(Packing *k, int node, bool copied) {
    const Node *n = &k->src->nodes.v[node];
    const Node *x = n->nargs ? graph_def(k->src, n->args[0]) : NULL;
    if (is_visible_mask(n))
        k->map[n->first] = unpack(k, n);
    else if (n->op == OP_GRN_STAT && is_visible_mask(x))
        k->map[n->first] =
            graph_op(k->dst, n->op, n->loc, n->label, &k->rows[x->args[0]], 1, n->attrs, n->nattrs);
    else if (!copied)
        graph_copy_node(k->dst, k->src, node, k->map);
    if (n->nresults && k->need[n->first]) k->rows[n->first] = pack_node(k, n);
}

static Graph *pack_graph(Pipeline *p, const Graph *g) {
    Packing k = {.p = p,
                 .src = g,
                 .dst = graph_new(p->arena, g->name),
                 .map = NEWN(p->arena, Value, g->values.n + 1),
                 .rows = NEWN(p->arena, Value, g->values.n + 1),
                 .need = NEWN(p->arena, bool, g->values.n + 1),
                 .data = NEWN(p->arena, bool, g->values.n + 1),
                 .mask = NO_VALUE,
                 .cells = NO_VALUE};
    find_needs(&k);
    if (k.failed) return NULL;
    bool *copied = NEWN(p->arena, bool, g->nodes.n);
    copy_before(k.dst, g, k.mask, k.map, copied);
    for (int i = 0; i < g->nodes.n; i++) build_node(&k, i, copied[i]);
    for (int i = 0; i < g->outputs.n; i++)
        graph_output(k.dst, g->outputs.v[i].name, k.map[g->outputs.v[i].value]);
    return graph_prune(k.dst);
}

static bool has_mask(const Graph *g) {
    for (int i = 0; i < g->nodes.n; i++)
        if (is_visible_mask(&g->nodes.v[i])) return true;
    return false;
}

void pass_specialize_rulebook(Pipeline *p) {
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        if (!program_masked(g) || !has_mask(g) || !pass_may_rewrite(p)) continue;
        ice_context.program = g->name;
        Graph *packed = pack_graph(p, g);
        if (!packed) return;
        p->module->graphs.v[i] = packed;
    }
}
