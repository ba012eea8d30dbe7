// From a checked spec to whole networks, and FCMAE's geometry.
#ifndef CNX_FRONTEND_NETWORK_H
#define CNX_FRONTEND_NETWORK_H
#include "blocks.h"

// One stage's result and what it took, for summaries.
typedef struct {
    Type type; // [B,h,w,c]
    int64_t params, macs;
} StageInfo;
typedef struct {
    StageInfo stem;   // within stage 0
    StageInfo *stage; // downsampling included
    StageInfo head;
    int64_t params, macs;
} NetworkInfo;

// The input image, stage i on x with what leads into it, the head on the last stage: NO_VALUE after
// errors (and for logits where there are no classes).
Value network_image(Builder *b);
Value network_stage(Builder *b, int i, Value x);
Value network_logits(Builder *b, Value x, Value *pooled);
// Blocks of the first `stages` stages.
int64_t spec_blocks(const ModelSpec *spec, int stages);
// Builds program `infer` or `features` into b->graph. Returns false after errors.
bool network_build(Builder *b, bool features);
Builder network_builder(Arena *a, Diag *d, const ModelSpec *spec, const char *program);
// Totals per part, from a built graph.
NetworkInfo network_info(Arena *a, const ModelSpec *spec);
// Elements of all parameters of a graph.
int64_t graph_params(const Graph *g);
// Fills the derived fields of spec->fcmae from the built encoder; leaves pretrain out of
// spec->programs with a note, or reports errors when it was asked for. False after errors.
bool fcmae_check(ModelSpec *spec, Diag *d, const Builder *encoder);

#endif
