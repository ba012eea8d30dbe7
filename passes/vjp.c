// The vector-Jacobian products: for each op the cotangents of its operands from that of its result,
// in ops of the same IR. The formula stands above each; dy is the cotangent of the result. A row of
// the op table with GRAD_VJP and no function here does not build.
#include "autodiff.h"

// ---- building ----------------------------------------------------------------------------------
// NO_VALUE once something could not be built: v->why says what.
static Value emit(Vjp *v, Op op, const Value *args, int nargs, const Attr *attrs, int nattrs) {
    NodeSpec spec = {.op = op,
                     .args = args,
                     .nargs = nargs,
                     .attrs = attrs,
                     .nattrs = nattrs,
                     .loc = v->n->loc,
                     .label = v->n->label};
    if (!v->why) v->why = graph_check(v->g, &spec);
    return v->why ? NO_VALUE : graph_add(v->g, &spec);
}

static Value emit1(Vjp *v, Op op, Value x) { return emit(v, op, &x, 1, NULL, 0); }

static Value emit2(Vjp *v, Op op, Value x, Value y) {
    return emit(v, op, (Value[]){x, y}, 2, NULL, 0);
}

static Value arg(const Vjp *v, int i) { return v->n->args[i]; }
static Type arg_type(const Vjp *v, int i) { return graph_type(v->g, v->n->args[i]); }

// Attributes of the node that the op to be built has too, and room for one more.
typedef struct {
    Attr v[MAX_OP_ATTRS + 1];
    int n;
} Attrs;

static Attrs attrs_for(const Vjp *v, Op op) {
    Attrs a = {.n = 0};
    for (int i = 0; i < op_info[op].nattrs; i++)
        if (node_attr(v->n, op_info[op].attrs[i]))
            a.v[a.n++] = *node_attr(v->n, op_info[op].attrs[i]);
    return a;
}

// As emit, with the node's attributes.
static Value emit_like(Vjp *v, Op op, const Value *args, int nargs) {
    Attrs a = attrs_for(v, op);
    return emit(v, op, args, nargs, a.v, a.n);
}

static Attr shape_of(const Vjp *v, Type t) { return attr_dims(v->g->arena, A_shape, t.d, t.rank); }

static Value reshape(Vjp *v, Value x, Type to) {
    if (v->why || type_eq(graph_type(v->g, x), to)) return x;
    Attr shape = shape_of(v, to);
    return emit(v, OP_RESHAPE, &x, 1, &shape, 1);
}

static Value expand(Vjp *v, Value x, Type to) {
    Attr shape = shape_of(v, to);
    return emit(v, OP_EXPAND, &x, 1, &shape, 1);
}

static Value transpose2(Vjp *v, Value x) {
    Attr perm = attr_ints2(v->g->arena, A_perm, 1, 0);
    return emit(v, OP_TRANSPOSE, &x, 1, &perm, 1);
}

// ---- shape and order ---------------------------------------------------------------------------
// dx = dy in x's shape
static void vjp_reshape(Vjp *v) { v->dx[0] = reshape(v, v->dy, arg_type(v, 0)); }

// y = transpose(x, perm): dx = transpose(dy, perm^-1)
static void vjp_transpose(Vjp *v) {
    const Attr *perm = node_attr(v->n, A_perm);
    int64_t inverse[MAX_RANK];
    if (!perm) { // of a scalar
        v->dx[0] = v->dy;
        return;
    }
    for (int i = 0; i < perm->ints.n; i++) inverse[perm->ints.v[i]] = i;
    Attr back = attr_ints(v->g->arena, A_perm, inverse, perm->ints.n);
    v->dx[0] = emit(v, OP_TRANSPOSE, &v->dy, 1, &back, 1);
}

// y = x repeated: dx = sum of the copies of dy
static void vjp_tile(Vjp *v) {
    Type x = arg_type(v, 0);
    Type copies = type_make(x.dt, 2, (Dim[]){dim_c(node_int(v->n, A_times)), x.d[0]});
    v->dx[0] = emit1(v, OP_SUM_ROWS, reshape(v, v->dy, copies));
}

// dx = unpatchify(dy)
static void vjp_patchify(Vjp *v) {
    Attrs a = attrs_for(v, OP_UNPATCHIFY);
    a.v[a.n++] = shape_of(v, arg_type(v, 0));
    v->dx[0] = emit(v, OP_UNPATCHIFY, &v->dy, 1, a.v, a.n);
}

// dx = patchify(dy)
static void vjp_unpatchify(Vjp *v) { v->dx[0] = emit_like(v, OP_PATCHIFY, &v->dy, 1); }

// dx = sum of dy over what x was repeated along
static void vjp_expand(Vjp *v) {
    v->dx[0] = emit1(v, arg_type(v, 0).rank == 1 ? OP_SUM_ROWS : OP_IMAGE_SUM, v->dy);
}

