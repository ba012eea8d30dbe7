// Seconds per call of a program, gathered by each thread on its own lines of memory.
#ifndef CNXRT_PROFILE_H
#define CNXRT_PROFILE_H
#include <stdint.h>

typedef struct CnxrtProfile {
    int64_t ncalls, stride, threads; // stride: doubles from one thread's row to the next
    double *rows;                    // [threads][stride]: the last tick, then seconds per call
} CnxrtProfile;

// Doubles that profile rows of `threads` threads and `ncalls` calls take.
int64_t cnxrt_profile_doubles(int64_t ncalls, int64_t threads);
// Zeroes the rows for a run; `rows` holds cnxrt_profile_doubles.
void cnxrt_profile_start(CnxrtProfile *p, double *rows, int64_t ncalls, int64_t threads);
// Adds the mean over `threads` threads of every call to seconds[ncalls].
void cnxrt_profile_sum(const CnxrtProfile *p, int64_t threads, double *seconds);

#endif
