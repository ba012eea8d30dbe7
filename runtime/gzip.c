// Plain files behind the names of zlib (gzip.h).
#include "gzip.h"
#ifndef CNXRT_ZLIB
#include <stdbool.h>
#include <stdlib.h>

struct GzipFile {
    FILE *file;
    bool packed; // starts with the magic of gzip
};

gzFile gzopen(const char *path, const char *mode) {
    gzFile f = calloc(1, sizeof *f);
    if (!f || !(f->file = fopen(path, mode))) {
        free(f);
        return NULL;
    }
    f->packed = fgetc(f->file) == 0x1f && fgetc(f->file) == 0x8b;
    rewind(f->file);
    return f;
}

int gzbuffer(gzFile f, unsigned size) {
    (void)f, (void)size;
    return 0;
}

int gzread(gzFile f, void *to, unsigned n) {
    size_t got = f->packed ? 0 : fread(to, 1, n, f->file);
    return f->packed || ferror(f->file) ? -1 : (int)got;
}

long gzseek(gzFile f, long offset, int whence) {
    return fseek(f->file, offset, whence) == 0 ? ftell(f->file) : -1;
}

long gztell(gzFile f) { return ftell(f->file); }

int gzclose(gzFile f) {
    fclose(f->file);
    free(f);
    return Z_OK;
}

const char *gzerror(gzFile f, int *code) {
    *code = f->packed || ferror(f->file) ? Z_DATA_ERROR : Z_OK;
    return f->packed ? "this program was built without gzip (zlib)" : "";
}
#else
typedef int gzip_from_zlib; // a translation unit holds something
#endif
