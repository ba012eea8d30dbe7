// Archives are recognised by content. They are read through zlib, which passes uncompressed files
// through, so that .tar and .tar.gz are one case; seeking is forward only, except once per archive
// between listing and reading.
#include "image_source.h"
#include "gzip.h"
#include "image_tar.h"
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SNIFF = 512, IDX_HEADER = 16 };

static CnxrtStatus no_memory(CnxrtError *err) {
    cnxrt_error_set(err, "out of memory for the list of pictures");
    return CNXRT_ERROR_MEMORY;
}

// Appends an item (name and problem are handed over). False: no memory.
static bool list_push(ImageList *l, ImageItem item) {
    if (item.name && l->count == l->room) {
        int64_t room = l->room ? 2 * l->room : 64;
        ImageItem *items = realloc(l->items, (size_t)room * sizeof *items);
        if (items) {
            l->items = items;
            l->room = room;
        }
    }
    if (!item.name || l->count == l->room) {
        free(item.name);
        free(item.problem);
        return false;
    }
    l->items[l->count++] = item;
    return true;
}

static bool list_full(const ImageList *l, int64_t limit) { return limit && l->count >= limit; }

static const char *list_own(ImageList *l, const char *path) {
    char **paths = realloc(l->paths, (size_t)(l->npaths + 1) * sizeof *paths);
    if (!paths) return NULL;
    l->paths = paths;
    return paths[l->npaths] = strdup(path), paths[l->npaths] ? paths[l->npaths++] : NULL;
}

static bool push_file(ImageList *l, const char *path, size_t root, const char *problem) {
    ImageItem item = {.name = strdup(path), .kind = ITEM_FILE};
    if (item.name) item.path = item.name, item.inside = item.name + root;
    if (problem && !(item.problem = strdup(problem))) {
        free(item.name);
        return false;
    }
    return list_push(l, item);
}

static int by_name(const FTSENT **a, const FTSENT **b) {
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static bool visit(ImageList *l, FTS *tree, FTSENT *e, size_t root) {
    size_t n = strlen(e->fts_path);
    if (e->fts_level > 0 && e->fts_name[0] == '.') {
        fts_set(tree, e, FTS_SKIP);
        return true;
    }
    switch (e->fts_info) {
    case FTS_F: return !image_name_supported(e->fts_name) || push_file(l, e->fts_path, root, NULL);
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS: return push_file(l, e->fts_path, n < root ? n : root, strerror(e->fts_errno));
    default: return true;
    }
}

static bool add_folder(ImageList *l, const char *path, int64_t limit) {
    char *copy = strdup(path);
    size_t n = strlen(path);
    while (copy && n > 1 && copy[n - 1] == '/') copy[--n] = 0;
    char *const roots[] = {copy, NULL};
    FTS *tree = copy ? fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name) : NULL;
    bool ok = tree != NULL;
    int64_t before = l->count;
    size_t root = n + (ok && copy[n - 1] != '/');
    for (FTSENT *e; ok && !list_full(l, limit) && (e = fts_read(tree));)
        ok = visit(l, tree, e, root);
    if (tree) fts_close(tree);
    if (ok && l->count == before && !list_full(l, limit))
        ok = push_file(l, path, 0, "a folder without .jpg, .jpeg or .png files");
    free(copy);
    return ok;
}

static int64_t gz_read_at(void *user, int64_t offset, void *dst, int64_t n) {
    gzFile f = user;
    if (gztell(f) != offset && gzseek(f, offset, SEEK_SET) != offset) return -1;
    int64_t done = 0;
    while (done < n) {
        int64_t part = n - done < 1 << 30 ? n - done : 1 << 30;
        int got = gzread(f, (char *)dst + done, (unsigned)part);
        if (got < 0) return -1;
        if (got == 0) break;
        done += got;
    }
    return done;
}

static char *name_join(const char *path, const char *between, const char *inside) {
    size_t n = strlen(path) + strlen(between) + strlen(inside) + 1;
    char *name = malloc(n);
    if (name) snprintf(name, n, "%s%s%s", path, between, inside);
    return name;
}

static bool member_wanted(const char *name) {
    const char *base = strrchr(name, '/');
    base = base ? base + 1 : name;
    return *base != '.' && image_name_supported(base);
}

static bool push_member(ImageList *l, const char *path, const TarMember *m) {
    ImageItem item = {.name = name_join(path, "/", m->name),
                      .path = path,
                      .kind = ITEM_MEMBER,
                      .offset = m->offset,
                      .size = m->size};
    if (item.name) item.inside = item.name + strlen(path) + 1;
    return list_push(l, item);
}

static bool add_tar(ImageList *l, const char *path, gzFile f, int64_t limit) {
    TarMember *m = malloc(sizeof *m);
    Tar tar = {.read = gz_read_at, .user = f};
    CnxrtError err = {0};
    bool ok = m != NULL, end = false;
    int64_t before = l->count;
    while (ok && !list_full(l, limit)) {
        if (tar_next(&tar, m, &end, &err) != CNXRT_OK) {
            ok = push_file(l, path, 0, err.text ? err.text : "corrupt archive");
            break;
        }
        if (end) break;
        if (member_wanted(m->name)) ok = push_member(l, path, m);
    }
    if (ok && end && l->count == before)
        ok = push_file(l, path, 0, "an archive without .jpg, .jpeg or .png files");
    cnxrt_error_free(&err);
    free(m);
    return ok;
}

