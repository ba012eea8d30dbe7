// eval: accuracy over a data set with labels, or mean average precision where samples have sets of
// them. Its classes are those of the model by name, by number or in order.
#include "cli_run.h"
#include "set_scores.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Cli *cli;
    const Dataset *data;
    const int *classes; // of the model, by those of the data
    Ranks ranks;
    SetScores sets; // room 0: samples have one label
    int32_t *ids;   // of the model's classes, room for a set
    double loss;    // sum, of sets
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

// The labels of sample i as classes of the model.
static LabelSet labels_of_model(const Eval *e, int64_t i) {
    LabelSet s = dataset_labels(e->data, i);
    for (int32_t k = 0; k < s.count; k++) e->ids[k] = e->classes[s.ids[k]];
    return (LabelSet){e->ids, s.count};
}

static bool eval_each(void *user, int64_t i, const char *name, const float *logits,
                      const char *reason) {
    Eval *e = user;
    (void)name, (void)reason;
    LabelSet labels = labels_of_model(e, i);
    int classes = e->cli->model->classes;
    if (!logits || labels.count < 0) return true;
    if (!e->sets.room) {
        ranks_add(&e->ranks, logits, classes, labels.ids[0]);
        return true;
    }
    set_scores_add(&e->sets, logits, labels);
    e->loss += set_loss(logits, classes, labels);
    return true;
}

static void rates_json(json_t *o, double threshold, const SetRates *r) {
    json_object_set_new(o, "threshold", json_real(threshold));
    json_object_set_new(o, "precision", json_real(100 * r->precision));
    json_object_set_new(o, "recall", json_real(100 * r->recall));
    json_object_set_new(o, "f1", json_real(100 * r->f1));
}

static json_t *thresholds_json(const SetScores *s) {
    json_t *list = json_array();
    for (int i = 1; i < 10; i++) {
        SetRates r = set_scores_rates(s, 0.1 * i);
        json_t *o = json_object();
        rates_json(o, 0.1 * i, &r);
        json_array_append_new(list, o);
    }
    return list;
}

static void eval_text(const Eval *e) {
    const Ranks *r = &e->ranks;
    if (!e->sets.room) {
        printf("images %lld   top-1 %.3f %%   top-5 %.3f %%\n", (long long)r->images,
               ranks_percent(r, r->top1), ranks_percent(r, r->top5));
        return;
    }
    SetRates half = set_scores_rates(&e->sets, 0.5);
    printf("images %lld   mAP %.3f %%   F1 %.3f %% (probability 0.5)   loss %.5g\n",
           (long long)e->sets.n, 100 * set_scores_map(&e->sets), 100 * half.f1,
           e->loss / (double)(e->sets.n ? e->sets.n : 1));
}

static int eval_json(const Cli *c, const Eval *e, int64_t listed) {
    const Ranks *r = &e->ranks;
    const char *split = dataset_split(e->data);
    int64_t images = e->sets.room ? e->sets.n : r->images;
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(c->model->name));
    json_object_set_new(o, "split", split ? report_json_text(split) : json_null());
    json_object_set_new(o, "images", json_integer(images));
    json_object_set_new(o, "skipped", json_integer(listed - images));
    if (e->sets.room) {
        double map = 100 * set_scores_map(&e->sets);
        json_object_set_new(o, "map", isnan(map) ? json_null() : json_real(map));
        json_object_set_new(o, "f1", json_real(100 * set_scores_rates(&e->sets, 0.5).f1));
        json_object_set_new(o, "loss", json_real(e->loss / (double)(images ? images : 1)));
        json_object_set_new(o, "thresholds", thresholds_json(&e->sets));
    } else {
        json_object_set_new(o, "top1", json_real(ranks_percent(r, r->top1)));
        json_object_set_new(o, "top5", json_real(ranks_percent(r, r->top5)));
    }
    bool ok = report_json_print(o, stdout, true);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(c, "cannot write to standard output");
}

static int eval_open(Eval *e, int *classes, const CnxrtProgram *p, const Pictures *pictures) {
    Cli *c = e->cli;
    int64_t batch = cli_picture_batch(c, pictures);
    if (!classes || !e->ids) return cli_fail(c, "out of memory");
    if (sets_check(c->model, e->data, &c->err) != CNXRT_OK) return cli_fail(c, "%s", c->err.text);
    if (dataset_sets(e->data) && c->model->loss == CNXRT_LOSS_BCE &&
        !set_scores_open(&e->sets, pictures->count, c->model->classes))
        return cli_fail(c, "out of memory for the scores of %lld pictures",
                        (long long)pictures->count);
    int status = cli_open(c, p, batch);
    return status == CLI_OK ? classes_resolve(c, e->data, classes) : status;
}

static int eval_run(Cli *c, const CnxrtProgram *p, int port, const Pictures *pictures) {
    int n = dataset_classes(pictures->data);
    if (!n) return cli_fail(c, "%s has no labelled pictures", c->args.data);
    int *classes = calloc((size_t)n, sizeof *classes);
    Eval e = {.cli = c, .data = pictures->data, .classes = classes};
    e.ids = calloc((size_t)n, sizeof *e.ids);
    PictureRun run = {p, port, eval_each, &e};
    int status = eval_open(&e, classes, p, pictures);
    if (status == CLI_OK) status = cli_pictures(c, pictures, cli_picture_batch(c, pictures), &run);
    if (status == CLI_OK || status == CLI_SKIPPED) {
        if (c->args.json)
            status = cli_worse(status, eval_json(c, &e, pictures->count));
        else
            eval_text(&e);
    }
    set_scores_close(&e.sets);
    free(e.ids);
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
