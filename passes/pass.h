// What passes share: properties, the walk that rebuilds a graph, questions about values. Private to
// passes/.
#ifndef CNX_PASSES_PASS_H
#define CNX_PASSES_PASS_H
#include "pipeline.h"

// What may hold of all programs at a point of the pipeline.
enum {
    P_NO_DROP = 1, // no drop_path
    P_NO_CONV = 2, // no conv2d
    P_NO_GRN = 4,  // no grn (its parts may be there)
    P_HOISTED = 8, // weight-only work is in program prepare; the others use its outputs as params
    P_GRAPHS = 16, // there are graphs to work on
    P_SCHEDULED = 32,
    P_PLANNED = 64,
    PROPERTIES = 7
};

#define PASS(name, fn, level, when, needs, gives, kills, doc) void pass_##fn(Pipeline *p);
#include "pipeline.def"
#undef PASS

// True for the programs of training, by name: train, pretrain.
bool program_trains(const Graph *g);

// ---- rebuilding (rewrite.c) --------------------------------------------------------------------
// src is read, dst is built; map takes values of src to values of dst (NO_VALUE: not yet).
typedef struct {
    Pipeline *p;
    const Graph *src;
    Graph *dst;
    Value *map;
    const int *uses;    // of src values
    const int *reader;  // of src values: a node that uses it, the only one when uses is 1; -1: none
    const bool *weight; // of src values: depends on parameters and constants only, at least on one
} Rewrite;

// Rebuilds every program but prepare: rule gets each node of src in order and either sets the map
// of all its results and returns true, or returns false and the node is copied. Dead nodes go.
typedef bool (*RewriteRule)(Rewrite *r, int node);
void rewrite_programs(Pipeline *p, RewriteRule rule);
// The same with prepare: for passes that others need.
void rewrite_all(Pipeline *p, RewriteRule rule);

// The node that defines v in src when v is its only result, v has no other use, and its op is op.
const Node *single_use(const Rewrite *r, Value v, Op op);
// Weight-only: parameters, constants and what is computed from them alone, without a batch.
bool *weight_values(const Graph *g);
// True when v is a constant whose elements are all equal; *x gets the value.
bool constant_splat(const Graph *g, Value v, double *x);
// The mapped operand i of a node of src.
static inline Value mapped(const Rewrite *r, const Node *n, int i) { return r->map[n->args[i]]; }
// Bias of a linear-like node of src (operand 2), mapped; NO_VALUE when it has none.
Value mapped_bias(const Rewrite *r, const Node *n);
// linear x, w, bias in dst; bias may be NO_VALUE.
Value build_linear(Graph *dst, const Node *like, Value x, Value w, Value bias);
#endif
