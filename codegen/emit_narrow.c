// Narrow numbers: how vectors of f32 are written as bf16 or u8 and read back, and products of
// groups of 4 bytes with sums in f32 or i32.
//
// Where the target has the dot product a group is one instruction; on SVE, of a scalable register.
// Elsewhere a group is taken apart: two bf16 widen to two f32 (the upper half of a float is one),
// four bytes widen to pairs of i16 whose products two instructions sum (x86), or to four i32.
#include "emit.h"

DType operand_dtype(const KernelSpec *spec) { return dtype_of_word(spec_int(spec, A_from)); }
DType result_dtype(const KernelSpec *spec) { return dtype_of_word(spec_int(spec, A_dtype)); }

Narrow narrow_of(Emit *e, const KernelSpec *spec, Val ops) {
    Narrow n = {.dt = result_dtype(spec)};
    if (n.dt != DT_U8) return n;
    Val grid = emit_ptr(e, ops, spec_operands(spec) - 1);
    int width = e->lanes * target_group(e->target);
    n.factor = vec_broadcast(e, grid, width);
    n.zero = vec_broadcast(e, emit_at_c(e, grid, 1), width);
    return n;
}

static LLVMTypeRef int_type(Emit *e, int bytes) {
    return LLVMIntTypeInContext(e->ctx, (unsigned)bytes * 8);
}

static LLVMTypeRef int_vector(Emit *e, int bits, int width) {
    return LLVMVectorType(LLVMIntTypeInContext(e->ctx, (unsigned)bits), (unsigned)width);
}

static Val int_splat(Emit *e, int bits, int width, int64_t v) {
    Val c[128];
    for (int i = 0; i < width; i++)
        c[i] = LLVMConstInt(LLVMIntTypeInContext(e->ctx, (unsigned)bits), (unsigned long long)v, 1);
    return LLVMConstVector(c, (unsigned)width);
}

static Val bits_of(Emit *e, Val v, LLVMTypeRef type) { return LLVMBuildBitCast(e->b, v, type, ""); }

Val emit_at_as(Emit *e, DType dt, Val base, Val index) {
    if (dt == DT_F32) return emit_at(e, base, index);
    return LLVMBuildInBoundsGEP2(e->b, int_type(e, dtype_bytes(dt)), base, &index, 1, "");
}

// ---- bf16 --------------------------------------------------------------------------------------
static Val bf16_to_f32(Emit *e, Val halves, int width) {
    Val wide = LLVMBuildZExt(e->b, halves, int_vector(e, 32, width), "");
    wide = LLVMBuildShl(e->b, wide, int_splat(e, 32, width, 16), "");
    return bits_of(e, wide, vec_type(e, width));
}

// bits + 0x7fff + the lowest bit that stays, upper half; a NaN keeps its upper bits and stays one.
static Val round_bits(Emit *e, Val v, int width) {
    LLVMBuilderRef b = e->b;
    Val bits = bits_of(e, v, int_vector(e, 32, width)), half = int_splat(e, 32, width, 16);
    Val upper = LLVMBuildLShr(b, bits, half, "");
    Val odd = LLVMBuildAnd(b, upper, int_splat(e, 32, width, 1), "");
    Val up = LLVMBuildAdd(b, odd, int_splat(e, 32, width, 0x7fff), "");
    Val rounded = LLVMBuildLShr(b, LLVMBuildAdd(b, bits, up, ""), half, "");
    Val quiet = LLVMBuildOr(b, upper, int_splat(e, 32, width, 0x40), "");
    Val nan = LLVMBuildFCmp(b, LLVMRealUNO, v, v, "");
    rounded = LLVMBuildSelect(b, nan, quiet, rounded, "");
    return LLVMBuildTrunc(b, rounded, int_vector(e, 16, width), "");
}

static Val f32_to_bf16(Emit *e, Val v) {
    int width = vec_width(v);
    if (e->target->bf16_dot != BF16_VDPBF16PS || width < 4) return round_bits(e, v, width);
    LLVMTypeRef type = LLVMVectorType(LLVMBFloatTypeInContext(e->ctx), (unsigned)width);
    return bits_of(e, LLVMBuildFPTrunc(e->b, v, type, ""), int_vector(e, 16, width));
}

// ---- u8 ----------------------------------------------------------------------------------------
#define ROUNDING 12582912.0 // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

