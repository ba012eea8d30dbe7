// Checkpoints written by torch.save. Since PyTorch 1.6: a zip file with ROOT/data.pkl and one entry
// ROOT/data/KEY per storage. Before: a stream of five pickles (magic, version, system, object,
// storage keys) and then every storage as an int64 count and its elements. Stored zip entries are
// used in place, in the map of the file; deflated ones are decompressed once.
#include "unpickle.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef CNXRT_MINIZIP
#include <minizip/unzip.h>
#endif

#define PICKLE_LIMIT (256u << 20) // of structure, without the tensors' data
#define INFLATE_RATIO 1040        // deflate cannot do better than 1032
#define OVERLAP_LIMIT (1 << 24)   // elements of a view that is larger than its storage

// ---- from values to tensors ---------------------------------------------------------------------

typedef struct Storages Storages;
struct Storages {
    // Bytes of a storage; false with a message.
    bool (*find)(Storages *s, const Value *storage, const unsigned char **data, uint64_t *bytes,
                 CnxrtStatus *status, CnxrtError *err);
    CnxrtWeights *w;
};

// Elements that a view spans, from its first to its last; false: overflow.
static bool view_span(const Value *t, int64_t *count, int64_t *span) {
    *span = 1;
    if (!dims_count(t->rank, t->dims, count)) return false;
    for (int i = 0; i < t->rank && *count; i++) {
        int64_t step;
        if (__builtin_mul_overflow(t->dims[i] - 1, t->strides[i], &step) ||
            __builtin_add_overflow(*span, step, span))
            return false;
    }
    if (*count == 0) *span = 0;
    return true;
}

static CnxrtStatus add_tensor(Storages *s, const char *name, const Value *t, CnxrtError *err) {
    if (t->dtype == ST_COUNT) return CNXRT_OK; // complex or quantised: never a parameter
    const unsigned char *data = NULL;
    uint64_t bytes = 0;
    CnxrtStatus status = CNXRT_OK;
    if (!s->find(s, t->storage, &data, &bytes, &status, err)) return status;
    int64_t count, span, end, item = st_dtype_bytes(t->dtype);
    int64_t offset, room = (int64_t)(bytes / (uint64_t)item);
    if (!view_span(t, &count, &span) ||
        __builtin_add_overflow(t->offset, t->storage->offset, &offset) ||
        __builtin_add_overflow(offset, span, &end) || end > room ||
        (count > room && count > OVERLAP_LIMIT)) {
        char shape[200];
        cnxrt_error_set(
            err, "%s: tensor %s of shape %s does not lie inside its storage of %" PRIu64 " bytes",
            s->w->path, name, dims_text(t->rank, t->dims, shape), bytes);
        return CNXRT_ERROR_FORMAT;
    }
    if (count) data += offset * item;
    if (!weights_add(s->w, name, t->dtype, t->rank, t->dims, t->strides, data))
        return weights_no_memory(err);
    return CNXRT_OK;
}

static bool has_tensors(const Value *v) {
    for (int64_t i = 0; v->kind == V_DICT && i < v->n; i += 2)
        if (v->items[i]->kind == V_STR && v->items[i + 1]->kind == V_TENSOR) return true;
    return false;
}

// Where training scripts keep the state dict, most wanted first.
static const char *const state_keys[] = {"model",     "state_dict", "model_state_dict", "module",
                                         "net",       "network",    "params",           "weights",
                                         "model_ema", "ema",        "state_dict_ema"};

// The dict of tensors inside the top-level value; *path is how it was reached.
static const Value *find_state(const Value *v, char *path, size_t size) {
    path[0] = 0;
    for (int depth = 0; depth < 4 && v->kind == V_DICT && !has_tensors(v); depth++) {
        const Value *inner = NULL;
        for (size_t i = 0; i < sizeof state_keys / sizeof *state_keys && !inner; i++) {
            inner = value_get(v, state_keys[i]);
            if (inner && inner->kind != V_DICT) inner = NULL;
            if (!inner) continue;
            size_t n = strlen(path);
            snprintf(path + n, size - n, "%s%s", n ? "." : "", state_keys[i]);
        }
        if (!inner) return NULL;
        v = inner;
    }
    return has_tensors(v) ? v : NULL;
}

