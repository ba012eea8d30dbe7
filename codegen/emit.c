// The vocabulary of emit.h but its mathematics: functions, integers, loops, vectors, columns.
#include "emit.h"

// Operands take the types the intrinsic has in this version of LLVM: equal bits.
Val emit_intrinsic(Emit *e, const char *name, LLVMTypeRef *types, int ntypes, Val *args, int n) {
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    Val fn = LLVMGetIntrinsicDeclaration(e->mod, id, types, (size_t)ntypes);
    LLVMTypeRef type = LLVMIntrinsicGetType(e->ctx, id, types, (size_t)ntypes);
    LLVMTypeRef want[8];
    LLVMGetParamTypes(type, want);
    Val list[8];
    for (int i = 0; i < n; i++)
        list[i] =
            LLVMTypeOf(args[i]) == want[i] ? args[i] : LLVMBuildBitCast(e->b, args[i], want[i], "");
    return LLVMBuildCall2(e->b, type, fn, list, (unsigned)n, "");
}

void emit_init(Emit *e, Arena *a, LLVMContextRef ctx, LLVMModuleRef mod, const Target *t) {
    *e = (Emit){.arena = a, .target = t, .ctx = ctx, .mod = mod};
    e->b = LLVMCreateBuilderInContext(ctx);
    e->none = LLVMVoidTypeInContext(ctx);
    e->i1 = LLVMInt1TypeInContext(ctx);
    e->i32 = LLVMInt32TypeInContext(ctx);
    e->i64 = LLVMInt64TypeInContext(ctx);
    e->f32 = LLVMFloatTypeInContext(ctx);
    e->ptr = LLVMPointerTypeInContext(ctx, 0);
    e->lanes = target_lanes(t);
    e->masks = t->masks;
}

void emit_free(Emit *e) { LLVMDisposeBuilder(e->b); }

// ---- functions ---------------------------------------------------------------------------------
static void add_enum_attribute(Emit *e, Val fn, const char *name, uint64_t value) {
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(e->ctx, kind, value));
}

static void add_text_attribute(Emit *e, Val fn, const char *key, const char *value) {
    LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
                            LLVMCreateStringAttribute(e->ctx, key, (unsigned)strlen(key), value,
                                                      (unsigned)strlen(value)));
}

void emit_target_attributes(Emit *e, Val fn) {
    const Target *t = e->target;
    add_enum_attribute(e, fn, "nounwind", 0);
    add_text_attribute(e, fn, "target-cpu", t->cpu);
    if (*t->features) add_text_attribute(e, fn, "target-features", t->features);
    add_text_attribute(e, fn, "prefer-vector-width", arena_printf(e->arena, "%d", t->vector_bits));
    // At least so many times 128 bits, which makes LLVM put fixed vectors into scalable registers.
    if (t->vscale) add_enum_attribute(e, fn, "vscale_range", (uint64_t)t->vscale << 32);
}

Val emit_function(Emit *e, const char *symbol, const LLVMTypeRef *params, int n) {
    LLVMTypeRef types[16];
    for (int i = 0; i < n; i++) types[i] = params[i];
    e->fn = LLVMAddFunction(e->mod, symbol, LLVMFunctionType(e->none, types, (unsigned)n, 0));
    e->nheld = 0;
    e->crowded = false;
    e->masks = e->target->masks;
    emit_target_attributes(e, e->fn);
    LLVMBasicBlockRef entry = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "entry");
    LLVMPositionBuilderAtEnd(e->b, entry);
    return e->fn;
}

Val emit_internal(Emit *e, const char *symbol, const LLVMTypeRef *params, int n) {
    Val fn = emit_function(e, symbol, params, n);
    LLVMSetLinkage(fn, LLVMInternalLinkage);
    add_enum_attribute(e, fn, "noinline", 0);
    return fn;
}

void emit_return(Emit *e) { LLVMBuildRetVoid(e->b); }

Val emit_call(Emit *e, Val fn, const Val *args, int n) {
    Val copy[16];
    for (int i = 0; i < n; i++) copy[i] = args[i];
    return LLVMBuildCall2(e->b, LLVMGlobalGetValueType(fn), fn, copy, (unsigned)n, "");
}

