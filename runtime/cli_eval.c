// eval: accuracy over class folders. A picture's class is the folder below the split, or, without
// splits, the folder it lies in.
#include "cli_run.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *text;
    int length;
} Word;

typedef struct {
    Word folder; // "" when the picture lies in none
    int class;
} Label;

typedef struct {
    Cli *cli;
    const Label *labels;
    int64_t next, images, top1, top5;
} Eval;

static bool word_is(Word w, const char *text) {
    return (int)strlen(text) == w.length && strncmp(w.text, text, (size_t)w.length) == 0;
}

static int word_compare(const void *a, const void *b) {
    const Word *x = a, *y = b;
    int n = x->length < y->length ? x->length : y->length;
    int d = memcmp(x->text, y->text, (size_t)n);
    return d ? d : x->length - y->length;
}

// The next folder of a path, or a word without text before the file name.
static Word path_folder(const char **path) {
    const char *slash = strchr(*path, '/');
    if (!slash) return (Word){0};
    Word w = {*path, (int)(slash - *path)};
    *path = slash + 1;
    return w;
}

// The folder after `split` (NULL: the last one) on the way to a picture.
static Word class_folder(const char *path, const char *split) {
    Word last = {0};
    for (Word w; (w = path_folder(&path)).text;) {
        if (split && word_is(w, split)) return path_folder(&path);
        last = w;
    }
    return split ? (Word){0} : last;
}

static bool has_split(const ImageList *l, const char *split) {
    for (int64_t i = 0; i < l->count; i++)
        if (!l->items[i].problem && class_folder(l->items[i].inside, split).text) return true;
    return false;
}

// Keeps the items of the split, and those with a problem.
static void keep_split(ImageList *l, const char *split) {
    int64_t n = 0;
    for (int64_t i = 0; i < l->count; i++) {
        ImageItem *item = &l->items[i];
        if (item->problem || !split || class_folder(item->inside, split).text)
            l->items[n++] = *item;
        else
            free(item->name);
    }
    l->count = n;
}

static bool same_name(Word w, const char *name) {
    if ((int)strlen(name) != w.length) return false;
    for (int i = 0; i < w.length; i++)
        if ((w.text[i] == '_' ? ' ' : w.text[i]) != (name[i] == '_' ? ' ' : name[i])) return false;
    return true;
}

static int class_by_name(const Cli *c, Word w) {
    for (int i = 0; c->names && i < c->model->classes; i++)
        if (same_name(w, c->names[i])) return i;
    return -1;
}

static int class_by_number(const Cli *c, Word w) {
    int v = 0;
    for (int i = 0; i < w.length; i++) {
        if (w.text[i] < '0' || w.text[i] > '9' || v > 1000000) return -1;
        v = 10 * v + (w.text[i] - '0');
    }
    return v < c->model->classes ? v : -1;
}

// Classes of n sorted distinct folders: all by name, all by number, or in order.
static int folders_resolve(const Cli *c, const Word *folders, int64_t n, int *classes) {
    int (*const ways[])(const Cli *, Word) = {class_by_name, class_by_number};
    Word stranger = {0};
    for (int way = 0; way < 2; way++) {
        int64_t i = 0;
        while (i < n && (classes[i] = ways[way](c, folders[i])) >= 0) i++;
        if (i == n) return CLI_OK;
        if (way == 0) stranger = folders[i];
    }
    for (int64_t i = 0; i < n; i++) classes[i] = (int)i;
    if (n == c->model->classes) return CLI_OK;
    return cli_fail(c,
                    "%lld class folders for %d classes, and %.*s is neither the name nor the "
                    "number of a class",
                    (long long)n, c->model->classes, stranger.length, stranger.text);
}

// Sorted distinct folders of the labels; returns how many.
static int64_t folders_collect(const Label *labels, int64_t n, Word *folders) {
    int64_t k = 0, distinct = 0;
    for (int64_t i = 0; i < n; i++)
        if (labels[i].folder.text) folders[k++] = labels[i].folder;
    qsort(folders, (size_t)k, sizeof *folders, word_compare);
    for (int64_t i = 0; i < k; i++)
        if (!i || word_compare(&folders[i], &folders[distinct - 1]) != 0)
            folders[distinct++] = folders[i];
    return distinct;
}

