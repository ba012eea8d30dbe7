// The compiler's kernels, with the tiles its scheduler chooses for the shape.
#include "../../codegen/codegen.h"
#include "../../passes/sched.h"
#include "kernel_worker.h"
#include <string.h>

static struct {
    const KernelShape *shape;
    KernelFn fn;
    void *ops[4];
    int64_t rows;
} kernel;

static const char *kernel_build(Arena *a, const Target *t, KernelKind kind, Attr *attrs, int n) {
    static const int64_t bias = EPI_BIAS;
    const char *why = "";
    attrs[n++] = attr_ints(a, A_epilogue, &bias, 1);
    for (int i = 1; i < n; i++) // specs list attributes by their ids
        for (int k = i; k > 0 && attrs[k - 1].id > attrs[k].id; k--) {
            Attr swapped = attrs[k];
            attrs[k] = attrs[k - 1];
            attrs[k - 1] = swapped;
        }
    KernelSpec spec = {.kind = kind, .nattrs = n, .attrs = attrs};
    kernel.fn = codegen_jit_kernel(a, t, &spec, &why);
    return kernel.fn ? NULL : why;
}

// b in panels of nr columns: [ceil(n / nr)][k][nr].
static float *panels(const KernelShape *s, int64_t nr) {
    float *out = kernel_floats((s->n + nr - 1) / nr * nr * s->k);
    for (int64_t k = 0; k < s->k; k++)
        for (int64_t j = 0; j < s->n; j++)
            out[(j / nr * s->k + k) * nr + j % nr] = s->b[k * s->n + j];
    return out;
}

static const char *open_gemm(Arena *a, const Target *t, const KernelShape *s) {
    GemmTile tile = gemm_tile(t, DT_F32, s->m, s->n, s->k, false);
    Attr attrs[8] = {attr_int(A_n, s->n),     attr_int(A_k, s->k),
                     attr_int(A_mr, tile.mr), attr_int(A_nr, tile.nr),
                     attr_int(A_ku, tile.ku), attr_int(A_order, tile.order)};
    kernel.ops[0] = (void *)(uintptr_t)s->a;
    kernel.ops[1] = panels(s, tile.nr);
    kernel.rows = s->m;
    return kernel_build(a, t, K_GEMM, attrs, 6);
}

static const char *open_dwconv(Arena *a, const Target *t, const KernelShape *s) {
    Attr attrs[8] = {attr_int(A_h, s->h),
                     attr_int(A_w, s->w),
                     attr_int(A_c, s->c),
                     attr_ints2(a, A_kernel, TAPS, TAPS),
                     attr_ints2(a, A_pad, PAD, PAD),
                     attr_int(A_tile, dwconv_tile(t, s->w, TAPS))};
    kernel.ops[0] = (void *)(uintptr_t)s->a;
    kernel.ops[1] = (void *)(uintptr_t)s->b;
    kernel.rows = s->h * s->w;
    return kernel_build(a, t, K_DWCONV, attrs, 6);
}

const char *kernel_open(const KernelShape *s) {
    Arena *a = arena_new();
    const Target *t = codegen_native_target(a);
    if (!t) return "no row of the target table describes this CPU";
    kernel.shape = s;
    kernel.ops[2] = s->out;
    kernel.ops[3] = kernel_floats(s->depthwise ? s->c : s->n); // bias
    return s->depthwise ? open_dwconv(a, t, s) : open_gemm(a, t, s);
}

void kernel_run(void) {
    const KernelShape *s = kernel.shape;
    kernel.fn(kernel.ops, 0, kernel.rows, 0, s->depthwise ? s->c : s->n);
}

void kernel_finish(void) {}

const char *kernel_form(void) { return "tile of the scheduler"; }

const char *kernel_version(void) { return ""; }
