// A checked model: what a YAML spec says, with every default filled in and every rule verified.
// Network structure stays as block bodies (YAML trees); blocks.h turns them into graphs.
#ifndef CNX_FRONTEND_SPEC_H
#define CNX_FRONTEND_SPEC_H
#include "../ir/graph.h"
#include "recipe.h"
#include "schema.h"

typedef struct {
    int64_t channels, height, width;
    const double *mean, *std; // one per channel
    double crop_pct;
    int interpolation; // 0 bicubic, 1 bilinear
    bool warp;         // resize both sides, aspect ignored; else short side and centre crop
} InputSpec;

typedef struct {
    const char *name;
    Loc loc;
    const Yaml *params; // map of defaults, may be NULL
    const Yaml *body;   // list of layers
} BlockSpec;

// A block at a place of the network: `block: NAME` plus values for its parameters.
typedef struct {
    const BlockSpec *block; // NULL: none
    const Yaml *args;       // the map it came from
    Loc loc;
    const char *name; // prefix of parameter names
} BlockUse;

typedef struct {
    Loc loc;
    int64_t dim, depth;
    BlockUse use;        // repeated depth times as <name>.<j>
    BlockUse downsample; // what leads into the stage (the stem, for stage 0)
} StageSpec;

typedef struct {
    bool present;
    Loc loc;
    int64_t classes; // 0: no logits
    bool norm;
    double eps;
} HeadSpec;

typedef struct {
    bool present;
    Loc loc;
    double mask_ratio;
    int64_t mask_unit; // side of a mask unit in total strides
    bool norm_pix_loss;
    bool official_init;
    int64_t decoder_dim, decoder_depth;
    BlockUse decoder;
    // Found by fcmae_check:
    int64_t stride[2], grid[2]; // total stride; mask units
    int64_t units, keep;        // per image: all, visible
    int64_t values;             // predicted per stride cell: stride * stride * channels
    int64_t params;             // of decoder, mask token, projections
} FcmaeSpec;

enum { PROGRAM_INFER = 1, PROGRAM_TRAIN = 2, PROGRAM_PRETRAIN = 4 };
#define PROGRAM_WORDS "infer|train|pretrain"

typedef struct {
    Arena *arena;
    const Yaml *root;
    const char *name;
    InputSpec input;
    VEC(BlockSpec) blocks;
    VEC(StageSpec) stages;
    HeadSpec head;
    FcmaeSpec fcmae;
    VEC(RecipeSpec) recipes;
    struct SpecPrecision {
        const char *text; // "int8", "head=fp32" or a list of these
        Loc loc;
    } * precision;
    int nprecision;
    double drop_path;
    unsigned programs;       // PROGRAM_*: what the artifact holds
    unsigned asked;          // named by `programs` or --programs; 0: whatever the spec supports
    VEC(const char *) notes; // what was assumed or left out, for `check`
} ModelSpec;

// Checks root and the networks it describes. programs: comma-separated names over the spec's own
// key, or NULL. Returns NULL after errors on d.
ModelSpec *spec_check(Arena *a, Diag *d, const Yaml *root, const char *programs);
// Finds the file (yaml_find), applies sets, checks.
ModelSpec *spec_load(Arena *a, Diag *d, const char *name, YamlDirs dirs, const char *const *sets,
                     int nsets, const char *programs);
// The programs `infer` and `features` of a checked spec.
Module *spec_module(const ModelSpec *spec, Diag *d);

#endif
