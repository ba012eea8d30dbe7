// The type rules of leaves and forward ops, and the walk over the table; those of the backward side
// and the losses are in infer_grad.c, those of packed rows and the optimiser in infer_packed.c.
//
// infer_node first checks what the table says (arity, attributes and their kinds, operands that
// exist), so a rule sees well-formed attributes and operand types only. Limits on dimensions and
// element counts keep every product of later code within int64. Reasons name both values.
//
// Legend: n images, h w height and width, c i o channels, k depth, kh kw kernel.
#include "infer_op.h"
#include <math.h>

#define MAX_DIM ((int64_t)INT32_MAX)
#define MAX_ELEMS ((int64_t)1 << 40)
#define MAX_PANEL 256 // no GEMM panel is wider: a packed weight keeps within MAX_ELEMS

const Attr *infer_attr(const Infer *in, AttrId id) {
    for (int i = 0; i < in->spec->nattrs; i++)
        if (in->spec->attrs[i].id == id) return &in->spec->attrs[i];
    return NULL;
}

const char *show(const Infer *in, Type t) { return type_print(in->arena, t); }

// ---- checks shared by the rules ----------------------------------------------------------------
const char *want_rank(const Infer *in, const char *what, Type t, int rank) {
    if (t.rank == rank) return NULL;
    FAIL(in, "%s must have rank %d, got %s", what, rank, show(in, t));
}

const char *want_min_rank(const Infer *in, const char *what, Type t, int rank) {
    if (t.rank >= rank) return NULL;
    FAIL(in, "%s must have rank %d or more, got %s", what, rank, show(in, t));
}

const char *want_static(const Infer *in, const char *what, Type t, int from) {
    for (int i = from; i < t.rank; i++)
        if (t.d[i].b)
            FAIL(in, "%s: dimension %d must not depend on the batch, got %s", what, i, show(in, t));
    return NULL;
}

const char *want_weight(const Infer *in, const char *what, Type t, int rank) {
    TRY(want_rank(in, what, t, rank));
    return want_static(in, what, t, 0);
}

const char *want_vector(const Infer *in, const char *what, Type t, int64_t n, const char *of) {
    TRY(want_weight(in, what, t, 1));
    if (t.d[0].c != n)
        FAIL(in, "%s has %lld elements, %s has %lld channels", what, ll(t.d[0].c), of, ll(n));
    return NULL;
}

const char *want_channels(const Infer *in, const char *what, Type t) {
    TRY(want_min_rank(in, what, t, 1));
    return want_static(in, what, t, t.rank - 1);
}

// Bounds that keep every product within int64.
static const char *check_dims(const Infer *in, const char *name, const Dim *d, int rank) {
    int64_t elems = 1;
    int batches = 0;
    if (rank < 0 || rank > MAX_RANK)
        FAIL(in, "%s has rank %d, at most %d is allowed", name, rank, MAX_RANK);
    for (int i = 0; i < rank; i++) {
        if (d[i].c < 1 || d[i].c > MAX_DIM)
            FAIL(in, "%s: dimension %d is %lld, allowed are 1 to %lld", name, i, ll(d[i].c),
                 ll(MAX_DIM));
        if (elems > MAX_ELEMS / d[i].c)
            FAIL(in, "%s has more than %lld elements", name, ll(MAX_ELEMS));
        elems *= d[i].c;
        batches += d[i].b;
    }
    if (batches > 1) FAIL(in, "%s has %d batch dimensions, at most one is allowed", name, batches);
    return NULL;
}

const char *want_image(const Infer *in, const char *what, Type t) {
    TRY(want_rank(in, what, t, 4));
    return want_static(in, what, t, 1);
}

const char *want_pair(const Infer *in, AttrId id, int64_t lo, int64_t out[2]) {
    const Attr *a = infer_attr(in, id);
    int n = a ? a->ints.n : 0;
    out[0] = out[1] = 0;
    if (n == 0 && lo == 0) return NULL;
    if (n != 2) FAIL(in, "%s must be two integers, got %d", attr_info[id].name, n);
    for (int i = 0; i < 2; i++) {
        out[i] = a->ints.v[i];
        if (out[i] < lo || out[i] > MAX_DIM)
            FAIL(in, "%s must be at least %lld, got %lld", attr_info[id].name, ll(lo), ll(out[i]));
    }
    return NULL;
}

