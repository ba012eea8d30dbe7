// CIFAR's binary version: records of label bytes and 3 planes of 32x32. CIFAR-10 has
// data_batch_1..5.bin and test_batch.bin with one label byte and the names in batches.meta.txt;
// CIFAR-100 has train.bin and test.bin with a coarse and a fine label and fine_label_names.txt.
#include "dataset_source.h"
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, PIXELS = 3 * SIDE * SIDE, MAX_NAMES = 1 << 16 };

typedef struct {
    int labels; // label bytes of a record; the last one counts
    int classes;
    const char *names;
} Kind;

static const Kind cifar10 = {1, 10, "batches.meta.txt"};
static const Kind cifar100 = {2, 100, "fine_label_names.txt"};

static const Kind *batch_kind(const char *name, int *split) {
    const char *base = name_base(name);
    size_t n = strlen(base);
    *split = base[0] == 't' && base[1] == 'e' ? SPLIT_TEST : SPLIT_TRAIN;
    if (strcmp(base, "train.bin") == 0 || strcmp(base, "test.bin") == 0) return &cifar100;
    if (strcmp(base, "test_batch.bin") == 0) return &cifar10;
    if (n == 16 && strncmp(base, "data_batch_", 11) == 0 && strcmp(base + 12, ".bin") == 0 &&
        base[11] >= '1' && base[11] <= '9')
        return &cifar10;
    return NULL;
}

bool cifar_matches(const Entries *e) {
    int split;
    for (int64_t i = 0; i < e->count; i++)
        if (batch_kind(e->items[i].name, &split)) return true;
    return false;
}

static CnxrtStatus records_check(const Dataset *d, const Entry *x, const Kind *k, CnxrtError *err) {
    int64_t record = k->labels + PIXELS;
    if (x->size > 0 && x->size % record == 0) return CNXRT_OK;
    cnxrt_error_set(err, "%s: %s has %lld bytes, which is no multiple of CIFAR-%d's %lld a record",
                    d->root, x->name, (long long)x->size, k->classes, (long long)record);
    return CNXRT_ERROR_FORMAT;
}

static CnxrtStatus batch_load(Dataset *d, const Entry *entry, const Kind *k, CnxrtError *err) {
    Entry x;
    CnxrtStatus s = entry_open(d, entry, &x, err);
    if (s == CNXRT_OK) s = records_check(d, &x, k, err);
    int64_t record = k->labels + PIXELS;
    for (int64_t i = 0; s == CNXRT_OK && i < x.size / record; i++) {
        uint8_t label = 0;
        int64_t at = x.offset + i * record + k->labels;
        s = dataset_read(d, x.file, at - 1, &label, 1, err);
        if (s == CNXRT_OK && label >= k->classes) {
            cnxrt_error_set(err, "%s: %s: record %lld has label %d; CIFAR-%d ends at %d", d->root,
                            x.name, (long long)i, label, k->classes, k->classes - 1);
            s = CNXRT_ERROR_FORMAT;
        }
        if (s != CNXRT_OK) break;
        s = dataset_push(d,
                         (Sample){.name = x.name,
                                  .number = i,
                                  .file = x.file,
                                  .label = label,
                                  .offset = at,
                                  .size = PIXELS,
                                  .width = SIDE,
                                  .height = SIDE,
                                  .kind = SAMPLE_PLANAR},
                         err);
    }
    return s;
}

// The names in a text with one a line; numbers when there is no such file.
static CnxrtStatus names_load(Dataset *d, const Entries *e, const Kind *k, CnxrtError *err) {
    const Entry *file = NULL;
    for (int64_t i = 0; i < e->count; i++)
        if (strcmp(name_base(e->items[i].name), k->names) == 0) file = &e->items[i];
    if (!file || d->options->classes) return dataset_number_classes(d, k->classes, err);
    char *text;
    const char *names[100];
    size_t size;
    int n = 0;
    CnxrtStatus s = entry_text(d, file, MAX_NAMES, &text, &size, err);
    if (s != CNXRT_OK) return s;
    for (char *p = text; *p && n < k->classes && s == CNXRT_OK;) {
        size_t length = strcspn(p, "\r\n");
        if (length && !(names[n++] = dataset_text(d, p, length))) s = dataset_no_memory(err);
        p += length;
        while (*p == '\r' || *p == '\n') p++;
    }
    free(text);
    if (s == CNXRT_OK && n == k->classes) return dataset_name_classes(d, names, n, err);
    if (s != CNXRT_OK) return s;
    cnxrt_error_set(err, "%s: %s has %d names; CIFAR-%d has %d classes", d->root, file->name, n,
                    k->classes, k->classes);
    return CNXRT_ERROR_FORMAT;
}

CnxrtStatus cifar_load(Dataset *d, const Entries *e, CnxrtError *err) {
    unsigned present = 0;
    int split, wanted;
    const Kind *kind = NULL;
    for (int64_t i = 0; i < e->count; i++) {
        const Kind *k = batch_kind(e->items[i].name, &split);
        if (!k) continue;
        present |= 1u << split;
        if (kind && k != kind) {
            cnxrt_error_set(err, "%s: has files of CIFAR-10 and of CIFAR-100; give one of them",
                            d->root);
            return CNXRT_ERROR_FORMAT;
        }
        kind = k;
    }
    CnxrtStatus s = dataset_choose_split(d, present, &wanted, err);
    for (int64_t i = 0; i < e->count && s == CNXRT_OK; i++)
        if (batch_kind(e->items[i].name, &split) && split == wanted)
            s = batch_load(d, &e->items[i], kind, err);
    return s == CNXRT_OK ? names_load(d, e, kind, err) : s;
}
