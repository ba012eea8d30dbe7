// Logistic regression: L-BFGS (Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 7.5)
// with backtracking; the loss is strictly convex for a positive penalty. Samples are summed in a
// fixed number of shards and these in order.
#include "cli_linear.h"
#include "parallel.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 16, MEMORY = 10, HALVINGS = 40 };
#define GRADIENT_ENOUGH 1e-5
#define ARMIJO 1e-4
#define FLAT 1e-12 // deviations below are those of constants

// ---- features -----------------------------------------------------------------------------------

void features_statistics(const Features *f, double *scale, double *shift) {
    for (int64_t k = 0; k < f->width; k++) scale[k] = shift[k] = 0;
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t k = 0; k < f->width; k++) shift[k] += (double)f->values[i * f->width + k];
    for (int64_t k = 0; k < f->width; k++) shift[k] /= (double)f->n;
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t k = 0; k < f->width; k++) {
            double d = (double)f->values[i * f->width + k] - shift[k];
            scale[k] += d * d;
        }
    for (int64_t k = 0; k < f->width; k++) {
        double deviation = sqrt(scale[k] / (double)f->n);
        scale[k] = deviation > FLAT ? 1 / deviation : 0;
    }
}

void features_standardise(Features *f, const double *scale, const double *shift) {
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t k = 0; k < f->width; k++) {
            float *v = &f->values[i * f->width + k];
            *v = (float)(((double)*v - shift[k]) * scale[k]);
        }
}

void features_normalise(Features *f) {
    for (int64_t i = 0; i < f->n; i++) {
        float *v = f->values + i * f->width;
        double sum = 0;
        for (int64_t k = 0; k < f->width; k++) sum += (double)v[k] * (double)v[k];
        double scale = sum > 0 ? 1 / sqrt(sum) : 0;
        for (int64_t k = 0; k < f->width; k++) v[k] = (float)((double)v[k] * scale);
    }
}

// ---- the loss -----------------------------------------------------------------------------------

typedef struct {
    const Features *f;
    const double *weights;
    double *gradients, *losses, *logits; // per shard
    int64_t size;                        // of weights
} Loss;

static void add_scores(const double *w, const float *x, int64_t width, int classes, double *z) {
    const double *bias = w + width * classes;
    for (int c = 0; c < classes; c++) z[c] = bias[c];
    for (int64_t k = 0; k < width; k++)
        for (int c = 0; c < classes; c++) z[c] += (double)x[k] * w[k * classes + c];
}

// Turns z into softmax(z); returns log sum exp(z).
static double softmax(double *z, int classes) {
    double most = z[0], sum = 0;
    for (int c = 1; c < classes; c++) most = fmax(most, z[c]);
    for (int c = 0; c < classes; c++) sum += z[c] = exp(z[c] - most);
    for (int c = 0; c < classes; c++) z[c] /= sum;
    return most + log(sum);
}

// Turns z into the gradient of the loss by z; returns the loss of sample i:
//   log sum_c e^z_c - z_label      or, for sets,      sum_c log(1 + e^z_c) - y_c z_c
static double sample_loss(const Features *f, int64_t i, double *z) {
    if (!f->truth) {
        double truth = z[f->labels[i]], loss = softmax(z, f->classes) - truth;
        z[f->labels[i]] -= 1;
        return loss;
    }
    const unsigned char *truth = f->truth + i * f->classes;
    double loss = 0;
    for (int c = 0; c < f->classes; c++) {
        loss += fmax(z[c], 0) + log1p(exp(-fabs(z[c]))) - (truth[c] ? z[c] : 0);
        z[c] = 1 / (1 + exp(-z[c])) - truth[c];
    }
    return loss;
}

static void loss_shard(Loss *l, int64_t s) {
    const Features *f = l->f;
    int classes = f->classes;
    double *g = l->gradients + s * l->size, *z = l->logits + s * classes;
    memset(g, 0, (size_t)l->size * sizeof *g);
    l->losses[s] = 0;
    for (int64_t i = f->n * s / SHARDS; i < f->n * (s + 1) / SHARDS; i++) {
        const float *x = f->values + i * f->width;
        add_scores(l->weights, x, f->width, classes, z);
        l->losses[s] += sample_loss(f, i, z);
        for (int64_t k = 0; k < f->width; k++)
            for (int c = 0; c < classes; c++) g[k * classes + c] += (double)x[k] * z[c];
        for (int c = 0; c < classes; c++) g[f->width * classes + c] += z[c];
    }
}

static void loss_task(void *user, int64_t thread, int64_t nthreads) {
    for (int64_t s = thread; s < SHARDS; s += nthreads) loss_shard(user, s);
}

// Loss and gradient at `weights`.
static double loss_at(Loss *l, const double *weights, double penalty, int threads, double *g) {
    const Features *f = l->f;
    int64_t penalised = f->width * f->classes;
    double loss = 0, squares = 0, share = 1 / (double)f->n;
    l->weights = weights;
    cnxrt_parallel(threads, loss_task, l);
    for (int64_t k = 0; k < l->size; k++) g[k] = 0;
    for (int s = 0; s < SHARDS; s++) {
        loss += l->losses[s];
        for (int64_t k = 0; k < l->size; k++) g[k] += l->gradients[s * l->size + k];
    }
    for (int64_t k = 0; k < l->size; k++) {
        double w = k < penalised ? weights[k] : 0;
        g[k] = g[k] * share + penalty * w;
        squares += w * w;
    }
    return loss * share + 0.5 * penalty * squares;
}

