// safetensors: u64 little-endian header length, a JSON object {name: {dtype, shape, data_offsets}},
// then the tensors' bytes, little-endian and row-major, without gaps or overlaps.
#include "json.h"
#include "weights_file.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_LIMIT (100u << 20) // as in the reference implementation

static CnxrtStatus bad_tensor(const CnxrtWeights *w, const char *name, const char *what,
                              CnxrtError *err) {
    cnxrt_error_set(err, "%s: tensor %s: %s", w->path, name, what);
    return CNXRT_ERROR_FORMAT;
}

static CnxrtStatus read_shape(const CnxrtWeights *w, const char *name, const json_t *shape,
                              int *rank, int64_t *dims, CnxrtError *err) {
    if (!json_is_array(shape)) return bad_tensor(w, name, "no shape", err);
    if (json_array_size(shape) > 8) return bad_tensor(w, name, "more than 8 dimensions", err);
    *rank = (int)json_array_size(shape);
    for (int i = 0; i < *rank; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return bad_tensor(w, name, "a dimension is not a non-negative integer", err);
        dims[i] = json_integer_value(d);
    }
    return CNXRT_OK;
}

static CnxrtStatus read_range(const CnxrtWeights *w, const char *name, const json_t *offsets,
                              size_t data, int64_t *begin, int64_t *end, CnxrtError *err) {
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
        json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
        return bad_tensor(w, name, "data_offsets is not [begin, end]", err);
    *begin = json_integer_value(b);
    *end = json_integer_value(e);
    if ((uint64_t)*end <= w->size - data) return CNXRT_OK;
    cnxrt_error_set(err,
                    "%s: truncated: tensor %s ends at byte %" PRIu64
                    ", the file has %zu (the download or copy was cut short)",
                    w->path, name, (uint64_t)*end + data, w->size);
    return CNXRT_ERROR_FORMAT;
}

static CnxrtStatus read_entry(CnxrtWeights *w, const char *name, const json_t *entry, size_t data,
                              CnxrtError *err) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype) return bad_tensor(w, name, "no dtype", err);
    StDtype t = st_dtype_find(dtype);
    if (t == ST_COUNT) {
        cnxrt_error_set(err, "%s: tensor %s: element type %s is not known", w->path, name, dtype);
        return CNXRT_ERROR_FORMAT;
    }
    int rank = 0;
    int64_t dims[8], begin = 0, end = 0, count, bytes;
    CnxrtStatus status = read_shape(w, name, json_object_get(entry, "shape"), &rank, dims, err);
    if (status == CNXRT_OK)
        status =
            read_range(w, name, json_object_get(entry, "data_offsets"), data, &begin, &end, err);
    if (status != CNXRT_OK) return status;
    if (!dims_count(rank, dims, &count) ||
        __builtin_mul_overflow(count, st_dtype_bytes(t), &bytes) || bytes != end - begin) {
        char text[200];
        cnxrt_error_set(err, "%s: tensor %s: shape %s of %s does not take its %" PRId64 " bytes",
                        w->path, name, dims_text(rank, dims, text), dtype, end - begin);
        return CNXRT_ERROR_FORMAT;
    }
    if (!weights_add(w, name, t, rank, dims, NULL, w->bytes + data + begin))
        return weights_no_memory(err);
    return CNXRT_OK;
}

typedef struct {
    const unsigned char *begin, *end;
    int tensor;
} Extent;