static Val f32_to_bytes(Emit *e, Val v) {
    int width = vec_width(v);
    v = bits_of(e, emit_fadd(e, v, vec_const(e, width, ROUNDING)), int_vector(e, 32, width));
    return LLVMBuildTrunc(e->b, v, int_vector(e, 8, width), "");
}

static Val quantized(Emit *e, const Narrow *n, Val v) {
    int width = vec_width(v);
    v = emit_fma(e, v, vec_low(e, n->factor, width), vec_low(e, n->zero, width));
    return f32_to_bytes(e, emit_clamp_high(e, emit_clamp_low(e, v, 0), 255));
}

// ---- load and store ----------------------------------------------------------------------------
Val vec_load_as(Emit *e, DType dt, Val at, Piece p) {
    if (dt == DT_F32) return vec_load(e, at, p);
    Val v = vec_load_type(e, int_type(e, dtype_bytes(dt)), at, p);
    if (dt == DT_BF16) return bf16_to_f32(e, v, p.width);
    LLVMTypeRef wide = int_vector(e, 32, p.width);
    v = dt == DT_I8 ? LLVMBuildSExt(e->b, v, wide, "") : LLVMBuildZExt(e->b, v, wide, "");
    return LLVMBuildSIToFP(e->b, v, vec_type(e, p.width), "");
}

void vec_store_as(Emit *e, const Narrow *n, Val v, Val at, Piece p) {
    if (n->dt == DT_BF16) v = f32_to_bf16(e, v);
    if (n->dt == DT_U8) v = quantized(e, n, v);
    vec_store_type(e, v, at, p);
}

void vec_store_i8(Emit *e, Val v, Val at, Piece p) { vec_store_type(e, f32_to_bytes(e, v), at, p); }

Val vec_bf16_pairs(Emit *e, Val x, Val y) {
    int width = vec_width(x);
    LLVMTypeRef wide = int_vector(e, 32, width);
    Val low = LLVMBuildZExt(e->b, f32_to_bf16(e, x), wide, "");
    if (!y) return low;
    Val high = LLVMBuildZExt(e->b, f32_to_bf16(e, y), wide, "");
    high = LLVMBuildShl(e->b, high, int_splat(e, 32, width, 16), "");
    return LLVMBuildOr(e->b, low, high, "");
}

Val vec_bf16_run(Emit *e, Val x, Val y) {
    int width = vec_width(x), index[64];
    for (int i = 0; i < 2 * width; i++) index[i] = i;
    Val run = vec_shuffle(e, f32_to_bf16(e, x), f32_to_bf16(e, y), index, 2 * width);
    return bits_of(e, run, int_vector(e, 32, width));
}

// ---- dot products ------------------------------------------------------------------------------
static Val int_const(Emit *e, int64_t v) { return LLVMConstInt(e->i32, (unsigned long long)v, 1); }

Val dot_row(Emit *e, DType from, Val at) {
    Val s = LLVMBuildLoad2(e->b, from == DT_F32 ? e->f32 : e->i32, at, "");
    LLVMSetAlignment(s, from == DT_F32 ? 4 : (unsigned)dtype_bytes(from));
    return s;
}

Val dot_panel(Emit *e, DType from, Val at, Piece p) {
    p.valid = p.width;
    return vec_load_type(e, from == DT_F32 ? e->f32 : e->i32, at, p);
}

Val dot_zero(Emit *e, DType from, int width) {
    return from == DT_U8 ? int_splat(e, 32, width, 0) : vec_const(e, width, 0);
}

// Two products of floats: a bf16 is the upper half of one.
static Val dot_widened(Emit *e, Val row, Val columns, Val sum, int width) {
    LLVMBuilderRef b = e->b;
    LLVMTypeRef type = vec_type(e, width);
    Val low = bits_of(e, LLVMBuildShl(b, row, int_const(e, 16), ""), e->f32);
    Val high = bits_of(e, LLVMBuildAnd(b, row, int_const(e, -65536), ""), e->f32);
    Val y = bits_of(e, LLVMBuildShl(b, columns, int_splat(e, 32, width, 16), ""), type);
    sum = emit_fma(e, vec_splat(e, width, low), y, sum);
    y = bits_of(e, LLVMBuildAnd(b, columns, int_splat(e, 32, width, -65536), ""), type);
    return emit_fma(e, vec_splat(e, width, high), y, sum);
}

