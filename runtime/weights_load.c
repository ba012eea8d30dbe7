// Fills a model's parameters from an open file. Every parameter must find exactly one tensor and
// every tensor of floats a parameter; all that do not fit are reported together.
//
// Shapes that hold the same numbers in the same order are taken as they are: vectors with leading
// ones (GRN of any rank, Minkowski's (1,C) biases), linear layers stored as 1x1 convolutions.
// Minkowski kernels (k*k, in, out) or (k*k, C) are permuted: W[o,i,r,c] = K[r + kh*c, i, o], since
// Minkowski counts offsets fastest along the rows.
#include "names.h"
#include "weights_load.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Length of a vector: at most one dimension is not 1. -1: not a vector.
static int64_t vector_length(int rank, const int64_t *dims) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) {
        if (dims[i] == 1) continue;
        if (n != 1) return -1;
        n = dims[i];
    }
    return rank ? n : -1;
}

static int without_trailing_ones(int rank, const int64_t *dims) {
    while (rank > 1 && dims[rank - 1] == 1) rank--;
    return rank;
}

bool shapes_agree(int rank, const int64_t *dims, int rank2, const int64_t *dims2) {
    int64_t n = vector_length(rank, dims);
    if ((rank == 1 || rank2 == 1) && n >= 0 && n == vector_length(rank2, dims2)) return true;
    rank = without_trailing_ones(rank, dims);
    if (rank != without_trailing_ones(rank2, dims2)) return false;
    for (int i = 0; i < rank; i++)
        if (dims[i] != dims2[i]) return false;
    return true;
}

bool tensor_is_kernel(const WeightTensor *t) {
    size_t n = strlen(t->info.name);
    return n > 7 && strcmp(t->info.name + n - 7, ".kernel") == 0 &&
           (t->info.rank == 2 || t->info.rank == 3);
}

// dims: of the dense weight (out, in, kh, kw).
static bool kernel_fits(const WeightTensor *t, const int64_t *dims) {
    const int64_t *k = t->info.dims;
    int64_t volume;
    if (!dims_count(2, dims + 2, &volume) || k[0] != volume) return false;
    if (t->info.rank == 2) return k[1] == dims[0] && dims[1] == 1;
    return k[1] == dims[1] && k[2] == dims[0];
}

CnxrtStatus kernel_read(const CnxrtWeights *w, int tensor, const int64_t *dims, float *dst,
                        CnxrtError *err) {
    int64_t out = dims[0], in = dims[1], kh = dims[2], kw = dims[3];
    size_t count = (size_t)(out * in * kh * kw);
    float *k = malloc(count ? count * sizeof *k : 1);
    if (!k) return weights_no_memory(err);
    CnxrtStatus status = cnxrt_weights_read(w, tensor, k, err);
    for (int64_t o = 0; o < out && status == CNXRT_OK; o++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t r = 0; r < kh; r++)
                for (int64_t c = 0; c < kw; c++)
                    dst[((o * in + i) * kh + r) * kw + c] = k[((r + kh * c) * in + i) * out + o];
    free(k);
    return status;
}

// ---- matching -----------------------------------------------------------------------------------

typedef struct {
    const char *name;
    int tensor;
} Named;

typedef struct {
    const CnxrtWeights *w;
    const CnxrtParam *params;
    int nparams;
    Named *byname; // tensors by official name
    int *found;    // per parameter: tensor, or -1
    bool *used;    // per tensor
    CnxrtError missing, shapes, extra, twice;
    int nmissing, nshapes, nextra, ntwice, nhead; // nhead: missing norm.* and head.*
    bool encoder;                                 // norm and head may be missing
    const char *hint;
    char hint_text[160];
} Match;

static int named_compare(const void *a, const void *b) {
    return strcmp(((const Named *)a)->name, ((const Named *)b)->name);
}

static int match_exact(const Match *m, const char *name) {
    Named key = {name, 0};
    const Named *n = m->w->count
                         ? bsearch(&key, m->byname, (size_t)m->w->count, sizeof key, named_compare)
                         : NULL;
    return n ? n->tensor : weights_find(m->w, name);
}

// Pre-training models have their encoder's parameters under `encoder.`, checkpoints often not.
static int match_find(const Match *m, const char *name) {
    int t = match_exact(m, name);
    return t < 0 && strncmp(name, "encoder.", 8) == 0 ? match_exact(m, name + 8) : t;
}

static bool has_param(const Match *m, const char *pattern) {
    for (int i = 0; i < m->nparams; i++)
        if (name_matches(pattern, m->params[i].name)) return true;
    return false;
}

