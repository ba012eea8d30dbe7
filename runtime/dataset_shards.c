// webdataset: tar archives in which consecutive members with the same key, the name up to the first
// dot of its last part, are one sample: key.jpg with its labels in key.cls or key.json. Splits are
// words in the shards' paths (train/..., name-val-000000.tar).
#include "dataset_labels.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_TEXT = 1 << 20, MAX_SHARDS = 1000000 };

static bool is_tar(const char *name) {
    return name_ends(name, ".tar") || name_ends(name, ".tar.gz") || name_ends(name, ".tgz");
}

bool shards_match(const Entries *e) {
    for (int64_t i = 0; i < e->count; i++)
        if (is_tar(e->items[i].name)) return true;
    return false;
}

static int path_split(const char *path) {
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/-_.");
        int split = split_of_word(p, n);
        if (split != NO_SPLIT) return split;
        p += n + (p[n] != 0);
    }
    return NO_SPLIT;
}

// Length of the key, and the extension behind it.
static size_t key_length(const char *name, const char **extension) {
    const char *dot = strchr(name_base(name), '.');
    *extension = dot ? dot : name + strlen(name);
    return (size_t)(*extension - name);
}

static bool same_key(const char *a, const char *b) {
    const char *rest;
    size_t n = key_length(a, &rest);
    return key_length(b, &rest) == n && memcmp(a, b, n) == 0;
}

// A picture with nothing but its extension behind the key ("x.seg.png" is none).
static bool is_picture(const char *name) {
    const char *extension;
    key_length(name, &extension);
    return image_name_supported(extension) && !strchr(extension + 1, '.');
}

bool members_match(const Entries *e) {
    for (int64_t i = 0; i + 1 < e->count; i++)
        for (int k = 0; k < 2; k++) {
            const char *a = e->items[i + k].name, *b = e->items[i + 1 - k].name;
            if (is_picture(a) && same_key(a, b) && (name_ends(b, ".cls") || name_ends(b, ".json")))
                return true;
        }
    return false;
}

static CnxrtStatus cls_read(Dataset *d, const Entry *e, Sample *sample, CnxrtError *err) {
    LabelPlace at = {d->files[e->file].path, e->name, 0};
    char *text;
    size_t size;
    CnxrtStatus s = entry_text(d, e, MAX_TEXT, &text, &size, err);
    if (s != CNXRT_OK) return s;
    s = labels_of_text(d, text, &at, sample, err);
    free(text);
    return s;
}

static CnxrtStatus json_read(Dataset *d, const Entry *e, Sample *sample, CnxrtError *err) {
    LabelPlace at = {d->files[e->file].path, e->name, 0};
    char *text;
    size_t size;
    json_error_t why;
    CnxrtStatus s = entry_text(d, e, MAX_TEXT, &text, &size, err);
    if (s != CNXRT_OK) return s;
    json_t *o = json_loadb(text, size, 0, &why);
    free(text);
    if (!o) {
        cnxrt_error_set(err, "%s: %s: %s at byte %d", at.file, e->name, why.text, why.position);
        return CNXRT_ERROR_FORMAT;
    }
    s = labels_of_json(d, o, &at, sample, err);
    json_decref(o);
    return s;
}

// Reads the sample whose members are e[0 .. n-1]. A .cls goes before a .json.
static CnxrtStatus group_load(Dataset *d, const Entry *e, int64_t n, CnxrtError *err) {
    const Entry *picture = NULL, *cls = NULL, *json = NULL;
    for (int64_t i = 0; i < n; i++) {
        const char *extension;
        key_length(e[i].name, &extension);
        if (strcasecmp(extension, ".cls") == 0)
            cls = &e[i];
        else if (strcasecmp(extension, ".json") == 0)
            json = &e[i];
        else if (!picture && is_picture(e[i].name))
            picture = &e[i];
    }
    if (!picture) return CNXRT_OK;
    Sample sample = {.number = -1, .label = LABEL_NONE, .kind = SAMPLE_ENCODED};
    CnxrtStatus s = CNXRT_OK;
    if (cls)
        s = cls_read(d, cls, &sample, err);
    else if (json)
        s = json_read(d, json, &sample, err);
    if (s != CNXRT_OK) return s;
    sample.name = picture->name;
    sample.file = picture->file;
    sample.offset = picture->offset;
    sample.size = picture->size;
    return dataset_push(d, sample, err);
}

