// Inside the data sets: what all sources are brought to, and the readers of formats. A source is a
// list of entries (named byte ranges of files); a reader turns those it knows into samples.
#ifndef DATASET_SOURCE_H
#define DATASET_SOURCE_H
#include "dataset.h"
#include <stdatomic.h>

typedef struct {
    char *path;
    int fd;       // >= 0: an unpacked copy; else the path is opened for each read
    int64_t size; // of the (unpacked) contents
} DataFile;

enum { FILE_BY_NAME = -1 }; // the file `name` below the data set's folder, read as a whole

typedef struct {
    const char *name; // below the folder or archive
    int32_t file;     // index, or FILE_BY_NAME
    int64_t offset, size;
} Entry;

typedef struct {
    Entry *items;
    int64_t count, room;
} Entries;

typedef enum { SAMPLE_ENCODED, SAMPLE_GREY, SAMPLE_PLANAR } SampleKind;

// What a sample's label is when it is no class: none, or any number of classes, those of the data
// set's labels from `first` on.
enum { LABEL_NONE = -1, LABEL_SET = -2 };

typedef struct {
    const char *name;
    int64_t number;               // of the picture inside `name`; -1: it is the only one
    int32_t file, label, nlabels; // nlabels, first: of LABEL_SET
    int64_t first;
    int64_t offset, size;
    int32_t width, height; // raw kinds: 1 or 3 planes of 8-bit pixels
    SampleKind kind;
} Sample;

// A class as it is written beside a picture: its name, or NULL and its number.
typedef struct {
    const char *name;
    int32_t number;
} WrittenLabel;

typedef struct TextBlock TextBlock;

struct Dataset {
    const DatasetOptions *options; // while opening
    uint64_t seed;
    void (*report)(void *user, const char *sample, const char *reason);
    void *user;
    char *root; // folder or file
    TextBlock *texts;
    DataFile *files;
    int32_t nfiles;
    Sample *samples;
    int64_t count, room;
    WrittenLabel *written; // while opening: of samples with LABEL_SET
    int32_t *labels;       // the same as classes, ascending in each sample
    int64_t nlabels, label_room;
    bool sets; // labels are lists, or not exactly one a sample
    const char **classes;
    int nclasses;
    int split;                      // that was chosen, or NO_SPLIT
    _Atomic unsigned char *corrupt; // per sample
    atomic_llong ncorrupt;
};

CnxrtStatus dataset_no_memory(CnxrtError *err);
// A copy of n bytes and a NUL that lives as long as the data set; NULL: no memory.
const char *dataset_text(Dataset *d, const char *text, size_t n);
CnxrtStatus dataset_push(Dataset *d, Sample s, CnxrtError *err);
// Takes the fd over. *index is the file's.
CnxrtStatus dataset_add_file(Dataset *d, const char *path, int fd, int64_t size, int32_t *index,
                             CnxrtError *err);
// n bytes at an offset of a file; fewer are an error.
CnxrtStatus dataset_read(const Dataset *d, int32_t file, int64_t offset, void *dst, int64_t n,
                         CnxrtError *err);
// Gives the classes the names 0 .. n-1, or checks that the known ones are that many.
CnxrtStatus dataset_number_classes(Dataset *d, int64_t n, CnxrtError *err);
// Sets the classes to n texts of the data set, or checks that the known ones are the same.
CnxrtStatus dataset_name_classes(Dataset *d, const char **names, int64_t n, CnxrtError *err);

enum { NO_SPLIT = 3 };
// Sets d->split, too. Which of the splits present (bits 1 << Split) is the one asked for; NO_SPLIT:
// there are none, all samples are taken.
CnxrtStatus dataset_choose_split(Dataset *d, unsigned present, int *split, CnxrtError *err);
// The split folder on the way to a name, or NO_SPLIT; *rest is the path below it.
int folder_split(const char *name, const char **rest);
// The splits on the way to the pictures among entries, as bits 1 << Split.
unsigned splits_present(const Entries *e);
// The split a word stands for ("train", "valid", "t10k"), or NO_SPLIT.
int split_of_word(const char *word, size_t n);

bool entries_push(Entries *e, Entry entry); // false: no memory
void entries_free(Entries *e);
// Regular files below a folder, hidden ones left out.
CnxrtStatus folder_list(Dataset *d, Entries *e, CnxrtError *err);
// Members of a tar archive (opened through data_file_open), as they come.
CnxrtStatus tar_list(Dataset *d, int32_t file, Entries *e, CnxrtError *err);
// A file of the file system, unpacked when it is gzip.
CnxrtStatus data_file_open(Dataset *d, const char *path, int32_t *file, CnxrtError *err);
bool data_file_is_tar(const Dataset *d, int32_t file);
// The contents of an entry as a range of a file; unpacks entries that are gzip files.
CnxrtStatus entry_open(Dataset *d, const Entry *entry, Entry *range, CnxrtError *err);
// All of an entry, at most `limit` bytes, NUL-terminated and malloc'ed.
CnxrtStatus entry_text(Dataset *d, const Entry *entry, int64_t limit, char **text, size_t *size,
                       CnxrtError *err);

const char *name_base(const char *name);
bool name_ends(const char *name, const char *end);

// Readers: *_matches looks at names only.
bool idx_matches(const Entries *e);
CnxrtStatus idx_load(Dataset *d, const Entries *e, CnxrtError *err);
bool idx_is_images(const Dataset *d, int32_t file);
CnxrtStatus idx_load_file(Dataset *d, int32_t file, CnxrtError *err); // d->root is the file
bool cifar_matches(const Entries *e);
CnxrtStatus cifar_load(Dataset *d, const Entries *e, CnxrtError *err);
bool shards_match(const Entries *e);  // a folder with .tar files
bool members_match(const Entries *e); // the members of a shard
CnxrtStatus shards_load(Dataset *d, const Entries *e, CnxrtError *err);
CnxrtStatus members_load(Dataset *d, const Entries *e, CnxrtError *err);
bool pattern_matches(const char *path); // name-{0000..0099}.tar
CnxrtStatus pattern_load(Dataset *d, const char *path, CnxrtError *err);
CnxrtStatus classes_load(Dataset *d, const Entries *e, CnxrtError *err); // class folders
// Pictures with metadata files, of sorted entries; *labelled is false, and nothing is loaded, when
// there are none or they hold no labels.
CnxrtStatus metadata_load(Dataset *d, const Entries *e, bool *labelled, CnxrtError *err);

#endif