static int64_t big_endian(const uint8_t *p) {
    return (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

// No deflated file holds more than this many bytes for one of its own.
enum { DEFLATE_RATIO = 1032 };

static bool add_idx(ImageList *l, const char *path, const uint8_t *head, int64_t limit) {
    int64_t n = big_endian(head + 4), h = big_endian(head + 8), w = big_endian(head + 12);
    if (head[3] != 3)
        return push_file(l, path, 0, "an IDX file, but not of pictures (3 dimensions)");
    if (h < 1 || w < 1 || h > IMAGE_MAX_SIDE || w > IMAGE_MAX_SIDE)
        return push_file(l, path, 0, "an IDX file with an impossible picture size");
    struct stat st;
    if (stat(path, &st) != 0 || n > (int64_t)st.st_size * DEFLATE_RATIO / (h * w))
        return push_file(l, path, 0, "an IDX file shorter than its header says");
    bool ok = true;
    for (int64_t i = 0; ok && i < n && !list_full(l, limit); i++) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)i);
        ImageItem item = {.name = name_join(path, "#", number),
                          .path = path,
                          .kind = ITEM_RAW,
                          .offset = IDX_HEADER + i * h * w,
                          .size = h * w,
                          .width = (int)w,
                          .height = (int)h};
        item.inside = item.name;
        ok = list_push(l, item);
    }
    return ok;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static bool add_file(ImageList *l, const char *path, int64_t limit) {
    gzFile f = gzopen(path, "rb");
    if (!f) return push_file(l, path, 0, errno ? strerror(errno) : "cannot open");
    gzbuffer(f, 1 << 17);
    uint8_t head[SNIFF] = {0};
    int64_t got = gz_read_at(f, 0, head, SNIFF);
    const char *own = list_own(l, path);
    bool ok = own != NULL;
    bool tar = got == SNIFF && memcmp(head + 257, "ustar", 5) == 0;
    if (!ok) {
        gzclose(f);
        return false;
    }
    if (tar || ends_with(path, ".tar") || ends_with(path, ".tar.gz") || ends_with(path, ".tgz"))
        ok = add_tar(l, own, f, limit);
    else if (got >= IDX_HEADER && memcmp(head, "\0\0\10", 3) == 0)
        ok = add_idx(l, own, head, limit);
    else
        ok = push_file(l, path, 0, NULL);
    gzclose(f);
    return ok;
}

CnxrtStatus image_list_add(ImageList *l, const char *path, int64_t limit, CnxrtError *err) {
    struct stat st;
    bool ok;
    if (list_full(l, limit)) return CNXRT_OK;
    if (stat(path, &st) != 0)
        ok = push_file(l, path, 0, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        ok = add_folder(l, path, limit);
    else if (S_ISREG(st.st_mode))
        ok = add_file(l, path, limit);
    else
        ok = push_file(l, path, 0, NULL);
    return ok ? CNXRT_OK : no_memory(err);
}

void image_list_free(ImageList *l) {
    for (int64_t i = 0; i < l->count; i++) {
        free(l->items[i].name);
        free(l->items[i].problem);
    }
    for (int64_t i = 0; i < l->npaths; i++) free(l->paths[i]);
    free(l->items);
    free(l->paths);
    *l = (ImageList){0};
}

void image_reader_close(ImageReader *r) {
    if (r->file) gzclose(r->file);
    *r = (ImageReader){0};
}

static CnxrtStatus part_read(ImageReader *r, const ImageItem *item, uint8_t **bytes, size_t *size,
                             CnxrtError *err) {
    if (item->size > IMAGE_MAX_FILE) {
        cnxrt_error_set(err, "larger than %lld MB", (long long)(IMAGE_MAX_FILE >> 20));
        return CNXRT_ERROR_FORMAT;
    }
    if (r->path != item->path) image_reader_close(r);
    if (!r->file) {
        if (!(r->file = gzopen(item->path, "rb"))) {
            cnxrt_error_set(err, "cannot open %s: %s", item->path, strerror(errno));
            return CNXRT_ERROR_IO;
        }
        r->path = item->path;
        gzbuffer(r->file, 1 << 17);
    }
    uint8_t *data = malloc(item->size ? (size_t)item->size : 1);
    if (!data) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    if (gz_read_at(r->file, item->offset, data, item->size) != item->size) {
        free(data);
        image_reader_close(r);
        cnxrt_error_set(err, "truncated: the archive ends inside");
        return CNXRT_ERROR_FORMAT;
    }
    *bytes = data;
    *size = (size_t)item->size;
    return CNXRT_OK;
}

CnxrtStatus image_reader_read(ImageReader *r, const ImageItem *item, uint8_t **bytes, size_t *size,
                              CnxrtError *err) {
    *bytes = NULL;
    *size = 0;
    if (item->problem) {
        cnxrt_error_set(err, "%s", item->problem);
        return CNXRT_ERROR_IO;
    }
    if (item->kind == ITEM_FILE) return image_file_read(item->path, bytes, size, err);
    return part_read(r, item, bytes, size, err);
}

CnxrtStatus image_item_decode(const ImageItem *item, const uint8_t *bytes, size_t size,
                              int channels, Image *out, CnxrtError *err) {
    if (item->kind == ITEM_RAW)
        return image_from_pixels(bytes, item->width, item->height, 1, channels, out, err);
    ImageOptions o = {.channels = channels};
    return image_decode(bytes, size, &o, out, err);
}
