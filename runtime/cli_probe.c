// probe, knn: how well frozen features separate the classes of a data set.
#include "cli_linear.h"
#include "cli_run.h"
#include "set_scores.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Cli *cli;
    const CnxrtProgram *program;
    int port;
    Pictures train, test;
    Features a, b; // of train and test
    int64_t skipped;
} Probe;

typedef struct {
    const Dataset *data;
    Features *f;
    int64_t skipped;
} Gather;

static bool gather_each(void *user, int64_t i, const char *name, const float *values,
                        const char *reason) {
    Gather *g = user;
    Features *f = g->f;
    (void)name, (void)reason;
    LabelSet labels = dataset_labels(g->data, i);
    g->skipped += !values;
    if (!values || labels.count < 0) return true;
    memcpy(f->values + f->n * f->width, values, (size_t)f->width * sizeof *values);
    if (f->truth)
        for (int32_t k = 0; k < labels.count; k++) f->truth[f->n * f->classes + labels.ids[k]] = 1;
    else
        f->labels[f->n] = labels.ids[0];
    f->n++;
    return true;
}

static bool probe_sets(const Probe *p) {
    return dataset_sets(p->train.data) || dataset_sets(p->test.data);
}

// Features of all labelled samples. The session is open.
static int features_gather(Probe *p, const Pictures *pictures, Features *f) {
    Cli *c = p->cli;
    f->width = port_values(&p->program->outputs[p->port]);
    f->classes = dataset_classes(pictures->data);
    f->values = malloc((size_t)(pictures->count * f->width) * sizeof *f->values);
    f->labels = malloc((size_t)pictures->count * sizeof *f->labels);
    bool sets = probe_sets(p);
    if (sets) f->truth = calloc((size_t)pictures->count, (size_t)f->classes);
    if (!f->values || !f->labels || (sets && !f->truth))
        return cli_fail(c, "out of memory for the features of %lld pictures",
                        (long long)pictures->count);
    Gather g = {pictures->data, f, 0};
    PictureRun run = {p->program, p->port, gather_each, &g};
    int64_t batch = cli_picture_batch(c, &p->train);
    int status = cli_pictures(c, pictures, batch, &run);
    p->skipped += g.skipped;
    if (status != CLI_OK && status != CLI_SKIPPED) return status;
    if (f->n && f->classes > 1) return CLI_OK;
    return cli_fail(c, "%s: no samples with labels of two or more classes",
                    c->args.val && pictures == &p->test ? c->args.val : c->args.data);
}

static int probe_open(Probe *p) {
    Cli *c = p->cli;
    CliArgs *a = &c->args;
    if (!a->data) return cli_usage(c, "no data set: give --data DATA");
    p->program = cli_pooled(c, &p->port);
    if (!p->program) return CLI_ERROR;
    int status = cli_pictures_train(c, a->data, &p->train);
    if (status != CLI_OK) return status;
    const char *val = a->val ? a->val : a->data;
    status = cli_pictures_data(c, val, a->val ? NULL : "val", p->train.data, &p->test);
    if (status == CLI_ERROR && !a->val) cli_fail(c, "to test on other data, give --val DATA");
    if (status == CLI_OK && c->command->letter == 'k' && probe_sets(p))
        return cli_fail(c, "%s: samples have sets of labels, neighbours vote for one; try %s probe",
                        a->data, c->self);
    if (status == CLI_OK) status = cli_open(c, p->program, cli_picture_batch(c, &p->train));
    if (status == CLI_OK) status = features_gather(p, &p->train, &p->a);
    if (status == CLI_OK) status = features_gather(p, &p->test, &p->b);
    return status;
}

static void probe_close(Probe *p) {
    cli_pictures_close(&p->train);
    cli_pictures_close(&p->test);
    free(p->a.values);
    free(p->a.labels);
    free(p->b.values);
    free(p->b.labels);
    free(p->a.truth);
    free(p->b.truth);
}

// What a classifier was right about.
typedef struct {
    bool sets;
    Ranks ranks;
    double map, f1; // percent, of sets
} Results;

static json_t *results_json(const Probe *p, const Results *r) {
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(p->cli->model->name));
    json_object_set_new(o, "train_images", json_integer(p->a.n));
    json_object_set_new(o, "images", json_integer(p->b.n));
    json_object_set_new(o, "skipped", json_integer(p->skipped));
    json_object_set_new(o, "classes", json_integer(p->a.classes));
    json_object_set_new(o, "features", json_integer(p->a.width));
    if (r->sets) {
        json_object_set_new(o, "map", isnan(r->map) ? json_null() : json_real(r->map));
        json_object_set_new(o, "f1", json_real(r->f1));
        return o;
    }
    json_object_set_new(o, "top1", json_real(ranks_percent(&r->ranks, r->ranks.top1)));
    json_object_set_new(o, "top5", json_real(ranks_percent(&r->ranks, r->ranks.top5)));
    return o;
}

