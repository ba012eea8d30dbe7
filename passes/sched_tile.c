// Tiles and row blocks from the target table: no choice here knows a model or an instruction set.
#include "sched.h"

enum { LATENCY = 4, LOADS = 2, MAX_ACCUMULATORS = 24 };

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
                          int64_t nr) {
    int64_t tiles = (rows + mr - 1) / mr, small = rows / tiles, large = rows % tiles;
    double per_panel = (double)(tiles - large) * tile_cycles(t, small, v) +
                       (double)large * tile_cycles(t, small + 1, v);
    if (small < mr) per_panel *= 1.01;
    return per_panel * (double)((n + nr - 1) / nr);
}

GemmTile gemm_tile(const Target *t, int64_t rows, int64_t n, int64_t k) {
    int64_t lanes = target_lanes(t);
    GemmTile best = {.mr = 4, .nr = lanes, .ku = 4};
    double least = 0;
    for (int64_t half = 2; half <= 10; half++) { // panel width in half vectors
        int64_t nr = half * lanes / 2, vectors = (half + 1) / 2;
        if (half % 2 && lanes < 8) continue;
        for (int64_t mr = 1; mr <= 14; mr++) {
            if (mr * vectors > MAX_ACCUMULATORS) break;
            if (mr * vectors + vectors + 2 > t->registers) break;
            double c = gemm_cycles(t, rows, n, mr, (double)vectors, nr);
            if (least != 0 && c >= least * 0.999) continue;
            least = c;
            best.mr = mr;
            best.nr = nr;
        }
    }
    best.order = k * n * 4 > t->l2 / 2; // panels outside when the weight does not stay in L2
    return best;
}

DwTile gemm_dw_tile(const Target *t, int64_t n, int64_t k) {
    int64_t lanes = target_lanes(t), vectors = 2;
    DwTile tile = {.mr = t->registers >= 32 ? 8 : 4, .nr = vectors * lanes};
    if (t->registers >= 32 && k <= 128) tile.mr = 12; // few panels: more rows per load
    if (k % tile.nr && k % (3 * lanes / 2) == 0) tile.nr = 3 * lanes / 2;
    if (tile.mr > n) tile.mr = n;
    return tile;
}

int64_t dwconv_tile(const Target *t, int64_t width, int64_t kw) {
    int64_t most = t->registers - kw - 2;
    if (most > 14) most = 14;
    if (most < 2) most = 2;
    if (width <= most) return width;
    int64_t tiles = (width + most - 1) / most;
    return (width + tiles - 1) / tiles;
}

int64_t packed_vectors(const Target *t, int64_t side, bool dw) {
    if (side == 1) return t->registers >= 32 ? 8 : 4;
    // Four sums each, dw ten; narrow vectors of two columns may be loaded as pairs, which takes
    // registers.
    bool wide = t->vector_bits >= 512;
    if (t->registers < 32) return dw ? 1 : 2;
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
