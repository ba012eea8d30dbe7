// parity: the seeded input of a parity case, and the comparison of a binary's outputs with the
// fixture written from PyTorch (make_fixtures.py).
//   parity input CASE NxCxHxW OUT.npy [nhwc]
//   parity mask CASE NxL|NxHxW KEEP OUT.npy  KEEP cells of each image are 0, the others 1
//   parity grads A B TOLERANCE               all tensors of two files, each relative to its norm
//   parity same A.npy B.npy TOLERANCE        relative to the norm of B
//   parity compare FIXTURE.safetensors TENSOR RESULT.npy TOLERANCE
// TENSOR is logits or pooled (whole) or stageI (64 hashed samples, channels last). An error is
// relative to the largest magnitude of the reference tensor. Exit 1 when above the tolerance.
#include "cnxrt_weights.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, CnxrtError *err) {
    fprintf(stderr, "parity: %s: %s\n", what, err && err->text ? err->text : "failed");
    return 2;
}

static int make_input(char **arg, bool nhwc) {
    int64_t d[4];
    if (sscanf(arg[1], "%ldx%ldx%ldx%ld", &d[0], &d[1], &d[2], &d[3]) != 4)
        return fail("shape is not NxCxHxW", NULL);
    int64_t n = d[0] * d[1] * d[2] * d[3];
    float *x = malloc((size_t)n * sizeof *x), *y = malloc((size_t)n * sizeof *y);
    cnxrt_seed_uniform(arg[0], 0, n, x);
    int64_t pixels = d[2] * d[3];
    for (int64_t i = 0; i < n; i++) {
        int64_t image = i / (d[1] * pixels), c = i / pixels % d[1], p = i % pixels;
        y[nhwc ? (image * pixels + p) * d[1] + c : i] = 2 * x[i];
    }
    int64_t last[4] = {d[0], d[2], d[3], d[1]};
    CnxrtError err = {0};
    CnxrtStatus s = cnxrt_npy_write_f32(arg[2], 4, nhwc ? last : d, y, &err);
    free(x);
    free(y);
    return s == CNXRT_OK ? 0 : fail(arg[2], &err);
}

static int make_mask(char **arg) {
    int64_t d[3] = {0, 0, 1}, keep = atoll(arg[2]);
    int rank = sscanf(arg[1], "%ldx%ldx%ld", &d[0], &d[1], &d[2]);
    if (rank < 2) return fail("shape is not NxL or NxHxW", NULL);
    int64_t cells = d[1] * d[2], n = d[0] * cells;
    float *u = malloc((size_t)n * sizeof *u), *m = malloc((size_t)n * sizeof *m);
    cnxrt_seed_uniform(arg[0], 0, n, u);
    for (int64_t i = 0; i < n; i++) {
        int64_t image = i / cells * cells, before = 0;
        for (int64_t k = image; k < image + cells; k++)
            before += u[k] < u[i] || (u[k] == u[i] && k < i);
        m[i] = before >= keep;
    }
    CnxrtError err = {0};
    CnxrtStatus s = cnxrt_npy_write_f32(arg[3], rank, d, m, &err);
    free(u);
    free(m);
    return s == CNXRT_OK ? 0 : fail(arg[3], &err);
}

// |a - b| / |b|; 0 where both are 0.
static double distance(const float *a, const float *b, int64_t n) {
    double sum = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sum == 0 ? 0 : sqrt(sum / norm);
}

static int same(char **arg) {
    CnxrtError err = {0};
    CnxrtNpy x[2];
    int64_t n[2] = {1, 1};
    for (int i = 0; i < 2; i++) {
        if (cnxrt_npy_read_f32(arg[i], &x[i], &err) != CNXRT_OK) return fail(arg[i], &err);
        for (int k = 0; k < x[i].rank; k++) n[i] *= x[i].dims[k];
    }
    if (n[0] != n[1]) return fail("the numbers of elements differ", NULL);
    double e = distance(x[0].data, x[1].data, n[0]);
    bool ok = e <= atof(arg[2]);
    if (!ok) printf("FAIL %s: off by %.2e\n", arg[0], e);
    for (int i = 0; i < 2; i++) cnxrt_npy_free(&x[i]);
    return ok ? 0 : 1;
}

// The whole of tensor `name` of the fixture; *n its elements.
static float *fixture_tensor(const CnxrtWeights *w, const char *name, int64_t *n) {
    for (int i = 0; i < cnxrt_weights_count(w); i++) {
        const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
        if (strcmp(t->name, name) != 0) continue;
        *n = 1;
        for (int k = 0; k < t->rank; k++) *n *= t->dims[k];
        float *v = malloc((size_t)*n * sizeof *v);
        return cnxrt_weights_read(w, i, v, NULL) == CNXRT_OK ? v : NULL;
    }
    return NULL;
}

