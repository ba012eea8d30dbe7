// Opening data sets (source -> entries -> samples), their classes and subsets, and reading samples.
#include "dataset_source.h"
#include "rng.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_BLOCK = 1 << 16, REPLACEMENTS = 32 };

struct TextBlock {
    TextBlock *next;
    size_t used, size;
    char bytes[];
};

CnxrtStatus dataset_no_memory(CnxrtError *err) {
    cnxrt_error_set(err, "out of memory for the list of samples");
    return CNXRT_ERROR_MEMORY;
}

const char *dataset_text(Dataset *d, const char *text, size_t n) {
    TextBlock *b = d->texts;
    if (!b || b->size - b->used < n + 1) {
        size_t size = n + 1 > TEXT_BLOCK ? n + 1 : TEXT_BLOCK;
        if (!(b = malloc(sizeof *b + size))) return NULL;
        *b = (TextBlock){.next = d->texts, .size = size};
        d->texts = b;
    }
    char *copy = b->bytes + b->used;
    memcpy(copy, text, n);
    copy[n] = 0;
    b->used += n + 1;
    return copy;
}

CnxrtStatus dataset_push(Dataset *d, Sample s, CnxrtError *err) {
    if (d->count == d->room) {
        int64_t room = d->room ? 2 * d->room : 256;
        Sample *samples = realloc(d->samples, (size_t)room * sizeof *samples);
        if (!samples) return dataset_no_memory(err);
        d->samples = samples;
        d->room = room;
    }
    d->samples[d->count++] = s;
    return CNXRT_OK;
}

CnxrtStatus dataset_add_file(Dataset *d, const char *path, int fd, int64_t size, int32_t *index,
                             CnxrtError *err) {
    DataFile *files = realloc(d->files, (size_t)(d->nfiles + 1) * sizeof *files);
    if (files) d->files = files;
    char *copy = files ? strdup(path) : NULL;
    if (!copy) {
        if (fd >= 0) close(fd);
        return dataset_no_memory(err);
    }
    *index = d->nfiles;
    d->files[d->nfiles++] = (DataFile){copy, fd, size};
    return CNXRT_OK;
}

CnxrtStatus dataset_read(const Dataset *d, int32_t file, int64_t offset, void *dst, int64_t n,
                         CnxrtError *err) {
    const DataFile *f = &d->files[file];
    int fd = f->fd >= 0 ? f->fd : open(f->path, O_RDONLY | O_CLOEXEC);
    int64_t done = 0;
    ssize_t k = fd < 0 ? -1 : 1;
    while (done < n && k > 0) {
        k = pread(fd, (char *)dst + done, (size_t)(n - done), (off_t)(offset + done));
        if (k < 0 && errno == EINTR)
            k = 1;
        else if (k > 0)
            done += k;
    }
    if (k < 0)
        cnxrt_error_set(err, "cannot read %s: %s", f->path, strerror(errno));
    else if (done < n)
        cnxrt_error_set(err, "truncated: %s ends %lld bytes early", f->path, (long long)(n - done));
    if (fd >= 0 && f->fd < 0) close(fd);
    return done == n ? CNXRT_OK : CNXRT_ERROR_IO;
}

CnxrtStatus dataset_name_classes(Dataset *d, const char **names, int64_t n, CnxrtError *err) {
    const DatasetOptions *o = d->options;
    if (n > INT32_MAX / 2) {
        cnxrt_error_set(err, "%s: %lld classes", d->root, (long long)n);
        return CNXRT_ERROR_FORMAT;
    }
    int known = o->classes ? o->nclasses : (int)n;
    const char **classes = calloc((size_t)known + 1, sizeof *classes);
    if (!classes) return dataset_no_memory(err);
    d->classes = classes;
    d->nclasses = known;
    for (int k = 0; k < known; k++) {
        const char *name = o->classes ? o->classes[k] : names[k];
        if (!(classes[k] = dataset_text(d, name, strlen(name)))) return dataset_no_memory(err);
    }
    for (int64_t i = 0; i < n && o->classes; i++) {
        int k = 0;
        while (k < known && strcmp(classes[k], names[i]) != 0) k++;
        if (k < known) continue;
        cnxrt_error_set(err, "%s: class %s is none of the %d known classes (%s, ...)", d->root,
                        names[i], known, known ? classes[0] : "none");
        return CNXRT_ERROR_MISMATCH;
    }
    return CNXRT_OK;
}

