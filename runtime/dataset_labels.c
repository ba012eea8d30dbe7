// Written labels are gathered as they come; when all are known, their names or largest number
// become the classes (unless those are known), and every sample's labels indices into them.
#include "dataset_labels.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CLASSES = 1 << 24, MAX_NAME = 255 };

static const char *const members[] = {"labels", "classes", "targets", "label",
                                      "cls",    "class",   "target"};
enum { MEMBERS = sizeof members / sizeof *members };

bool labels_column(const char *name) {
    for (int i = 0; i < MEMBERS; i++)
        if (strcmp(name, members[i]) == 0) return true;
    return false;
}

CnxrtStatus label_error(const LabelPlace *at, const char *what, CnxrtError *err) {
    cnxrt_error_set(err, "%s: %s: ", at->file, at->entry);
    if (at->line) cnxrt_error_add(err, "line %lld: ", (long long)at->line);
    cnxrt_error_add(err, "%s", what);
    return CNXRT_ERROR_FORMAT;
}

// ---- reading -----------------------------------------------------------------------------------

static CnxrtStatus written_push(Dataset *d, WrittenLabel w, Sample *s, CnxrtError *err) {
    if (d->nlabels == d->label_room) {
        int64_t room = d->label_room ? 2 * d->label_room : 256;
        WrittenLabel *written = realloc(d->written, (size_t)room * sizeof *written);
        if (!written) return dataset_no_memory(err);
        d->written = written;
        d->label_room = room;
    }
    d->written[d->nlabels++] = w;
    s->nlabels++;
    return CNXRT_OK;
}

static void set_begin(const Dataset *d, Sample *s) {
    s->label = LABEL_SET;
    s->first = d->nlabels;
    s->nlabels = 0;
}

// A class of n characters without blanks around them.
static CnxrtStatus word_push(Dataset *d, const char *word, size_t n, const LabelPlace *at,
                             Sample *s, CnxrtError *err) {
    char text[MAX_NAME + 1], what[MAX_NAME + 120], *end;
    snprintf(text, sizeof text, "%.*s", (int)n, word);
    long number = strtol(text, NULL, 10);
    if (n <= strspn(word, "0123456789") && number < MAX_CLASSES)
        return written_push(d, (WrittenLabel){NULL, (int32_t)number}, s, err);
    bool numeric = strchr("0123456789+-.", *text) && (strtod(text, &end), !*end);
    if (!numeric && n <= MAX_NAME) {
        const char *name = dataset_text(d, text, n);
        return name ? written_push(d, (WrittenLabel){name, 0}, s, err) : dataset_no_memory(err);
    }
    snprintf(what, sizeof what, "expected the number (0 .. %d) or the name of a class, got %s",
             MAX_CLASSES - 1, text);
    return label_error(at, what, err);
}

CnxrtStatus labels_of_text(Dataset *d, const char *text, const LabelPlace *at, Sample *s,
                           CnxrtError *err) {
    static const char blanks[] = " \t\r\n", numbers[] = "0123456789, \t\r\n";
    const char *separators = text[strspn(text, numbers)] ? ",\r\n" : ", \t\r\n";
    CnxrtStatus status = CNXRT_OK;
    set_begin(d, s);
    for (const char *p = text; *p && status == CNXRT_OK;) {
        size_t n = strcspn(p, separators), rest = n + (p[n] != 0);
        size_t skip = strspn(p, blanks);
        const char *word = p + (skip < n ? skip : n);
        for (n -= (size_t)(word - p); n && strchr(blanks, word[n - 1]);) n--;
        if (n) status = word_push(d, word, n, at, s, err);
        p += rest;
    }
    return status;
}

static CnxrtStatus value_push(Dataset *d, const json_t *v, const LabelPlace *at, Sample *s,
                              CnxrtError *err) {
    if (json_is_string(v)) {
        const char *text = json_string_value(v);
        if (*text) return word_push(d, text, strlen(text), at, s, err);
    }
    if (json_is_integer(v)) {
        char text[32];
        int n = snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
        return word_push(d, text, (size_t)n, at, s, err);
    }
    return label_error(at, "expected the number or the name of a class, or a list of these", err);
}

CnxrtStatus labels_of_json(Dataset *d, const json_t *object, const LabelPlace *at, Sample *s,
                           CnxrtError *err) {
    const json_t *v = NULL;
    for (int i = 0; i < MEMBERS && (!v || json_is_null(v)); i++)
        v = json_object_get(object, members[i]);
    if (!v || json_is_null(v)) return CNXRT_OK;
    set_begin(d, s);
    if (!json_is_array(v)) return value_push(d, v, at, s, err);
    d->sets = true;
    CnxrtStatus status = CNXRT_OK;
    for (size_t i = 0; i < json_array_size(v) && status == CNXRT_OK; i++)
        status = value_push(d, json_array_get(v, i), at, s, err);
    return status;
}

// ---- classes ------------------------------------------------------------------------------------

