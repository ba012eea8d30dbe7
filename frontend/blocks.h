// Block bodies -> graph nodes. A body is a list of layers (blocks.def) and of other blocks; sizes
// and parameter names follow from where it stands.
#ifndef CNX_FRONTEND_BLOCKS_H
#define CNX_FRONTEND_BLOCKS_H
#include "spec.h"

// A strided or wide dense convolution met on the way, for FCMAE's rules.
typedef struct {
    Loc loc;
    int64_t kernel[2], stride[2];
} ConvSite;

typedef struct {
    Schema schema;
    const ModelSpec *spec;
    Graph *graph;
    bool failed;             // after the first error the result is meaningless
    int64_t stride[2];       // product of the strides so far
    VEC(ConvSite) leaks;     // dense convolutions whose kernel exceeds their stride
    VEC(const char *) names; // parameters made, in order
    int depth;               // of blocks within blocks
} Builder;

// The block's result on x; dim is the stage's channel count, prefix that of parameter names
// ("stages.0.1"). Returns NO_VALUE after an error.
Value block_build(Builder *b, const BlockUse *use, int64_t dim, const char *prefix, Value x);
// A parameter of the network: named prefix.name, official shape.
Value block_param(Builder *b, const char *name, int rank, const int64_t *dims, Loc loc);
// Appends op with everything checked: an ill-typed node is a user error at loc.
Value block_op(Builder *b, Op op, Loc loc, const char *label, const Value *args, int nargs,
               const Attr *attrs, int nattrs);
Value block_layernorm(Builder *b, Loc loc, const char *name, double eps, Value x);
Value block_linear(Builder *b, Loc loc, const char *name, int64_t out, bool bias, Value x);

// Checks names and keys of a body without building it. Returns false after errors.
bool block_check(Schema *s, const ModelSpec *spec, const BlockSpec *block);
const BlockSpec *block_find(const ModelSpec *spec, const char *name);
// Layer names in table order, their fields and docs.
int layer_count(void);
const char *layer_name(int i);
const char *layer_doc(int i);
const Field *layer_fields(int i, int *n);
int layer_find(const char *name); // -1: none

#endif