Val emit_stack(Emit *e, LLVMTypeRef type, int64_t count) {
    LLVMBasicBlockRef here = LLVMGetInsertBlock(e->b);
    LLVMBasicBlockRef entry = LLVMGetEntryBasicBlock(e->fn);
    Val first = LLVMGetFirstInstruction(entry);
    if (first) LLVMPositionBuilderBefore(e->b, first);
    Val at = LLVMBuildAlloca(e->b, LLVMArrayType2(type, (uint64_t)count), "");
    LLVMSetAlignment(at, 64);
    LLVMPositionBuilderAtEnd(e->b, here);
    return at;
}

// ---- integers and addresses --------------------------------------------------------------------
Val emit_i64(Emit *e, int64_t v) { return LLVMConstInt(e->i64, (unsigned long long)v, 1); }

Val emit_iadd(Emit *e, Val x, Val y) { return LLVMBuildNSWAdd(e->b, x, y, ""); }

Val emit_isub(Emit *e, Val x, Val y) { return LLVMBuildNSWSub(e->b, x, y, ""); }

Val emit_imul(Emit *e, Val x, int64_t c) {
    return c == 1 ? x : LLVMBuildNSWMul(e->b, x, emit_i64(e, c), "");
}

Val emit_idiv(Emit *e, Val x, int64_t c) {
    return c == 1 ? x : LLVMBuildUDiv(e->b, x, emit_i64(e, c), "");
}

Val emit_imod(Emit *e, Val x, int64_t c) { return LLVMBuildURem(e->b, x, emit_i64(e, c), ""); }

Val emit_less(Emit *e, Val x, Val y) { return LLVMBuildICmp(e->b, LLVMIntSLT, x, y, ""); }

Val emit_imin(Emit *e, Val x, Val y) { return LLVMBuildSelect(e->b, emit_less(e, x, y), x, y, ""); }

Val emit_imax(Emit *e, Val x, Val y) { return LLVMBuildSelect(e->b, emit_less(e, x, y), y, x, ""); }

Val emit_at(Emit *e, Val base, Val index) {
    return LLVMBuildInBoundsGEP2(e->b, e->f32, base, &index, 1, "");
}

Val emit_bytes_at(Emit *e, Val base, Val bytes) {
    return LLVMBuildInBoundsGEP2(e->b, LLVMInt8TypeInContext(e->ctx), base, &bytes, 1, "");
}

Val emit_at_c(Emit *e, Val base, int64_t index) {
    return index ? emit_at(e, base, emit_i64(e, index)) : base;
}

Val emit_opaque(Emit *e, Val address) { return LLVMBuildFreeze(e->b, address, ""); }

Val emit_here(Emit *e, Val v) {
    static const char result_is_operand[] = "=r,0";
    LLVMTypeRef type = LLVMTypeOf(v), fn = LLVMFunctionType(type, &type, 1, 0);
    Val none = LLVMGetInlineAsm(fn, "", 0, result_is_operand, sizeof result_is_operand - 1, true,
                                false, LLVMInlineAsmDialectATT, false);
    return LLVMBuildCall2(e->b, fn, none, &v, 1, "");
}

Val emit_spaced(Emit *e, Spaced *s, int64_t i) {
    if (!e->target->short_offsets) return emit_at_c(e, s->at, i * s->step);
    if (i != s->i) s->at = emit_opaque(e, emit_at_c(e, s->at, (i - s->i) * s->step));
    s->i = i;
    return s->at;
}

Val emit_ptr(Emit *e, Val table, int i) {
    Val index = emit_i64(e, i);
    Val at = LLVMBuildInBoundsGEP2(e->b, e->ptr, table, &index, 1, "");
    return LLVMBuildLoad2(e->b, e->ptr, at, "");
}

Val emit_index_load(Emit *e, Val base, Val index) {
    Val at = LLVMBuildInBoundsGEP2(e->b, e->i32, base, &index, 1, "");
    return LLVMBuildSExt(e->b, LLVMBuildLoad2(e->b, e->i32, at, ""), e->i64, "");
}

void emit_index_store(Emit *e, Val v, Val base, Val index) {
    Val at = LLVMBuildInBoundsGEP2(e->b, e->i32, base, &index, 1, "");
    LLVMBuildStore(e->b, LLVMBuildTrunc(e->b, v, e->i32, ""), at);
}

