// The graph and its one builder.
//
// Nodes are appended in topological order; a node's operands are values that exist already, so the
// order holds by construction. Every node goes through infer_node, and equal nodes (same op,
// operands, attributes and, for leaves, type) are found again through a hash table: CSE is a
// property of the builder. Inputs, groups and ops with T_EFFECT or T_RANDOM are never merged.
// Attribute payloads are copied into the graph's arena, so callers may pass temporaries.
#include "graph.h"

typedef struct GraphHash {
    uint32_t *slots; // node index + 1, 0: empty
    uint32_t cap, n; // cap is a power of two
} GraphHash;

Module *module_new(Arena *a) {
    Module *m = NEW(a, Module);
    m->arena = a;
    return m;
}

Graph *module_find(const Module *m, const char *name) {
    for (int i = 0; i < m->graphs.n; i++)
        if (m->graphs.v[i]->name && strcmp(m->graphs.v[i]->name, name) == 0) return m->graphs.v[i];
    return NULL;
}

Graph *graph_new(Arena *a, const char *name) {
    Graph *g = NEW(a, Graph);
    g->arena = a;
    g->name = name;
    g->hash = NEW(a, GraphHash);
    return g;
}

// ---- hash-consing ------------------------------------------------------------------------------
static uint64_t hash_bytes(uint64_t h, const void *p, size_t n) { // FNV-1a
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 1099511628211u;
    return h;
}

static uint64_t hash_int(uint64_t h, int64_t i) { return hash_bytes(h, &i, sizeof i); }

static uint64_t hash_attr(uint64_t h, const Attr *a) {
    h = hash_int(h, a->id);
    switch (attr_info[a->id].kind) {
    case AK_INT:
    case AK_BOOL:
    case AK_ENUM: return hash_int(h, a->i);
    case AK_F64: return hash_bytes(h, &a->f, sizeof a->f);
    case AK_STR: return hash_bytes(h, a->s, strlen(a->s));
    case AK_INTS:
    case AK_ENUMS: return hash_bytes(h, a->ints.v, sizeof(int64_t) * (size_t)a->ints.n);
    case AK_DIMS:
        for (int i = 0; i < a->dims.n; i++)
            h = hash_int(hash_int(h, a->dims.v[i].c), a->dims.v[i].b);
        return h;
    case AK_DATA: return hash_bytes(h, a->data.v, sizeof(double) * (size_t)a->data.n);
    }
    return h;
}

// Of a node and, for leaves, its type.
static uint64_t hash_node(const Node *n, const Type *type) {
    uint64_t h = hash_int(14695981039346656037u, n->op);
    h = hash_bytes(h, n->args, sizeof(Value) * (size_t)n->nargs);
    for (int i = 0; i < n->nattrs; i++) h = hash_attr(h, &n->attrs[i]);
    if (!(op_info[n->op].traits & T_LEAF)) return h;
    h = hash_int(hash_int(h, type->dt), type->rank);
    for (int i = 0; i < type->rank; i++) h = hash_int(hash_int(h, type->d[i].c), type->d[i].b);
    return h;
}

static bool node_eq(const Graph *g, const Node *x, const Node *n, const Type *type) {
    if (x->op != n->op || x->nargs != n->nargs || x->nattrs != n->nattrs) return false;
    for (int i = 0; i < n->nargs; i++)
        if (x->args[i] != n->args[i]) return false;
    for (int i = 0; i < n->nattrs; i++)
        if (!attr_eq(&x->attrs[i], &n->attrs[i])) return false;
    return !(op_info[n->op].traits & T_LEAF) || type_eq(graph_type(g, x->first), *type);
}

static void hash_insert(GraphHash *t, uint64_t hash, uint32_t node) {
    uint32_t i = (uint32_t)(hash ^ hash >> 32) & (t->cap - 1);
    while (t->slots[i]) i = (i + 1) & (t->cap - 1);
    t->slots[i] = node + 1;
    t->n++;
}

