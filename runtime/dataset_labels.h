// Labels as they are written beside pictures: one class or several, by number or by name.
#ifndef DATASET_LABELS_H
#define DATASET_LABELS_H
#include "dataset_source.h"
#include "json.h"

// Where a label is written, for messages. line 0: the whole file.
typedef struct {
    const char *file, *entry;
    int64_t line;
} LabelPlace;

CnxrtStatus label_error(const LabelPlace *at, const char *what, CnxrtError *err);

// Text of a .cls file or a CSV field: numbers separated by commas or blanks, or names separated by
// commas or line ends; empty: of no class. Sets the label of s.
CnxrtStatus labels_of_text(Dataset *d, const char *text, const LabelPlace *at, Sample *s,
                           CnxrtError *err);
// Member "labels", "classes", "targets", "label", "cls", "class" or "target" of an object, the
// first of them that is there and not null: a number, a text or a list of these. Without one the
// label of s stays.
CnxrtStatus labels_of_json(Dataset *d, const json_t *object, const LabelPlace *at, Sample *s,
                           CnxrtError *err);
// Whether a column of that name is one of labels.
bool labels_column(const char *name);

// After all samples: names the classes and turns what was written into their indices.
CnxrtStatus labels_resolve(Dataset *d, CnxrtError *err);

#endif
