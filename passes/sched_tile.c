// Tiles and row blocks from the target table: no choice here knows a model or an instruction set.
#include "sched.h"

enum { LATENCY = 4, LOADS = 2 };

// Cycles of one step of k for a tile of m rows and v vectors: bound by FMA ports, by loads (v of
// the panel, one broadcast a row, each shared) and by the latency of the sums' dependent FMAs.
static double tile_cycles(const Target *t, int64_t m, double v) {
    int ports = t->fma_ports > 0 ? t->fma_ports : 1;
    double fma = (double)m * v / ports * (t->fma ? 1 : 2);
    double loads = ((double)m + v) / LOADS;
    double c = fma > loads ? fma : loads;
    if (c < LATENCY) c = LATENCY;
    return c + 0.04 * ((double)m + v); // what is not hidden: larger tiles load less per FMA
}

// Cycles per k of the whole product under a tile. Rows are cut evenly by the kernel; tiles of fewer
// than mr rows finish through memory, which is charged as a small extra.
static double gemm_cycles(const Target *t, int64_t rows, int64_t n, int64_t mr, double v,
                          int64_t nr, double epilogue) {
    int64_t tiles = (rows + mr - 1) / mr, small = rows / tiles, large = rows % tiles;
    double per_panel = (double)(tiles - large) * tile_cycles(t, small, v) +
                       (double)large * tile_cycles(t, small + 1, v) + (double)tiles * v * epilogue;
    if (small < mr) per_panel *= 1.01;
    return per_panel * (double)((n + nr - 1) / nr);
}

// The more instructions of panels that are no groups of vectors, where the target has such groups.
static double group_cost(const Target *t, int64_t nr) {
    return t->group && nr % (t->group * target_lanes(t)) ? 1.1 : 1;
}

// Instructions that a group of k takes for each sum: one, or where the target has none for it one
// for each part of the group.
static int64_t group_parts(const Target *t, DType from) {
    if (from == DT_BF16) return t->bf16_dot ? 1 : 2;
    if (from != DT_U8) return 1;
    return t->int8_dot == INT8_NONE      ? 4
           : t->int8_dot == INT8_SDOT    ? 3
           : t->int8_dot == INT8_PMADDWD ? 2
                                         : 1;
}

// Bytes that are multiplied one by one, where addresses and counters lie, too.
enum { ADDRESS_REGISTERS = 12 };
static bool single_bytes(const Target *t, DType from) {
    return target_lanes(t) == 1 && from == DT_U8 && t->int8_dot == INT8_NONE;
}

// Registers that a step of k takes beside the sums: the panel's vectors, one broadcast, a product
// where there is no FMA; of groups in parts each of them, and what LLVM needs to cut them: of bytes
// it cuts all rows first.
static int64_t step_registers(const Target *t, DType from, int64_t rows, int64_t vectors) {
    int64_t parts = group_parts(t, from);
    if (single_bytes(t, from)) return parts * (vectors + rows) + ADDRESS_REGISTERS;
    return parts * (vectors + 1) + (parts > 1 ? 2 : 0) + !t->fma;
}

// Groups of k in a row of an AMX tile: k is cut evenly. 0: it cannot be, or only into scraps.
enum { TILE_GROUPS = 16, LEAST_GROUPS = 6 };

static int64_t tile_depth(int64_t k) {
    int64_t depth = k < TILE_GROUPS ? k : TILE_GROUPS;
    while (depth > 0 && k % depth) depth--;
    return depth < LEAST_GROUPS ? 0 : depth;
}

// GELU leaves few registers to sums: of more, those that wait for it would go to memory, or its
// coefficients would come from there for each vector. It has a cost per panel vector, too: bounds
// of columns, sums over rows.
enum { GELU_REGISTERS = 16, GELU_CYCLES = 16 };

GemmTile gemm_tile(const Target *t, DType from, int64_t rows, int64_t n, int64_t k, bool gelu) {
    int64_t lanes = target_lanes(t);
    int64_t parts = group_parts(t, from);
    GemmTile best = {.mr = 4, .nr = lanes, .ku = parts > 1 ? 1 : t->tile_unroll};
    best.order = k * n * 4 > t->l2 / 2; // panels outside when the weight does not stay in L2
    if (t->amx && from != DT_F32 && tile_depth(k))
        return (GemmTile){
            .mr = 32, .nr = 32, .ku = tile_depth(k), .order = best.order, .tiles = true};
    gelu = gelu && t->registers > GELU_REGISTERS;
    int64_t most = gelu ? t->registers - GELU_REGISTERS : t->tile_sums;
    double least = 0, epilogue = gelu ? GELU_CYCLES / (double)k : 0;
    for (int64_t half = 2; half <= 10; half++) { // panel width in half vectors
        int64_t nr = half * lanes / 2, vectors = (half + 1) / 2;
        if (half % 2 && lanes < 8) continue;
        for (int64_t mr = 1; mr <= t->tile_rows; mr++) {
            if (mr * vectors > most) break;
            // A broadcast of groups serves one sum: LLVM loads many ahead.
            if (vectors == 1 && parts == 1 && from != DT_F32 && mr > t->tile_rows * 3 / 4) break;
            if (mr * vectors + step_registers(t, from, mr, vectors) > t->registers) break;
            double c = gemm_cycles(t, rows, n, mr, (double)vectors, nr, epilogue);
            c *= group_cost(t, nr);
            if (least != 0 && c >= least * 0.999) continue;
            least = c;
            best.mr = mr;
            best.nr = nr;
        }
    }
    return best;
}