static void hash_grow(Graph *g) {
    GraphHash old = *g->hash;
    *g->hash = (GraphHash){.cap = old.cap ? old.cap * 2 : 64};
    g->hash->slots = NEWN(g->arena, uint32_t, g->hash->cap);
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.slots[i]) {
            const Node *n = &g->nodes.v[old.slots[i] - 1];
            hash_insert(g->hash, hash_node(n, &g->values.v[n->first].type), old.slots[i] - 1);
        }
}

// The equal node, or NULL.
static const Node *hash_find(const Graph *g, const Node *n, const Type *type, uint64_t hash) {
    const GraphHash *t = g->hash;
    if (!t->cap) return NULL;
    for (uint32_t i = (uint32_t)(hash ^ hash >> 32) & (t->cap - 1); t->slots[i];
         i = (i + 1) & (t->cap - 1)) {
        const Node *x = &g->nodes.v[t->slots[i] - 1];
        if (node_eq(g, x, n, type)) return x;
    }
    return NULL;
}

static bool op_merges(Op op) {
    return op != OP_INPUT && !(op_info[op].traits & (T_EFFECT | T_RANDOM | T_REGION));
}

// ---- attributes --------------------------------------------------------------------------------
Attr attr_ints(Arena *a, AttrId id, const int64_t *v, int n) {
    int64_t *copy = NEWN(a, int64_t, n);
    for (int i = 0; i < n; i++) copy[i] = v[i];
    return (Attr){.id = id, .ints = {copy, n}};
}

Attr attr_ints2(Arena *a, AttrId id, int64_t x, int64_t y) {
    return attr_ints(a, id, (int64_t[]){x, y}, 2);
}

Attr attr_dims(Arena *a, AttrId id, const Dim *v, int n) {
    Dim *copy = NEWN(a, Dim, n);
    for (int i = 0; i < n; i++) copy[i] = v[i];
    return (Attr){.id = id, .dims = {copy, n}};
}

static Attr attr_copy(Arena *a, const Attr *x) {
    switch (attr_info[x->id].kind) {
    case AK_STR: return attr_str(x->id, arena_strdup(a, x->s));
    case AK_INTS:
    case AK_ENUMS: return attr_ints(a, x->id, x->ints.v, x->ints.n);
    case AK_DIMS: return attr_dims(a, x->id, x->dims.v, x->dims.n);
    case AK_DATA: {
        double *v = NEWN(a, double, x->data.n);
        if (x->data.n) memcpy(v, x->data.v, sizeof(double) * (size_t)x->data.n);
        return (Attr){.id = x->id, .data = {v, x->data.n}};
    }
    default: return *x;
    }
}

const Attr *node_attr(const Node *n, AttrId id) {
    for (int i = 0; i < n->nattrs; i++)
        if (n->attrs[i].id == id) return &n->attrs[i];
    return NULL;
}

int64_t node_int(const Node *n, AttrId id) {
    const Attr *a = node_attr(n, id);
    return a ? a->i : 0;
}

double node_f64(const Node *n, AttrId id) {
    const Attr *a = node_attr(n, id);
    return a ? a->f : 0;
}

const char *node_str(const Node *n, AttrId id) {
    const Attr *a = node_attr(n, id);
    return a ? a->s : NULL;
}

int64_t node_ints(const Node *n, AttrId id, int i) {
    const Attr *a = node_attr(n, id);
    return a && i >= 0 && i < a->ints.n ? a->ints.v[i] : 0;
}

// ---- the builder -------------------------------------------------------------------------------
const char *graph_check(Graph *g, const NodeSpec *spec) {
    Type types[MAX_RESULTS];
    return infer_node(g, spec, types);
}

// Sorted by id; payloads shared with the caller's.
static const Attr *sort_attrs(Arena *a, const Attr *attrs, int n) {
    if (!n) return NULL;
    Attr *v = NEWN(a, Attr, n);
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && v[j - 1].id > attrs[i].id; j--) v[j] = v[j - 1];
        v[j] = attrs[i];
    }
    return v;
}

