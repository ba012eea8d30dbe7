// Classifiers on frozen features, on vectors whose answers are known.
#include "runtime/cli_linear.h"
#include "runtime/rng.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 300, WIDTH = 7, CLASSES = 3 };

// Clusters round a centre of each class, and a dimension that is constant.
static void clusters(Features *f, double spread, uint64_t seed) {
    *f = (Features){.n = N, .width = WIDTH, .classes = CLASSES};
    f->values = calloc((size_t)N * WIDTH, sizeof *f->values);
    f->labels = calloc((size_t)N, sizeof *f->labels);
    Rng r = rng_stream(seed, RNG_INIT, 0, 0);
    for (int i = 0; i < N; i++) {
        f->labels[i] = i % CLASSES;
        for (int k = 0; k < WIDTH; k++)
            f->values[i * WIDTH + k] =
                (float)((k % CLASSES == i % CLASSES) * 4 + 10 + spread * rng_normal(&r));
        f->values[i * WIDTH + WIDTH - 1] = 3;
    }
}

static void features_free(Features *f) {
    free(f->values);
    free(f->labels);
}

static void standardise(Features *f) {
    double scale[WIDTH], shift[WIDTH];
    features_statistics(f, scale, shift);
    features_standardise(f, scale, shift);
}

static int best(const float *scores) {
    int c = 0;
    for (int i = 1; i < CLASSES; i++)
        if (scores[i] > scores[c]) c = i;
    return c;
}

static int linear_hits(const LinearFit *fit, const Features *f) {
    float scores[CLASSES];
    int hits = 0;
    for (int64_t i = 0; i < f->n; i++) {
        linear_scores(fit, f->values + i * f->width, f->width, f->classes, scores);
        hits += best(scores) == f->labels[i];
    }
    return hits;
}

static void standardises(void **state) {
    (void)state;
    Features f;
    clusters(&f, 2, 1);
    standardise(&f);
    for (int k = 0; k < WIDTH; k++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < N; i++) {
            double v = (double)f.values[i * WIDTH + k];
            sum += v;
            squares += v * v;
        }
        assert_true(fabs(sum / N) < 1e-6);
        assert_true(fabs(squares / N - (k < WIDTH - 1)) < 1e-6); // constants become 0
    }
    features_normalise(&f);
    double length = 0;
    for (int k = 0; k < WIDTH; k++) length += (double)f.values[k] * (double)f.values[k];
    assert_true(fabs(length - 1) < 1e-6);
    features_free(&f);
}

// The loss by its formulas: of one class, or of each class by itself.
static double loss_of(const Features *f, const double *w, double penalty) {
    double loss = 0;
    for (int64_t i = 0; i < f->n; i++) {
        double z[CLASSES], sum = 0, binary = 0;
        for (int c = 0; c < CLASSES; c++) {
            z[c] = w[WIDTH * CLASSES + c];
            for (int k = 0; k < WIDTH; k++)
                z[c] += (double)f->values[i * WIDTH + k] * w[k * CLASSES + c];
            sum += exp(z[c]);
            binary += log(1 + exp(z[c])) - (f->truth && f->truth[i * CLASSES + c] ? z[c] : 0);
        }
        loss += (f->truth ? binary : log(sum) - z[f->labels[i]]) / (double)f->n;
    }
    for (int k = 0; k < WIDTH * CLASSES; k++) loss += penalty / 2 * w[k] * w[k];
    return loss;
}

// At the end the gradient vanishes and no small step lowers the loss; any number of threads.
static void check_minimum(const Features *features) {
    Features f = *features;
    LinearFit fit, again;
    assert_true(linear_fit(&f, 0.01, 500, 1, &fit));
    assert_true(linear_fit(&f, 0.01, 500, 3, &again));
    assert_memory_equal(fit.weights, again.weights, (WIDTH + 1) * CLASSES * sizeof(double));
    assert_true(fit.gradient < 1e-5);
    assert_true(fit.iterations < 100);
    assert_true(fabs(fit.loss - loss_of(&f, fit.weights, 0.01)) < 1e-12);
    for (int k = 0; k < (WIDTH + 1) * CLASSES; k++)
        for (double step = -1e-2; step < 2e-2; step += 2e-2) {
            double kept = fit.weights[k];
            fit.weights[k] += step;
            assert_true(loss_of(&f, fit.weights, 0.01) > fit.loss - 1e-9);
            fit.weights[k] = kept;
        }
    free(fit.weights);
    free(again.weights);
    assert_true(linear_fit(&f, 0.01, 2, 1, &fit)); // stops early
    assert_int_equal(fit.iterations, 2);
    free(fit.weights);
}

