// Values for tests of whole programs.
#ifndef CNX_TESTS_NOISE_CASE_H
#define CNX_TESTS_NOISE_CASE_H
#include <stdint.h>

// In [-1,1), from a name and an index only.
static inline double noise(const char *name, int64_t i) {
    uint64_t z = 14695981039346656037u;
    for (; *name; name++) z = (z ^ (unsigned char)*name) * 1099511628211u;
    z += (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)(float)((double)(z >> 40) * 0x1p-23 - 1);
}

#endif