// sum + x0 y0 + x1 y1 over the pairs of i16 of each lane.
static Val add_pairs(Emit *e, Val x, Val y, Val sum, int width) {
    LLVMTypeRef wide = int_vector(e, 32, width * 2);
    Val even[64], odd[64];
    for (int i = 0; i < width; i++) {
        even[i] = int_const(e, 2 * i);
        odd[i] = int_const(e, 2 * i + 1);
    }
    x = LLVMBuildSExt(e->b, x, wide, "");
    Val p = LLVMBuildMul(e->b, x, LLVMBuildSExt(e->b, y, wide, ""), ""), none = LLVMGetPoison(wide);
    x = LLVMBuildShuffleVector(e->b, p, none, LLVMConstVector(even, (unsigned)width), "");
    y = LLVMBuildShuffleVector(e->b, p, none, LLVMConstVector(odd, (unsigned)width), "");
    return LLVMBuildAdd(e->b, sum, LLVMBuildAdd(e->b, x, y, ""), "");
}

// Even bytes and odd ones, each as pairs of i16.
static Val dot_pairs(Emit *e, Val row, Val columns, Val sum, int width) {
    LLVMBuilderRef b = e->b;
    LLVMTypeRef type = int_vector(e, 16, width * 2);
    Val mask = int_const(e, 0x00ff00ff), eight = int_splat(e, 16, width * 2, 8);
    Val even = vec_splat(e, width, LLVMBuildAnd(b, row, mask, ""));
    Val odd = LLVMBuildAnd(b, LLVMBuildLShr(b, row, int_const(e, 8), ""), mask, "");
    Val y = bits_of(e, columns, type);
    Val low = LLVMBuildAShr(b, LLVMBuildShl(b, y, eight, ""), eight, "");
    sum = add_pairs(e, bits_of(e, even, type), low, sum, width);
    odd = bits_of(e, vec_splat(e, width, odd), type);
    return add_pairs(e, odd, LLVMBuildAShr(b, y, eight, ""), sum, width);
}

// Four products of i32, a byte of each lane at a time.
static Val dot_lanes(Emit *e, Val row, Val columns, Val sum, int width) {
    LLVMBuilderRef b = e->b;
    for (int i = 0; i < 4; i++) {
        Val x =
            LLVMBuildAnd(b, LLVMBuildLShr(b, row, int_const(e, 8 * i), ""), int_const(e, 255), "");
        Val y = LLVMBuildShl(b, columns, int_splat(e, 32, width, 24 - 8 * i), "");
        y = LLVMBuildAShr(b, y, int_splat(e, 32, width, 24), "");
        sum = LLVMBuildAdd(b, sum, LLVMBuildMul(b, vec_splat(e, width, x), y, ""), "");
    }
    return sum;
}

// A product of signed bytes: u = (u & 127) + 64 + 64 where the upper bit is set.
static Val dot_signed(Emit *e, Val row, Val columns, Val sum) {
    LLVMTypeRef types[] = {int_vector(e, 32, 4), int_vector(e, 8, 16)};
    Val rest = LLVMBuildAnd(e->b, row, int_const(e, 0x7f7f7f7f), "");
    Val top = LLVMBuildAnd(e->b, row, int_const(e, (int32_t)0x80808080), "");
    top = LLVMBuildLShr(e->b, top, int_const(e, 1), "");
    Val parts[] = {rest, top, top};
    for (int i = 0; i < 3; i++)
        sum = emit_intrinsic(e, "llvm.aarch64.neon.sdot", types, 2,
                             (Val[]){sum, vec_splat(e, 4, parts[i]), columns}, 3);
    return sum;
}

// The same bits in a scalable register, as elements of that type. Fixed vectors longer than NEON's
// live in such registers: moving in and out is no instruction.
static Val to_scalable(Emit *e, Val v, LLVMTypeRef element) {
    LLVMTypeRef from = LLVMTypeOf(v), held = LLVMScalableVectorType(LLVMGetElementType(from), 4);
    Val args[] = {LLVMGetPoison(held), v, LLVMConstInt(e->i64, 0, 0)};
    v = emit_intrinsic(e, "llvm.vector.insert", (LLVMTypeRef[]){held, from}, 2, args, 3);
    unsigned bits = LLVMGetTypeKind(element) == LLVMBFloatTypeKind  ? 16
                    : LLVMGetTypeKind(element) == LLVMFloatTypeKind ? 32
                                                                    : LLVMGetIntTypeWidth(element);
    return bits_of(e, v, LLVMScalableVectorType(element, 128 / bits));
}

