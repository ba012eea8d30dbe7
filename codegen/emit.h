// The small vocabulary kernels are written in: constants, addresses, loops in SSA form, vectors of
// f32 with tails, and the mathematics of activations. Everything is emitted in its final shape; no
// LLVM pass runs over it.
//
// Tails: a row of n floats is cut into Pieces. On targets with masks
// the remainder is one piece of the next power of two, masked when it is not full; elsewhere it is
// cut into powers of two. Extents are static, so no mask is ever computed.
//
// Loops carry values: loop_begin replaces each element of `carry` by its phi, the body updates the
// array, loop_end leaves the values after the loop in it. If works alike.
#ifndef CNX_CODEGEN_EMIT_H
#define CNX_CODEGEN_EMIT_H
#include "../ir/schedule.h"
#include <llvm-c/Core.h>

typedef LLVMValueRef Val;

enum { MAX_HELD = 48 };
typedef struct {
    Arena *arena;
    const Target *target;
    LLVMContextRef ctx;
    LLVMModuleRef mod;
    LLVMBuilderRef b;
    LLVMTypeRef none, i1, i32, i64, f32, ptr;
    int lanes;               // f32 per vector
    bool masks;              // the rest of a row is one masked piece: native, or chosen by a kernel
    Val fn;                  // function under construction
    uint32_t held[MAX_HELD]; // constants of mathematics in its registers, as bits
    int nheld;
    bool crowded;         // none of them: functions follow each other in a loop that stores nothing
    const char *function; // of mathematics, whose table the other constants lie in
} Emit;

// The module must be of the target. emit_free disposes of the builder only.
void emit_init(Emit *e, Arena *a, LLVMContextRef ctx, LLVMModuleRef mod, const Target *t);
void emit_free(Emit *e);

// ---- functions ---------------------------------------------------------------------------------
// Starts void symbol(params...), external; e->fn and the builder are in its first block.
Val emit_function(Emit *e, const char *symbol, const LLVMTypeRef *params, int n);
// The same with internal linkage, never inlined.
Val emit_internal(Emit *e, const char *symbol, const LLVMTypeRef *params, int n);
void emit_return(Emit *e);
Val emit_intrinsic(Emit *e, const char *name, LLVMTypeRef *types, int ntypes, Val *args, int n);
// Marks a function as code of the target.
void emit_target_attributes(Emit *e, Val fn);
Val emit_call(Emit *e, Val fn, const Val *args, int n);
Val emit_stack(Emit *e, LLVMTypeRef type, int64_t count); // 64-byte aligned

// ---- integers and addresses --------------------------------------------------------------------
Val emit_i64(Emit *e, int64_t v);
Val emit_iadd(Emit *e, Val x, Val y);
Val emit_isub(Emit *e, Val x, Val y);
Val emit_imul(Emit *e, Val x, int64_t c);
Val emit_idiv(Emit *e, Val x, int64_t c); // x >= 0
Val emit_imod(Emit *e, Val x, int64_t c); // x >= 0
Val emit_imin(Emit *e, Val x, Val y);
Val emit_imax(Emit *e, Val x, Val y);
Val emit_less(Emit *e, Val x, Val y);
Val emit_at(Emit *e, Val base, Val index); // &base[index], f32
Val emit_at_c(Emit *e, Val base, int64_t index);
Val emit_bytes_at(Emit *e, Val base, Val bytes); // base + bytes
// The same address, where many constant offsets from it follow in a loop: LLVM's strength reduction
// takes it as it is and does not spend its time on one address after the other. Nor does LLVM know
// what lies there.
Val emit_opaque(Emit *e, Val address);
// The same address or number, which LLVM does not know and does not take out of a loop.
Val emit_here(Emit *e, Val v);
// Addresses `step` floats apart: at is that of number i, at first of 0. Where offsets of loads do
// not reach them each comes from the last one: LLVM would keep a register for every offset.
typedef struct {
    Val at;
    int64_t step, i;
} Spaced;
Val emit_spaced(Emit *e, Spaced *s, int64_t i);
Val emit_ptr(Emit *e, Val table, int i);           // ((void **)table)[i]
Val emit_index_load(Emit *e, Val base, Val index); // ((int32_t *)base)[index] as i64
void emit_index_store(Emit *e, Val v, Val base, Val index);
// Nothing where the target has no such instruction.
void emit_prefetch(Emit *e, Val address, bool write, int locality);

