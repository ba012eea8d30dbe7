// exp, the two forms of GELU and their derivatives, on vectors of any width. Coefficients:
// gelu.inc; those of exp are the Taylor terms, enough for |r| <= ln(2)/2.
#include "emit.h"
#include "gelu.inc"

// Adding it rounds to an integer, which is then in the low bits.
static const double ROUNDER = 12582912.0; // 1.5 * 2^23

static Val as_ints(Emit *e, Val x) {
    return LLVMBuildBitCast(e->b, x, LLVMVectorType(e->i32, (unsigned)vec_width(x)), "");
}

static Val int_vector(Emit *e, int width, int32_t v) {
    Val c[64];
    for (int i = 0; i < width; i++) c[i] = LLVMConstInt(e->i32, (unsigned long long)v, 1);
    return LLVMConstVector(c, (unsigned)width);
}

// Constants of a long function do not all fit beside its values: LLVM would take them out of a loop
// and spill them there. Registers hold the first ones; the others lie in a table of the module, a
// row of equal lanes each, and are operands in memory, at an address LLVM takes for any other. Each
// function has a table of its own: what two of them read at one address would be loaded once and
// stay in registers from one to the other.
static bool is_held(Emit *e, uint32_t bits) {
    for (int i = 0; i < e->nheld; i++)
        if (e->held[i] == bits) return true;
    if (e->crowded || e->nheld == e->target->constants || e->nheld == MAX_HELD) return false;
    e->held[e->nheld++] = bits;
    return true;
}

enum { MAX_CONSTANTS = 64 };

static Val table_of(Emit *e, Val *rows, int n) {
    Val init = LLVMConstArray2(LLVMTypeOf(rows[0]), rows, (uint64_t)n);
    Val table = LLVMAddGlobal(e->mod, LLVMTypeOf(init), "");
    LLVMSetInitializer(table, init);
    LLVMSetGlobalConstant(table, 1);
    LLVMSetLinkage(table, LLVMPrivateLinkage);
    LLVMSetAlignment(table, (unsigned)(4 * vec_width(rows[0])));
    return table;
}

// The address of a constant's row; the table grows by it when it is new.
static Val table_row(Emit *e, uint32_t bits, int lanes) {
    const char *name = arena_printf(e->arena, "math.%s", e->function);
    Val rows[MAX_CONSTANTS + 1], row = int_vector(e, lanes, (int32_t)bits);
    Val table = LLVMGetNamedGlobal(e->mod, name), init = table ? LLVMGetInitializer(table) : NULL;
    int n = table ? LLVMGetNumOperands(init) : 0, at = 0;
    for (int i = 0; i < n; i++) rows[i] = LLVMGetOperand(init, (unsigned)i);
    while (at < n && rows[at] != row) at++;
    if (at == MAX_CONSTANTS) ice((Loc){0}, "more than %d constants", MAX_CONSTANTS);
    if (at == n) {
        Val old = table;
        rows[n] = row;
        table = table_of(e, rows, n + 1);
        if (old) LLVMReplaceAllUsesWith(old, table);
        if (old) LLVMDeleteGlobal(old);
        LLVMSetValueName2(table, name, strlen(name));
    }
    Val base = e->crowded ? emit_here(e, table) : emit_opaque(e, table);
    return emit_at_c(e, base, (int64_t)at * lanes);
}

// Rows are as wide as any vector: four lanes where numbers are taken one by one.
static Val table_load(Emit *e, LLVMTypeRef type, uint32_t bits) {
    int lanes = e->lanes < 4 ? 4 : e->lanes;
    Val v = LLVMBuildLoad2(e->b, type, table_row(e, bits, lanes), "");
    LLVMSetAlignment(v, 4 * (unsigned)lanes);
    return v;
}

static Val bit_const(Emit *e, int w, uint32_t bits) {
    if (is_held(e, bits)) return int_vector(e, w, (int32_t)bits);
    return table_load(e, LLVMVectorType(e->i32, (unsigned)w), bits);
}

static Val number(Emit *e, int w, double v) {
    float rounded = (float)v;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    return is_held(e, bits) ? vec_const(e, w, v) : table_load(e, vec_type(e, w), bits);
}

// c[0] + c[1] x + ... + c[degree] x^degree
static Val polynomial(Emit *e, Val x, const double *c, int degree) {
    int w = vec_width(x);
    Val p = number(e, w, c[degree]);
    for (int i = degree - 1; i >= 0; i--) p = emit_fma(e, p, x, number(e, w, c[i]));
    return p;
}

