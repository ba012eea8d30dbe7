// The layout of packed rows: cells in raster order, the positions of a cell in Morton order, their
// index made of the bits of row and column in turn, the column's lowest first:
//   (0,0) (0,1) (1,0) (1,1) (0,2) (0,3) (1,2) ...
#ifndef CNX_IR_PACKED_H
#define CNX_IR_PACKED_H
#include <stdint.h>

// Every second bit of i, from bit 0 on.
static inline int64_t morton_half(int64_t i) {
    int64_t r = 0;
    for (int bit = 0; i >> 2 * bit; bit++) r |= (i >> 2 * bit & 1) << bit;
    return r;
}

static inline int64_t morton_col(int64_t i) { return morton_half(i); }
static inline int64_t morton_row(int64_t i) { return morton_half(i >> 1); }

// Index of position (row,col).
static inline int64_t morton_index(int64_t row, int64_t col) {
    int64_t r = 0;
    for (int bit = 0; row >> bit || col >> bit; bit++)
        r |= (col >> bit & 1) << 2 * bit | (row >> bit & 1) << (2 * bit + 1);
    return r;
}

// Side of the sub-blocks a rulebook lists for cells of this side.
static inline int64_t packed_side(int64_t block) { return block >= 2 ? 2 : 1; }

// How many sub-blocks of side s a kernel of size k reaches to either side.
static inline int64_t packed_reach(int64_t k, int64_t s) { return ((k - 1) / 2 + s - 1) / s; }

#endif
