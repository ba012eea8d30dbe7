// features, embed: intermediate results of pictures, data sets or tensors, written as .npy.
#include "cli_run.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const Dataset *data; // NULL: pictures without labels
    Rows rows;
    int64_t *labels; // of the rows: a class, or of sets a 0 or 1 a class; room for every picture
    int64_t columns; // of labels
    FILE *names;     // or NULL
    int64_t skipped;
} Gather;

// -1 where the sample has no label.
static void labels_write(const Gather *g, int64_t i, int64_t *row) {
    LabelSet s = dataset_labels(g->data, i);
    bool sets = dataset_sets(g->data);
    for (int64_t k = 0; k < g->columns; k++) row[k] = s.count < 0 || !sets ? -1 : 0;
    for (int32_t k = 0; k < s.count; k++) row[sets ? s.ids[k] : 0] = sets ? 1 : s.ids[k];
}

static bool gather_each(void *user, int64_t i, const char *name, const float *values,
                        const char *reason) {
    Gather *g = user;
    (void)reason;
    if (!values) {
        g->skipped++;
        return true;
    }
    if (g->names) fprintf(g->names, "%s\n", name);
    if (g->data) labels_write(g, i, g->labels + g->rows.count * g->columns);
    return rows_add(&g->rows, values);
}

// What is written beside --output: names of the pictures and labels of the samples; NULL: not.
typedef struct {
    const char *names, *labels;
} Beside;

static int gather_write(Cli *c, const Gather *g, const CnxrtPort *port, const Beside *b) {
    int status = rows_write(c, &g->rows, port, c->args.output_layout, c->args.output);
    const int64_t dims[] = {g->rows.count, g->columns};
    int rank = g->data && dataset_sets(g->data) ? 2 : 1;
    if (status == CLI_OK && g->data && b->labels &&
        cnxrt_npy_write_i64(b->labels, rank, dims, g->labels, &c->err) != CNXRT_OK)
        status = cli_fail(c, "%s", c->err.text);
    if (!c->args.json || status != CLI_OK) return status;
    json_t *o = json_object();
    json_object_set_new(o, "output", report_json_text(c->args.output));
    if (b->names) json_object_set_new(o, "names", report_json_text(b->names));
    if (g->data && b->labels) json_object_set_new(o, "labels", report_json_text(b->labels));
    json_object_set_new(o, "rows", json_integer(g->rows.count));
    json_object_set_new(o, "columns", json_integer(g->rows.size));
    json_object_set_new(o, "skipped", json_integer(g->skipped));
    if (!report_json_print(o, stdout, true)) status = CLI_ERROR;
    json_decref(o);
    return status;
}

static int gather_run(Cli *c, const Pictures *p, const PictureRun *run, Gather *g,
                      const Beside *b) {
    int64_t batch = cli_picture_batch(c, p);
    int status = cli_open(c, run->program, batch);
    if (status != CLI_OK) return status;
    if (b->names && !(g->names = fopen(b->names, "w")))
        return cli_fail(c, "cannot write %s", b->names);
    status = cli_pictures(c, p, batch, run);
    bool written = !g->names || (!ferror(g->names) && fflush(g->names) == 0);
    if (g->names) fclose(g->names);
    return written ? status : cli_fail(c, "cannot write %s", b->names);
}

// Writes results of pictures to --output, and what belongs beside it.
static int gather_pictures(Cli *c, const CnxrtProgram *p, int port, const Beside *b) {
    Pictures pictures;
    int status = c->args.data ? cli_pictures_data(c, c->args.data, c->args.split, NULL, &pictures)
                              : cli_pictures_list(c, &pictures);
    Gather g = {.data = pictures.data, .rows = {.size = port_values(&p->outputs[port])}};
    PictureRun run = {p, port, gather_each, &g};
    g.columns = g.data && dataset_sets(g.data) ? dataset_classes(g.data) : 1;
    if (g.data && !(g.labels = calloc((size_t)(pictures.count * g.columns), sizeof *g.labels)))
        status = cli_fail(c, "out of memory");
    if (status == CLI_OK) status = gather_run(c, &pictures, &run, &g, b);
    if (status == CLI_OK || status == CLI_SKIPPED)
        status = cli_worse(status, gather_write(c, &g, &p->outputs[port], b));
    cli_pictures_close(&pictures);
    free(g.rows.values);
    free(g.labels);
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
    int status = cli_inputs_check(c), port;
    if (status != CLI_OK) return status;
    if (!c->args.output) return cli_usage(c, "where to? give --output Y.npy");
    const CnxrtProgram *p = stage_program(c, &port);
    if (!p) return CLI_USAGE;
    if (!c->args.input) return gather_pictures(c, p, port, &(Beside){.names = c->args.names});
    if (c->args.names) return cli_usage(c, "--names is for pictures, not for --input");
    Rows rows = {0};
    status = cli_tensors(c, p, port, &rows);
    if (status == CLI_OK)
        status = rows_write(c, &rows, &p->outputs[port], c->args.output_layout, c->args.output);
    free(rows.values);
    return status;
}

const CnxrtProgram *cli_pooled(const Cli *c, int *port) {
    return cli_program(c, cnxrt_program(c->model, "infer") ? "infer" : "features", "pooled", port);
}

// --output without .npy, then `end`; NULL: no memory.
static char *beside(const Cli *c, const char *end) {
    const char *path = c->args.output;
    size_t n = strlen(path), stem = n > 4 && !strcmp(path + n - 4, ".npy") ? n - 4 : n;
    char *text = malloc(stem + strlen(end) + 1);
    if (text) sprintf(text, "%.*s%s", (int)stem, path, end);
    return text;
}

int cli_embed(Cli *c) {
    int status = cli_inputs_check(c), port;
    if (status != CLI_OK) return status;
    if (!c->args.output) return cli_usage(c, "where to? give --output Y.npy");
    if (!c->args.data && (c->args.labels || c->args.split))
        return cli_usage(c, "--labels and --split are for --data");
    const CnxrtProgram *p = cli_pooled(c, &port);
    if (!p) return CLI_ERROR;
    char *names = beside(c, ".txt"), *labels = beside(c, ".labels.npy");
    Beside b = {c->args.names ? c->args.names : names, c->args.labels ? c->args.labels : labels};
    status = names && labels ? gather_pictures(c, p, port, &b) : cli_fail(c, "out of memory");
    free(names);
    free(labels);
    return status;
}
