// eval: accuracy over a data set with labels. Its classes are those of the model by name, by number
// or in order.
#include "cli_run.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    Cli *cli;
    const Dataset *data;
    const int *classes; // of the model, by those of the data
    Ranks ranks;
} Eval;

void ranks_add(Ranks *r, const float *scores, int classes, int label) {
    int better = 0;
    for (int i = 0; i < classes; i++)
        better += scores[i] > scores[label] || (scores[i] == scores[label] && i < label);
    r->images++;
    r->top1 += better < 1;
    r->top5 += better < 5;
}

double ranks_percent(const Ranks *r, int64_t hits) {
    return 100 * (double)hits / (r->images ? (double)r->images : 1);
}

static bool same_name(const char *folder, const char *name) {
    for (; *folder && *name; folder++, name++)
        if ((*folder == '_' ? ' ' : *folder) != (*name == '_' ? ' ' : *name)) return false;
    return *folder == *name;
}

static int class_by_name(const Cli *c, const char *folder) {
    for (int i = 0; c->names && i < c->model->classes; i++)
        if (same_name(folder, c->names[i])) return i;
    return -1;
}

static int class_by_number(const Cli *c, const char *folder) {
    int v = 0;
    for (const char *p = folder; *p; p++) {
        if (*p < '0' || *p > '9' || v > 1000000) return -1;
        v = 10 * v + (*p - '0');
    }
    return v < c->model->classes ? v : -1;
}

// Classes of the model for those of the data: all by name, all by number, or in order.
static int classes_resolve(const Cli *c, const Dataset *d, int *classes) {
    int (*const ways[])(const Cli *, const char *) = {class_by_name, class_by_number};
    int n = dataset_classes(d);
    const char *stranger = NULL;
    for (int way = 0; way < 2; way++) {
        int i = 0;
        while (i < n && (classes[i] = ways[way](c, dataset_class_name(d, i))) >= 0) i++;
        if (i == n) return CLI_OK;
        if (way == 0) stranger = dataset_class_name(d, i);
    }
    for (int i = 0; i < n; i++) classes[i] = i;
    if (n == c->model->classes) return CLI_OK;
    return cli_fail(c,
                    "%d class folders for %d classes, and %s is neither the name nor the number "
                    "of a class",
                    n, c->model->classes, stranger);
}

static bool eval_each(void *user, int64_t i, const char *name, const float *logits,
                      const char *reason) {
    Eval *e = user;
    (void)name, (void)reason;
    int label = dataset_label(e->data, i);
    if (logits && label >= 0)
        ranks_add(&e->ranks, logits, e->cli->model->classes, e->classes[label]);
    return true;
}

static int eval_print(const Cli *c, const Eval *e, int64_t listed) {
    const Ranks *r = &e->ranks;
    double top1 = ranks_percent(r, r->top1), top5 = ranks_percent(r, r->top5);
    const char *split = dataset_split(e->data);
    if (!c->args.json) {
        printf("images %lld   top-1 %.3f %%   top-5 %.3f %%\n", (long long)r->images, top1, top5);
        return CLI_OK;
    }
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(c->model->name));
    json_object_set_new(o, "split", split ? report_json_text(split) : json_null());
    json_object_set_new(o, "images", json_integer(r->images));
    json_object_set_new(o, "skipped", json_integer(listed - r->images));
    json_object_set_new(o, "top1", json_real(top1));
    json_object_set_new(o, "top5", json_real(top5));
    bool ok = report_json_print(o, stdout, true);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(c, "cannot write to standard output");
}

static int eval_run(Cli *c, const CnxrtProgram *p, int port, const Pictures *pictures) {
    int n = dataset_classes(pictures->data);
    if (!n) return cli_fail(c, "%s has no class folders with pictures", c->args.data);
    int *classes = calloc((size_t)n, sizeof *classes);
    int64_t batch = cli_picture_batch(c, pictures);
    Eval e = {.cli = c, .data = pictures->data, .classes = classes};
    PictureRun run = {p, port, eval_each, &e};
    int status = classes ? cli_open(c, p, batch) : cli_fail(c, "out of memory");
    if (status == CLI_OK) status = classes_resolve(c, pictures->data, classes);
    if (status == CLI_OK) status = cli_pictures(c, pictures, batch, &run);
    if (status == CLI_OK || status == CLI_SKIPPED)
        status = cli_worse(status, eval_print(c, &e, pictures->count));
    free(classes);
    return status;
}

int cli_eval(Cli *c) {
    int port;
    if (c->args.noperands + (c->args.data != NULL) != 1)
        return cli_usage(c, "expected one data set, a folder or archive with class folders, got %d",
                         c->args.noperands + (c->args.data != NULL));
    if (!c->args.data) c->args.data = c->args.operands[0];
    if (c->model->classes < 1)
        return cli_fail(c, "model %s has no head: nothing to compare", c->model->name);
    const CnxrtProgram *p = cli_program(c, "infer", "logits", &port);
    if (!p) return CLI_ERROR;
    Pictures pictures;
    int status = cli_pictures_data(c, c->args.data, c->args.split, NULL, &pictures);
    if (status == CLI_OK) status = eval_run(c, p, port, &pictures);
    cli_pictures_close(&pictures);
    return status;
}