// ---- gradient of a weight ----------------------------------------------------------------------
enum {
    DW_ROWS = 200, // of a block: enough to hide that it reads and writes the result
    DW_LEAST_ROWS = 120,
    DW_SHARD_ROWS = 2048,
    DW_SHARD_LEAST = 32,
    DW_UNITS = 8,
    DW_LEAST_UNITS = 4,
    WAY = 64 << 10, // equal offsets in it share a set of L2
    LINE = 64
};

static int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }

// Cycles per row of gemm_dw under a tile: every partial tile and panel counts as what it takes, and
// a share of the sums' way to memory.
static double dw_cycles(const Target *t, int64_t n, int64_t k, DwTile tile) {
    int64_t lanes = target_lanes(t), rows[] = {tile.mr, n % tile.mr},
            cols[] = {tile.nr, k % tile.nr};
    double cycles = 0;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            if (!rows[i] || !cols[j]) continue;
            double calls = (double)((i ? 1 : n / tile.mr) * (j ? 1 : k / tile.nr));
            double v = (double)ceil_div(cols[j], lanes), sums = (double)rows[i] * v;
            cycles += calls * (tile_cycles(t, rows[i], v) + (1.5 * sums + 30) / DW_ROWS);
        }
    return cycles;
}

// Vectors of a row of n columns: of full ones, and of what is left one, or without masks one for
// each power of two.
static int64_t row_vectors(const Target *t, int64_t n) {
    int64_t lanes = target_lanes(t), count = n / lanes;
    for (int64_t rest = n % lanes; rest; rest &= rest - 1)
        if (++count && t->masks) break;
    return count;
}

// The sums of mr rows of n columns and what a step takes beside them fit into registers.
static bool dw_fits(const Target *t, DType from, int64_t mr, int64_t n) {
    int64_t vectors = row_vectors(t, n);
    return mr * vectors <= t->tile_sums &&
           mr * vectors + step_registers(t, from, mr, vectors) <= t->registers;
}

DwTile gemm_dw_tile(const Target *t, DType from, int64_t n, int64_t k) {
    int64_t lanes = target_lanes(t);
    int64_t most = lanes > 4 ? 3 : 2; // narrow vectors are loaded in pairs, which takes registers
    DwTile best = {.mr = n < 4 ? n : 4, .nr = lanes};
    double least = 0;
    for (int64_t vectors = k > lanes ? 2 : 1; vectors <= most; vectors++)
        for (int64_t mr = 4; mr <= 12; mr++) {
            DwTile tile = {mr, vectors * lanes};
            if (mr > n || !dw_fits(t, from, mr, k < tile.nr ? k : tile.nr)) break;
            if (k > tile.nr && !dw_fits(t, from, mr, k % tile.nr)) break;
            double c = dw_cycles(t, n, k, tile) * group_cost(t, tile.nr);
            c *= 1 + 0.01 * ((n % tile.mr != 0) + (k % tile.nr != 0)); // code of its own
            if (LINE / 4 % tile.mr) c *= 1.01; // rows of a tile lie across lines
            if (least != 0 && c >= least * 0.99) continue;
            least = c;
            best = tile;
        }
    return best;
}

// Rows of n floats whose equal columns fit into L2 at once.
static int64_t rows_in_l2(const Target *t, int64_t n) {
    int64_t step = 4 * n, common = WAY;
    while (step % common) common /= 2;
    return t->l2 / (common < LINE ? LINE : common);
}

// Rows of a block that is read in place: its operands and those of the next fit into L2.
static int64_t dw_rows_in_place(const Target *t, const DwPlan *p, int64_t n, int64_t k) {
    int64_t rows = t->l2 / 4 / (p->of_x ? n + p->cols : p->cols + k);
    if (rows_in_l2(t, n) < rows) rows = rows_in_l2(t, n);
    if (rows_in_l2(t, k) < rows) rows = rows_in_l2(t, k);
    return rows / 2;
}

