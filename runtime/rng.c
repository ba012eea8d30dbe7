// Philox4x32-10 and distributions on top of it.
#include "rng.h"
#include <math.h>
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

enum { ROUNDS = 10 };

// Multipliers and Weyl increments of Random123.
void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

Rng rng_stream(uint64_t seed, RngPurpose purpose, uint64_t epoch, uint64_t sample) {
    return (Rng){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .counter = {0, (uint32_t)epoch, (uint32_t)sample,
                    (uint32_t)purpose << 24 | ((uint32_t)(sample >> 32) & 0xffffffu)},
    };
}

uint32_t rng_u32(Rng *r) {
    if (!r->left) {
        rng_philox(r->counter, r->key, r->block);
        r->counter[0]++;
        r->left = 4;
    }
    return r->block[4 - r->left--];
}

uint64_t rng_u64(Rng *r) {
    uint64_t low = rng_u32(r);
    return low | (uint64_t)rng_u32(r) << 32;
}

double rng_uniform(Rng *r) { return (double)(rng_u64(r) >> 11) * 0x1p-53; }

double rng_range(Rng *r, double lo, double hi) { return lo + (hi - lo) * rng_uniform(r); }

int64_t rng_below(Rng *r, int64_t n) {
    uint64_t m = (uint64_t)n, excess = (0 - m) % m; // 2^64 mod n: the draws that would be too many
    uint64_t v;
    do v = rng_u64(r);
    while (v < excess);
    return (int64_t)(v % m);
}

#define LN2_HI 6.93147180369123816490e-01 // the leading 32 bits of ln 2, so that k LN2_HI is exact
#define LN2_LO 1.90821492927058770002e-10

// x = 2^k m with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh((m - 1) / (m + 1)), as a series.
double rng_log(double x) {
    int k;
    double m = frexp(x, &k);
    if (m < 0.70710678118654752440) m *= 2, k--;
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int i = 23; i >= 3; i -= 2) sum = (sum + 1.0 / i) * z;
    double small = 2 * s * sum + k * LN2_LO;
    return k * LN2_HI + (2 * s + small);
}

// x = k ln 2 + t, |t| <= ln 2 / 2; e^t by its Taylor series.
double rng_exp(double x) {
    if (x < -745) return 0;
    if (x > 709.7) return INFINITY;
    double k = floor(x * 1.44269504088896340736 + 0.5);
    double t = (x - k * LN2_HI) - k * LN2_LO, sum = 1;
    for (int i = 17; i >= 1; i--) sum = 1 + sum * t / i;
    return ldexp(sum, (int)k);
}

double rng_log_range(Rng *r, double lo, double hi) {
    return rng_exp(rng_range(r, rng_log(lo), rng_log(hi)));
}

static double polynomial(const double c[8], double x) {
    double v = c[7];
    for (int i = 6; i >= 0; i--) v = v * x + c[i];
    return v;
}

// Wichura, algorithm AS 241 (PPND16), Applied Statistics 37 (1988); relative error about 1e-16.
double rng_normal_quantile(double p) {
    static const double a[8] = {3.3871328727963666080e0,  1.3314166789178437745e+2,
                                1.9715909503065514427e+3, 1.3731693765509461125e+4,
                                4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                3.3430575583588128105e+4, 2.5090809287301226727e+3};
    static const double b[8] = {1.0,
                                4.2313330701600911252e+1,
                                6.8718700749205790830e+2,
                                5.3941960214247511077e+3,
                                2.1213794301586595867e+4,
                                3.9307895800092710610e+4,
                                2.8729085735721942674e+4,
                                5.2264952788528545610e+3};
    static const double c[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                5.76949722146069140550e0,  3.64784832476320460504e0,
                                1.27045825245236838258e0,  2.41780725177450611770e-1,
                                2.27238449892691845833e-2, 7.74545014278341407640e-4};
    static const double d[8] = {1.0,
                                2.05319162663775882187e0,
                                1.67638483018380384940e0,
                                6.89767334985100004550e-1,
                                1.48103976427480074590e-1,
                                1.51986665636164571966e-2,
                                5.47593808499534494600e-4,
                                1.05075007164441684324e-9};
    static const double e[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                                1.78482653991729133580e0,  2.96560571828504891230e-1,
                                2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static const double f[8] = {1.0,
                                5.99832206555887937690e-1,
                                1.36929880922735805310e-1,
                                1.48753612908506148525e-2,
                                7.86869131145613259100e-4,
                                1.84631831751005468180e-5,
                                1.42151175831644588870e-7,
                                2.04426310338993978564e-15};
    double q = p - 0.5;
    if (fabs(q) <= 0.425) {
        double r = 0.180625 - q * q;
        return q * polynomial(a, r) / polynomial(b, r);
    }
    double r = sqrt(-rng_log(q < 0 ? p : 1 - p)), x;
    if (r <= 5)
        x = polynomial(c, r - 1.6) / polynomial(d, r - 1.6);
    else
        x = polynomial(e, r - 5) / polynomial(f, r - 5);
    return q < 0 ? -x : x;
}

// Uniform in (0, 1): the middle of one of 2^52 equal parts, so that both ends stay representable.
static double open_uniform(Rng *r) { return ((double)(rng_u64(r) >> 12) + 0.5) * 0x1p-52; }

double rng_normal(Rng *r) { return rng_normal_quantile(open_uniform(r)); }

double rng_trunc_normal(Rng *r, double mean, double std, double lo, double hi) {
    double v = mean;
    for (int i = 0; i < 1000; i++) {
        v = mean + std * rng_normal(r);
        if (v >= lo && v <= hi) return v;
    }
    return v < lo ? lo : hi;
}

// Johnk: X = U^(1/a), Y = V^(1/a); given X + Y <= 1, X / (X + Y) is Beta(a, a). In logarithms,
// since both underflow for small a.
static double beta_small(Rng *r, double a) {
    for (;;) {
        double x = rng_log(open_uniform(r)) / a, y = rng_log(open_uniform(r)) / a;
        double top = x > y ? x : y, sum = rng_exp(x - top) + rng_exp(y - top);
        if (top + rng_log(sum) <= 0) return rng_exp(x - top) / sum;
    }
}

// Ulrich's polar method (Devroye, Non-Uniform Random Variate Generation, IX.4): with (U, V) uniform
// in the half disc and S = U^2 + V^2, 1/2 + (U V / S) sqrt(1 - S^(2 / (2a - 1))) is Beta(a, a).
static double beta_large(Rng *r, double a) {
    for (;;) {
        double u = rng_uniform(r), v = 2 * open_uniform(r) - 1, s = u * u + v * v;
        if (s > 1 || s == 0) continue;
        double power = rng_exp(rng_log(s) * (2 / (2 * a - 1)));
        return 0.5 + u * v / s * sqrt(1 - power);
    }
}

double rng_beta(Rng *r, double a) { return a > 0.5 ? beta_large(r, a) : beta_small(r, a); }

void rng_permutation(Rng *r, int64_t n, int64_t *dst) {
    for (int64_t i = 0; i < n; i++) {
        int64_t j = rng_below(r, i + 1);
        dst[i] = dst[j];
        dst[j] = i;
    }
}