static int results_print(const Probe *p, const Results *r, json_t *o, const char *how) {
    const Ranks *k = &r->ranks;
    bool ok = true;
    if (p->cli->args.json)
        ok = report_json_print(o, stdout, true);
    else if (r->sets)
        printf("images %lld   mAP %.3f %%   F1 %.3f %%   (%s of %lld images)\n", (long long)p->b.n,
               r->map, r->f1, how, (long long)p->a.n);
    else
        printf("images %lld   top-1 %.3f %%   top-5 %.3f %%   (%s of %lld images)\n",
               (long long)p->b.n, ranks_percent(k, k->top1), ranks_percent(k, k->top5), how,
               (long long)p->a.n);
    json_decref(o);
    if (!ok) return cli_fail(p->cli, "cannot write to standard output");
    return p->skipped ? CLI_SKIPPED : CLI_OK;
}

// The classes of sample i in ids, which has room for all.
static LabelSet truth_set(const Features *f, int64_t i, int32_t *ids) {
    LabelSet s = {ids, 0};
    for (int k = 0; k < f->classes; k++)
        if (f->truth[i * f->classes + k]) ids[s.count++] = k;
    return s;
}

// False: no memory.
static bool linear_results(const LinearFit *fit, const Features *f, Results *r) {
    float *scores = malloc((size_t)f->classes * sizeof *scores);
    int32_t *ids = malloc((size_t)f->classes * sizeof *ids);
    SetScores sets = {0};
    *r = (Results){.sets = f->truth != NULL};
    bool ok = scores && ids && (!r->sets || set_scores_open(&sets, f->n, f->classes));
    for (int64_t i = 0; ok && i < f->n; i++) {
        linear_scores(fit, f->values + i * f->width, f->width, f->classes, scores);
        if (r->sets)
            set_scores_add(&sets, scores, truth_set(f, i, ids));
        else
            ranks_add(&r->ranks, scores, f->classes, f->labels[i]);
    }
    if (ok && r->sets) {
        r->map = 100 * set_scores_map(&sets);
        r->f1 = 100 * set_scores_rates(&sets, 0.5).f1;
    }
    set_scores_close(&sets);
    free(scores);
    free(ids);
    return ok;
}

static int probe_fit(Probe *p, double penalty, int iterations) {
    LinearFit fit = {0};
    Results own, r;
    int threads = cnxrt_threads(p->cli->session);
    bool ok = linear_fit(&p->a, penalty, iterations, threads, &fit) &&
              linear_results(&fit, &p->a, &own) && linear_results(&fit, &p->b, &r);
    free(fit.weights);
    if (!ok) return cli_fail(p->cli, "out of memory");
    json_t *o = results_json(p, &r);
    if (r.sets)
        json_object_set_new(o, "train_map", json_real(own.map));
    else
        json_object_set_new(o, "train_top1", json_real(ranks_percent(&own.ranks, own.ranks.top1)));
    json_object_set_new(o, "loss", json_real(fit.loss));
    json_object_set_new(o, "penalty", json_real(penalty));
    json_object_set_new(o, "iterations", json_integer(fit.iterations));
    return results_print(p, &r, o, "linear probe");
}

static int probe_run(Probe *p) {
    const CliArgs *a = &p->cli->args;
    double *scale = malloc(2 * (size_t)p->a.width * sizeof *scale);
    if (!scale) return cli_fail(p->cli, "out of memory");
    features_statistics(&p->a, scale, scale + p->a.width);
    features_standardise(&p->a, scale, scale + p->a.width);
    features_standardise(&p->b, scale, scale + p->a.width);
    free(scale);
    return probe_fit(p, isnan(a->penalty) ? 1e-3 : a->penalty,
                     (int)(a->iterations ? a->iterations : 200));
}

int cli_probe(Cli *c) {
    Probe p = {.cli = c};
    int status = probe_open(&p);
    if (status == CLI_OK) status = probe_run(&p);
    probe_close(&p);
    return status;
}

static int knn_run(Probe *p) {
    Cli *c = p->cli;
    int k = (int)(c->args.k ? c->args.k : 20);
    double temperature = isnan(c->args.temperature) ? 0.07 : c->args.temperature;
    float *scores = malloc((size_t)p->b.n * (size_t)p->b.classes * sizeof *scores);
    features_normalise(&p->a);
    features_normalise(&p->b);
    if (!scores || !knn_scores(&p->a, &p->b, k, temperature, cnxrt_threads(c->session), scores)) {
        free(scores);
        return cli_fail(c, "out of memory");
    }
    Results r = {0};
    for (int64_t i = 0; i < p->b.n; i++)
        ranks_add(&r.ranks, scores + i * p->b.classes, p->b.classes, p->b.labels[i]);
    json_t *o = results_json(p, &r);
    json_object_set_new(o, "k", json_integer(k));
    json_object_set_new(o, "temperature", json_real(temperature));
    free(scores);
    return results_print(p, &r, o, "nearest neighbours");
}

int cli_knn(Cli *c) {
    Probe p = {.cli = c};
    int status = probe_open(&p);
    if (status == CLI_OK) status = knn_run(&p);
    probe_close(&p);
    return status;
}
