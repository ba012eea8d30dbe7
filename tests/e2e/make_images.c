// make_images DIR TRAIN TEST CLASSES HEIGHT WIDTH: a data set in IDX files (as MNIST's) whose
// classes are stripes of different directions and widths under noise, so that they can be learned.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t state = 12345;

static uint32_t draw(uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)state * n) >> 32);
}

static void put(FILE *f, uint32_t v) {
    for (int i = 24; i >= 0; i -= 8) fputc((int)(v >> i & 255), f);
}

static FILE *open_file(const char *dir, const char *part, const char *what) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s-%s-ubyte", dir, part, what);
    FILE *f = fopen(path, "wb");
    if (!f) perror(path), exit(1);
    return f;
}

static int pixel(int class, int y, int x, int shift) {
    int width = 2 + class / 4, at = 0;
    switch (class % 4) {
    case 0: at = y; break;
    case 1: at = x; break;
    case 2: at = x + y; break;
    default: at = x / 4 + y / 4; break;
    }
    return ((at + shift) / width % 2 ? 190 : 40) + (int)draw(40);
}

static void part(const char *dir, const char *name, uint32_t n, uint32_t classes, int h, int w) {
    FILE *images = open_file(dir, name, "images-idx3"),
         *labels = open_file(dir, name, "labels-idx1");
    put(images, 0x803), put(images, n), put(images, (uint32_t)h), put(images, (uint32_t)w);
    put(labels, 0x801), put(labels, n);
    for (uint32_t i = 0; i < n; i++) {
        int class = (int)(i % classes), shift = (int)draw(8);
        fputc(class, labels);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) fputc(pixel(class, y, x, shift), images);
    }
    fclose(images);
    fclose(labels);
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    int h = atoi(argv[5]), w = atoi(argv[6]);
    part(argv[1], "train", (uint32_t)atoi(argv[2]), (uint32_t)atoi(argv[4]), h, w);
    part(argv[1], "t10k", (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]), h, w);
    return 0;
}
