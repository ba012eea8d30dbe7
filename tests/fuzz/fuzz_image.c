// Any bytes as a picture and as a tar archive: an error or pixels, whose preprocessing must then
// succeed; names and extents of archive members stay inside their bounds.
#include "runtime/image_tar.h"
#include "runtime/preprocess.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *data;
    int64_t size;
} Bytes;

static int64_t read_at(void *user, int64_t offset, void *dst, int64_t n) {
    const Bytes *b = user;
    if (offset >= b->size) return 0;
    int64_t got = b->size - offset < n ? b->size - offset : n;
    memcpy(dst, b->data + offset, (size_t)got);
    return got;
}

static void require(bool ok) {
    if (!ok) abort();
}

static void walk_archive(const uint8_t *data, size_t size) {
    Bytes bytes = {data, (int64_t)size};
    Tar tar = {.read = read_at, .user = &bytes};
    TarMember *m = malloc(sizeof *m);
    require(m != NULL);
    CnxrtError err = {0};
    bool end = false;
    int64_t before = 0;
    while (tar_next(&tar, m, &end, &err) == CNXRT_OK && !end) {
        require(tar.offset > before && m->offset > before && m->size >= 0);
        require(memchr(m->name, 0, sizeof m->name) != NULL);
        before = m->offset;
    }
    cnxrt_error_free(&err);
    free(m);
}

static void decode(const uint8_t *data, size_t size, int channels) {
    static const float mean[4] = {0.5f, 0.5f, 0.5f, 0.5f}, std[4] = {1, 1, 1, 1};
    ImageOptions o = {.channels = channels, .max_pixels = 1 << 14};
    Image image;
    CnxrtError err = {0};
    if (image_decode(data, size, &o, &image, &err) == CNXRT_OK) {
        float out[12 * 17 * 4];
        Preprocess p = {channels, 12, 17, 0.875, size % 2 == 0, FILTER_BICUBIC, mean, std};
        require(image.channels == channels && image.pixels && !err.text);
        require(preprocess_image(&p, &image, out, &err) == CNXRT_OK);
        for (int i = 0; i < 12 * 17 * channels; i++) require(out[i] >= -0.5f && out[i] <= 0.5f);
    } else {
        require(err.text && err.text[0] && !image.pixels);
    }
    image_free(&image);
    cnxrt_error_free(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const int modes[] = {3, 1, 4};
    decode(data, size, modes[size % 3]);
    walk_archive(data, size);
    return 0;
}
