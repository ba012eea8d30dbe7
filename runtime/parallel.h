// Threads of one program run: a parallel region and the barrier between its steps.
#ifndef CNXRT_PARALLEL_H
#define CNXRT_PARALLEL_H
#include <stdatomic.h>
#include <stdint.h>

enum { CNXRT_MAX_THREADS = 4096 }; // of a session: beyond, OpenMP runs out of stack

// The state of cnxrt_barrier; one per session, reused by every run. Fields that different threads
// write lie on different cache lines.
typedef struct {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase;
    _Alignas(64) atomic_int sleepers;
} CnxrtTeam;

typedef void (*CnxrtTask)(void *user, int64_t thread, int64_t nthreads);

void cnxrt_team_init(CnxrtTeam *t);
// Calls task on threads 0..n-1 at once, n <= threads, and returns when all are done. n is less than
// threads when OpenMP grants fewer, as inside a parallel region, and when regions that other
// threads of the process started leave fewer CPUs; it is 1 in a build without OpenMP.
void cnxrt_parallel(int threads, CnxrtTask task, void *user);
// The number of threads to run with when `asked` are wanted; 0 stands for OMP_NUM_THREADS, at most
// CNXRT_MAX_THREADS, or the CPUs of the process. 1 in a build without OpenMP.
int cnxrt_usable_threads(int asked);

#endif
