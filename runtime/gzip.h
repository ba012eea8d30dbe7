// Files that may be gzip: zlib or, where a build has none, its functions for plain files, to which
// gzip files are an error.
#ifndef CNXRT_GZIP_H
#define CNXRT_GZIP_H
#ifdef CNXRT_ZLIB
#include <zlib.h>
#else
#include <stdio.h>

typedef struct GzipFile *gzFile;
enum { Z_OK = 0, Z_DATA_ERROR = -3, Z_BUF_ERROR = -5 };

gzFile gzopen(const char *path, const char *mode);
int gzbuffer(gzFile f, unsigned size);
int gzread(gzFile f, void *to, unsigned n); // -1: error, see gzerror
long gzseek(gzFile f, long offset, int whence);
long gztell(gzFile f);
int gzclose(gzFile f);
const char *gzerror(gzFile f, int *code);
#endif
#endif