static CnxrtStatus no_state(const CnxrtWeights *w, const Value *top, CnxrtError *err) {
    cnxrt_error_set(err, "%s: no state dict inside", w->path);
    if (top->kind == V_OPAQUE && top->s)
        cnxrt_error_add(err, "; it holds a pickled object (%s)", top->s);
    if (top->kind == V_DICT && top->n) {
        cnxrt_error_add(err, "; its entries are");
        for (int64_t i = 0; i < top->n && i < 32; i += 2)
            if (top->items[i]->kind == V_STR)
                cnxrt_error_add(err, "%s %s", i ? "," : "", top->items[i]->s);
    }
    cnxrt_error_add(err, "\n    hint: save torch.save({\"model\": model.state_dict()}, path)");
    return CNXRT_ERROR_FORMAT;
}

static bool describe(CnxrtWeights *w, const char *format, const Value *top, const char *entry) {
    CnxrtError text = {0};
    cnxrt_error_set(&text, "%s", format);
    if (*entry) cnxrt_error_add(&text, ", entry %s", entry);
    bool first = true;
    for (int64_t i = 0; *entry && i < top->n && i < 64; i += 2) {
        const char *key = top->items[i]->kind == V_STR ? top->items[i]->s : NULL;
        if (!key || strncmp(entry, key, strlen(key)) == 0) continue;
        cnxrt_error_add(&text, "%s%s", first ? " (not read: " : ", ", key);
        first = false;
    }
    if (!first) cnxrt_error_add(&text, ")");
    w->about = text.text;
    return w->about != NULL;
}

static CnxrtStatus add_state(Storages *s, const char *format, const Value *top, CnxrtError *err) {
    char entry[64];
    const Value *state = find_state(top, entry, sizeof entry);
    if (!state) return no_state(s->w, top, err);
    if (!describe(s->w, format, top, entry)) return weights_no_memory(err);
    for (int64_t i = 0; i < state->n; i += 2) {
        if (state->items[i]->kind != V_STR || state->items[i + 1]->kind != V_TENSOR) continue;
        CnxrtStatus status = add_tensor(s, state->items[i]->s, state->items[i + 1], err);
        if (status != CNXRT_OK) return status;
    }
    return CNXRT_OK;
}

// ---- zip ----------------------------------------------------------------------------------------

bool torch_zip_detect(const unsigned char *bytes, size_t size) {
    return size >= 4 && memcmp(bytes, "PK\x03\x04", 4) == 0;
}

#ifdef CNXRT_MINIZIP
typedef struct {
    const unsigned char *bytes;
    uint64_t size, at;
} Memory;

static voidpf memory_open(voidpf opaque, const void *name, int mode) {
    (void)name, (void)mode;
    return opaque;
}
static uLong memory_read(voidpf opaque, voidpf stream, void *buf, uLong n) {
    (void)stream;
    Memory *m = opaque;
    uint64_t left = m->size - m->at;
    if (n > left) n = (uLong)left;
    memcpy(buf, m->bytes + m->at, n);
    m->at += n;
    return n;
}
static uLong memory_write(voidpf opaque, voidpf stream, const void *buf, uLong n) {
    (void)opaque, (void)stream, (void)buf, (void)n;
    return 0;
}
static ZPOS64_T memory_tell(voidpf opaque, voidpf stream) {
    (void)stream;
    return ((Memory *)opaque)->at;
}
static long memory_seek(voidpf opaque, voidpf stream, ZPOS64_T offset, int origin) {
    (void)stream;
    Memory *m = opaque;
    uint64_t base = origin == ZLIB_FILEFUNC_SEEK_CUR   ? m->at
                    : origin == ZLIB_FILEFUNC_SEEK_END ? m->size
                                                       : 0;
    if (offset > m->size - base) return -1;
    m->at = base + offset;
    return 0;
}
static int memory_close(voidpf opaque, voidpf stream) {
    (void)opaque, (void)stream;
    return 0;
}

typedef struct {
    char *name;
    unz64_file_pos at;
    uint64_t size, packed;
    int method;
    bool encrypted;
    const unsigned char *data; // once read
} Entry;

typedef struct {
    Storages storages; // first: the callback's argument
    Memory memory;
    unzFile zip;
    Entry *entries; // by name
    size_t n;
    const char *pickle; // "ROOT/data.pkl"
    size_t root;        // length of "ROOT/"
} Archive;

static int entry_compare(const void *a, const void *b) {
    return strcmp(((const Entry *)a)->name, ((const Entry *)b)->name);
}