void emit_prefetch(Emit *e, Val address, bool write, int locality) {
    if (!e->target->prefetch) return;
    Val args[] = {address, LLVMConstInt(e->i32, write, 0),
                  LLVMConstInt(e->i32, (unsigned)locality, 0), LLVMConstInt(e->i32, 1, 0)};
    emit_intrinsic(e, "llvm.prefetch", &e->ptr, 1, args, 4);
}

// ---- control -----------------------------------------------------------------------------------
static LLVMBasicBlockRef new_block(Emit *e) {
    return LLVMAppendBasicBlockInContext(e->ctx, e->fn, "");
}

static Val phi_of(Emit *e, Val v) { return LLVMBuildPhi(e->b, LLVMTypeOf(v), ""); }

Val loop_begin(Emit *e, Loop *l, Val start, Val end, int64_t step, Val *carry, int n) {
    if (n > MAX_CARRY) ice((Loc){0}, "a loop carries %d values", n);
    l->before = LLVMGetInsertBlock(e->b);
    l->body = new_block(e);
    l->after = new_block(e);
    l->end = end;
    l->step = step;
    l->carry = carry;
    l->n = n;
    LLVMBuildCondBr(e->b, emit_less(e, start, end), l->body, l->after);
    LLVMPositionBuilderAtEnd(e->b, l->body);
    l->i = phi_of(e, start);
    LLVMAddIncoming(l->i, &start, &l->before, 1);
    for (int k = 0; k < n; k++) {
        l->init[k] = carry[k];
        l->phi[k] = carry[k] = phi_of(e, carry[k]);
        LLVMAddIncoming(l->phi[k], &l->init[k], &l->before, 1);
    }
    return l->i;
}

void loop_end(Emit *e, Loop *l) {
    Val next = emit_iadd(e, l->i, emit_i64(e, l->step));
    LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->b);
    LLVMBuildCondBr(e->b, emit_less(e, next, l->end), l->body, l->after);
    LLVMAddIncoming(l->i, &next, &latch, 1);
    LLVMPositionBuilderAtEnd(e->b, l->after);
    for (int k = 0; k < l->n; k++) {
        Val last = l->carry[k];
        LLVMAddIncoming(l->phi[k], &last, &latch, 1);
        l->carry[k] = phi_of(e, last);
        LLVMAddIncoming(l->carry[k], (Val[]){l->init[k], last},
                        (LLVMBasicBlockRef[]){l->before, latch}, 2);
    }
}

void if_begin(Emit *e, If *f, Val cond, Val *carry, int n) {
    if (n > MAX_CARRY) ice((Loc){0}, "a branch carries %d values", n);
    f->from = LLVMGetInsertBlock(e->b);
    f->carry = carry;
    f->n = n;
    for (int k = 0; k < n; k++) f->init[k] = carry[k];
    LLVMBasicBlockRef then = new_block(e);
    f->after = new_block(e);
    LLVMBuildCondBr(e->b, cond, then, f->after);
    LLVMPositionBuilderAtEnd(e->b, then);
}

void if_end(Emit *e, If *f) {
    LLVMBasicBlockRef then = LLVMGetInsertBlock(e->b);
    LLVMBuildBr(e->b, f->after);
    LLVMPositionBuilderAtEnd(e->b, f->after);
    for (int k = 0; k < f->n; k++) {
        Val v = f->carry[k];
        f->carry[k] = phi_of(e, v);
        LLVMAddIncoming(f->carry[k], (Val[]){f->init[k], v}, (LLVMBasicBlockRef[]){f->from, then},
                        2);
    }
}

// ---- vectors -----------------------------------------------------------------------------------
int emit_pieces(const Emit *e, int64_t n, Piece *out) {
    int count = 0, off = 0;
    for (; n - off >= e->lanes; off += e->lanes) out[count++] = (Piece){off, e->lanes, e->lanes, 0};
    int rest = (int)n - off;
    if (rest > 0 && e->masks) {
        int width = 4;
        while (width < rest) width *= 2;
        out[count++] = (Piece){off, width, rest, 0};
        return count;
    }
    for (int width = e->lanes / 2; width > 0; width /= 2) {
        if (!(rest & width)) continue;
        out[count++] = (Piece){off, width, width, 0};
        off += width;
    }
    return count;
}

int emit_groups(const Emit *e, int n, Piece *pieces) {
    int group = target_group(e->target), width = group * e->lanes;
    if (n == 0 || n % group || pieces[n - 1].valid < e->lanes) return n;
    for (int i = 0; i < n / group; i++) pieces[i] = (Piece){i * width, width, width, 0};
    return n / group;
}

