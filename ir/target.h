// Machine facts as a table (targets.def). Tile choices come from here, never from `if (arch)`.
#ifndef CNX_IR_TARGET_H
#define CNX_IR_TARGET_H
#include "arena.h"

typedef struct {
    const char *name, *triple, *cpu, *features;
    int vector_bits, registers;
    bool fma;
    int fma_ports;
    bool permute2; // vpermi2ps: register table look-up
    int l1, l2;    // bytes
    const char *doc;
} Target;

extern const Target target_table[];
extern const int target_count;
const Target *target_find(const char *name); // NULL when unknown
static inline int target_lanes(const Target *t) { return t->vector_bits / 32; } // f32 per vector

#endif
