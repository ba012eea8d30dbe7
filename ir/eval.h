// The naive evaluator: the definition of every op, in f32 and f64, plain loops.
#ifndef CNX_IR_EVAL_H
#define CNX_IR_EVAL_H
#include "graph.h"

// A dense row-major tensor with concrete dimensions; data is float or double by dt.
typedef struct {
    DType dt; // DT_F32 or DT_F64
    int rank;
    int64_t d[MAX_RANK];
    void *data;
} Tensor;

int64_t tensor_elems(const Tensor *t);
Tensor tensor_new(Arena *a, DType dt, int rank, const int64_t *d);
Tensor tensor_for(Arena *a, DType dt, Type t, int64_t batch); // shape of t at that batch

// Supplies a parameter in official layout as f32 or f64 (dt), of the declared type. Returns NULL
// or the reason it cannot.
typedef const char *(*EvalParamFn)(void *user, const char *name, Type type, Tensor *out);

typedef struct {
    Arena *arena; // for results and intermediates
    DType dt;     // DT_F32 or DT_F64: precision of the whole evaluation
    int64_t batch;
    const Tensor *inputs; // one per graph input, in dt
    EvalParamFn param;
    void *user;
    bool training; // drop_path draws only when true
    uint64_t seed;
} EvalContext;

// Evaluates the graph; out gets one tensor per output. Returns NULL or the reason.
const char *eval_graph(const EvalContext *ctx, const Graph *g, Tensor *out);
// One node on given operands (fold-constants, tests).
const char *eval_node(const EvalContext *ctx, const Graph *g, const Node *n, const Tensor *args,
                      Tensor *out);
#endif
