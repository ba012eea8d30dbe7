// Definitions of normalisations, activations and reductions. f64 throughout.
//
// Legend: n images, p positions of an image (all dimensions between the first and the last),
// k channels.
#include "eval_op.h"
#include <math.h>

void row_moments(const double *x, int64_t k, double eps, double *mean, double *rstd) {
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < k; j++) sum += x[j];
    *mean = sum / (double)k;
    for (int64_t j = 0; j < k; j++) squares += (x[j] - *mean) * (x[j] - *mean);
    *rstd = 1 / sqrt(squares / (double)k + eps);
}

// y = (x - mean) rstd gamma + beta over the last dimension; gamma and beta may be NULL.
static void normalize_rows(const EvalCall *c, const double *gamma, const double *beta) {
    int64_t k = tensor_last(&c->x[0]), rows = tensor_rows(&c->x[0]);
    double eps = node_f64(c->n, A_eps), mean, rstd;
    for (int64_t r = 0; r < rows; r++) {
        const double *x = f64_data(&c->x[0]) + r * k;
        double *y = f64_data(&c->y[0]) + r * k;
        row_moments(x, k, eps, &mean, &rstd);
        for (int64_t j = 0; j < k; j++)
            y[j] = (x[j] - mean) * rstd * (gamma ? gamma[j] : 1) + (beta ? beta[j] : 0);
    }
}

const char *eval_layernorm(const EvalCall *c) {
    normalize_rows(c, f64_data(&c->x[1]), f64_data(&c->x[2]));
    return NULL;
}

const char *eval_normalize(const EvalCall *c) {
    normalize_rows(c, NULL, NULL);
    return NULL;
}

// erf: x/2 (1+erf(x/sqrt 2)), written with erfc so that the left tail keeps its digits.
// tanh: x/2 (1+tanh(sqrt(2/pi)(x+0.044715x^3)))
const char *eval_gelu(const EvalCall *c) {
    bool tanh_form = node_int(c->n, A_approx) == 1;
    int64_t n = tensor_elems(&c->y[0]);
    for (int64_t i = 0; i < n; i++) {
        double x = f64_data(&c->x[0])[i];
        f64_data(&c->y[0])[i] =
            tanh_form ? x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)))
                      : x / 2 * erfc(-x * M_SQRT1_2);
    }
    return NULL;
}

// ---- global response normalisation -------------------------------------------------------------
// G[k] of p rows x [p,k].
static void aggregate_rows(Aggregate how, const double *x, int64_t p, int64_t k, double *G) {
    for (int64_t j = 0; j < k; j++) {
        double sum = 0, squares = 0, mean;
        for (int64_t r = 0; r < p; r++) {
            double v = x[r * k + j];
            sum += how == AGG_L2 ? v * v : how == AGG_L1 ? fabs(v) : v;
        }
        mean = sum / (double)p;
        for (int64_t r = 0; how == AGG_STD && r < p; r++)
            squares += (x[r * k + j] - mean) * (x[r * k + j] - mean);
        switch (how) {
        case AGG_L2: G[j] = sqrt(sum); break;
        case AGG_L1: G[j] = sum; break;
        case AGG_MEAN: G[j] = mean; break;
        case AGG_STD: G[j] = sqrt(squares / (double)p); break;
        }
    }
}

// x [n,...,k] -> G [n,k], or [1,k] over the whole batch.
static void grn_stat(const EvalCall *c, int64_t groups, double *G) {
    int64_t k = tensor_last(&c->x[0]), p = tensor_rows(&c->x[0]) / groups;
    for (int64_t b = 0; b < groups; b++)
        aggregate_rows((Aggregate)node_int(c->n, A_aggregate), f64_data(&c->x[0]) + b * p * k, p, k,
                       G + b * k);
}

GrnForm grn_form(const Node *n, const double *G, int64_t k) {
    GrnForm f = {.divisor = 1};
    double eps = node_f64(n, A_eps), sum = 0, squares = 0;
    for (int64_t j = 0; j < k; j++) sum += G[j];
    f.mean = sum / (double)k;
    for (int64_t j = 0; j < k; j++) squares += (G[j] - f.mean) * (G[j] - f.mean);
    f.deviation = sqrt(squares / (double)k);
    switch ((Normalise)node_int(n, A_normalise)) {
    case NORM_MEAN: f.divisor = f.mean + eps; break;
    case NORM_SUM: f.divisor = sum + eps; break;
    case NORM_STANDARDISE: f.shift = f.mean, f.divisor = f.deviation + eps; break;
    case NORM_NONE: break;
    }
    return f;
}

// s = gamma N(G) (+1 if residual), G [n,k]
static void grn_scale(const Node *node, const double *G, int64_t n, int64_t k, const double *gamma,
                      double *s) {
    bool residual = node_int(node, A_residual);
    for (int64_t b = 0; b < n; b++, G += k, s += k) {
        GrnForm f = grn_form(node, G, k);
        for (int64_t j = 0; j < k; j++)
            s[j] = gamma[j] * ((G[j] - f.shift) / f.divisor) + (residual ? 1 : 0);
    }
}

const char *eval_grn_stat(const EvalCall *c) {
    grn_stat(c, c->y[0].d[0], f64_data(&c->y[0]));
    return NULL;
}

const char *eval_grn_scale(const EvalCall *c) {
    grn_scale(c->n, f64_data(&c->x[0]), c->x[0].d[0], c->x[0].d[1], f64_data(&c->x[1]),
              f64_data(&c->y[0]));
    return NULL;
}

// y = x grn_scale(grn_stat(x), gamma) + beta
const char *eval_grn(const EvalCall *c) {
    int64_t n = tensor_elems(&c->y[0]), k = tensor_last(&c->x[0]);
    int64_t groups = node_int(c->n, A_statistics) == 1 ? 1 : c->x[0].d[0];
    double *G = NEWN(c->tmp, double, groups *k), *s = NEWN(c->tmp, double, groups *k);
    grn_stat(c, groups, G);
    grn_scale(c->n, G, groups, k, f64_data(&c->x[1]), s);
    int64_t image = n / groups;
    for (int64_t i = 0; i < n; i++)
        f64_data(&c->y[0])[i] =
            f64_data(&c->x[0])[i] * s[i / image * k + i % k] + f64_data(&c->x[2])[i % k];
    return NULL;
}

// ---- reductions --------------------------------------------------------------------------------
const char *eval_global_avg_pool(const EvalCall *c) {
    int64_t n = c->x[0].d[0], k = tensor_last(&c->x[0]), p = tensor_rows(&c->x[0]) / n;
    for (int64_t b = 0; b < n; b++)
        aggregate_rows(AGG_MEAN, f64_data(&c->x[0]) + b * p * k, p, k, f64_data(&c->y[0]) + b * k);
    return NULL;
}
