// The clock, and the memory of this process.
#ifndef CNXRT_CLOCK_H
#define CNXRT_CLOCK_H
#include <sys/resource.h>
#include <time.h>

// Seconds of a monotonic clock.
static inline double cnxrt_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// The most memory the process has had, in 10^6 bytes; 0: unknown.
static inline double cnxrt_peak_rss_mb(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (double)u.ru_maxrss * 1024 / 1e6 : 0;
}

#endif
