// Open tensor files: memory map, format by content, element types, reading a view as f32.
#include "weights_file.h"
#include "names.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int64_t bytes;
} dtypes[] = {
#define DTYPE(name, bytes) {#name, bytes},
#include "weights_dtypes.def"
};

const char *st_dtype_name(StDtype t) { return dtypes[t].name; }
int64_t st_dtype_bytes(StDtype t) { return dtypes[t].bytes; }
bool st_dtype_float(StDtype t) { return t == ST_F16 || t == ST_BF16 || t == ST_F32 || t == ST_F64; }

StDtype st_dtype_find(const char *name) {
    int t = 0;
    while (t < ST_COUNT && strcmp(name, dtypes[t].name) != 0) t++;
    return (StDtype)t;
}

static float bits_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float half_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = (h >> 10) & 31, fraction = h & 1023;
    if (exponent == 31) return bits_float(sign | 0x7F800000u | fraction << 13);
    if (exponent == 0) {
        float v = (float)fraction * 0x1p-24f; // subnormal
        return sign ? -v : v;
    }
    return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

static uint32_t float_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

uint16_t float_half(float v) {
    uint32_t bits = float_bits(v), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
    if (size > 0x7F800000) return (uint16_t)(sign | 0x7E00);
    if (size >= 0x47800000) return (uint16_t)(sign | 0x7C00);
    if (size < 0x38800000) // subnormal: 2^23 + n has n in its low bits, rounded
        return (uint16_t)(sign | (float_bits(bits_float(size) * 0x1p24f + 0x1p23f) & 0x7FF));
    size += 0xFFF + (size >> 13 & 1);
    return (uint16_t)(sign | (size - 0x38000000) >> 13);
}

uint16_t float_bfloat(float v) {
    uint32_t bits = float_bits(v);
    if (v != v) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

#define LOAD(type)                                                                                 \
    type v;                                                                                        \
    memcpy(&v, data + i * (int64_t)sizeof v, sizeof v)

float st_element(StDtype t, const unsigned char *data, int64_t i) {
    switch (t) {
    case ST_BOOL: return data[i] != 0;
    case ST_U8: return data[i];
    case ST_I8: return (int8_t)data[i];
    case ST_I16: {
        LOAD(int16_t);
        return v;
    }
    case ST_U16: {
        LOAD(uint16_t);
        return v;
    }
    case ST_I32: {
        LOAD(int32_t);
        return (float)v;
    }
    case ST_U32: {
        LOAD(uint32_t);
        return (float)v;
    }
    case ST_I64: {
        LOAD(int64_t);
        return (float)v;
    }
    case ST_U64: {
        LOAD(uint64_t);
        return (float)v;
    }
    case ST_F16: {
        LOAD(uint16_t);
        return half_float(v);
    }
    case ST_BF16: {
        LOAD(uint16_t);
        return bits_float((uint32_t)v << 16);
    }
    case ST_F32: {
        LOAD(float);
        return v;
    }
    case ST_F64: {
        LOAD(double);
        return (float)v;
    }
    case ST_COUNT: break;
    }
    return NAN;
}

CnxrtStatus cnxrt_weights_narrow(const char *path, const char *tensor, const char *dtype,
                                 const float *values, int64_t n, void *out, CnxrtError *err) {
    bool half = strcmp(dtype, "F16") == 0;
    for (int64_t i = 0; i < n; i++) {
        float v = values[i];
        uint16_t h = half ? float_half(v) : float_bfloat(v);
        if ((h & 0x7FFF) == (half ? 0x7C00 : 0x7F80) && v - v == 0) {
            cnxrt_error_set(err, "%s: tensor %s: %g is beyond the range of %s%s", path, tensor,
                            (double)v, dtype, half ? "; BF16 has nearly that of F32" : "");
            return CNXRT_ERROR_FORMAT;
        }
        memcpy((char *)out + i * 2, &h, 2);
    }
    return CNXRT_OK;
}

void cnxrt_weights_widen(const char *dtype, const void *elements, int64_t n, float *out) {
    StDtype t = st_dtype_find(dtype);
    for (int64_t i = 0; i < n; i++) out[i] = st_element(t, elements, i);
}

bool dims_count(int rank, const int64_t *dims, int64_t *count) {
    // A zero makes the tensor empty, but the other dims must still be sane.
    int64_t n = 1;
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0) return false;
        if (dims[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(n, dims[i], &n))
            return false;
    }
    *count = empty ? 0 : n;
    return true;
}

