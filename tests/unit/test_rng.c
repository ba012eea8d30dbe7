// The counter-based generator: the published vectors of Philox, fixed values of every distribution
// (computed by an independent implementation in Python), and moments.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "runtime/rng.h"

#define assert_near(got, want, tolerance)                                                          \
    do {                                                                                           \
        double g_ = (got), w_ = (want);                                                            \
        if (!(fabs(g_ - w_) <= (tolerance))) fail_msg(#got " is %.17g, expected %.17g", g_, w_);   \
    } while (0)

// kat_vectors of Random123 1.14.
static void test_philox(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        rng_philox(cases[i].counter, cases[i].key, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void test_fixed(void **state) {
    (void)state;
    Rng r = rng_stream(0x123456789abcdef0u, RNG_AUGMENT, 3, (uint64_t)7 << 32 | 9);
    static const uint32_t words[] = {0x63468a78, 0xb94d58cf, 0xe0faadf4, 0x5728f055, 0xffa29195};
    for (int i = 0; i < 5; i++) assert_int_equal(rng_u32(&r), words[i]);
    assert_true(rng_u64(&r) == 0x4449aa7ca7d2cb51u);
    assert_true(rng_uniform(&r) == 0.7081042752090462);
    assert_true(rng_range(&r, -2, 3) == -1.4331125920717807);
    assert_int_equal(rng_below(&r, 10), 1);
    assert_int_equal(rng_below(&r, 1000000007), 513681276);
    assert_near(rng_log_range(&r, 0.75, 4.0 / 3), 0.863008724622366, 1e-15);
    assert_near(rng_normal(&r), 2.3360609122291214, 4e-15);
    assert_near(rng_normal(&r), -0.5942008110174004, 4e-15);
    assert_near(rng_trunc_normal(&r, 0, 0.02, -2, 2), -0.009153106941699516, 1e-16);
    assert_near(rng_beta(&r, 0.8), 0.058376077989658326, 1e-14);
    assert_near(rng_beta(&r, 0.3), 0.9753385334187566, 1e-14);
    assert_near(rng_beta(&r, 1), 0.5257528800101097, 1e-14);
    static const int64_t order[10] = {8, 1, 3, 6, 2, 9, 7, 5, 4, 0};
    int64_t p[10];
    rng_permutation(&r, 10, p);
    assert_memory_equal(p, order, sizeof p);
}

// Every part of the name makes another stream; the same name makes the same one.
static void test_names(void **state) {
    (void)state;
    uint64_t first[7];
    Rng streams[7] = {
        rng_stream(1, RNG_MASK, 2, 3), rng_stream((uint64_t)1 << 40, RNG_MASK, 2, 3),
        rng_stream(1, RNG_DROP, 2, 3), rng_stream(1, RNG_MASK, 3, 2),
        rng_stream(1, RNG_MASK, 2, 4), rng_stream(1, RNG_MASK, 2, ((uint64_t)1 << 32) + 3),
        rng_stream(2, RNG_MASK, 2, 3),
    };
    for (int i = 0; i < 7; i++) {
        first[i] = rng_u64(&streams[i]);
        for (int j = 0; j < i; j++) assert_true(first[i] != first[j]);
    }
    Rng again = rng_stream(1, RNG_MASK, 2, 3);
    assert_true(rng_u64(&again) == first[0]);
}

static void test_functions(void **state) {
    (void)state;
    for (double x = 1e-300; x < 1e300; x *= 1.37)
        assert_near(rng_log(x), log(x), 1e-15 * fmax(fabs(log(x)), 1e-2));
    for (double x = -700; x < 700; x += 0.37) assert_near(rng_exp(x) / exp(x), 1, 1e-15);
    assert_true(rng_exp(-1e9) == 0 && rng_exp(0) == 1 && rng_log(1) == 0);
    // statistics.NormalDist().inv_cdf of Python
    assert_near(rng_normal_quantile(1e-300), -37.0470962993612, 1e-13);
    assert_near(rng_normal_quantile(1e-20), -9.262340089798405, 1e-14);
    assert_near(rng_normal_quantile(0.02), -2.0537489106318225, 1e-15);
    assert_near(rng_normal_quantile(0.7), 0.5244005127080407, 1e-15);
    assert_true(rng_normal_quantile(0.5) == 0);
}

enum { DRAWS = 200000 };

typedef struct {
    double mean, variance, least, most;
} Moments;

static Moments moments(double (*draw)(Rng *, double), double a, uint64_t stream) {
    Rng r = rng_stream(11, RNG_INIT, 0, stream);
    Moments m = {0, 0, INFINITY, -INFINITY};
    for (int i = 0; i < DRAWS; i++) {
        double v = draw(&r, a);
        m.mean += v;
        m.variance += v * v;
        m.least = fmin(m.least, v);
        m.most = fmax(m.most, v);
    }
    m.mean /= DRAWS;
    m.variance = m.variance / DRAWS - m.mean * m.mean;
    return m;
}

static double draw_uniform(Rng *r, double a) { return a * rng_uniform(r); }
static double draw_normal(Rng *r, double a) { return a * rng_normal(r); }
static double draw_cut(Rng *r, double a) { return rng_trunc_normal(r, 0, a, -2, 2); }

static void test_moments(void **state) {
    (void)state;
    Moments u = moments(draw_uniform, 1, 0), n = moments(draw_normal, 1, 1);
    assert_near(u.mean, 0.5, 0.003);
    assert_near(u.variance, 1.0 / 12, 0.001);
    assert_true(u.least >= 0 && u.most < 1);
    assert_near(n.mean, 0, 0.01);
    assert_near(n.variance, 1, 0.015);
    assert_true(n.least < -3.8 && n.most > 3.8);
    Moments t = moments(draw_cut, 1, 2); // variance 1 - 2 b phi(b) / (2 Phi(b) - 1) at b = 2
    assert_near(t.variance, 0.7737413, 0.01);
    assert_true(t.least >= -2 && t.most <= 2);
    static const double a[] = {0.05, 0.3, 0.5, 0.8, 1, 3};
    for (int i = 0; i < 6; i++) {
        Moments b = moments(rng_beta, a[i], 10 + (uint64_t)i);
        assert_near(b.mean, 0.5, 0.005);
        assert_near(b.variance, 1 / (4 * (2 * a[i] + 1)), 0.004);
        assert_true(b.least >= 0 && b.most <= 1);
    }
}

static void test_trunc_normal_far(void **state) {
    (void)state;
    Rng r = rng_stream(0, RNG_INIT, 0, 0);
    assert_true(rng_trunc_normal(&r, 0, 1, 100, 101) == 100);
    assert_true(rng_trunc_normal(&r, 0, 1, -101, -100) == -100);
}

static void test_integers(void **state) {
    (void)state;
    Rng r = rng_stream(5, RNG_ORDER, 0, 0);
    int count[7] = {0};
    for (int i = 0; i < 70000; i++) count[rng_below(&r, 7)]++;
    for (int k = 0; k < 7; k++) assert_near(count[k], 10000, 400);
    for (int i = 0; i < 100; i++) assert_int_equal(rng_below(&r, 1), 0);
    int64_t large = INT64_MAX, v = rng_below(&r, large);
    assert_true(v >= 0 && v < large);
}

// All 6 permutations of 3 are equally likely; large ones are permutations.
static void test_permutations(void **state) {
    (void)state;
    int count[27] = {0}, seen[1000] = {0};
    int64_t p[1000];
    for (uint64_t epoch = 0; epoch < 60000; epoch++) {
        Rng r = rng_stream(9, RNG_ORDER, epoch, 0);
        rng_permutation(&r, 3, p);
        count[9 * p[0] + 3 * p[1] + p[2]]++;
    }
    for (int i = 0; i < 27; i++) {
        int a = i / 9, b = i / 3 % 3, c = i % 3;
        assert_near(count[i], a != b && b != c && a != c ? 10000 : 0, 400);
    }
    Rng r = rng_stream(9, RNG_ORDER, 0, 1);
    rng_permutation(&r, 1000, p);
    for (int i = 0; i < 1000; i++) seen[p[i]]++;
    for (int i = 0; i < 1000; i++) assert_int_equal(seen[i], 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),   cmocka_unit_test(test_fixed),
        cmocka_unit_test(test_names),    cmocka_unit_test(test_functions),
        cmocka_unit_test(test_moments),  cmocka_unit_test(test_trunc_normal_far),
        cmocka_unit_test(test_integers), cmocka_unit_test(test_permutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
