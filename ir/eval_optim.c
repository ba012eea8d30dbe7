// Definitions of the optimiser's step. f64 throughout.
#include "eval_op.h"
#include <math.h>

// Elements of the hyper-parameters.
enum {
    LR,
    BETA1,
    BETA2,
    EPS,
    DECAY,
    CORRECTION1,
    CORRECTION2,
    GRAD_SCALE,
    EMA,
    ONE_MINUS_BETA1,
    ONE_MINUS_BETA2,
    ONE_MINUS_EMA,
};

// g = grad_scale g; p = p (1 - lr s decay d); m = beta1 m + (1-beta1) g;
// v = beta2 v + (1-beta2) g^2; p = p - lr s m corr1/(sqrt(v) corr2 + eps)
const char *eval_adamw(const EvalCall *c) {
    const double *p = f64_data(&c->x[0]), *g = f64_data(&c->x[1]), *m = f64_data(&c->x[2]);
    const double *v = f64_data(&c->x[3]), *hyper = f64_data(&c->x[4]);
    const double *group = f64_data(&c->x[5]) + 2 * node_int(c->n, A_index);
    double lr = hyper[LR] * group[0], keep = 1 - lr * hyper[DECAY] * group[1];
    int64_t n = tensor_elems(&c->x[0]);
    for (int64_t i = 0; i < n; i++) {
        double gi = g[i] * hyper[GRAD_SCALE];
        double mi = hyper[BETA1] * m[i] + hyper[ONE_MINUS_BETA1] * gi;
        double vi = hyper[BETA2] * v[i] + hyper[ONE_MINUS_BETA2] * gi * gi;
        f64_data(&c->y[0])[i] = p[i] * keep - lr * mi * hyper[CORRECTION1] /
                                                  (sqrt(vi) * hyper[CORRECTION2] + hyper[EPS]);
        f64_data(&c->y[1])[i] = mi;
        f64_data(&c->y[2])[i] = vi;
    }
    return NULL;
}

// y = ema e + (1-ema) p
const char *eval_ema(const EvalCall *c) {
    const double *hyper = f64_data(&c->x[2]);
    int64_t n = tensor_elems(&c->x[0]);
    for (int64_t i = 0; i < n; i++)
        f64_data(&c->y[0])[i] =
            hyper[EMA] * f64_data(&c->x[0])[i] + hyper[ONE_MINUS_EMA] * f64_data(&c->x[1])[i];
    return NULL;
}
