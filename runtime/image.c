// Recognises a file, decodes it, turns it upright and converts it, by Pillow's formulas:
//   L    (19595 R + 38470 G + 7471 B + 2^15) >> 16                       (ITU-R 601 luma)
//   RGB  of CMYK: clip(255 - K - C (255 - K) / 255), the division rounded as MULDIV255
#include "image_codec.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

void image_free(Image *image) {
    free(image->pixels);
    *image = (Image){0};
}

bool image_name_supported(const char *name) {
    static const char *const ends[] = {".jpg", ".jpeg", ".jpe", ".jfif", ".png"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof ends / sizeof *ends; i++)
        if (strcasecmp(dot, ends[i]) == 0) return true;
    return false;
}

CnxrtStatus image_allocate(Image *image, int64_t width, int64_t height, int channels,
                           const ImageOptions *o, CnxrtError *err) {
    int64_t limit = o->max_pixels ? o->max_pixels : IMAGE_MAX_PIXELS;
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE ||
        width * height > limit) {
        cnxrt_error_set(err, "%lldx%lld pixels; the limits are %d a side and %lld in all",
                        (long long)width, (long long)height, IMAGE_MAX_SIDE, (long long)limit);
        return CNXRT_ERROR_FORMAT;
    }
    uint8_t *pixels = malloc((size_t)(width * height * channels));
    if (!pixels) {
        cnxrt_error_set(err, "out of memory for %lldx%lld pixels", (long long)width,
                        (long long)height);
        return CNXRT_ERROR_MEMORY;
    }
    *image = (Image){(int)width, (int)height, channels, pixels};
    return CNXRT_OK;
}

// Source position of the upright image's pixel (x, y), for a source of w x h.
static size_t upright_source(int orientation, int x, int y, int w, int h) {
    int sx = x, sy = y;
    switch (orientation) {
    case 2: sx = w - 1 - x; break;
    case 3: sx = w - 1 - x, sy = h - 1 - y; break;
    case 4: sy = h - 1 - y; break;
    case 5: sx = y, sy = x; break;
    case 6: sx = y, sy = h - 1 - x; break;
    case 7: sx = w - 1 - y, sy = h - 1 - x; break;
    case 8: sx = w - 1 - y, sy = x; break;
    default: break;
    }
    return (size_t)sy * (size_t)w + (size_t)sx;
}

static CnxrtStatus image_turn_upright(Image *image, int orientation, CnxrtError *err) {
    if (orientation <= 1) return CNXRT_OK;
    Image old = *image;
    bool swapped = orientation >= 5;
    ImageOptions any = {0};
    CnxrtStatus s = image_allocate(image, swapped ? old.height : old.width,
                                   swapped ? old.width : old.height, old.channels, &any, err);
    if (s == CNXRT_OK) {
        size_t c = (size_t)old.channels;
        uint8_t *dst = image->pixels;
        for (int y = 0; y < image->height; y++)
            for (int x = 0; x < image->width; x++, dst += c)
                memcpy(dst,
                       old.pixels + c * upright_source(orientation, x, y, old.width, old.height),
                       c);
    }
    free(old.pixels);
    if (s != CNXRT_OK) *image = (Image){0};
    return s;
}

