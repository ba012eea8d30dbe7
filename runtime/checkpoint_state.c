// State files: every blob of the engine under param.X, m.X, v.X, ema.X, and in the metadata where
// the run stands. A checksum over all values finds what a truncated or damaged file would hide.
// They hold no time, path or number of threads, so equal runs have equal files.
#include "checkpoint.h"
#include "weights_file.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEPT = 3, PATH_SIZE = 4096 };

static const struct {
    int slot;
    const char *prefix;
} slots[] = {{CNXRT_STATE_PARAM, "param."},
             {CNXRT_STATE_M, "m."},
             {CNXRT_STATE_V, "v."},
             {CNXRT_STATE_EMA, "ema."}};
enum { SLOTS = sizeof slots / sizeof *slots };

// Of a tensor; their sum over a file, in any order, is the file's checksum.
static uint64_t tensor_hash(const char *name, const float *x, int64_t n) {
    uint64_t h = 14695981039346656037u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    for (int64_t i = 0; i < n; i++) {
        uint32_t w;
        memcpy(&w, x + i, sizeof w);
        h = (h ^ w) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
    }
    return h;
}

// ---- files of a run -----------------------------------------------------------------------------

CnxrtStatus run_folder(const char *dir, CnxrtError *err) {
    char path[PATH_SIZE];
    if (strlen(dir) >= sizeof path - 300) {
        cnxrt_error_set(err, "%.60s...: the path is too long", dir);
        return CNXRT_ERROR_ARGUMENT;
    }
    strcpy(path, dir);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/') continue;
        char c = *p;
        *p = 0;
        if (mkdir(path, 0777) != 0 && errno != EEXIST) {
            cnxrt_error_set(err, "%s: cannot create: %s", path, strerror(errno));
            return CNXRT_ERROR_IO;
        }
        *p = c;
        if (!c) break;
    }
    DIR *d = opendir(dir);
    if (!d) {
        cnxrt_error_set(err, "%s: %s", dir, strerror(errno));
        return CNXRT_ERROR_IO;
    }
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n < 4 || strcmp(e->d_name + n - 4, ".tmp") != 0) continue;
        if (!strstr(e->d_name, ".safetensors.") && strncmp(e->d_name, "metrics.", 8) != 0) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        unlink(path);
    }
    closedir(d);
    return CNXRT_OK;
}

// The step in the name of a state file; -1: it is none.
static int64_t name_step(const char *name) {
    char *end;
    if (strncmp(name, "state-", 6) != 0 || name[6] < '0' || name[6] > '9') return -1;
    long long step = strtoll(name + 6, &end, 10);
    return strcmp(end, ".safetensors") == 0 ? step : -1;
}

static int later_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

// Steps of the state files of a folder, the newest first, malloc'ed.
static int64_t *state_steps(const char *dir, int *n) {
    int64_t *steps = malloc(sizeof *steps);
    DIR *d = opendir(dir);
    *n = 0;
    for (struct dirent *e; steps && d && (e = readdir(d));) {
        int64_t step = name_step(e->d_name);
        if (step < 0) continue;
        int64_t *more = realloc(steps, (size_t)(*n + 2) * sizeof *steps);
        if (!more) break;
        steps = more;
        steps[(*n)++] = step;
    }
    if (d) closedir(d);
    if (steps && *n) qsort(steps, (size_t)*n, sizeof *steps, later_first);
    return steps;
}

static void state_path(char path[PATH_SIZE], const char *dir, int64_t step) {
    snprintf(path, PATH_SIZE, "%.3700s/state-%08" PRId64 ".safetensors", dir, step);
}

bool state_exists(const char *dir) {
    int n;
    free(state_steps(dir, &n));
    return n > 0;
}

// ---- writing ------------------------------------------------------------------------------------

typedef struct {
    CnxrtTensor *tensors;
    int n;
    uint64_t hash;
} StateTensors;

static bool tensors_add(StateTensors *s, const Training *t, int slot, const char *prefix, int i) {
    const CnxrtParam *p = &training_model(t)->params[i];
    CnxrtTensor *q = &s->tensors[s->n];
    char *name = malloc(strlen(prefix) + strlen(p->name) + 1);
    if (!name) return false;
    *q = (CnxrtTensor){.name = strcat(strcpy(name, prefix), p->name),
                       .rank = p->rank,
                       .data = training_param(t, slot, i)};
    memcpy(q->dims, p->dims, sizeof p->dims);
    s->hash += tensor_hash(q->name, q->data, training_param_count(p));
    s->n++;
    return true;
}

static void tensors_free(StateTensors *s) {
    for (int i = 0; i < s->n; i++) free((char *)(uintptr_t)s->tensors[i].name);
    free(s->tensors);
}

static bool tensors_make(StateTensors *s, const Training *t) {
    int n = training_model(t)->nparams;
    s->tensors = calloc((size_t)n * SLOTS + 1, sizeof *s->tensors);
    for (int k = 0; s->tensors && k < SLOTS; k++)
        for (int i = 0; i < n && training_state(t, slots[k].slot); i++)
            if (!tensors_add(s, t, slots[k].slot, slots[k].prefix, i)) return false;
    return s->tensors != NULL;
}

static void remove_old(const char *dir) {
    char path[PATH_SIZE];
    int n;
    int64_t *steps = state_steps(dir, &n);
    for (int i = KEPT; steps && i < n; i++) {
        state_path(path, dir, steps[i]);
        unlink(path);
    }
    free(steps);
}