// ---- L-BFGS -------------------------------------------------------------------------------------

typedef struct {
    double *steps, *changes, rho[MEMORY]; // [MEMORY][size]: of weights and gradients
    int64_t count;                        // ever stored
} History;

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void axpy(double a, const double *x, double *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

// direction = -H g, by the two loops over the history.
static void direction_find(const History *h, const double *g, int64_t n, double *direction) {
    double alpha[MEMORY];
    int64_t first = h->count > MEMORY ? h->count - MEMORY : 0;
    for (int64_t i = 0; i < n; i++) direction[i] = -g[i];
    for (int64_t j = h->count - 1; j >= first; j--) {
        int64_t at = j % MEMORY;
        alpha[at] = h->rho[at] * dot(h->steps + at * n, direction, n);
        axpy(-alpha[at], h->changes + at * n, direction, n);
    }
    if (h->count) {
        int64_t at = (h->count - 1) % MEMORY;
        const double *y = h->changes + at * n;
        double scale = 1 / (h->rho[at] * dot(y, y, n));
        for (int64_t i = 0; i < n; i++) direction[i] *= scale;
    }
    for (int64_t j = first; j < h->count; j++) {
        int64_t at = j % MEMORY;
        double beta = h->rho[at] * dot(h->changes + at * n, direction, n);
        axpy(alpha[at] - beta, h->steps + at * n, direction, n);
    }
}

typedef struct {
    Loss loss;
    History history;
    double *w, *g, *next, *next_g, *direction;
    double *memory;
} Fit;

static bool fit_open(Fit *s, const Features *f) {
    int64_t n = (f->width + 1) * f->classes, vectors = SHARDS + 2 * MEMORY + 5;
    s->memory = calloc((size_t)(vectors * n + SHARDS * (1 + f->classes)), sizeof *s->memory);
    double *p = s->memory;
    if (!p) return false;
    s->loss = (Loss){.f = f, .gradients = p, .size = n};
    s->history = (History){.steps = p + SHARDS * n, .changes = p + (SHARDS + MEMORY) * n};
    p += (SHARDS + 2 * MEMORY) * n;
    s->w = p, s->g = p + n, s->next = p + 2 * n, s->next_g = p + 3 * n, s->direction = p + 4 * n;
    s->loss.losses = p + 5 * n;
    s->loss.logits = s->loss.losses + SHARDS;
    return true;
}

// A step along the direction that lowers the loss enough; false: there is none.
static bool line_search(Fit *s, double penalty, int threads, double *loss) {
    int64_t n = s->loss.size;
    double slope = dot(s->g, s->direction, n), length = s->history.count ? 1 : 0.5;
    for (int i = 0; slope < 0 && i < HALVINGS; i++, length /= 2) {
        for (int64_t k = 0; k < n; k++) s->next[k] = s->w[k] + length * s->direction[k];
        double next = loss_at(&s->loss, s->next, penalty, threads, s->next_g);
        if (next > *loss + ARMIJO * length * slope) continue;
        *loss = next;
        return true;
    }
    return false;
}

// Moves to the next point and remembers the step when the curvature along it is positive.
static void step_take(Fit *s) {
    int64_t n = s->loss.size, at = s->history.count % MEMORY;
    double *step = s->history.steps + at * n, *change = s->history.changes + at * n;
    for (int64_t k = 0; k < n; k++) step[k] = s->next[k] - s->w[k];
    for (int64_t k = 0; k < n; k++) change[k] = s->next_g[k] - s->g[k];
    double curvature = dot(step, change, n);
    if (curvature > 0) {
        s->history.rho[at] = 1 / curvature;
        s->history.count++;
    }
    memcpy(s->w, s->next, (size_t)n * sizeof *s->w);
    memcpy(s->g, s->next_g, (size_t)n * sizeof *s->g);
}

bool linear_fit(const Features *f, double penalty, int iterations, int threads, LinearFit *fit) {
    Fit s = {0};
    *fit = (LinearFit){0};
    if (!fit_open(&s, f)) return false;
    int64_t n = s.loss.size;
    fit->loss = loss_at(&s.loss, s.w, penalty, threads, s.g);
    for (; fit->iterations < iterations; fit->iterations++) {
        if (sqrt(dot(s.g, s.g, n)) < GRADIENT_ENOUGH) break;
        direction_find(&s.history, s.g, n, s.direction);
        if (!line_search(&s, penalty, threads, &fit->loss)) break;
        step_take(&s);
    }
    fit->gradient = sqrt(dot(s.g, s.g, n));
    fit->weights = malloc((size_t)n * sizeof *fit->weights);
    if (fit->weights) memcpy(fit->weights, s.w, (size_t)n * sizeof *s.w);
    free(s.memory);
    return fit->weights != NULL;
}

void linear_scores(const LinearFit *fit, const float *values, int64_t width, int classes,
                   float *scores) {
    const double *bias = fit->weights + width * classes;
    for (int c = 0; c < classes; c++) {
        double z = bias[c];
        for (int64_t k = 0; k < width; k++) z += (double)values[k] * fit->weights[k * classes + c];
        scores[c] = (float)z;
    }
}
