// picture FILE HEIGHT WIDTH: a picture as models see it by default (crop 0.875, bicubic, ImageNet's
// mean and deviation) as a .npy file [1,3,H,W], float32, on standard output.
#include "runtime/preprocess.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
    if (argc != 4) return 2;
    Preprocess p = {3, atoi(argv[2]), atoi(argv[3]), 0.875, false, FILTER_BICUBIC, mean, std};
    Image image = {0};
    uint8_t *bytes = NULL;
    size_t size = 0;
    CnxrtError err = {0};
    int n = p.height * p.width;
    float *v = malloc(sizeof *v * 3 * (size_t)n);
    bool ok = v && image_file_read(argv[1], &bytes, &size, &err) == CNXRT_OK &&
              image_decode(bytes, size, &(ImageOptions){.channels = 3}, &image, &err) == CNXRT_OK &&
              preprocess_image(&p, &image, v, &err) == CNXRT_OK;
    if (!ok) return fprintf(stderr, "%s: %s\n", argv[1], err.text ? err.text : "no memory"), 1;
    char about[118];
    snprintf(about, sizeof about,
             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, %d, %d), }", p.height,
             p.width);
    printf("\x93NUMPY\x01%c\x76%c%-117s\n", 0, 0, about);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < n; i++) fwrite(&v[3 * i + c], sizeof *v, 1, stdout);
    image_free(&image);
    free(bytes);
    free(v);
    return ferror(stdout);
}
