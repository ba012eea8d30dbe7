// The graph IR: an append-only array of nodes in topological order; a value is an index. A pass
// reads one graph and builds the next through the one builder, which infers types and hash-conses
// (ops with T_EFFECT or T_RANDOM excepted). Only nodes that reach an output are kept by
// graph_prune, so CSE, DCE and order are properties, not passes. One arena per module.
#ifndef CNX_IR_GRAPH_H
#define CNX_IR_GRAPH_H
#include "diag.h"
#include "op.h"

typedef uint32_t Value;
#define NO_VALUE ((Value)0xffffffffu)

typedef struct Graph Graph;

typedef struct {
    Op op;
    Loc loc;           // the spec line it came from
    const char *label; // where it belongs, e.g. "stages.0.1.pwconv1" or NULL; kept by passes
    const Value *args;
    int nargs;
    const Attr *attrs; // sorted by id, only those set
    int nattrs;
    Value first; // first result
    int nresults;
    Graph *body; // OP_GROUP only
} Node;

typedef struct {
    Type type;
    int node;   // index of the producing node
    int result; // which result of it
} ValueInfo;

typedef struct {
    const char *name; // port name
    Value value;
} Port;

struct Graph {
    Arena *arena;
    const char *name; // program name: "infer", "features", "prepare", ...
    VEC(Node) nodes;
    VEC(ValueInfo) values;
    VEC(Value) inputs; // input nodes' values, in port order
    VEC(Port) outputs;
    struct GraphHash *hash;
};

// All programs of one spec, in one arena.
typedef struct {
    Arena *arena;
    VEC(Graph *) graphs;
} Module;

Module *module_new(Arena *a);
Graph *module_find(const Module *m, const char *name); // NULL when absent
Graph *graph_new(Arena *a, const char *name);

// ---- the builder -------------------------------------------------------------------------------
// Appends a node (or finds an equal one) and returns its first result. Types are inferred; wrong
// operands are an ice() unless checked before with graph_check (the parser and the verifier do).
// label and loc are those of the node being translated.
typedef struct {
    Op op;
    const Value *args;
    int nargs;
    const Attr *attrs; // any order
    int nattrs;
    Loc loc;
    const char *label;
    Graph *body; // OP_GROUP
    Type type;   // leaves only: their declared type
} NodeSpec;
Value graph_add(Graph *g, const NodeSpec *spec);
// As graph_add, but NULL-safe checking: returns NULL when the node is well-typed, else the reason.
const char *graph_check(Graph *g, const NodeSpec *spec);

Value graph_input(Graph *g, const char *name, Type t, Loc loc);
Value graph_param(Graph *g, const char *name, Type t, Loc loc);
Value graph_constant(Graph *g, Type t, const double *data, int64_t n, Loc loc);
// Unary/binary/... shorthand: graph_op(g, OP_ADD, loc, label, (Value[]){x, y}, 2, NULL, 0)
Value graph_op(Graph *g, Op op, Loc loc, const char *label, const Value *args, int nargs,
               const Attr *attrs, int nattrs);
void graph_output(Graph *g, const char *name, Value v);
// Copies node n of src into dst with operands remapped by map[src value]; fills map for its
// results.
Value graph_copy_node(Graph *dst, const Graph *src, int n, Value *map);

// A new graph with only the nodes that reach an output (inputs always stay).
Graph *graph_prune(const Graph *g);

// ---- queries -----------------------------------------------------------------------------------
static inline const Node *graph_def(const Graph *g, Value v) {
    return &g->nodes.v[g->values.v[v].node];
}
static inline Type graph_type(const Graph *g, Value v) { return g->values.v[v].type; }
// Number of uses of each value (operands of nodes plus outputs), arena-allocated, by value.
int *graph_use_counts(const Graph *g);
const Attr *node_attr(const Node *n, AttrId id); // NULL when not set
int64_t node_int(const Node *n, AttrId id);      // 0 when not set (INT, BOOL, ENUM)
double node_f64(const Node *n, AttrId id);
const char *node_str(const Node *n, AttrId id);     // NULL when not set
int64_t node_ints(const Node *n, AttrId id, int i); // element i; 0 when not set
// Attribute constructors
static inline Attr attr_int(AttrId id, int64_t i) { return (Attr){.id = id, .i = i}; }
static inline Attr attr_f64(AttrId id, double f) { return (Attr){.id = id, .f = f}; }
static inline Attr attr_str(AttrId id, const char *s) { return (Attr){.id = id, .s = s}; }
Attr attr_ints2(Arena *a, AttrId id, int64_t x, int64_t y);
Attr attr_ints(Arena *a, AttrId id, const int64_t *v, int n);
Attr attr_dims(Arena *a, AttrId id, const Dim *v, int n);

// MACs per image of convolutions and linears (group bodies included), all taps counted.
int64_t graph_macs(const Graph *g);
int64_t node_macs(const Graph *g, const Node *n);

// ---- type rules (infer.c) ----------------------------------------------------------------------
// Checks everything about a node to be (op, operands, attributes, types, body), whatever it holds,
// and fills out[0..results). Returns NULL or the reason (arena text naming both values).
enum { MAX_RESULTS = 64 }; // room out must have
const char *infer_node(const Graph *g, const NodeSpec *spec, Type *out);

// ---- verifier (verify.c) -----------------------------------------------------------------------
// Checks every invariant (order, arity, attributes, types, bodies, outputs). NULL or the reason.
const char *graph_verify(const Graph *g);

#endif