CnxrtStatus state_write(const char *dir, const Training *t, const RunState *s, CnxrtError *err) {
    char path[PATH_SIZE], step[32], micro[32], best[64], row[160], hash[32];
    StateTensors st = {0};
    CnxrtStatus status = CNXRT_OK;
    if (tensors_make(&st, t)) {
        snprintf(step, sizeof step, "%" PRId64, s->step);
        snprintf(micro, sizeof micro, "%" PRId64, s->micro);
        snprintf(best, sizeof best, "%a", s->best);
        snprintf(row, sizeof row, "%d %a %a %a %a", s->pending, s->row.epoch, s->row.lr,
                 s->row.loss, s->row.grad_norm);
        snprintf(hash, sizeof hash, "%016" PRIx64, st.hash);
        const char *metadata[] = {"row", row,      "step",    step,       "micro", micro, "best",
                                  best,  "config", s->config, "checksum", hash,    NULL};
        state_path(path, dir, s->step);
        status = cnxrt_safetensors_write(path, st.tensors, st.n, metadata, err);
    } else {
        status = weights_no_memory(err);
    }
    tensors_free(&st);
    if (status == CNXRT_OK) remove_old(dir);
    return status;
}

// ---- reading ------------------------------------------------------------------------------------

static CnxrtStatus tensor_load(const StateFile *s, const char *prefix, const CnxrtParam *p,
                               float *dst, CnxrtError *err) {
    char name[512];
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    int at = weights_find(s->file, name);
    const CnxrtTensorInfo *info = at < 0 ? NULL : cnxrt_weights_info(s->file, at);
    int64_t count = 0;
    if (info && dims_count(info->rank, info->dims, &count) && count == training_param_count(p))
        return cnxrt_weights_read(s->file, at, dst, err);
    cnxrt_error_set(err, "%s: no %s of the model's shape", s->file->path, name);
    return CNXRT_ERROR_MISMATCH;
}

CnxrtStatus state_load(const StateFile *s, Training *t, CnxrtError *err) {
    const CnxrtModel *m = training_model(t);
    int loaded = 0;
    for (int k = 0; k < SLOTS; k++)
        for (int i = 0; i < m->nparams && training_state(t, slots[k].slot); i++, loaded++) {
            CnxrtStatus status = tensor_load(s, slots[k].prefix, &m->params[i],
                                             training_param(t, slots[k].slot, i), err);
            if (status != CNXRT_OK) return status;
        }
    if (loaded == cnxrt_weights_count(s->file)) return CNXRT_OK;
    cnxrt_error_set(err, "%s: %d tensors, and this run has %d", s->file->path,
                    cnxrt_weights_count(s->file), loaded);
    return CNXRT_ERROR_MISMATCH;
}

static const char *state_text(const StateFile *s, const char *key) {
    const char *text = cnxrt_weights_metadata(s->file, key);
    return text ? text : "";
}

static bool state_whole(const StateFile *s) {
    uint64_t sum = 0;
    for (int i = 0; i < cnxrt_weights_count(s->file); i++) {
        const WeightTensor *t = &s->file->tensors[i];
        int64_t count;
        if (t->dtype != ST_F32 || !dims_count(t->info.rank, t->info.dims, &count)) return false;
        sum += tensor_hash(t->info.name, (const float *)(const void *)t->data, count);
    }
    char hash[32];
    snprintf(hash, sizeof hash, "%016" PRIx64, sum);
    return strcmp(hash, state_text(s, "checksum")) == 0;
}

static bool row_read(StateFile *s) {
    MetricsRow *r = &s->state.row;
    int pending;
    *r = (MetricsRow){
        .step = s->state.step, .val_loss = NAN, .val_top1 = NAN, .val_top5 = NAN, .val_map = NAN};
    int n = sscanf(state_text(s, "row"), "%d %la %la %la %la", &pending, &r->epoch, &r->lr,
                   &r->loss, &r->grad_norm);
    s->state.pending = pending != 0;
    return n == 5;
}

// Opens one file and checks it; what is wrong is added to note.
static bool state_try(const char *dir, int64_t step, StateFile *s, CnxrtError *note) {
    char path[PATH_SIZE];
    CnxrtError why = {0};
    state_path(path, dir, step);
    *s = (StateFile){0};
    bool whole = cnxrt_weights_open(path, &s->file, &why) == CNXRT_OK && state_whole(s);
    if (whole) {
        s->state.step = strtoll(state_text(s, "step"), NULL, 10);
        s->state.micro = strtoll(state_text(s, "micro"), NULL, 10);
        s->state.best = strtod(state_text(s, "best"), NULL);
        s->state.config = strdup(state_text(s, "config"));
        whole = s->state.config && s->state.step == step && row_read(s);
    }
    if (!whole) {
        cnxrt_error_add(note, "%s%s is damaged and not used: %s", note->text ? "\n" : "", path,
                        why.text ? why.text : "its checksum is another");
        state_close(s);
    }
    cnxrt_error_free(&why);
    return whole;
}

CnxrtStatus state_open(const char *dir, StateFile *out, CnxrtError *note, CnxrtError *err) {
    int n, i = 0;
    *out = (StateFile){0};
    int64_t *steps = state_steps(dir, &n);
    if (!steps) return weights_no_memory(err);
    while (i < n && !state_try(dir, steps[i], out, note)) i++;
    free(steps);
    if (i < n || n == 0) return CNXRT_OK;
    cnxrt_error_set(err, "%s: no state file is whole; start afresh with another --out", dir);
    return CNXRT_ERROR_FORMAT;
}

void state_close(StateFile *s) {
    cnxrt_weights_close(s->file);
    free(s->state.config);
    *s = (StateFile){0};
}