static void shape_hint(Match *m, const CnxrtParam *p, const CnxrtTensorInfo *t) {
    char *buf = m->hint_text;
    size_t size = sizeof m->hint_text;
    if (m->hint) return;
    if (strcmp(p->name, "downsample_layers.0.0.weight") == 0 && t->rank == 4 &&
        t->dims[1] != p->dims[1]) {
        snprintf(buf, size,
                 "the checkpoint has %" PRId64 " input channels: --set input.channels=%" PRId64,
                 t->dims[1], t->dims[1]);
        m->hint = buf;
    } else if (strcmp(p->name, "head.weight") == 0 && t->dims[0] != p->dims[0]) {
        snprintf(buf, size, "the checkpoint has %" PRId64 " classes: --set head.classes=%" PRId64,
                 t->dims[0], t->dims[0]);
        m->hint = buf;
    }
}

static void match_param(Match *m, int i) {
    const CnxrtParam *p = &m->params[i];
    char want[200], have[200];
    int t = m->found[i] = match_find(m, p->name);
    if (t < 0) {
        m->nmissing++;
        m->nhead += name_matches("norm.*", p->name) || name_matches("head.*", p->name);
        cnxrt_error_add(&m->missing, "\n    %s %s", p->name, dims_text(p->rank, p->dims, want));
        return;
    }
    const WeightTensor *tensor = &m->w->tensors[t];
    m->used[t] = true;
    if (tensor_is_kernel(tensor) && p->rank == 4
            ? kernel_fits(tensor, p->dims)
            : shapes_agree(tensor->info.rank, tensor->info.dims, p->rank, p->dims))
        return;
    m->nshapes++;
    cnxrt_error_add(&m->shapes, "\n    %s: the model has %s, the file %s", p->name,
                    dims_text(p->rank, p->dims, want),
                    dims_text(tensor->info.rank, tensor->info.dims, have));
    if (strcmp(tensor->info.name, p->name) != 0)
        cnxrt_error_add(&m->shapes, " (as %s)", tensor->info.name);
    shape_hint(m, p, &tensor->info);
}

// A file may have more than the model in a few ways that lose nothing the model could use.
static bool may_be_extra(const Match *m, const WeightTensor *t) {
    if (!st_dtype_float(t->dtype) || name_is_spare(t->official)) return true;
    if (name_matches("head.*", t->official)) return !has_param(m, "head.*");
    return name_matches("norm.*", t->official) && !has_param(m, "norm.*");
}

static void match_tensors(Match *m) {
    char shape[200];
    for (int i = 0; i < m->w->count; i++) {
        const WeightTensor *t = &m->w->tensors[m->byname[i].tensor];
        if (i && strcmp(m->byname[i].name, m->byname[i - 1].name) == 0) {
            m->ntwice++;
            cnxrt_error_add(&m->twice, "\n    %s: from %s and from %s", t->official,
                            m->w->tensors[m->byname[i - 1].tensor].info.name, t->info.name);
        } else if (!m->used[m->byname[i].tensor] && !may_be_extra(m, t)) {
            m->nextra++;
            cnxrt_error_add(&m->extra, "\n    %s %s", t->info.name,
                            dims_text(t->info.rank, t->info.dims, shape));
        }
    }
}

// Encoders from pre-training have no final norm; a model without a head then takes the identity.
static bool norm_may_default(const Match *m) {
    return (m->encoder || !has_param(m, "head.*")) && m->nmissing == m->nhead;
}

static void report_part(CnxrtError *err, const char *what, int n, const CnxrtError *list) {
    if (n) cnxrt_error_add(err, "\n  %s (%d):%s", what, n, list->text ? list->text : "");
}

static CnxrtStatus match_report(const Match *m, CnxrtError *err) {
    cnxrt_error_set(err, "%s: the checkpoint (%s names, %d tensors) does not fit the model",
                    m->w->path, m->w->scheme, m->w->count);
    report_part(err, "missing", m->nmissing, &m->missing);
    report_part(err, "shapes that differ", m->nshapes, &m->shapes);
    report_part(err, "not in the model", m->nextra, &m->extra);
    report_part(err, "there twice", m->ntwice, &m->twice);
    const char *hint = m->hint;
    if (!hint && m->nmissing && m->nmissing == m->nhead && !m->nshapes && !m->nextra)
        hint = "an encoder without a classifier, as pre-training leaves it: build the model "
               "with --set head=none, or fine-tune first";
    else if (!hint && strcmp(m->w->scheme, "unknown") == 0)
        hint = "no naming scheme of ConvNeXt was recognised (cnxc weights inspect lists the names)";
    else if (!hint && (m->nshapes > 4 || m->nmissing > 8 || m->nextra > 8))
        hint = "is it a checkpoint of another size or version of the model?";
    if (hint) cnxrt_error_add(err, "\n  hint: %s", hint);
    return CNXRT_ERROR_MISMATCH;
}

