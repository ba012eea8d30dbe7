// JPEG through libjpeg-turbo: slow integer DCT and fancy upsampling, as Pillow decodes.
//
// libjpeg reports fatal errors through error_exit, which here long-jumps back to the one setjmp in
// image_jpeg_decode; everything that must survive the jump lives in the Decoder, outside of
// its frame. Damage that libjpeg only warns of (bad Huffman codes, data that end early) is an error
// here; harmless warnings (extraneous bytes, unknown revisions) are not.
#include "image_codec.h"
#include <string.h>

#ifdef CNXRT_JPEG
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <jpeglib.h>
#include <jerror.h>

enum { MAX_SCANS = 500 }; // more than any encoder writes; each costs a pass over the whole image

typedef struct {
    struct jpeg_error_mgr base; // first: libjpeg hands back a pointer to it
    jmp_buf escape;
    char text[JMSG_LENGTH_MAX + 32];
} JpegError;

typedef struct {
    struct jpeg_decompress_struct jpeg;
    JpegError error;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    ImageRaw *out;
} Decoder;

static _Noreturn void jpeg_escape(JpegError *e, const char *text) {
    snprintf(e->text, sizeof e->text, "%s", text);
    longjmp(e->escape, 1);
}

static _Noreturn void on_error(j_common_ptr j) {
    JpegError *e = (JpegError *)j->err;
    char text[JMSG_LENGTH_MAX];
    e->base.format_message(j, text);
    static const char prefix[] = "Corrupt JPEG data: ";
    const char *plain = strncmp(text, prefix, sizeof prefix - 1) ? text : text + sizeof prefix - 1;
    snprintf(e->text, sizeof e->text, "corrupt JPEG: %s", plain);
    longjmp(e->escape, 1);
}

static void on_message(j_common_ptr j, int level) {
    if (level >= 0) return;
    JpegError *e = (JpegError *)j->err;
    switch (e->base.msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER: jpeg_escape(e, "truncated: image data end before the image does");
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_BOGUS_PROGRESSION: on_error(j);
    default: break;
    }
}

static void on_output(j_common_ptr j) { (void)j; }
static void source_start(j_decompress_ptr j) { (void)j; }

static boolean source_fill(j_decompress_ptr j) {
    jpeg_escape((JpegError *)j->err, "truncated: the file ends inside the image");
}

static void source_skip(j_decompress_ptr j, long n) {
    if (n <= 0) return;
    if ((size_t)n > j->src->bytes_in_buffer) source_fill(j);
    j->src->next_input_byte += n;
    j->src->bytes_in_buffer -= (size_t)n;
}

static void on_progress(j_common_ptr j) {
    if (j->is_decompressor && ((j_decompress_ptr)j)->input_scan_number > MAX_SCANS)
        jpeg_escape((JpegError *)j->err, "corrupt JPEG: more than 500 scans");
}

static int markers_orientation(const struct jpeg_decompress_struct *j) {
    static const char exif[] = "Exif\0", xmp[] = "http://ns.adobe.com/xap/1.0/";
    int from_xmp = 0;
    for (const struct jpeg_marker_struct *m = j->marker_list; m; m = m->next) {
        size_t n = m->data_length;
        if (n > sizeof exif && memcmp(m->data, exif, sizeof exif) == 0) {
            int o = image_exif_orientation(m->data + 6, n - 6);
            if (o) return o;
        } else if (n > sizeof xmp && memcmp(m->data, xmp, sizeof xmp) == 0 && !from_xmp) {
            from_xmp = image_xmp_orientation(m->data + sizeof xmp, n - sizeof xmp);
        }
    }
    return from_xmp ? from_xmp : 1;
}

