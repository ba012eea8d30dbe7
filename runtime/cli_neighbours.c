// k nearest neighbours by exhaustive search. Vectors are compared PANEL at a time, which lie
// transposed, so that inner products are sums over contiguous values.
#include "cli_linear.h"
#include "parallel.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PANEL = 16, QUERIES = 4 };

typedef struct {
    float similarity;
    int32_t label;
} Neighbour;

typedef struct {
    const Features *f, *q;
    float *panels; // [ceil(n / PANEL)][width][PANEL], 0 behind the last
    int k;
    double temperature;
    float *scores;
    Neighbour *best; // [threads][QUERIES][k], by falling similarity
} Search;

// Puts a neighbour among the `found` best ones, behind its equals.
static int insert(Neighbour *best, int found, int k, Neighbour x) {
    int at = found < k ? found : k - 1;
    if (found == k && !(x.similarity > best[k - 1].similarity)) return found;
    while (at > 0 && x.similarity > best[at - 1].similarity) {
        best[at] = best[at - 1];
        at--;
    }
    best[at] = x;
    return found < k ? found + 1 : k;
}

static void panel_products(const float *panel, const float *const query[QUERIES], int64_t width,
                           float out[QUERIES][PANEL]) {
    float sum[QUERIES][PANEL] = {{0}};
    for (int64_t i = 0; i < width; i++)
        for (int j = 0; j < QUERIES; j++)
            for (int c = 0; c < PANEL; c++) sum[j][c] += query[j][i] * panel[i * PANEL + c];
    memcpy(out, sum, sizeof sum);
}

// Classifies up to QUERIES queries from `at` on.
static void search_queries(const Search *s, int64_t at, Neighbour *best) {
    const Features *f = s->f, *q = s->q;
    int count = q->n - at < QUERIES ? (int)(q->n - at) : QUERIES, found[QUERIES] = {0};
    const float *query[QUERIES];
    float products[QUERIES][PANEL];
    for (int j = 0; j < QUERIES; j++) query[j] = q->values + (at + (j < count ? j : 0)) * q->width;
    for (int64_t p = 0; p < f->n; p += PANEL) {
        panel_products(s->panels + p * f->width, query, f->width, products);
        int members = f->n - p < PANEL ? (int)(f->n - p) : PANEL;
        for (int j = 0; j < count; j++)
            for (int c = 0; c < members; c++)
                found[j] = insert(best + j * s->k, found[j], s->k,
                                  (Neighbour){products[j][c], f->labels[p + c]});
    }
    for (int j = 0; j < count; j++) {
        float *scores = s->scores + (at + j) * f->classes;
        for (int c = 0; c < f->classes; c++) scores[c] = 0;
        for (int i = 0; i < found[j]; i++) {
            const Neighbour *x = &best[j * s->k + i];
            scores[x->label] += (float)exp(
                ((double)x->similarity - (double)best[j * s->k].similarity) / s->temperature);
        }
    }
}

static void search_task(void *user, int64_t thread, int64_t nthreads) {
    const Search *s = user;
    Neighbour *best = s->best + thread * QUERIES * s->k;
    for (int64_t at = thread * QUERIES; at < s->q->n; at += nthreads * QUERIES)
        search_queries(s, at, best);
}

bool knn_scores(const Features *f, const Features *q, int k, double temperature, int threads,
                float *scores) {
    int64_t panels = (f->n + PANEL - 1) / PANEL;
    Search s = {.f = f, .q = q, .k = k < f->n ? k : (int)f->n, .temperature = temperature};
    s.scores = scores;
    s.panels = calloc((size_t)(panels * f->width * PANEL), sizeof *s.panels);
    s.best = calloc((size_t)threads * QUERIES * (size_t)s.k, sizeof *s.best);
    if (s.panels && s.best) {
        for (int64_t i = 0; i < f->n; i++)
            for (int64_t v = 0; v < f->width; v++)
                s.panels[(i / PANEL * f->width + v) * PANEL + i % PANEL] =
                    f->values[i * f->width + v];
        cnxrt_parallel(threads, search_task, &s);
    }
    bool ok = s.panels && s.best;
    free(s.panels);
    free(s.best);
    return ok;
}
