// The yardstick of `bench`: a loop of independent vector multiply-adds that never leaves the
// registers, in the vector width the kernels use. As many chains as hide the latency of the FMA
// units (4-5 cycles x 2 units) with registers to spare for the constant.
#include "module.h"

enum { UNROLL = 4, MAX_CHAINS = 20 };

// double peak_loop(i64 iterations): `iterations` rounds of chains * UNROLL multiply-adds.
LLVMValueRef emit_peak_loop(Unit *u) {
    Emit *e = &u->emit;
    LLVMTypeRef type = LLVMFunctionType(u->f64, &u->i64, 1, 0);
    LLVMValueRef fn = unit_function(u, "peak_loop", type, LLVMInternalLinkage);
    Val rounds = LLVMGetParam(fn, 0), sink = emit_stack(e, vec_type(e, e->lanes), 1);
    int chains = e->target->registers >= 32 ? MAX_CHAINS : 12;
    // x + 1/4 where that is one instruction, on every such target in the place of x, until it is
    // rounded off; elsewhere x / 2 + 1/2, which converges to 1. No overflow, no denormals.
    bool fma = e->target->fma;
    Val x[MAX_CHAINS], half = vec_const(e, e->lanes, 0.5);
    for (int c = 0; c < chains; c++) x[c] = vec_const(e, e->lanes, 1 + 0.01 * c);
    Loop l;
    loop_begin(e, &l, emit_i64(e, 0), rounds, 1, x, chains);
    for (int i = 0; i < UNROLL * chains; i++)
        x[i % chains] =
            fma ? emit_fma(e, half, half, x[i % chains]) : emit_fma(e, x[i % chains], half, half);
    loop_end(e, &l);
    for (int c = 0; c < chains; c++) LLVMSetVolatile(LLVMBuildStore(u->b, x[c], sink), 1);
    Val flops = LLVMConstReal(u->f64, 2.0 * UNROLL * chains * e->lanes);
    LLVMBuildRet(u->b, LLVMBuildFMul(u->b, LLVMBuildSIToFP(u->b, rounds, u->f64, ""), flops, ""));
    return fn;
}