CnxrtStatus dataset_number_classes(Dataset *d, int64_t n, CnxrtError *err) {
    const DatasetOptions *o = d->options;
    if (!o->classes && n < o->min_classes) n = o->min_classes;
    if (o->classes && n > o->nclasses) {
        cnxrt_error_set(err, "%s: a label is %lld; there are %d known classes", d->root,
                        (long long)n - 1, o->nclasses);
        return CNXRT_ERROR_MISMATCH;
    }
    if (o->classes) return dataset_name_classes(d, NULL, 0, err);
    const char **names = calloc((size_t)n + 1, sizeof *names);
    CnxrtStatus s = names ? CNXRT_OK : dataset_no_memory(err);
    for (int64_t i = 0; i < n && s == CNXRT_OK; i++) {
        char number[24];
        int length = snprintf(number, sizeof number, "%lld", (long long)i);
        if (!(names[i] = dataset_text(d, number, (size_t)length))) s = dataset_no_memory(err);
    }
    if (s == CNXRT_OK) s = dataset_name_classes(d, names, n, err);
    free(names);
    return s;
}

static const char *const split_names[] = {"train", "val", "test"};

CnxrtStatus dataset_choose_split(Dataset *d, unsigned present, int *split, CnxrtError *err) {
    Split want = d->options->split, other = want == SPLIT_TEST ? SPLIT_VAL : SPLIT_TEST;
    *split = NO_SPLIT;
    if (!present && (want == SPLIT_TRAIN || d->options->whole)) return CNXRT_OK;
    if (present & 1u << want) {
        *split = (int)want;
    } else if (want != SPLIT_TRAIN && present & 1u << other) {
        *split = (int)other;
    } else {
        cnxrt_error_set(err, "%s: there is no %s split%s%s", d->root, split_names[want],
                        want == SPLIT_TRAIN ? "" : " and no ",
                        want == SPLIT_TRAIN ? "" : split_names[other]);
        return CNXRT_ERROR_MISMATCH;
    }
    d->split = *split;
    return CNXRT_OK;
}

static int entry_order(const void *a, const void *b) {
    return strcmp(((const Entry *)a)->name, ((const Entry *)b)->name);
}

// Entries in the order of their names, by the first reader that knows them. Members of a shard
// belong together as they stand.
static CnxrtStatus entries_load(Dataset *d, Entries *e, bool archive, CnxrtError *err) {
    if (archive && members_match(e)) return members_load(d, e, err);
    if (e->count) qsort(e->items, (size_t)e->count, sizeof *e->items, entry_order);
    if (cifar_matches(e)) return cifar_load(d, e, err);
    if (idx_matches(e)) return idx_load(d, e, err);
    if (!archive && shards_match(e)) return shards_load(d, e, err);
    bool labelled = false;
    CnxrtStatus s = metadata_load(d, e, &labelled, err);
    return s == CNXRT_OK && !labelled ? classes_load(d, e, err) : s;
}

static CnxrtStatus file_load(Dataset *d, Entries *e, CnxrtError *err) {
    int32_t file;
    CnxrtStatus s = data_file_open(d, d->root, &file, err);
    if (s != CNXRT_OK) return s;
    if (idx_is_images(d, file)) return idx_load_file(d, file, err);
    if (!data_file_is_tar(d, file)) {
        cnxrt_error_set(err,
                        "%s: expected a folder, a .tar or .tar.gz archive or an IDX file of "
                        "pictures",
                        d->root);
        return CNXRT_ERROR_FORMAT;
    }
    s = tar_list(d, file, e, err);
    return s == CNXRT_OK ? entries_load(d, e, true, err) : s;
}