const char *dims_text(int rank, const int64_t *dims, char *buf) {
    int n = snprintf(buf, 200, "(");
    for (int i = 0; i < rank && i < 8; i++)
        n += snprintf(buf + n, 200 - (size_t)n, "%s%" PRId64, i ? ", " : "", dims[i]);
    snprintf(buf + n, 200 - (size_t)n, ")");
    return buf;
}

CnxrtStatus weights_no_memory(CnxrtError *err) {
    cnxrt_error_set(err, "out of memory");
    return CNXRT_ERROR_MEMORY;
}

WeightTensor *weights_add(CnxrtWeights *w, const char *name, StDtype dtype, int rank,
                          const int64_t *dims, const int64_t *strides, const unsigned char *data) {
    if (w->count == w->capacity) {
        int capacity = w->capacity ? 2 * w->capacity : 64;
        WeightTensor *p = realloc(w->tensors, (size_t)capacity * sizeof *p);
        if (!p) return NULL;
        w->tensors = p;
        w->capacity = capacity;
    }
    WeightTensor *t = &w->tensors[w->count];
    *t = (WeightTensor){.dtype = dtype, .data = data};
    t->info = (CnxrtTensorInfo){strdup(name), st_dtype_name(dtype), rank, {0}};
    if (!t->info.name) return NULL;
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t->info.dims[i] = dims[i];
        t->strides[i] = strides ? strides[i] : step;
        if (!strides && dims[i] > 0) step *= dims[i];
    }
    w->count++;
    return t;
}

bool weights_add_metadata(CnxrtWeights *w, const char *key, const char *value) {
    char **p = realloc(w->metadata, (size_t)(w->nmetadata + 2) * sizeof *p);
    if (!p) return false;
    w->metadata = p;
    char *k = strdup(key), *v = strdup(value);
    if (!k || !v) {
        free(k);
        free(v);
        return false;
    }
    p[w->nmetadata++] = k;
    p[w->nmetadata++] = v;
    return true;
}

void *weights_block(CnxrtWeights *w, size_t bytes) {
    void **p = realloc(w->blocks, (size_t)(w->nblocks + 1) * sizeof *p);
    if (!p) return NULL;
    w->blocks = p;
    void *block = malloc(bytes ? bytes : 1);
    if (block) p[w->nblocks++] = block;
    return block;
}

static int tensor_compare(const void *a, const void *b) {
    return strcmp(((const WeightTensor *)a)->info.name, ((const WeightTensor *)b)->info.name);
}

int weights_find(const CnxrtWeights *w, const char *name) {
    WeightTensor key = {.info.name = name};
    const WeightTensor *t =
        w->count ? bsearch(&key, w->tensors, (size_t)w->count, sizeof key, tensor_compare) : NULL;
    return t ? (int)(t - w->tensors) : -1;
}

// Order by name, no name twice, and the scheme with every official name.
static CnxrtStatus weights_index(CnxrtWeights *w, CnxrtError *err) {
    if (w->count) qsort(w->tensors, (size_t)w->count, sizeof *w->tensors, tensor_compare);
    for (int i = 1; i < w->count; i++) {
        if (tensor_compare(&w->tensors[i - 1], &w->tensors[i]) != 0) continue;
        cnxrt_error_set(err, "%s: tensor %s is there twice", w->path, w->tensors[i].info.name);
        return CNXRT_ERROR_FORMAT;
    }
    return names_translate(w) ? CNXRT_OK : weights_no_memory(err);
}

static CnxrtStatus weights_parse(CnxrtWeights *w, CnxrtError *err) {
    if (w->size == 0) {
        cnxrt_error_set(err, "%s: the file is empty", w->path);
        return CNXRT_ERROR_FORMAT;
    }
    if (torch_zip_detect(w->bytes, w->size)) return torch_zip_parse(w, err);
    if (torch_legacy_detect(w->bytes, w->size)) return torch_legacy_parse(w, err);
    return safetensors_parse(w, err);
}

