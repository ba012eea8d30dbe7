// Pictures as 8-bit pixels: JPEG and PNG files decoded to the colour mode a model wants, with the
// results of Pillow (Image.open, ImageOps.exif_transpose, Image.convert) bit for bit.
//
// Bytes are never trusted: every error is a status with a reason, sizes are bounded before memory
// is taken, and no path leaks. A build without libjpeg or libpng says so when it meets such a file.
#ifndef IMAGE_H
#define IMAGE_H
#include "cnxrt_weights.h"
#include <stdbool.h>

enum {
    IMAGE_MAX_SIDE = 65535,
    IMAGE_MAX_PIXELS = 178956970, // where Pillow, too, calls a file a decompression bomb
};
#define IMAGE_MAX_FILE ((int64_t)1 << 30)

// Rows of interleaved pixels without padding. channels: 1 grey, 3 RGB, 4 RGBA.
typedef struct {
    int width, height, channels;
    uint8_t *pixels; // malloc'ed; image_free
} Image;

typedef struct {
    int channels;       // wanted: 1, 3 or 4
    int64_t max_pixels; // 0: IMAGE_MAX_PIXELS
    // Asked for each picture with its upright size, when not NULL: JPEG files are then decoded at
    // 1/1, 1/2, 1/4 or 1/8 of it (sides rounded up), which is faster; others ignore the answer.
    int (*shrink)(void *user, int width, int height);
    void *user;
} ImageOptions;

// Decodes a file in memory: orientation applied, converted to o->channels. The message in err is a
// reason ("truncated: ..."), without the file's name. *out is zeroed on error.
CnxrtStatus image_decode(const uint8_t *bytes, size_t size, const ImageOptions *o, Image *out,
                         CnxrtError *err);
// The whole of a file in malloc'ed memory; refuses folders and files above IMAGE_MAX_FILE.
CnxrtStatus image_file_read(const char *path, uint8_t **bytes, size_t *size, CnxrtError *err);
// Raw pixels (channels 1, 3 or 4) as an image of another mode, by the rules of Image.convert.
CnxrtStatus image_from_pixels(const uint8_t *pixels, int width, int height, int channels, int want,
                              Image *out, CnxrtError *err);
// Writes 1, 3 or 4 channels as a PNG file, atomically.
CnxrtStatus image_png_write(const char *path, const Image *image, CnxrtError *err);
void image_free(Image *image);
// True for the file names that are taken for pictures inside folders and archives.
bool image_name_supported(const char *name);

#endif
