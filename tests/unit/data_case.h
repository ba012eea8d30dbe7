// Data sets that tests write into a temporary folder, and what they expect of opening them.
#ifndef DATA_CASE_H
#define DATA_CASE_H
#include "runtime/dataset.h"
#include <ftw.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[256];

// ---- writing ---------------------------------------------------------------------------------

typedef struct {
    uint8_t *bytes;
    size_t size;
} Bytes;

static inline const char *at(const char *name) {
    static char paths[8][600];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline void put(const char *name, const void *bytes, size_t size) {
    char path[600];
    snprintf(path, sizeof path, "%s", at(name));
    for (char *p = path + strlen(folder) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        mkdir(path, 0777);
    }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (size) assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static inline void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

static inline void tar_add(Bytes *tar, const char *name, const void *bytes, size_t size) {
    size_t padded = (size + 511) / 512 * 512;
    tar->bytes = realloc(tar->bytes, tar->size + 512 + padded);
    assert_non_null(tar->bytes);
    char *h = (char *)tar->bytes + tar->size;
    memset(h, 0, 512 + padded);
    snprintf(h, 100, "%.99s", name);
    snprintf(h + 100, 8, "0000644");
    snprintf(h + 124, 12, "%011o", (unsigned)size);
    h[156] = '0';
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    memset(h + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += (uint8_t)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    memcpy(h + 512, bytes, size);
    tar->size += 512 + padded;
}

static inline void tar_end(Bytes *tar) {
    tar->bytes = realloc(tar->bytes, tar->size + 1024);
    assert_non_null(tar->bytes);
    memset(tar->bytes + tar->size, 0, 1024);
    tar->size += 1024;
}

// ---- reading ---------------------------------------------------------------------------------

static inline Dataset *open_with(DatasetOptions o, const char *name) {
    Dataset *d;
    CnxrtError err = {0};
    o.path = at(name);
    if (dataset_open(&o, &d, &err) != CNXRT_OK) fail_msg("%s: %s", name, err.text);
    return d;
}

static inline Dataset *open_split(const char *name, Split split) {
    return open_with((DatasetOptions){.split = split}, name);
}

// Opening fails with this text in the message.
static inline CnxrtStatus assert_fails(DatasetOptions o, const char *name, const char *text) {
    Dataset *d;
    CnxrtError err = {0};
    o.path = at(name);
    CnxrtStatus s = dataset_open(&o, &d, &err);
    assert_int_not_equal(s, CNXRT_OK);
    assert_null(d);
    assert_non_null(err.text);
    if (!strstr(err.text, text)) fail_msg("'%s' is not in: %s", text, err.text);
    cnxrt_error_free(&err);
    return s;
}

// ---- the folder ------------------------------------------------------------------------------

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *f) {
    (void)st, (void)type, (void)f;
    return remove(path);
}

static inline int data_setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/cnxc-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int data_teardown(void **state) {
    (void)state;
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