// Takes the bytes over when they are mapped, whatever the result.
static CnxrtStatus weights_begin(const unsigned char *bytes, size_t size, bool mapped,
                                 const char *path, CnxrtWeights **out, CnxrtError *err) {
    *out = NULL;
    CnxrtWeights *w = calloc(1, sizeof *w);
    if (!w) {
        if (mapped) file_unmap(bytes, size);
        return weights_no_memory(err);
    }
    w->bytes = bytes;
    w->size = size;
    w->mapped = mapped;
    w->path = strdup(path);
    CnxrtStatus status = w->path ? weights_parse(w, err) : weights_no_memory(err);
    if (status == CNXRT_OK) status = weights_index(w, err);
    if (status == CNXRT_OK)
        *out = w;
    else
        cnxrt_weights_close(w);
    return status;
}

CnxrtStatus cnxrt_weights_open(const char *path, CnxrtWeights **out, CnxrtError *err) {
    *out = NULL;
    const unsigned char *bytes;
    size_t size;
    CnxrtStatus status = file_map(path, &bytes, &size, err);
    return status == CNXRT_OK ? weights_begin(bytes, size, true, path, out, err) : status;
}

CnxrtStatus cnxrt_weights_open_memory(const void *data, size_t size, CnxrtWeights **out,
                                      CnxrtError *err) {
    return weights_begin(data, size, false, "weights", out, err);
}

void cnxrt_weights_close(CnxrtWeights *w) {
    if (!w) return;
    for (int i = 0; i < w->count; i++) {
        free((char *)(uintptr_t)w->tensors[i].info.name);
        free(w->tensors[i].official);
    }
    for (int i = 0; i < w->nmetadata; i++) free(w->metadata[i]);
    for (int i = 0; i < w->nblocks; i++) free(w->blocks[i]);
    free(w->tensors);
    free(w->metadata);
    free(w->blocks);
    free(w->path);
    free(w->about);
    if (w->mapped) file_unmap(w->bytes, w->size);
    free(w);
}

int cnxrt_weights_count(const CnxrtWeights *w) { return w->count; }
const CnxrtTensorInfo *cnxrt_weights_info(const CnxrtWeights *w, int i) {
    return &w->tensors[i].info;
}
const char *cnxrt_weights_scheme(const CnxrtWeights *w) { return w->scheme; }
const char *cnxrt_weights_about(const CnxrtWeights *w) { return w->about; }
const char *cnxrt_weights_official_name(const CnxrtWeights *w, int i) {
    return w->tensors[i].official;
}

const char *cnxrt_weights_metadata(const CnxrtWeights *w, const char *key) {
    for (int i = 0; i < w->nmetadata; i += 2)
        if (strcmp(w->metadata[i], key) == 0) return w->metadata[i + 1];
    return NULL;
}

static bool view_is_dense(const WeightTensor *t) {
    int64_t step = 1;
    for (int i = t->info.rank - 1; i >= 0; i--) {
        if (t->info.dims[i] != 1 && t->strides[i] != step) return false;
        step *= t->info.dims[i];
    }
    return true;
}

CnxrtStatus cnxrt_weights_read(const CnxrtWeights *w, int i, float *dst, CnxrtError *err) {
    if (i < 0 || i >= w->count) {
        cnxrt_error_set(err, "%s: no tensor %d", w->path, i);
        return CNXRT_ERROR_ARGUMENT;
    }
    const WeightTensor *t = &w->tensors[i];
    int64_t count, index[8] = {0}, at = 0;
    if (!dims_count(t->info.rank, t->info.dims, &count) || count == 0) return CNXRT_OK;
    bool dense = view_is_dense(t);
    if (dense && t->dtype == ST_F32) {
        memcpy(dst, t->data, (size_t)count * sizeof *dst);
        return CNXRT_OK;
    }
    for (int64_t k = 0; k < count; k++) {
        dst[k] = st_element(t->dtype, t->data, dense ? k : at);
        for (int d = t->info.rank - 1; d >= 0 && !dense; d--) { // the next index of the view
            at += t->strides[d];
            if (++index[d] < t->info.dims[d]) break;
            at -= index[d] * t->strides[d];
            index[d] = 0;
        }
    }
    return CNXRT_OK;
}