// Columns of a unit, of n in all: at least `least` steps, at most about DW_UNITS units.
static int64_t dw_columns(int64_t n, int64_t step, int64_t least) {
    int64_t cols = step * ceil_div(ceil_div(n, step), DW_UNITS);
    if (cols < least * step) cols = least * step;
    return cols < n ? cols : n;
}

// Floats read and written per row decide: of row shards, whose sums are written, read back and
// added, of units of columns of dy, or of x, that read the other operand whole.
DwPlan gemm_dw_plan(const Target *t, DType from, int64_t rows, bool batch, int64_t n, int64_t k) {
    DwPlan p = {.tile = gemm_dw_tile(t, from, n, k), .shards = ceil_div(rows, DW_SHARD_ROWS)};
    p.shard_rows = ceil_div(rows, p.shards);
    int64_t of_dy = dw_columns(n, p.tile.mr, 5), of_x = dw_columns(k, p.tile.nr, 2);
    int64_t by_dy = ceil_div(n, of_dy) * (of_dy + k), by_x = ceil_div(k, of_x) * (n + of_x);
    int64_t by_rows = n + k + 3 * n * k / p.shard_rows;
    p.of_x = by_x < by_dy && of_x < k;
    p.cols = p.of_x ? of_x : of_dy;
    int64_t by_columns = p.of_x ? by_x : by_dy, units = ceil_div(p.of_x ? k : n, p.cols);
    if (batch && rows >= DW_SHARD_LEAST && (by_rows < by_columns || units < DW_LEAST_UNITS)) {
        p.of_x = false;
        p.cols = n;
    } else {
        p.shards = 0;
    }
    int64_t m = dw_rows_in_place(t, &p, n, k);
    p.packed = m < DW_LEAST_ROWS || from != DT_F32;
    if (p.packed) m = t->l1 * 9 / 16 / 4 / p.tile.nr;
    if (m > DW_ROWS) m = DW_ROWS;
    if (p.shards)
        m = ceil_div(p.shard_rows, ceil_div(p.shard_rows, m));
    else if (m % rows <= m / 4)
        m -= m % rows; // whole images: no small block ends a batch
    p.m = ceil_div(m, 4) * 4;
    return p;
}

int64_t dwconv_tile(const Target *t, int64_t width, int64_t kw) {
    int64_t most = t->registers / target_group(t) - kw - 2 - !t->fma; // a column and a product
    if (most > 14) most = 14;
    if (t->depthwise_columns && most > t->depthwise_columns) most = t->depthwise_columns;
    if (most < 2) most = 2;
    if (width <= most) return width;
    int64_t tiles = (width + most - 1) / most;
    return (width + tiles - 1) / tiles;
}

// Sums, a window of dy as wide, a column of x and, where there is no FMA, a product.
int64_t dwconv_dw_tile(const Target *t, int64_t kw) {
    if (3 * kw + 3 <= t->registers) return 2 * kw; // two rows of taps share the window
    int64_t most = (t->registers - 2 - !t->fma) / 2;
    return kw <= most ? kw : ceil_div(kw, ceil_div(kw, most));
}

int64_t packed_vectors(const Target *t, int64_t side, bool dw) {
    if (side == 1) return t->registers >= 32 ? 8 : 4;
    if (t->packed_vectors && !dw) return t->packed_vectors;
    // Four sums each, dw ten; narrow vectors of two columns may be loaded as pairs, which takes
    // registers.
    bool wide = t->vector_bits >= 512;
    if (t->registers < 32) return dw || !t->fma ? 1 : 2;
    if (t->group > 1 && dw) return t->group;
    return dw ? 1 + wide : 4 + wide;
}

int64_t col_block(int64_t n, int64_t width) {
    int64_t panels = (n + width - 1) / width;
    return width * ((panels + 7) / 8);
}

int64_t row_block(int64_t rows, int64_t quantum, int64_t mr, int64_t row_bytes, int64_t bytes) {
    int64_t cap = bytes / (row_bytes > 0 ? row_bytes : 1);
    if (cap < quantum) cap = quantum;
    int64_t first = (rows + cap - 1) / cap, best = rows;
    if (first < 8 && rows >= 64) first = 8;
    double least = 0;
    for (int64_t count = first; count < first + 8; count++) {
        int64_t block = (rows + count - 1) / count;
        block = (block + quantum - 1) / quantum * quantum;
        int64_t blocks = (rows + block - 1) / block;
        double cost = (double)((blocks + 1) / 2 * 2 * block) / (double)rows; // on two threads
        if (block % mr) cost += 0.02;
        cost += 0.002 * (double)blocks;
        if (least != 0 && cost >= least) continue;
        least = cost;
        best = block;
    }
    return best < rows ? best : rows;
}
