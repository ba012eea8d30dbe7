// IDX files, the format of MNIST, Fashion-MNIST, KMNIST and EMNIST: a big-endian header of
// 0 0 TYPE RANK and RANK sizes, then the values. Pictures are type 8 (bytes) of rank 3, labels type
// 8 of rank 1. A picture file is named ...images...idx3...; its labels are named the same with
// labels and idx1.
#include "dataset_source.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 16, LABEL_HEADER = 8, MAX_LABELS = 256 };

static int64_t big_endian(const uint8_t *p) {
    return (int64_t)p[0] << 24 | (int64_t)p[1] << 16 | (int64_t)p[2] << 8 | p[3];
}

static bool images_name(const char *name) {
    const char *base = name_base(name);
    return strstr(base, "images") && strstr(base, "idx3") && !name_ends(base, ".tar");
}

bool idx_matches(const Entries *e) {
    for (int64_t i = 0; i < e->count; i++)
        if (images_name(e->items[i].name)) return true;
    return false;
}

bool idx_is_images(const Dataset *d, int32_t file) {
    uint8_t head[4];
    CnxrtError err = {0};
    bool ok = d->files[file].size >= HEADER &&
              dataset_read(d, file, 0, head, sizeof head, &err) == CNXRT_OK;
    cnxrt_error_free(&err);
    return ok && memcmp(head, "\0\0\10\3", 4) == 0;
}

// The split in a file name: its words between '-', '_' and '.'.
static int name_split(const char *name) {
    const char *p = name_base(name);
    while (*p) {
        size_t n = strcspn(p, "-_.");
        int split = split_of_word(p, n);
        if (split != NO_SPLIT) return split;
        p += n + (p[n] != 0);
    }
    return NO_SPLIT;
}

// Replaces the last `from` in text by `to`.
static bool replace_last(char *text, size_t room, const char *from, const char *to) {
    char *at = NULL;
    for (char *p = text; (p = strstr(p, from)); p++) at = p;
    size_t n = strlen(from), k = strlen(to);
    if (!at || strlen(text) + k - n + 1 > room) return false;
    memmove(at + k, at + n, strlen(at + n) + 1);
    memcpy(at, to, k);
    return true;
}

// The name of the labels beside an images file, with and without .gz.
static bool labels_name(const char *images, int variant, char *name, size_t room) {
    size_t n = strlen(images);
    if (n + 16 > room) return false;
    memcpy(name, images, n + 1);
    if (!replace_last(name, room, "images", "labels") || !replace_last(name, room, "idx3", "idx1"))
        return false;
    if (variant == 0) return true;
    n = strlen(name);
    if (name_ends(name, ".gz"))
        name[n - 3] = 0;
    else
        memcpy(name + n, ".gz", 4);
    return true;
}

static const Entry *labels_find(const Entries *e, const char *images) {
    char name[4200];
    for (int variant = 0; variant < 2; variant++)
        for (int64_t i = 0; i < e->count && labels_name(images, variant, name, sizeof name); i++)
            if (strcmp(e->items[i].name, name) == 0) return &e->items[i];
    return NULL;
}

typedef struct {
    uint8_t *values; // malloc'ed; NULL: no labels
    int64_t count;
    int largest;
} Labels;

static CnxrtStatus labels_read(Dataset *d, const Entry *entry, Labels *l, CnxrtError *err) {
    Entry range;
    uint8_t head[LABEL_HEADER] = {0};
    *l = (Labels){.largest = -1};
    if (!entry) return CNXRT_OK;
    CnxrtStatus s = entry_open(d, entry, &range, err);
    if (s == CNXRT_OK && range.size >= LABEL_HEADER)
        s = dataset_read(d, range.file, range.offset, head, LABEL_HEADER, err);
    if (s != CNXRT_OK) return s;
    l->count = big_endian(head + 4);
    if (memcmp(head, "\0\0\10\1", 4) != 0 || l->count > range.size - LABEL_HEADER) {
        cnxrt_error_set(err, "%s: %s is no IDX file of labels: %lld bytes, %lld labels", d->root,
                        entry->name, (long long)range.size, (long long)l->count);
        return CNXRT_ERROR_FORMAT;
    }
    if (!(l->values = malloc((size_t)l->count + 1))) return dataset_no_memory(err);
    s = dataset_read(d, range.file, range.offset + LABEL_HEADER, l->values, l->count, err);
    for (int64_t i = 0; i < l->count && s == CNXRT_OK; i++)
        if (l->values[i] > l->largest) l->largest = l->values[i];
    if (s != CNXRT_OK) free(l->values), l->values = NULL;
    return s;
}