static uint8_t luma(const uint8_t *rgb) {
    return (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb) {
    int white = 255 - cmyk[3];
    for (int k = 0; k < 3; k++) {
        int t = cmyk[k] * white + 128;
        int v = white - (((t >> 8) + t) >> 8);
        rgb[k] = (uint8_t)(v < 0 ? 0 : v);
    }
}

static void pixel_to_rgba(const uint8_t *p, int channels, bool cmyk, uint8_t *rgba) {
    rgba[3] = 255;
    if (cmyk) {
        cmyk_to_rgb(p, rgba);
    } else if (channels == 1) {
        rgba[0] = rgba[1] = rgba[2] = p[0];
    } else {
        memcpy(rgba, p, (size_t)channels);
    }
}

static void pixels_convert(const uint8_t *src, int channels, bool cmyk, int want, size_t n,
                           uint8_t *dst) {
    for (size_t i = 0; i < n; i++, src += channels, dst += want) {
        uint8_t rgba[4];
        pixel_to_rgba(src, channels, cmyk, rgba);
        if (want == 1)
            dst[0] = channels == 1 ? src[0] : luma(rgba);
        else
            memcpy(dst, rgba, (size_t)want);
    }
}

static CnxrtStatus image_convert(ImageRaw *raw, int want, Image *out, CnxrtError *err) {
    Image *src = &raw->image;
    if (src->channels == want && !raw->cmyk) {
        *out = *src;
        return CNXRT_OK;
    }
    ImageOptions any = {0};
    CnxrtStatus s = image_allocate(out, src->width, src->height, want, &any, err);
    if (s == CNXRT_OK)
        pixels_convert(src->pixels, src->channels, raw->cmyk, want,
                       (size_t)src->width * (size_t)src->height, out->pixels);
    image_free(src);
    return s;
}

static bool begins(const uint8_t *bytes, size_t size, const char *magic, size_t n) {
    return size >= n && memcmp(bytes, magic, n) == 0;
}

// What else a file may be, for the message.
static CnxrtStatus refuse(const uint8_t *bytes, size_t size, CnxrtError *err) {
    static const struct {
        const char *magic;
        size_t n;
        const char *name;
    } known[] = {{"GIF8", 4, "GIF"},         {"BM", 2, "BMP"},         {"II*\0", 4, "TIFF"},
                 {"MM\0*", 4, "TIFF"},       {"RIFF", 4, "WebP"},      {"\0\0\0\f", 4, "JPEG 2000"},
                 {"\xff\x0a", 2, "JPEG XL"}, {"8BPS", 4, "Photoshop"}, {"%PDF", 4, "PDF"},
                 {"\x93NUMPY", 6, ".npy"},   {"PK\3\4", 4, "zip"},     {"\x1f\x8b", 2, "gzip"}};
    if (size == 0) {
        cnxrt_error_set(err, "the file is empty");
        return CNXRT_ERROR_FORMAT;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!begins(bytes, size, known[i].magic, known[i].n)) continue;
        cnxrt_error_set(err, "a %s file; only JPEG and PNG pictures are read", known[i].name);
        return CNXRT_ERROR_FORMAT;
    }
    cnxrt_error_set(err, "neither a JPEG nor a PNG file");
    return CNXRT_ERROR_FORMAT;
}

CnxrtStatus image_decode(const uint8_t *bytes, size_t size, const ImageOptions *o, Image *out,
                         CnxrtError *err) {
    *out = (Image){0};
    ImageRaw raw;
    CnxrtStatus s;
    if (begins(bytes, size, "\xff\xd8\xff", 3))
        s = image_jpeg_decode(bytes, size, o, &raw, err);
    else if (begins(bytes, size, "\x89PNG\r\n\x1a\n", 8))
        s = image_png_decode(bytes, size, o, &raw, err);
    else
        return refuse(bytes, size, err);
    if (s == CNXRT_OK) s = image_turn_upright(&raw.image, raw.orientation, err);
    if (s == CNXRT_OK && o->shrink && bytes[0] != 0xff)
        (void)o->shrink(o->user, raw.image.width, raw.image.height);
    return s == CNXRT_OK ? image_convert(&raw, o->channels, out, err) : s;
}

CnxrtStatus image_from_pixels(const uint8_t *pixels, int width, int height, int channels, int want,
                              Image *out, CnxrtError *err) {
    ImageOptions any = {0};
    CnxrtStatus s = image_allocate(out, width, height, want, &any, err);
    if (s == CNXRT_OK)
        pixels_convert(pixels, channels, false, want, (size_t)width * (size_t)height, out->pixels);
    return s;
}

// Reads to the end; the size of pipes and the like is not known beforehand.
static CnxrtStatus stream_read(FILE *f, uint8_t **bytes, size_t *size, CnxrtError *err) {
    size_t room = 0, n = 0, got = 1;
    uint8_t *data = NULL;
    while (got && n <= (size_t)IMAGE_MAX_FILE) {
        if (n == room) {
            room = room ? room * 2 : 1 << 18;
            uint8_t *bigger = realloc(data, room);
            if (!bigger) break;
            data = bigger;
        }
        n += got = fread(data + n, 1, room - n, f);
    }
    if (!got && !ferror(f)) {
        *bytes = data;
        *size = n;
        return CNXRT_OK;
    }
    free(data);
    if (ferror(f))
        cnxrt_error_set(err, "cannot read: %s", strerror(errno));
    else
        cnxrt_error_set(err, "larger than %lld MB", (long long)(IMAGE_MAX_FILE >> 20));
    return CNXRT_ERROR_IO;
}

CnxrtStatus image_file_read(const char *path, uint8_t **bytes, size_t *size, CnxrtError *err) {
    *bytes = NULL;
    *size = 0;
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &st) != 0) {
        cnxrt_error_set(err, "cannot open: %s", strerror(errno));
        if (f) fclose(f);
        return CNXRT_ERROR_IO;
    }
    CnxrtStatus s = CNXRT_ERROR_IO;
    if (S_ISDIR(st.st_mode))
        cnxrt_error_set(err, "a folder");
    else
        s = stream_read(f, bytes, size, err);
    fclose(f);
    return s;
}
