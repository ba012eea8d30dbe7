// Classifiers on frozen features: logistic regression, multinomial or, where samples have sets of
// classes, of each class by itself; and nearest neighbours. Results are the same for any number of
// threads.
#ifndef CLI_LINEAR_H
#define CLI_LINEAR_H
#include <stdbool.h>
#include <stdint.h>

// n vectors of `width` values with their classes 0 .. classes-1.
typedef struct {
    float *values;
    int32_t *labels;      // [n]
    unsigned char *truth; // [n][classes], 1 for classes of the sample; NULL: labels count
    int64_t n, width;
    int classes;
} Features;

// Scale and shift of every dimension such that those of f have mean 0 and deviation 1 (constant
// ones become 0), applied to values in place. scale and shift hold width doubles.
void features_statistics(const Features *f, double *scale, double *shift);
void features_standardise(Features *f, const double *scale, const double *shift);
// Every vector to length 1 (zero vectors stay).
void features_normalise(Features *f);

typedef struct {
    double *weights; // [width + 1][classes]; the last row is the bias
    double
        loss; // mean of cross-entropy, or of the classes' binary ones, + penalty/2 |W|^2 (no bias)
    double gradient; // norm of the gradient
    int iterations;
} LinearFit;

// Minimises the loss by L-BFGS from 0: until the gradient's norm is below 1e-5, or no step helps.
// False: no memory. Free fit->weights.
bool linear_fit(const Features *f, double penalty, int iterations, int threads, LinearFit *fit);
// scores[classes] of one vector.
void linear_scores(const LinearFit *fit, const float *values, int64_t width, int classes,
                   float *scores);

// scores[q->n][classes]: of the k vectors of f with the largest inner product (of equal ones the
// first), each adds exp((product - the largest) / temperature) to its class. Vectors are
// normalised. False: no memory.
bool knn_scores(const Features *f, const Features *q, int k, double temperature, int threads,
                float *scores);

#endif
