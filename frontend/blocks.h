// Block bodies -> graph nodes. A body is a list of layers (blocks.def) and of other blocks; sizes
// and parameter names follow from where it stands.
#ifndef CNX_FRONTEND_BLOCKS_H
#define CNX_FRONTEND_BLOCKS_H
#include "spec.h"

// A dense convolution met on the way, for FCMAE's rules.
typedef struct {
    Loc loc;
    int64_t kernel[2], stride[2], pad[2];
} ConvSite;

// A residual branch that training drops: drop_path node `key`, at share * the run's rate.
typedef struct {
    int key;
    double share;
} DropSite;

// Where in the network a parameter stands: its layer, to layer decay and to initial values.
typedef enum { PLACE_DOWN, PLACE_BLOCK, PLACE_HEAD, PLACE_DECODER } PlaceKind;
typedef struct {
    PlaceKind kind;
    int stage;     // DOWN (the stem: 0), BLOCK
    int64_t block; // BLOCK: within its stage
} Place;

typedef enum {
    ROLE_WEIGHT,
    ROLE_BIAS,
    ROLE_NORM, // scale of a normalisation
    ROLE_NORM_BIAS,
    ROLE_GRN,
    ROLE_LAYERSCALE,
    ROLE_TOKEN
} Role;

typedef struct {
    const char *name;
    Role role;
    Op op;          // that reads it
    int64_t fan_in; // WEIGHT, BIAS: of the op's weight
    double value;   // LAYERSCALE: initial
    Type type;      // set by block_param, like the place
    Place place;
} ParamInfo;
typedef VEC(ParamInfo) ParamInfos;

typedef struct {
    Schema schema;
    const ModelSpec *spec;
    Graph *graph;
    bool failed;         // after the first error the result is meaningless
    int64_t stride[2];   // product of the strides so far
    VEC(ConvSite) leaks; // dense convolutions through which masked pixels would reach visible ones
    ParamInfos params;   // made so far, in order
    int depth;           // of blocks within blocks
    Place place;         // of what is being built
    const char *prefix;  // of all parameters' names
    // Training. mask [B,gh,gw]: the encoder of FCMAE; NO_VALUE: no mask.
    Value mask;
    bool training; // residuals get drop_path nodes
    double share;  // of the current block's drop rate in the last block's
    int residuals; // met so far: the last key
    VEC(DropSite) drops;
} Builder;

// The block's result on x; dim is the stage's channel count, prefix that of parameter names
// ("stages.0.1"). Returns NO_VALUE after an error.
Value block_build(Builder *b, const BlockUse *use, int64_t dim, const char *prefix, Value x);
// A parameter of the network, of official shape.
Value block_param(Builder *b, const ParamInfo *info, int rank, const int64_t *dims, Loc loc);
// x with the positions of hidden cells at zero; x itself where nothing is masked.
Value block_mask(Builder *b, Loc loc, const char *label, Value x);
// x with those of visible (hidden: of hidden) cells only, by mask m.
Value block_masked(Builder *b, Loc loc, const char *label, Value x, Value m, bool hidden);
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