// ---- sums of products --------------------------------------------------------------------------
// y = x W^T + b: dx = dy W, dW = dy^T x, db = sum of the rows of dy
static void vjp_linear(Vjp *v) {
    v->dx[0] = emit2(v, OP_LINEAR, v->dy, transpose2(v, arg(v, 1)));
    v->dx[1] = emit2(v, OP_LINEAR_DW, v->dy, arg(v, 0));
    if (v->n->nargs > 2) v->dx[2] = emit1(v, OP_SUM_ROWS, v->dy);
}

// dx: dy under the kernel turned by 180 degrees; dw: a tap is the product of dy and x moved by it;
// db = sum of the rows of dy
static void vjp_dwconv2d(Vjp *v) {
    Type w = arg_type(v, 1);
    Attrs a = attrs_for(v, OP_DWCONV2D_DX);
    a.v[a.n] = shape_of(v, arg_type(v, 0));
    v->dx[0] = emit(v, OP_DWCONV2D_DX, (Value[]){v->dy, arg(v, 1)}, 2, a.v, a.n + 1);
    a.v[a.n] = attr_ints2(v->g->arena, A_kernel, w.d[2].c, w.d[3].c);
    v->dx[1] = emit(v, OP_DWCONV2D_DW, (Value[]){v->dy, arg(v, 0)}, 2, a.v, a.n + 1);
    if (v->n->nargs > 2) v->dx[2] = emit1(v, OP_SUM_ROWS, v->dy);
}

// ---- normalisation and activation --------------------------------------------------------------
// With n = normalize(x), r = 1/sqrt(var+eps), g = dy gamma:
//   dx = r (g - mean g - n mean(g n)), dgamma = sum of rows of dy n, dbeta = sum of rows of dy
static void vjp_layernorm(Vjp *v) {
    v->dx[0] = emit_like(v, OP_LAYERNORM_DX, (Value[]){v->dy, arg(v, 0), arg(v, 1)}, 3);
    v->dx[1] = emit_like(v, OP_LAYERNORM_DGAMMA, (Value[]){v->dy, arg(v, 0)}, 2);
    v->dx[2] = emit1(v, OP_SUM_ROWS, v->dy);
}

// As layernorm with gamma = 1
static void vjp_normalize(Vjp *v) {
    v->dx[0] = emit_like(v, OP_NORMALIZE_DX, (Value[]){v->dy, arg(v, 0)}, 2);
}

// dx = dy (Phi(x) + x phi(x)), or the tanh form's derivative
static void vjp_gelu(Vjp *v) {
    v->dx[0] = emit_like(v, OP_GELU_DX, (Value[]){v->dy, arg(v, 0)}, 2);
}

// G = ||x||: dx = dG x/G, 0 where G = 0; the other aggregates in the op's row
static void vjp_grn_stat(Vjp *v) {
    v->dx[0] = emit_like(v, OP_GRN_STAT_DX, (Value[]){v->dy, arg(v, 0), v->n->first}, 3);
}

// s = gamma G/m (+1), m = mean_k G + eps: dG = gamma ds/m - sum_k(gamma ds G)/(k m^2);
// dgamma = sum over images of ds G/m; the other normalisations in eval_grad.c
static void vjp_grn_scale(Vjp *v) {
    v->dx[0] = emit_like(v, OP_GRN_SCALE_DSTAT, (Value[]){v->dy, arg(v, 0), arg(v, 1)}, 3);
    v->dx[1] = emit_like(v, OP_GRN_SCALE_DGAMMA, (Value[]){v->dy, arg(v, 0)}, 2);
}

// ---- elementwise -------------------------------------------------------------------------------
// y = a + b: da = dy, db = dy, or the sum of its rows where b is one row
static void vjp_add(Vjp *v) {
    v->dx[0] = v->dy;
    bool equal = type_eq(arg_type(v, 0), arg_type(v, 1));
    v->dx[1] = equal ? v->dy : emit1(v, OP_SUM_ROWS, v->dy);
}

// y = a b: da = dy b, db = dy a
static void vjp_mul(Vjp *v) {
    v->dx[0] = emit2(v, OP_MUL, v->dy, arg(v, 1));
    v->dx[1] = emit2(v, OP_MUL, v->dy, arg(v, 0));
}

// y = x s, s per channel or per image and channel: dx = dy s, ds = sum over positions of dy x
static void vjp_scale(Vjp *v) {
    Type x = arg_type(v, 0), s = arg_type(v, 1);
    v->dx[0] = emit2(v, OP_SCALE, v->dy, arg(v, 1));
    Value products = emit2(v, OP_MUL, v->dy, arg(v, 0));
    bool images = s.rank == 2 && dim_eq(s.d[0], x.d[0]);
    v->dx[1] =
        images ? emit1(v, OP_IMAGE_SUM, products) : reshape(v, emit1(v, OP_SUM_ROWS, products), s);
}