static int grads(char **arg) {
    CnxrtError err = {0};
    CnxrtWeights *w[2];
    for (int i = 0; i < 2; i++)
        if (cnxrt_weights_open(arg[i], &w[i], &err) != CNXRT_OK) return fail(arg[i], &err);
    int count = cnxrt_weights_count(w[0]), failures = 0;
    double worst = 0;
    if (count == 0 || count != cnxrt_weights_count(w[1]))
        return fail("the numbers of tensors differ", NULL);
    for (int i = 0; i < count; i++) {
        const char *name = cnxrt_weights_info(w[0], i)->name;
        int64_t n[2] = {0, 0};
        float *a = fixture_tensor(w[0], name, &n[0]), *b = fixture_tensor(w[1], name, &n[1]);
        if (!a || !b || n[0] != n[1]) return fail(name, NULL);
        double e = distance(a, b, n[0]);
        if (!(e <= atof(arg[2]))) failures += printf("FAIL %s: off by %.2e\n", name, e) > 0;
        if (!(e <= worst)) worst = e;
        free(a);
        free(b);
    }
    printf("%d tensors, off by %.2e at most\n", count, worst);
    for (int i = 0; i < 2; i++) cnxrt_weights_close(w[i]);
    return failures ? 1 : 0;
}

typedef struct {
    double worst, scale;
} Difference;

static Difference compare_whole(const float *want, const float *got, int64_t n) {
    Difference d = {0, 0};
    for (int64_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]);
        if (!(e <= d.worst)) d.worst = e; // NaN counts
        d.scale = fmax(d.scale, fabs(want[i]));
    }
    return d;
}

static Difference compare_samples(const char *stage, const float *want, const float *norm,
                                  const float *got, int64_t size) {
    float u[64];
    cnxrt_seed_uniform(stage, 0, 64, u);
    double sum = 0;
    for (int64_t i = 0; i < size; i++) sum += (double)got[i] * got[i];
    Difference d = {0, norm[1]};
    for (int i = 0; i < 64; i++) {
        double e = fabs((double)got[(int64_t)((u[i] + 1.0) * 0.5 * (double)size)] - want[i]);
        if (!(e <= d.worst)) d.worst = e;
    }
    double off = fabs(sqrt(sum) - norm[0]) / norm[0] * norm[1]; // the norm, on the same scale
    if (!(off <= d.worst)) d.worst = off;
    return d;
}

static int compare(char **arg) {
    CnxrtError err = {0};
    CnxrtWeights *w;
    CnxrtNpy got;
    if (cnxrt_weights_open(arg[0], &w, &err) != CNXRT_OK) return fail(arg[0], &err);
    if (cnxrt_npy_read_f32(arg[2], &got, &err) != CNXRT_OK) return fail(arg[2], &err);
    int64_t size = 1, n = 0, two = 0;
    for (int k = 0; k < got.rank; k++) size *= got.dims[k];
    bool stage = strncmp(arg[1], "stage", 5) == 0;
    char name[64];
    snprintf(name, sizeof name, stage ? "%s.samples" : "%s", arg[1]);
    float *want = fixture_tensor(w, name, &n), *norm = NULL;
    if (!want) return fail("the fixture lacks the tensor", NULL);
    Difference d;
    if (stage) {
        snprintf(name, sizeof name, "%s.norm", arg[1]);
        if (!(norm = fixture_tensor(w, name, &two)) || two != 2) return fail("no norm", NULL);
        d = compare_samples(arg[1], want, norm, got.data, size);
    } else {
        if (n != size) {
            fprintf(stderr, "parity: %s has %ld elements, the fixture %ld\n", arg[2], size, n);
            return 1;
        }
        d = compare_whole(want, got.data, n);
    }
    double relative = d.worst / d.scale, tolerance = atof(arg[3]);
    bool ok = relative <= tolerance;
    printf("%s %s: %.2e of %.4g, allowed %.0e\n", ok ? "ok  " : "FAIL", arg[1], relative, d.scale,
           tolerance);
    free(want);
    free(norm);
    cnxrt_npy_free(&got);
    cnxrt_weights_close(w);
    return ok ? 0 : 1;
}

int main(int argc, char **argv) {
    bool nhwc = argc == 6 && strcmp(argv[5], "nhwc") == 0;
    if ((argc == 5 || nhwc) && strcmp(argv[1], "input") == 0) return make_input(argv + 2, nhwc);
    if (argc == 6 && strcmp(argv[1], "compare") == 0) return compare(argv + 2);
    if (argc == 6 && strcmp(argv[1], "mask") == 0) return make_mask(argv + 2);
    if (argc == 5 && strcmp(argv[1], "grads") == 0) return grads(argv + 2);
    if (argc == 5 && strcmp(argv[1], "same") == 0) return same(argv + 2);
    fprintf(stderr, "usage: parity input CASE NxCxHxW OUT.npy [nhwc]\n"
                    "       parity mask CASE NxL|NxHxW KEEP OUT.npy\n"
                    "       parity grads A.safetensors B.safetensors TOLERANCE\n"
                    "       parity same A.npy B.npy TOLERANCE\n"
                    "       parity compare FIXTURE TENSOR RESULT.npy TOLERANCE\n");
    return 2;
}