// Result size of a window of k over size pixels.
static const char *window(const Infer *in, const char *axis, int64_t size, int64_t k,
                          int64_t stride, int64_t pad, int64_t *out) {
    if (size + 2 * pad < k)
        FAIL(in, "kernel %s %lld is larger than the padded input's %lld", axis, ll(k),
             ll(size + 2 * pad));
    *out = (size + 2 * pad - k) / stride + 1;
    return NULL;
}

const char *windows(const Infer *in, Type x, int64_t kh, int64_t kw, int64_t channels, Type *out) {
    int64_t stride[2], pad[2], ho = 0, wo = 0;
    TRY(want_pair(in, A_stride, 1, stride));
    TRY(want_pair(in, A_pad, 0, pad));
    TRY(window(in, "height", x.d[1].c, kh, stride[0], pad[0], &ho));
    TRY(window(in, "width", x.d[2].c, kw, stride[1], pad[1], &wo));
    *out = type_make(x.dt, 4, (Dim[]){x.d[0], dim_c(ho), dim_c(wo), dim_c(channels)});
    return NULL;
}

static const char *want_bias(const Infer *in, int64_t o) {
    if (in->n < 3) return NULL;
    return want_vector(in, "bias", in->t[2], o, "the result");
}

// ---- leaves ------------------------------------------------------------------------------------
const char *infer_input(const Infer *in, Type *out) {
    *out = in->spec->type;
    return NULL;
}

const char *infer_param(const Infer *in, Type *out) {
    const Attr *name = infer_attr(in, A_name);
    if (!name || !name->s[0]) FAIL(in, "name is missing");
    TRY(want_static(in, "the type", in->spec->type, 0));
    *out = in->spec->type;
    return NULL;
}

const char *infer_constant(const Infer *in, Type *out) {
    const Attr *value = infer_attr(in, A_value);
    int64_t fixed, per_image, n = value ? value->data.n : 0;
    type_elems(in->spec->type, &fixed, &per_image);
    if (n != 1 && (n == 0 || n != fixed))
        FAIL(in, "value has %lld elements, the type %s needs 1%s", ll(n), show(in, in->spec->type),
             fixed > 1 ? arena_printf(in->arena, " or %lld", ll(fixed)) : "");
    *out = in->spec->type;
    return NULL;
}

// ---- shape and order ---------------------------------------------------------------------------
Type shape_attr(const Infer *in) {
    const Attr *shape = infer_attr(in, A_shape);
    Type t = {.dt = in->t[0].dt, .rank = (uint8_t)(shape ? shape->dims.n : 0)};
    for (int i = 0; i < t.rank; i++) t.d[i] = shape->dims.v[i];
    return t;
}

const char *infer_reshape(const Infer *in, Type *out) {
    Type r = shape_attr(in);
    int64_t f0, b0, f1, b1;
    type_elems(in->t[0], &f0, &b0);
    type_elems(r, &f1, &b1);
    if (f0 != f1 || b0 != b1)
        FAIL(in, "%s and shape %s differ in their number of elements", show(in, in->t[0]),
             show(in, r));
    *out = r;
    return NULL;
}

const char *infer_transpose(const Infer *in, Type *out) {
    const Attr *perm = infer_attr(in, A_perm);
    int rank = in->t[0].rank, n = perm ? perm->ints.n : 0;
    if (n != rank) FAIL(in, "perm has %d entries, x has rank %d", n, rank);
    unsigned seen = 0;
    out->dt = in->t[0].dt;
    out->rank = (uint8_t)rank;
    for (int i = 0; i < rank; i++) {
        int64_t p = perm->ints.v[i];
        if (p < 0 || p >= rank || seen >> p & 1)
            FAIL(in, "perm is no permutation of 0..%d: entry %d is %lld", rank - 1, i, ll(p));
        seen |= 1u << p;
        out->d[i] = in->t[0].d[p];
    }
    return NULL;
}