LLVMTypeRef vec_type(Emit *e, int width) { return LLVMVectorType(e->f32, (unsigned)width); }

int vec_width(Val v) { return (int)LLVMGetVectorSize(LLVMTypeOf(v)); }

Val vec_const(Emit *e, int width, double v) {
    Val c[64];
    for (int i = 0; i < width; i++) c[i] = LLVMConstReal(e->f32, v);
    return LLVMConstVector(c, (unsigned)width);
}

static Val const_indices(Emit *e, const int *index, int n) {
    Val c[64];
    for (int i = 0; i < n; i++)
        c[i] = index[i] < 0 ? LLVMGetPoison(e->i32)
                            : LLVMConstInt(e->i32, (unsigned long long)index[i], 0);
    return LLVMConstVector(c, (unsigned)n);
}

Val vec_splat(Emit *e, int width, Val scalar) {
    int zero[64] = {0};
    Val none = LLVMGetPoison(LLVMVectorType(LLVMTypeOf(scalar), (unsigned)width));
    Val v = LLVMBuildInsertElement(e->b, none, scalar, LLVMConstInt(e->i32, 0, 0), "");
    return LLVMBuildShuffleVector(e->b, v, none, const_indices(e, zero, width), "");
}

Val vec_broadcast(Emit *e, Val at, int width) {
    Val s = LLVMBuildLoad2(e->b, e->f32, at, "");
    LLVMSetAlignment(s, 4);
    return vec_splat(e, width, s);
}

static Val valid_mask(Emit *e, Piece p) {
    Val c[64];
    for (int i = 0; i < p.width; i++) c[i] = LLVMConstInt(e->i1, i < p.valid, 0);
    return LLVMConstVector(c, (unsigned)p.width);
}

static unsigned element_bytes(LLVMTypeRef t) {
    return LLVMGetTypeKind(t) == LLVMIntegerTypeKind ? LLVMGetIntTypeWidth(t) / 8 : 4;
}

// llvm.masked.load(ptr, [align,] mask, passthru) and .store(value, ptr, [align,] mask): newer
// versions of LLVM take the alignment as an attribute of the pointer.
static Val masked(Emit *e, const char *name, LLVMTypeRef vec, Val *args, int n, int pointer) {
    LLVMTypeRef types[2] = {vec, e->ptr};
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    LLVMTypeRef type = LLVMIntrinsicGetType(e->ctx, id, types, 2);
    Val list[4];
    int count = 0;
    for (int i = 0; i < n; i++) {
        list[count++] = args[i];
        if (i == pointer && (int)LLVMCountParamTypes(type) == n + 1)
            list[count++] = LLVMConstInt(e->i32, element_bytes(LLVMGetElementType(vec)), 0);
    }
    return emit_intrinsic(e, name, types, 2, list, count);
}

Val vec_load_type(Emit *e, LLVMTypeRef element, Val at, Piece p) {
    LLVMTypeRef type = LLVMVectorType(element, (unsigned)p.width);
    if (p.valid < p.width)
        return masked(e, "llvm.masked.load", type,
                      (Val[]){at, valid_mask(e, p), LLVMConstNull(type)}, 3, 0);
    Val v = LLVMBuildLoad2(e->b, type, at, "");
    LLVMSetAlignment(v, element_bytes(element));
    return v;
}

// One lane is a scalar store on purpose: LLVM 22 stores a masked single lane of truncated numbers
// at their full width.
void vec_store_type(Emit *e, Val v, Val at, Piece p) {
    LLVMTypeRef type = LLVMTypeOf(v);
    if (p.valid == 1) {
        Val store = LLVMBuildStore(e->b, vec_lane(e, v, 0), at);
        LLVMSetAlignment(store, element_bytes(LLVMGetElementType(type)));
        return;
    }
    if (p.valid < p.width) {
        masked(e, "llvm.masked.store", type, (Val[]){v, at, valid_mask(e, p)}, 3, 1);
        return;
    }
    LLVMSetAlignment(LLVMBuildStore(e->b, v, at), element_bytes(LLVMGetElementType(type)));
}

// NEON and RISC-V have no such stores of one vector; LLVM would take it apart.
static bool streams(const Emit *e) { return strncmp(e->target->triple, "x86_64", 6) == 0; }

