// What the image decoders share. Each decodes into the mode of the file; image.c applies the
// orientation and converts.
#ifndef IMAGE_CODEC_H
#define IMAGE_CODEC_H
#include "image.h"

// A decoded file before conversion. channels: 1 grey, 3 RGB, 4 RGBA, or 4 CMYK (0 = no ink).
typedef struct {
    Image image;
    bool cmyk;
    int orientation; // EXIF 1..8
} ImageRaw;

CnxrtStatus image_jpeg_decode(const uint8_t *bytes, size_t size, const ImageOptions *o,
                              ImageRaw *out, CnxrtError *err);
CnxrtStatus image_png_decode(const uint8_t *bytes, size_t size, const ImageOptions *o,
                             ImageRaw *out, CnxrtError *err);

// Checks the size a header declares and takes the pixels.
CnxrtStatus image_allocate(Image *image, int64_t width, int64_t height, int channels,
                           const ImageOptions *o, CnxrtError *err);
// The orientation of a TIFF block (EXIF without its "Exif\0\0"), or of an XMP packet; 0: none.
int image_exif_orientation(const uint8_t *tiff, size_t size);
int image_xmp_orientation(const uint8_t *xmp, size_t size);

#endif
