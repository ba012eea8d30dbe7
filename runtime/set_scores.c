#include "set_scores.h"
#include "rng.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t set_scores_bytes(int64_t room, int classes) {
    return room * (classes + 1) * (int64_t)sizeof(SetScore);
}

bool set_scores_open(SetScores *s, int64_t room, int classes) {
    *s = (SetScores){.room = room, .classes = classes};
    s->values = malloc((size_t)set_scores_bytes(room, classes) + 1);
    if (s->values) s->order = s->values + room * classes;
    return s->values != NULL;
}

void set_scores_close(SetScores *s) {
    free(s->values);
    *s = (SetScores){0};
}

void set_scores_add(SetScores *s, const float *logits, LabelSet labels) {
    if (labels.count < 0) return;
    for (int k = 0; k < s->classes; k++) s->values[k * s->room + s->n] = (SetScore){logits[k], 0};
    for (int32_t i = 0; i < labels.count; i++) s->values[labels.ids[i] * s->room + s->n].truth = 1;
    s->n++;
}

static int by_score(const void *a, const void *b) {
    float x = ((const SetScore *)a)->score, y = ((const SetScore *)b)->score;
    return (x < y) - (x > y);
}

// Of one class; NaN: it does not occur.
static double average_precision(const SetScores *s, int k) {
    int64_t right = 0, hits = 0, counted = 0;
    double sum = 0;
    memcpy(s->order, s->values + k * s->room, (size_t)s->n * sizeof *s->order);
    qsort(s->order, (size_t)s->n, sizeof *s->order, by_score);
    for (int64_t i = 0; i < s->n; i++) right += s->order[i].truth;
    for (int64_t i = 0; i < s->n; i++) {
        hits += s->order[i].truth;
        if (i + 1 < s->n && s->order[i + 1].score == s->order[i].score) continue;
        sum += (double)(hits - counted) * (double)hits / (double)(i + 1);
        counted = hits;
    }
    return right ? sum / (double)right : NAN;
}

double set_scores_map(const SetScores *s) {
    double sum = 0;
    int occur = 0;
    for (int k = 0; k < s->classes; k++) {
        double ap = average_precision(s, k);
        if (isnan(ap)) continue;
        sum += ap;
        occur++;
    }
    return occur ? sum / occur : NAN;
}

SetRates set_scores_rates(const SetScores *s, double threshold) {
    double limit = log(threshold / (1 - threshold)); // of the logit
    int64_t found = 0, right = 0, hits = 0;
    for (int k = 0; k < s->classes; k++)
        for (int64_t i = 0; i < s->n; i++) {
            const SetScore *x = &s->values[k * s->room + i];
            bool above = (double)x->score >= limit;
            found += above;
            right += x->truth;
            hits += above && x->truth;
        }
    SetRates r = {0};
    if (found) r.precision = (double)hits / (double)found;
    if (right) r.recall = (double)hits / (double)right;
    if (found + right) r.f1 = 2 * (double)hits / (double)(found + right);
    return r;
}

CnxrtStatus sets_check(const CnxrtModel *classifier, const Dataset *d, CnxrtError *err) {
    char name[512];
    int64_t i = classifier->loss == CNXRT_LOSS_BCE ? -1 : dataset_find_set(d);
    if (i < 0) return CNXRT_OK;
    cnxrt_error_set(err,
                    "%s has %d labels, and the loss of the program (cross_entropy) takes exactly "
                    "one; for several rebuild with cnxc build",
                    dataset_sample_name(d, i, name, sizeof name), (int)dataset_labels(d, i).count);
    const CnxrtModel *m = classifier->train ? classifier->train : classifier;
    for (int k = 0; k < m->nrecipes; k++)
        cnxrt_error_add(err, " --set recipes.%s.loss=bce", m->recipes[k].name);
    return CNXRT_ERROR_MISMATCH;
}

double set_loss(const float *x, int classes, LabelSet labels) {
    double sum = 0;
    for (int k = 0; k < classes; k++) {
        double v = (double)x[k];
        sum += (v > 0 ? v : 0) + rng_log(1 + rng_exp(v > 0 ? -v : v));
    }
    for (int32_t i = 0; i < labels.count; i++) sum -= (double)x[labels.ids[i]];
    return sum / classes;
}
