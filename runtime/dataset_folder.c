// Class folders, on disk or in an archive: which splits there are, which folders are classes, and
// the samples of one split. Names alone decide; pictures are known by their file names.
#include "dataset_source.h"
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

const char *name_base(const char *name) {
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

bool name_ends(const char *name, const char *end) {
    size_t n = strlen(name), k = strlen(end);
    return n >= k && strcasecmp(name + n - k, end) == 0;
}

bool entries_push(Entries *e, Entry entry) {
    if (e->count == e->room) {
        int64_t room = e->room ? 2 * e->room : 256;
        Entry *items = realloc(e->items, (size_t)room * sizeof *items);
        if (!items) return false;
        e->items = items;
        e->room = room;
    }
    e->items[e->count++] = entry;
    return true;
}

void entries_free(Entries *e) {
    free(e->items);
    *e = (Entries){0};
}

static CnxrtStatus visit(Dataset *d, FTS *tree, FTSENT *f, size_t root, Entries *e,
                         CnxrtError *err) {
    if (f->fts_level > 0 && f->fts_name[0] == '.') {
        fts_set(tree, f, FTS_SKIP);
        return CNXRT_OK;
    }
    if (f->fts_info == FTS_DNR || f->fts_info == FTS_ERR || f->fts_info == FTS_NS) {
        cnxrt_error_set(err, "%s: %s", f->fts_path, strerror(f->fts_errno));
        return CNXRT_ERROR_IO;
    }
    if (f->fts_info != FTS_F) return CNXRT_OK;
    const char *name = dataset_text(d, f->fts_path + root, strlen(f->fts_path + root));
    int64_t size = f->fts_statp->st_size;
    if (!name || !entries_push(e, (Entry){name, FILE_BY_NAME, 0, size}))
        return dataset_no_memory(err);
    return CNXRT_OK;
}

CnxrtStatus folder_list(Dataset *d, Entries *e, CnxrtError *err) {
    char *const roots[] = {d->root, NULL};
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    if (!tree) return dataset_no_memory(err);
    size_t n = strlen(d->root), root = n + (d->root[n - 1] != '/');
    CnxrtStatus s = CNXRT_OK;
    for (FTSENT *f; s == CNXRT_OK && (f = fts_read(tree));) s = visit(d, tree, f, root, e, err);
    fts_close(tree);
    return s;
}

int split_of_word(const char *word, size_t n) {
    static const struct {
        const char *word;
        int split;
    } words[] = {{"train", SPLIT_TRAIN},  {"training", SPLIT_TRAIN}, {"val", SPLIT_VAL},
                 {"valid", SPLIT_VAL},    {"validation", SPLIT_VAL}, {"test", SPLIT_TEST},
                 {"testing", SPLIT_TEST}, {"t10k", SPLIT_TEST}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i].word) == n && strncasecmp(words[i].word, word, n) == 0)
            return words[i].split;
    return NO_SPLIT;
}

int folder_split(const char *name, const char **rest) {
    for (const char *p = name, *slash; (slash = strchr(p, '/')); p = slash + 1) {
        int split = split_of_word(p, (size_t)(slash - p));
        if (split == NO_SPLIT) continue;
        *rest = slash + 1;
        return split;
    }
    *rest = name;
    return NO_SPLIT;
}

static bool picture(const Entry *e) { return image_name_supported(name_base(e->name)); }

// Bytes at the front of every picture's path that are folders around all class folders.
static size_t prefix_length(const Entries *e) {
    for (size_t at = 0;;) {
        const char *first = NULL, *slash = NULL;
        for (int64_t i = 0; i < e->count; i++) {
            if (!picture(&e->items[i])) continue;
            const char *p = e->items[i].name + at;
            if (!first && !(slash = strchr(first = p, '/'))) return at;
            size_t n = (size_t)(slash - first) + 1;
            if (strncmp(p, first, n) != 0 || !strchr(p + n, '/')) return at;
        }
        if (!first) return at;
        at += (size_t)(slash - first) + 1;
    }
}

typedef struct {
    const char *text;
    int64_t length;
} Word;

static int word_order(const void *a, const void *b) {
    const Word *x = a, *y = b;
    int64_t n = x->length < y->length ? x->length : y->length;
    int c = memcmp(x->text, y->text, (size_t)n);
    return c ? c : (x->length > y->length) - (x->length < y->length);
}

// The class folder of a picture; length 0: it lies in none.
static Word class_of(const char *name, size_t prefix, bool splits) {
    const char *rest = name + prefix;
    if (splits) folder_split(name, &rest);
    const char *slash = strchr(rest, '/');
    return (Word){rest, slash ? slash - rest : 0};
}

