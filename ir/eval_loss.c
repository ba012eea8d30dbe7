// Definitions of the losses and their gradients. f64 throughout.
//
// Legend: n samples, k classes, z logits, t targets, l position, d elements of a patch, dl
// cotangent of a loss.
#include "eval_op.h"
#include <math.h>

// log sum_j exp z_j, exact for large |z|.
static double log_sum_exp(const double *z, int64_t k) {
    double max = z[0], sum = 0;
    for (int64_t j = 1; j < k; j++) max = fmax(max, z[j]);
    for (int64_t j = 0; j < k; j++) sum += exp(z[j] - max);
    return max + log(sum);
}

// l[b] = sum_k t (log sum_j exp z_j - z)
const char *eval_softmax_cross_entropy(const EvalCall *c) {
    int64_t k = tensor_last(&c->x[0]);
    for (int64_t b = 0; b < c->x[0].d[0]; b++) {
        const double *z = f64_data(&c->x[0]) + b * k, *t = f64_data(&c->x[1]) + b * k;
        double lse = log_sum_exp(z, k), sum = 0;
        for (int64_t j = 0; j < k; j++) sum += t[j] * (lse - z[j]);
        f64_data(&c->y[0])[b] = sum;
    }
    return NULL;
}

// dz = dl (softmax(z) sum_k t - t)
const char *eval_softmax_cross_entropy_dx(const EvalCall *c) {
    int64_t k = tensor_last(&c->x[1]);
    for (int64_t b = 0; b < c->x[1].d[0]; b++) {
        const double *z = f64_data(&c->x[1]) + b * k, *t = f64_data(&c->x[2]) + b * k;
        double lse = log_sum_exp(z, k), mass = 0;
        for (int64_t j = 0; j < k; j++) mass += t[j];
        for (int64_t j = 0; j < k; j++)
            f64_data(&c->y[0])[b * k + j] = f64_data(&c->x[0])[b] * (exp(z[j] - lse) * mass - t[j]);
    }
    return NULL;
}

// l[b] = mean_k of log(1 + exp z) - t z
const char *eval_bce_with_logits(const EvalCall *c) {
    int64_t k = tensor_last(&c->x[0]);
    for (int64_t b = 0; b < c->x[0].d[0]; b++) {
        double sum = 0;
        for (int64_t i = b * k; i < (b + 1) * k; i++) {
            double z = f64_data(&c->x[0])[i];
            sum += fmax(z, 0) + log1p(exp(-fabs(z))) - f64_data(&c->x[1])[i] * z;
        }
        f64_data(&c->y[0])[b] = sum / (double)k;
    }
    return NULL;
}

// dz = dl (1/(1 + exp -z) - t)/k
const char *eval_bce_with_logits_dx(const EvalCall *c) {
    int64_t k = tensor_last(&c->x[1]), n = tensor_elems(&c->x[1]);
    for (int64_t i = 0; i < n; i++) {
        double z = f64_data(&c->x[1])[i], e = exp(-fabs(z));
        double sigmoid = (z < 0 ? e : 1) / (1 + e);
        f64_data(&c->y[0])[i] =
            f64_data(&c->x[0])[i / k] * (sigmoid - f64_data(&c->x[2])[i]) / (double)k;
    }
    return NULL;
}

// y = (x - mean)/sqrt(var + eps) over the last dimension, var = sum (x - mean)^2/(d-1)
const char *eval_norm_pix(const EvalCall *c) {
    int64_t d = tensor_last(&c->x[0]), rows = tensor_rows(&c->x[0]);
    for (int64_t r = 0; r < rows; r++) {
        const double *x = f64_data(&c->x[0]) + r * d;
        double mean = 0, squares = 0;
        for (int64_t j = 0; j < d; j++) mean += x[j] / (double)d;
        for (int64_t j = 0; j < d; j++) squares += (x[j] - mean) * (x[j] - mean);
        double sd = sqrt(squares / (double)(d - 1) + node_f64(c->n, A_eps));
        for (int64_t j = 0; j < d; j++) f64_data(&c->y[0])[r * d + j] = (x[j] - mean) / sd;
    }
    return NULL;
}

// m_l / sum m over the positions of a sample; 0 where the sum is.
static double position_weight(const Tensor *mask, int64_t sample, int64_t l, int64_t positions) {
    const double *m = f64_data(mask) + sample * positions;
    double sum = 0;
    for (int64_t i = 0; i < positions; i++) sum += m[i];
    return sum == 0 ? 0 : m[l] / sum;
}

// l[b] = sum_l m_l mean_d (p - t)^2 / sum_l m_l
const char *eval_masked_mse(const EvalCall *c) {
    int64_t d = tensor_last(&c->x[0]), n = c->x[0].d[0], positions = tensor_rows(&c->x[0]) / n;
    for (int64_t row = 0; row < n * positions; row++) {
        double sum = 0;
        for (int64_t i = row * d; i < (row + 1) * d; i++) {
            double e = f64_data(&c->x[0])[i] - f64_data(&c->x[1])[i];
            sum += e * e / (double)d;
        }
        int64_t b = row / positions;
        f64_data(&c->y[0])[b] += position_weight(&c->x[2], b, row % positions, positions) * sum;
    }
    return NULL;
}

// dp = dl m_l / sum m * 2 (p - t)/d
const char *eval_masked_mse_dx(const EvalCall *c) {
    int64_t d = tensor_last(&c->x[1]), n = c->x[1].d[0], positions = tensor_rows(&c->x[1]) / n;
    for (int64_t row = 0; row < n * positions; row++) {
        int64_t b = row / positions;
        double weight = f64_data(&c->x[0])[b] * 2 / (double)d *
                        position_weight(&c->x[3], b, row % positions, positions);
        for (int64_t i = row * d; i < (row + 1) * d; i++)
            f64_data(&c->y[0])[i] = weight * (f64_data(&c->x[1])[i] - f64_data(&c->x[2])[i]);
    }
    return NULL;
}
