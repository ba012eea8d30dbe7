// One OpenMP region per run, and a sense-reversing barrier for the steps inside it.
//
// The barrier counts arrivals; the last thread resets the count and advances `phase`, on which the
// others wait: first spinning (steps are tens of microseconds apart, a kernel sleep costs more),
// then yielding, then asleep on a futex, so that an oversubscribed host is not burnt. A sleeper
// announces itself before it sleeps and the kernel re-reads `phase`, so no wake-up is lost.
#include "parallel.h"
#include "cnxrt_model.h"
#include <sched.h>
#include <stdbool.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

enum { SPINS = 4000, YIELDS = 50 };

void cnxrt_team_init(CnxrtTeam *t) {
    atomic_init(&t->arrived, 0);
    atomic_init(&t->phase, 0);
    atomic_init(&t->sleepers, 0);
}

static void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void phase_sleep(CnxrtTeam *t, unsigned phase) {
#ifdef __linux__
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(&t->phase) == phase)
        syscall(SYS_futex, (void *)&t->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
    atomic_fetch_sub(&t->sleepers, 1);
#else
    while (atomic_load(&t->phase) == phase) sched_yield();
#endif
}

static void phase_advance(CnxrtTeam *t, unsigned phase) {
    atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
    atomic_store(&t->phase, phase + 1);
#ifdef __linux__
    if (atomic_load(&t->sleepers) > 0)
        syscall(SYS_futex, (void *)&t->phase, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
#endif
}

void cnxrt_barrier(void *team, int64_t thread, int64_t nthreads) {
    (void)thread;
    CnxrtTeam *t = team;
    unsigned phase = atomic_load_explicit(&t->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == nthreads) {
        phase_advance(t, phase);
        return;
    }
    for (int i = 0; i < SPINS + YIELDS; i++) {
        if (atomic_load_explicit(&t->phase, memory_order_acquire) != phase) return;
        if (i < SPINS)
            cpu_relax();
        else
            sched_yield();
    }
    phase_sleep(t, phase);
}

#ifdef _OPENMP
// Threads inside regions now. On purpose a global: the CPUs that a host's threads, each with a
// session of its own, have to share are those of the process.
static atomic_int running;

// The threads of a region that wants as many: beside others those that find a CPU, at least one.
static int running_add(int wanted) {
    int others = atomic_load(&running), n;
    do {
        int left = others ? omp_get_num_procs() - others : wanted;
        n = wanted < left ? wanted : left;
        if (n < 1) n = 1;
    } while (!atomic_compare_exchange_weak(&running, &others, others + n));
    return n;
}

// Whether OpenMP's threads are here: they are those of the process whose regions started them, and
// a child of it, forked later, would wait for them without end.
static bool threads_here(void) {
    static _Atomic(pid_t) owner;
    pid_t none = 0, self = getpid();
    return atomic_compare_exchange_strong(&owner, &none, self) || none == self;
}

void cnxrt_parallel(int threads, CnxrtTask task, void *user) {
    int n = running_add(threads);
    if (n == 1 || !threads_here()) {
        task(user, 0, 1);
    } else {
#pragma omp parallel num_threads(n)
        task(user, omp_get_thread_num(), omp_get_num_threads());
    }
    atomic_fetch_sub(&running, n);
}

int cnxrt_usable_threads(int asked) {
    if (asked > 0) return asked;
    int n = omp_get_max_threads();
    if (n > CNXRT_MAX_THREADS) return CNXRT_MAX_THREADS;
    return n > 0 ? n : 1;
}
#else
void cnxrt_parallel(int threads, CnxrtTask task, void *user) {
    (void)threads;
    task(user, 0, 1);
}

int cnxrt_usable_threads(int asked) {
    (void)asked;
    return 1;
}
#endif
