// .npy files (numpy.lib.format, versions 1 to 3). The header is a Python dict literal with three
// keys; it is scanned, not evaluated. Only little-endian (or one-byte) C-order arrays are taken.
#include "weights_file.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *at, *end;
} Scan;

static void skip_space(Scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t')) s->at++;
}

static bool take(Scan *s, char c) {
    skip_space(s);
    if (s->at >= s->end || *s->at != c) return false;
    s->at++;
    return true;
}

static bool take_string(Scan *s, char *buf, size_t size) {
    skip_space(s);
    if (s->at >= s->end || (*s->at != '\'' && *s->at != '"')) return false;
    char quote = *s->at++;
    size_t n = 0;
    for (; s->at < s->end && *s->at != quote; s->at++) {
        if (n + 1 >= size || *s->at == '\\') return false;
        buf[n++] = *s->at;
    }
    buf[n] = 0;
    return take(s, quote);
}

static bool take_word(Scan *s, const char *word) {
    skip_space(s);
    size_t n = strlen(word);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0) return false;
    s->at += n;
    return true;
}

static bool take_int(Scan *s, int64_t *v) {
    skip_space(s);
    if (s->at >= s->end || *s->at < '0' || *s->at > '9') return false;
    for (*v = 0; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, *s->at - '0', v))
            return false;
    (void)(s->at < s->end && *s->at == 'L' && s->at++); // Python 2 wrote long integers so
    return true;
}

static bool take_shape(Scan *s, CnxrtNpy *t) {
    if (!take(s, '(')) return false;
    t->rank = 0;
    while (!take(s, ')')) {
        if (t->rank == 8 || !take_int(s, &t->dims[t->rank++])) return false;
        if (!take(s, ',')) return take(s, ')');
    }
    return true;
}

typedef struct {
    char descr[32];
    bool fortran, seen_descr, seen_order, seen_shape;
} NpyHeader;

static bool header_entry(Scan *s, NpyHeader *h, CnxrtNpy *t) {
    char key[32];
    if (!take_string(s, key, sizeof key) || !take(s, ':')) return false;
    if (strcmp(key, "descr") == 0)
        return (h->seen_descr = take_string(s, h->descr, sizeof h->descr));
    if (strcmp(key, "shape") == 0) return (h->seen_shape = take_shape(s, t));
    if (strcmp(key, "fortran_order") != 0) return false;
    h->seen_order = true;
    return (h->fortran = take_word(s, "True")) || take_word(s, "False");
}

static bool header_scan(Scan s, NpyHeader *h, CnxrtNpy *t) {
    if (!take(&s, '{')) return false;
    while (!take(&s, '}')) {
        if (!header_entry(&s, h, t)) return false;
        if (!take(&s, ',')) {
            if (!take(&s, '}')) return false;
            break;
        }
    }
    return h->seen_descr && h->seen_order && h->seen_shape;
}

// Element types that are read: numpy's code, ours.
static const struct {
    char code[3];
    StDtype dtype;
} npy_types[] = {{"f4", ST_F32}, {"f8", ST_F64}, {"f2", ST_F16}, {"b1", ST_BOOL},
                 {"i1", ST_I8},  {"i2", ST_I16}, {"i4", ST_I32}, {"i8", ST_I64},
                 {"u1", ST_U8},  {"u2", ST_U16}, {"u4", ST_U32}, {"u8", ST_U64}};

static StDtype npy_dtype(const char *code) {
    for (size_t i = 0; i < sizeof npy_types / sizeof *npy_types; i++)
        if (strcmp(code, npy_types[i].code) == 0) return npy_types[i].dtype;
    return ST_COUNT;
}

// Finds the header; *data is where elements begin.
static CnxrtStatus npy_header(const unsigned char *b, size_t size, const char *path, CnxrtNpy *out,
                              NpyHeader *h, size_t *data, CnxrtError *err) {
    if (size < 10 || memcmp(b, "\x93NUMPY", 6) != 0) {
        cnxrt_error_set(err, "%s: not a .npy file (numpy.save writes one)", path);
        return CNXRT_ERROR_FORMAT;
    }
    size_t lenbytes = b[6] == 1 ? 2 : 4;
    if (b[6] < 1 || b[6] > 3 || size < 8 + lenbytes) {
        cnxrt_error_set(err, "%s: .npy version %d is not known", path, b[6]);
        return CNXRT_ERROR_FORMAT;
    }
    size_t len = 0;
    for (size_t i = 0; i < lenbytes; i++) len |= (size_t)b[8 + i] << (8 * i);
    if (len > size - 8 - lenbytes) {
        cnxrt_error_set(err, "%s: truncated: a header of %zu bytes in a file of %zu", path, len,
                        size);
        return CNXRT_ERROR_FORMAT;
    }
    *data = 8 + lenbytes + len;
    const char *text = (const char *)b + 8 + lenbytes;
    if (header_scan((Scan){text, text + len}, h, out)) return CNXRT_OK;
    cnxrt_error_set(err, "%s: the .npy header is not a dict of descr, fortran_order and shape",
                    path);
    return CNXRT_ERROR_FORMAT;
}

