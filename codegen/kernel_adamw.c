// The optimiser: one pass over a parameter, its gradient and its moments, at the speed of memory.
// The number of elements is known at run time only: whole vectors, then one element at a time.
#include "../runtime/cnxrt_model.h"
#include "kernel.h"

enum { P, G, M, V, P_OUT, M_OUT, V_OUT, OPERANDS };

typedef struct {
    Val at[OPERANDS], hyper[CNXRT_HYPERS];
    Val keep, rate; // 1 - lr s decay d, lr s corr1
} Adamw;

static Val scalar_at(Emit *e, Val base, int i) {
    Val v = LLVMBuildLoad2(e->b, e->f32, emit_at_c(e, base, i), "");
    LLVMSetAlignment(v, 4);
    return v;
}

static Val load_piece(Emit *e, Val base, Val col, Piece p) {
    return vec_load(e, emit_at(e, base, col), p);
}

// Elements [c0,c1): an element has the same bits whatever its place in the range.
static void emit_elements(Emit *e, const KernelArgs *k, ColumnBody body, void *ctx) {
    int unroll = e->target->registers < 32 ? 1 : 2; // the hyperparameters take a dozen
    int64_t step = unroll * e->lanes;
    Val whole = emit_imul(e, emit_idiv(e, emit_isub(e, k->c1, k->c0), step), step);
    Val middle = emit_iadd(e, k->c0, whole);
    Loop l;
    Val col = loop_begin(e, &l, k->c0, middle, step, NULL, 0);
    for (int u = 0; u < unroll; u++)
        body(e, ctx, emit_iadd(e, col, emit_i64(e, u * e->lanes)),
             (Piece){0, e->lanes, e->lanes, 0}, NULL);
    loop_end(e, &l);
    col = loop_begin(e, &l, middle, k->c1, 1, NULL, 0);
    body(e, ctx, col, (Piece){0, 1, 1, 0}, NULL);
    loop_end(e, &l);
    emit_return(e);
}

static void adamw_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const Adamw *a = ctx;
    Val h[CNXRT_HYPERS];
    for (int i = 0; i < CNXRT_HYPERS; i++) h[i] = vec_splat(e, piece.width, a->hyper[i]);
    Val g = emit_fmul(e, load_piece(e, a->at[G], col, piece), h[CNXRT_HYPER_GRAD_SCALE]);
    Val m = emit_fmul(e, load_piece(e, a->at[M], col, piece), h[CNXRT_HYPER_BETA1]);
    Val v = emit_fmul(e, load_piece(e, a->at[V], col, piece), h[CNXRT_HYPER_BETA2]);
    m = emit_fma(e, g, h[CNXRT_HYPER_ONE_MINUS_BETA1], m);
    v = emit_fma(e, emit_fmul(e, g, g), h[CNXRT_HYPER_ONE_MINUS_BETA2], v);
    Val p = emit_fmul(e, load_piece(e, a->at[P], col, piece), vec_splat(e, piece.width, a->keep));
    Val below = emit_fma(e, emit_sqrt(e, v), h[CNXRT_HYPER_CORRECTION2], h[CNXRT_HYPER_EPS]);
    Val step = emit_fdiv(e, emit_fmul(e, m, vec_splat(e, piece.width, a->rate)), below);
    vec_store(e, emit_fsub(e, p, step), emit_at(e, a->at[P_OUT], col), piece);
    vec_store(e, m, emit_at(e, a->at[M_OUT], col), piece);
    vec_store(e, v, emit_at(e, a->at[V_OUT], col), piece);
}

void emit_adamw(Emit *e, const KernelSpec *spec, const char *symbol) {
    (void)spec;
    static const int place[OPERANDS] = {0, 1, 2, 3, 6, 7, 8};
    KernelArgs k = kernel_begin(e, symbol);
    Adamw a;
    Val hyper = emit_ptr(e, k.ops, 4), group = emit_ptr(e, k.ops, 5);
    for (int i = 0; i < OPERANDS; i++) a.at[i] = emit_ptr(e, k.ops, place[i]);
    for (int i = 0; i < CNXRT_HYPERS; i++) a.hyper[i] = scalar_at(e, hyper, i);
    Val lr = emit_fmul(e, a.hyper[CNXRT_HYPER_LR], scalar_at(e, group, 0));
    Val decay = emit_fmul(e, a.hyper[CNXRT_HYPER_DECAY], scalar_at(e, group, 1));
    a.keep = emit_fsub(e, LLVMConstReal(e->f32, 1), emit_fmul(e, lr, decay));
    a.rate = emit_fmul(e, lr, a.hyper[CNXRT_HYPER_CORRECTION1]);
    emit_elements(e, &k, adamw_column, &a);
}

typedef struct {
    Val e, p, out, decay, share;
} Ema;

static void ema_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    const Ema *a = ctx;
    Val v = emit_fmul(e, load_piece(e, a->e, col, piece), vec_splat(e, piece.width, a->decay));
    v = emit_fma(e, load_piece(e, a->p, col, piece), vec_splat(e, piece.width, a->share), v);
    vec_store(e, v, emit_at(e, a->out, col), piece);
}

void emit_ema(Emit *e, const KernelSpec *spec, const char *symbol) {
    (void)spec;
    KernelArgs k = kernel_begin(e, symbol);
    Val hyper = emit_ptr(e, k.ops, 2);
    Ema a = {.e = emit_ptr(e, k.ops, 0), .p = emit_ptr(e, k.ops, 1), .out = emit_ptr(e, k.ops, 3)};
    a.decay = scalar_at(e, hyper, CNXRT_HYPER_EMA);
    a.share = scalar_at(e, hyper, CNXRT_HYPER_ONE_MINUS_EMA);
    emit_elements(e, &k, ema_column, &a);
}