// copy_payloads is false when the attributes are already owned by this arena.
static Value add_node(Graph *g, const NodeSpec *spec, bool copy_payloads) {
    Type types[MAX_RESULTS];
    const char *why = infer_node(g, spec, types);
    if (why) ice(spec->loc, "%s in program %s", why, g->name ? g->name : "(body)");
    Node n = {.op = spec->op,
              .loc = spec->loc,
              .label = spec->label,
              .args = spec->args,
              .nargs = spec->nargs,
              .nattrs = spec->nattrs,
              .body = spec->body};
    n.attrs = sort_attrs(g->arena, spec->attrs, spec->nattrs);
    uint64_t hash = 0;
    if (op_merges(n.op)) {
        hash = hash_node(&n, &types[0]);
        const Node *same = hash_find(g, &n, &types[0], hash);
        if (same) return same->first;
    }
    Value *args = NEWN(g->arena, Value, n.nargs);
    for (int i = 0; i < n.nargs; i++) args[i] = spec->args[i];
    n.args = args;
    if (copy_payloads)
        for (int i = 0; i < n.nattrs; i++) ((Attr *)n.attrs)[i] = attr_copy(g->arena, &n.attrs[i]);
    n.first = (Value)g->values.n;
    n.nresults = op_info[n.op].results < 0 ? n.body->outputs.n : op_info[n.op].results;
    int node = g->nodes.n;
    for (int r = 0; r < n.nresults; r++)
        vec_push(g->arena, &g->values, ((ValueInfo){types[r], node, r}));
    vec_push(g->arena, &g->nodes, n);
    if (n.op == OP_INPUT) vec_push(g->arena, &g->inputs, n.first);
    if (op_merges(n.op)) {
        if (2 * (g->hash->n + 1) > g->hash->cap) hash_grow(g);
        hash_insert(g->hash, hash, (uint32_t)node);
    }
    return n.first;
}

Value graph_add(Graph *g, const NodeSpec *spec) { return add_node(g, spec, true); }

Value graph_input(Graph *g, const char *name, Type t, Loc loc) {
    Attr a = attr_str(A_name, name);
    return graph_add(g,
                     &(NodeSpec){.op = OP_INPUT, .attrs = &a, .nattrs = 1, .loc = loc, .type = t});
}

Value graph_param(Graph *g, const char *name, Type t, Loc loc) {
    Attr a = attr_str(A_name, name);
    return graph_add(g,
                     &(NodeSpec){.op = OP_PARAM, .attrs = &a, .nattrs = 1, .loc = loc, .type = t});
}

Value graph_constant(Graph *g, Type t, const double *data, int64_t n, Loc loc) {
    Attr a = {.id = A_value, .data = {data, n}};
    return graph_add(
        g, &(NodeSpec){.op = OP_CONSTANT, .attrs = &a, .nattrs = 1, .loc = loc, .type = t});
}

Value graph_op(Graph *g, Op op, Loc loc, const char *label, const Value *args, int nargs,
               const Attr *attrs, int nattrs) {
    return graph_add(g, &(NodeSpec){.op = op,
                                    .args = args,
                                    .nargs = nargs,
                                    .attrs = attrs,
                                    .nattrs = nattrs,
                                    .loc = loc,
                                    .label = label});
}

void graph_output(Graph *g, const char *name, Value v) {
    if (v >= (Value)g->values.n) ice((Loc){0}, "output %s: value %u does not exist", name, v);
    vec_push(g->arena, &g->outputs, ((Port){name, v}));
}

Value graph_copy_node(Graph *dst, const Graph *src, int n, Value *map) {
    const Node *x = &src->nodes.v[n];
    Value *args = NEWN(dst->arena, Value, x->nargs);
    for (int i = 0; i < x->nargs; i++) args[i] = map[x->args[i]];
    NodeSpec spec = {.op = x->op,
                     .args = args,
                     .nargs = x->nargs,
                     .attrs = x->attrs,
                     .nattrs = x->nattrs,
                     .loc = x->loc,
                     .label = x->label,
                     .body = x->body,
                     .type = graph_type(src, x->first)};
    Value v = add_node(dst, &spec, dst->arena != src->arena);
    for (int r = 0; r < x->nresults; r++) map[x->first + (Value)r] = v + (Value)r;
    return v;
}

