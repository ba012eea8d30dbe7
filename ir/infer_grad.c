// The type rules of the backward side: adjoints, reductions, losses.
//
// Legend: dy cotangent of a result, n samples, h w height and width, c i o k d channels.
#include "infer_op.h"

static const char *want_same(const Infer *in, const char *what, Type x, const char *other, Type y) {
    if (type_eq(x, y)) return NULL;
    FAIL(in, "%s: %s, %s: %s", what, show(in, x), other, show(in, y));
}

// Equal types with a constant last dimension: a cotangent and what it belongs to.
static const char *want_pair_of_rows(const Infer *in, const char *what, const char *other) {
    TRY(want_channels(in, other, in->t[1]));
    return want_same(in, what, in->t[0], other, in->t[1]);
}

// ---- adjoints of shapes, reductions ------------------------------------------------------------
const char *infer_unpatchify(const Infer *in, Type *out) {
    Type image = shape_attr(in), patches;
    int64_t kernel[2], k;
    TRY(want_image(in, "shape", image));
    TRY(want_kernel(in, image.d[3].c, kernel, &k));
    TRY(windows(in, image, kernel[0], kernel[1], k, &patches));
    *out = image;
    return want_same(in, "x", in->t[0], arena_printf(in->arena, "patches of %s", show(in, image)),
                     patches);
}

const char *infer_expand(const Infer *in, Type *out) {
    Type x = in->t[0], to = shape_attr(in);
    TRY(want_channels(in, "x", x));
    TRY(want_channels(in, "shape", to));
    bool images = x.rank == 2 && to.rank >= 2 && dim_eq(x.d[0], to.d[0]);
    if ((x.rank != 1 && !images) || type_last(x) != type_last(to))
        FAIL(in, "%s is neither the channels of shape %s nor one row per image", show(in, x),
             show(in, to));
    if (images) TRY(want_static(in, "shape", to, 1));
    *out = to;
    return NULL;
}

const char *infer_image_sum(const Infer *in, Type *out) {
    Type x = in->t[0];
    TRY(want_samples(in, "x", x));
    *out = type_make(x.dt, 2, (Dim[]){x.d[0], x.d[x.rank - 1]});
    return NULL;
}

const char *infer_sum_rows(const Infer *in, Type *out) {
    TRY(want_channels(in, "x", in->t[0]));
    *out = type_make(in->t[0].dt, 1, (Dim[]){dim_c(type_last(in->t[0]))});
    return NULL;
}

// ---- sums of products --------------------------------------------------------------------------
const char *infer_linear_dw(const Infer *in, Type *out) {
    Type dy = in->t[0], x = in->t[1];
    TRY(want_channels(in, "dy", dy));
    TRY(want_channels(in, "x", x));
    bool same = dy.rank == x.rank;
    for (int i = 0; same && i + 1 < x.rank; i++) same = dim_eq(dy.d[i], x.d[i]);
    if (!same) FAIL(in, "dy %s and x %s differ in their rows", show(in, dy), show(in, x));
    if (dy.dt != x.dt)
        FAIL(in, "dy of %s and x of %s have no product", dtype_name(dy.dt), dtype_name(x.dt));
    *out = type_make(DT_F32, 2, (Dim[]){dim_c(type_last(dy)), dim_c(type_last(x))});
    return NULL;
}

const char *infer_dwconv2d_dx(const Infer *in, Type *out) {
    Type dy = in->t[0], w = in->t[1], x = shape_attr(in), y;
    TRY(want_image(in, "shape", x));
    TRY(want_weight(in, "weight", w, 4));
    if (w.d[1].c != 1 || w.d[0].c != x.d[3].c)
        FAIL(in, "weight must have shape [%lld,1,kh,kw], got %s", ll(x.d[3].c), show(in, w));
    TRY(windows(in, x, w.d[2].c, w.d[3].c, x.d[3].c, &y));
    *out = x;
    return want_same(in, "dy", dy, "the result", y);
}

const char *infer_dwconv2d_dw(const Infer *in, Type *out) {
    Type x = in->t[1], y;
    int64_t kernel[2], k;
    TRY(want_image(in, "x", x));
    TRY(want_kernel(in, 1, kernel, &k));
    TRY(windows(in, x, kernel[0], kernel[1], x.d[3].c, &y));
    *out = type_make(x.dt, 4, (Dim[]){x.d[3], dim_c(1), dim_c(kernel[0]), dim_c(kernel[1])});
    return want_same(in, "dy", in->t[0], "the result", y);
}

// ---- normalisation and activation --------------------------------------------------------------
const char *infer_layernorm_dx(const Infer *in, Type *out) {
    TRY(want_pair_of_rows(in, "dy", "x"));
    *out = in->t[1];
    return want_vector(in, "gamma", in->t[2], type_last(in->t[1]), "x");
}