static CnxrtStatus pictures_add(Dataset *d, const Entry *entry, const Labels *l, CnxrtError *err) {
    Entry range;
    uint8_t head[HEADER] = {0};
    CnxrtStatus s = entry_open(d, entry, &range, err);
    if (s == CNXRT_OK && range.size >= HEADER)
        s = dataset_read(d, range.file, range.offset, head, HEADER, err);
    if (s != CNXRT_OK) return s;
    int64_t n = big_endian(head + 4), h = big_endian(head + 8), w = big_endian(head + 12);
    const char *problem = NULL;
    if (memcmp(head, "\0\0\10\3", 4) != 0)
        problem = "no IDX file of 8-bit pictures";
    else if (h < 1 || w < 1 || h > IMAGE_MAX_SIDE || w > IMAGE_MAX_SIDE)
        problem = "an IDX file with an impossible picture size";
    else if (n > (range.size - HEADER) / (h * w))
        problem = "an IDX file shorter than its header says";
    else if (l->values && l->count != n)
        problem = "an IDX file with another number of labels than pictures";
    if (problem) {
        cnxrt_error_set(err, "%s: %s is %s (%lld pictures of %lldx%lld in %lld bytes, %lld labels)",
                        d->root, entry->name, problem, (long long)n, (long long)w, (long long)h,
                        (long long)range.size, (long long)l->count);
        return CNXRT_ERROR_FORMAT;
    }
    for (int64_t i = 0; i < n && s == CNXRT_OK; i++)
        s = dataset_push(d,
                         (Sample){.name = entry->name,
                                  .number = i,
                                  .file = range.file,
                                  .label = l->values ? l->values[i] : -1,
                                  .offset = range.offset + HEADER + i * h * w,
                                  .size = h * w,
                                  .width = (int32_t)w,
                                  .height = (int32_t)h,
                                  .kind = SAMPLE_GREY},
                         err);
    return s;
}

// Classes are counted over all splits, so that they are the same for each.
static CnxrtStatus chosen_load(Dataset *d, const Entries *e, const Entry *chosen, CnxrtError *err) {
    int largest = -1;
    CnxrtStatus s = CNXRT_OK;
    for (int64_t i = 0; i < e->count && s == CNXRT_OK; i++) {
        const Entry *x = &e->items[i];
        Labels l;
        if (!images_name(x->name) && x != chosen) continue;
        s = labels_read(d, labels_find(e, x->name), &l, err);
        if (s == CNXRT_OK && l.largest > largest) largest = l.largest;
        if (s == CNXRT_OK && x == chosen) s = pictures_add(d, x, &l, err);
        free(l.values);
    }
    return s == CNXRT_OK && largest >= 0 ? dataset_number_classes(d, largest + 1, err) : s;
}

CnxrtStatus idx_load(Dataset *d, const Entries *e, CnxrtError *err) {
    unsigned present = 0;
    int split;
    for (int64_t i = 0; i < e->count; i++)
        if (images_name(e->items[i].name)) present |= 1u << name_split(e->items[i].name);
    CnxrtStatus s = dataset_choose_split(d, present & 7, &split, err);
    if (s != CNXRT_OK) return s;
    const Entry *chosen = NULL;
    for (int64_t i = 0; i < e->count; i++) {
        const Entry *x = &e->items[i];
        if (!images_name(x->name) || name_split(x->name) != split) continue;
        if (chosen) {
            cnxrt_error_set(err, "%s: %s and %s are both pictures of the split; give one of them",
                            d->root, chosen->name, x->name);
            return CNXRT_ERROR_FORMAT;
        }
        chosen = x;
    }
    return chosen_load(d, e, chosen, err);
}

CnxrtStatus idx_load_file(Dataset *d, int32_t file, CnxrtError *err) {
    int split;
    CnxrtStatus s = dataset_choose_split(d, 0, &split, err);
    if (s != CNXRT_OK) return s;
    char folder[4200], labels[4200];
    const char *base = name_base(d->root);
    size_t n = (size_t)(base - d->root);
    const char *name = dataset_text(d, base, strlen(base));
    Entry items[2] = {{name, file, 0, d->files[file].size}};
    Entries e = {items, 1, 2};
    if (!name) return dataset_no_memory(err);
    for (int variant = 0; variant < 2 && n < sizeof folder; variant++) {
        if (!labels_name(base, variant, labels, sizeof labels)) break;
        char path[8600];
        memcpy(folder, d->root, n);
        folder[n] = 0;
        snprintf(path, sizeof path, "%s%s", folder, labels);
        FILE *f = fopen(path, "rb");
        if (!f) continue;
        fclose(f);
        if ((s = data_file_open(d, path, &items[1].file, err)) != CNXRT_OK) return s;
        items[1].name = dataset_text(d, labels, strlen(labels));
        items[1].size = d->files[items[1].file].size;
        e.count = 2;
        if (!items[1].name) return dataset_no_memory(err);
        break;
    }
    return chosen_load(d, &e, &items[0], err);
}