static void fits_the_minimum(void **state) {
    (void)state;
    Features f;
    clusters(&f, 4, 2);
    standardise(&f);
    check_minimum(&f);
    // Sets of 0 to CLASSES classes.
    f.truth = calloc((size_t)N, CLASSES);
    for (int i = 0; i < N; i++)
        for (int c = 0; c < CLASSES; c++)
            f.truth[i * CLASSES + c] = c == i % CLASSES || (i >> c) % 2;
    check_minimum(&f);
    free(f.truth);
    features_free(&f);
}

static void separates_clusters(void **state) {
    (void)state;
    Features f, q;
    double scale[WIDTH], shift[WIDTH];
    clusters(&f, 0.5, 3);
    clusters(&q, 0.5, 4);
    features_statistics(&f, scale, shift);
    features_standardise(&f, scale, shift);
    features_standardise(&q, scale, shift);
    LinearFit fit;
    assert_true(linear_fit(&f, 1e-3, 200, 2, &fit));
    assert_int_equal(linear_hits(&fit, &f), N);
    assert_int_equal(linear_hits(&fit, &q), N);
    free(fit.weights);
    features_free(&f);
    features_free(&q);
}

// Against sorting all products.
static void neighbours_vote(void **state) {
    (void)state;
    Features f, q;
    clusters(&f, 3, 5);
    clusters(&q, 3, 6);
    features_normalise(&f);
    features_normalise(&q);
    q.n = 9; // no multiple of what is searched at once
    enum { K = 5 };
    float scores[9 * CLASSES], again[9 * CLASSES];
    assert_true(knn_scores(&f, &q, K, 0.07, 1, scores));
    assert_true(knn_scores(&f, &q, K, 0.07, 4, again));
    assert_memory_equal(scores, again, sizeof scores);
    for (int j = 0; j < 9; j++) {
        double want[CLASSES] = {0}, first = 0;
        bool used[N] = {0};
        for (int n = 0; n < K; n++) {
            int at = -1;
            double most = -2;
            for (int i = 0; i < N; i++) {
                float p = 0;
                for (int k = 0; k < WIDTH; k++)
                    p += q.values[j * WIDTH + k] * f.values[i * WIDTH + k];
                if (!used[i] && (double)p > most) most = (double)p, at = i;
            }
            used[at] = true;
            if (!n) first = most;
            want[f.labels[at]] += exp((most - first) / 0.07);
        }
        for (int c = 0; c < CLASSES; c++)
            assert_true(fabs((double)scores[j * CLASSES + c] - want[c]) < 1e-4);
    }
    features_free(&f);
    features_free(&q);
}

// Of equal neighbours the first ones vote; more neighbours than vectors are all of them.
static void neighbours_at_the_edges(void **state) {
    (void)state;
    float values[] = {1, 1, 1}, query[] = {1}, scores[3];
    int32_t labels[] = {2, 0, 1}, none[] = {0};
    Features f = {.values = values, .labels = labels, .n = 3, .width = 1, .classes = 3};
    Features q = {.values = query, .labels = none, .n = 1, .width = 1, .classes = 3};
    assert_true(knn_scores(&f, &q, 1, 1, 1, scores));
    assert_true(scores[2] == 1 && scores[0] == 0 && scores[1] == 0);
    assert_true(knn_scores(&f, &q, 20, 1, 2, scores));
    assert_true(scores[2] == 1 && scores[0] == 1 && scores[1] == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standardises),
        cmocka_unit_test(fits_the_minimum),
        cmocka_unit_test(separates_clusters),
        cmocka_unit_test(neighbours_vote),
        cmocka_unit_test(neighbours_at_the_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
