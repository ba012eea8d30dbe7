// One emitter per row of kernels.def, and what they share. Private to codegen/.
#ifndef CNX_CODEGEN_KERNEL_H
#define CNX_CODEGEN_KERNEL_H
#include "emit.h"

// Emits the function void symbol(ptr ops, i64 r0, i64 r1, i64 c0, i64 c1) of a kernel, external.
Val emit_kernel(Emit *e, const KernelSpec *spec, const char *symbol);

#undef KERNEL
#define KERNEL(name, NAME, operands, attrs, doc)                                                   \
    void emit_##name(Emit *e, const KernelSpec *spec, const char *symbol);
#include "../ir/kernels.def"
#undef KERNEL

// gemm with the attribute tiles (kernel_gemm_tiles.c).
void emit_gemm_tiles(Emit *e, const KernelSpec *spec, const char *symbol);

typedef struct {
    Val ops, r0, r1, c0, c1;
} KernelArgs;
// Starts the kernel's function.
KernelArgs kernel_begin(Emit *e, const char *symbol);

// ---- windows -----------------------------------------------------------------------------------
// An image [h,w,c] and the kh x kw windows over it, ho x wo of them.
typedef struct {
    int64_t h, w, c, kh, kw, sh, sw, ph, pw, ho, wo;
} Window;
// From the attributes h, w, c, kernel, stride (default 1) and pad.
Window spec_window(const KernelSpec *s);

// ---- epilogues (epilogue.c) --------------------------------------------------------------------
// The elementwise program of a kernel. Statistics are summed in registers over the rows of a tile
// and added to memory per tile and column piece.
typedef struct {
    int n; // words
    const int64_t *words;
    int first;             // word 0 is a bias the kernel starts its sums from: 1, else 0
    int64_t columns;       // of the result
    Val at[MAX_EPILOGUE];  // operand of each word or NULL: a statistic, a vector or a matrix
    Val mat[MAX_EPILOGUE]; // fma_scale, stat_dot: their first operand
} EpilogueCode;
// State of one column piece of a tile.
typedef struct {
    Val col;
    Piece piece;
    Val vec[MAX_EPILOGUE]; // vectors: loaded once; statistics: the running sum or NULL
} EpilogueColumn;

// Loads the operand pointers: those after the `operands` fixed ones in the table `ops`.
// take_bias: a leading bias is left to the kernel (epilogue_start).
void epilogue_init(Emit *e, EpilogueCode *p, const KernelSpec *spec, Val ops, int operands,
                   int64_t columns, bool take_bias);
bool epilogue_has_stats(const EpilogueCode *p);
// It evaluates a function that takes about a dozen registers.
bool epilogue_is_long(const KernelSpec *spec);
// Where rows are a loop: the running sums of c are those of `sums` (load), or the other way. There
// are epilogue_stats of them.
int epilogue_stats(const EpilogueCode *p);
void epilogue_carry(const EpilogueCode *p, EpilogueColumn *c, Val *sums, bool load);
// Zeroes the statistics of columns [c0,c1).
void epilogue_zero_stats(Emit *e, const EpilogueCode *p, Val c0, Val c1);
// What sums start from: the bias of these columns or zero.
Val epilogue_start(Emit *e, const EpilogueCode *p, Val col, Piece piece);
// Fetches what the program reads, and claims what it stores, of a tile of the result.
void epilogue_prefetch(Emit *e, const EpilogueCode *p, Val row, Val col, int rows, int64_t width);
void epilogue_column(Emit *e, const EpilogueCode *p, EpilogueColumn *c, Val col, Piece piece);
// The value of (row, c->col..) after the program.
Val epilogue_apply(Emit *e, const EpilogueCode *p, EpilogueColumn *c, Val v, Val row);
void epilogue_column_end(Emit *e, const EpilogueCode *p, EpilogueColumn *c);
// All of one column piece in a loop over `rows` rows: body applies and stores row r of them.
typedef void (*RowBody)(Emit *e, void *ctx, Val r, EpilogueColumn *c);
void epilogue_rows(Emit *e, const EpilogueCode *p, Val col, Piece piece, Val rows, RowBody body,
                   void *ctx);
void epilogue_end(Emit *e, const EpilogueCode *p); // after the last row of a call

// ---- rows --------------------------------------------------------------------------------------
// The columns of one row: short rows without a loop, long ones `unroll` vectors at a time. The
// slots of the pieces count up to unroll.
void emit_row(Emit *e, int64_t n, int unroll, ColumnBody body, void *row, Val *sums, int nsums);
// Sums of a row: vectors of f32, but single numbers, which have one chain of additions for all of a
// row, are summed in double. row_term: a value to add; row_sum: the sum in f32.
Val row_sum_zero(Emit *e);
Val row_term(Emit *e, Val v);
Val row_sum(Emit *e, Val sum);
// One vector whose lane i is the sum of the lanes of v[i]; v has as many vectors as lanes.
Val emit_transpose_sum(Emit *e, Val *v, int lanes);

// Copies n contiguous floats, or writes zeros when src is NULL.
void emit_run(Emit *e, Val dst, Val src, int64_t n);
// The same, written as n says; zeros are what 0 is written as.
void emit_run_as(Emit *e, const Narrow *to, Val dst, Val src, int64_t n);

#endif