static const char *want_positive(const Infer *in, AttrId id, int64_t *out) {
    const Attr *a = infer_attr(in, id);
    *out = a ? a->i : 0;
    if (*out < 1 || *out > MAX_DIM)
        FAIL(in, "%s must be 1 or more, got %lld", attr_info[id].name, ll(*out));
    return NULL;
}

const char *infer_tile(const Infer *in, Type *out) {
    int64_t times;
    TRY(want_weight(in, "x", in->t[0], 1));
    TRY(want_positive(in, A_times, &times));
    *out = type_make(in->t[0].dt, 1, (Dim[]){dim_c(in->t[0].d[0].c * times)});
    return NULL;
}

// Elements of a patch of kh x kw pixels of c channels.
static const char *patch_size(const Infer *in, int64_t kh, int64_t kw, int64_t c, int64_t *k) {
    if (__builtin_mul_overflow(kh * kw, c, k) || *k > MAX_DIM)
        FAIL(in, "a patch of %lld x %lld x %lld is too large", ll(kh), ll(kw), ll(c));
    return NULL;
}

const char *want_kernel(const Infer *in, int64_t c, int64_t kernel[2], int64_t *k) {
    TRY(want_pair(in, A_kernel, 1, kernel));
    return patch_size(in, kernel[0], kernel[1], c, k);
}

const char *infer_patchify(const Infer *in, Type *out) {
    int64_t kernel[2], k;
    TRY(want_image(in, "x", in->t[0]));
    TRY(want_kernel(in, in->t[0].d[3].c, kernel, &k));
    return windows(in, in->t[0], kernel[0], kernel[1], k, out);
}

const char *infer_pack(const Infer *in, Type *out) {
    int64_t nr;
    TRY(want_weight(in, "x", in->t[0], 2));
    TRY(want_positive(in, A_nr, &nr));
    int64_t n = in->t[0].d[0].c, k = in->t[0].d[1].c, g = 4 / dtype_bytes(in->t[0].dt);
    if (k % g)
        FAIL(in, "x has depth %lld, of %s it must be a multiple of %lld", ll(k),
             dtype_name(in->t[0].dt), ll(g));
    *out =
        type_make(in->t[0].dt, 3, (Dim[]){dim_c((n + nr - 1) / nr), dim_c(k / g), dim_c(nr * g)});
    return NULL;
}

// ---- narrow numbers ----------------------------------------------------------------------------
const char *infer_cast(const Infer *in, Type *out) {
    const Attr *dtype = infer_attr(in, A_dtype);
    *out = in->t[0];
    out->dt = dtype_of_word(dtype ? dtype->i : 0);
    if (out->dt != DT_F32 && out->dt != DT_BF16)
        FAIL(in, "dtype must be f32 or bf16, got %s", dtype_name(out->dt));
    return NULL;
}

const char *infer_quantize(const Infer *in, Type *out) {
    TRY(want_weight(in, "grid", in->t[1], 1));
    if (in->t[1].d[0].c != 2) FAIL(in, "grid must have 2 elements, has %lld", ll(in->t[1].d[0].c));
    *out = in->t[0];
    out->dt = DT_U8;
    return NULL;
}

const char *infer_quantize_rows(const Infer *in, Type *out) {
    TRY(want_weight(in, "w", in->t[0], 2));
    out[0] = in->t[0];
    out[0].dt = DT_I8;
    out[1] = type_make(DT_F32, 1, (Dim[]){in->t[0].d[0]});
    return NULL;
}

// ---- linear algebra ----------------------------------------------------------------------------
// A convolution of x is a product with the matrix of its patches: that is within bounds too.
static const char *want_patches(const Infer *in, Type x, int64_t kh, int64_t kw, int64_t c) {
    int64_t k = 0;
    Type patches;
    TRY(patch_size(in, kh, kw, c, &k));
    TRY(windows(in, x, kh, kw, k, &patches));
    return check_dims(in, "the matrix of its patches", patches.d, 4);
}

