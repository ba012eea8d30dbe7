// Folders of pictures whose labels are in metadata.jsonl or metadata.csv, as the ImageFolder of
// Hugging Face datasets reads them: a row a picture, with its path below the metadata file in
// file_name and its labels in a column that labels_column knows. Splits are folders. Tables with
// neither are of something else and ignored.
#include "dataset_labels.h"
#include <stdlib.h>
#include <string.h>

#define MAX_METADATA ((int64_t)1 << 31)

typedef struct {
    Dataset *data;
    const Entries *entries;
    const Entry *file;
    LabelPlace at;
    Sample *labels; // of the entries
    bool found;     // any label
} Metadata;

static int by_name(const void *key, const void *entry) {
    return strcmp(key, ((const Entry *)entry)->name);
}

// Gives the picture of a row its labels.
static CnxrtStatus row_set(Metadata *m, const char *name, const Sample *labels, CnxrtError *err) {
    const Entries *e = m->entries;
    char path[4200], what[4300];
    int folder = (int)(name_base(m->file->name) - m->file->name);
    while (strncmp(name, "./", 2) == 0) name += 2;
    snprintf(path, sizeof path, "%.*s%s", folder, m->file->name, name);
    const Entry *x = bsearch(path, e->items, (size_t)e->count, sizeof *e->items, by_name);
    if (!x) {
        snprintf(what, sizeof what, "there is no file %s", path);
        return label_error(&m->at, what, err);
    }
    m->labels[x - e->items] = *labels;
    m->found |= labels->label != LABEL_NONE;
    return CNXRT_OK;
}

// ---- JSON lines ---------------------------------------------------------------------------------

static CnxrtStatus json_row(Metadata *m, const char *line, size_t n, CnxrtError *err) {
    json_error_t why;
    Sample labels = {.label = LABEL_NONE};
    json_t *o = json_loadb(line, n, 0, &why);
    if (!o) return label_error(&m->at, why.text, err);
    const char *name = json_string_value(json_object_get(o, "file_name"));
    CnxrtStatus s = labels_of_json(m->data, o, &m->at, &labels, err);
    if (s == CNXRT_OK && name) s = row_set(m, name, &labels, err);
    if (s == CNXRT_OK && !name && labels.label != LABEL_NONE)
        s = label_error(&m->at, "there is no file_name", err);
    json_decref(o);
    return s;
}

static CnxrtStatus json_rows(Metadata *m, char *text, CnxrtError *err) {
    CnxrtStatus s = CNXRT_OK;
    for (char *line; s == CNXRT_OK && (line = strsep(&text, "\n"));) {
        m->at.line++;
        if (line[strspn(line, " \t\r")]) s = json_row(m, line, strlen(line), err);
    }
    return s;
}

// ---- CSV ----------------------------------------------------------------------------------------

// The next field of a row, unquoted in place; *p moves behind it, *last: it ends the row.
static char *csv_field(char **p, int64_t *lines, bool *last) {
    char *field = *p, *from = *p, *to = *p;
    for (bool quoted = false; *from && (quoted || (*from != ',' && *from != '\n')); from++) {
        *lines += *from == '\n';
        if (*from != '"')
            *to++ = *from;
        else if (quoted && from[1] == '"')
            *to++ = *from++;
        else
            quoted = !quoted;
    }
    *last = *from != ',';
    *p = from + (*from != 0);
    if (*last && to > field && to[-1] == '\r') to--;
    *to = 0;
    return field;
}

enum { COLUMN_NAME, COLUMN_LABELS, COLUMNS };

// The columns of file_name and labels in the first row; -1: there is none.
static void csv_header(char **p, int64_t *lines, int column[COLUMNS]) {
    bool last = false;
    if (strncmp(*p, "\xef\xbb\xbf", 3) == 0) *p += 3;
    for (int i = 0; !last; i++) {
        const char *field = csv_field(p, lines, &last);
        if (strcmp(field, "file_name") == 0)
            column[COLUMN_NAME] = i;
        else if (labels_column(field) && column[COLUMN_LABELS] < 0)
            column[COLUMN_LABELS] = i;
    }
}

