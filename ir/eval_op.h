// Inside the evaluator: what an eval_<op> function gets, and the functions themselves, declared
// from the op table so that a row without one does not link.
#ifndef CNX_IR_EVAL_OP_H
#define CNX_IR_EVAL_OP_H
#include "eval.h"

// Operands and results of one node. Arithmetic ops see f64 tensors whatever the precision of the
// evaluation (results are rounded afterwards, once); leaves and groups see tensors of ctx->dt.
// Results are allocated with their shapes; a leaf or group may point data elsewhere instead.
typedef struct {
    const EvalContext *ctx;
    const Graph *g;
    const Node *n;
    const Tensor *x; // operands
    int nx;
    Tensor *y;  // results
    Arena *tmp; // dies with the call
} EvalCall;

// Each returns NULL or the reason it cannot.
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc)                                  \
    const char *eval_##name(const EvalCall *c);
#include "ops.def"
#undef OP

static inline double *f64_data(const Tensor *t) { return t->data; }

static inline int64_t tensor_last(const Tensor *t) { return t->rank ? t->d[t->rank - 1] : 1; }

// All elements but the last dimension.
static inline int64_t tensor_rows(const Tensor *t) { return tensor_elems(t) / tensor_last(t); }

// mean_j and 1/sqrt(var_j + eps) of k numbers, two passes, biased variance (eval_norm.c).
void row_moments(const double *x, int64_t k, double eps, double *mean, double *rstd);

// N = (G - shift)/divisor over k channels; mean and deviation are those of G (eval_norm.c).
typedef struct {
    double shift, divisor, mean, deviation;
} GrnForm;
GrnForm grn_form(const Node *n, const double *G, int64_t k);

#endif