// ---- control -----------------------------------------------------------------------------------
enum { MAX_CARRY = 48 };
typedef struct {
    LLVMBasicBlockRef before, body, after;
    Val i, end;
    int64_t step;
    Val *carry;
    int n;
    Val phi[MAX_CARRY], init[MAX_CARRY];
} Loop;
// for (i = start; i < end; i += step); returns i.
Val loop_begin(Emit *e, Loop *l, Val start, Val end, int64_t step, Val *carry, int n);
void loop_end(Emit *e, Loop *l);

typedef struct {
    LLVMBasicBlockRef from, after;
    Val *carry;
    int n;
    Val init[MAX_CARRY];
} If;
void if_begin(Emit *e, If *f, Val cond, Val *carry, int n);
void if_end(Emit *e, If *f);

// ---- vectors -----------------------------------------------------------------------------------
typedef struct {
    int off;   // first element
    int width; // of the vector: a power of two <= lanes
    int valid; // elements that exist; the rest of a load is zero
    int slot;  // position in an unrolled loop (emit_cols), else 0
} Piece;
enum { MAX_PIECES = 40 };
int emit_pieces(const Emit *e, int64_t n, Piece *out);
// Joins the pieces of a row, in place, where all of them are vectors that the target's instructions
// take several of; returns how many are left.
int emit_groups(const Emit *e, int n, Piece *pieces);
LLVMTypeRef vec_type(Emit *e, int width);
Val vec_const(Emit *e, int width, double v);
Val vec_splat(Emit *e, int width, Val scalar); // of any type
Val vec_load(Emit *e, Val at, Piece p);
void vec_store(Emit *e, Val v, Val at, Piece p);
// The same for vectors of another element type.
Val vec_load_type(Emit *e, LLVMTypeRef element, Val at, Piece p);
void vec_store_type(Emit *e, Val v, Val at, Piece p);
// Stores past the caches, where the target has such stores: what is written once and not read soon.
// `at` is aligned to the vector, of which all is valid. emit_stream_end comes after the last one.
void vec_stream(Emit *e, Val v, Val at, Piece p);
void emit_stream_end(Emit *e);
Val vec_broadcast(Emit *e, Val at, int width);     // splat of the f32 at an address
Val vec_widen(Emit *e, Val v, Piece p, int width); // elements past valid become zero
// The same with another value than zero.
Val vec_widen_with(Emit *e, Val v, Piece p, int width, double fill);
Val vec_sum(Emit *e, Val v); // scalar; halves are added, fixed order
Val vec_lane(Emit *e, Val v, int lane);
Val vec_low(Emit *e, Val v, int width); // the first lanes
// Lanes `index` of x and, from the number of its lanes on, y.
Val vec_shuffle(Emit *e, Val x, Val y, const int *index, int width);
int vec_width(Val v);

Val emit_fadd(Emit *e, Val x, Val y);
Val emit_fsub(Emit *e, Val x, Val y);
Val emit_fmul(Emit *e, Val x, Val y);
Val emit_fdiv(Emit *e, Val x, Val y);
Val emit_fma(Emit *e, Val x, Val y, Val z); // x*y+z, one rounding where the target has it
Val emit_fabs(Emit *e, Val x);
Val emit_sqrt(Emit *e, Val x);
Val emit_sign(Emit *e, Val x);                  // -1, 0 or 1
Val emit_fmax(Emit *e, Val x, Val y);           // x > y ? x : y
Val emit_clamp_low(Emit *e, Val x, double lo);  // x < lo ? lo : x; NaN stays
Val emit_clamp_high(Emit *e, Val x, double hi); // x > hi ? hi : x; NaN stays