static int extent_compare(const void *a, const void *b) {
    const Extent *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

// No gap, no overlap, nothing after the last tensor.
static CnxrtStatus check_layout(const CnxrtWeights *w, size_t data, CnxrtError *err) {
    Extent *x = malloc((size_t)(w->count ? w->count : 1) * sizeof *x);
    if (!x) return weights_no_memory(err);
    for (int i = 0; i < w->count; i++) {
        int64_t n = 0;
        const WeightTensor *t = &w->tensors[i];
        dims_count(t->info.rank, t->info.dims, &n);
        x[i] = (Extent){t->data, t->data + n * st_dtype_bytes(t->dtype), i};
    }
    qsort(x, (size_t)w->count, sizeof *x, extent_compare);
    const unsigned char *at = w->bytes + data;
    CnxrtStatus status = CNXRT_OK;
    for (int i = 0; i < w->count && status == CNXRT_OK; at = x[i++].end)
        if (x[i].begin != at)
            status = bad_tensor(w, w->tensors[x[i].tensor].info.name,
                                x[i].begin < at ? "overlaps the tensor before it"
                                                : "unused bytes lie before it",
                                err);
    if (status == CNXRT_OK && at != w->bytes + w->size) {
        cnxrt_error_set(err, "%s: %zu bytes follow the last tensor", w->path,
                        (size_t)(w->bytes + w->size - at));
        status = CNXRT_ERROR_FORMAT;
    }
    free(x);
    return status;
}

static CnxrtStatus read_metadata(CnxrtWeights *w, json_t *meta, CnxrtError *err) {
    if (!json_is_object(meta)) return bad_tensor(w, "__metadata__", "not an object", err);
    const char *key;
    json_t *value;
    json_object_foreach(meta, key, value) {
        if (!json_is_string(value)) return bad_tensor(w, key, "metadata is not a string", err);
        if (!weights_add_metadata(w, key, json_string_value(value))) return weights_no_memory(err);
    }
    return CNXRT_OK;
}

static CnxrtStatus read_header(CnxrtWeights *w, json_t *root, size_t data, CnxrtError *err) {
    const char *name;
    json_t *entry;
    CnxrtStatus status = CNXRT_OK;
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            status = read_metadata(w, entry, err);
        else
            status = read_entry(w, name, entry, data, err);
        if (status != CNXRT_OK) return status;
    }
    return check_layout(w, data, err);
}

CnxrtStatus safetensors_parse(CnxrtWeights *w, CnxrtError *err) {
    uint64_t length = 0;
    for (int i = 0; i < 8 && w->size >= 8; i++) length |= (uint64_t)w->bytes[i] << (8 * i);
    if (w->size < 10 || length > HEADER_LIMIT || w->bytes[8] != '{') {
        cnxrt_error_set(err, "%s: neither a safetensors file nor a PyTorch checkpoint (%zu bytes)",
                        w->path, w->size);
        return CNXRT_ERROR_FORMAT;
    }
    if (length > w->size - 8) {
        cnxrt_error_set(err, "%s: truncated: a header of %" PRIu64 " bytes in a file of %zu",
                        w->path, length, w->size);
        return CNXRT_ERROR_FORMAT;
    }
    json_error_t e;
    json_t *root =
        json_loadb((const char *)w->bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &e);
    if (!root) {
        cnxrt_error_set(err, "%s: safetensors header: %s at byte %d", w->path, e.text,
                        e.position + 8);
        return CNXRT_ERROR_FORMAT;
    }
    w->about = strdup("safetensors");
    CnxrtStatus status =
        w->about ? read_header(w, root, 8 + (size_t)length, err) : weights_no_memory(err);
    json_decref(root);
    return status;
}

// ---- writing ------------------------------------------------------------------------------------

static int pointer_compare(const void *a, const void *b) {
    return strcmp((*(const CnxrtTensor *const *)a)->name, (*(const CnxrtTensor *const *)b)->name);
}

static bool is_narrow(const char *dtype) { return strcmp(dtype, "F32") != 0; }

static json_t *make_entry(const CnxrtTensor *t, const char *dtype, int64_t begin, int64_t end) {
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->dims[i]));
    json_t *offsets = json_array(), *entry = json_object();
    json_array_append_new(offsets, json_integer(begin));
    json_array_append_new(offsets, json_integer(end));
    json_object_set_new(entry, "dtype", json_string(dtype));
    json_object_set_new(entry, "shape", shape);
    if (json_object_set_new(entry, "data_offsets", offsets) == 0) return entry;
    json_decref(entry);
    return NULL;
}

static bool add_metadata(json_t *root, const char *const *metadata) {
    if (!metadata || !metadata[0]) return true;
    json_t *meta = json_object();
    bool ok = json_object_set_new(root, "__metadata__", meta) == 0;
    for (; ok && *metadata; metadata += 2)
        ok = json_object_set_new(meta, metadata[0], json_string(metadata[1])) == 0;
    return ok;
}

