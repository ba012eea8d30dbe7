// Shapes of one parameter in different files; shared by loading and converting.
#ifndef CNXRT_WEIGHTS_LOAD_H
#define CNXRT_WEIGHTS_LOAD_H
#include "weights_file.h"

// Do both shapes hold the same numbers in the same order, up to ones in them?
bool shapes_agree(int rank, const int64_t *dims, int rank2, const int64_t *dims2);
// A Minkowski kernel, (k*k, in, out) or (k*k, C).
bool tensor_is_kernel(const WeightTensor *t);
// Reads a Minkowski kernel as a dense weight of shape dims = (out, in, kh, kw).
CnxrtStatus kernel_read(const CnxrtWeights *w, int tensor, const int64_t *dims, float *dst,
                        CnxrtError *err);

#endif
