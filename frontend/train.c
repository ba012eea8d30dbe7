// Builds the programs of training over the same blocks as inference:
//
//   train     network with drop_path -> softmax_cross_entropy | bce_with_logits
//   pretrain  masked encoder -> projection -> mask token at the hidden cells -> decoder blocks
//             -> prediction of the pixels of every cell -> masked_mse
//   update    adamw for every parameter (and ema)
//
// Gradients come later, by the pass autodiff. The rules for parameters are those of the published
// code: layer decay counts layers from the input, and what is excluded from weight decay goes by
// the official shapes, in which GRN's vectors have rank 4.
#include "train.h"
#include <math.h>

static const double DEVIATION = 0.02; // of new weights, and of the mask token
static const double NORM_PIX_EPS = 1e-6;

// ---- optimiser ---------------------------------------------------------------------------------

static Value state_input(Graph *g, const char *slot, const ParamInfo *p) {
    return graph_input(g, arena_printf(g->arena, "%s.%s", slot, p->name), p->type, (Loc){0});
}

static void state_output(Graph *g, const char *slot, const ParamInfo *p, Value v) {
    graph_output(g, arena_printf(g->arena, "%s.%s", slot, p->name), v);
}

// Program update or update.ema.
static Graph *build_update(Arena *a, const ParamInfos *params, bool ema) {
    Graph *g = graph_new(a, ema ? "update.ema" : "update");
    Dim hypers = dim_c(HYPER_VALUES), groups[] = {dim_c(params->n), dim_c(2)};
    Value hyper = graph_input(g, "hyper", type_make(DT_F32, 1, &hypers), (Loc){0});
    Value group = graph_input(g, "groups", type_make(DT_F32, 2, groups), (Loc){0});
    for (int i = 0; i < params->n; i++) {
        const ParamInfo *p = &params->v[i];
        static const char *const states[] = {"param", "grad", "m", "v"};
        Value args[6];
        for (int k = 0; k < 4; k++) args[k] = state_input(g, states[k], p);
        args[4] = hyper, args[5] = group;
        Attr index = attr_int(A_index, i);
        Value x = graph_op(g, OP_ADAMW, (Loc){0}, p->name, args, 6, &index, 1);
        state_output(g, "param", p, x);
        state_output(g, "m", p, x + 1);
        state_output(g, "v", p, x + 2);
        if (!ema) continue;
        Value average[] = {state_input(g, "ema", p), x, hyper};
        state_output(g, "ema", p, graph_op(g, OP_EMA, (Loc){0}, p->name, average, 3, NULL, 0));
    }
    return g;
}

static void add_updates(TrainModel *out, Arena *a) {
    vec_push(a, &out->module->graphs, build_update(a, &out->params, false));
    vec_push(a, &out->module->graphs, build_update(a, &out->params, true));
}

// ---- supervised --------------------------------------------------------------------------------

int supervised_loss(const ModelSpec *spec) {
    for (int i = 0; i < spec->recipes.n; i++) // they agree: spec_check
        if (spec->recipes.v[i].kind != RECIPE_PRETRAIN) return spec->recipes.v[i].loss;
    return LOSS_CROSS_ENTROPY;
}

bool train_build(TrainModel *out, const ModelSpec *spec, Diag *d) {
    Arena *a = spec->arena;
    Builder b = network_builder(a, d, spec, "train");
    b.training = true;
    Value x = network_image(&b), pooled = NO_VALUE;
    Dim dims[] = {dim_b(1), dim_c(spec->head.classes)};
    Value target = graph_input(b.graph, "target", type_make(DT_F32, 2, dims), (Loc){0});
    for (int i = 0; i < spec->stages.n && x != NO_VALUE; i++) x = network_stage(&b, i, x);
    Value logits = x == NO_VALUE ? NO_VALUE : network_logits(&b, x, &pooled);
    if (logits == NO_VALUE || b.failed) return false;
    Op op = supervised_loss(spec) == LOSS_BCE ? OP_BCE_WITH_LOGITS : OP_SOFTMAX_CROSS_ENTROPY;
    Value loss = block_op(&b, op, spec->head.loc, "loss", (Value[]){logits, target}, 2, NULL, 0);
    graph_output(b.graph, "loss", loss);
    graph_output(b.graph, "logits", logits);
    *out = (TrainModel){.module = module_new(a), .params = b.params};
    for (int i = 0; i < b.drops.n; i++) vec_push(a, &out->drops, b.drops.v[i]);
    vec_push(a, &out->module->graphs, b.graph);
    add_updates(out, a);
    return true;
}

// ---- masked ------------------------------------------------------------------------------------

