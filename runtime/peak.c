// The roofline measured on the spot: the model's own FMA loop on all threads, in slices of a few
// milliseconds; the best slice counts, since neighbours on the machine only ever slow one down.
#include "cnxrt.h"
#include "cnxrt_clock.h"
#include "cpu.h"
#include "parallel.h"
#include <stdbool.h>

typedef struct {
    const CnxrtModel *model;
    CnxrtTeam team;
    int64_t iterations;
    double seconds;            // until when to measure
    _Alignas(64) double start; // of the slice, by thread 0
    _Alignas(64) atomic_llong flops;
    double best;
    atomic_bool done;
} Peak;

// One slice: all threads start together behind a barrier and end behind another, so its time is
// that of the slowest thread.
static void peak_slice(Peak *p, int64_t thread, int64_t nthreads) {
    cnxrt_barrier(&p->team, thread, nthreads);
    if (thread == 0) p->start = cnxrt_seconds();
    cnxrt_barrier(&p->team, thread, nthreads);
    atomic_fetch_add(&p->flops, (long long)p->model->peak_loop(p->iterations));
    cnxrt_barrier(&p->team, thread, nthreads);
    if (thread != 0) return;
    double rate = (double)atomic_load(&p->flops) / (cnxrt_seconds() - p->start);
    if (rate > p->best) p->best = rate;
    atomic_store(&p->flops, 0);
    if (cnxrt_seconds() >= p->seconds) atomic_store(&p->done, true);
}

static void peak_task(void *user, int64_t thread, int64_t nthreads) {
    Peak *p = user;
    bool done = false;
    while (!done) {
        peak_slice(p, thread, nthreads);
        cnxrt_barrier(&p->team, thread, nthreads);
        done = atomic_load(&p->done);
    }
}

// Rounds of the loop that take about two milliseconds.
static int64_t slice_iterations(const CnxrtModel *m) {
    for (int64_t n = 1024;; n *= 2) {
        double start = cnxrt_seconds();
        m->peak_loop(n);
        if (cnxrt_seconds() - start > 1e-3) return 2 * n;
    }
}

double cnxrt_peak_flops(const CnxrtModel *m, int threads, double seconds) {
    CnxrtError lacking = {0};
    CnxrtStatus status = cnxrt_cpu_check(m->target, m->target_features, &lacking);
    cnxrt_error_free(&lacking);
    if (status != CNXRT_OK) return 0;
    Peak p = {.model = m};
    cnxrt_team_init(&p.team);
    atomic_init(&p.flops, 0);
    atomic_init(&p.done, false);
    p.iterations = slice_iterations(m);
    p.seconds = cnxrt_seconds() + seconds;
    threads = cnxrt_usable_threads(threads);
    cnxrt_parallel(threads < CNXRT_MAX_THREADS ? threads : CNXRT_MAX_THREADS, peak_task, &p);
    return p.best;
}