const char *infer_layernorm_dgamma(const Infer *in, Type *out) {
    TRY(want_pair_of_rows(in, "dy", "x"));
    *out = type_make(in->t[1].dt, 1, (Dim[]){dim_c(type_last(in->t[1]))});
    return NULL;
}

const char *infer_normalize_dx(const Infer *in, Type *out) {
    *out = in->t[1];
    return want_pair_of_rows(in, "dy", "x");
}

const char *infer_gelu_dx(const Infer *in, Type *out) {
    *out = in->t[1];
    return want_same(in, "dy", in->t[0], "x", in->t[1]);
}

const char *infer_grn_stat_dx(const Infer *in, Type *out) {
    Type dG = in->t[0], x = in->t[1], G;
    TRY(want_samples(in, "x", x));
    const Attr *statistics = infer_attr(in, A_statistics);
    Dim n = statistics && statistics->i == 1 ? dim_c(1) : x.d[0];
    G = type_make(x.dt, 2, (Dim[]){n, x.d[x.rank - 1]});
    TRY(want_same(in, "dG", dG, "the statistic", G));
    *out = x;
    return want_same(in, "G", in->t[2], "the statistic", G);
}

static const char *want_stat_pair(const Infer *in) {
    TRY(want_rank(in, "the statistic", in->t[1], 2));
    return want_pair_of_rows(in, "ds", "the statistic");
}

const char *infer_grn_scale_dstat(const Infer *in, Type *out) {
    TRY(want_stat_pair(in));
    *out = in->t[1];
    return want_vector(in, "gamma", in->t[2], type_last(in->t[1]), "the statistic");
}

const char *infer_grn_scale_dgamma(const Infer *in, Type *out) {
    TRY(want_stat_pair(in));
    *out = type_make(in->t[1].dt, 1, (Dim[]){in->t[1].d[1]});
    return NULL;
}

const char *infer_recall(const Infer *in, Type *out) {
    *out = in->t[0];
    return NULL;
}

// ---- losses ------------------------------------------------------------------------------------
// Logits [n,k] and targets alike, from operand `at` on.
static const char *want_logits(const Infer *in, int at) {
    TRY(want_rank(in, "the logits", in->t[at], 2));
    TRY(want_static(in, "the logits", in->t[at], 1));
    return want_same(in, "the targets", in->t[at + 1], "the logits", in->t[at]);
}

static Type per_sample(Type x) { return type_make(x.dt, 1, x.d); }

// The cotangent of a loss, one per sample of x.
static const char *want_dl(const Infer *in, Type x) {
    return want_same(in, "dl", in->t[0], "the loss", per_sample(x));
}

static const char *class_loss(const Infer *in, Type *out) {
    TRY(want_logits(in, 0));
    *out = per_sample(in->t[0]);
    return NULL;
}

static const char *class_loss_dx(const Infer *in, Type *out) {
    TRY(want_logits(in, 1));
    *out = in->t[1];
    return want_dl(in, in->t[1]);
}

const char *infer_softmax_cross_entropy(const Infer *in, Type *out) { return class_loss(in, out); }

const char *infer_softmax_cross_entropy_dx(const Infer *in, Type *out) {
    return class_loss_dx(in, out);
}

const char *infer_bce_with_logits(const Infer *in, Type *out) { return class_loss(in, out); }

const char *infer_bce_with_logits_dx(const Infer *in, Type *out) { return class_loss_dx(in, out); }

const char *infer_norm_pix(const Infer *in, Type *out) {
    TRY(want_channels(in, "x", in->t[0]));
    if (type_last(in->t[0]) < 2)
        FAIL(in, "an unbiased variance needs 2 elements or more, x is %s", show(in, in->t[0]));
    *out = in->t[0];
    return NULL;
}

// Prediction, target and mask from operand `at` on.
static const char *want_masked(const Infer *in, int at) {
    Type p = in->t[at], m = in->t[at + 2];
    TRY(want_samples(in, "the prediction", p));
    TRY(want_same(in, "the target", in->t[at + 1], "the prediction", p));
    int64_t pf, pb, mf, mb;
    type_elems(p, &pf, &pb);
    type_elems(m, &mf, &mb);
    if (m.rank < 1 || !dim_eq(m.d[0], p.d[0]) || mf != pf / type_last(p) || mb != pb / type_last(p))
        FAIL(in, "the mask %s has not one element per position of the prediction %s", show(in, m),
             show(in, p));
    return NULL;
}

const char *infer_masked_mse(const Infer *in, Type *out) {
    TRY(want_masked(in, 0));
    *out = per_sample(in->t[0]);
    return NULL;
}

const char *infer_masked_mse_dx(const Infer *in, Type *out) {
    TRY(want_masked(in, 1));
    *out = in->t[1];
    return want_dl(in, in->t[1]);
}
