// infer, features, embed: results per picture, printed or written.
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

// Sorts all classes by logit; softmax in double.
static void choices_rank(Choice *c, const float *logits, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) c[i] = (Choice){i, isnan(logits[i]) ? -INFINITY : logits[i], 0};
    qsort(c, (size_t)n, sizeof *c, by_logit);
    for (int i = 0; i < n; i++) sum += c[i].probability = exp((double)c[i].logit - c[0].logit);
    for (int i = 0; i < n; i++) c[i].probability /= sum;
}

static bool infer_json(const Infer *f, const ImageItem *item, const char *reason) {
    json_t *o = json_object(), *top = reason ? NULL : json_array();
    bool ok = json_object_set_new(o, "file", report_json_text(item->name)) == 0;
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

static void infer_csv(const Infer *f, const ImageItem *item) {
    char buf[32];
    for (int i = 0; i < f->top; i++) {
        report_csv_text(stdout, item->name);
        printf(",%d,%d,", i + 1, f->choices[i].index);
        report_csv_text(stdout, cli_class_name(f->cli, f->choices[i].index, buf));
        printf(",%.6f\n", f->choices[i].probability);
    }
}

static void infer_line(const Infer *f, const ImageItem *item) {
    char buf[32];
    printf("%s:", item->name);
    for (int i = 0; i < f->top; i++)
        printf("%s %s %.4f", i ? "," : "", cli_class_name(f->cli, f->choices[i].index, buf),
               f->choices[i].probability);
    putchar('\n');
}

static bool infer_each(void *user, const ImageItem *item, const float *values, const char *reason) {
    Infer *f = user;
    bool ok = true;
    f->skipped += !values;
    if (values) choices_rank(f->choices, values, f->cli->model->classes);
    if (values && f->rows) ok = rows_add(f->rows, values);
    if (f->results) return infer_json(f, item, reason) && ok;
    if (values && f->cli->args.csv)
        infer_csv(f, item);
    else if (values)
        infer_line(f, item);
    return ok;
}

static int infer_print_json(Infer *f) {
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(f->cli->model->name));
    json_object_set(o, "results", f->results);
    json_object_set_new(o, "skipped", json_integer(f->skipped));
    bool ok = report_json_print(o, stdout, false);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(f->cli, "cannot write to standard output");
}

// The later of two exit statuses unless it is success.
static int worse(int status, int next) { return next != CLI_OK ? next : status; }

static int infer_pictures(Cli *c, const CnxrtProgram *p, int port, const ImageList *list) {
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
        if (status != CLI_ERROR && f.results) status = worse(status, infer_print_json(&f));
        if (status != CLI_ERROR && f.rows)
            status = worse(status, rows_write(c, &rows, &p->outputs[port], "nhwc", c->args.output));
    }
    free(f.choices);
    json_decref(f.results);
    free(rows.values);
    return status;
}

static int layout_check(Cli *c, const char **layout, const char *otherwise) {
    if (!*layout) *layout = otherwise;
    if (strcmp(*layout, "nchw") == 0 || strcmp(*layout, "nhwc") == 0) return CLI_OK;
    return cli_usage(c, "layout %s: expected nchw or nhwc", *layout);
}

// What all three commands check: pictures or tensors, not both, not none.
static int inputs_check(Cli *c) {
    CliArgs *a = &c->args;
    int status = layout_check(c, &a->layout, "nchw");
    if (status == CLI_OK) status = layout_check(c, &a->output_layout, a->layout);
    if (status != CLI_OK) return status;
    if (a->input && a->noperands)
        return cli_usage(c, "--input and pictures (%s) exclude each other", a->operands[0]);
    if (!a->input && !a->noperands)
        return cli_usage(c, "no input: give pictures, folders or archives%s; see %s %s --help",
                         c->command->letter == 'm' ? "" : ", or --input X.npy", c->self,
                         c->command->name);
    if (a->input && !a->output) return cli_usage(c, "--input needs --output Y.npy");
    if (a->input && (a->json || a->csv))
        return cli_usage(c, "--input writes logits to --output; --json and --csv are for pictures");
    if (a->json && a->csv) return cli_usage(c, "--json and --csv exclude each other");
    return CLI_OK;
}

int cli_infer(Cli *c) {
    int status = inputs_check(c), port;
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
    ImageList list = {0};
    status = cli_list(c, &list);
    if (status == CLI_OK) status = infer_pictures(c, p, port, &list);
    image_list_free(&list);
    return status;
}

typedef struct {
    Rows *rows;
    FILE *names; // or NULL
    int64_t skipped;
} Gather;

