// The one fact wanted from EXIF and XMP: how the camera was held (TIFF tag 0x0112,
// tiff:Orientation).
#include "image_codec.h"
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_BYTE = 1, TYPE_SHORT = 3, TYPE_LONG = 4 };

typedef struct {
    const uint8_t *bytes;
    size_t size;
    bool big_endian;
} Tiff;

static uint32_t tiff_read(const Tiff *t, size_t at, int bytes) {
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)t->bytes[at + (size_t)i] << 8 * (t->big_endian ? bytes - 1 - i : i);
    return v;
}

// The value of a 12-byte directory entry of one number; 0 for another type.
static uint32_t tiff_entry_value(const Tiff *t, size_t entry) {
    switch (tiff_read(t, entry + 2, 2)) {
    case TYPE_BYTE: return tiff_read(t, entry + 8, 1);
    case TYPE_SHORT: return tiff_read(t, entry + 8, 2);
    case TYPE_LONG: return tiff_read(t, entry + 8, 4);
    default: return 0;
    }
}

int image_exif_orientation(const uint8_t *tiff, size_t size) {
    Tiff t = {tiff, size, false};
    if (size < 8) return 0;
    if (memcmp(tiff, "MM\0*", 4) == 0)
        t.big_endian = true;
    else if (memcmp(tiff, "II*\0", 4) != 0)
        return 0;
    size_t directory = tiff_read(&t, 4, 4);
    if (directory > size - 2) return 0;
    size_t entries = tiff_read(&t, directory, 2);
    for (size_t i = 0; i < entries; i++) {
        size_t entry = directory + 2 + 12 * i;
        if (entry + 12 > size) return 0;
        if (tiff_read(&t, entry, 2) != TAG_ORIENTATION) continue;
        uint32_t v = tiff_entry_value(&t, entry);
        return v >= 1 && v <= 8 ? (int)v : 0;
    }
    return 0;
}

int image_xmp_orientation(const uint8_t *xmp, size_t size) {
    static const char key[] = "tiff:Orientation";
    const size_t n = sizeof key - 1;
    for (size_t i = 0; i + n + 3 <= size; i++) {
        if (xmp[i] != 't' || memcmp(xmp + i, key, n) != 0) continue;
        const uint8_t *p = xmp + i + n;
        if (*p == '=' && p[1] == '"')
            p += 2;
        else if (*p == '>')
            p++;
        else
            continue;
        if (*p >= '1' && *p <= '8') return *p - '0';
    }
    return 0;
}