static CnxrtStatus source_load(Dataset *d, CnxrtError *err) {
    struct stat st;
    Entries e = {0};
    CnxrtStatus s;
    if (stat(d->root, &st) != 0) {
        if (pattern_matches(d->root)) return pattern_load(d, d->root, err);
        cnxrt_error_set(err, "%s: %s", d->root, strerror(errno));
        return CNXRT_ERROR_IO;
    }
    if (S_ISDIR(st.st_mode)) {
        s = folder_list(d, &e, err);
        if (s == CNXRT_OK) s = entries_load(d, &e, false, err);
    } else {
        s = file_load(d, &e, err);
    }
    entries_free(&e);
    return s;
}

typedef struct {
    int64_t *order, *keep; // samples by group; flags
    int64_t *start;        // of each group in order, and the end
    int64_t *members;      // seen so far of each group
    int64_t *frequency;    // of each class
} Subset;

// Samples are drawn by groups: their class, of several the rarest (the first of equals), or, behind
// the classes, none of them. LABEL_NONE: no label.
static int subset_group(const Dataset *d, const Subset *u, int64_t i) {
    LabelSet s = dataset_labels(d, i);
    int group = s.count < 0 ? LABEL_NONE : s.count == 0 ? d->nclasses : (int)s.ids[0];
    for (int32_t k = 1; k < s.count; k++)
        if (u->frequency[s.ids[k]] < u->frequency[group]) group = s.ids[k];
    return group;
}

static void subset_count(const Dataset *d, Subset *u) {
    for (int64_t i = 0; i < d->count; i++) {
        LabelSet s = dataset_labels(d, i);
        for (int32_t k = 0; k < s.count; k++) u->frequency[s.ids[k]]++;
    }
    for (int64_t i = 0; i < d->count; i++) {
        int group = subset_group(d, u, i);
        if (group >= 0) u->start[group + 1]++;
    }
    for (int k = 0; k <= d->nclasses; k++) u->start[k + 1] += u->start[k];
}

// Keeps max(1, round(fraction n)) of each group's n samples, those that come first in the
// permutation drawn for the group. Samples without label are left out.
static void subset_choose(const Dataset *d, double fraction, Subset *u) {
    subset_count(d, u);
    for (int k = 0; k <= d->nclasses; k++) {
        int64_t n = u->start[k + 1] - u->start[k];
        Rng r = rng_stream(d->seed, RNG_SUBSET, 0, (uint64_t)k);
        rng_permutation(&r, n, u->order + u->start[k]);
    }
    for (int64_t i = 0; i < d->count; i++) {
        int k = subset_group(d, u, i);
        if (k < 0) continue;
        int64_t n = u->start[k + 1] - u->start[k];
        int64_t wanted = (int64_t)floor(fraction * (double)n + 0.5);
        // The permutation gives each member its rank.
        u->keep[i] = u->order[u->start[k] + u->members[k]++] < (wanted ? wanted : 1);
    }
}

static CnxrtStatus subset_apply(Dataset *d, double fraction, CnxrtError *err) {
    if (fraction == 0 || fraction == 1) return CNXRT_OK;
    if (!(fraction > 0 && fraction < 1)) {
        cnxrt_error_set(err, "a label fraction of %g; expected more than 0, at most 1", fraction);
        return CNXRT_ERROR_ARGUMENT;
    }
    size_t n = (size_t)d->count, groups = (size_t)d->nclasses + 1;
    int64_t *memory = calloc(2 * n + 3 * groups + 1, sizeof *memory);
    if (!memory) return dataset_no_memory(err);
    Subset u = {.order = memory, .keep = memory + n, .members = memory + 2 * n};
    u.frequency = u.members + groups;
    u.start = u.frequency + groups;
    subset_choose(d, fraction, &u);
    int64_t kept = 0;
    for (int64_t i = 0; i < d->count; i++)
        if (u.keep[i]) d->samples[kept++] = d->samples[i];
    free(memory);
    d->count = kept;
    if (kept) return CNXRT_OK;
    cnxrt_error_set(err, "%s: a label fraction of %g of samples without labels", d->root, fraction);
    return CNXRT_ERROR_MISMATCH;
}