static int name_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The distinct names in order become the classes.
static CnxrtStatus names_to_classes(Dataset *d, CnxrtError *err) {
    const char **names = malloc((size_t)d->nlabels * sizeof *names);
    if (!names) return dataset_no_memory(err);
    int64_t n = 0;
    for (int64_t i = 0; i < d->nlabels; i++) names[i] = d->written[i].name;
    qsort(names, (size_t)d->nlabels, sizeof *names, name_order);
    for (int64_t i = 0; i < d->nlabels; i++)
        if (!i || strcmp(names[i], names[n - 1]) != 0) names[n++] = names[i];
    CnxrtStatus s = dataset_name_classes(d, names, n, err);
    free(names);
    return s;
}

// Sets the classes. All labels are numbers, or all are names.
static CnxrtStatus classes_set(Dataset *d, CnxrtError *err) {
    int64_t named = 0;
    int32_t largest = -1;
    const WrittenLabel *w = d->written;
    for (int64_t i = 0; i < d->nlabels; i++) {
        named += w[i].name != NULL;
        if (!w[i].name && w[i].number > largest) largest = w[i].number;
    }
    if (named == d->nlabels && named) return names_to_classes(d, err);
    if (!named) return dataset_number_classes(d, (int64_t)largest + 1, err);
    int64_t i = 0;
    while (!w[i].name) i++;
    cnxrt_error_set(err, "%s: some labels are numbers (%d) and some names (%s)", d->root,
                    (int)largest, w[i].name);
    return CNXRT_ERROR_FORMAT;
}

static int id_order(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static int class_order(const void *a, const void *b) {
    return strcmp(((const WrittenLabel *)a)->name, ((const WrittenLabel *)b)->name);
}

// Names and indices of the classes by the order of their names, malloc'ed.
static WrittenLabel *classes_sort(const Dataset *d) {
    WrittenLabel *sorted = malloc(((size_t)d->nclasses + 1) * sizeof *sorted);
    if (!sorted) return NULL;
    for (int k = 0; k < d->nclasses; k++) sorted[k] = (WrittenLabel){d->classes[k], k};
    qsort(sorted, (size_t)d->nclasses, sizeof *sorted, class_order);
    return sorted;
}

static bool label_known(const DatasetOptions *o, const WrittenLabel *w) {
    if (!w->name) return w->number < o->nclasses;
    int k = 0;
    while (k < o->nclasses && strcmp(o->classes[k], w->name) != 0) k++;
    return k < o->nclasses;
}

// Adds which sample has the label that is none of the known classes.
static void mismatch_place(const Dataset *d, CnxrtError *err) {
    for (int64_t i = 0; i < d->count && d->options->classes; i++) {
        const Sample *s = &d->samples[i];
        for (int32_t k = 0; s->label == LABEL_SET && k < s->nlabels; k++) {
            if (label_known(d->options, &d->written[s->first + k])) continue;
            cnxrt_error_add(err, "; it is one of %s", s->name);
            return;
        }
    }
}

static CnxrtStatus sample_resolve(Dataset *d, Sample *s, CnxrtError *err) {
    int32_t *ids = d->labels + s->first;
    qsort(ids, (size_t)s->nlabels, sizeof *ids, id_order);
    for (int32_t i = 1; i < s->nlabels; i++) {
        if (ids[i] != ids[i - 1]) continue;
        cnxrt_error_set(err,
                        "%s: %s has class %s twice; expected the numbers or names of its classes",
                        d->root, s->name, d->classes[ids[i]]);
        return CNXRT_ERROR_FORMAT;
    }
    if (s->nlabels == 1)
        s->label = ids[0];
    else
        d->sets = true;
    return CNXRT_OK;
}

CnxrtStatus labels_resolve(Dataset *d, CnxrtError *err) {
    bool labelled = false;
    for (int64_t i = 0; i < d->count; i++) labelled |= d->samples[i].label == LABEL_SET;
    if (!labelled) return CNXRT_OK;
    CnxrtStatus s = classes_set(d, err);
    if (s == CNXRT_ERROR_MISMATCH) mismatch_place(d, err);
    if (s != CNXRT_OK) return s;
    WrittenLabel *sorted = classes_sort(d);
    d->labels = malloc(((size_t)d->nlabels + 1) * sizeof *d->labels);
    if (!sorted || !d->labels) s = dataset_no_memory(err);
    for (int64_t i = 0; i < d->nlabels && s == CNXRT_OK; i++) {
        const WrittenLabel *w = &d->written[i];
        if (w->name) w = bsearch(w, sorted, (size_t)d->nclasses, sizeof *sorted, class_order);
        d->labels[i] = w->number;
    }
    for (int64_t i = 0; i < d->count && s == CNXRT_OK; i++)
        if (d->samples[i].label == LABEL_SET) s = sample_resolve(d, &d->samples[i], err);
    free(sorted);
    free(d->written);
    d->written = NULL;
    return s;
}
