// Definitions of the backward side of normalisations, activations and reductions. f64 throughout.
//
// Legend: dy cotangent of a result, n images, p positions, k channels, r 1/sqrt(var+eps).
#include "eval_op.h"
#include <math.h>

// ---- sums and their adjoint --------------------------------------------------------------------
// y[b,k] = sum over the positions of image b
const char *eval_image_sum(const EvalCall *c) {
    int64_t n = tensor_elems(&c->x[0]), k = tensor_last(&c->x[0]), image = n / c->x[0].d[0];
    for (int64_t i = 0; i < n; i++)
        f64_data(&c->y[0])[i / image * k + i % k] += f64_data(&c->x[0])[i];
    return NULL;
}

const char *eval_sum_rows(const EvalCall *c) {
    int64_t n = tensor_elems(&c->x[0]), k = tensor_last(&c->x[0]);
    for (int64_t i = 0; i < n; i++) f64_data(&c->y[0])[i % k] += f64_data(&c->x[0])[i];
    return NULL;
}

// y[b,...,k] = x[k], or x[b,k]
const char *eval_expand(const EvalCall *c) {
    int64_t n = tensor_elems(&c->y[0]), k = tensor_last(&c->y[0]);
    int64_t image = c->x[0].rank == 2 ? n / c->y[0].d[0] : n;
    for (int64_t i = 0; i < n; i++)
        f64_data(&c->y[0])[i] = f64_data(&c->x[0])[i / image * k + i % k];
    return NULL;
}

// ---- layer normalisation -----------------------------------------------------------------------
// With u = (x - mean) r and g = dy gamma: dx = r (g - mean(g) - u mean(g u)); gamma may be NULL.
static void normalize_rows_dx(const EvalCall *c, const double *gamma) {
    int64_t k = tensor_last(&c->x[1]), rows = tensor_rows(&c->x[1]);
    double mean, r;
    for (int64_t row = 0; row < rows; row++) {
        const double *dy = f64_data(&c->x[0]) + row * k, *x = f64_data(&c->x[1]) + row * k;
        double *dx = f64_data(&c->y[0]) + row * k, g = 0, gu = 0;
        row_moments(x, k, node_f64(c->n, A_eps), &mean, &r);
        for (int64_t j = 0; j < k; j++) {
            dx[j] = dy[j] * (gamma ? gamma[j] : 1);
            g += dx[j] / (double)k;
            gu += dx[j] * (x[j] - mean) * r / (double)k;
        }
        for (int64_t j = 0; j < k; j++) dx[j] = r * (dx[j] - g - (x[j] - mean) * r * gu);
    }
}

const char *eval_layernorm_dx(const EvalCall *c) {
    normalize_rows_dx(c, f64_data(&c->x[2]));
    return NULL;
}

const char *eval_normalize_dx(const EvalCall *c) {
    normalize_rows_dx(c, NULL);
    return NULL;
}

// dgamma[k] = sum over rows of dy (x - mean) r
const char *eval_layernorm_dgamma(const EvalCall *c) {
    int64_t k = tensor_last(&c->x[1]), rows = tensor_rows(&c->x[1]);
    double mean, r;
    for (int64_t row = 0; row < rows; row++) {
        const double *dy = f64_data(&c->x[0]) + row * k, *x = f64_data(&c->x[1]) + row * k;
        row_moments(x, k, node_f64(c->n, A_eps), &mean, &r);
        for (int64_t j = 0; j < k; j++) f64_data(&c->y[0])[j] += dy[j] * (x[j] - mean) * r;
    }
    return NULL;
}

// ---- GELU --------------------------------------------------------------------------------------
// erf: Phi(x) + x phi(x), the normal distribution's
static double gelu_erf_slope(double x) {
    return erfc(-x * M_SQRT1_2) / 2 + x * exp(-x * x / 2) / sqrt(2 * M_PI);
}

// tanh: with t = tanh(a(x + b x^3)): (1+t)/2 + x/2 (1-t^2) a (1 + 3 b x^2)
static double gelu_tanh_slope(double x) {
    const double a = sqrt(2 / M_PI), b = 0.044715;
    double t = tanh(a * (x + b * x * x * x));
    return (1 + t) / 2 + x / 2 * (1 - t * t) * a * (1 + 3 * b * x * x);
}

