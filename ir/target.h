// Machine facts as a table (targets.def). Tile choices come from here, never from `if (arch)`.
#ifndef CNX_IR_TARGET_H
#define CNX_IR_TARGET_H
#include "arena.h"

// The instruction that adds products of pairs of bf16, or of four int8, to each 32-bit lane.
typedef enum { BF16_NONE, BF16_VDPBF16PS, BF16_BFDOT } Bf16Dot;
typedef enum {
    INT8_NONE,
    INT8_VPDPBUSD, // unsigned by signed
    INT8_SDOT,     // signed by signed
    INT8_USDOT,    // unsigned by signed; also INT8_SDOT
    INT8_PMADDWD   // none, but one that sums products of pairs of i16
} Int8Dot;

// C functions in the place of tile instructions, for code that runs in this process: what numeric
// tests run where the CPU has no tiles. Tiles by number; strides in bytes; config as ldtilecfg
// reads it.
typedef struct {
    void (*configure)(const void *config);
    void (*zero)(int64_t tile);
    void (*load)(int64_t tile, const void *at, int64_t stride);
    void (*store)(int64_t tile, void *at, int64_t stride);
    void (*dot_bf16)(int64_t sum, int64_t a, int64_t b);
    void (*dot_bytes)(int64_t sum, int64_t a, int64_t b); // u8 by i8, sums of i32
} TileCalls;

typedef struct {
    const char *name, *triple;
    const char *cpu, *features; // LLVM's, for code generation
    const char *needs; // what a CPU must have to run the code, comma-separated (cnxrt_cpu.def)
    int vector_bits;   // 32: scalar code
    int registers;     // vector registers
    int vscale;        // scalable vectors of at least vscale * 128 bits; 0: fixed registers
    bool fma;
    int fma_ports;      // full vectors a cycle
    bool prefetch;      // has instructions that fetch a line
    bool bare;          // loads of vectors take no constant offset from an address
    int group;          // neighbouring registers that one instruction takes (LMUL); 0: one
    bool short_offsets; // loads take constant offsets below 2 KB only
    bool masks;         // masked loads and stores are native
    bool permute2;      // vpermi2ps: register table look-up
    bool fp16;          // converts vectors of IEEE halves to f32 and back
    Bf16Dot bf16_dot;
    Int8Dot int8_dot;
    bool amx;                    // tiles: tdpbf16ps, tdpbusd
    const TileCalls *tile_calls; // NULL: tiles are the CPU's
    // What LLVM's register allocator keeps free of spills in a GEMM's inner loop: rows and sums
    // (vectors) of a tile, steps of k in one pass.
    int tile_rows, tile_sums, tile_unroll;
    // The same of depthwise kernels where it is less than registers suggest (0: it is not): columns
    // of a tile, vectors of a packed sub-block.
    int depthwise_columns, packed_vectors;
    // Constants that registers hold in loops over long functions (GELU, its slope), beside values.
    int constants;
    int l1, l2; // bytes
    const char *doc;
} Target;

extern const Target target_table[];
extern const int target_count;
const Target *target_find(const char *name);                                    // NULL when unknown
static inline int target_lanes(const Target *t) { return t->vector_bits / 32; } // f32 per vector
// Neighbouring registers that one instruction takes; 1 where the row says nothing.
static inline int target_group(const Target *t) { return t->group > 1 ? t->group : 1; }

#endif
