// The barrier between steps: nobody leaves before all have come, writes before it are seen after
// it, with more threads than CPUs, with sleepers, and when it is used again at once. Regions of
// several threads share the CPUs.
#include "runtime/cnxrt_model.h"
#include "runtime/parallel.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { MAX_THREADS = 7, ROUNDS = 400 };

typedef struct {
    CnxrtTeam team;
    int64_t threads;
    int cells[MAX_THREADS]; // plain memory on purpose: only the barrier orders it
    int wrong[MAX_THREADS];
    int late; // microseconds that thread 0 comes late to every 50th round
} Stress;

static void stress(void *user, int64_t thread, int64_t nthreads) {
    Stress *s = user;
    for (int round = 1; round <= ROUNDS; round++) {
        if (s->late && thread == 0 && round % 50 == 0) usleep((useconds_t)s->late);
        s->cells[thread] = round;
        cnxrt_barrier(&s->team, thread, nthreads);
        for (int64_t i = 0; i < nthreads; i++) s->wrong[thread] += s->cells[i] != round;
        cnxrt_barrier(&s->team, thread, nthreads);
    }
}

typedef struct {
    Stress *stress;
    int64_t thread;
} Start;

static void *start(void *user) {
    Start *s = user;
    stress(s->stress, s->thread, s->stress->threads);
    return NULL;
}

static void run_stress(int threads, int late) {
    Stress s = {.threads = threads, .late = late};
    cnxrt_team_init(&s.team);
    pthread_t id[MAX_THREADS];
    Start starts[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        starts[i] = (Start){&s, i};
        assert_int_equal(pthread_create(&id[i], NULL, start, &starts[i]), 0);
    }
    for (int i = 0; i < threads; i++) pthread_join(id[i], NULL);
    for (int i = 0; i < threads; i++) assert_int_equal(s.wrong[i], 0);
}

static void barrier_orders_memory(void **state) {
    (void)state;
    for (int threads = 1; threads <= MAX_THREADS; threads++) run_stress(threads, 0);
}

// Long enough that the others have gone to sleep.
static void sleepers_wake(void **state) {
    (void)state;
    run_stress(2, 20000);
    run_stress(MAX_THREADS, 20000);
}

static void region_numbers_threads(void **state) {
    (void)state;
    Stress s = {.late = 0};
    cnxrt_team_init(&s.team);
    for (int threads = 1; threads <= MAX_THREADS; threads++) cnxrt_parallel(threads, stress, &s);
    for (int i = 0; i < MAX_THREADS; i++) assert_int_equal(s.wrong[i], 0);
    assert_true(cnxrt_usable_threads(0) >= 1);
    int three = cnxrt_usable_threads(3);
    assert_true(three == 3 || three == 1);
}

// Of a host that lets OpenMP have more than a team's stack can hold.
static void default_threads_have_a_limit(void **state) {
    (void)state;
#ifdef _OPENMP
    int before = omp_get_max_threads();
    omp_set_num_threads(99999);
    assert_int_equal(cnxrt_usable_threads(0), CNXRT_MAX_THREADS);
    omp_set_num_threads(before);
#else
    skip();
#endif
}

typedef struct {
    int threads;
    atomic_int granted; // 0: the region has not begun
    atomic_bool held;
} Region;

static void hold(void *user, int64_t thread, int64_t nthreads) {
    Region *r = user;
    if (thread == 0) atomic_store(&r->granted, (int)nthreads);
    while (atomic_load(&r->held)) usleep(100);
}

static void *region_start(void *user) {
    Region *r = user;
    cnxrt_parallel(r->threads, hold, r);
    return NULL;
}

// A region beside one that has all CPUs runs on one thread, and has them all when that is over.
static void regions_share_the_cpus(void **state) {
    (void)state;
    int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    Region first = {.threads = cpus, .held = true}, second = {.threads = cpus}, third = second;
    pthread_t id;
    assert_int_equal(pthread_create(&id, NULL, region_start, &first), 0);
    while (!atomic_load(&first.granted)) usleep(100);
    region_start(&second);
    atomic_store(&first.held, false);
    pthread_join(id, NULL);
    region_start(&third);
    assert_int_equal(atomic_load(&second.granted), 1);
    assert_int_equal(atomic_load(&third.granted), atomic_load(&first.granted));
}

// A process forked after regions ran computes on one thread, where OpenMP would wait without end.
static void forked_process_runs_alone(void **state) {
    (void)state;
    Region before = {.threads = 2};
    region_start(&before);
    pid_t child = fork();
    if (child == 0) {
        Region r = {.threads = 2};
        alarm(30);
        region_start(&r);
        _exit(atomic_load(&r.granted) == 1 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barrier_orders_memory),  cmocka_unit_test(sleepers_wake),
        cmocka_unit_test(region_numbers_threads), cmocka_unit_test(default_threads_have_a_limit),
        cmocka_unit_test(regions_share_the_cpus), cmocka_unit_test(forked_process_runs_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
