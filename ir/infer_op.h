// Inside the type rules: what an infer_<op> function gets, the checks that rules share, and the
// rules themselves, declared from the op table so that a row without one does not link.
#ifndef CNX_IR_INFER_OP_H
#define CNX_IR_INFER_OP_H
#include "graph.h"

typedef struct {
    Arena *arena;
    const NodeSpec *spec;
    const Type *t; // operand types
    int n;         // operands
} Infer;

// Each returns NULL or the reason, and fills out[0..results).
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc)                                  \
    const char *infer_##name(const Infer *in, Type *out);
#include "ops.def"
#undef OP

#define FAIL(in, ...) return arena_printf((in)->arena, __VA_ARGS__)
#define TRY(x)                                                                                     \
    do {                                                                                           \
        const char *why_ = (x);                                                                    \
        if (why_) return why_;                                                                     \
    } while (0)

static inline long long ll(int64_t i) { return (long long)i; }

// ---- checks (infer.c); what names the operand in the reason -------------------------------------
const Attr *infer_attr(const Infer *in, AttrId id); // NULL when not set
const char *show(const Infer *in, Type t);
const char *want_rank(const Infer *in, const char *what, Type t, int rank);
const char *want_min_rank(const Infer *in, const char *what, Type t, int rank);
// Dimensions from `from` on must be constants.
const char *want_static(const Infer *in, const char *what, Type t, int from);
// A weight-like operand: this rank, no batch.
const char *want_weight(const Infer *in, const char *what, Type t, int rank);
// A vector [n], n being the channels of `of`.
const char *want_vector(const Infer *in, const char *what, Type t, int64_t n, const char *of);
// Channels last: rank >= 1 and a constant last dimension.
const char *want_channels(const Infer *in, const char *what, Type t);
// [n,...,k] with constants after n.
const char *want_samples(const Infer *in, const char *what, Type t);
// An image batch [n,h,w,c].
const char *want_image(const Infer *in, const char *what, Type t);
// Exactly two integers >= lo; an absent attribute is [0, 0].
const char *want_pair(const Infer *in, AttrId id, int64_t lo, int64_t out[2]);
// The attribute `kernel` over c channels: *k = kh*kw*c elements of a patch.
const char *want_kernel(const Infer *in, int64_t c, int64_t kernel[2], int64_t *k);
// x [n,h,w,c] under kernel kh x kw with the node's stride and pad -> [n,ho,wo,channels].
const char *windows(const Infer *in, Type x, int64_t kh, int64_t kw, int64_t channels, Type *out);
// The type the attribute `shape` names.
Type shape_attr(const Infer *in);
#endif