static Value masked_input(Builder *b) {
    const FcmaeSpec *f = &b->spec->fcmae;
    Dim d[] = {dim_b(1), dim_c(f->grid[0] * f->mask_unit), dim_c(f->grid[1] * f->mask_unit)};
    return graph_input(b->graph, "mask", type_make(DT_F32, 3, d), f->loc);
}

// The last stage with zeros in hidden cells. Only depthwise convolutions and GRN's statistics mix
// positions, and they read masked values: what stands at hidden positions in between is never seen.
static Value encode(Builder *b, Value x, Value mask) {
    b->prefix = "encoder.";
    b->mask = mask;
    for (int i = 0; i < b->spec->stages.n && x != NO_VALUE; i++) x = network_stage(b, i, x);
    if (x != NO_VALUE) x = block_mask(b, b->spec->fcmae.loc, "encoder", x);
    b->prefix = "";
    b->mask = NO_VALUE;
    b->place = (Place){PLACE_DECODER, 0, 0};
    return x;
}

// Official shape [out,in,1,1].
static Value pointwise(Builder *b, const char *name, int64_t out, Value x) {
    int64_t in = type_last(graph_type(b->graph, x)), d[] = {out, in, 1, 1};
    Loc loc = b->spec->fcmae.loc;
    ParamInfo weight = {.name = arena_printf(b->schema.arena, "%s.weight", name),
                        .role = ROLE_WEIGHT,
                        .op = OP_CONV2D,
                        .fan_in = in};
    ParamInfo bias = {.name = arena_printf(b->schema.arena, "%s.bias", name),
                      .role = ROLE_BIAS,
                      .op = OP_CONV2D,
                      .fan_in = in};
    Value args[] = {x, NO_VALUE, NO_VALUE};
    args[1] = block_param(b, &weight, 4, d, loc);
    args[2] = block_param(b, &bias, 1, d, loc);
    Attr attrs[] = {attr_ints2(b->schema.arena, A_stride, 1, 1),
                    attr_ints2(b->schema.arena, A_pad, 0, 0)};
    return block_op(b, OP_CONV2D, loc, name, args, 3, attrs, 2);
}

// Projected features in visible cells, the mask token in hidden ones.
static Value fill_token(Builder *b, Value x, Value mask) {
    Loc loc = b->spec->fcmae.loc;
    int64_t d[] = {1, b->spec->fcmae.decoder_dim, 1, 1};
    Type t = graph_type(b->graph, x);
    ParamInfo info = {.name = "mask_token", .role = ROLE_TOKEN, .op = OP_EXPAND};
    Value token = block_param(b, &info, 4, d, loc);
    Dim flat = dim_c(d[1]);
    Attr vector = attr_dims(b->schema.arena, A_shape, &flat, 1);
    Attr shape = attr_dims(b->schema.arena, A_shape, t.d, t.rank);
    token = block_op(b, OP_RESHAPE, loc, "mask_token", &token, 1, &vector, 1);
    token = block_op(b, OP_EXPAND, loc, "mask_token", &token, 1, &shape, 1);
    token = block_masked(b, loc, "mask_token", token, mask, true);
    x = block_masked(b, loc, "proj", x, mask, false);
    return block_op(b, OP_ADD, loc, "mask_token", (Value[]){x, token}, 2, NULL, 0);
}

// The pixels of every cell, in the order row, column, channel.
static Value patch_targets(Builder *b, Value image) {
    const FcmaeSpec *f = &b->spec->fcmae;
    Attr attrs[] = {attr_ints2(b->schema.arena, A_kernel, f->stride[0], f->stride[1]),
                    attr_ints2(b->schema.arena, A_stride, f->stride[0], f->stride[1]),
                    attr_ints2(b->schema.arena, A_pad, 0, 0)};
    Value x = block_op(b, OP_PATCHIFY, f->loc, "target", &image, 1, attrs, 3);
    Attr eps = attr_f64(A_eps, NORM_PIX_EPS);
    return f->norm_pix_loss ? block_op(b, OP_NORM_PIX, f->loc, "target", &x, 1, &eps, 1) : x;
}

// Program pretrain, or reconstruct with the prediction.
static bool build_masked(Builder *b, bool reconstruct) {
    const FcmaeSpec *f = &b->spec->fcmae;
    Value image = network_image(b), mask = masked_input(b);
    Value x = encode(b, image, mask);
    if (x == NO_VALUE) return false;
    x = pointwise(b, "proj", f->decoder_dim, x);
    if (x != NO_VALUE) x = fill_token(b, x, mask);
    for (int64_t j = 0; j < f->decoder_depth && x != NO_VALUE; j++) {
        const char *prefix = arena_printf(b->schema.arena, "decoder.%lld", (long long)j);
        x = block_build(b, &f->decoder, f->decoder_dim, prefix, x);
    }
    if (x == NO_VALUE) return false;
    Value pred = pointwise(b, "pred", f->values, x), target = patch_targets(b, image);
    Value loss =
        block_op(b, OP_MASKED_MSE, f->loc, "loss", (Value[]){pred, target, mask}, 3, NULL, 0);
    if (loss == NO_VALUE) return false;
    graph_output(b->graph, "loss", loss);
    if (reconstruct) graph_output(b->graph, "pred", pred);
    return !b->failed;
}

