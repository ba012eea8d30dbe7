// Seeded parameters: a counter-based hash (FNV-1a of the name, SplitMix64 of the index) that gives
// the same values in every implementation; scaled so that activations of a network stay near 1 and
// no parameter is trivial.
#include "cnxrt_weights.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define GOLDEN 0x9E3779B97F4A7C15u // 2^64 / golden ratio: SplitMix64's increment

static uint64_t fnv1a64(const char *s) {
    uint64_t h = 14695981039346656037u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

// In [-1, 1), a multiple of 2^-23.
static double unit_value(uint64_t state, uint64_t index) {
    uint64_t z = state + (index + 1) * GOLDEN;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) * 0x1p-23 - 1.0;
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

typedef struct {
    double mean, scale;
} Spread;

static Spread parameter_spread(const char *name, int rank, const int64_t *dims) {
    if (ends_with(name, "grn.gamma")) return (Spread){0, 0.5};
    if (ends_with(name, "grn.beta")) return (Spread){0, 0.1};
    if (ends_with(name, ".gamma")) return (Spread){0.5, 0.25};
    if (strcmp(name, "mask_token") == 0) return (Spread){0, 0.02};
    if (rank >= 2) {
        double fan_in = 1;
        for (int i = 1; i < rank; i++) fan_in *= (double)dims[i];
        return (Spread){0, sqrt(3.0 / fan_in)};
    }
    if (ends_with(name, ".weight")) return (Spread){1, 0.2};
    return (Spread){0, 0.1};
}

void cnxrt_seed_uniform(const char *name, uint64_t seed, int64_t n, float *dst) {
    uint64_t state = fnv1a64(name) ^ (seed * GOLDEN);
    for (int64_t i = 0; i < n; i++) dst[i] = (float)unit_value(state, (uint64_t)i);
}

void cnxrt_seed_weights(const char *name, int rank, const int64_t *dims, uint64_t seed,
                        float *dst) {
    uint64_t state = fnv1a64(name) ^ (seed * GOLDEN);
    Spread s = parameter_spread(name, rank, dims);
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    for (int64_t i = 0; i < n; i++)
        dst[i] = (float)(s.mean + s.scale * unit_value(state, (uint64_t)i));
}