static CnxrtStatus dataset_build(Dataset *d, CnxrtError *err) {
    CnxrtStatus s = source_load(d, err);
    if (s == CNXRT_OK && d->count == 0) {
        cnxrt_error_set(err, "%s: there are no samples", d->root);
        s = CNXRT_ERROR_FORMAT;
    }
    if (s == CNXRT_OK) s = subset_apply(d, d->options->label_fraction, err);
    if (s != CNXRT_OK) return s;
    d->corrupt = calloc((size_t)d->count, 1);
    return d->corrupt ? CNXRT_OK : dataset_no_memory(err);
}

CnxrtStatus dataset_open(const DatasetOptions *o, Dataset **out, CnxrtError *err) {
    *out = NULL;
    Dataset *d = calloc(1, sizeof *d);
    if (!d) return dataset_no_memory(err);
    d->options = o;
    d->split = NO_SPLIT;
    d->seed = o->seed;
    d->report = o->report;
    d->user = o->user;
    d->root = strdup(*o->path ? o->path : ".");
    size_t n = d->root ? strlen(d->root) : 0;
    while (n > 1 && d->root[n - 1] == '/') d->root[--n] = 0;
    CnxrtStatus s = d->root ? dataset_build(d, err) : dataset_no_memory(err);
    d->options = NULL;
    if (s == CNXRT_OK)
        *out = d;
    else
        dataset_close(d);
    return s;
}

void dataset_close(Dataset *d) {
    if (!d) return;
    for (int32_t i = 0; i < d->nfiles; i++) {
        free(d->files[i].path);
        if (d->files[i].fd >= 0) close(d->files[i].fd);
    }
    for (TextBlock *b = d->texts, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(d->files);
    free(d->samples);
    free(d->written);
    free(d->labels);
    free(d->classes);
    free((void *)d->corrupt);
    free(d->root);
    free(d);
}

int64_t dataset_count(const Dataset *d) { return d->count; }

int64_t dataset_labelled(const Dataset *d) {
    int64_t n = 0;
    for (int64_t i = 0; i < d->count; i++) n += d->samples[i].label != LABEL_NONE;
    return n;
}

const char *dataset_split(const Dataset *d) {
    return d->split == NO_SPLIT ? NULL : split_names[d->split];
}

int dataset_classes(const Dataset *d) { return d->nclasses; }
const char *dataset_class_name(const Dataset *d, int k) { return d->classes[k]; }

int dataset_label(const Dataset *d, int64_t i) {
    int label = d->samples[i].label;
    return label == LABEL_SET ? LABEL_NONE : label;
}

LabelSet dataset_labels(const Dataset *d, int64_t i) {
    const Sample *s = &d->samples[i];
    if (s->label == LABEL_SET) return (LabelSet){d->labels + s->first, s->nlabels};
    return (LabelSet){&s->label, s->label == LABEL_NONE ? -1 : 1};
}

bool label_set_has(LabelSet s, int k) {
    for (int32_t i = 0; i < s.count; i++)
        if (s.ids[i] == k) return true;
    return false;
}

bool dataset_sets(const Dataset *d) { return d->sets; }

int64_t dataset_find_set(const Dataset *d) {
    for (int64_t i = 0; i < d->count; i++)
        if (d->samples[i].label == LABEL_SET) return i;
    return -1;
}

int64_t dataset_corrupt(const Dataset *d) { return atomic_load(&d->ncorrupt); }

const char *dataset_sample_name(const Dataset *d, int64_t i, char *buf, size_t size) {
    const Sample *s = &d->samples[i];
    if (s->number >= 0)
        snprintf(buf, size, "%s#%lld", s->name, (long long)s->number);
    else
        snprintf(buf, size, "%s", s->name);
    return buf;
}

static CnxrtStatus sample_bytes(const Dataset *d, const Sample *s, uint8_t **bytes, size_t *size,
                                CnxrtError *err) {
    if (s->file == FILE_BY_NAME) {
        char path[4096];
        int n = snprintf(path, sizeof path, "%s/%s", d->root, s->name);
        if (n > 0 && (size_t)n < sizeof path) return image_file_read(path, bytes, size, err);
        cnxrt_error_set(err, "the path is too long");
        return CNXRT_ERROR_IO;
    }
    if (s->size > IMAGE_MAX_FILE) {
        cnxrt_error_set(err, "larger than %lld MB", (long long)(IMAGE_MAX_FILE >> 20));
        return CNXRT_ERROR_FORMAT;
    }
    if (!(*bytes = malloc(s->size ? (size_t)s->size : 1))) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    *size = (size_t)s->size;
    CnxrtStatus status = dataset_read(d, s->file, s->offset, *bytes, s->size, err);
    if (status != CNXRT_OK) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}

// Three planes become interleaved pixels.
static CnxrtStatus planar_decode(const Sample *s, const uint8_t *planes, int channels, Image *out,
                                 CnxrtError *err) {
    size_t n = (size_t)s->width * (size_t)s->height;
    uint8_t *pixels = malloc(3 * n);
    if (!pixels) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 3; k++) pixels[3 * i + k] = planes[k * n + i];
    CnxrtStatus status = image_from_pixels(pixels, s->width, s->height, 3, channels, out, err);
    free(pixels);
    return status;
}