// ---- narrow numbers (emit_narrow.c) ------------------------------------------------------------
// How a kernel writes its result: as it is, rounded to bf16, or quantised to u8 (op quantize).
typedef struct {
    DType dt;
    Val factor, zero; // of u8: every lane 1/step and zero
} Narrow;
DType operand_dtype(const KernelSpec *spec); // attribute from
DType result_dtype(const KernelSpec *spec);  // attribute dtype
// Loads the grid, the last of the operands `ops`, where there is one.
Narrow narrow_of(Emit *e, const KernelSpec *spec, Val ops);
Val emit_at_as(Emit *e, DType dt, Val base, Val index); // &base[index]
Val vec_load_as(Emit *e, DType dt, Val at, Piece p);    // as f32
void vec_store_as(Emit *e, const Narrow *n, Val v, Val at, Piece p);
Val vec_bf16_pairs(Emit *e, Val x, Val y); // lanes of 4 bytes: x below y (NULL: 0), rounded
Val vec_bf16_run(Emit *e, Val x, Val y);   // lanes of 4 bytes: neighbours of x, then of y, rounded
void vec_store_i8(Emit *e, Val v, Val at, Piece p); // whole numbers within -128..127

// Products of groups of 4 bytes: one f32, two bf16, or four u8 with four i8. A group of one row is
// a scalar, groups of the columns are a vector. Sums are f32, or i32 where the operands are bytes.
Val dot_row(Emit *e, DType from, Val at);            // the group at an address
Val dot_panel(Emit *e, DType from, Val at, Piece p); // all `width` of a piece
Val dot_zero(Emit *e, DType from, int width);
Val dot_add(Emit *e, DType from, Val row, Val columns, Val sum);
// A row of a register tile, sums of neighbouring pieces being `stride` apart: sum += row * panel.
void dot_add_row(Emit *e, DType from, Val row, const Val *panel, int npieces, Val *sums,
                 int stride);
Val dot_f32(Emit *e, DType from, Val sum); // the sum as f32

// Lane j of v[i] becomes lane i of v[j]: n vectors of n lanes, n = 4, 8 or 16 (emit_transpose.c).
void vec_transpose(Emit *e, Val *v, int n);

// ---- tiles (emit_tiles.c) ----------------------------------------------------------------------
// Registers 0..7. Strides are in bytes.
enum { TILES = 8, TILE_SIDE = 16 }; // TILE_SIDE: rows of a full tile, groups of 4 bytes of a row
typedef struct {
    Val rows; // 1..16
    int row_bytes;
} TileSize;
void tile_configure(Emit *e, const TileSize sizes[TILES]);
void tile_release(Emit *e);
void tile_zero(Emit *e, int tile);
void tile_load(Emit *e, int tile, Val at, Val stride);
void tile_store(Emit *e, int tile, Val at, Val stride);
// sum[i,j] += a[i,k] * b[k,j], elements of a and b being groups as above; bf16 or u8 by i8.
void tile_dot(Emit *e, DType from, int sum, int a, int b);

// ---- activations (emit_math.c) -----------------------------------------------------------------
// Absolute error of GELU <= 1e-6; NaN passes, +inf gives +inf, -inf gives about 0, zeros give
// zeros.
Val emit_gelu(Emit *e, Val x);
Val emit_gelu_tanh(Emit *e, Val x);
// Their derivatives, with the same error; NaN passes, but where tables are (permute2), which take
// it for an infinity; the infinities give 1 and 0.
Val emit_gelu_slope(Emit *e, Val x);
Val emit_gelu_tanh_slope(Emit *e, Val x);
// Relative error <= 3e-7 for |x| <= 87; beyond that it saturates.
Val emit_exp(Emit *e, Val x);

// Logarithm of normal x > 0, and of 1 + x for 0 <= x <= 1. Relative error <= 3e-7.
Val emit_log(Emit *e, Val x);
Val emit_log1p(Emit *e, Val x);

// ---- columns -----------------------------------------------------------------------------------
// Walks columns [c0,c1) of rows of n: full vectors, `unroll` at a time, then the tail pieces of n
// when c1 reaches it. body(ctx, first column, piece, carry).
typedef void (*ColumnBody)(Emit *e, void *ctx, Val col, Piece p, Val *carry);
void emit_columns(Emit *e, int64_t n, Val c0, Val c1, int unroll, ColumnBody body, void *ctx,
                  Val *carry, int ncarry);
// The same one by one and without a carry; of full vectors first as many as make groups that the
// target's instructions take as one.
void emit_column_groups(Emit *e, int64_t n, Val c0, Val c1, ColumnBody body, void *ctx);
#endif
