// Rematerialisation: what the backward side reads is computed again where that costs little,
// instead of being kept from the forward side.
//
//   before   %d = gelu(%c) ... %w = linear_dw(%dy, %d) ... gelu_dx(%g, %c)      %c and %d are kept
//   after    %d = gelu(%c) ... %r = recall(%c), %e = gelu(%r), linear_dw(%dy, %e)    %c is kept
//
// A node is of the backward side when it depends on the input `loss_scale`. A value is computed
// again when its op moves or maps rows one by one (no sums of products) and what it is computed
// from is there anyway: it is kept for another reader, is computed again itself (chains of up to
// MAX_CHAIN), or is small. So nothing is kept that was not kept before. `recall` tells the copy
// from the original, which equal nodes would otherwise be. The sum of two maps, the residual, is
// kept: its operands are those of sums before it, down to the first.
#include "pass.h"

enum {
    MAX_CHAIN = 8,
    SMALL =
        8, // a value this many times smaller than what is computed from it costs nothing to keep
};

typedef struct {
    Pipeline *p;
    const Graph *src;
    Graph *dst;
    Value *map;   // of src values
    Value *again; // of src values: the copy, NO_VALUE: none yet
    Value *own;   // the same for readers that get copies of their own
    int *chain;   // of src values: ops to compute it again, 0: it is kept
    bool *late;   // of src values: of the backward side
} Remat;

// ---- which values ------------------------------------------------------------------------------
static bool is_cheap(const Graph *g, const Node *n) {
    switch (n->op) {
    case OP_RESHAPE:
    case OP_PATCHIFY:
    case OP_PATCHIFY_ROWS:
    case OP_PACK_ROWS:
    case OP_UNPACK_ROWS:
    case OP_MASK:
    case OP_LAYERNORM:
    case OP_NORMALIZE:
    case OP_GELU:
    case OP_SCALE: return true;
    case OP_ADD: return !type_has_batch(graph_type(g, n->args[1]));
    default: return false;
    }
}

static bool is_small(const Graph *g, Value v, Value of) {
    int64_t fixed, images, all;
    type_elems(graph_type(g, v), &fixed, &images);
    type_elems(graph_type(g, of), &fixed, &all);
    return images <= all / SMALL;
}

// late by dependence on loss_scale; true when there is such an input.
static bool find_late(Remat *k) {
    bool any = false;
    for (int i = 0; i < k->src->nodes.n; i++) {
        const Node *n = &k->src->nodes.v[i];
        const char *name = n->op == OP_INPUT ? node_str(n, A_name) : NULL;
        bool late = name && strcmp(name, "loss_scale") == 0;
        for (int a = 0; a < n->nargs; a++) late |= k->late[n->args[a]];
        for (int r = 0; r < n->nresults; r++) k->late[n->first + (Value)r] = late;
        any |= late;
    }
    return any;
}

static void find_chains(Remat *k) {
    const Graph *g = k->src;
    bool *kept =
        NEWN(k->p->arena, bool, g->values.n + 1); // read by the backward side, or always there
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        for (int a = 0; a < n->nargs; a++) kept[n->args[a]] |= k->late[n->first];
        for (int r = 0; r < n->nresults; r++)
            kept[n->first + (Value)r] |=
                n->op == OP_INPUT || !type_has_batch(graph_type(g, n->first + (Value)r));
    }
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        int chain = 1;
        bool can = !k->late[n->first] && is_cheap(g, n) && type_has_batch(graph_type(g, n->first));
        for (int a = 0; can && a < n->nargs; a++) {
            Value x = n->args[a];
            can = kept[x] || k->chain[x] || is_small(g, x, n->first);
            if (k->chain[x] >= chain) chain = k->chain[x] + 1;
        }
        if (can && chain <= MAX_CHAIN) k->chain[n->first] = chain;
    }
}

// ---- building ----------------------------------------------------------------------------------
// The copy of v of src in dst, one of the set `again`.
static Value compute_again(Remat *k, Value *again, Value v) {
    const Node *n = graph_def(k->src, v);
    if (again[v] != NO_VALUE) return again[v];
    Value args[4];
    for (int i = 0; i < n->nargs; i++) {
        Value x = n->args[i];
        args[i] = k->chain[x] ? compute_again(k, again, x) : k->map[x];
        if (i > 0 || k->chain[x]) continue;
        for (int recalls = again == k->own ? 2 : 1; recalls > 0; recalls--)
            args[i] = graph_op(k->dst, OP_RECALL, n->loc, n->label, &args[i], 1, NULL, 0);
    }
    return again[v] =
               graph_op(k->dst, n->op, n->loc, n->label, args, n->nargs, n->attrs, n->nattrs);
}

// Operand i of n is read a second time after a sum over the image, in which its first reader takes
// part: a second copy costs less than keeping the first.
static bool reads_after_sum(const Node *n, int i) {
    return n->op == OP_GRN_STAT_DX && i == 1 && node_int(n, A_aggregate) == AGG_L2;
}

// What node n of the backward side reads as operand i.
static Value read_late(Remat *k, const Node *n, int i) {
    Value v = n->args[i];
    if (k->late[v] || !k->chain[v]) return k->map[v];
    Value *again = reads_after_sum(n, i) ? k->own : k->again;
    if (again[v] == NO_VALUE && !pass_may_rewrite(k->p)) return k->map[v];
    return compute_again(k, again, v);
}

static void build_late(Remat *k, int node) {
    const Node *n = &k->src->nodes.v[node];
    Value *args = NEWN(k->p->arena, Value, n->nargs);
    for (int i = 0; i < n->nargs; i++) args[i] = read_late(k, n, i);
    NodeSpec spec = {.op = n->op,
                     .args = args,
                     .nargs = n->nargs,
                     .attrs = n->attrs,
                     .nattrs = n->nattrs,
                     .loc = n->loc,
                     .label = n->label,
                     .body = n->body};
    Value v = graph_add(k->dst, &spec);
    for (int r = 0; r < n->nresults; r++) k->map[n->first + (Value)r] = v + (Value)r;
}

static Graph *remat_graph(Pipeline *p, const Graph *g) {
    Remat k = {.p = p,
               .src = g,
               .dst = graph_new(p->arena, g->name),
               .map = NEWN(p->arena, Value, g->values.n + 1),
               .again = NEWN(p->arena, Value, g->values.n + 1),
               .own = NEWN(p->arena, Value, g->values.n + 1),
               .chain = NEWN(p->arena, int, g->values.n + 1),
               .late = NEWN(p->arena, bool, g->values.n + 1)};
    if (!find_late(&k)) return NULL;
    for (int i = 0; i < g->values.n; i++) k.again[i] = k.own[i] = NO_VALUE;
    find_chains(&k);
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (n->nresults && k.late[n->first] && n->nargs)
            build_late(&k, i);
        else
            graph_copy_node(k.dst, g, i, k.map);
    }
    for (int i = 0; i < g->outputs.n; i++)
        graph_output(k.dst, g->outputs.v[i].name, k.map[g->outputs.v[i].value]);
    return graph_prune(k.dst);
}

void pass_remat(Pipeline *p) {
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        ice_context.program = g->name;
        Graph *less = remat_graph(p, g);
        if (less) p->module->graphs.v[i] = less;
    }
}
