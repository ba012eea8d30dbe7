// Pictures with labels for training and evaluation, whatever they are kept in:
//
//   folder or .tar or .tar.gz   train/CLASS/x.jpg and val/ or test/ likewise, or CLASS/x.jpg, or
//                               pictures without class folders (label -1)
//                               Instead of class folders: metadata.jsonl or metadata.csv beside
//                               the pictures, with the members file_name and label or labels
//   webdataset shards           one .tar, a folder of .tar files, or name-{0000..0099}.tar, with
//                               x.jpg next to x.cls or x.json ({"label": 3}, {"labels": [1, 5]})
//   IDX                         a folder of MNIST's four files or one images file, also .gz
//   CIFAR-10, CIFAR-100         the binary version, as folder or archive
//
// A label is the number or the name of a class. Shards and metadata may give a sample any number of
// them, none included.
//
// Archives are indexed once and read in place; gzip is unpacked to an unlinked temporary file in
// $TMPDIR. Samples are in the order of their names (shards: of the shards), so that a folder and
// its archive are the same data set. Nothing in the data is trusted.
#ifndef DATASET_H
#define DATASET_H
#include "image.h"

typedef enum { SPLIT_TRAIN, SPLIT_VAL, SPLIT_TEST } Split;

typedef struct {
    const char *path;
    Split split; // val falls back to test, and test to val
    bool whole;  // data without splits are taken whole whatever the split (train always is)
    // Known classes: labels are indices into these names, whose folders must be among them. NULL:
    // the sorted class folders of all splits, or the numbers 0 .. largest label.
    const char *const *classes;
    int nclasses;
    int min_classes; // there are at least so many where classes are numbers and none are known
    // 0 or 1: all; else about this part of each class, at least one. A sample of several classes
    // counts for the rarest of them; those of none are kept as if they were a class.
    double label_fraction;
    uint64_t seed;        // of the subset and of replacements
    int64_t unpack_limit; // bytes a .gz may hold; 0: 64 GB
    // Told of every corrupt sample once, by the thread that met it.
    void (*report)(void *user, const char *sample, const char *reason);
    void *user;
} DatasetOptions;

typedef struct Dataset Dataset;

// Indexes the data. CNXRT_ERROR_MISMATCH: there is no such split. *out is NULL on error.
CnxrtStatus dataset_open(const DatasetOptions *o, Dataset **out, CnxrtError *err);
void dataset_close(Dataset *d); // NULL is allowed

int64_t dataset_count(const Dataset *d);    // at least 1
int64_t dataset_labelled(const Dataset *d); // samples with a label
const char *
dataset_split(const Dataset *d);       // "train", "val", "test"; NULL: the data have no splits
int dataset_classes(const Dataset *d); // 0: no labels
const char *dataset_class_name(const Dataset *d, int k);
int dataset_label(const Dataset *d, int64_t i); // -1: none, or not exactly one

// The classes of a sample in ascending order.
typedef struct {
    const int32_t *ids;
    int32_t count; // -1: the sample has no label; 0: it is of none of the classes
} LabelSet;
LabelSet dataset_labels(const Dataset *d, int64_t i);
bool label_set_has(LabelSet s, int k);
// Samples are labelled by sets: as lists, or some of them not with exactly one class.
bool dataset_sets(const Dataset *d);
// The first sample that is labelled, but not with exactly one class; -1: there is none.
int64_t dataset_find_set(const Dataset *d);

// The sample's name below the path ("train/cat/1.jpg", "t10k-images-idx3-ubyte.gz#7") in buf.
const char *dataset_sample_name(const Dataset *d, int64_t i, char *buf, size_t size);

// Pixels of sample i. Any number of threads at once.
CnxrtStatus dataset_decode(const Dataset *d, int64_t i, const ImageOptions *o, Image *out,
                           CnxrtError *err);
// The same, where a corrupt sample is reported, counted and replaced by the first readable one of
// those that the stream (seed, RNG_REPLACE, 0, i) draws; *used is what was read, its label counts.
// An error after 32 replacements, or when memory runs out.
CnxrtStatus dataset_take(Dataset *d, int64_t i, const ImageOptions *o, Image *out, int64_t *used,
                         CnxrtError *err);
int64_t dataset_corrupt(const Dataset *d); // different samples found corrupt so far

#endif