const char *infer_conv2d(const Infer *in, Type *out) {
    Type x = in->t[0], w = in->t[1];
    TRY(want_image(in, "x", x));
    TRY(want_weight(in, "weight", w, 4));
    if (w.d[1].c != x.d[3].c)
        FAIL(in, "weight expects %lld input channels, x has %lld", ll(w.d[1].c), ll(x.d[3].c));
    TRY(want_bias(in, w.d[0].c));
    TRY(want_patches(in, x, w.d[2].c, w.d[3].c, w.d[1].c));
    return windows(in, x, w.d[2].c, w.d[3].c, w.d[0].c, out);
}

const char *infer_dwconv2d(const Infer *in, Type *out) {
    Type x = in->t[0], w = in->t[1];
    TRY(want_image(in, "x", x));
    TRY(want_weight(in, "weight", w, 4));
    if (w.d[1].c != 1)
        FAIL(in, "weight must have shape [c,1,kh,kw], got %s with %lld inputs per channel",
             show(in, w), ll(w.d[1].c));
    if (w.d[0].c != x.d[3].c)
        FAIL(in, "weight has %lld channels, x has %lld", ll(w.d[0].c), ll(x.d[3].c));
    TRY(want_bias(in, w.d[0].c));
    TRY(want_patches(in, x, w.d[2].c, w.d[3].c, 1));
    return windows(in, x, w.d[2].c, w.d[3].c, w.d[0].c, out);
}

const char *infer_linear(const Infer *in, Type *out) {
    Type x = in->t[0], w = in->t[1];
    TRY(want_channels(in, "x", x));
    TRY(want_weight(in, "weight", w, 2));
    if (w.d[1].c != type_last(x))
        FAIL(in, "weight expects %lld inputs, x has %lld channels", ll(w.d[1].c), ll(type_last(x)));
    if (w.d[0].c + MAX_PANEL > MAX_ELEMS / w.d[1].c)
        FAIL(in, "weight has more than %lld elements in panels", ll(MAX_ELEMS));
    TRY(want_bias(in, w.d[0].c));
    if (w.dt != (x.dt == DT_U8 ? DT_I8 : x.dt))
        FAIL(in, "x of %s and weight of %s have no product", dtype_name(x.dt), dtype_name(w.dt));
    *out = x;
    out->dt = DT_F32;
    out->d[x.rank - 1] = w.d[0];
    return NULL;
}

// ---- normalisation and activation --------------------------------------------------------------
const char *infer_layernorm(const Infer *in, Type *out) {
    TRY(want_channels(in, "x", in->t[0]));
    TRY(want_vector(in, "gamma", in->t[1], type_last(in->t[0]), "x"));
    TRY(want_vector(in, "beta", in->t[2], type_last(in->t[0]), "x"));
    *out = in->t[0];
    return NULL;
}

const char *infer_normalize(const Infer *in, Type *out) {
    TRY(want_channels(in, "x", in->t[0]));
    *out = in->t[0];
    return NULL;
}

const char *infer_gelu(const Infer *in, Type *out) {
    *out = in->t[0];
    return NULL;
}

const char *want_samples(const Infer *in, const char *what, Type t) {
    TRY(want_min_rank(in, what, t, 2));
    return want_static(in, what, t, 1);
}

const char *infer_grn(const Infer *in, Type *out) {
    TRY(want_samples(in, "x", in->t[0]));
    TRY(want_vector(in, "gamma", in->t[1], type_last(in->t[0]), "x"));
    TRY(want_vector(in, "beta", in->t[2], type_last(in->t[0]), "x"));
    *out = in->t[0];
    return NULL;
}

const char *infer_grn_stat(const Infer *in, Type *out) {
    Type x = in->t[0];
    const Attr *statistics = infer_attr(in, A_statistics);
    TRY(want_samples(in, "x", x));
    Dim n = statistics && statistics->i == 1 ? dim_c(1) : x.d[0];
    *out = type_make(x.dt, 2, (Dim[]){n, x.d[x.rank - 1]});
    return NULL;
}

const char *infer_grn_scale(const Infer *in, Type *out) {
    TRY(want_rank(in, "the statistic", in->t[0], 2));
    TRY(want_static(in, "the statistic", in->t[0], 1));
    TRY(want_vector(in, "gamma", in->t[1], type_last(in->t[0]), "the statistic"));
    *out = in->t[0];
    return NULL;
}

