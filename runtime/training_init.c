// First values of parameters. Each is a stream of its own, named by the parameter.
#include "rng.h"
#include "training_state.h"
#include <string.h>

// FNV-1a, cut to what a stream's name may hold.
static uint64_t name_hash(const char *s) {
    uint64_t h = 14695981039346656037u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h >> 8;
}

static bool is_head(const char *name) {
    return strcmp(name, "head.weight") == 0 || strcmp(name, "head.bias") == 0;
}

void training_init_param(Training *t, int i, uint64_t seed, double head_scale) {
    const CnxrtParam *p = &t->model->params[i];
    float *dst = training_param(t, CNXRT_STATE_PARAM, i);
    int64_t n = training_param_count(p);
    double v = p->init_value, scale = is_head(p->name) ? head_scale : 1;
    Rng r = rng_stream(seed, RNG_INIT, 0, name_hash(p->name));
    switch (p->init) {
    case CNXRT_INIT_NORMAL:
        for (int64_t k = 0; k < n; k++) dst[k] = (float)(scale * rng_trunc_normal(&r, 0, v, -2, 2));
        break;
    case CNXRT_INIT_UNIFORM:
        for (int64_t k = 0; k < n; k++) dst[k] = (float)(scale * rng_range(&r, -v, v));
        break;
    default:
        for (int64_t k = 0; k < n; k++) dst[k] = (float)(scale * v);
    }
}

typedef struct {
    Training *training;
    uint64_t seed;
    double head_scale;
} Init;

static void init_task(void *user, int64_t thread, int64_t nthreads) {
    const Init *init = user;
    for (int64_t i = thread; i < init->training->model->nparams; i += nthreads)
        training_init_param(init->training, (int)i, init->seed, init->head_scale);
}

void training_init(Training *t, uint64_t seed, double head_scale) {
    Init init = {t, seed, head_scale};
    cnxrt_parallel(t->threads, init_task, &init);
    training_begin(t);
}

void training_begin(Training *t) {
    size_t n = (size_t)t->model->param_bytes;
    memset(t->state[CNXRT_STATE_GRAD], 0, n);
    if (t->state[CNXRT_STATE_M]) memset(t->state[CNXRT_STATE_M], 0, n);
    if (t->state[CNXRT_STATE_V]) memset(t->state[CNXRT_STATE_V], 0, n);
    if (t->state[CNXRT_STATE_EMA]) memcpy(t->state[CNXRT_STATE_EMA], t->state[0], n);
}