static bool gather_each(void *user, const ImageItem *item, const float *values,
                        const char *reason) {
    Gather *g = user;
    (void)reason;
    if (!values) {
        g->skipped++;
        return true;
    }
    if (g->names) fprintf(g->names, "%s\n", item->name);
    return rows_add(g->rows, values);
}

// Writes results of pictures to --output and their names to `names` (NULL: not).
static int gather_pictures(Cli *c, const CnxrtProgram *p, int port, const char *names) {
    Rows rows = {.size = port_values(&p->outputs[port])};
    Gather g = {.rows = &rows};
    ImageList list = {0};
    int status = cli_list(c, &list);
    int64_t batch = cli_picture_batch(c, &list);
    if (status == CLI_OK) status = cli_open(c, p, batch);
    if (status == CLI_OK && names && !(g.names = fopen(names, "w")))
        status = cli_fail(c, "cannot write %s", names);
    PictureRun run = {p, port, gather_each, &g};
    if (status == CLI_OK) status = cli_pictures(c, &list, batch, &run);
    bool written = !g.names || (!ferror(g.names) && fflush(g.names) == 0);
    if (g.names) fclose(g.names);
    if (!written) status = cli_fail(c, "cannot write %s", names);
    if (status != CLI_ERROR && status != CLI_USAGE)
        status = worse(
            status, rows_write(c, &rows, &p->outputs[port], c->args.output_layout, c->args.output));
    if (c->args.json && status != CLI_ERROR && status != CLI_USAGE) {
        json_t *o = json_object();
        json_object_set_new(o, "output", report_json_text(c->args.output));
        if (names) json_object_set_new(o, "names", report_json_text(names));
        json_object_set_new(o, "rows", json_integer(rows.count));
        json_object_set_new(o, "columns", json_integer(rows.size));
        json_object_set_new(o, "skipped", json_integer(g.skipped));
        if (!report_json_print(o, stdout, true)) status = CLI_ERROR;
        json_decref(o);
    }
    image_list_free(&list);
    free(rows.values);
    return status;
}

// The program and port of --stage.
static const CnxrtProgram *stage_program(Cli *c, int *port) {
    const char *stage = c->args.stage ? c->args.stage : "pooled";
    const char *program = cnxrt_program(c->model, "features") ? "features" : "infer";
    const CnxrtProgram *p = cnxrt_program(c->model, program);
    char text[256] = "";
    for (int i = 0; p && i < p->noutputs; i++) {
        const char *name = p->outputs[i].name;
        if (strncmp(name, "stage", 5) == 0) name += 5;
        if (strcmp(name, "logits") == 0) continue;
        if (strcmp(name, stage) == 0) {
            *port = i;
            return p;
        }
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s%s", n ? ", " : "", name);
    }
    if (p)
        cli_usage(c, "--stage %s: model %s has %s", stage, c->model->name, text);
    else
        cli_fail(c, "model %s was built without inference programs", c->model->name);
    return NULL;
}

int cli_features(Cli *c) {
    int status = inputs_check(c), port;
    if (status != CLI_OK) return status;
    if (!c->args.output) return cli_usage(c, "where to? give --output Y.npy");
    const CnxrtProgram *p = stage_program(c, &port);
    if (!p) return CLI_USAGE;
    if (!c->args.input) return gather_pictures(c, p, port, c->args.names);
    if (c->args.names) return cli_usage(c, "--names is for pictures, not for --input");
    Rows rows = {0};
    status = cli_tensors(c, p, port, &rows);
    if (status == CLI_OK)
        status = rows_write(c, &rows, &p->outputs[port], c->args.output_layout, c->args.output);
    free(rows.values);
    return status;
}

int cli_embed(Cli *c) {
    int status = inputs_check(c), port;
    if (status != CLI_OK) return status;
    if (!c->args.output) return cli_usage(c, "where to? give --output Y.npy");
    const char *program = cnxrt_program(c->model, "infer") ? "infer" : "features";
    const CnxrtProgram *p = cli_program(c, program, "pooled", &port);
    if (!p) return CLI_ERROR;
    if (c->args.names) return gather_pictures(c, p, port, c->args.names);
    size_t n = strlen(c->args.output),
           stem = n > 4 && !strcmp(c->args.output + n - 4, ".npy") ? n - 4 : n;
    char *names = malloc(stem + 5);
    if (!names) return cli_fail(c, "out of memory");
    snprintf(names, stem + 5, "%.*s.txt", (int)stem, c->args.output);
    status = gather_pictures(c, p, port, names);
    free(names);
    return status;
}
