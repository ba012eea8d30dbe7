// same A B: both .npy files (version 1, float32) hold as many values, none is NaN, and they differ
// by at most 1e-5 of the largest.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 16 };

static long read_values(const char *path, float *out) {
    unsigned char head[10];
    FILE *f = fopen(path, "rb");
    if (!f || fread(head, 1, sizeof head, f) != sizeof head) return -1;
    fseek(f, head[8] + 256 * head[9], SEEK_CUR);
    long n = (long)fread(out, sizeof *out, MOST, f);
    fclose(f);
    return n;
}

int main(int argc, char **argv) {
    static float a[MOST], b[MOST];
    if (argc != 3) return 2;
    long n = read_values(argv[1], a);
    double most = 0, off = 0;
    if (n < 1 || read_values(argv[2], b) != n) return printf("%ld values\n", n), 1;
    for (long i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i]));
        off = fmax(off, fabs((double)a[i] - (double)b[i]));
        if (isnan(a[i]) || isnan(b[i])) return printf("NaN at %ld\n", i), 1;
    }
    printf("%ld values, off by %.2g of the largest\n", n, off / most);
    return !(off <= 1e-5 * most);
}
