// A peer of the kernel benchmark: one operation of one library in a process of its own.
//
//   kernel_NAME SHAPE OUTPUT
//
// SHAPE is "gemm M K N" or "dwconv H W C" (7x7, zero padding 3, [H,W,C] maps). Writes the result to
// OUTPUT and speaks the protocol of worker.py. kernel_worker.c has main and the operands; a
// library's file the four functions below.
#ifndef CNX_KERNEL_WORKER_H
#define CNX_KERNEL_WORKER_H
#include <stdbool.h>
#include <stdint.h>

enum { TAPS = 7, PAD = TAPS / 2 };

typedef struct {
    bool depthwise;
    int64_t m, k, n;      // gemm: a [m,k], b [k,n], out [m,n]
    int64_t h, w, c;      // depthwise: a [h,w,c], b [7,7,c], out [h,w,c]
    const float *a, *b;   // constant: b may be packed beforehand, which is not timed
    float *out;           // complete after kernel_finish
    int64_t na, nb, nout; // values
} KernelShape;

// Prepares for one thread; the shape outlives it. NULL, or why the library cannot (static text).
const char *kernel_open(const KernelShape *s);
void kernel_run(void);            // what is timed: out from a and b
void kernel_finish(void);         // brings out into the order of KernelShape
const char *kernel_form(void);    // how it is computed, static text
const char *kernel_version(void); // of the library, "" where it says none

// Zeroed memory on a cache line, some of it beyond the end readable; ends the process without.
float *kernel_floats(int64_t n);

#endif
