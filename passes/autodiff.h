// Reverse-mode differentiation on graphs: what the pass, the formulas and their tests share.
// Private to passes/ and tests/.
#ifndef CNX_PASSES_AUTODIFF_H
#define CNX_PASSES_AUTODIFF_H
#include "pass.h"

// One node on the way back. A formula appends ops to g and sets the cotangents of the operands it
// has one for; the others stay NO_VALUE.
typedef struct {
    Graph *g;
    const Node *n;   // of g, one result
    Value dy;        // cotangent of the result
    Value *dx;       // by operand
    const char *why; // an op of the formula could not be built, e.g. where channels are the batch
} Vjp;
typedef void (*VjpFn)(Vjp *v);

// The formula of an op; NULL for rows of the op table with GRAD_NONE.
VjpFn vjp_of(Op op);

// Appends the gradient of sum(seed * y) with respect to the n values `of` to g; seed has y's type.
// grad[i] has the type of of[i], or is NO_VALUE where y does not depend on it. False when an op
// between them has no gradient: an error on d.
bool graph_gradients(Graph *g, Value y, Value seed, const Value *of, int n, Value *grad, Diag *d);

#endif
