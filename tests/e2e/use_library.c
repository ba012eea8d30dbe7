// A user of the generated header: sessions in two threads give what one gives, features agree with
// the head, errors are reported and crash nothing. argv[1]: a checkpoint, or "-" for embedded.
#include "small.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 5, PIXELS = SMALL_HEIGHT * SMALL_WIDTH * SMALL_CHANNELS };

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

typedef struct {
    small_model *m;
    const float *images;
    float logits[BATCH * SMALL_CLASSES];
} Job;

static void *job_run(void *user) {
    Job *j = user;
    for (int i = 0; i < 3; i++) {
        memset(j->logits, 0, sizeof j->logits);
        CHECK(small_infer(j->m, BATCH, j->images, j->logits) == SMALL_OK);
    }
    return NULL;
}

static void features(small_model *m, const float *images, const float *logits) {
    float *stage3 = malloc(sizeof(float) * BATCH * SMALL_STAGE3_FLOATS);
    float *pooled = malloc(sizeof(float) * BATCH * SMALL_POOLED_FLOATS);
    float *again = malloc(sizeof(float) * BATCH * SMALL_LOGITS_FLOATS);
    CHECK(SMALL_STAGE0_FLOATS == 16 * 24 * 40 && SMALL_STAGE3_FLOATS == 2 * 3 * 320);
    CHECK(small_features(m, BATCH, images, NULL, NULL, NULL, stage3, pooled, again) == SMALL_OK);
    double sum = 0;
    for (int i = 0; i < BATCH * SMALL_STAGE3_FLOATS; i++) sum += fabs((double)stage3[i]);
    CHECK(isfinite(sum) && sum > 0);
    for (int i = 0; i < BATCH * SMALL_LOGITS_FLOATS; i++)
        CHECK(fabsf(again[i] - logits[i]) <= 1e-4f * (1 + fabsf(logits[i])));
    float *embedded = malloc(sizeof(float) * BATCH * SMALL_POOLED_FLOATS);
    CHECK(small_embed(m, BATCH, images, embedded) == SMALL_OK);
    for (int i = 0; i < BATCH * SMALL_POOLED_FLOATS; i++)
        CHECK(fabsf(embedded[i] - pooled[i]) <= 1e-4f * (1 + fabsf(pooled[i])));
    free(stage3), free(pooled), free(again), free(embedded);
}

static void errors(void) {
    char err[256] = "x", tiny[8];
    small_model *m = (small_model *)err;
    CHECK(small_create("/nonexistent.pt", 1, 1, &m, err, sizeof err) == SMALL_ERROR_IO);
    CHECK(!m && strstr(err, "/nonexistent.pt"));
    CHECK(small_create("/nonexistent.pt", 1, 1, &m, tiny, sizeof tiny) == SMALL_ERROR_IO);
    CHECK(strlen(tiny) == sizeof tiny - 1);
    CHECK(small_create("/nonexistent.pt", 1, 1, &m, NULL, 0) == SMALL_ERROR_IO);
    CHECK(small_create(NULL, -1, 1, &m, err, sizeof err) == SMALL_ERROR_ARGUMENT);
    small_destroy(NULL);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    char err[512];
    Job one = {0}, two = {0};
    const char *weights = strcmp(argv[1], "-") ? argv[1] : NULL;
    if (small_create(weights, 1, 2, &one.m, err, sizeof err)) {
        fprintf(stderr, "%s\n", err);
        return 1;
    }
    CHECK(small_clone(one.m, 2, 3, &two.m, err, sizeof err) == SMALL_OK && !*err);
    float *images = malloc(sizeof(float) * BATCH * PIXELS);
    for (int i = 0; i < BATCH * PIXELS; i++) images[i] = (float)((i * 37 + 11) % 255) / 127 - 1;
    one.images = two.images = images;
    pthread_t a, b;
    CHECK(!pthread_create(&a, NULL, job_run, &one) && !pthread_create(&b, NULL, job_run, &two));
    pthread_join(a, NULL), pthread_join(b, NULL);
    CHECK(memcmp(one.logits, two.logits, sizeof one.logits) == 0);
    small_model *first = one.m;
    CHECK(small_infer(first, 1, NULL, one.logits) == SMALL_ERROR_ARGUMENT && *small_error(first));
    small_destroy(first);
    features(two.m, images, two.logits);
    CHECK(!*small_error(two.m));
    errors();
    for (int i = 0; i < BATCH; i++)
        for (int k = 0; k < SMALL_CLASSES; k++)
            printf("%.6g%c", (double)two.logits[i * SMALL_CLASSES + k],
                   k + 1 < SMALL_CLASSES ? ' ' : '\n');
    small_destroy(two.m);
    free(images);
    return 0;
}
