// Where pictures come from: files, folders (recursively, sorted), tar archives (also gzipped) and
// IDX files (MNIST's, also gzipped). A list is made first, so that the work is known; then pictures
// are read one after the other and decoded wherever the caller likes.
#ifndef IMAGE_SOURCE_H
#define IMAGE_SOURCE_H
#include "image.h"

typedef enum { ITEM_FILE, ITEM_MEMBER, ITEM_RAW } ImageItemKind;

typedef struct {
    char *name;         // for people: path, archive.tar/member, pictures.gz#7
    const char *inside; // part of name below the folder or archive it was found in; name for files
    const char *path;   // the file to open
    char *problem;      // not NULL: cannot be read, and why
    ImageItemKind kind;
    int64_t offset, size; // bytes inside the (uncompressed) file, for all but ITEM_FILE
    int width, height;    // ITEM_RAW: grey pixels
} ImageItem;

typedef struct {
    ImageItem *items;
    int64_t count, room;
    char **paths; // owned
    int64_t npaths;
} ImageList;

// Adds what `path` stands for, up to `limit` items in the list (0: no limit). What cannot be read
// becomes an item with a problem. The only error is lack of memory.
CnxrtStatus image_list_add(ImageList *list, const char *path, int64_t limit, CnxrtError *err);
void image_list_free(ImageList *list);

// Keeps the current archive open: items are best read in order.
typedef struct {
    void *file; // gzFile
    const char *path;
} ImageReader;

// The bytes of an item, malloc'ed.
CnxrtStatus image_reader_read(ImageReader *r, const ImageItem *item, uint8_t **bytes, size_t *size,
                              CnxrtError *err);
void image_reader_close(ImageReader *r);
// Bytes to pixels. Independent of the reader: any number of threads may do it at once.
CnxrtStatus image_item_decode(const ImageItem *item, const uint8_t *bytes, size_t size,
                              int channels, Image *out, CnxrtError *err);

#endif
