// Rewrites a checkpoint under another scheme's names, with the shapes that scheme's code expects.
#include "names.h"
#include "weights_load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    CnxrtWeights *w;
    CnxrtTensor *out;
    int *source; // tensor of the file for each of out
    int n;
    const char *scheme, *dtype;
    int version;  // 1: layer scale, 2: GRN
    int64_t stem; // channels of the first stage
} Conversion;

static bool is_vector_name(const char *name) {
    return name_matches("stages.#.#.grn.*", name) || name_matches("decoder.#.grn.*", name);
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static void set_dims(CnxrtTensor *t, int rank, const int64_t *dims) {
    t->rank = rank;
    memcpy(t->dims, dims, (size_t)rank * sizeof *dims);
}

// The dense shape of a Minkowski kernel; false when its volume is not square.
static bool kernel_dims(const WeightTensor *t, CnxrtTensor *out) {
    int64_t k = 1, volume = t->info.dims[0];
    while (k < 1024 && k * k < volume) k++;
    bool depthwise = t->info.rank == 2;
    int64_t dims[4] = {depthwise ? t->info.dims[1] : t->info.dims[2],
                       depthwise ? 1 : t->info.dims[1], k, k};
    set_dims(out, 4, dims);
    return k * k == volume;
}

// The shape of tensor t in the official code.
static bool official_dims(const WeightTensor *t, CnxrtTensor *out) {
    if (tensor_is_kernel(t)) return kernel_dims(t, out);
    set_dims(out, t->info.rank, t->info.dims);
    int64_t count = 0;
    dims_count(t->info.rank, t->info.dims, &count);
    bool vector = shapes_agree(t->info.rank, t->info.dims, 1, &count);
    if (vector && is_vector_name(t->official))
        set_dims(out, 4, (int64_t[]){1, 1, 1, count});
    else if (vector && ends_with(t->official, ".bias"))
        set_dims(out, 1, &count);
    else if (t->info.rank == 4 && t->info.dims[2] == 1 && t->info.dims[3] == 1 &&
             (name_matches("stages.#.#.pwconv1.weight", t->official) ||
              name_matches("stages.#.#.pwconv2.weight", t->official) ||
              name_matches("head.weight", t->official)))
        out->rank = 2;
    return true;
}

// timm makes its models below tiny (fewer than 96 channels) with 1x1 convolutions as linears.
static void timm_dims(const Conversion *c, const char *official, CnxrtTensor *out) {
    if (is_vector_name(official)) {
        set_dims(out, 1, (int64_t[]){out->dims[3]});
    } else if (c->stem < 96 && out->rank == 2 &&
               (name_matches("stages.#.#.pwconv1.weight", official) ||
                name_matches("stages.#.#.pwconv2.weight", official))) {
        out->rank = 4;
        out->dims[2] = out->dims[3] = 1;
    }
}

static CnxrtStatus plan_tensor(Conversion *c, int i, CnxrtError *err) {
    const WeightTensor *t = &c->w->tensors[i];
    bool official = strcmp(c->scheme, "official") == 0;
    if (!st_dtype_float(t->dtype) || (!official && name_is_spare(t->official))) return CNXRT_OK;
    CnxrtTensor *out = &c->out[c->n];
    if (!official_dims(t, out)) {
        cnxrt_error_set(err, "%s: %s: the kernel is not square", c->w->path, t->info.name);
        return CNXRT_ERROR_FORMAT;
    }
    if (strcmp(c->scheme, "timm") == 0) timm_dims(c, t->official, out);
    out->name =
        official ? strdup(t->official) : names_from_official(t->official, c->scheme, c->version);
    if (!out->name) return weights_no_memory(err);
    c->source[c->n++] = i;
    return CNXRT_OK;
}

static CnxrtStatus plan(Conversion *c, CnxrtError *err) {
    const CnxrtWeights *w = c->w;
    c->version = 2;
    for (int i = 0; i < w->count; i++) {
        if (name_matches("stages.#.#.gamma", w->tensors[i].official)) c->version = 1;
        if (strcmp(w->tensors[i].official, "downsample_layers.0.0.weight") == 0)
            c->stem = w->tensors[i].info.rank ? w->tensors[i].info.dims[0] : 0;
    }
    CnxrtStatus status = CNXRT_OK;
    for (int i = 0; i < w->count && status == CNXRT_OK; i++) status = plan_tensor(c, i, err);
    return status;
}

static CnxrtStatus fill_tensor(void *user, int i, float *dst, CnxrtError *err) {
    const Conversion *c = user;
    int t = c->source[i];
    if (tensor_is_kernel(&c->w->tensors[t])) return kernel_read(c->w, t, c->out[i].dims, dst, err);
    return cnxrt_weights_read(c->w, t, dst, err);
}

// The file's metadata; "format" is what readers in Python look for.
static CnxrtStatus write_out(Conversion *c, const char *path, CnxrtError *err) {
    const char **metadata = calloc((size_t)c->w->nmetadata + 3, sizeof *metadata);
    if (!metadata) return weights_no_memory(err);
    for (int i = 0; i < c->w->nmetadata; i++) metadata[i] = c->w->metadata[i];
    if (!cnxrt_weights_metadata(c->w, "format")) {
        metadata[c->w->nmetadata] = "format";
        metadata[c->w->nmetadata + 1] = "pt";
    }
    CnxrtStatus status =
        safetensors_write_with(path, c->out, c->n, c->dtype, metadata, fill_tensor, c, err);
    free(metadata);
    return status;
}

static CnxrtStatus check_scheme(const Conversion *c, CnxrtError *err) {
    bool official = strcmp(c->scheme, "official") == 0;
    if (!official && strcmp(c->scheme, "timm") != 0 && strcmp(c->scheme, "hf") != 0) {
        cnxrt_error_set(err, "names of '%s' are not known: official, timm or hf", c->scheme);
        return CNXRT_ERROR_ARGUMENT;
    }
    if (official || strcmp(c->w->scheme, "unknown") != 0) return CNXRT_OK;
    cnxrt_error_set(err, "%s: no naming scheme of ConvNeXt was recognised, the first tensor is %s",
                    c->w->path, c->w->count ? c->w->tensors[0].info.name : "missing");
    return CNXRT_ERROR_MISMATCH;
}

CnxrtStatus cnxrt_weights_convert(const char *in, const char *out, const char *scheme,
                                  const char *dtype, CnxrtError *err) {
    Conversion c = {.scheme = scheme, .dtype = dtype};
    CnxrtStatus status = cnxrt_weights_open(in, &c.w, err);
    if (status != CNXRT_OK) return status;
    c.out = calloc((size_t)c.w->count + 1, sizeof *c.out);
    c.source = calloc((size_t)c.w->count + 1, sizeof *c.source);
    status = c.out && c.source ? check_scheme(&c, err) : weights_no_memory(err);
    if (status == CNXRT_OK) status = plan(&c, err);
    if (status == CNXRT_OK) status = write_out(&c, out, err);
    for (int i = 0; i < c.n; i++) free((char *)(uintptr_t)c.out[i].name);
    free(c.out);
    free(c.source);
    cnxrt_weights_close(c.w);
    return status;
}
