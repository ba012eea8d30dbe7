// The loss of masked pre-training is about hidden cells only: what is computed for it alone is
// computed on the rows of those cells.
//
//   before   masked_mse(linear(%x, %w), norm_pix(patchify(%image)), %m)       all cells
//   after    %h = cells(%m; hidden)
//            masked_mse(linear(pack_rows(%x, %h), %w), norm_pix(patchify_rows(%image, %h)), 1)
//
// With R(x) the rows of the hidden cells, R(op(x, ...)) = op(R(x), ...) where op works on each
// position alone. So the rows are taken as early as a value that somebody else reads in full, or
// that mixes positions: there stands pack_rows. Exact; every image has the same number of hidden
// cells. How many is known from the list of visible ones, so this is for packed programs only. With
// none hidden the program stays as it is: its loss is 0.
#include "packed.h"

typedef struct {
    Pipeline *p;
    const Graph *src;
    Graph *dst;
    Value *map, *rows; // of src values: in full, rows of hidden cells
    bool *full, *need; // of src values: read in full, rows are read
    const Node *loss;
    int64_t count; // hidden cells
    Value cells;   // dst value
} Dropping;

// The list of visible cells of mask m, NULL when the program is not packed.
static const Node *visible_cells(const Graph *g, Value m) {
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (n->op == OP_CELLS && !node_int(n, A_hidden) && n->args[0] == m) return n;
    }
    return NULL;
}

// ---- who reads what ----------------------------------------------------------------------------
static void read_operands(Dropping *k, const Node *n) {
    bool full = false, rows = false;
    for (int r = 0; r < n->nresults; r++) {
        full |= k->full[n->first + (Value)r];
        rows |= k->need[n->first + (Value)r];
    }
    bool on_rows = !full && rows && op_keeps_rows(k->src, n);
    if (!full && rows && !on_rows && !patches_tile(n)) k->full[n->first] = full = true;
    for (int i = 0; i < n->nargs; i++) {
        if (n == k->loss && i < 2)
            k->need[n->args[i]] = true;
        else if (on_rows && operand_is_map(k->src, n, i))
            k->need[n->args[i]] = true;
        else
            k->full[n->args[i]] = true;
    }
}

static void find_reads(Dropping *k) {
    for (int i = 0; i < k->src->outputs.n; i++) k->full[k->src->outputs.v[i].value] = true;
    for (int i = k->src->nodes.n - 1; i >= 0; i--) read_operands(k, &k->src->nodes.v[i]);
}

// ---- building ----------------------------------------------------------------------------------
static Value hidden_cells(Dropping *k) {
    Attr attrs[] = {attr_int(A_count, k->count), attr_int(A_hidden, 1)};
    if (k->cells == NO_VALUE)
        k->cells = graph_op(k->dst, OP_CELLS, k->loss->loc, "mask", &k->map[k->loss->args[2]], 1,
                            attrs, 2);
    return k->cells;
}

static Value hidden_rows(Dropping *k, const Node *n) {
    Attr attrs[2] = {attr_int(A_block, 1)};
    Type x = graph_type(k->src, n->first);
    Type type = type_make(x.dt, 3, (Dim[]){x.d[0], dim_c(k->count), x.d[3]});
    if (k->full[n->first])
        return graph_op(k->dst, OP_PACK_ROWS, n->loc, n->label,
                        (Value[]){k->map[n->first], hidden_cells(k)}, 2, attrs, 1);
    if (op_keeps_rows(k->src, n)) return build_on_rows(k->dst, k->src, n, k->map, k->rows, type);
    attrs[1] = *node_attr(n, A_kernel);
    return graph_op(k->dst, OP_PATCHIFY_ROWS, n->loc, n->label,
                    (Value[]){k->map[n->args[0]], hidden_cells(k)}, 2, attrs, 2);
}

static void build_loss(Dropping *k) {
    const Node *n = k->loss;
    Type x = graph_type(k->src, n->args[0]);
    Type mask = type_make(x.dt, 2, (Dim[]){x.d[0], dim_c(k->count)});
    Value args[] = {k->rows[n->args[0]], k->rows[n->args[1]],
                    graph_constant(k->dst, mask, (double[]){1}, 1, n->loc)};
    k->map[n->first] = graph_op(k->dst, n->op, n->loc, n->label, args, 3, NULL, 0);
}

static void build_node(Dropping *k, int node, bool copied) {
    const Node *n = &k->src->nodes.v[node];
    bool needed = n->nresults && k->need[n->first];
    bool full = n->nargs == 0 || n->nresults > 1 || k->full[n->first];
    if (n == k->loss)
        build_loss(k);
    else if (full && !copied)
        graph_copy_node(k->dst, k->src, node, k->map);
    if (needed) k->rows[n->first] = hidden_rows(k, n);
}

static Graph *drop_rows(Pipeline *p, const Graph *g, const Node *loss, int64_t hidden) {
    Dropping k = {.p = p,
                  .src = g,
                  .dst = graph_new(p->arena, g->name),
                  .map = NEWN(p->arena, Value, g->values.n + 1),
                  .rows = NEWN(p->arena, Value, g->values.n + 1),
                  .full = NEWN(p->arena, bool, g->values.n + 1),
                  .need = NEWN(p->arena, bool, g->values.n + 1),
                  .loss = loss,
                  .count = hidden,
                  .cells = NO_VALUE};
    find_reads(&k);
    if (k.full[loss->args[0]]) return NULL;
    bool *copied = NEWN(p->arena, bool, g->nodes.n);
    copy_before(k.dst, g, loss->args[2], k.map, copied);
    for (int i = 0; i < g->nodes.n; i++) build_node(&k, i, copied[i]);
    for (int i = 0; i < g->outputs.n; i++)
        graph_output(k.dst, g->outputs.v[i].name, k.map[g->outputs.v[i].value]);
    return graph_prune(k.dst);
}

static void drop_in(Pipeline *p, Graph **g) {
    for (int i = 0; i < (*g)->nodes.n; i++) {
        const Node *n = &(*g)->nodes.v[i];
        if (n->op != OP_MASKED_MSE || graph_type(*g, n->args[0]).rank != 4) continue;
        const Node *cells = visible_cells(*g, n->args[2]);
        if (!cells) return;
        Type m = graph_type(*g, n->args[2]);
        int64_t hidden = m.d[1].c * m.d[2].c - node_int(cells, A_count);
        if (hidden < 1 || !pass_may_rewrite(p)) return;
        Graph *less = drop_rows(p, *g, n, hidden);
        if (less) *g = less;
        return;
    }
}

void pass_drop_dead_rows(Pipeline *p) {
    for (int i = 0; i < p->module->graphs.n; i++) {
        if (!program_masked(p->module->graphs.v[i])) continue;
        ice_context.program = p->module->graphs.v[i]->name;
        drop_in(p, &p->module->graphs.v[i]);
    }
}
