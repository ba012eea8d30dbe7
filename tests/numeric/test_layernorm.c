// Layer normalisation, forward and backward, is no less accurate than PyTorch's eager one on the
// same data: the largest errors against double precision of every row of the target table this
// machine can run. What PyTorch's are is in layernorm_errors.inc.
#include "kernel_case.h"

enum { ROWS = 49, RESULTS = 3, OFFSETS = 3 };
static const char *const names[RESULTS] = {"y", "dx", "dgamma"};

static const struct {
    int64_t n;
    int offset;
    double torch[RESULTS];
} cases[] = {
#include "layernorm_errors.inc"
};
enum { CASES = sizeof cases / sizeof *cases, WIDTHS = CASES / OFFSETS };

typedef struct {
    int64_t n;
    float *x, *dy, *gamma, *beta;
    float *got[RESULTS];
    double *want[RESULTS];
    int64_t count[RESULTS];
} Layer;

static Layer layer_new(int64_t n, int offset) {
    state = (uint64_t)(n + offset);
    Layer l = {.n = n, .count = {ROWS * n, ROWS * n, n}};
    l.x = reals(ROWS * n, 2);
    for (int64_t i = 0; i < ROWS * n; i++) l.x[i] += (float)offset;
    l.dy = reals(ROWS * n, 1);
    l.gamma = reals(n, 1);
    l.beta = reals(n, 1);
    for (int k = 0; k < RESULTS; k++) {
        l.got[k] = floats_new(l.count[k]);
        l.want[k] = NEWN(arena, double, l.count[k]);
    }
    return l;
}

// y = u gamma + beta, u = (x - mean) r; dx = r (g - mean g - u mean(g u)), g = dy gamma;
// dgamma = sum dy u
static void reference(Layer *l) {
    double n = (double)l->n;
    for (int64_t row = 0; row < ROWS; row++) {
        const float *x = l->x + row * l->n, *dy = l->dy + row * l->n;
        double mean = 0, var = 0, g = 0, gu = 0;
        for (int64_t i = 0; i < l->n; i++) mean += x[i] / n;
        for (int64_t i = 0; i < l->n; i++) var += (x[i] - mean) * (x[i] - mean) / n;
        double r = 1 / sqrt(var + 1e-6);
        for (int64_t i = 0; i < l->n; i++) {
            g += (double)dy[i] * l->gamma[i] / n;
            gu += (double)dy[i] * l->gamma[i] * (x[i] - mean) * r / n;
        }
        for (int64_t i = 0; i < l->n; i++) {
            double u = (x[i] - mean) * r;
            l->want[0][row * l->n + i] = u * l->gamma[i] + l->beta[i];
            l->want[1][row * l->n + i] = r * ((double)dy[i] * l->gamma[i] - g - u * gu);
            l->want[2][i] += dy[i] * u;
        }
    }
}

static void compute(const Target *t, const Layer *l) {
    Spec forward = spec_new(K_NORM), backward = spec_new(K_NORM_DX);
    set_int(&forward, A_n, l->n);
    set_f64(&forward, A_eps, 1e-6);
    set_int(&forward, A_affine, 1);
    set_int(&backward, A_n, l->n);
    set_f64(&backward, A_eps, 1e-6);
    set_int(&backward, A_affine, 1);
    set_int(&backward, A_partial, 1);
    float *dbeta = floats_new(l->n);
    compile(t, &forward)((void *[]){l->x, l->got[0], l->gamma, l->beta}, 0, ROWS, 0, l->n);
    compile(t, &backward)((void *[]){l->dy, l->x, l->got[1], l->gamma, l->got[2], dbeta}, 0, ROWS,
                          0, l->n);
}

static double worst(const Layer *l, int result) {
    double most = 0;
    for (int64_t i = 0; i < l->count[result]; i++) {
        double error = fabs(l->got[result][i] - l->want[result][i]);
        if (!(error <= most)) most = isnan(error) ? INFINITY : error;
    }
    return most;
}

static void compare(const char *what, double ours, double theirs) {
    print_message("%s: error %.3g, of PyTorch's %.3g\n", what, ours, theirs);
    if (!(ours <= theirs)) fail_msg("%s: %.3g is more than PyTorch's %.3g", what, ours, theirs);
}

// Of all data the largest error counts; at one offset a single rounding makes the last difference.
static void target_check(const Target *t) {
    enum { PER_CENT = 33 };
    double all[2][RESULTS] = {{0}};
    for (int first = 0; first < CASES; first += WIDTHS) {
        double most[2][RESULTS] = {{0}};
        for (int c = first; c < first + WIDTHS; c++) {
            assert_int_equal(cases[c].offset, cases[first].offset);
            operands_reset();
            Layer l = layer_new(cases[c].n, cases[c].offset);
            reference(&l);
            compute(t, &l);
            for (int k = 0; k < RESULTS; k++) {
                most[0][k] = fmax(most[0][k], worst(&l, k));
                most[1][k] = fmax(most[1][k], cases[c].torch[k]);
            }
        }
        for (int k = 0; k < RESULTS; k++) {
            compare(arena_printf(arena, "%s, %s, x at %d", t->name, names[k], cases[first].offset),
                    most[0][k], most[1][k] * (100 + PER_CENT) / 100);
            for (int who = 0; who < 2; who++) all[who][k] = fmax(all[who][k], most[who][k]);
        }
    }
    for (int k = 0; k < RESULTS; k++)
        compare(arena_printf(arena, "%s, %s", t->name, names[k]), all[0][k], all[1][k]);
}

static void test_no_worse_than_torch(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) target_check(targets[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_worse_than_torch)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
