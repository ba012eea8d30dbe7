// Weights of training models from and to checkpoints.
#include "checkpoint.h"
#include "names.h"
#include <stdlib.h>
#include <string.h>

static bool of_decoder(const char *name) {
    return strcmp(name, "mask_token") == 0 || name_matches("proj.*", name) ||
           name_matches("decoder.*", name) || name_matches("pred.*", name);
}

static bool of_head(const char *name) { return name_matches("head.*", name); }
static bool of_norm(const char *name) { return name_matches("norm.*", name); }

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static int64_t elements(const CnxrtTensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dims[i];
    return n;
}

// The shapes of the official code where they are not what the model holds: GRN (1,1,1,n),
// mask_token (1,n,1,1), proj and pred as 1x1 convolutions.
static void official_shape(CnxrtTensor *t, const char *name) {
    int64_t n = elements(t);
    if (ends_with(name, "grn.gamma") || ends_with(name, "grn.beta")) {
        t->rank = 4;
        memcpy(t->dims, (int64_t[]){1, 1, 1, n}, 4 * sizeof n);
    } else if (strcmp(name, "mask_token") == 0) {
        t->rank = 4;
        memcpy(t->dims, (int64_t[]){1, n, 1, 1}, 4 * sizeof n);
    } else if ((strcmp(name, "proj.weight") == 0 || strcmp(name, "pred.weight") == 0) &&
               t->rank == 2) {
        t->rank = 4;
        t->dims[2] = t->dims[3] = 1;
    }
}

static bool is_pretrain(const CnxrtModel *m) {
    for (int i = 0; i < m->nparams; i++)
        if (of_decoder(m->params[i].name)) return true;
    return false;
}

static char *tensor_name(const char *name, bool pretrain) {
    bool prefix = pretrain && !of_decoder(name) && strncmp(name, "encoder.", 8) != 0;
    char *out = malloc(strlen(name) + 9);
    if (out) strcat(strcpy(out, prefix ? "encoder." : ""), name);
    return out;
}

CnxrtStatus checkpoint_write(const char *path, const Training *t, int slot,
                             const char *const *metadata, CnxrtError *err) {
    const CnxrtModel *m = training_model(t);
    bool pretrain = is_pretrain(m), ok = true;
    CnxrtTensor *tensors = calloc((size_t)m->nparams + 1, sizeof *tensors);
    for (int i = 0; tensors && i < m->nparams; i++) {
        const CnxrtParam *p = &m->params[i];
        tensors[i] = (CnxrtTensor){.name = tensor_name(p->name, pretrain),
                                   .rank = p->rank,
                                   .data = training_param(t, slot, i)};
        memcpy(tensors[i].dims, p->dims, sizeof p->dims);
        official_shape(&tensors[i], p->name);
        ok = ok && tensors[i].name && tensors[i].data;
    }
    CnxrtStatus status = tensors && ok
                             ? cnxrt_safetensors_write(path, tensors, m->nparams, metadata, err)
                             : weights_no_memory(err);
    for (int i = 0; tensors && i < m->nparams; i++) free((char *)(uintptr_t)tensors[i].name);
    free(tensors);
    return status;
}

// ---- loading ------------------------------------------------------------------------------------

// The first tensor whose official name follows the test; -1: none.
static int file_find(const CnxrtWeights *w, bool (*test)(const char *)) {
    for (int i = 0; i < cnxrt_weights_count(w); i++)
        if (test(cnxrt_weights_official_name(w, i))) return i;
    return -1;
}

static void line(CnxrtError *note, const char *text) {
    cnxrt_error_add(note, "%s%s", note->text ? "\n" : "", text);
}

// Does the file's head have the model's number of classes?
static bool head_fits(const CnxrtWeights *w, const CnxrtModel *m, CnxrtError *note) {
    for (int i = 0; i < cnxrt_weights_count(w); i++) {
        if (strcmp(cnxrt_weights_official_name(w, i), "head.weight") != 0) continue;
        const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
        for (int k = 0; k < m->nparams; k++) {
            const CnxrtParam *p = &m->params[k];
            if (strcmp(p->name, "head.weight") != 0 || t->rank < 1 || t->dims[0] == p->dims[0])
                continue;
            cnxrt_error_add(note, "%sthe head starts fresh: the checkpoint's has %lld classes",
                            note->text ? "\n" : "", (long long)t->dims[0]);
            return false;
        }
        return true;
    }
    line(note, "the head starts fresh: the checkpoint has none");
    return false;
}

// Which parameters keep the values they have.
typedef struct {
    bool head, norm, decoder;
} Fresh;

static bool is_fresh(const Fresh *f, const char *name) {
    return (f->head && of_head(name)) || (f->norm && of_norm(name)) ||
           (f->decoder && of_decoder(name));
}

static Fresh fresh_parts(const CnxrtWeights *w, const CnxrtModel *m, CnxrtError *note) {
    Fresh f = {0};
    bool decoder = file_find(w, of_decoder) >= 0;
    if (is_pretrain(m)) {
        f.decoder = !decoder;
        if (f.decoder) line(note, "the decoder starts fresh: the checkpoint is an encoder");
        if (file_find(w, of_head) >= 0) line(note, "the checkpoint's head is left out");
        return f;
    }
    if (decoder)
        line(note, "the checkpoint's decoder (mask_token, proj, decoder, pred) is left out");
    f.norm = file_find(w, of_norm) < 0;
    if (f.norm) line(note, "the final norm starts fresh: the checkpoint has none");
    f.head = m->classes > 0 && !head_fits(w, m, note);
    return f;
}

CnxrtStatus checkpoint_load(Training *t, const char *path, CnxrtError *note, CnxrtError *err) {
    const CnxrtModel *m = training_model(t);
    CnxrtWeights *w = NULL;
    CnxrtStatus status = cnxrt_weights_open(path, &w, err);
    if (status != CNXRT_OK) return status;
    CnxrtParam *wanted = calloc((size_t)m->nparams + 1, sizeof *wanted);
    if (wanted) {
        Fresh fresh = fresh_parts(w, m, note);
        int n = 0;
        for (int i = 0; i < m->nparams; i++)
            if (!is_fresh(&fresh, m->params[i].name)) wanted[n++] = m->params[i];
        status = cnxrt_weights_load(w, wanted, n, training_state(t, CNXRT_STATE_PARAM), err);
        if (status != CNXRT_OK) cnxrt_error_free(note);
    } else {
        status = weights_no_memory(err);
    }
    free(wanted);
    cnxrt_weights_close(w);
    return status;
}