static int labels_resolve(const Cli *c, const ImageList *l, const char *split, Label *labels,
                          Word *folders, int *classes) {
    for (int64_t i = 0; i < l->count; i++)
        if (!l->items[i].problem) labels[i].folder = class_folder(l->items[i].inside, split);
    int64_t n = folders_collect(labels, l->count, folders);
    if (!n) return cli_fail(c, "%s has no class folders with pictures", c->args.operands[0]);
    int status = folders_resolve(c, folders, n, classes);
    for (int64_t i = 0; status == CLI_OK && i < l->count; i++) {
        labels[i].class = -1;
        if (!labels[i].folder.text) continue;
        const Word *w = bsearch(&labels[i].folder, folders, (size_t)n, sizeof *w, word_compare);
        labels[i].class = classes[w - folders];
    }
    return status;
}

static bool eval_each(void *user, const ImageItem *item, const float *logits, const char *reason) {
    Eval *e = user;
    (void)item, (void)reason;
    int class = e->labels[e->next++].class, better = 0;
    if (!logits || class < 0) return true;
    for (int i = 0; i < e->cli->model->classes; i++)
        better += logits[i] > logits[class] || (logits[i] == logits[class] && i < class);
    e->images++;
    e->top1 += better < 1;
    e->top5 += better < 5;
    return true;
}

static int eval_print(const Cli *c, const Eval *e, const char *split, int64_t listed) {
    double n = e->images ? (double)e->images : 1;
    double top1 = 100 * (double)e->top1 / n, top5 = 100 * (double)e->top5 / n;
    if (!c->args.json) {
        printf("images %lld   top-1 %.3f %%   top-5 %.3f %%\n", (long long)e->images, top1, top5);
        return CLI_OK;
    }
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(c->model->name));
    json_object_set_new(o, "split", split ? report_json_text(split) : json_null());
    json_object_set_new(o, "images", json_integer(e->images));
    json_object_set_new(o, "skipped", json_integer(listed - e->images));
    json_object_set_new(o, "top1", json_real(top1));
    json_object_set_new(o, "top5", json_real(top5));
    bool ok = report_json_print(o, stdout, true);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(c, "cannot write to standard output");
}

static int eval_run(Cli *c, const CnxrtProgram *p, int port, ImageList *list, const char *split) {
    size_t n = (size_t)list->count;
    Label *labels = calloc(n + 1, sizeof *labels);
    Word *folders = calloc(n + 1, sizeof *folders);
    int *classes = calloc(n + 1, sizeof *classes);
    int64_t batch = cli_picture_batch(c, list);
    Eval e = {.cli = c, .labels = labels};
    PictureRun run = {p, port, eval_each, &e};
    int status =
        labels && folders && classes ? cli_open(c, p, batch) : cli_fail(c, "out of memory");
    if (status == CLI_OK) status = labels_resolve(c, list, split, labels, folders, classes);
    ImageList part = *list; // classes are those of the whole list
    if (c->args.limit && part.count > c->args.limit) part.count = c->args.limit;
    if (status == CLI_OK) status = cli_pictures(c, &part, batch, &run);
    if ((status == CLI_OK || status == CLI_SKIPPED) &&
        eval_print(c, &e, split, part.count) != CLI_OK)
        status = CLI_ERROR;
    free(labels);
    free(folders);
    free(classes);
    return status;
}

int cli_eval(Cli *c) {
    int port;
    if (c->args.noperands != 1)
        return cli_usage(c, "expected one folder or archive with class folders, got %d operands",
                         c->args.noperands);
    if (c->model->classes < 1)
        return cli_fail(c, "model %s has no head: nothing to compare", c->model->name);
    const CnxrtProgram *p = cli_program(c, "infer", "logits", &port);
    if (!p) return CLI_ERROR;
    ImageList list = {0};
    int status = CLI_OK;
    if (image_list_add(&list, c->args.operands[0], 0, &c->err) != CNXRT_OK)
        status = cli_fail(c, "%s", c->err.text);
    const char *split = c->args.split;
    if (!split) split = has_split(&list, "val") ? "val" : has_split(&list, "test") ? "test" : NULL;
    if (status == CLI_OK && split && !has_split(&list, split))
        status = cli_fail(c, "%s has no class folders in %s", c->args.operands[0], split);
    if (status == CLI_OK) {
        keep_split(&list, split);
        status = eval_run(c, p, port, &list, split);
    }
    image_list_free(&list);
    return status;
}