static CnxrtStatus csv_row(Metadata *m, char **p, const int column[COLUMNS], CnxrtError *err) {
    const char *fields[COLUMNS] = {NULL};
    Sample labels = {.label = LABEL_NONE};
    int64_t lines = 0;
    bool last = false;
    for (int i = 0; !last; i++) {
        const char *field = csv_field(p, &lines, &last);
        for (int k = 0; k < COLUMNS; k++)
            if (column[k] == i) fields[k] = field;
    }
    m->at.line++;
    if (!fields[COLUMN_NAME]) return label_error(&m->at, "there is no file_name", err);
    CnxrtStatus s = CNXRT_OK;
    if (fields[COLUMN_LABELS])
        s = labels_of_text(m->data, fields[COLUMN_LABELS], &m->at, &labels, err);
    m->at.line += lines;
    return s == CNXRT_OK ? row_set(m, fields[COLUMN_NAME], &labels, err) : s;
}

static CnxrtStatus csv_rows(Metadata *m, char *p, CnxrtError *err) {
    int column[COLUMNS] = {-1, -1};
    CnxrtStatus s = CNXRT_OK;
    m->at.line = 1;
    csv_header(&p, &m->at.line, column);
    if (column[COLUMN_NAME] < 0 && column[COLUMN_LABELS] < 0) return CNXRT_OK;
    if (column[COLUMN_NAME] < 0) return label_error(&m->at, "there is no column file_name", err);
    while (*p && s == CNXRT_OK) {
        bool blank = *p == '\n' || strncmp(p, "\r\n", 2) == 0;
        m->at.line += blank;
        if (blank)
            p += strcspn(p, "\n") + 1;
        else
            s = csv_row(m, &p, column, err);
    }
    return s;
}

// ---- loading ------------------------------------------------------------------------------------

static bool is_metadata(const Entry *e) {
    const char *base = name_base(e->name);
    return strcmp(base, "metadata.jsonl") == 0 || strcmp(base, "metadata.csv") == 0;
}

static CnxrtStatus file_read(Metadata *m, const Entry *file, CnxrtError *err) {
    char *text;
    size_t size;
    CnxrtStatus s = entry_text(m->data, file, MAX_METADATA, &text, &size, err);
    if (s != CNXRT_OK) return s;
    m->file = file;
    m->at = (LabelPlace){m->data->root, file->name, 0};
    s = name_ends(file->name, ".csv") ? csv_rows(m, text, err) : json_rows(m, text, err);
    free(text);
    return s;
}

// The pictures of the split; those without a row are unlabelled.
static CnxrtStatus pictures_push(Metadata *m, CnxrtError *err) {
    int split = NO_SPLIT;
    CnxrtStatus s = dataset_choose_split(m->data, splits_present(m->entries), &split, err);
    for (int64_t i = 0; i < m->entries->count && s == CNXRT_OK; i++) {
        const Entry *x = &m->entries->items[i];
        const char *rest;
        if (!image_name_supported(name_base(x->name))) continue;
        if (split != NO_SPLIT && folder_split(x->name, &rest) != split) continue;
        Sample sample = m->labels[i];
        sample.name = x->name;
        sample.number = -1;
        sample.file = x->file;
        sample.offset = x->offset;
        sample.size = x->size;
        sample.kind = SAMPLE_ENCODED;
        s = dataset_push(m->data, sample, err);
    }
    return s;
}

CnxrtStatus metadata_load(Dataset *d, const Entries *e, bool *labelled, CnxrtError *err) {
    *labelled = false;
    int64_t files = 0;
    for (int64_t i = 0; i < e->count; i++) files += is_metadata(&e->items[i]);
    if (!files) return CNXRT_OK;
    Metadata m = {.data = d, .entries = e, .labels = malloc((size_t)e->count * sizeof *m.labels)};
    CnxrtStatus s = m.labels ? CNXRT_OK : dataset_no_memory(err);
    for (int64_t i = 0; i < e->count && m.labels; i++) m.labels[i] = (Sample){.label = LABEL_NONE};
    for (int64_t i = 0; i < e->count && s == CNXRT_OK; i++)
        if (is_metadata(&e->items[i])) s = file_read(&m, &e->items[i], err);
    *labelled = m.found;
    if (s == CNXRT_OK && m.found) s = pictures_push(&m, err);
    free(m.labels);
    return s == CNXRT_OK && m.found ? labels_resolve(d, err) : s;
}