static CnxrtStatus zip_error(const Archive *a, const char *entry, const char *what,
                             CnxrtError *err) {
    cnxrt_error_set(err, "%s: zip entry %s: %s", a->storages.w->path, entry, what);
    return CNXRT_ERROR_FORMAT;
}

static bool read_directory(Archive *a) {
    size_t capacity = 0;
    for (int ok = unzGoToFirstFile(a->zip); ok == UNZ_OK; ok = unzGoToNextFile(a->zip)) {
        unz_file_info64 info;
        char name[512];
        unz64_file_pos at;
        if (unzGetCurrentFileInfo64(a->zip, &info, name, sizeof name, NULL, 0, NULL, 0) != UNZ_OK ||
            unzGetFilePos64(a->zip, &at) != UNZ_OK)
            break;
        if (info.size_filename >= sizeof name) continue; // torch.save writes no such names
        if (a->n == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            Entry *p = realloc(a->entries, capacity * sizeof *p);
            if (!p) return false;
            a->entries = p;
        }
        Entry e = {strdup(name),
                   at,
                   info.uncompressed_size,
                   info.compressed_size,
                   (int)info.compression_method,
                   info.flag & 1,
                   NULL};
        if (!e.name) return false;
        a->entries[a->n++] = e;
    }
    if (a->n) qsort(a->entries, a->n, sizeof *a->entries, entry_compare);
    return true;
}

static Entry *find_entry(Archive *a, const char *tail) {
    char name[1024];
    snprintf(name, sizeof name, "%.*s%s", (int)a->root, a->pickle, tail);
    Entry key = {.name = name};
    return bsearch(&key, a->entries, a->n, sizeof key, entry_compare);
}

// Reads the open entry; its size has been checked.
static CnxrtStatus inflate_entry(Archive *a, Entry *e, CnxrtError *err) {
    unsigned char *out = weights_block(a->storages.w, (size_t)e->size);
    if (!out) return weights_no_memory(err);
    uint64_t at = 0;
    while (at < e->size) {
        uint64_t want = e->size - at < (1u << 30) ? e->size - at : 1u << 30;
        int n = unzReadCurrentFile(a->zip, out + at, (unsigned)want);
        if (n <= 0) return zip_error(a, e->name, "damaged: it does not decompress", err);
        at += (uint64_t)n;
    }
    e->data = out;
    return CNXRT_OK;
}

static CnxrtStatus load_entry(Archive *a, Entry *e, CnxrtError *err) {
    if (e->data) return CNXRT_OK;
    if (e->encrypted) return zip_error(a, e->name, "encrypted", err);
    if (e->method != 0 && e->method != Z_DEFLATED)
        return zip_error(a, e->name, "neither stored nor deflated", err);
    bool stored = e->method == 0;
    if (stored ? e->size != e->packed : e->size / INFLATE_RATIO > e->packed)
        return zip_error(a, e->name, "damaged: its sizes are impossible", err);
    if (unzGoToFilePos64(a->zip, &e->at) != UNZ_OK || unzOpenCurrentFile(a->zip) != UNZ_OK)
        return zip_error(a, e->name, "damaged: no local header", err);
    CnxrtStatus status = CNXRT_OK;
    uint64_t begin = unzGetCurrentFileZStreamPos64(a->zip);
    if (begin > a->memory.size || e->packed > a->memory.size - begin) {
        cnxrt_error_set(
            err, "%s: truncated: zip entry %s ends at byte %" PRIu64 ", the file has %" PRIu64,
            a->storages.w->path, e->name, begin + e->packed, a->memory.size);
        status = CNXRT_ERROR_FORMAT;
    } else if (stored) {
        e->data = a->memory.bytes + begin;
    } else {
        status = inflate_entry(a, e, err);
    }
    unzCloseCurrentFile(a->zip);
    return status;
}

static bool zip_storage(Storages *s, const Value *storage, const unsigned char **data,
                        uint64_t *bytes, CnxrtStatus *status, CnxrtError *err) {
    Archive *a = (Archive *)s;
    char tail[512];
    snprintf(tail, sizeof tail, "data/%s", storage->s);
    Entry *e = find_entry(a, tail);
    *status = e ? load_entry(a, e, err) : zip_error(a, tail, "missing", err);
    if (*status != CNXRT_OK) return false;
    *data = e->data;
    *bytes = e->size;
    return true;
}

