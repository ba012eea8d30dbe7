// Files and archives as byte ranges. A gzip file is unpacked whole, once, to a temporary file that
// has no name any more when this returns, so nothing is left behind however the process ends.
#include "dataset_source.h"
#include "gzip.h"
#include "image_tar.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, TAR_BLOCK = 512 };
#define UNPACK_LIMIT ((int64_t)64 << 30)

static CnxrtStatus io_error(CnxrtError *err, const char *path, const char *what) {
    cnxrt_error_set(err, "%s: %s: %s", path, what, strerror(errno));
    return CNXRT_ERROR_IO;
}

static const char *temporary_folder(void) {
    const char *t = getenv("TMPDIR");
    return t && *t ? t : "/tmp";
}

static int temporary_open(void) {
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/cnxc-data-XXXXXX", temporary_folder());
    if (n < 0 || (size_t)n >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) unlink(path);
    return fd;
}

static bool write_all(int fd, const uint8_t *bytes, int64_t n) {
    while (n > 0) {
        ssize_t k = write(fd, bytes, (size_t)n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        bytes += k;
        n -= k;
    }
    return true;
}

// Copies the unpacked stream to fd and adds its length to *size.
static CnxrtStatus stream_unpack(gzFile f, const char *path, int64_t limit, int fd, int64_t *size,
                                 CnxrtError *err) {
    uint8_t *chunk = malloc(CHUNK);
    if (!chunk) return dataset_no_memory(err);
    CnxrtStatus s = CNXRT_OK;
    int got = 1;
    while (s == CNXRT_OK && (got = gzread(f, chunk, CHUNK)) > 0) {
        *size += got;
        if (*size > limit) {
            cnxrt_error_set(err, "%s: holds more than %lld MB; unpack it and give the result", path,
                            (long long)(limit >> 20));
            s = CNXRT_ERROR_FORMAT;
        } else if (!write_all(fd, chunk, got)) {
            cnxrt_error_set(err,
                            "%s: cannot unpack to %s: %s after %lld MB; set TMPDIR to a folder "
                            "with more room",
                            path, temporary_folder(), strerror(errno), (long long)(*size >> 20));
            s = CNXRT_ERROR_IO;
        }
    }
    free(chunk);
    int code = Z_OK;
    const char *text = gzerror(f, &code);
    if (s == CNXRT_OK && (got < 0 || code == Z_BUF_ERROR)) {
        bool truncated = code == Z_BUF_ERROR;
        cnxrt_error_set(err, "%s: %s gzip file after %lld unpacked bytes%s%s", path,
                        truncated ? "truncated" : "corrupt", (long long)*size,
                        truncated ? "" : ": ", truncated ? "" : text);
        s = CNXRT_ERROR_FORMAT;
    }
    return s;
}

static CnxrtStatus file_unpack(Dataset *d, const char *path, int32_t *file, CnxrtError *err) {
    int64_t limit = d->options->unpack_limit ? d->options->unpack_limit : UNPACK_LIMIT, size = 0;
    gzFile f = gzopen(path, "rb");
    if (!f) return io_error(err, path, "cannot open");
    gzbuffer(f, 1 << 17);
    int fd = temporary_open();
    if (fd < 0) {
        gzclose(f);
        return io_error(err, path, "cannot make a temporary file in TMPDIR");
    }
    CnxrtStatus s = stream_unpack(f, path, limit, fd, &size, err);
    gzclose(f);
    if (s == CNXRT_OK) return dataset_add_file(d, path, fd, size, file, err);
    close(fd);
    return s;
}

CnxrtStatus data_file_open(Dataset *d, const char *path, int32_t *file, CnxrtError *err) {
    struct stat st;
    uint8_t magic[2] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        CnxrtStatus s = io_error(err, path, "cannot open");
        if (fd >= 0) close(fd);
        return s;
    }
    ssize_t got = S_ISREG(st.st_mode) ? pread(fd, magic, 2, 0) : 0;
    close(fd);
    if (!S_ISREG(st.st_mode)) {
        cnxrt_error_set(err, "%s: neither a file nor a folder", path);
        return CNXRT_ERROR_IO;
    }
    if (got == 2 && magic[0] == 0x1f && magic[1] == 0x8b) return file_unpack(d, path, file, err);
    return dataset_add_file(d, path, -1, st.st_size, file, err);
}