// ---- elementwise -------------------------------------------------------------------------------
const char *infer_add(const Infer *in, Type *out) {
    Type x = in->t[0], y = in->t[1];
    *out = x;
    if (type_eq(x, y)) return NULL;
    if (x.rank >= 1 && y.rank == 1 && dim_eq(x.d[x.rank - 1], y.d[0])) return NULL;
    FAIL(in, "shapes differ: %s and %s (equal shapes, or y the channels of x)", show(in, x),
         show(in, y));
}

const char *infer_mul(const Infer *in, Type *out) {
    *out = in->t[0];
    if (type_eq(in->t[0], in->t[1])) return NULL;
    FAIL(in, "shapes differ: %s and %s", show(in, in->t[0]), show(in, in->t[1]));
}

const char *infer_scale(const Infer *in, Type *out) {
    Type x = in->t[0], s = in->t[1];
    TRY(want_channels(in, "x", x));
    *out = x;
    if (s.rank == 1) return want_vector(in, "the scale", s, type_last(x), "x");
    if (s.rank != 2 || x.rank < 2)
        FAIL(in, "the scale of %s must be [c], [n,c] or [1,c], got %s", show(in, x), show(in, s));
    TRY(want_static(in, "the scale", s, 1));
    if (s.d[1].c != type_last(x))
        FAIL(in, "the scale has %lld channels, x has %lld", ll(s.d[1].c), ll(type_last(x)));
    if (!dim_eq(s.d[0], x.d[0]) && !dim_eq(s.d[0], dim_c(1)))
        FAIL(in, "the scale %s is neither per image nor shared by the images of %s", show(in, s),
             show(in, x));
    return NULL;
}

const char *infer_scale_rows(const Infer *in, Type *out) {
    Type x = in->t[0], s = in->t[1];
    TRY(want_min_rank(in, "x", x, 1));
    TRY(want_rank(in, "the scale", s, 1));
    if (!dim_eq(s.d[0], x.d[0]))
        FAIL(in, "the scale is %s, x has the rows of %s", show(in, s), show(in, x));
    *out = x;
    return NULL;
}

const char *infer_drop_path(const Infer *in, Type *out) {
    const Attr *rate = infer_attr(in, A_rate);
    TRY(want_min_rank(in, "x", in->t[0], 1));
    if (rate && !(rate->f >= 0 && rate->f < 1))
        FAIL(in, "rate must be at least 0 and below 1, got %g", rate->f);
    *out = in->t[0];
    return NULL;
}

// ---- reductions and structure ------------------------------------------------------------------
const char *infer_global_avg_pool(const Infer *in, Type *out) {
    Type x = in->t[0];
    TRY(want_samples(in, "x", x));
    *out = type_make(x.dt, 2, (Dim[]){x.d[0], x.d[x.rank - 1]});
    return NULL;
}

const char *infer_group(const Infer *in, Type *out) {
    const Graph *body = in->spec->body;
    if (body->inputs.n != in->n)
        FAIL(in, "the body has %d inputs, the group %d operands", body->inputs.n, in->n);
    for (int i = 0; i < in->n; i++) {
        Type t = graph_type(body, body->inputs.v[i]);
        if (!type_eq(t, in->t[i]))
            FAIL(in, "operand %d is %s, the body's input %s", i, show(in, in->t[i]), show(in, t));
    }
    for (int i = 0; i < body->nodes.n; i++) {
        Op op = body->nodes.v[i].op;
        if (op == OP_PARAM || op == OP_GROUP)
            FAIL(in, "a body may not hold a %s; pass its value as an operand", op_info[op].name);
    }
    if (body->outputs.n < 1 || body->outputs.n > MAX_RESULTS)
        FAIL(in, "a body returns 1 to %d values, this one %d", MAX_RESULTS, body->outputs.n);
    for (int i = 0; i < body->outputs.n; i++) out[i] = graph_type(body, body->outputs.v[i].value);
    return NULL;
}