// Entry ROOT/data.pkl decides the root.
static Entry *find_pickle(Archive *a) {
    for (size_t i = 0; i < a->n; i++) {
        const char *name = a->entries[i].name;
        size_t n = strlen(name);
        bool whole = strcmp(name, "data.pkl") == 0;
        if (!whole && (n < 9 || strcmp(name + n - 9, "/data.pkl") != 0)) continue;
        a->root = n - 8;
        a->pickle = name;
        return &a->entries[i];
    }
    return NULL;
}

// On purpose: "little" is assumed when the entry is missing, as PyTorch before 2.1 wrote none.
static CnxrtStatus check_byteorder(Archive *a, CnxrtError *err) {
    Entry *e = find_entry(a, "byteorder");
    if (!e) return CNXRT_OK;
    CnxrtStatus status = load_entry(a, e, err);
    if (status == CNXRT_OK && (e->size < 6 || memcmp(e->data, "little", 6) != 0))
        return zip_error(a, e->name, "big-endian checkpoints are not read", err);
    return status;
}

static CnxrtStatus parse_archive(Archive *a, CnxrtError *err) {
    CnxrtWeights *w = a->storages.w;
    Entry *pkl = find_pickle(a);
    if (!pkl) {
        cnxrt_error_set(err, "%s: a zip file without data.pkl: not written by torch.save", w->path);
        return CNXRT_ERROR_FORMAT;
    }
    if (pkl->size > PICKLE_LIMIT) return zip_error(a, pkl->name, "too large", err);
    CnxrtStatus status = load_entry(a, pkl, err);
    if (status == CNXRT_OK) status = check_byteorder(a, err);
    if (status != CNXRT_OK) return status;
    Unpickler u;
    unpickle_begin(&u, w->path, pkl->data, (size_t)pkl->size, err);
    const Value *top = unpickle_next(&u);
    status = top ? add_state(&a->storages, "PyTorch zip file", top, err) : u.status;
    unpickle_end(&u);
    return status;
}

// The end record (22 bytes and a comment) closes the file: nothing was cut off.
static bool zip_is_whole(const unsigned char *bytes, size_t size) {
    for (size_t comment = 0; comment < 65536 && size >= 22 + comment; comment++) {
        const unsigned char *end = bytes + size - 22 - comment;
        if (memcmp(end, "PK\x05\x06", 4) == 0 && end[20] + 256u * end[21] == comment) return true;
    }
    return false;
}

CnxrtStatus torch_zip_parse(CnxrtWeights *w, CnxrtError *err) {
    Archive a = {.storages = {zip_storage, w}, .memory = {w->bytes, w->size, 0}};
    zlib_filefunc64_def io = {.zopen64_file = memory_open,
                              .zread_file = memory_read,
                              .zwrite_file = memory_write,
                              .ztell64_file = memory_tell,
                              .zseek64_file = memory_seek,
                              .zclose_file = memory_close,
                              .zerror_file = memory_close,
                              .opaque = &a.memory};
    if (zip_is_whole(w->bytes, w->size)) a.zip = unzOpen2_64(w->path, &io);
    if (!a.zip) {
        cnxrt_error_set(err,
                        "%s: truncated: a zip file of %zu bytes without its directory (the "
                        "download or copy was cut short)",
                        w->path, w->size);
        return CNXRT_ERROR_FORMAT;
    }
    CnxrtStatus status = read_directory(&a) ? parse_archive(&a, err) : weights_no_memory(err);
    unzClose(a.zip);
    for (size_t i = 0; i < a.n; i++) free(a.entries[i].name);
    free(a.entries);
    return status;
}
#else
CnxrtStatus torch_zip_parse(CnxrtWeights *w, CnxrtError *err) {
    cnxrt_error_set(err,
                    "%s: a PyTorch zip file, and this program was built without minizip; convert "
                    "it with 'cnxc weights convert'",
                    w->path);
    return CNXRT_ERROR_FORMAT;
}
#endif

// ---- the stream of older versions ---------------------------------------------------------------

typedef struct {
    const char *key;
    const unsigned char *data;
    uint64_t bytes;
} Blob;

typedef struct {
    Storages storages; // first: the callback's argument
    Blob *blobs;       // by key
    size_t n;
} Stream;

static int blob_compare(const void *a, const void *b) {
    return strcmp(((const Blob *)a)->key, ((const Blob *)b)->key);
}

static int storage_compare(const void *a, const void *b) {
    return strcmp((*(Value *const *)a)->s, (*(Value *const *)b)->s);
}