Val emit_exp(Emit *e, Val x) {
    e->function = "exp";
    int w = vec_width(x);
    x = emit_clamp_high(e, emit_clamp_low(e, x, -87), 88);
    Val magic = number(e, w, ROUNDER);
    Val z = emit_fma(e, x, number(e, w, 1.4426950408889634), magic);
    Val n = emit_fsub(e, z, magic);
    Val r = emit_fma(e, n, number(e, w, -0.693145751953125), x);
    r = emit_fma(e, n, number(e, w, -1.428606765330187e-6), r);
    static const double taylor[] = {1, 1, 0.5, 1 / 6.0, 1 / 24.0, 1 / 120.0, 1 / 720.0};
    Val p = polynomial(e, r, taylor, 6);
    Val shift = int_vector(e, w, 23), bias = bit_const(e, w, 127 << 23);
    // The bits of ROUNDER shifted left by 23 vanish.
    Val bits = LLVMBuildAdd(e->b, LLVMBuildShl(e->b, as_ints(e, z), shift, ""), bias, "");
    return emit_fmul(e, p, LLVMBuildBitCast(e->b, bits, vec_type(e, w), ""));
}

// x = 2^k m with m in [1/sqrt 2, sqrt 2): log m by a polynomial in m - 1 (Cephes), plus k log 2 in
// two parts.
Val emit_log(Emit *e, Val x) {
    e->function = "log";
    static const double poly[] = {3.3333331174e-1,  -2.4999993993e-1, 2.0000714765e-1,
                                  -1.6668057665e-1, 1.4249322787e-1,  -1.2420140846e-1,
                                  1.1676998740e-1,  -1.1514610310e-1, 7.0376836292e-2};
    int w = vec_width(x);
    Val root = bit_const(e, w, 0x3f3504f3), bits = as_ints(e, x), shift = int_vector(e, w, 23);
    Val k = LLVMBuildAShr(e->b, LLVMBuildSub(e->b, bits, root, ""), shift, "");
    Val m = LLVMBuildSub(e->b, bits, LLVMBuildShl(e->b, k, shift, ""), "");
    Val f = emit_fsub(e, LLVMBuildBitCast(e->b, m, vec_type(e, w), ""), number(e, w, 1));
    k = LLVMBuildSIToFP(e->b, k, vec_type(e, w), "");
    Val p = polynomial(e, f, poly, 8), square = emit_fmul(e, f, f);
    p = emit_fmul(e, emit_fmul(e, p, f), square);
    p = emit_fma(e, k, number(e, w, -2.12194440e-4), p);
    p = emit_fma(e, square, number(e, w, -0.5), p);
    return emit_fma(e, k, number(e, w, 0.693359375), emit_fadd(e, f, p));
}

// log(1 + x) and what rounding 1 + x has lost.
Val emit_log1p(Emit *e, Val x) {
    e->function = "log1p";
    Val one = number(e, vec_width(x), 1), y = emit_fadd(e, x, one);
    Val lost = emit_fsub(e, x, emit_fsub(e, y, one));
    return emit_fadd(e, emit_log(e, y), emit_fdiv(e, lost, y));
}

// A cubic of a in each of 32 segments of [0,clamp], that of index round(a scale); beyond the clamp
// its value there.
typedef struct {
    double scale, clamp;
    const double (*coefficient)[32];
} Table;
static const Table gelu_even = {GELU_TABLE_SCALE, GELU_TABLE_CLAMP, gelu_table};
static const Table gelu_slope = {GELU_SLOPE_SCALE, GELU_SLOPE_CLAMP, gelu_slope_table};

static Val table_half(Emit *e, const Table *t, int degree, int half) {
    Val c[16];
    for (int i = 0; i < 16; i++)
        c[i] = LLVMConstReal(e->f32, t->coefficient[degree][16 * half + i]);
    return LLVMConstVector(c, 16);
}

// Coefficient `degree` of each lane's segment: the low five bits of index choose.
static Val table_pick(Emit *e, const Table *t, int degree, Val index) {
    static const char name[] = "llvm.x86.avx512.vpermi2var.ps.512";
    unsigned id = LLVMLookupIntrinsicID(name, sizeof name - 1);
    Val fn = LLVMGetIntrinsicDeclaration(e->mod, id, NULL, 0);
    Val args[] = {table_half(e, t, degree, 0), index, table_half(e, t, degree, 1)};
    return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->ctx, id, NULL, 0), fn, args, 3, "");
}

// min(|x|, most), sixteen lanes; NaN: most.
static Val clamped_abs(Emit *e, Val x, double most) {
    enum { SMALLER_MAGNITUDE = 2, SIGN_CLEAR = 8, ROUNDING_OF_MODE = 4 };
    Val args[] = {x,
                  vec_const(e, 16, most),
                  LLVMConstInt(e->i32, SMALLER_MAGNITUDE | SIGN_CLEAR, 0),
                  x,
                  LLVMConstInt(LLVMInt16TypeInContext(e->ctx), 0xffff, 0),
                  LLVMConstInt(e->i32, ROUNDING_OF_MODE, 0)};
    return emit_intrinsic(e, "llvm.x86.avx512.mask.range.ps.512", NULL, 0, args, 6);
}

// The table's function of |x|, sixteen lanes.
static Val by_table(Emit *e, const Table *t, Val x) {
    Val a = clamped_abs(e, x, t->clamp);
    Val z = emit_fma(e, a, vec_const(e, 16, t->scale), vec_const(e, 16, ROUNDER));
    Val index = as_ints(e, z), p = table_pick(e, t, 3, index);
    for (int d = 2; d >= 0; d--) p = emit_fma(e, p, a, table_pick(e, t, d, index));
    return p;
}

