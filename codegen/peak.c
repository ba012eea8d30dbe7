// The yardstick of `bench`: a loop of independent vector multiply-adds that never leaves the
// registers, in the vector width the kernels use. As many chains as hide the latency of the FMA
// units (4-5 cycles x 2 units) with registers to spare for the two constants.
#include "module.h"

enum { UNROLL = 4 };

static LLVMValueRef splat(Unit *u, double v, unsigned lanes) {
    LLVMValueRef *c = NEWN(u->arena, LLVMValueRef, lanes);
    for (unsigned i = 0; i < lanes; i++) c[i] = LLVMConstReal(u->f32, v);
    return LLVMConstVector(c, lanes);
}

// acc * a + b, as one instruction where the target has it.
static LLVMValueRef multiply_add(Unit *u, LLVMTypeRef vec, LLVMValueRef acc, LLVMValueRef a,
                                 LLVMValueRef b) {
    if (!u->target->fma) return LLVMBuildFAdd(u->b, LLVMBuildFMul(u->b, acc, a, ""), b, "");
    unsigned id = LLVMLookupIntrinsicID("llvm.fma", 8);
    LLVMValueRef fma = LLVMGetIntrinsicDeclaration(u->mod, id, &vec, 1);
    LLVMTypeRef type = LLVMIntrinsicGetType(u->ctx, id, &vec, 1);
    return LLVMBuildCall2(u->b, type, fma, (LLVMValueRef[]){acc, a, b}, 3, "");
}

// double peak_loop(i64 iterations): `iterations` rounds of chains * UNROLL multiply-adds.
LLVMValueRef emit_peak_loop(Unit *u) {
    unsigned lanes = (unsigned)target_lanes(u->target);
    int chains = u->target->registers >= 32 ? 20 : 12;
    LLVMTypeRef vec = LLVMVectorType(u->f32, lanes);
    LLVMTypeRef type = LLVMFunctionType(u->f64, &u->i64, 1, 0);
    LLVMValueRef fn = unit_function(u, "peak_loop", type, LLVMInternalLinkage);
    LLVMValueRef rounds = LLVMGetParam(fn, 0);
    LLVMValueRef sink = LLVMBuildAlloca(u->b, vec, "sink");
    LLVMBasicBlockRef entry = LLVMGetInsertBlock(u->b);
    LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(u->ctx, fn, "body");
    LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(u->ctx, fn, "done");
    LLVMBuildBr(u->b, body);
    LLVMPositionBuilderAtEnd(u->b, body);
    LLVMValueRef i = LLVMBuildPhi(u->b, u->i64, "i"), acc[32], start[32];
    for (int c = 0; c < chains; c++) start[c] = acc[c] = LLVMBuildPhi(u->b, vec, "");
    // The chains converge to 1: no overflow, no denormals.
    LLVMValueRef a = splat(u, 0.5, lanes), b = splat(u, 0.5, lanes);
    for (int k = 0; k < UNROLL; k++)
        for (int c = 0; c < chains; c++) acc[c] = multiply_add(u, vec, acc[c], a, b);
    LLVMValueRef next = LLVMBuildNSWAdd(u->b, i, unit_i64(u, 1), "");
    LLVMBuildCondBr(u->b, LLVMBuildICmp(u->b, LLVMIntSLT, next, rounds, ""), body, done);
    LLVMBasicBlockRef from[2] = {entry, body};
    LLVMAddIncoming(i, (LLVMValueRef[]){unit_i64(u, 0), next}, from, 2);
    for (int c = 0; c < chains; c++)
        LLVMAddIncoming(start[c], (LLVMValueRef[]){splat(u, 1 + 0.01 * c, lanes), acc[c]}, from, 2);
    LLVMPositionBuilderAtEnd(u->b, done);
    for (int c = 0; c < chains; c++) LLVMSetVolatile(LLVMBuildStore(u->b, acc[c], sink), 1);
    double flops = 2.0 * UNROLL * chains * lanes;
    LLVMValueRef n = LLVMBuildSIToFP(u->b, rounds, u->f64, "");
    LLVMBuildRet(u->b, LLVMBuildFMul(u->b, n, LLVMConstReal(u->f64, flops), ""));
    return fn;
}
