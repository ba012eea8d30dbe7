// make_sets DIR FIRST COUNT CLASSES HEIGHT WIDTH: grey PNG pictures NUMBER.png whose sets of
// classes are drawn, with NUMBER.cls beside each: every class of the set adds stripes of its own
// direction and width to the picture, so that they can be learned. metadata.jsonl says the same by
// names.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state;

static uint32_t draw(uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)state * n) >> 32);
}

static uint32_t crc(const uint8_t *p, size_t n) {
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (0xedb88320u & -(c & 1));
    }
    return ~c;
}

static void number(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void chunk(FILE *f, const char *type, const uint8_t *bytes, size_t n) {
    uint8_t *p = calloc(n + 12, 1);
    number(p, (uint32_t)n);
    memcpy(p + 4, type, 4);
    if (n) memcpy(p + 8, bytes, n);
    number(p + 8 + n, crc(p + 4, n + 4));
    fwrite(p, 1, n + 12, f);
    free(p);
}

// One stored block of rows, each behind a filter byte: below 64 KB.
static void png(const char *path, const uint8_t *rows, size_t n, int h, int w) {
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    uint8_t head[13] = {0}, *z = calloc(n + 11, 1);
    uint32_t a = 1, b = 0;
    number(head, (uint32_t)w), number(head + 4, (uint32_t)h), head[8] = 8;
    for (size_t i = 0; i < n; i++) a = (a + rows[i]) % 65521, b = (b + a) % 65521;
    z[0] = 0x78, z[1] = 1, z[2] = 1;
    z[3] = (uint8_t)n, z[4] = (uint8_t)(n >> 8), z[5] = (uint8_t)~n, z[6] = (uint8_t)(~n >> 8);
    memcpy(z + 7, rows, n);
    number(z + 7 + n, b << 16 | a);
    FILE *f = fopen(path, "wb");
    if (!f) perror(path), exit(1);
    fwrite(signature, 1, 8, f);
    chunk(f, "IHDR", head, 13);
    chunk(f, "IDAT", z, n + 11);
    chunk(f, "IEND", NULL, 0);
    fclose(f);
    free(z);
}

static int stripe(int class, int y, int x) {
    const int across[4] = {y, x, x + y, x - y + 1000};
    return across[class % 4] / (2 + class / 4) % 2 ? 40 : 0;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    int first = atoi(argv[2]), count = atoi(argv[3]), classes = atoi(argv[4]);
    int h = atoi(argv[5]), w = atoi(argv[6]);
    uint8_t *rows = malloc((size_t)h * (size_t)(w + 1));
    char path[512];
    snprintf(path, sizeof path, "%s/metadata.jsonl", argv[1]);
    FILE *names = fopen(path, "w");
    state = (uint32_t)first + 1;
    for (int i = first; i < first + count; i++) {
        unsigned set = draw(1u << classes);
        for (int y = 0; y < h; y++)
            for (int x = -1; x < w; x++) {
                int v = x < 0 ? 0 : 40 + (int)draw(20);
                for (int k = 0; k < classes && x >= 0; k++) v += set >> k & 1 ? stripe(k, y, x) : 0;
                rows[y * (w + 1) + x + 1] = (uint8_t)v;
            }
        snprintf(path, sizeof path, "%s/%04d.png", argv[1], i);
        png(path, rows, (size_t)h * (size_t)(w + 1), h, w);
        snprintf(path, sizeof path, "%s/%04d.cls", argv[1], i);
        FILE *labels = fopen(path, "w");
        fprintf(names, "{\"file_name\": \"%04d.png\", \"labels\": [", i);
        for (int k = 0, n = 0; k < classes; k++) {
            if (!(set >> k & 1)) continue;
            fprintf(labels, "%s%d", n ? "," : "", k);
            fprintf(names, "%s\"stripes %d\"", n++ ? ", " : "", k);
        }
        fprintf(names, "]}\n");
        fclose(labels);
    }
    fclose(names);
    free(rows);
    return 0;
}
