// Writing PNG through libpng's simplified interface, under the file's name only when complete.
#include "image.h"
#include "weights_file.h"

#ifdef CNXRT_PNG
#include <stdlib.h>
#include <string.h>
#include <png.h>

static CnxrtStatus png_bytes(const Image *image, void **bytes, png_alloc_size_t *size,
                             CnxrtError *err) {
    png_image p = {.version = PNG_IMAGE_VERSION,
                   .width = (png_uint_32)image->width,
                   .height = (png_uint_32)image->height,
                   .format = image->channels == 1   ? PNG_FORMAT_GRAY
                             : image->channels == 3 ? PNG_FORMAT_RGB
                                                    : PNG_FORMAT_RGBA};
    *size = PNG_IMAGE_PNG_SIZE_MAX(p);
    *bytes = malloc(*size);
    if (!*bytes) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    if (png_image_write_to_memory(&p, *bytes, size, 0, image->pixels, 0, NULL)) return CNXRT_OK;
    cnxrt_error_set(err, "cannot make a PNG: %s", p.message);
    return CNXRT_ERROR_ARGUMENT;
}

CnxrtStatus image_png_write(const char *path, const Image *image, CnxrtError *err) {
    void *bytes;
    png_alloc_size_t size;
    AtomicFile f;
    CnxrtStatus s = png_bytes(image, &bytes, &size, err);
    if (s == CNXRT_OK) {
        s = atomic_open(&f, path, err);
        if (s == CNXRT_OK) s = atomic_write(&f, bytes, size, err);
        s = atomic_close(&f, s, err);
    }
    free(bytes);
    return s;
}

#else

CnxrtStatus image_png_write(const char *path, const Image *image, CnxrtError *err) {
    (void)image;
    cnxrt_error_set(err, "%s: this program was built without PNG support (libpng)", path);
    return CNXRT_ERROR_ARGUMENT;
}

#endif