void vec_stream(Emit *e, Val v, Val at, Piece p) {
    LLVMTypeRef type = LLVMTypeOf(v);
    if (!streams(e)) {
        vec_store_type(e, v, at, p);
        return;
    }
    Val store = LLVMBuildStore(e->b, v, at);
    LLVMSetAlignment(store, element_bytes(LLVMGetElementType(type)) * (unsigned)p.width);
    LLVMMetadataRef one = LLVMValueAsMetadata(LLVMConstInt(e->i32, 1, 0));
    LLVMMetadataRef node = LLVMMDNodeInContext2(e->ctx, &one, 1);
    LLVMSetMetadata(store, LLVMGetMDKindIDInContext(e->ctx, "nontemporal", 11),
                    LLVMMetadataAsValue(e->ctx, node));
}

void emit_stream_end(Emit *e) {
    if (streams(e)) emit_intrinsic(e, "llvm.x86.sse.sfence", NULL, 0, NULL, 0);
}

Val vec_load(Emit *e, Val at, Piece p) { return vec_load_type(e, e->f32, at, p); }

void vec_store(Emit *e, Val v, Val at, Piece p) { vec_store_type(e, v, at, p); }

Val vec_widen_with(Emit *e, Val v, Piece p, int width, double fill) {
    if (p.valid == width) return v;
    int index[64];
    for (int i = 0; i < width; i++) index[i] = i < p.valid ? i : p.width;
    return LLVMBuildShuffleVector(e->b, v, vec_const(e, p.width, fill),
                                  const_indices(e, index, width), "");
}

Val vec_widen(Emit *e, Val v, Piece p, int width) { return vec_widen_with(e, v, p, width, 0); }

Val vec_lane(Emit *e, Val v, int lane) {
    return LLVMBuildExtractElement(e->b, v, LLVMConstInt(e->i32, (unsigned)lane, 0), "");
}

Val vec_low(Emit *e, Val v, int width) {
    if (width == vec_width(v)) return v;
    Val lanes[64];
    for (int i = 0; i < width; i++) lanes[i] = LLVMConstInt(e->i32, (unsigned)i, 0);
    return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(LLVMTypeOf(v)),
                                  LLVMConstVector(lanes, (unsigned)width), "");
}

Val vec_sum(Emit *e, Val v) {
    int width = vec_width(v), lo[64], hi[64];
    for (int half = width / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) lo[i] = i, hi[i] = i + half;
        Val none = LLVMGetPoison(LLVMTypeOf(v));
        Val x = LLVMBuildShuffleVector(e->b, v, none, const_indices(e, lo, half), "");
        Val y = LLVMBuildShuffleVector(e->b, v, none, const_indices(e, hi, half), "");
        v = emit_fadd(e, x, y);
    }
    return vec_lane(e, v, 0);
}

Val emit_fadd(Emit *e, Val x, Val y) { return LLVMBuildFAdd(e->b, x, y, ""); }

Val emit_fsub(Emit *e, Val x, Val y) { return LLVMBuildFSub(e->b, x, y, ""); }

Val emit_fmul(Emit *e, Val x, Val y) { return LLVMBuildFMul(e->b, x, y, ""); }

Val emit_fdiv(Emit *e, Val x, Val y) { return LLVMBuildFDiv(e->b, x, y, ""); }

Val emit_fma(Emit *e, Val x, Val y, Val z) {
    if (!e->target->fma) return emit_fadd(e, emit_fmul(e, x, y), z);
    LLVMTypeRef type = LLVMTypeOf(x);
    return emit_intrinsic(e, "llvm.fma", &type, 1, (Val[]){x, y, z}, 3);
}

Val emit_fabs(Emit *e, Val x) {
    LLVMTypeRef type = LLVMTypeOf(x);
    return emit_intrinsic(e, "llvm.fabs", &type, 1, &x, 1);
}

Val emit_sqrt(Emit *e, Val x) {
    LLVMTypeRef type = LLVMTypeOf(x);
    return emit_intrinsic(e, "llvm.sqrt", &type, 1, &x, 1);
}

Val emit_fmax(Emit *e, Val x, Val y) {
    return LLVMBuildSelect(e->b, LLVMBuildFCmp(e->b, LLVMRealOGT, x, y, ""), x, y, "");
}