static Val gelu_by_power(Emit *e, Val x) {
    Val a = emit_clamp_high(e, emit_fabs(e, x), 12), q = polynomial(e, a, gelu_power, 6);
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

static Val by_table_any(Emit *e, const Table *t, Val x) {
    int w = vec_width(x);
    return w == 16 ? by_table(e, t, x) : resize(e, by_table(e, t, resize(e, x, 16)), w);
}

Val emit_gelu(Emit *e, Val x) {
    e->function = "gelu";
    if (!e->target->permute2) return gelu_by_power(e, x);
    return emit_fadd(e, emit_clamp_low(e, x, 0), by_table_any(e, &gelu_even, x));
}

// h(a) = Phi(-a) - a phi(a) = n(a) / d(a)^8, polynomials.
static Val slope_by_power(Emit *e, Val a) {
    a = emit_clamp_high(e, a, 10);
    Val d = polynomial(e, a, gelu_slope_d, 5);
    for (int i = 0; i < 3; i++) d = emit_fmul(e, d, d);
    return emit_fdiv(e, polynomial(e, a, gelu_slope_n, 6), d);
}

// 1/2 + sign(x) (1/2 - h(|x|))
Val emit_gelu_slope(Emit *e, Val x) {
    e->function = "gelu_slope";
    int w = vec_width(x);
    Val half = number(e, w, 0.5), bits = as_ints(e, x), odd = NULL;
    Val sign = LLVMBuildAnd(e->b, bits, bit_const(e, w, 0x80000000), "");
    if (e->target->permute2) {
        odd = by_table_any(e, &gelu_slope, x);
    } else {
        Val a = LLVMBuildXor(e->b, bits, sign, "");
        a = LLVMBuildBitCast(e->b, a, vec_type(e, w), "");
        odd = emit_fsub(e, half, slope_by_power(e, a));
    }
    odd = LLVMBuildXor(e->b, as_ints(e, odd), sign, "");
    return emit_fadd(e, half, LLVMBuildBitCast(e->b, odd, vec_type(e, w), ""));
}

// 2^(xy), |xy| < 126: xy's nearest integer is added to the exponent of 2 to the rest, a polynomial.
static Val power_of_two(Emit *e, Val x, Val y) {
    int w = vec_width(x);
    Val magic = number(e, w, ROUNDER), z = emit_fma(e, x, y, magic);
    Val rest = emit_fma(e, x, y, emit_fsub(e, magic, z));
    Val p = polynomial(e, rest, gelu_exp2, 5);
    // The bits of ROUNDER shifted left by 23 vanish.
    Val n = LLVMBuildShl(e->b, as_ints(e, z), int_vector(e, w, 23), "");
    return LLVMBuildBitCast(e->b, LLVMBuildAdd(e->b, as_ints(e, p), n, ""), vec_type(e, w), "");
}

// The tanh forms, with u = sqrt(2/pi)(x + 0.044715 x^3) and E = exp(-2u) = 2^(-2u / log 2). Beyond
// TANH_CLAMP 1 + E is 1 or all of the result vanishes.
static const double TANH_SCALE = 1.5957691216057308, TANH_CUBE = 0.044715, TANH_CLAMP = 9;

static Val tanh_power(Emit *e, Val x, Val square) {
    const double scale = -TANH_SCALE * 1.4426950408889634;
    int w = vec_width(x);
    return power_of_two(e, x,
                        emit_fma(e, square, number(e, w, scale * TANH_CUBE), number(e, w, scale)));
}

// x / (1 + E)
Val emit_gelu_tanh(Emit *e, Val x) {
    e->function = "gelu_tanh";
    Val low = emit_clamp_low(e, x, -TANH_CLAMP), y = emit_clamp_high(e, low, TANH_CLAMP);
    Val E = tanh_power(e, y, emit_fmul(e, y, y));
    return emit_fdiv(e, low, emit_fadd(e, number(e, vec_width(x), 1), E));
}

// s (1 + 2x u' E s), s = 1 / (1 + E)
Val emit_gelu_tanh_slope(Emit *e, Val x) {
    e->function = "gelu_tanh_slope";
    int w = vec_width(x);
    Val y = emit_clamp_high(e, emit_clamp_low(e, x, -TANH_CLAMP), TANH_CLAMP);
    Val square = emit_fmul(e, y, y), one = number(e, w, 1);
    Val slope =
        emit_fma(e, square, number(e, w, 3 * TANH_SCALE * TANH_CUBE), number(e, w, TANH_SCALE));
    slope = emit_fmul(e, slope, y);
    Val E = tanh_power(e, y, square), s = emit_fdiv(e, one, emit_fadd(e, one, E));
    return emit_fmul(e, s, emit_fma(e, emit_fmul(e, slope, E), s, one));
}
