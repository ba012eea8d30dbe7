// Inside the tensor file readers: what an open file is, element types, and the readers of formats.
// A reader appends tensors that point into the file's bytes (or into blocks it hands over), after
// checking that every element a view can reach lies inside them.
#ifndef CNXRT_WEIGHTS_FILE_H
#define CNXRT_WEIGHTS_FILE_H
#include "cnxrt_weights.h"
#include <stdbool.h>

typedef enum {
#define DTYPE(name, bytes) ST_##name,
#include "weights_dtypes.def"
    ST_COUNT,
} StDtype;

typedef struct {
    CnxrtTensorInfo info;
    char *official; // translated name, set once all tensors are known
    StDtype dtype;
    const unsigned char *data; // element [0, 0, ...]
    int64_t strides[8];        // in elements
} WeightTensor;

struct CnxrtWeights {
    const unsigned char *bytes;
    size_t size;
    bool mapped;
    char *path;  // for messages
    char *about; // format and, for PyTorch, the entry the tensors were taken from
    const char *scheme;
    WeightTensor *tensors;
    int count, capacity;
    char **metadata; // key, value, ...
    int nmetadata;   // strings, twice the pairs
    void **blocks;   // decompressed storages, freed with the file
    int nblocks;
};

const char *st_dtype_name(StDtype t);
int64_t st_dtype_bytes(StDtype t);
StDtype st_dtype_find(const char *name); // ST_COUNT: unknown
bool st_dtype_float(StDtype t);
// Element i of data as float (i may be anything the view allows).
float st_element(StDtype t, const unsigned char *data, int64_t i);
// The nearest half and bfloat16, ties to even; what is beyond the range becomes infinite.
uint16_t float_half(float v);
uint16_t float_bfloat(float v);

// The product of dims; false when it is negative or does not fit.
bool dims_count(int rank, const int64_t *dims, int64_t *count);
// "(3, 4)" into buf of 200 bytes; returns buf.
const char *dims_text(int rank, const int64_t *dims, char *buf);

// Adds a tensor; name is copied; strides NULL: row-major. NULL: out of memory.
WeightTensor *weights_add(CnxrtWeights *w, const char *name, StDtype dtype, int rank,
                          const int64_t *dims, const int64_t *strides, const unsigned char *data);
bool weights_add_metadata(CnxrtWeights *w, const char *key, const char *value);
void *weights_block(CnxrtWeights *w, size_t bytes); // NULL: out of memory
CnxrtStatus weights_no_memory(CnxrtError *err);
int weights_find(const CnxrtWeights *w, const char *name); // -1: none

CnxrtStatus safetensors_parse(CnxrtWeights *w, CnxrtError *err);
bool torch_zip_detect(const unsigned char *bytes, size_t size);
CnxrtStatus torch_zip_parse(CnxrtWeights *w, CnxrtError *err);
bool torch_legacy_detect(const unsigned char *bytes, size_t size);
CnxrtStatus torch_legacy_parse(CnxrtWeights *w, CnxrtError *err);
CnxrtStatus npy_parse(const unsigned char *bytes, size_t size, const char *path, CnxrtNpy *out,
                      CnxrtError *err);

// Maps a file for reading. An empty file gives *bytes = NULL, *size = 0.
CnxrtStatus file_map(const char *path, const unsigned char **bytes, size_t *size, CnxrtError *err);
void file_unmap(const unsigned char *bytes, size_t size);

// A file that appears under its name only when complete. What is there and is no regular file (a
// device, a pipe, a link) is written as it is: temporary is NULL.
typedef struct {
    int fd;
    char *temporary;
    const char *path;
    bool unsynced; // set after opening: not forced to the disk, for what is soon made again
} AtomicFile;
CnxrtStatus atomic_open(AtomicFile *f, const char *path, CnxrtError *err);
CnxrtStatus atomic_write(AtomicFile *f, const void *data, size_t size, CnxrtError *err);
// Publishes the file when status is CNXRT_OK, else removes it; returns the final status.
CnxrtStatus atomic_close(AtomicFile *f, CnxrtStatus status, CnxrtError *err);

// Writing tensors whose values are made when they are needed: fill is called once for each.
typedef CnxrtStatus (*TensorFill)(void *user, int i, float *dst, CnxrtError *err);
// dtype: F32, F16 or BF16, of every tensor.
CnxrtStatus safetensors_write_with(const char *path, const CnxrtTensor *tensors, int n,
                                   const char *dtype, const char *const *metadata, TensorFill fill,
                                   void *user, CnxrtError *err);

#endif
