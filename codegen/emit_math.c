// exp and the two forms of GELU, on vectors of any width. Coefficients: gelu.inc; those of exp are
// the Taylor terms, enough for |r| <= ln(2)/2.
#include "emit.h"
#include "gelu.inc"

// Adding it rounds to an integer, which is then in the low bits.
static const double ROUNDER = 12582912.0; // 1.5 * 2^23

static Val as_ints(Emit *e, Val x) {
    return LLVMBuildBitCast(e->b, x, LLVMVectorType(e->i32, (unsigned)vec_width(x)), "");
}

Val emit_exp(Emit *e, Val x) {
    int w = vec_width(x);
    x = emit_clamp_high(e, emit_clamp_low(e, x, -87), 88);
    Val magic = vec_const(e, w, ROUNDER);
    Val z = emit_fma(e, x, vec_const(e, w, 1.4426950408889634), magic);
    Val n = emit_fsub(e, z, magic);
    Val r = emit_fma(e, n, vec_const(e, w, -0.693145751953125), x);
    r = emit_fma(e, n, vec_const(e, w, -1.428606765330187e-6), r);
    static const double taylor[] = {1 / 720.0, 1 / 120.0, 1 / 24.0, 1 / 6.0, 0.5, 1, 1};
    Val p = vec_const(e, w, taylor[0]);
    for (int i = 1; i < 7; i++) p = emit_fma(e, p, r, vec_const(e, w, taylor[i]));
    Val c[64];
    for (int i = 0; i < w; i++) c[i] = LLVMConstInt(e->i32, 23, 0);
    Val shift = LLVMConstVector(c, (unsigned)w);
    for (int i = 0; i < w; i++) c[i] = LLVMConstInt(e->i32, 127u << 23, 0);
    Val bias = LLVMConstVector(c, (unsigned)w);
    // The bits of ROUNDER shifted left by 23 vanish.
    Val bits = LLVMBuildAdd(e->b, LLVMBuildShl(e->b, as_ints(e, z), shift, ""), bias, "");
    return emit_fmul(e, p, LLVMBuildBitCast(e->b, bits, vec_type(e, w), ""));
}

static Val table_half(Emit *e, int degree, int half) {
    Val c[16];
    for (int i = 0; i < 16; i++) c[i] = LLVMConstReal(e->f32, gelu_table[degree][16 * half + i]);
    return LLVMConstVector(c, 16);
}

// Coefficient `degree` of each lane's segment: the low five bits of index choose.
static Val table_pick(Emit *e, int degree, Val index) {
    static const char name[] = "llvm.x86.avx512.vpermi2var.ps.512";
    unsigned id = LLVMLookupIntrinsicID(name, sizeof name - 1);
    Val fn = LLVMGetIntrinsicDeclaration(e->mod, id, NULL, 0);
    Val args[] = {table_half(e, degree, 0), index, table_half(e, degree, 1)};
    return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->ctx, id, NULL, 0), fn, args, 3, "");
}

static Val gelu_by_table(Emit *e, Val x) {
    Val magic = vec_const(e, 16, ROUNDER), scale = vec_const(e, 16, GELU_TABLE_SCALE);
    Val a = emit_clamp_high(e, emit_fabs(e, x), GELU_TABLE_CLAMP);
    Val z = emit_fma(e, a, scale, magic);
    Val k = emit_fsub(e, z, magic);
    Val u = emit_fma(e, a, scale, LLVMBuildFNeg(e->b, k, ""));
    Val index = as_ints(e, z), p = table_pick(e, 3, index);
    for (int d = 2; d >= 0; d--) p = emit_fma(e, p, u, table_pick(e, d, index));
    return emit_fadd(e, emit_clamp_low(e, x, 0), p);
}

static Val gelu_by_power(Emit *e, Val x) {
    int w = vec_width(x);
    Val a = emit_clamp_high(e, emit_fabs(e, x), 12);
    Val q = vec_const(e, w, gelu_power[6]);
    for (int d = 5; d >= 0; d--) q = emit_fma(e, q, a, vec_const(e, w, gelu_power[d]));
    for (int i = 0; i < 4; i++) q = emit_fmul(e, q, q);
    return emit_fsub(e, emit_clamp_low(e, x, 0), emit_fdiv(e, a, q));
}

// Moves between widths, for the table that knows sixteen lanes only; new lanes are undefined.
static Val resize(Emit *e, Val x, int width) {
    Val c[64];
    for (int i = 0; i < width; i++)
        c[i] = i < vec_width(x) ? LLVMConstInt(e->i32, (unsigned)i, 0) : LLVMGetPoison(e->i32);
    return LLVMBuildShuffleVector(e->b, x, LLVMGetPoison(LLVMTypeOf(x)),
                                  LLVMConstVector(c, (unsigned)width), "");
}

Val emit_gelu(Emit *e, Val x) {
    int w = vec_width(x);
    if (!e->target->permute2) return gelu_by_power(e, x);
    if (w == 16) return gelu_by_table(e, x);
    return resize(e, gelu_by_table(e, resize(e, x, 16)), w);
}

// x / (1 + exp(-2 sqrt(2/pi) (x + 0.044715 x^3))); below -12 the result underflows anyway.
Val emit_gelu_tanh(Emit *e, Val x) {
    int w = vec_width(x);
    Val y = emit_clamp_low(e, x, -12);
    Val cubic = emit_fma(e, emit_fmul(e, y, y), vec_const(e, w, 0.044715), vec_const(e, w, 1));
    Val t = emit_fmul(e, emit_fmul(e, y, cubic), vec_const(e, w, -1.5957691216057308));
    return emit_fdiv(e, y, emit_fadd(e, vec_const(e, w, 1), emit_exp(e, t)));
}