static CnxrtStatus groups_load(Dataset *d, const Entries *e, CnxrtError *err) {
    CnxrtStatus s = CNXRT_OK;
    for (int64_t i = 0, n; i < e->count && s == CNXRT_OK; i += n) {
        for (n = 1; i + n < e->count && same_key(e->items[i].name, e->items[i + n].name);) n++;
        s = group_load(d, &e->items[i], n, err);
    }
    return s;
}

CnxrtStatus members_load(Dataset *d, const Entries *e, CnxrtError *err) {
    int split;
    CnxrtStatus s = dataset_choose_split(d, 0, &split, err);
    if (s == CNXRT_OK) s = groups_load(d, e, err);
    return s == CNXRT_OK ? labels_resolve(d, err) : s;
}

static CnxrtStatus shard_load(Dataset *d, const Entry *shard, CnxrtError *err) {
    Entry range;
    Entries members = {0};
    CnxrtStatus s = entry_open(d, shard, &range, err);
    if (s == CNXRT_OK) s = tar_list(d, range.file, &members, err);
    if (s == CNXRT_OK) s = groups_load(d, &members, err);
    entries_free(&members);
    return s;
}

CnxrtStatus shards_load(Dataset *d, const Entries *e, CnxrtError *err) {
    unsigned present = 0;
    int split;
    for (int64_t i = 0; i < e->count; i++)
        if (is_tar(e->items[i].name)) present |= 1u << path_split(e->items[i].name);
    CnxrtStatus s = dataset_choose_split(d, present & 7, &split, err);
    for (int64_t i = 0; i < e->count && s == CNXRT_OK; i++) {
        const char *name = e->items[i].name;
        if (is_tar(name) && (split == NO_SPLIT || path_split(name) == split))
            s = shard_load(d, &e->items[i], err);
    }
    return s == CNXRT_OK ? labels_resolve(d, err) : s;
}

// PREFIX{FIRST..LAST}SUFFIX, numbers padded to the width of FIRST.
typedef struct {
    int prefix, width;
    long long first, last;
    const char *suffix;
} Pattern;

static bool pattern_parse(const char *path, Pattern *p) {
    const char *open = strchr(path, '{'), *close = open ? strchr(open, '}') : NULL;
    int used = 0;
    if (!close || !is_tar(path)) return false;
    if (sscanf(open, "{%18lld..%18lld}%n", &p->first, &p->last, &used) != 2 || !used) return false;
    p->prefix = (int)(open - path);
    p->width = (int)strcspn(open + 1, ".");
    p->suffix = close + 1;
    return p->first >= 0 && p->last >= p->first && p->last - p->first < MAX_SHARDS;
}

bool pattern_matches(const char *path) {
    Pattern p;
    return pattern_parse(path, &p);
}

CnxrtStatus pattern_load(Dataset *d, const char *path, CnxrtError *err) {
    Pattern p;
    int split;
    CnxrtStatus s = dataset_choose_split(d, 0, &split, err);
    if (!pattern_parse(path, &p)) return CNXRT_ERROR_ARGUMENT;
    for (long long i = p.first; i <= p.last && s == CNXRT_OK; i++) {
        char name[4200];
        int n = snprintf(name, sizeof name, "%.*s%0*lld%s", p.prefix, path, p.width, i, p.suffix);
        Entries members = {0};
        int32_t file;
        if (n < 0 || (size_t)n >= sizeof name) return dataset_no_memory(err);
        s = data_file_open(d, name, &file, err);
        if (s == CNXRT_OK) s = tar_list(d, file, &members, err);
        if (s == CNXRT_OK) s = groups_load(d, &members, err);
        entries_free(&members);
    }
    return s == CNXRT_OK ? labels_resolve(d, err) : s;
}
