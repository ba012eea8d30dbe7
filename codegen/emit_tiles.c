// AMX: eight tile registers of up to 16 rows of 64 bytes, and products of two of them added to a
// third. Registers are named by number, their sizes are set for all at once (Intel SDM vol. 1, 18).
//
// A target without them may name C functions that stand in for the instructions (TileCalls): tests
// run the code around them anywhere.
#include "emit.h"

static Val tile_number(Emit *e, int tile) {
    LLVMTypeRef i8 = LLVMInt8TypeInContext(e->ctx);
    return LLVMConstInt(e->target->tile_calls ? e->i64 : i8, (unsigned)tile, 0);
}

// An instruction, or the function in its place.
static void tile_op(Emit *e, const char *intrinsic, uintptr_t function, Val *args, int n) {
    if (!e->target->tile_calls) {
        emit_intrinsic(e, intrinsic, NULL, 0, args, n);
        return;
    }
    LLVMTypeRef params[3];
    for (int i = 0; i < n; i++) params[i] = LLVMTypeOf(args[i]);
    LLVMTypeRef type = LLVMFunctionType(e->none, params, (unsigned)n, 0);
    Val fn = LLVMConstIntToPtr(LLVMConstInt(e->i64, function, 0), e->ptr);
    LLVMBuildCall2(e->b, type, fn, args, (unsigned)n, "");
}

#define TILE_OP(e, intrinsic, function, ...)                                                       \
    tile_op(e, "llvm.x86." intrinsic,                                                              \
            (e)->target->tile_calls ? (uintptr_t)(e)->target->tile_calls->function : 0,            \
            (Val[]){__VA_ARGS__}, sizeof((Val[]){__VA_ARGS__}) / sizeof(Val))

enum { CONFIG = 64, PALETTE = 1, ROW_BYTES_AT = 16, ROWS_AT = 48 };

static void config_set(Emit *e, Val config, int64_t at, LLVMTypeRef type, Val v) {
    Val to = emit_bytes_at(e, config, emit_i64(e, at));
    LLVMSetAlignment(LLVMBuildStore(e->b, LLVMBuildTrunc(e->b, v, type, ""), to), 1);
}

void tile_configure(Emit *e, const TileSize sizes[TILES]) {
    LLVMTypeRef i8 = LLVMInt8TypeInContext(e->ctx), i16 = LLVMInt16TypeInContext(e->ctx);
    Val config = emit_stack(e, i8, CONFIG);
    for (int i = 0; i < CONFIG / 8; i++) config_set(e, config, 8 * i, e->i64, emit_i64(e, 0));
    config_set(e, config, 0, i8, emit_i64(e, PALETTE));
    for (int i = 0; i < TILES; i++) {
        config_set(e, config, ROW_BYTES_AT + 2 * i, i16, emit_i64(e, sizes[i].row_bytes));
        config_set(e, config, ROWS_AT + i, i8, sizes[i].rows);
    }
    TILE_OP(e, "ldtilecfg", configure, config);
}

void tile_release(Emit *e) {
    if (e->target->tile_calls) return;
    emit_intrinsic(e, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
}

void tile_zero(Emit *e, int tile) { TILE_OP(e, "tilezero", zero, tile_number(e, tile)); }

void tile_load(Emit *e, int tile, Val at, Val stride) {
    TILE_OP(e, "tileloadd64", load, tile_number(e, tile), at, stride);
}

void tile_store(Emit *e, int tile, Val at, Val stride) {
    TILE_OP(e, "tilestored64", store, tile_number(e, tile), at, stride);
}

void tile_dot(Emit *e, DType from, int sum, int a, int b) {
    Val s = tile_number(e, sum), x = tile_number(e, a), y = tile_number(e, b);
    if (from == DT_BF16)
        TILE_OP(e, "tdpbf16ps", dot_bf16, s, x, y);
    else
        TILE_OP(e, "tdpbusd", dot_bytes, s, x, y);
}
