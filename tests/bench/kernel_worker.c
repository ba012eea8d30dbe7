// main of the kernel peers: operands, protocol, timing.
#include "kernel_worker.h"
#include "../../runtime/cnxrt_clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64, MARGIN = 4096 };

float *kernel_floats(int64_t n) {
    size_t bytes = ((size_t)n * sizeof(float) + MARGIN + 63) / 64 * 64;
    float *p = aligned_alloc(LINE, bytes);
    if (!p) exit(EXIT_FAILURE);
    memset(p, 0, bytes);
    return p;
}

// Multiples of 1/1000 in [-1, 1], the same for every peer.
static float *operand(int64_t n, int64_t step) {
    float *p = kernel_floats(n);
    for (int64_t i = 0; i < n; i++) p[i] = (float)((i * step) % 2001 - 1000) * 1e-3f;
    return p;
}

static bool shape_read(KernelShape *s, const char *text) {
    long long a, b, c;
    char kind[16];
    if (sscanf(text, "%15s %lld %lld %lld", kind, &a, &b, &c) != 4) return false;
    if (a < 1 || b < 1 || c < 1) return false;
    if (strcmp(kind, "gemm") == 0)
        *s = (KernelShape){.m = a, .k = b, .n = c, .na = a * b, .nb = b * c, .nout = a * c};
    else if (strcmp(kind, "dwconv") == 0)
        *s = (KernelShape){.depthwise = true, .h = a, .w = b, .c = c};
    else
        return false;
    if (s->depthwise) {
        s->na = s->nout = a * b * c;
        s->nb = (int64_t)TAPS * TAPS * c;
    }
    s->a = operand(s->na, 7919);
    s->b = operand(s->nb, 104729);
    s->out = kernel_floats(s->nout);
    return true;
}

static bool output_write(const KernelShape *s, const char *path) {
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    size_t n = fwrite(s->out, sizeof *s->out, (size_t)s->nout, f);
    return (fclose(f) == 0) & (n == (size_t)s->nout);
}

static int failed(const char *status, const char *why) {
    printf("failed {\"status\": \"%s\", \"why\": \"%s\"}\n", status, why);
    return EXIT_FAILURE;
}

static void answer(long n) {
    fputs("ms {\"ms\": [", stdout);
    for (long i = 0; i < n; i++) {
        double start = cnxrt_seconds();
        kernel_run();
        printf("%s%.7f", i ? ", " : "", 1e3 * (cnxrt_seconds() - start));
    }
    printf("], \"peak_rss_mb\": %.3f}\n", cnxrt_peak_rss_mb());
    fflush(stdout);
}

int main(int argc, char **argv) {
    KernelShape shape;
    char line[64];
    long n;
    if (argc != 3 || !shape_read(&shape, argv[1])) return failed("failed", "usage: SHAPE OUTPUT");
    const char *why = kernel_open(&shape);
    if (why) return failed("cannot", why);
    kernel_run();
    kernel_finish();
    if (!output_write(&shape, argv[2])) return failed("failed", "cannot write the output");
    printf("ready {\"form\": \"%s\", \"version\": \"%s\"}\n", kernel_form(), kernel_version());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        if (sscanf(line, "run %ld", &n) == 1) answer(n);
    return EXIT_SUCCESS;
}
