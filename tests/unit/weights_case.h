// The network of the weight fixtures (tests/parity/make_weight_fixtures.py): its parameters under
// official names, with the seeded values every fixture holds.
#ifndef WEIGHTS_CASE_H
#define WEIGHTS_CASE_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <unistd.h>
#include <cmocka.h>
#include "runtime/weights_file.h"

#define WEIGHTS CNX_SOURCE_DIR "/tests/unit/data/weights/"

enum { CASE_PARAMS = 96, CASE_CLASSES = 5 };

typedef struct {
    CnxrtParam params[CASE_PARAMS];
    char names[CASE_PARAMS][64];
    int n;
    int64_t bytes;
    float *blob; // what a load fills
} Network;

typedef enum { NET_V2, NET_V1, NET_HEADLESS } NetworkKind;

static inline int64_t param_count(const CnxrtParam *p) {
    int64_t n = 1;
    for (int i = 0; i < p->rank; i++) n *= p->dims[i];
    return n;
}

static inline void network_add(Network *w, const char *layer, const char *what, int rank, int64_t a,
                               int64_t b, int64_t c, int64_t d) {
    CnxrtParam *p = &w->params[w->n];
    snprintf(w->names[w->n], sizeof w->names[0], "%s.%s", layer, what);
    *p = (CnxrtParam){
        .name = w->names[w->n++], .rank = rank, .dims = {a, b, c, d}, .offset = w->bytes};
    w->bytes += param_count(p) * (int64_t)sizeof(float);
}

static inline void network_pair(Network *w, const char *layer, int rank, int64_t a, int64_t b,
                                int64_t c, int64_t d) {
    network_add(w, layer, "weight", rank, a, b, c, d);
    network_add(w, layer, "bias", 1, a, 0, 0, 0);
}

static inline void network_block(Network *w, int stage, int64_t c, bool v1) {
    static const char *const parts[] = {"dwconv", "norm", "pwconv1", "grn", "pwconv2"};
    char name[5][32], block[32];
    snprintf(block, sizeof block, "stages.%d.0", stage);
    for (int i = 0; i < 5; i++)
        snprintf(name[i], sizeof name[i], "stages.%d.0.%s", stage, parts[i]);
    network_pair(w, name[0], 4, c, 1, 7, 7);
    network_pair(w, name[1], 1, c, 0, 0, 0);
    network_pair(w, name[2], 2, 4 * c, c, 0, 0);
    if (!v1) {
        network_add(w, name[3], "gamma", 1, 4 * c, 0, 0, 0);
        network_add(w, name[3], "beta", 1, 4 * c, 0, 0, 0);
    }
    network_pair(w, name[4], 2, c, 4 * c, 0, 0);
    if (v1) network_add(w, block, "gamma", 1, c, 0, 0, 0);
}

static inline void network_make(Network *w, NetworkKind kind) {
    static const int64_t dims[4] = {4, 6, 8, 10};
    *w = (Network){.n = 0};
    network_pair(w, "downsample_layers.0.0", 4, dims[0], 3, 4, 4);
    network_pair(w, "downsample_layers.0.1", 1, dims[0], 0, 0, 0);
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "downsample_layers.%d.0", i);
        if (i) network_pair(w, name, 1, dims[i - 1], 0, 0, 0);
        snprintf(name, sizeof name, "downsample_layers.%d.1", i);
        if (i) network_pair(w, name, 4, dims[i], dims[i - 1], 2, 2);
        network_block(w, i, dims[i], kind == NET_V1);
    }
    network_pair(w, "norm", 1, dims[3], 0, 0, 0);
    if (kind != NET_HEADLESS) network_pair(w, "head", 2, CASE_CLASSES, dims[3], 0, 0);
    w->blob = malloc((size_t)w->bytes);
    for (int64_t i = 0; i < w->bytes / 4; i++) w->blob[i] = NAN;
}

static inline void network_free(Network *w) { free(w->blob); }

static inline CnxrtParam *network_param(Network *w, const char *name) {
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->params[i].name, name) == 0) return &w->params[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

// Every value is the seeded one; an absent norm is the identity when `identity`.
static inline void network_check(const Network *w, double tolerance, bool identity,
                                 const char *what) {
    float *want = malloc((size_t)w->bytes);
    for (int i = 0; i < w->n; i++) {
        const CnxrtParam *p = &w->params[i];
        const float *have = w->blob + p->offset / 4;
        cnxrt_seed_weights(p->name, p->rank, p->dims, 0, want);
        for (int64_t k = 0; k < param_count(p); k++) {
            if (identity && strncmp(p->name, "norm.", 5) == 0)
                want[k] = strcmp(p->name, "norm.weight") == 0;
            if (!(fabs((double)have[k] - (double)want[k]) <= tolerance * fabs((double)want[k])))
                fail_msg("%s: %s[%d] is %.9g, not %.9g", what, p->name, (int)k, (double)have[k],
                         (double)want[k]);
        }
    }
    free(want);
}

static inline CnxrtWeights *weights_open_case(const char *file) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", file[0] == '/' ? "" : WEIGHTS, file);
    CnxrtWeights *w = NULL;
    CnxrtError err = {0};
    if (cnxrt_weights_open(path, &w, &err) != CNXRT_OK) fail_msg("%s", err.text);
    assert_null(err.text);
    return w;
}

// Fails unless the text holds every piece; pieces end with NULL.
static inline void text_has(const char *text, const char *const *pieces) {
    for (; *pieces; pieces++)
        if (!text || !strstr(text, *pieces))
            fail_msg("no \"%s\" in:\n%s", *pieces, text ? text : "(none)");
}
#define TEXT_HAS(text, ...) text_has(text, (const char *const[]){__VA_ARGS__, NULL})

static inline unsigned char *read_whole(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    unsigned char *bytes = malloc(1 << 20);
    *size = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

#endif
