// Reading files as memory maps and writing them atomically: temporary file, fsync, rename.
#include "weights_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

CnxrtStatus file_map(const char *path, const unsigned char **bytes, size_t *size, CnxrtError *err) {
    *bytes = NULL;
    *size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        cnxrt_error_set(err, "%s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return CNXRT_ERROR_IO;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        cnxrt_error_set(err, "%s: not a regular file", path);
        return CNXRT_ERROR_IO;
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            cnxrt_error_set(err, "%s: cannot map: %s", path, strerror(errno));
            close(fd);
            return CNXRT_ERROR_IO;
        }
        *bytes = p;
        *size = (size_t)st.st_size;
    }
    close(fd);
    return CNXRT_OK;
}

void file_unmap(const unsigned char *bytes, size_t size) {
    if (bytes) munmap((void *)(uintptr_t)bytes, size);
}

CnxrtStatus atomic_open(AtomicFile *f, const char *path, CnxrtError *err) {
    size_t n = strlen(path) + 32;
    struct stat st;
    *f = (AtomicFile){.fd = -1, .path = path};
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        f->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (f->fd >= 0) return CNXRT_OK;
        cnxrt_error_set(err, "%s: cannot write: %s", path, strerror(errno));
        return CNXRT_ERROR_IO;
    }
    f->temporary = malloc(n);
    if (!f->temporary) return weights_no_memory(err);
    for (int i = 0; i < 100 && f->fd < 0; i++) {
        snprintf(f->temporary, n, "%s.%ld-%d.tmp", path, (long)getpid(), i);
        f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd < 0 && errno != EEXIST) break;
    }
    if (f->fd >= 0) return CNXRT_OK;
    cnxrt_error_set(err, "%s: cannot write: %s", path, strerror(errno));
    free(f->temporary);
    f->temporary = NULL;
    return CNXRT_ERROR_IO;
}

CnxrtStatus atomic_write(AtomicFile *f, const void *data, size_t size, CnxrtError *err) {
    const char *p = data;
    while (size) {
        ssize_t n = write(f->fd, p, size < (1u << 30) ? size : 1u << 30);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            cnxrt_error_set(err, "%s: cannot write: %s", f->path, strerror(errno));
            return CNXRT_ERROR_IO;
        }
        p += n;
        size -= (size_t)n;
    }
    return CNXRT_OK;
}

// Makes the rename durable; a file system that cannot is no error.
static void directory_sync(const char *path) {
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(dir);
}

CnxrtStatus atomic_close(AtomicFile *f, CnxrtStatus status, CnxrtError *err) {
    if (f->fd < 0) return status;
    bool sync = status == CNXRT_OK && !f->unsynced;
    if (sync && fsync(f->fd) != 0 && errno != EINVAL && errno != EROFS) {
        cnxrt_error_set(err, "%s: cannot write: %s", f->path, strerror(errno));
        status = CNXRT_ERROR_IO;
    }
    if (close(f->fd) != 0 && status == CNXRT_OK) {
        cnxrt_error_set(err, "%s: cannot write: %s", f->path, strerror(errno));
        status = CNXRT_ERROR_IO;
    }
    if (status == CNXRT_OK && f->temporary && rename(f->temporary, f->path) != 0) {
        cnxrt_error_set(err, "%s: cannot write: %s", f->path, strerror(errno));
        status = CNXRT_ERROR_IO;
    }
    if (status == CNXRT_OK && sync) directory_sync(f->path);
    if (status != CNXRT_OK && f->temporary) unlink(f->temporary);
    free(f->temporary);
    f->temporary = NULL;
    f->fd = -1;
    return status;
}