unsigned splits_present(const Entries *e) {
    unsigned present = 0;
    const char *rest;
    for (int64_t i = 0; i < e->count; i++)
        if (picture(&e->items[i])) present |= 1u << folder_split(e->items[i].name, &rest);
    return present & 7;
}

// The sorted class folders of all splits become the classes.
static CnxrtStatus folders_to_classes(Dataset *d, const Word *words, int64_t n, CnxrtError *err) {
    const char **names = calloc((size_t)n + 1, sizeof *names);
    if (!names) return dataset_no_memory(err);
    CnxrtStatus s = CNXRT_OK;
    for (int64_t i = 0; i < n && s == CNXRT_OK; i++)
        if (!(names[i] = dataset_text(d, words[i].text, (size_t)words[i].length)))
            s = dataset_no_memory(err);
    if (s == CNXRT_OK) s = dataset_name_classes(d, names, n, err);
    free(names);
    return s;
}

static int label_of(const Dataset *d, Word w) {
    for (int lo = 0, hi = d->nclasses; lo < hi && !d->options->classes;) {
        int mid = (lo + hi) / 2;
        Word m = {d->classes[mid], (int64_t)strlen(d->classes[mid])};
        int c = word_order(&w, &m);
        if (c == 0) return mid;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    for (int k = 0; d->options->classes && k < d->nclasses; k++)
        if (strlen(d->classes[k]) == (size_t)w.length &&
            memcmp(d->classes[k], w.text, (size_t)w.length) == 0)
            return k;
    return -1;
}

static CnxrtStatus no_pictures(const Dataset *d, const Entries *e, CnxrtError *err) {
    const char *hint = "";
    for (int64_t i = 0; i < e->count; i++)
        if (strcmp(name_base(e->items[i].name), "data_batch_1") == 0)
            hint = " (this is CIFAR for Python; take the binary version)";
    cnxrt_error_set(err,
                    "%s: %lld files, but no .jpg or .png pictures, webdataset shards, IDX or "
                    "CIFAR files among them%s",
                    d->root, (long long)e->count, hint);
    return CNXRT_ERROR_FORMAT;
}

static CnxrtStatus samples_load(Dataset *d, const Entries *e, size_t prefix, int split,
                                CnxrtError *err) {
    CnxrtStatus s = CNXRT_OK;
    Word last = {"", 0};
    int label = -1;
    for (int64_t i = 0; i < e->count && s == CNXRT_OK; i++) {
        const Entry *x = &e->items[i];
        const char *rest;
        if (!picture(x) || (split != NO_SPLIT && folder_split(x->name, &rest) != split)) continue;
        Word w = class_of(x->name, prefix, split != NO_SPLIT);
        if (word_order(&w, &last) != 0) label = w.length ? label_of(d, w) : -1;
        last = w;
        Sample sample = {.name = x->name,
                         .number = -1,
                         .file = x->file,
                         .offset = x->offset,
                         .size = x->size,
                         .label = label,
                         .kind = SAMPLE_ENCODED};
        s = dataset_push(d, sample, err);
    }
    return s;
}

CnxrtStatus classes_load(Dataset *d, const Entries *e, CnxrtError *err) {
    unsigned present = splits_present(e);
    size_t prefix = present ? 0 : prefix_length(e);
    Word *words = malloc(((size_t)e->count + 1) * sizeof *words);
    if (!words) return dataset_no_memory(err);
    int64_t n = 0, distinct = 0, pictures = 0;
    for (int64_t i = 0; i < e->count; i++) {
        const char *rest;
        if (!picture(&e->items[i])) continue;
        pictures++;
        if (present && folder_split(e->items[i].name, &rest) == NO_SPLIT) continue;
        Word w = class_of(e->items[i].name, prefix, present != 0);
        if (w.length) words[n++] = w;
    }
    qsort(words, (size_t)n, sizeof *words, word_order);
    for (int64_t i = 0; i < n; i++)
        if (!i || word_order(&words[i], &words[distinct - 1]) != 0) words[distinct++] = words[i];
    int split = NO_SPLIT;
    CnxrtStatus s =
        pictures ? dataset_choose_split(d, present, &split, err) : no_pictures(d, e, err);
    if (s == CNXRT_OK && distinct) s = folders_to_classes(d, words, distinct, err);
    free(words);
    return s == CNXRT_OK ? samples_load(d, e, prefix, split, err) : s;
}