// ---- the table ---------------------------------------------------------------------------------
static const char *(*const infer_op[OP_COUNT])(const Infer *, Type *) = {
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc) infer_##name,
#include "ops.def"
#undef OP
};

static const char *check_int(const Infer *in, const char *name, int64_t i) {
    if (i < 0) FAIL(in, "%s must not be negative, got %lld", name, ll(i));
    return NULL;
}

static const char *check_words(const Infer *in, AttrId id, const int64_t *v, int n) {
    for (int i = 0; i < n; i++)
        if (v[i] < 0 || v[i] > INT32_MAX || !attr_word(id, (int)v[i]))
            FAIL(in, "%s is one of %s, got index %lld", attr_info[id].name,
                 attr_words(in->arena, id), ll(v[i]));
    return NULL;
}

// The attribute's value is one its kind allows.
static const char *check_attr(const Infer *in, const Attr *a) {
    const char *name = attr_info[a->id].name;
    switch (attr_info[a->id].kind) {
    case AK_INT: return check_int(in, name, a->i);
    case AK_BOOL:
        if (a->i != 0 && a->i != 1) FAIL(in, "%s is true or false, got %lld", name, ll(a->i));
        return NULL;
    case AK_F64:
        if (!isfinite(a->f) || a->f < 0)
            FAIL(in, "%s must be finite and not negative, got %g", name, a->f);
        return NULL;
    case AK_STR:
        if (!a->s) FAIL(in, "%s has no text", name);
        return NULL;
    case AK_INTS:
        if (a->ints.n < 0 || (a->ints.n && !a->ints.v)) FAIL(in, "%s has no values", name);
        for (int i = 0; i < a->ints.n; i++) TRY(check_int(in, name, a->ints.v[i]));
        return NULL;
    case AK_DIMS:
        if (a->dims.n && !a->dims.v) FAIL(in, "%s has no dimensions", name);
        return check_dims(in, name, a->dims.v, a->dims.n);
    case AK_DATA:
        if (a->data.n < 0 || (a->data.n && !a->data.v)) FAIL(in, "%s has no values", name);
        return NULL;
    case AK_ENUM: return check_words(in, a->id, &a->i, 1);
    case AK_ENUMS:
        if (a->ints.n < 0 || (a->ints.n && !a->ints.v)) FAIL(in, "%s has no values", name);
        return check_words(in, a->id, a->ints.v, a->ints.n);
    }
    return NULL;
}

static const char *check_attrs(const Infer *in) {
    const OpInfo *info = &op_info[in->spec->op];
    uint64_t seen = 0;
    _Static_assert(A_COUNT <= 64, "the set of attributes is a 64-bit mask");
    if (in->spec->nattrs < 0 || (in->spec->nattrs && !in->spec->attrs))
        FAIL(in, "the attributes are missing");
    for (int i = 0; i < in->spec->nattrs; i++) {
        const Attr *a = &in->spec->attrs[i];
        if ((unsigned)a->id >= A_COUNT) FAIL(in, "attribute %d does not exist", (int)a->id);
        bool known = false;
        for (int k = 0; k < info->nattrs; k++) known |= info->attrs[k] == a->id;
        if (!known) FAIL(in, "it has no attribute %s", attr_info[a->id].name);
        if (seen >> a->id & 1) FAIL(in, "%s is given twice", attr_info[a->id].name);
        seen |= (uint64_t)1 << a->id;
        TRY(check_attr(in, a));
    }
    return NULL;
}

// Fills t with the operand types.
static const char *check_operands(const Infer *in, const Graph *g, Type *t) {
    const OpInfo *info = &op_info[in->spec->op];
    int n = in->spec->nargs;
    if (n < info->min_args || n > info->max_args) {
        if (info->min_args == info->max_args)
            FAIL(in, "it takes %d operands, got %d", info->min_args, n);
        FAIL(in, "it takes %d to %d operands, got %d", info->min_args, info->max_args, n);
    }
    if (n && !in->spec->args) FAIL(in, "the operands are missing");
    for (int i = 0; i < n; i++) {
        Value v = in->spec->args[i];
        if (v >= (Value)g->values.n)
            FAIL(in, "operand %d is value %u, the program has %d values", i, v, g->values.n);
        t[i] = graph_type(g, v);
    }
    return NULL;
}

