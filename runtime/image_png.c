// PNG through libpng: every colour type, depth and interlacing. Gamma and colour profiles are
// ignored, as Pillow does. 16-bit colour keeps the high byte (Pillow's "RGB;16B"), and 16-bit grey
// too, where Pillow clips at 255, which turns nearly every picture white.
//
// libpng's errors long-jump to the setjmp in image_png_decode; what must survive lives in the
// Decoder. Transparency is dropped unless the caller wants RGBA.
#include "image_codec.h"
#include <string.h>

#ifdef CNXRT_PNG
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <png.h>

typedef struct {
    png_structp png;
    png_infop info;
    const uint8_t *bytes;
    size_t left;
    png_bytepp rows;
    ImageRaw *out;
    bool pixels_done; // what follows the pixels may be damaged
    char text[160];
} Decoder;

static _Noreturn void on_error(png_structp png, png_const_charp text) {
    Decoder *d = png_get_error_ptr(png);
    bool plain = strncmp(text, "truncated", 9) == 0;
    snprintf(d->text, sizeof d->text, plain ? "%s" : "corrupt PNG: %s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) { (void)png, (void)text; }

static void on_read(png_structp png, png_bytep dst, size_t n) {
    Decoder *d = png_get_io_ptr(png);
    if (n > d->left) png_error(png, "truncated: the file ends inside the image");
    memcpy(dst, d->bytes, n);
    d->bytes += n;
    d->left -= n;
}

// Sets up conversion to 8-bit grey, RGB or RGBA; returns the channels of a row.
static int decoder_transform(Decoder *d, const ImageOptions *o) {
    png_structp p = d->png;
    int type = png_get_color_type(p, d->info);
    bool transparency = png_get_valid(p, d->info, PNG_INFO_tRNS) != 0;
    png_set_strip_16(p);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(p);
    if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(p);
    if (o->channels != 4) {
        if ((type & PNG_COLOR_MASK_ALPHA) || transparency) png_set_strip_alpha(p);
        return type & PNG_COLOR_MASK_COLOR ? 3 : 1;
    }
    if (transparency) png_set_tRNS_to_alpha(p);
    png_set_gray_to_rgb(p);
    if (!(type & PNG_COLOR_MASK_ALPHA) && !transparency)
        png_set_add_alpha(p, 255, PNG_FILLER_AFTER);
    return 4;
}

static int info_orientation(Decoder *d) {
    png_bytep exif = NULL;
    png_uint_32 size = 0;
    int o = 0;
#ifdef PNG_eXIf_SUPPORTED
    if (png_get_eXIf_1(d->png, d->info, &size, &exif)) o = image_exif_orientation(exif, size);
#endif
    png_textp text = NULL;
    int n = 0;
    png_get_text(d->png, d->info, &text, &n);
    for (int i = 0; i < n && !o; i++)
        if (strcmp(text[i].key, "XML:com.adobe.xmp") == 0 && text[i].text)
            o = image_xmp_orientation((const uint8_t *)text[i].text, strlen(text[i].text));
    return o ? o : 1;
}

static CnxrtStatus decoder_read(Decoder *d, const ImageOptions *o, CnxrtError *err) {
    png_structp p = d->png;
    png_set_read_fn(p, d, on_read);
    png_set_user_limits(p, IMAGE_MAX_SIDE, IMAGE_MAX_SIDE);
    png_set_benign_errors(p, 1);
    png_read_info(p, d->info);
    int channels = decoder_transform(d, o);
    png_set_interlace_handling(p);
    png_read_update_info(p, d->info);
    Image *image = &d->out->image;
    CnxrtStatus s = image_allocate(image, png_get_image_width(p, d->info),
                                   png_get_image_height(p, d->info), channels, o, err);
    if (s != CNXRT_OK) return s;
    size_t stride = png_get_rowbytes(p, d->info);
    if (stride != (size_t)image->width * (size_t)channels) png_error(p, "unexpected row size");
    d->rows = malloc((size_t)image->height * sizeof *d->rows);
    if (!d->rows) png_error(p, "out of memory");
    for (int y = 0; y < image->height; y++) d->rows[y] = image->pixels + stride * (size_t)y;
    png_read_image(p, d->rows);
    d->pixels_done = true;
    png_read_end(p, d->info);
    return CNXRT_OK;
}

static CnxrtStatus decoder_run(Decoder *d, const ImageOptions *o, CnxrtError *err) {
    d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    d->info = d->png ? png_create_info_struct(d->png) : NULL;
    if (!d->info) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    CnxrtStatus status = CNXRT_OK;
    if (setjmp(png_jmpbuf(d->png)) == 0) {
        status = decoder_read(d, o, err);
    } else if (!d->pixels_done) {
        cnxrt_error_set(err, "%s", d->text);
        return CNXRT_ERROR_FORMAT;
    }
    if (status == CNXRT_OK) d->out->orientation = info_orientation(d);
    return status;
}

CnxrtStatus image_png_decode(const uint8_t *bytes, size_t size, const ImageOptions *o,
                             ImageRaw *out, CnxrtError *err) {
    memset(out, 0, sizeof *out);
    Decoder *d = calloc(1, sizeof *d);
    if (!d) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    *d = (Decoder){.bytes = bytes, .left = size, .out = out};
    CnxrtStatus status = decoder_run(d, o, err);
    png_destroy_read_struct(&d->png, &d->info, NULL);
    free(d->rows);
    free(d);
    if (status != CNXRT_OK) image_free(&out->image);
    return status;
}

#else

CnxrtStatus image_png_decode(const uint8_t *bytes, size_t size, const ImageOptions *o,
                             ImageRaw *out, CnxrtError *err) {
    (void)bytes, (void)size, (void)o;
    memset(out, 0, sizeof *out);
    cnxrt_error_set(err, "a PNG file, and this program was built without PNG support (libpng)");
    return CNXRT_ERROR_FORMAT;
}

#endif
