// Random numbers as a function of what they are for: a stream is named by (seed, purpose, epoch,
// sample) and has no other state, so that it does not matter which thread draws it, in which order,
// or whether the run was resumed. The generator is Philox4x32-10 (Salmon et al., SC 2011): the name
// is its key and most of its counter, so different names never share a block.
//
// Every value is the same on every machine: integers and IEEE operations only (+ - * / sqrt), with
// logarithm and exponential of our own, and none of them fused.
#ifndef RNG_H
#define RNG_H
#include <stdint.h>

// What a stream is for. Values are part of the format: a resumed run needs the same ones.
typedef enum {
    RNG_ORDER = 1,   // permutation of the samples of an epoch
    RNG_AUGMENT = 2, // crop, flip, colour of a sample
    RNG_ERASE = 3,   // random erasing of a sample
    RNG_MIX = 4,     // mixup and cutmix of a batch
    RNG_MASK = 5,    // masked patches of a sample
    RNG_DROP = 6,    // drop path of a sample
    RNG_INIT = 7,    // initial weights of a parameter
    RNG_SUBSET = 8,  // labelled subset of a class
    RNG_REPLACE = 9, // what stands in for a corrupt sample
} RngPurpose;

typedef struct {
    uint32_t key[2], counter[4]; // of the next block
    uint32_t block[4];
    int left; // words of the block not drawn yet
} Rng;

// epoch below 2^32, sample below 2^56; a stream holds 2^34 words.
Rng rng_stream(uint64_t seed, RngPurpose purpose, uint64_t epoch, uint64_t sample);

uint32_t rng_u32(Rng *r);
uint64_t rng_u64(Rng *r);
double rng_uniform(Rng *r);                         // [0, 1), 53 bits
double rng_range(Rng *r, double lo, double hi);     // lo + (hi - lo) * uniform
int64_t rng_below(Rng *r, int64_t n);               // 0 .. n-1 without bias; n >= 1
double rng_log_range(Rng *r, double lo, double hi); // uniform in the logarithm; lo > 0
double rng_normal(Rng *r);                          // mean 0, standard deviation 1; one u64 a value
// Normal, redrawn until it lies in [lo, hi] (absolute), which must hold a good part of it; after
// 1000 draws the last one is clamped.
double rng_trunc_normal(Rng *r, double mean, double std, double lo, double hi);
double rng_beta(Rng *r, double a); // Beta(a, a), a > 0
// A permutation of 0 .. n-1 (Fisher-Yates).
void rng_permutation(Rng *r, int64_t n, int64_t *dst);

// The functions behind the above, within 1e-15 relative: ln of x > 0, finite; e^x.
double rng_log(double x);
double rng_exp(double x);
// Quantile of the normal distribution, 0 < p < 1.
double rng_normal_quantile(double p);
// The block function itself.
void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
