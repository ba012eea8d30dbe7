// A ring of batches. Workers take positions in order, under the lock, as long as the position's
// batch fits into the ring behind the one in use, and make samples outside of it.
#include "dataset_loader.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    float *images;
    int64_t *samples, *used;
    int64_t missing; // samples still to be made
} Slot;

struct Loader {
    LoaderOptions options;
    int64_t count;
    size_t size; // floats of a sample
    int64_t *order;
    int64_t ordered_epoch; // whose permutation `order` is; -1: none
    Slot *slots;
    int nslots;
    int64_t position; // the next one to be taken by a worker
    int64_t step;     // the next one to be handed out; step - 1 is in use
    bool stop;
    CnxrtStatus status; // first failure
    CnxrtError error;
    pthread_mutex_t lock;
    pthread_cond_t made, freed;
    pthread_t *workers;
    int nworkers;
};

static CnxrtStatus no_memory(CnxrtError *err) {
    cnxrt_error_set(err, "out of memory for batches of pictures");
    return CNXRT_ERROR_MEMORY;
}

// The sample at a position. Positions only grow, so one permutation at a time is enough.
static int64_t position_sample(Loader *l, int64_t position) {
    int64_t epoch = position / l->count;
    if (!l->options.shuffle) return position % l->count;
    if (epoch != l->ordered_epoch) {
        Rng r = rng_stream(l->options.seed, RNG_ORDER, (uint64_t)epoch, 0);
        rng_permutation(&r, l->count, l->order);
        l->ordered_epoch = epoch;
    }
    return l->order[position % l->count];
}

static CnxrtStatus sample_make(const Loader *l, int64_t sample, uint64_t epoch, float *dst,
                               int64_t *used, CnxrtError *err) {
    const LoaderOptions *o = &l->options;
    AugmentDraw draw = {
        .augment = o->augment, .seed = o->seed, .epoch = epoch, .sample = (uint64_t)sample};
    ImageOptions options = {
        .channels = o->augment->base.channels, .shrink = augment_shrink, .user = &draw};
    Image image;
    CnxrtStatus s = dataset_take(o->data, sample, &options, &image, used, err);
    if (s != CNXRT_OK) return s;
    s = augment_image(&draw, &image, dst, err);
    image_free(&image);
    return s;
}

// Makes one sample; called and left with the lock held, which is released meanwhile.
static void position_make(Loader *l) {
    int64_t position = l->position++, batch = l->options.batch, at = position % batch;
    Slot *slot = &l->slots[position / batch % l->nslots];
    int64_t sample = slot->samples[at] = position_sample(l, position);
    pthread_mutex_unlock(&l->lock);
    CnxrtError err = {0};
    CnxrtStatus s = sample_make(l, sample, (uint64_t)(position / l->count),
                                slot->images + (size_t)at * l->size, &slot->used[at], &err);
    pthread_mutex_lock(&l->lock);
    if (s == CNXRT_OK) {
        if (--slot->missing == 0) pthread_cond_broadcast(&l->made);
    } else if (l->status == CNXRT_OK) { // its batch stays incomplete
        l->status = s;
        l->error = err;
        l->stop = true;
        pthread_cond_broadcast(&l->freed);
        pthread_cond_broadcast(&l->made);
        return;
    }
    cnxrt_error_free(&err);
}

static void *worker(void *user) {
    Loader *l = user;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        // The slot of step - 1 is in use.
        if (l->position / l->options.batch < l->step - 1 + l->nslots)
            position_make(l);
        else
            pthread_cond_wait(&l->freed, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static CnxrtStatus slots_allocate(Loader *l, CnxrtError *err) {
    const Preprocess *p = &l->options.augment->base;
    size_t batch = (size_t)l->options.batch;
    l->size = (size_t)p->height * (size_t)p->width * (size_t)p->channels;
    l->nslots = l->options.ahead + 1;
    l->slots = calloc((size_t)l->nslots, sizeof *l->slots);
    l->order = malloc((size_t)l->count * sizeof *l->order);
    l->workers = calloc((size_t)l->options.threads, sizeof *l->workers);
    if (!l->slots || !l->order || !l->workers) return no_memory(err);
    for (int i = 0; i < l->nslots; i++) {
        Slot *s = &l->slots[i];
        s->images = calloc(batch, l->size * sizeof *s->images);
        s->samples = calloc(batch, sizeof *s->samples);
        s->used = calloc(batch, sizeof *s->used);
        s->missing = l->options.batch;
        if (!s->images || !s->samples || !s->used) return no_memory(err);
    }
    return CNXRT_OK;
}

CnxrtStatus loader_open(const LoaderOptions *o, Loader **out, CnxrtError *err) {
    *out = NULL;
    if (o->batch < 1 || o->threads < 1 || o->ahead < 1 || o->step < 0) {
        cnxrt_error_set(err, "a loader of batch %lld, %d threads, %d ahead", (long long)o->batch,
                        o->threads, o->ahead);
        return CNXRT_ERROR_ARGUMENT;
    }
    Loader *l = calloc(1, sizeof *l);
    if (!l) return no_memory(err);
    l->options = *o;
    l->count = dataset_count(o->data);
    l->ordered_epoch = -1;
    l->step = o->step;
    l->position = o->step * o->batch;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->made, NULL);
    pthread_cond_init(&l->freed, NULL);
    CnxrtStatus s = slots_allocate(l, err);
    while (s == CNXRT_OK && l->nworkers < o->threads) {
        if (pthread_create(&l->workers[l->nworkers], NULL, worker, l) == 0) {
            l->nworkers++;
        } else {
            cnxrt_error_set(err, "cannot start %d threads for data", o->threads);
            s = CNXRT_ERROR_MEMORY;
        }
    }
    if (s == CNXRT_OK)
        *out = l;
    else
        loader_close(l);
    return s;
}

CnxrtStatus loader_next(Loader *l, LoaderBatch *out, CnxrtError *err) {
    pthread_mutex_lock(&l->lock);
    if (l->step > l->options.step) // the batch that was in use
        l->slots[(l->step - 1) % l->nslots].missing = l->options.batch;
    Slot *slot = &l->slots[l->step % l->nslots];
    *out = (LoaderBatch){l->step, slot->images, slot->samples, slot->used};
    l->step++;
    pthread_cond_broadcast(&l->freed);
    while (slot->missing > 0 && l->status == CNXRT_OK) pthread_cond_wait(&l->made, &l->lock);
    CnxrtStatus s = slot->missing > 0 ? l->status : CNXRT_OK;
    if (s != CNXRT_OK) cnxrt_error_set(err, "%s", l->error.text ? l->error.text : "no memory");
    pthread_mutex_unlock(&l->lock);
    return s;
}

void loader_close(Loader *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->freed);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->nworkers; i++) pthread_join(l->workers[i], NULL);
    for (int i = 0; i < l->nslots && l->slots; i++) {
        free(l->slots[i].images);
        free(l->slots[i].samples);
        free(l->slots[i].used);
    }
    free(l->slots);
    free(l->order);
    free(l->workers);
    cnxrt_error_free(&l->error);
    pthread_cond_destroy(&l->made);
    pthread_cond_destroy(&l->freed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
