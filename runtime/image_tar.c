// A tar archive is a sequence of 512-byte headers, each followed by its data padded to 512 bytes.
// Extension headers (pax 'x', GNU 'L') carry the name or the size of the next member; the archive
// ends with a header of zeros or with the file. Nothing is trusted: header checksums are verified,
// sizes bounded, names terminated.
#include "image_tar.h"
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, MAX_EXTENSION = 1 << 20 };
#define MAX_MEMBER ((int64_t)1 << 40)

// What extension headers say of the member to come.
typedef struct {
    char name[TAR_NAME]; // "": the header's
    int64_t size;        // -1: the header's
} Extension;

// A number in octal text, or in GNU's base 256; -1 when it is neither or too large.
static int64_t field_number(const uint8_t *p, int n) {
    int64_t v = 0;
    if (*p & 0x80) {
        v = *p & 0x3f;
        for (int i = 1; i < n; i++) {
            if (v > MAX_MEMBER) return -1;
            v = v << 8 | p[i];
        }
        return v > MAX_MEMBER ? -1 : v;
    }
    int i = 0;
    while (i < n && p[i] == ' ') i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) v = v << 3 | (p[i] - '0');
    if (i < n && p[i] != ' ' && p[i] != 0) return -1;
    return v > MAX_MEMBER ? -1 : v;
}

static bool header_valid(const uint8_t *h) {
    int64_t sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : h[i];
    return field_number(h + 148, 8) == sum;
}

static bool header_zero(const uint8_t *h) {
    for (int i = 0; i < BLOCK; i++)
        if (h[i]) return false;
    return true;
}

static void header_name(const uint8_t *h, char *name) {
    size_t n = 0;
    bool ustar = memcmp(h + 257, "ustar\0", 6) == 0; // GNU's "ustar  " has no prefix field
    if (ustar && h[345]) {
        n = strnlen((const char *)h + 345, 155);
        memcpy(name, h + 345, n);
        name[n++] = '/';
    }
    size_t k = strnlen((const char *)h, 100);
    memcpy(name + n, h, k);
    name[n + k] = 0;
}

static void set_name(char *name, const char *text, size_t n) {
    if (n >= TAR_NAME) n = TAR_NAME - 1;
    memcpy(name, text, n);
    name[n] = 0;
}

// pax records: "LENGTH KEY=VALUE\n".
static void pax_parse(const char *text, size_t size, Extension *e) {
    for (size_t at = 0; at < size;) {
        size_t length = 0, i = at;
        while (i < size && text[i] >= '0' && text[i] <= '9' && length < size)
            length = length * 10 + (size_t)(text[i++] - '0');
        if (i >= size || text[i] != ' ' || length > size - at || at + length < i + 2) return;
        const char *key = text + i + 1, *end = text + at + length - 1;
        size_t room = (size_t)(end - key);
        if (room > 5 && memcmp(key, "path=", 5) == 0) {
            set_name(e->name, key + 5, room - 5);
        } else if (room > 5 && memcmp(key, "size=", 5) == 0) {
            int64_t v = 0;
            for (const char *p = key + 5; p < end && *p >= '0' && *p <= '9' && v <= MAX_MEMBER; p++)
                v = v * 10 + (*p - '0');
            e->size = v <= MAX_MEMBER ? v : -1;
        }
        at += length;
    }
}

static CnxrtStatus corrupt(const Tar *t, const char *what, CnxrtError *err) {
    cnxrt_error_set(err, "corrupt archive: %s at byte %lld", what, (long long)t->offset);
    return CNXRT_ERROR_FORMAT;
}

static CnxrtStatus extension_read(const Tar *t, char type, int64_t size, Extension *e,
                                  CnxrtError *err) {
    if (size > MAX_EXTENSION) return corrupt(t, "an overlong extension header", err);
    char *text = malloc((size_t)size + 1);
    if (!text) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    CnxrtStatus s = CNXRT_OK;
    if (t->read(t->user, t->offset + BLOCK, text, size) != size)
        s = corrupt(t, "a truncated extension header", err);
    else if (type == 'x')
        pax_parse(text, (size_t)size, e);
    else
        set_name(e->name, text, strnlen(text, (size_t)size));
    free(text);
    return s;
}

CnxrtStatus tar_next(Tar *t, TarMember *m, bool *end, CnxrtError *err) {
    Extension e = {.size = -1};
    for (;;) {
        uint8_t h[BLOCK];
        int64_t got = t->read(t->user, t->offset, h, BLOCK);
        *end = got == 0 || (got == BLOCK && header_zero(h));
        if (*end) return CNXRT_OK;
        if (got != BLOCK) return corrupt(t, "a truncated header", err);
        if (!header_valid(h)) return corrupt(t, "a bad header checksum", err);
        char type = (char)h[156];
        int64_t size = field_number(h + 124, 12);
        bool file = type == '0' || type == 0 || type == '7';
        if (file && e.size >= 0) size = e.size;
        if (size < 0) return corrupt(t, "a bad size", err);
        if (type == 'x' || type == 'L') {
            CnxrtStatus s = extension_read(t, type, size, &e, err);
            if (s != CNXRT_OK) return s;
        }
        int64_t data = t->offset + BLOCK;
        bool links = type >= '1' && type <= '6'; // links and devices: no data follow
        if (!links) t->offset = data + (size + BLOCK - 1) / BLOCK * BLOCK;
        if (links) t->offset = data;
        if (file) {
            if (e.name[0])
                memcpy(m->name, e.name, sizeof e.name);
            else
                header_name(h, m->name);
            m->offset = data;
            m->size = size;
            return CNXRT_OK;
        }
        if (type != 'x' && type != 'L' && type != 'K' && type != 'g') e = (Extension){.size = -1};
    }
}
