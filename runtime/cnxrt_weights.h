// Tensor files (safetensors, PyTorch zip) and the naming schemes of ConvNeXt checkpoints. Used by
// the runtime to load parameters and by the compiler's `weights` command. All functions return
// CNXRT_OK or an error status with a message in err; nothing is printed.
#ifndef CNXRT_WEIGHTS_H
#define CNXRT_WEIGHTS_H
#include "cnxrt_model.h"
#include <stddef.h>

typedef enum {
    CNXRT_OK = 0,
    CNXRT_ERROR_IO,       // cannot open, read or write
    CNXRT_ERROR_FORMAT,   // the file is not what it claims
    CNXRT_ERROR_MISMATCH, // parameters missing, extra or mis-shaped
    CNXRT_ERROR_MEMORY,
    CNXRT_ERROR_ARGUMENT,
    CNXRT_ERROR_CPU, // the CPU lacks what the artifact was compiled for
} CnxrtStatus;

// A message; long lists (every missing tensor) grow it. Zero-initialise, free with
// cnxrt_error_free.
typedef struct {
    char *text; // NULL: none
} CnxrtError;
void cnxrt_error_set(CnxrtError *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cnxrt_error_add(CnxrtError *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cnxrt_error_free(CnxrtError *e);

typedef struct {
    const char *name;  // as in the file
    const char *dtype; // "F32", "F16", "BF16", "I64", ...
    int rank;
    int64_t dims[8];
} CnxrtTensorInfo;

typedef struct CnxrtWeights CnxrtWeights; // an open tensor file (memory-mapped where possible)

CnxrtStatus cnxrt_weights_open(const char *path, CnxrtWeights **out, CnxrtError *err);
// The same from memory that outlives the result.
CnxrtStatus cnxrt_weights_open_memory(const void *data, size_t size, CnxrtWeights **out,
                                      CnxrtError *err);
void cnxrt_weights_close(CnxrtWeights *w);
int cnxrt_weights_count(const CnxrtWeights *w);
const CnxrtTensorInfo *cnxrt_weights_info(const CnxrtWeights *w, int i);
// Metadata value of a safetensors file ("classes": newline-separated class names), or NULL.
const char *cnxrt_weights_metadata(const CnxrtWeights *w, const char *key);
// Tensor i as row-major f32 (dst holds the product of its dims); strides and dtype resolved.
CnxrtStatus cnxrt_weights_read(const CnxrtWeights *w, int i, float *dst, CnxrtError *err);
// "official", "timm", "hf", "mmpretrain", "fcmae" (dense, official names with decoder parts),
// "fcmae-sparse" (Minkowski), "unknown"; by the names found.
const char *cnxrt_weights_scheme(const CnxrtWeights *w);
// The file's format and, for PyTorch, which entry was taken and which were not: for people.
const char *cnxrt_weights_about(const CnxrtWeights *w);
// The official name that tensor i is taken for; its own name when no pattern knows it.
const char *cnxrt_weights_official_name(const CnxrtWeights *w, int i);

// Fills the raw parameter blob (model->params, f32, official layout) from the file: names are
// translated, GRN ranks flattened, (o,i,1,1) linears squeezed, Minkowski kernels permuted, fp16 and
// bf16 widened. Every missing, extra or mis-shaped tensor is listed in err
// (CNXRT_ERROR_MISMATCH). Optimiser state, EMA copies, FCMAE decoder parts and integers are not
// "extra", nor is a head or final norm that the model lacks. With CNXRT_OK err may hold a note: an
// encoder without final norm in a model without a head takes weight 1 and bias 0 for it.
CnxrtStatus cnxrt_weights_load(const CnxrtWeights *w, const CnxrtParam *params, int nparams,
                               void *blob, CnxrtError *err);

// The same for programs that give features alone: a head that the file lacks becomes zeros, a final
// norm the identity (noted in err), as encoders from pre-training need it.
CnxrtStatus cnxrt_weights_load_encoder(const CnxrtWeights *w, const CnxrtParam *params, int nparams,
                                       void *blob, CnxrtError *err);

// Writing: a safetensors file, atomically (temporary file, fsync, rename).
typedef struct {
    const char *name;
    int rank;
    int64_t dims[8];
    const float *data;
} CnxrtTensor;
CnxrtStatus cnxrt_safetensors_write(const char *path, const CnxrtTensor *tensors, int n,
                                    const char *const *metadata, // key, value, ..., NULL
                                    CnxrtError *err);
// Rewrites a checkpoint under another scheme's names and shapes: "official", "timm", "hf"; as dtype
// "F32", "F16" or "BF16", rounded to nearest. A value beyond the range of F16 is an error.
CnxrtStatus cnxrt_weights_convert(const char *in, const char *out, const char *scheme,
                                  const char *dtype, CnxrtError *err);
// n values rounded to elements of 2 bytes, dtype "F16" or "BF16", to the nearest; out may be
// values. An error names the first one beyond the range, as of this tensor of the file `path`.
CnxrtStatus cnxrt_weights_narrow(const char *path, const char *tensor, const char *dtype,
                                 const float *values, int64_t n, void *out, CnxrtError *err);
// The way back, of "F32", too.
void cnxrt_weights_widen(const char *dtype, const void *elements, int64_t n, float *out);
// An error names the first parameter in a blob, of the file `path`, that is not finite: in int8
// nothing would show it.
CnxrtStatus cnxrt_weights_finite(const char *path, const CnxrtParam *params, int nparams,
                                 const void *blob, CnxrtError *err);
// The seeded value of parameters (see docs/weights.md): deterministic, the same everywhere.
void cnxrt_seed_weights(const char *name, int rank, const int64_t *dims, uint64_t seed, float *dst);
// The n uniform values in [-1, 1) (exact in f32) that the stream `name` of a seed consists of.
void cnxrt_seed_uniform(const char *name, uint64_t seed, int64_t n, float *dst);

// .npy files (little-endian, C order; floats, integers and booleans are read, f4 and i8 written).
typedef struct {
    int rank;
    int64_t dims[8];
    char dtype[4]; // "f4", "i8", ...
    void *data;    // malloc'ed; cnxrt_npy_free
} CnxrtNpy;
CnxrtStatus cnxrt_npy_read(const char *path, CnxrtNpy *out, CnxrtError *err);
CnxrtStatus cnxrt_npy_read_f32(const char *path, CnxrtNpy *out, CnxrtError *err); // converted
CnxrtStatus cnxrt_npy_write_f32(const char *path, int rank, const int64_t *dims, const float *data,
                                CnxrtError *err);
CnxrtStatus cnxrt_npy_write_i64(const char *path, int rank, const int64_t *dims,
                                const int64_t *data, CnxrtError *err);
void cnxrt_npy_free(CnxrtNpy *t);

#endif