// The header's text, padded so that data begins at a multiple of 8; NULL with a message.
static char *make_header(const char *path, const CnxrtTensor *const *sorted, int n,
                         const char *dtype, const char *const *metadata, size_t *length,
                         CnxrtError *err) {
    json_t *root = json_object();
    bool ok = root && add_metadata(root, metadata);
    int64_t at = 0;
    for (int i = 0; i < n && ok; i++) {
        int64_t count, end;
        if (sorted[i]->rank > 8 || !dims_count(sorted[i]->rank, sorted[i]->dims, &count) ||
            count > INT64_MAX / 8 ||
            __builtin_add_overflow(at, (is_narrow(dtype) ? 2 : 4) * count, &end) ||
            json_object_get(root, sorted[i]->name)) {
            cnxrt_error_set(err,
                            "%s: tensor %s: its shape cannot be written, or its name is "
                            "there twice",
                            path, sorted[i]->name);
            json_decref(root);
            return NULL;
        }
        ok = json_object_set_new(root, sorted[i]->name, make_entry(sorted[i], dtype, at, end)) == 0;
        at = end;
    }
    char *text = ok ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    char *padded = text ? realloc(text, strlen(text) + 9) : NULL;
    if (!padded) {
        free(text);
        cnxrt_error_set(err, "%s: out of memory, or a name is not UTF-8", path);
        return NULL;
    }
    *length = strlen(padded);
    while (*length % 8) padded[(*length)++] = ' ';
    return padded;
}

// What is written.
typedef struct {
    const char *path, *dtype;
    const CnxrtTensor *tensors, **sorted;
    int n;
    TensorFill fill;
    void *user;
} Writing;

static CnxrtStatus write_tensor(AtomicFile *f, const Writing *w, const CnxrtTensor *t,
                                CnxrtError *err) {
    int64_t count = 0;
    dims_count(t->rank, t->dims, &count);
    size_t bytes = (size_t)count * sizeof(float);
    bool narrow = is_narrow(w->dtype);
    if (!w->fill && !narrow) return atomic_write(f, t->data, bytes, err);
    float *values = malloc(bytes ? bytes : 1);
    if (!values) return weights_no_memory(err);
    CnxrtStatus status = CNXRT_OK;
    if (w->fill)
        status = w->fill(w->user, (int)(t - w->tensors), values, err);
    else
        memcpy(values, t->data, bytes);
    if (status == CNXRT_OK && narrow)
        status = cnxrt_weights_narrow(w->path, t->name, w->dtype, values, count, values, err);
    if (status == CNXRT_OK) status = atomic_write(f, values, narrow ? bytes / 2 : bytes, err);
    free(values);
    return status;
}

static CnxrtStatus write_file(const Writing *w, const char *header, size_t length,
                              CnxrtError *err) {
    AtomicFile f;
    unsigned char head[8];
    for (int i = 0; i < 8; i++) head[i] = (unsigned char)((uint64_t)length >> (8 * i));
    CnxrtStatus status = atomic_open(&f, w->path, err);
    if (status == CNXRT_OK) status = atomic_write(&f, head, sizeof head, err);
    if (status == CNXRT_OK) status = atomic_write(&f, header, length, err);
    for (int i = 0; i < w->n && status == CNXRT_OK; i++)
        status = write_tensor(&f, w, w->sorted[i], err);
    return atomic_close(&f, status, err);
}

CnxrtStatus safetensors_write_with(const char *path, const CnxrtTensor *tensors, int n,
                                   const char *dtype, const char *const *metadata, TensorFill fill,
                                   void *user, CnxrtError *err) {
    const CnxrtTensor **sorted = malloc((size_t)(n ? n : 1) * sizeof *sorted);
    if (!sorted) return weights_no_memory(err);
    for (int i = 0; i < n; i++) sorted[i] = &tensors[i];
    qsort(sorted, (size_t)n, sizeof *sorted, pointer_compare);
    size_t length;
    char *header = make_header(path, sorted, n, dtype, metadata, &length, err);
    CnxrtStatus status = CNXRT_ERROR_ARGUMENT;
    Writing w = {path, dtype, tensors, sorted, n, fill, user};
    if (header) status = write_file(&w, header, length, err);
    free(header);
    free(sorted);
    return status;
}

CnxrtStatus cnxrt_safetensors_write(const char *path, const CnxrtTensor *tensors, int n,
                                    const char *const *metadata, CnxrtError *err) {
    return safetensors_write_with(path, tensors, n, "F32", metadata, NULL, NULL, err);
}