const char *eval_gelu_dx(const EvalCall *c) {
    bool tanh_form = node_int(c->n, A_approx) == 1;
    int64_t n = tensor_elems(&c->y[0]);
    for (int64_t i = 0; i < n; i++) {
        double x = f64_data(&c->x[1])[i];
        f64_data(&c->y[0])[i] =
            f64_data(&c->x[0])[i] * (tanh_form ? gelu_tanh_slope(x) : gelu_erf_slope(x));
    }
    return NULL;
}

// ---- global response normalisation -------------------------------------------------------------
// dG/dx at x, one of p positions of a channel. Where G = 0 every x is at the kink of l2 and std:
// 0 is the subgradient that keeps a channel GELU has emptied from turning a run into NaN.
static double stat_slope(Aggregate how, double x, double G, double mean, double p) {
    switch (how) {
    case AGG_L2: return G == 0 ? 0 : x / G;
    case AGG_L1: return (x > 0) - (x < 0);
    case AGG_MEAN: return 1 / p;
    case AGG_STD: return G == 0 ? 0 : (x - mean) / (p * G);
    }
    return 0;
}

// dx[b,...,k] = dG[b,k] dG/dx
const char *eval_grn_stat_dx(const EvalCall *c) {
    int64_t groups = c->x[0].d[0], k = tensor_last(&c->x[1]);
    int64_t p = tensor_rows(&c->x[1]) / groups;
    Aggregate how = (Aggregate)node_int(c->n, A_aggregate);
    for (int64_t i = 0; i < groups * k; i++) {
        int64_t first = i / k * p * k + i % k; // of the channel's positions
        const double *x = f64_data(&c->x[1]) + first;
        double *dx = f64_data(&c->y[0]) + first, mean = 0;
        for (int64_t r = 0; r < p; r++) mean += x[r * k] / (double)p;
        for (int64_t r = 0; r < p; r++)
            dx[r * k] = f64_data(&c->x[0])[i] *
                        stat_slope(how, x[r * k], f64_data(&c->x[2])[i], mean, (double)p);
    }
    return NULL;
}

// With d = gamma ds, N = (G - shift)/divisor:
//   none         dG = d
//   mean, sum    dG = d/divisor - sum_k(d G)/divisor^2 * (1/k for mean, 1 for sum)
//   standardise  dG = (d - mean d)/divisor - sum_k(d (G-mean)) (G-mean)/(k deviation divisor^2)
static void scale_dstat_row(const Node *n, const double *d, const double *G, int64_t k,
                            double *dG) {
    Normalise how = (Normalise)node_int(n, A_normalise);
    GrnForm f = grn_form(n, G, k);
    double sum = 0, dot = 0;
    for (int64_t j = 0; j < k; j++) {
        sum += d[j];
        dot += d[j] * (G[j] - f.shift);
    }
    double through = how == NORM_NONE ? 0 : dot / (f.divisor * f.divisor);
    if (how != NORM_SUM) through /= (double)k;
    for (int64_t j = 0; j < k; j++) {
        dG[j] = d[j] / f.divisor - through;
        if (how != NORM_STANDARDISE) continue;
        double slope = f.deviation == 0 ? 0 : (G[j] - f.mean) / f.deviation;
        dG[j] = (d[j] - sum / (double)k) / f.divisor - through * slope;
    }
}

const char *eval_grn_scale_dstat(const EvalCall *c) {
    int64_t k = tensor_last(&c->x[1]);
    double *d = NEWN(c->tmp, double, k);
    for (int64_t b = 0; b < c->x[1].d[0]; b++) {
        for (int64_t j = 0; j < k; j++)
            d[j] = f64_data(&c->x[0])[b * k + j] * f64_data(&c->x[2])[j];
        scale_dstat_row(c->n, d, f64_data(&c->x[1]) + b * k, k, f64_data(&c->y[0]) + b * k);
    }
    return NULL;
}

const char *eval_grn_scale_dgamma(const EvalCall *c) {
    int64_t k = tensor_last(&c->x[1]);
    for (int64_t b = 0; b < c->x[1].d[0]; b++) {
        const double *ds = f64_data(&c->x[0]) + b * k, *G = f64_data(&c->x[1]) + b * k;
        GrnForm f = grn_form(c->n, G, k);
        for (int64_t j = 0; j < k; j++)
            f64_data(&c->y[0])[j] += ds[j] * ((G[j] - f.shift) / f.divisor);
    }
    return NULL;
}
