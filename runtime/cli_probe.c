// probe, knn: how well frozen features separate the classes of a data set.
#include "cli_linear.h"
#include "cli_run.h"
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
    int label = dataset_label(g->data, i);
    g->skipped += !values;
    if (!values || label < 0) return true;
    memcpy(f->values + f->n * f->width, values, (size_t)f->width * sizeof *values);
    f->labels[f->n++] = label;
    return true;
}

// Features of all labelled samples. The session is open.
static int features_gather(Probe *p, const Pictures *pictures, Features *f) {
    Cli *c = p->cli;
    f->width = port_values(&p->program->outputs[p->port]);
    f->classes = dataset_classes(pictures->data);
    f->values = malloc((size_t)(pictures->count * f->width) * sizeof *f->values);
    f->labels = malloc((size_t)pictures->count * sizeof *f->labels);
    if (!f->values || !f->labels)
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
}

static json_t *results_json(const Probe *p, const Ranks *r) {
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(p->cli->model->name));
    json_object_set_new(o, "train_images", json_integer(p->a.n));
    json_object_set_new(o, "images", json_integer(r->images));
    json_object_set_new(o, "skipped", json_integer(p->skipped));
    json_object_set_new(o, "classes", json_integer(p->a.classes));
    json_object_set_new(o, "features", json_integer(p->a.width));
    json_object_set_new(o, "top1", json_real(ranks_percent(r, r->top1)));
    json_object_set_new(o, "top5", json_real(ranks_percent(r, r->top5)));
    return o;
}

static int results_print(const Probe *p, const Ranks *r, json_t *o, const char *how) {
    bool ok = true;
    if (p->cli->args.json)
        ok = report_json_print(o, stdout, true);
    else
        printf("images %lld   top-1 %.3f %%   top-5 %.3f %%   (%s of %lld images)\n",
               (long long)r->images, ranks_percent(r, r->top1), ranks_percent(r, r->top5), how,
               (long long)p->a.n);
    json_decref(o);
    if (!ok) return cli_fail(p->cli, "cannot write to standard output");
    return p->skipped ? CLI_SKIPPED : CLI_OK;
}

static Ranks linear_ranks(const LinearFit *fit, const Features *f, float *scores) {
    Ranks r = {0};
    for (int64_t i = 0; i < f->n; i++) {
        linear_scores(fit, f->values + i * f->width, f->width, f->classes, scores);
        ranks_add(&r, scores, f->classes, f->labels[i]);
    }
    return r;
}

static int probe_run(Probe *p) {
    Cli *c = p->cli;
    double penalty = isnan(c->args.penalty) ? 1e-3 : c->args.penalty;
    int iterations = (int)(c->args.iterations ? c->args.iterations : 200);
    double *scale = malloc(2 * (size_t)p->a.width * sizeof *scale);
    float *scores = malloc((size_t)p->a.classes * sizeof *scores);
    LinearFit fit = {0};
    int status = CLI_ERROR;
    if (scale && scores) {
        features_statistics(&p->a, scale, scale + p->a.width);
        features_standardise(&p->a, scale, scale + p->a.width);
        features_standardise(&p->b, scale, scale + p->a.width);
    }
    if (scale && scores &&
        linear_fit(&p->a, penalty, iterations, cnxrt_threads(c->session), &fit)) {
        Ranks own = linear_ranks(&fit, &p->a, scores), r = linear_ranks(&fit, &p->b, scores);
        json_t *o = results_json(p, &r);
        json_object_set_new(o, "train_top1", json_real(ranks_percent(&own, own.top1)));
        json_object_set_new(o, "loss", json_real(fit.loss));
        json_object_set_new(o, "penalty", json_real(penalty));
        json_object_set_new(o, "iterations", json_integer(fit.iterations));
        status = results_print(p, &r, o, "linear probe");
    } else {
        cli_fail(c, "out of memory");
    }
    free(fit.weights);
    free(scale);
    free(scores);
    return status;
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
    Ranks r = {0};
    for (int64_t i = 0; i < p->b.n; i++)
        ranks_add(&r, scores + i * p->b.classes, p->b.classes, p->b.labels[i]);
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