static CnxrtStatus npy_check_type(const NpyHeader *h, const char *path, CnxrtError *err) {
    bool order = h->descr[0] == '<' || h->descr[0] == '|' || h->descr[0] == '=';
    if (!order || npy_dtype(h->descr + 1) == ST_COUNT) {
        cnxrt_error_set(err,
                        "%s: element type '%s' is not read; known are little-endian floats (f2, "
                        "f4, f8), integers (i1 to u8) and b1 (save with x.astype('<f4'))",
                        path, h->descr);
        return CNXRT_ERROR_FORMAT;
    }
    if (!h->fortran) return CNXRT_OK;
    cnxrt_error_set(err, "%s: Fortran order is not read (save numpy.ascontiguousarray(x))", path);
    return CNXRT_ERROR_FORMAT;
}

CnxrtStatus npy_parse(const unsigned char *bytes, size_t size, const char *path, CnxrtNpy *out,
                      CnxrtError *err) {
    *out = (CnxrtNpy){0};
    NpyHeader h = {0};
    size_t data;
    CnxrtStatus status = npy_header(bytes, size, path, out, &h, &data, err);
    if (status == CNXRT_OK) status = npy_check_type(&h, path, err);
    if (status != CNXRT_OK) return status;
    int64_t count, want, item = st_dtype_bytes(npy_dtype(h.descr + 1));
    char shape[200];
    if (!dims_count(out->rank, out->dims, &count) || __builtin_mul_overflow(count, item, &want) ||
        (uint64_t)want > size - data) {
        cnxrt_error_set(err,
                        "%s: truncated: %s elements of %d bytes do not fit in the %zu bytes "
                        "after the header",
                        path, dims_text(out->rank, out->dims, shape), (int)item, size - data);
        return CNXRT_ERROR_FORMAT;
    }
    snprintf(out->dtype, sizeof out->dtype, "%.2s", h.descr + 1);
    out->data = malloc(want ? (size_t)want : 1);
    if (!out->data) return weights_no_memory(err);
    if (want) memcpy(out->data, bytes + data, (size_t)want);
    return CNXRT_OK;
}

CnxrtStatus cnxrt_npy_read(const char *path, CnxrtNpy *out, CnxrtError *err) {
    *out = (CnxrtNpy){0};
    const unsigned char *bytes;
    size_t size;
    CnxrtStatus status = file_map(path, &bytes, &size, err);
    if (status == CNXRT_OK) status = npy_parse(bytes, size, path, out, err);
    file_unmap(bytes, size);
    return status;
}

CnxrtStatus cnxrt_npy_read_f32(const char *path, CnxrtNpy *out, CnxrtError *err) {
    CnxrtStatus status = cnxrt_npy_read(path, out, err);
    if (status != CNXRT_OK || strcmp(out->dtype, "f4") == 0) return status;
    int64_t n;
    StDtype from = npy_dtype(out->dtype);
    float *values = NULL;
    if (dims_count(out->rank, out->dims, &n)) values = malloc(n ? (size_t)n * sizeof *values : 1);
    if (!values) {
        cnxrt_npy_free(out);
        return weights_no_memory(err);
    }
    for (int64_t i = 0; i < n; i++) values[i] = st_element(from, out->data, i);
    free(out->data);
    out->data = values;
    strcpy(out->dtype, "f4");
    return CNXRT_OK;
}

static CnxrtStatus npy_write(const char *path, const char *type, int rank, const int64_t *dims,
                             const void *data, CnxrtError *err) {
    char head[512] = "\x93NUMPY\x01"; // then a zero, the header's length and the header
    int n = 10 + snprintf(head + 10, sizeof head - 10,
                          "{'descr': '<%s', 'fortran_order': False, 'shape': (", type);
    int64_t count, item = st_dtype_bytes(npy_dtype(type));
    if (rank < 0 || rank > 8 || !dims_count(rank, dims, &count) || count > INT64_MAX / item) {
        cnxrt_error_set(err, "%s: not a shape that can be written", path);
        return CNXRT_ERROR_ARGUMENT;
    }
    for (int i = 0; i < rank; i++)
        n += snprintf(head + n, sizeof head - (size_t)n, "%" PRId64 ",%s", dims[i],
                      i + 1 < rank ? " " : "");
    n += snprintf(head + n, sizeof head - (size_t)n, "), }");
    while ((n + 1) % 64) head[n++] = ' ';
    head[n++] = '\n';
    head[8] = (char)((n - 10) & 255);
    head[9] = (char)((n - 10) >> 8);
    AtomicFile f;
    CnxrtStatus status = atomic_open(&f, path, err);
    f.unsynced = true;
    if (status == CNXRT_OK) status = atomic_write(&f, head, (size_t)n, err);
    if (status == CNXRT_OK) status = atomic_write(&f, data, (size_t)(count * item), err);
    return atomic_close(&f, status, err);
}

CnxrtStatus cnxrt_npy_write_f32(const char *path, int rank, const int64_t *dims, const float *data,
                                CnxrtError *err) {
    return npy_write(path, "f4", rank, dims, data, err);
}

CnxrtStatus cnxrt_npy_write_i64(const char *path, int rank, const int64_t *dims,
                                const int64_t *data, CnxrtError *err) {
    return npy_write(path, "i8", rank, dims, data, err);
}

void cnxrt_npy_free(CnxrtNpy *t) {
    free(t->data);
    t->data = NULL;
}