// y[i,...] = x[i,...] s[i]: dx = dy s by rows, ds[i] = sum of dy x over row i
static void vjp_scale_rows(Vjp *v) {
    Type x = arg_type(v, 0);
    v->dx[0] = emit2(v, OP_SCALE_ROWS, v->dy, arg(v, 1));
    Value products = emit2(v, OP_MUL, v->dy, arg(v, 0));
    if (x.rank > 2) products = emit1(v, OP_IMAGE_SUM, products);
    Type rows =
        type_make(x.dt, 3, (Dim[]){x.d[0], x.rank > 1 ? x.d[x.rank - 1] : dim_c(1), dim_c(1)});
    v->dx[1] = reshape(v, emit1(v, OP_IMAGE_SUM, reshape(v, products, rows)), arg_type(v, 1));
}

// ---- reductions --------------------------------------------------------------------------------
// y = mean of p positions: dx = dy/p at each
static void vjp_global_avg_pool(Vjp *v) {
    Type x = arg_type(v, 0);
    double share = 1;
    for (int i = 1; i + 1 < x.rank; i++) share /= (double)x.d[i].c;
    Type channels = type_make(x.dt, 1, &x.d[x.rank - 1]);
    Value c = graph_constant(v->g, channels, &share, 1, v->n->loc);
    v->dx[0] = expand(v, emit2(v, OP_SCALE, v->dy, c), x);
}

// dx = dy at each position of the image
static void vjp_image_sum(Vjp *v) { v->dx[0] = expand(v, v->dy, arg_type(v, 0)); }

// dx = dy in each row
static void vjp_sum_rows(Vjp *v) { v->dx[0] = expand(v, v->dy, arg_type(v, 0)); }

// ---- masked images -----------------------------------------------------------------------------
// y = x times a factor by position: dx = dy times it
static void vjp_mask(Vjp *v) { v->dx[0] = emit_like(v, OP_MASK, (Value[]){v->dy, arg(v, 1)}, 2); }

// dx = unpack_rows(dy)
static void vjp_pack_rows(Vjp *v) {
    Attrs a = attrs_for(v, OP_UNPACK_ROWS);
    a.v[a.n++] = shape_of(v, arg_type(v, 0));
    v->dx[0] = emit(v, OP_UNPACK_ROWS, (Value[]){v->dy, arg(v, 1)}, 2, a.v, a.n);
}

// dx = pack_rows(dy)
static void vjp_unpack_rows(Vjp *v) {
    v->dx[0] = emit_like(v, OP_PACK_ROWS, (Value[]){v->dy, arg(v, 1)}, 2);
}

// As dwconv2d, over the pairs of the rulebook
static void vjp_dwconv2d_packed(Vjp *v) {
    Type w = arg_type(v, 2);
    Attr kernel = attr_ints2(v->g->arena, A_kernel, w.d[2].c, w.d[3].c);
    v->dx[0] = emit(v, OP_DWCONV2D_PACKED_DX, (Value[]){v->dy, arg(v, 1), arg(v, 2)}, 3, NULL, 0);
    v->dx[2] =
        emit(v, OP_DWCONV2D_PACKED_DW, (Value[]){v->dy, arg(v, 0), arg(v, 1)}, 3, &kernel, 1);
    if (v->n->nargs > 3) v->dx[3] = emit1(v, OP_SUM_ROWS, v->dy);
}

// ---- losses: targets and masks have no cotangent
// ------------------------------------------------- dz = dl (softmax(z) sum_k t - t)
static void vjp_softmax_cross_entropy(Vjp *v) {
    v->dx[0] =
        emit(v, OP_SOFTMAX_CROSS_ENTROPY_DX, (Value[]){v->dy, arg(v, 0), arg(v, 1)}, 3, NULL, 0);
}

// dz = dl (sigmoid(z) - t)/k
static void vjp_bce_with_logits(Vjp *v) {
    v->dx[0] = emit(v, OP_BCE_WITH_LOGITS_DX, (Value[]){v->dy, arg(v, 0), arg(v, 1)}, 3, NULL, 0);
}

// dp = dl m_l/sum m * 2 (p - t)/d
static void vjp_masked_mse(Vjp *v) {
    v->dx[0] =
        emit(v, OP_MASKED_MSE_DX, (Value[]){v->dy, arg(v, 0), arg(v, 1), arg(v, 2)}, 4, NULL, 0);
}

// ---- the table ---------------------------------------------------------------------------------
#define GRAD_NONE(name) NULL
#define GRAD_VJP(name) vjp_##name
static const VjpFn vjp_op[OP_COUNT] = {
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc) grad(name),
#include "../ir/ops.def"
#undef OP
};

VjpFn vjp_of(Op op) { return vjp_op[op]; }