Val emit_sign(Emit *e, Val x) {
    Val zero = vec_const(e, vec_width(x), 0);
    Val up = LLVMBuildFCmp(e->b, LLVMRealOGT, x, zero, "");
    Val down = LLVMBuildFCmp(e->b, LLVMRealOLT, x, zero, "");
    Val v = LLVMBuildSelect(e->b, down, vec_const(e, vec_width(x), -1), zero, "");
    return LLVMBuildSelect(e->b, up, vec_const(e, vec_width(x), 1), v, "");
}

Val emit_clamp_low(Emit *e, Val x, double lo) {
    Val c = vec_const(e, vec_width(x), lo);
    return LLVMBuildSelect(e->b, LLVMBuildFCmp(e->b, LLVMRealOGT, c, x, ""), c, x, "");
}

Val emit_clamp_high(Emit *e, Val x, double hi) {
    Val c = vec_const(e, vec_width(x), hi);
    return LLVMBuildSelect(e->b, LLVMBuildFCmp(e->b, LLVMRealOLT, c, x, ""), c, x, "");
}

Val vec_shuffle(Emit *e, Val x, Val y, const int *index, int width) {
    return LLVMBuildShuffleVector(e->b, x, y, const_indices(e, index, width), "");
}

// ---- columns -----------------------------------------------------------------------------------
static Val full_vectors(Emit *e, Val start, Val end, int unroll, ColumnBody body, void *ctx,
                        Val *carry, int ncarry) {
    int64_t step = (int64_t)unroll * e->lanes;
    Val span = emit_imax(e, emit_isub(e, end, start), emit_i64(e, 0));
    Val stop = emit_iadd(e, start, emit_imul(e, emit_idiv(e, span, step), step));
    Loop l;
    Val col = loop_begin(e, &l, start, stop, step, carry, ncarry);
    for (int u = 0; u < unroll; u++)
        body(e, ctx, emit_iadd(e, col, emit_i64(e, u * e->lanes)),
             (Piece){0, e->lanes, e->lanes, u}, carry);
    loop_end(e, &l);
    return stop;
}

static bool known_zero_span(Val start, Val end) {
    return LLVMIsAConstantInt(start) && LLVMIsAConstantInt(end) &&
           LLVMConstIntGetSExtValue(start) >= LLVMConstIntGetSExtValue(end);
}

void emit_columns(Emit *e, int64_t n, Val c0, Val c1, int unroll, ColumnBody body, void *ctx,
                  Val *carry, int ncarry) {
    int64_t full = n / e->lanes * e->lanes;
    Val end = emit_imin(e, c1, emit_i64(e, full)), start = c0;
    if (unroll > 1 && !known_zero_span(start, end))
        start = full_vectors(e, start, end, unroll, body, ctx, carry, ncarry);
    if (!known_zero_span(start, end)) full_vectors(e, start, end, 1, body, ctx, carry, ncarry);
    if (full == n) return;
    Piece pieces[MAX_PIECES];
    int count = emit_pieces(e, n - full, pieces);
    If f;
    bool always = LLVMIsAConstantInt(c1) && LLVMConstIntGetSExtValue(c1) > full;
    if (!always) if_begin(e, &f, emit_less(e, emit_i64(e, full), c1), carry, ncarry);
    for (int i = 0; i < count; i++) {
        int64_t at = full + pieces[i].off;
        pieces[i].off = 0;
        body(e, ctx, emit_i64(e, at), pieces[i], carry);
    }
    if (!always) if_end(e, &f);
}

void emit_column_groups(Emit *e, int64_t n, Val c0, Val c1, ColumnBody body, void *ctx) {
    int64_t width = (int64_t)e->lanes * e->target->group;
    if (e->target->group > 1 && n >= width) {
        Val end = emit_imin(e, c1, emit_i64(e, n / width * width));
        Val last = emit_isub(e, end, emit_i64(e, width - 1));
        Loop l;
        Val col = loop_begin(e, &l, c0, last, width, NULL, 0);
        body(e, ctx, col, (Piece){0, (int)width, (int)width, 0}, NULL);
        loop_end(e, &l);
        Val span = emit_imax(e, emit_isub(e, end, c0), emit_i64(e, 0));
        c0 = emit_iadd(e, c0, emit_imul(e, emit_idiv(e, span, width), width));
    }
    emit_columns(e, n, c0, c1, 1, body, ctx, NULL, 0);
}
