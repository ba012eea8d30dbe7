// infer: classes per picture, printed, or logits written.
#include "cli_run.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int index;
    float logit;
    double probability;
} Choice;

typedef struct {
    Cli *cli;
    int top;
    Choice *choices;
    json_t *results; // --json
    Rows *rows;      // --output
    int64_t skipped;
} Infer;

static int by_logit(const void *a, const void *b) {
    const Choice *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->index - y->index;
}

// Sorts all classes by logit. Probabilities in double: softmax, or of each class by itself.
static void choices_rank(Choice *c, const float *logits, int n, bool sets) {
    double sum = 0;
    for (int i = 0; i < n; i++) c[i] = (Choice){i, isnan(logits[i]) ? -INFINITY : logits[i], 0};
    qsort(c, (size_t)n, sizeof *c, by_logit);
    for (int i = 0; i < n; i++) {
        double v = (double)c[i].logit;
        c[i].probability = sets ? 1 / (1 + exp(-v)) : exp(v - (double)c[0].logit);
        sum += c[i].probability;
    }
    for (int i = 0; i < n && !sets; i++) c[i].probability /= sum;
}

static bool infer_json(const Infer *f, const char *name, const char *reason) {
    json_t *o = json_object(), *top = reason ? NULL : json_array();
    bool ok = json_object_set_new(o, "file", report_json_text(name)) == 0;
    char buf[32];
    for (int i = 0; !reason && i < f->top; i++) {
        const Choice *c = &f->choices[i];
        json_t *e = json_object();
        ok = ok && json_object_set_new(e, "class", json_integer(c->index)) == 0;
        json_object_set_new(e, "name", report_json_text(cli_class_name(f->cli, c->index, buf)));
        json_object_set_new(e, "probability", json_real(c->probability));
        json_object_set_new(e, "logit", json_real(c->logit));
        ok = ok && json_array_append_new(top, e) == 0;
    }
    if (reason)
        ok = ok && json_object_set_new(o, "error", report_json_text(reason)) == 0;
    else
        ok = ok && json_object_set_new(o, "top", top) == 0;
    return json_array_append_new(f->results, o) == 0 && ok;
}

static void infer_csv(const Infer *f, const char *name) {
    char buf[32];
    for (int i = 0; i < f->top; i++) {
        report_csv_text(stdout, name);
        printf(",%d,%d,", i + 1, f->choices[i].index);
        report_csv_text(stdout, cli_class_name(f->cli, f->choices[i].index, buf));
        printf(",%.6f\n", f->choices[i].probability);
    }
}

static void infer_line(const Infer *f, const char *name) {
    char buf[32];
    printf("%s:", name);
    for (int i = 0; i < f->top; i++)
        printf("%s %s %.4f", i ? "," : "", cli_class_name(f->cli, f->choices[i].index, buf),
               f->choices[i].probability);
    putchar('\n');
}

static bool infer_each(void *user, int64_t i, const char *name, const float *values,
                       const char *reason) {
    Infer *f = user;
    (void)i;
    bool ok = true;
    f->skipped += !values;
    const CnxrtModel *m = f->cli->model;
    if (values) choices_rank(f->choices, values, m->classes, m->loss == CNXRT_LOSS_BCE);
    if (values && f->rows) ok = rows_add(f->rows, values);
    if (f->results) return infer_json(f, name, reason) && ok;
    if (values && f->cli->args.csv)
        infer_csv(f, name);
    else if (values)
        infer_line(f, name);
    return ok;
}

static int infer_print_json(Infer *f) {
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(f->cli->model->name));
    json_object_set_new(o, "results", f->results);
    f->results = NULL; // handed over
    json_object_set_new(o, "skipped", json_integer(f->skipped));
    bool ok = report_json_print(o, stdout, false);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(f->cli, "cannot write to standard output");
}

static int infer_pictures(Cli *c, const CnxrtProgram *p, int port, const Pictures *list) {
    int classes = c->model->classes;
    Rows rows = {.size = classes};
    Infer f = {.cli = c,
               .top = (int)(c->args.top ? c->args.top : 5),
               .choices = malloc((size_t)classes * sizeof *f.choices),
               .results = c->args.json ? json_array() : NULL,
               .rows = c->args.output ? &rows : NULL};
    if (f.top > classes) f.top = classes;
    PictureRun run = {p, port, infer_each, &f};
    int64_t batch = cli_picture_batch(c, list);
    int status = f.choices ? cli_open(c, p, batch) : cli_fail(c, "out of memory");
    if (status == CLI_OK) {
        if (c->args.csv) printf("file,rank,class,name,probability\n");
        status = cli_pictures(c, list, batch, &run);
        if (status != CLI_ERROR && f.results) status = cli_worse(status, infer_print_json(&f));
        if (status != CLI_ERROR && f.rows)
            status =
                cli_worse(status, rows_write(c, &rows, &p->outputs[port], "nhwc", c->args.output));
    }
    free(f.choices);
    json_decref(f.results);
    free(rows.values);
    return status;
}

int cli_infer(Cli *c) {
    int status = cli_inputs_check(c), port;
    if (status != CLI_OK) return status;
    if (c->model->classes < 1)
        return cli_fail(c, "model %s has no head: it gives features (see %s features --help)",
                        c->model->name, c->self);
    const CnxrtProgram *p = cli_program(c, "infer", "logits", &port);
    if (!p) return CLI_ERROR;
    if (c->args.input) {
        Rows rows = {0};
        status = cli_tensors(c, p, port, &rows);
        if (status == CLI_OK)
            status = rows_write(c, &rows, &p->outputs[port], "nhwc", c->args.output);
        free(rows.values);
        return status;
    }
    Pictures list;
    status = cli_pictures_list(c, &list);
    if (status == CLI_OK) status = infer_pictures(c, p, port, &list);
    cli_pictures_close(&list);
    return status;
}