// ---- whole graphs ------------------------------------------------------------------------------
Graph *graph_prune(const Graph *g) {
    bool *live = NEWN(g->arena, bool, g->nodes.n);
    for (int i = 0; i < g->outputs.n; i++) live[g->values.v[g->outputs.v[i].value].node] = true;
    for (int i = g->nodes.n - 1; i >= 0; i--) {
        const Node *n = &g->nodes.v[i];
        live[i] |= n->op == OP_INPUT || (op_info[n->op].traits & T_EFFECT);
        for (int k = 0; live[i] && k < n->nargs; k++) live[g->values.v[n->args[k]].node] = true;
    }
    Graph *to = graph_new(g->arena, g->name);
    Value *map = NEWN(g->arena, Value, g->values.n);
    for (int i = 0; i < g->nodes.n; i++)
        if (live[i]) graph_copy_node(to, g, i, map);
    for (int i = 0; i < g->outputs.n; i++)
        graph_output(to, g->outputs.v[i].name, map[g->outputs.v[i].value]);
    return to;
}

int *graph_use_counts(const Graph *g) {
    int *uses = NEWN(g->arena, int, g->values.n);
    for (int i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].nargs; k++) uses[g->nodes.v[i].args[k]]++;
    for (int i = 0; i < g->outputs.n; i++) uses[g->outputs.v[i].value]++;
    return uses;
}

// ---- multiply-accumulates ----------------------------------------------------------------------
static int64_t mul_saturated(int64_t x, int64_t y) {
    int64_t r;
    return __builtin_mul_overflow(x, y, &r) ? INT64_MAX : r;
}

static int64_t linear_dw_macs(const Graph *g, const Node *n) {
    int64_t fixed, dy;
    type_elems(graph_type(g, n->args[0]), &fixed, &dy);
    return mul_saturated(dy, type_last(graph_type(g, n->args[1])));
}

// Of operand 0, one product for each tap of a kernel of w's size.
static int64_t depthwise_macs(const Graph *g, const Node *n, Type w) {
    int64_t fixed, rows;
    type_elems(graph_type(g, n->args[0]), &fixed, &rows);
    return mul_saturated(rows, mul_saturated(w.d[2].c, w.d[3].c));
}

// MACs of one image: elements of the result times the terms of each sum. A value without the batch
// is weight-only work and counts nothing. Packed rows count every tap, whether its pixel is listed
// or not, as dense ones do.
int64_t node_macs(const Graph *g, const Node *n) {
    if (n->op == OP_GROUP) return graph_macs(n->body);
    Value result = n->first; // or, of an adjoint, what has the result's place: dy
    switch (n->op) {
    case OP_CONV2D:
    case OP_DWCONV2D:
    case OP_LINEAR: break;
    case OP_LINEAR_DW: return linear_dw_macs(g, n);
    case OP_DWCONV2D_DX: result = n->args[0]; break;
    case OP_DWCONV2D_DW:
    case OP_DWCONV2D_PACKED_DW: return depthwise_macs(g, n, graph_type(g, n->first));
    case OP_DWCONV2D_PACKED:
    case OP_DWCONV2D_PACKED_DX: return depthwise_macs(g, n, graph_type(g, n->args[2]));
    default: return 0;
    }
    Type x = graph_type(g, n->args[0]), w = graph_type(g, n->args[1]);
    if (!type_has_batch(x) || x.rank < 2) return 0;
    int64_t fixed, macs;
    type_elems(graph_type(g, result), &fixed, &macs);
    for (int i = 1; i < w.rank; i++) macs = mul_saturated(macs, w.d[i].c);
    return macs;
}

int64_t graph_macs(const Graph *g) {
    int64_t sum = 0;
    for (int i = 0; i < g->nodes.n; i++)
        if (__builtin_add_overflow(sum, node_macs(g, &g->nodes.v[i]), &sum)) return INT64_MAX;
    return sum;
}