static CnxrtStatus match_copy(const Match *m, void *blob, CnxrtError *err) {
    CnxrtStatus status = CNXRT_OK;
    for (int i = 0; i < m->nparams && status == CNXRT_OK; i++) {
        const CnxrtParam *p = &m->params[i];
        float *dst = (float *)(void *)((char *)blob + p->offset);
        int64_t count = 0;
        dims_count(p->rank, p->dims, &count);
        int t = m->found[i];
        if (t < 0) {
            for (int64_t k = 0; k < count; k++) dst[k] = strcmp(p->name, "norm.weight") == 0;
            cnxrt_error_add(
                err, "%s%s: not in the checkpoint, %s", err && err->text ? "\n" : "", p->name,
                name_matches("norm.*", p->name) ? "the identity is used" : "zeros are used");
        } else if (tensor_is_kernel(&m->w->tensors[t]) && p->rank == 4) {
            status = kernel_read(m->w, t, p->dims, dst, err);
        } else {
            status = cnxrt_weights_read(m->w, t, dst, err);
        }
    }
    return status;
}

static CnxrtStatus match_all(Match *m, void *blob, CnxrtError *err) {
    for (int i = 0; i < m->w->count; i++) m->byname[i] = (Named){m->w->tensors[i].official, i};
    if (m->w->count) qsort(m->byname, (size_t)m->w->count, sizeof *m->byname, named_compare);
    for (int i = 0; i < m->nparams; i++) match_param(m, i);
    match_tensors(m);
    if (m->nmissing && norm_may_default(m)) m->nmissing = 0;
    if (m->nmissing || m->nshapes || m->nextra || m->ntwice) return match_report(m, err);
    return match_copy(m, blob, err);
}

// What a training run resumes from (checkpoint.h) is no checkpoint.
static bool is_run_state(const CnxrtWeights *w) {
    bool param = false;
    for (int i = 0; i < w->count && !param; i++)
        param = strncmp(w->tensors[i].info.name, "param.", 6) == 0;
    return param && cnxrt_weights_metadata(w, "checksum") && cnxrt_weights_metadata(w, "config");
}

static CnxrtStatus load(const CnxrtWeights *w, const CnxrtParam *params, int nparams, bool encoder,
                        void *blob, CnxrtError *err) {
    cnxrt_error_free(err);
    if (is_run_state(w)) {
        cnxrt_error_set(err,
                        "%s: the state of a training run, which --resume reads; its weights are in "
                        "last.safetensors and best.safetensors beside it",
                        w->path);
        return CNXRT_ERROR_MISMATCH;
    }
    Match m = {.w = w, .params = params, .nparams = nparams, .encoder = encoder};
    size_t tensors = (size_t)w->count + 1;
    m.byname = calloc(tensors, sizeof *m.byname);
    m.used = calloc(tensors, sizeof *m.used);
    m.found = calloc((size_t)nparams + 1, sizeof *m.found);
    CnxrtStatus status =
        m.byname && m.used && m.found ? match_all(&m, blob, err) : weights_no_memory(err);
    free(m.byname);
    free(m.used);
    free(m.found);
    cnxrt_error_free(&m.missing);
    cnxrt_error_free(&m.shapes);
    cnxrt_error_free(&m.extra);
    cnxrt_error_free(&m.twice);
    return status;
}

CnxrtStatus cnxrt_weights_finite(const char *path, const CnxrtParam *params, int nparams,
                                 const void *blob, CnxrtError *err) {
    for (int i = 0; i < nparams; i++) {
        const float *v = (const float *)(const void *)((const char *)blob + params[i].offset);
        int64_t count = 0;
        dims_count(params[i].rank, params[i].dims, &count);
        for (int64_t k = 0; k < count; k++) {
            if (v[k] - v[k] == 0) continue;
            cnxrt_error_set(err, "%s: tensor %s: value %" PRId64 " is %g, which int8 cannot hold",
                            path, params[i].name, k, (double)v[k]);
            return CNXRT_ERROR_FORMAT;
        }
    }
    return CNXRT_OK;
}

CnxrtStatus cnxrt_weights_load(const CnxrtWeights *w, const CnxrtParam *params, int nparams,
                               void *blob, CnxrtError *err) {
    return load(w, params, nparams, false, blob, err);
}

CnxrtStatus cnxrt_weights_load_encoder(const CnxrtWeights *w, const CnxrtParam *params, int nparams,
                                       void *blob, CnxrtError *err) {
    return load(w, params, nparams, true, blob, err);
}