bool pretrain_build(TrainModel *out, const ModelSpec *spec, Diag *d) {
    static const char *const names[] = {"pretrain", "reconstruct"};
    *out = (TrainModel){.module = module_new(spec->arena)};
    for (int i = 0; i < 2; i++) {
        Builder b = network_builder(spec->arena, d, spec, names[i]);
        if (!build_masked(&b, i == 1)) return false;
        vec_push(spec->arena, &out->module->graphs, b.graph);
        out->params = b.params;
    }
    add_updates(out, spec->arena);
    return true;
}

// ---- initial values ----------------------------------------------------------------------------

// As the official code of FCMAE draws weights: only strided sparse convolutions at 0.02; what is a
// plain or depthwise convolution, or a linear map of the encoder, at deviation 1; linear maps of
// the decoder by PyTorch's default.
static InitRule official_init(const ParamInfo *p, double *value) {
    bool decoder = p->place.kind == PLACE_DECODER;
    bool strided = p->op == OP_CONV2D && p->place.kind == PLACE_DOWN && p->place.stage > 0;
    *value = 0;
    if (decoder && p->op == OP_LINEAR) {
        *value = 1 / sqrt((double)p->fan_in);
        return INIT_UNIFORM;
    }
    if (p->role == ROLE_BIAS) return INIT_CONSTANT;
    *value = strided ? DEVIATION : 1;
    return INIT_NORMAL;
}

InitRule param_init(const ParamInfo *p, bool official, double *value) {
    *value = 0;
    switch (p->role) {
    case ROLE_WEIGHT:
        if (official) return official_init(p, value);
        *value = DEVIATION;
        return INIT_NORMAL;
    case ROLE_BIAS: return official ? official_init(p, value) : INIT_CONSTANT;
    case ROLE_TOKEN: *value = DEVIATION; return INIT_NORMAL;
    case ROLE_NORM: *value = 1; break;
    case ROLE_LAYERSCALE: *value = p->value; break;
    case ROLE_NORM_BIAS:
    case ROLE_GRN: break;
    }
    return INIT_CONSTANT;
}

// ---- recipes: factors by parameter -------------------------------------------------------------

// Whether weight decay leaves the parameter alone. GRN's vectors are no vectors here: the official
// shape is (1,1,1,k).
static bool decay_exempt(const ParamInfo *p, unsigned no_decay) {
    bool scale = p->role == ROLE_GRN || p->role == ROLE_LAYERSCALE;
    bool bias = p->role == ROLE_BIAS || p->role == ROLE_NORM_BIAS;
    bool vector = bias || p->role == ROLE_NORM || p->role == ROLE_LAYERSCALE;
    return (vector && (no_decay & NO_DECAY_VECTORS)) || (bias && (no_decay & NO_DECAY_BIAS)) ||
           (scale && (no_decay & NO_DECAY_SCALE));
}

// Layers between a parameter and the head, whose distance is 0.
//   single  one layer per block, a downsampling with the block that follows; the stem with block 0
//   group   depths 3,3,27,3 in twelve groups: stem | stage 0 | downsampling and stage 1 |
//           downsampling | stage 2 by three blocks | downsampling and stage 3
static int64_t layer_distance(const ModelSpec *spec, int kind, Place p) {
    static const int64_t group_of_down[] = {0, 2, 3, 12}, group_of_stage[] = {1, 2, 3, 12};
    if (p.kind == PLACE_HEAD || p.kind == PLACE_DECODER || kind == DECAY_NONE) return 0;
    if (kind == DECAY_SINGLE)
        return spec_blocks(spec, spec->stages.n) - spec_blocks(spec, p.stage) -
               (p.kind == PLACE_BLOCK ? p.block : 0);
    if (p.kind == PLACE_DOWN) return 13 - group_of_down[p.stage];
    return 13 - group_of_stage[p.stage] - (p.stage == 2 ? p.block / 3 : 0);
}

float *recipe_groups(Arena *a, const ModelSpec *spec, const RecipeSpec *r, const ParamInfo *params,
                     int n) {
    float *groups = NEWN(a, float, 2 * n + 1);
    for (int i = 0; i < n; i++) {
        int64_t distance = layer_distance(spec, r->layer_decay.kind, params[i].place);
        groups[2 * i] = (float)pow(r->layer_decay.rate, (double)distance);
        groups[2 * i + 1] = decay_exempt(&params[i], r->no_decay) ? 0 : 1;
    }
    return groups;
}