// ---- element types -----------------------------------------------------------------------------
enum {
    F32 = 1 << DT_F32,
    INDEX = 1 << DT_I32,
    BF16 = 1 << DT_BF16,
    U8 = 1 << DT_U8,
    I8 = 1 << DT_I8,
    ANY = F32 | INDEX | BF16 | U8 | I8
};

// What an operand may be: lists of indices are i32, what goes into products may be narrow, all else
// is f32. A body's rules are its own.
static int operand_types(Op op, int operand) {
    switch (op) {
    case OP_RECALL:
    case OP_RESHAPE:
    case OP_GROUP: return ANY;
    case OP_RULEBOOK: return operand == 0 ? F32 | INDEX : F32;
    case OP_PACK_ROWS:
    case OP_UNPACK_ROWS:
    case OP_PATCHIFY_ROWS:
    case OP_DWCONV2D_PACKED:
    case OP_DWCONV2D_PACKED_DX: return operand == 1 ? F32 | INDEX : F32;
    case OP_DWCONV2D_PACKED_DW: return operand == 2 ? F32 | INDEX : F32;
    case OP_CAST:
    case OP_PACK: return F32 | BF16 | I8;
    case OP_LINEAR: return operand == 0 ? F32 | BF16 | U8 : operand == 1 ? F32 | BF16 | I8 : F32;
    case OP_LINEAR_DW: return F32 | BF16;
    default: return F32;
    }
}

// Indices stay what they are under an op that takes them; other results are as its rule says.
static int result_types(Op op) {
    switch (op) {
    case OP_CELLS:
    case OP_RULEBOOK: return INDEX;
    case OP_INPUT:
    case OP_PARAM:
    case OP_RECALL:
    case OP_RESHAPE:
    case OP_GROUP: return ANY;
    case OP_CAST:
    case OP_PACK:
    case OP_QUANTIZE:
    case OP_QUANTIZE_ROWS: return F32 | BF16 | U8 | I8;
    default: return F32;
    }
}

static const char *check_type(const Infer *in, const char *what, Type t, int allowed) {
    if ((unsigned)t.dt >= DT_COUNT || !(allowed >> t.dt & 1))
        FAIL(in, "%s has element type %s, %s", what,
             (unsigned)t.dt < DT_COUNT ? dtype_name(t.dt) : "?",
             allowed == F32 ? "only f32 is supported" : "which is not supported");
    return check_dims(in, what, t.d, t.rank);
}

enum { MAX_ARGS = 64 };

static const char *infer_checked(Infer *in, const Graph *g, Type *out) {
    Type t[MAX_ARGS];
    const OpInfo *info = &op_info[in->spec->op];
    TRY(check_operands(in, g, t));
    TRY(check_attrs(in));
    Op op = in->spec->op;
    for (int i = 0; i < in->spec->nargs; i++)
        TRY(check_type(in, arena_printf(in->arena, "operand %d", i), t[i], operand_types(op, i)));
    if (info->traits & T_LEAF) TRY(check_type(in, "the type", in->spec->type, result_types(op)));
    if (!!(info->traits & T_REGION) != !!in->spec->body)
        FAIL(in, "%s", in->spec->body ? "it takes no body" : "it needs a body");
    in->t = t;
    in->n = in->spec->nargs;
    out[0] = (Type){0};
    TRY(infer_op[in->spec->op](in, out));
    int results = info->results < 0 ? in->spec->body->outputs.n : info->results;
    for (int i = 0; i < results; i++) TRY(check_type(in, "the result", out[i], result_types(op)));
    return NULL;
}

const char *infer_node(const Graph *g, const NodeSpec *spec, Type *out) {
    Infer in = {.arena = g->arena, .spec = spec};
    if ((unsigned)spec->op >= OP_COUNT) FAIL(&in, "op %d does not exist", (int)spec->op);
    const char *why = infer_checked(&in, g, out);
    return why ? arena_printf(g->arena, "%s: %s", op_info[spec->op].name, why) : NULL;
}