static bool stream_storage(Storages *s, const Value *storage, const unsigned char **data,
                           uint64_t *bytes, CnxrtStatus *status, CnxrtError *err) {
    Stream *t = (Stream *)s;
    Blob key = {.key = storage->s};
    const Blob *b = t->n ? bsearch(&key, t->blobs, t->n, sizeof key, blob_compare) : NULL;
    if (!b) {
        cnxrt_error_set(err, "%s: storage %s is missing", s->w->path, storage->s);
        *status = CNXRT_ERROR_FORMAT;
        return false;
    }
    *data = b->data;
    *bytes = b->bytes;
    return true;
}

// The storages that follow the last pickle; each one's element type is that of its persistent id.
static CnxrtStatus read_blobs(Stream *t, Unpickler *u, const Value *keys, CnxrtError *err) {
    CnxrtWeights *w = t->storages.w;
    if (u->nstorages)
        qsort(u->storages, (size_t)u->nstorages, sizeof *u->storages, storage_compare);
    t->blobs = calloc(keys->n ? (size_t)keys->n : 1, sizeof *t->blobs);
    if (!t->blobs) return weights_no_memory(err);
    const unsigned char *at = u->at;
    for (int64_t i = 0; i < keys->n; i++) {
        Value *key = keys->items[i];
        Value **s = key->kind == V_STR && u->nstorages
                        ? bsearch(&key, u->storages, (size_t)u->nstorages, sizeof *u->storages,
                                  storage_compare)
                        : NULL;
        uint64_t count = 0, left = (uint64_t)(u->end - at);
        for (int b = 0; b < 8 && left >= 8; b++) count |= (uint64_t)at[b] << (8 * b);
        uint64_t item = s && (*s)->dtype != ST_COUNT ? (uint64_t)st_dtype_bytes((*s)->dtype) : 0;
        if (!item || left < 8 || count > (left - 8) / item) {
            cnxrt_error_set(err,
                            item ? "%s: truncated: storage %s does not fit in the file's %zu bytes"
                                 : "%s: storage %s is of an unknown type (file of %zu bytes); save "
                                   "it again with a newer torch.save",
                            w->path, key->s ? key->s : "?", w->size);
            return CNXRT_ERROR_FORMAT;
        }
        t->blobs[t->n++] = (Blob){key->s, at + 8, count * item};
        at += 8 + count * item;
    }
    if (t->n) qsort(t->blobs, t->n, sizeof *t->blobs, blob_compare);
    return CNXRT_OK;
}

static CnxrtStatus parse_stream(Stream *t, Unpickler *u, CnxrtError *err) {
    CnxrtWeights *w = t->storages.w;
    const Value *top = NULL, *keys = NULL;
    for (int i = 0; i < 5; i++) { // magic, version, system, object, keys
        const Value *v = unpickle_next(u);
        if (!v) return u->status;
        if (i == 3) top = v;
        if (i == 4) keys = v;
    }
    if (keys->kind != V_LIST) {
        cnxrt_error_set(err, "%s: no list of storages after the object", w->path);
        return CNXRT_ERROR_FORMAT;
    }
    CnxrtStatus status = read_blobs(t, u, keys, err);
    return status == CNXRT_OK ? add_state(&t->storages, "PyTorch stream (before 1.6)", top, err)
                              : status;
}

// A pickle that is just the magic number 0x1950a86a20f9469cfc6c.
static const unsigned char stream_magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                             0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

bool torch_legacy_detect(const unsigned char *bytes, size_t size) {
    return size >= 10 && bytes[0] == 0x80 && bytes[1] >= 2 && bytes[1] <= 5 && bytes[8] != '{';
}

CnxrtStatus torch_legacy_parse(CnxrtWeights *w, CnxrtError *err) {
    if (w->size < 2 + sizeof stream_magic ||
        memcmp(w->bytes + 2, stream_magic, sizeof stream_magic) != 0) {
        cnxrt_error_set(err,
                        "%s: a plain pickle, not a file of torch.save (save it with "
                        "torch.save(model.state_dict(), path))",
                        w->path);
        return CNXRT_ERROR_FORMAT;
    }
    Stream t = {.storages = {stream_storage, w}};
    Unpickler u;
    unpickle_begin(&u, w->path, w->bytes, w->size, err);
    CnxrtStatus status = parse_stream(&t, &u, err);
    unpickle_end(&u);
    free(t.blobs);
    return status;
}
