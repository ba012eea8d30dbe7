// Reading tar archives (v7, ustar, pax, GNU long names and sizes) through a callback.
#ifndef IMAGE_TAR_H
#define IMAGE_TAR_H
#include "image.h"

// Reads n bytes at an offset of the uncompressed archive; returns how many there were, -1 on error.
// Offsets only grow, so that a compressed stream can serve.
typedef int64_t (*TarRead)(void *user, int64_t offset, void *dst, int64_t n);

typedef struct {
    TarRead read;
    void *user;
    int64_t offset; // of the next header; start at 0
} Tar;

enum { TAR_NAME = 4096 };
typedef struct {
    char name[TAR_NAME];  // of the member, with its folders
    int64_t offset, size; // of its bytes
} TarMember;

// The next regular file. *end is set, and the member left alone, after the last one.
CnxrtStatus tar_next(Tar *tar, TarMember *member, bool *end, CnxrtError *err);

#endif