// A dot product of all lanes of a scalable register.
static Val dot_scalable(Emit *e, DType from, Val row, Val columns, Val sum, int width) {
    LLVMTypeRef element = from == DT_U8 ? int_type(e, 1) : LLVMBFloatTypeInContext(e->ctx);
    LLVMTypeRef fixed = LLVMTypeOf(sum);
    sum = to_scalable(e, sum, LLVMGetElementType(fixed));
    LLVMTypeRef types[] = {fixed, LLVMTypeOf(sum)};
    Val args[] = {sum, to_scalable(e, vec_splat(e, width, row), element),
                  to_scalable(e, columns, element)};
    sum = from == DT_U8 ? emit_intrinsic(e, "llvm.aarch64.sve.usdot", types + 1, 1, args, 3)
                        : emit_intrinsic(e, "llvm.aarch64.sve.bfdot", NULL, 0, args, 3);
    return emit_intrinsic(e, "llvm.vector.extract", types, 2,
                          (Val[]){sum, LLVMConstInt(e->i64, 0, 0)}, 2);
}

// One instruction; NULL: the target has none of this width.
static Val dot_instruction(Emit *e, DType from, Val row, Val columns, Val sum, int width) {
    Bf16Dot bf16 = from == DT_BF16 ? e->target->bf16_dot : BF16_NONE;
    Int8Dot int8 = from == DT_U8 ? e->target->int8_dot : INT8_NONE;
    Val args[] = {sum, vec_splat(e, width, row), columns};
    LLVMTypeRef types[] = {
        LLVMTypeOf(sum),
        LLVMVectorType(from == DT_U8 ? int_type(e, 1) : LLVMBFloatTypeInContext(e->ctx),
                       from == DT_U8 ? 16 : 8)};
    int bits = width * 32;
    if (bits >= 128 && bf16 == BF16_VDPBF16PS)
        return emit_intrinsic(e, arena_printf(e->arena, "llvm.x86.avx512bf16.dpbf16ps.%d", bits),
                              NULL, 0, args, 3);
    if (bits >= 128 && int8 == INT8_VPDPBUSD)
        return emit_intrinsic(e, arena_printf(e->arena, "llvm.x86.avx512.vpdpbusd.%d", bits), NULL,
                              0, args, 3);
    if (bits > 128 && e->target->vscale && (bf16 == BF16_BFDOT || int8 == INT8_USDOT))
        return dot_scalable(e, from, row, columns, sum, width);
    if (bits != 128) return NULL;
    if (bf16 == BF16_BFDOT) return emit_intrinsic(e, "llvm.aarch64.neon.bfdot", types, 2, args, 3);
    if (int8 == INT8_USDOT) return emit_intrinsic(e, "llvm.aarch64.neon.usdot", types, 2, args, 3);
    return int8 == INT8_SDOT ? dot_signed(e, row, columns, sum) : NULL;
}

Val dot_add(Emit *e, DType from, Val row, Val columns, Val sum) {
    int width = vec_width(sum);
    if (from == DT_F32) return emit_fma(e, vec_splat(e, width, row), columns, sum);
    Val v = dot_instruction(e, from, row, columns, sum, width);
    if (v) return v;
    if (from == DT_BF16) return dot_widened(e, row, columns, sum, width);
    return e->target->int8_dot == INT8_PMADDWD ? dot_pairs(e, row, columns, sum, width)
                                               : dot_lanes(e, row, columns, sum, width);
}

// The last piece, which may be narrower, second: LLVM puts its sum where its part of the broadcast
// was, which takes registers in whole tiles when it comes first or last.
void dot_add_row(Emit *e, DType from, Val row, const Val *panel, int npieces, Val *sums,
                 int stride) {
    for (int i = 0; i < npieces; i++) {
        int p = i == 0 ? 0 : i == 1 ? npieces - 1 : i - 1;
        sums[p * stride] = dot_add(e, from, row, panel[p], sums[p * stride]);
    }
}

Val dot_f32(Emit *e, DType from, Val sum) {
    return from == DT_U8 ? LLVMBuildSIToFP(e->b, sum, vec_type(e, vec_width(sum)), "") : sum;
}