CnxrtStatus dataset_decode(const Dataset *d, int64_t i, const ImageOptions *o, Image *out,
                           CnxrtError *err) {
    const Sample *s = &d->samples[i];
    uint8_t *bytes;
    size_t size;
    *out = (Image){0};
    CnxrtStatus status = sample_bytes(d, s, &bytes, &size, err);
    if (status != CNXRT_OK) return status;
    switch (s->kind) {
    case SAMPLE_ENCODED: status = image_decode(bytes, size, o, out, err); break;
    case SAMPLE_GREY:
        status = image_from_pixels(bytes, s->width, s->height, 1, o->channels, out, err);
        break;
    case SAMPLE_PLANAR: status = planar_decode(s, bytes, o->channels, out, err); break;
    }
    free(bytes);
    if (status == CNXRT_OK && s->kind != SAMPLE_ENCODED && o->shrink)
        (void)o->shrink(o->user, s->width, s->height);
    return status;
}

static void corrupt_report(Dataset *d, int64_t i, const char *reason) {
    char name[4200];
    if (atomic_exchange(&d->corrupt[i], 1)) return;
    atomic_fetch_add(&d->ncorrupt, 1);
    if (d->report) d->report(d->user, dataset_sample_name(d, i, name, sizeof name), reason);
}

CnxrtStatus dataset_take(Dataset *d, int64_t i, const ImageOptions *o, Image *out, int64_t *used,
                         CnxrtError *err) {
    Rng r = rng_stream(d->seed, RNG_REPLACE, 0, (uint64_t)i);
    *used = i;
    for (int n = 0; n <= REPLACEMENTS; n++) {
        CnxrtError why = {0};
        CnxrtStatus s = dataset_decode(d, *used, o, out, &why);
        if (s == CNXRT_ERROR_MEMORY) cnxrt_error_set(err, "%s", why.text ? why.text : "no memory");
        if (s != CNXRT_OK && s != CNXRT_ERROR_MEMORY)
            corrupt_report(d, *used, why.text ? why.text : "cannot be read");
        cnxrt_error_free(&why);
        if (s == CNXRT_OK || s == CNXRT_ERROR_MEMORY) return s;
        *used = rng_below(&r, d->count);
    }
    char name[4200];
    cnxrt_error_set(err, "%s: %s and %d samples drawn in its place are corrupt", d->root,
                    dataset_sample_name(d, i, name, sizeof name), REPLACEMENTS);
    return CNXRT_ERROR_FORMAT;
}
