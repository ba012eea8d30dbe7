// Weights in another order or type: rows quantised, dimensions permuted.
#include "kernel.h"

// ---- quantize_rows -----------------------------------------------------------------------------
typedef struct {
    Val w, out, factor;
} QuantizeRow;

static void most_column(Emit *e, void *ctx, Val col, Piece p, Val *most) {
    const QuantizeRow *q = ctx;
    Val v = vec_widen(e, emit_fabs(e, vec_load(e, emit_at(e, q->w, col), p)), p, e->lanes);
    most[p.slot] = emit_fmax(e, v, most[p.slot]);
}

static void quantize_column(Emit *e, void *ctx, Val col, Piece p, Val *carry) {
    (void)carry;
    const QuantizeRow *q = ctx;
    Val v = vec_load(e, emit_at(e, q->w, col), p);
    v = emit_fmul(e, v, vec_splat(e, p.width, q->factor));
    vec_store_i8(e, v, emit_at_as(e, DT_I8, q->out, col), p);
}

void emit_quantize_rows(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    int64_t n = spec_int(spec, A_n);
    Val w = emit_ptr(e, k.ops, 0), s = emit_ptr(e, k.ops, 1), out = emit_ptr(e, k.ops, 2);
    Loop l;
    Val row = loop_begin(e, &l, k.r0, k.r1, 1, NULL, 0), at = emit_imul(e, row, n);
    QuantizeRow q = {.w = emit_at(e, w, at), .out = emit_at_as(e, DT_I8, out, at)};
    Val zero = emit_i64(e, 0), end = emit_i64(e, n), most = vec_const(e, e->lanes, 0);
    emit_columns(e, n, zero, end, 1, most_column, &q, &most, 1);
    Val top = vec_lane(e, most, 0);
    for (int i = 1; i < e->lanes; i++) top = emit_fmax(e, vec_lane(e, most, i), top);
    Val none = LLVMConstReal(e->f32, 0), all = LLVMConstReal(e->f32, 127);
    Val empty = LLVMBuildFCmp(e->b, LLVMRealOEQ, top, none, "");
    q.factor = LLVMBuildSelect(e->b, empty, none, emit_fdiv(e, all, top), "");
    LLVMBuildStore(e->b, emit_fdiv(e, top, all), emit_at(e, s, row));
    emit_columns(e, n, zero, end, 1, quantize_column, &q, NULL, 0);
    loop_end(e, &l);
    emit_return(e);
}

// ---- permute -----------------------------------------------------------------------------------
typedef struct {
    int rank;
    int64_t size[MAX_RANK];   // of the result
    int64_t stride[MAX_RANK]; // of the operand, per result dimension
} Order;

// The result's dimensions with the operand's strides; runs of dimensions that stay together are
// merged, dimensions of one element dropped.
static Order permute_order(const KernelSpec *spec) {
    Order o = {0};
    const Attr *shape = NULL;
    for (int i = 0; i < spec->nattrs; i++)
        if (spec->attrs[i].id == A_shape) shape = &spec->attrs[i];
    if (!shape) ice((Loc){0}, "a permute kernel without a shape");
    int rank = shape->dims.n;
    int64_t stride[MAX_RANK], next = 1;
    for (int d = rank - 1; d >= 0; d--) {
        stride[d] = next;
        next *= shape->dims.v[d].c;
    }
    for (int d = 0; d < rank; d++) {
        int from = (int)spec_ints(spec, A_perm, d);
        int64_t size = shape->dims.v[from].c;
        if (size == 1) continue;
        if (o.rank > 0 && o.stride[o.rank - 1] == stride[from] * size) {
            o.size[o.rank - 1] *= size;
            o.stride[o.rank - 1] = stride[from];
            continue;
        }
        o.size[o.rank] = size;
        o.stride[o.rank++] = stride[from];
    }
    if (o.rank == 0) o = (Order){.rank = 1, .size = {1}, .stride = {1}};
    return o;
}

static void permute_loops(Emit *e, const Order *o, int d, Val src, Val dst) {
    int64_t below = 1;
    for (int i = d + 1; i < o->rank; i++) below *= o->size[i];
    if (d == o->rank - 1 && o->stride[d] == 1) {
        emit_run(e, dst, src, o->size[d]);
        return;
    }
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, o->size[d]), 1, NULL, 0);
    Val from = emit_at(e, src, emit_imul(e, i, o->stride[d]));
    Val to = emit_at(e, dst, emit_imul(e, i, below));
    if (d == o->rank - 1)
        vec_store(e, vec_load(e, from, (Piece){0, 1, 1, 0}), to, (Piece){0, 1, 1, 0});
    else
        permute_loops(e, o, d + 1, from, to);
    loop_end(e, &l);
}

void emit_permute(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Order o = permute_order(spec);
    permute_loops(e, &o, 0, emit_ptr(e, k.ops, 0), emit_ptr(e, k.ops, 1));
    emit_return(e);
}