static void decoder_open(Decoder *d, const uint8_t *bytes, size_t size) {
    struct jpeg_decompress_struct *j = &d->jpeg;
    jpeg_create_decompress(j);
    d->source = (struct jpeg_source_mgr){.next_input_byte = bytes,
                                         .bytes_in_buffer = size,
                                         .init_source = source_start,
                                         .fill_input_buffer = source_fill,
                                         .skip_input_data = source_skip,
                                         .resync_to_restart = jpeg_resync_to_restart,
                                         .term_source = source_start};
    j->src = &d->source;
    d->progress.progress_monitor = on_progress;
    j->progress = &d->progress;
    jpeg_save_markers(j, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(j, TRUE);
}

// libjpeg scales by 1 / denominator of 1, 2, 4 and 8; anything else counts as 1.
static unsigned decoder_shrink(const Decoder *d, const ImageOptions *o) {
    const struct jpeg_decompress_struct *j = &d->jpeg;
    bool turned = d->out->orientation >= 5;
    int w = (int)j->image_width, h = (int)j->image_height;
    int n = o->shrink(o->user, turned ? h : w, turned ? w : h);
    return n == 2 || n == 4 || n == 8 ? (unsigned)n : 1;
}

// Grey, RGB or CMYK rows. Pillow takes every four-component file for Adobe's inverted CMYK.
static CnxrtStatus decoder_read(Decoder *d, const ImageOptions *o, CnxrtError *err) {
    struct jpeg_decompress_struct *j = &d->jpeg;
    if (j->num_components != 1 && j->num_components != 3 && j->num_components != 4) {
        cnxrt_error_set(err, "unsupported JPEG: %d colour components", j->num_components);
        return CNXRT_ERROR_FORMAT;
    }
    int channels = j->num_components;
    j->out_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
    Image *image = &d->out->image;
    d->out->orientation = markers_orientation(j);
    if (o->shrink) j->scale_denom = decoder_shrink(d, o);
    jpeg_calc_output_dimensions(j);
    CnxrtStatus s = image_allocate(image, j->output_width, j->output_height, channels, o, err);
    if (s != CNXRT_OK) return s;
    jpeg_start_decompress(j);
    size_t stride = (size_t)image->width * (size_t)channels;
    while (j->output_scanline < j->output_height) {
        JSAMPROW row = image->pixels + stride * j->output_scanline;
        jpeg_read_scanlines(j, &row, 1);
    }
    d->out->cmyk = channels == 4;
    if (d->out->cmyk)
        for (size_t i = 0, n = stride * (size_t)image->height; i < n; i++)
            image->pixels[i] = (uint8_t)(255 - image->pixels[i]);
    return CNXRT_OK;
}

CnxrtStatus image_jpeg_decode(const uint8_t *bytes, size_t size, const ImageOptions *o,
                              ImageRaw *out, CnxrtError *err) {
    memset(out, 0, sizeof *out);
    Decoder *d = calloc(1, sizeof *d);
    if (!d) {
        cnxrt_error_set(err, "out of memory");
        return CNXRT_ERROR_MEMORY;
    }
    d->out = out;
    d->jpeg.err = jpeg_std_error(&d->error.base);
    d->error.base.error_exit = on_error;
    d->error.base.emit_message = on_message;
    d->error.base.output_message = on_output;
    CnxrtStatus status;
    if (setjmp(d->error.escape) == 0) {
        decoder_open(d, bytes, size);
        status = decoder_read(d, o, err);
    } else {
        cnxrt_error_set(err, "%s", d->error.text);
        status = CNXRT_ERROR_FORMAT;
    }
    jpeg_destroy_decompress(&d->jpeg);
    free(d);
    if (status != CNXRT_OK) image_free(&out->image);
    return status;
}

#else

CnxrtStatus image_jpeg_decode(const uint8_t *bytes, size_t size, const ImageOptions *o,
                              ImageRaw *out, CnxrtError *err) {
    (void)bytes, (void)size, (void)o;
    memset(out, 0, sizeof *out);
    cnxrt_error_set(err, "a JPEG file, and this program was built without JPEG support (libjpeg)");
    return CNXRT_ERROR_FORMAT;
}

#endif