// Keeps one file open while an archive is indexed.
typedef struct {
    int fd;
    int64_t size;
} Archive;

static int64_t archive_read(void *user, int64_t offset, void *dst, int64_t n) {
    const Archive *a = user;
    int64_t done = 0;
    while (done < n) {
        ssize_t k = pread(a->fd, (char *)dst + done, (size_t)(n - done), (off_t)(offset + done));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -1;
        if (k == 0) break;
        done += k;
    }
    return done;
}

bool data_file_is_tar(const Dataset *d, int32_t file) {
    uint8_t head[TAR_BLOCK];
    CnxrtError err = {0};
    bool tar = d->files[file].size >= TAR_BLOCK &&
               dataset_read(d, file, 0, head, TAR_BLOCK, &err) == CNXRT_OK &&
               memcmp(head + 257, "ustar", 5) == 0;
    cnxrt_error_free(&err);
    return tar || name_ends(d->files[file].path, ".tar");
}

// Hidden files ("._x.jpg" of macOS) and their folders are no entries.
static bool member_hidden(const char *name) {
    for (const char *p = name; p; p = strchr(p, '/'), p = p ? p + 1 : NULL)
        if (*p == '.') return true;
    return false;
}

static CnxrtStatus members_list(Dataset *d, int32_t file, Archive *a, TarMember *m, Entries *e,
                                CnxrtError *err) {
    Tar tar = {.read = archive_read, .user = a};
    for (bool end = false;;) {
        CnxrtError why = {0};
        CnxrtStatus s = tar_next(&tar, m, &end, &why);
        if (s != CNXRT_OK) cnxrt_error_set(err, "%s: %s", d->files[file].path, why.text);
        cnxrt_error_free(&why);
        if (s != CNXRT_OK || end) return s;
        const char *name = m->name;
        while (strncmp(name, "./", 2) == 0) name += 2;
        if (member_hidden(name)) continue;
        if (m->size > a->size - m->offset) {
            cnxrt_error_set(err, "%s: truncated archive: it ends inside %s", d->files[file].path,
                            name);
            return CNXRT_ERROR_FORMAT;
        }
        const char *text = dataset_text(d, name, strlen(name));
        if (!text || !entries_push(e, (Entry){text, file, m->offset, m->size}))
            return dataset_no_memory(err);
    }
}

CnxrtStatus tar_list(Dataset *d, int32_t file, Entries *e, CnxrtError *err) {
    const DataFile *f = &d->files[file];
    Archive a = {f->fd, f->size};
    if (f->fd < 0 && (a.fd = open(f->path, O_RDONLY | O_CLOEXEC)) < 0)
        return io_error(err, f->path, "cannot open");
    TarMember *m = malloc(sizeof *m);
    CnxrtStatus s = m ? members_list(d, file, &a, m, e, err) : dataset_no_memory(err);
    free(m);
    if (f->fd < 0) close(a.fd);
    return s;
}

CnxrtStatus entry_open(Dataset *d, const Entry *entry, Entry *range, CnxrtError *err) {
    *range = *entry;
    if (entry->file != FILE_BY_NAME) return CNXRT_OK;
    size_t n = strlen(d->root) + strlen(entry->name) + 2;
    char *path = malloc(n);
    if (!path) return dataset_no_memory(err);
    snprintf(path, n, "%s/%s", d->root, entry->name);
    CnxrtStatus s = data_file_open(d, path, &range->file, err);
    free(path);
    if (s == CNXRT_OK) range->offset = 0, range->size = d->files[range->file].size;
    return s;
}

CnxrtStatus entry_text(Dataset *d, const Entry *entry, int64_t limit, char **text, size_t *size,
                       CnxrtError *err) {
    Entry range;
    CnxrtStatus s = entry_open(d, entry, &range, err);
    if (s != CNXRT_OK) return s;
    if (range.size > limit) {
        cnxrt_error_set(err, "%s: %s is larger than %lld bytes", d->root, entry->name,
                        (long long)limit);
        return CNXRT_ERROR_FORMAT;
    }
    if (!(*text = malloc((size_t)range.size + 1))) return dataset_no_memory(err);
    s = dataset_read(d, range.file, range.offset, *text, range.size, err);
    if (s != CNXRT_OK) {
        free(*text);
        *text = NULL;
        return s;
    }
    (*text)[range.size] = 0;
    *size = (size_t)range.size;
    return CNXRT_OK;
}
