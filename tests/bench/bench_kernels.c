// bench_kernels [TARGET] [FILTER...]: speed of single kernels beside the FMA loop of the same
// target, interleaved in time, one thread. TARGET: a row of the target table or "native" (default).
// FILTER: only lines that contain one of these texts.
//
//   bench_kernels native gemm              all GEMM shapes
//   bench_kernels x86-64-v3 dwconv norm
//   bench_kernels native = 'gemm 784 80 320 8 32 4 m gelu'   one shape: M K N mr nr ku order
//   epilogue
//   bench_kernels native = 'gemm_dw 784 96 384 6 16 152 5'   M N K mr nr block and the sum of 1
//   packed, 2 units of columns of x, 4 bf16
//   bench_kernels native packed            depthwise on packed rows: time over that of dense
//   bench_kernels native patches           patches of visible cells: W kernel block
//
// Percent of peak counts 2 FLOP per multiply-add, all taps; nothing for elementwise work. The best
// repetition counts: neighbours on the machine only ever slow one down.
#include "../../codegen/codegen.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

typedef struct {
    Arena *arena;
    char *pool; // operands of the case, on large pages as in a compiled model
    size_t used;
    const Target *target;
    PeakFn peak;
    int64_t peak_rounds;
} Bench;

typedef struct {
    KernelSpec spec;
    Attr attrs[12];
} Spec;

typedef struct {
    char text[128];
    Spec spec;
    int64_t rows, cols, step; // columns of a call, 0: all
    double macs, elements;
    void *ops[12];
    int images;        // calls, 0: one
    int64_t image[12]; // elements of an operand per image
} Case;

enum { POOL = 1 << 30, LARGE_PAGE = 1 << 21 };

// Of this thread alone: what else runs on its core does not count.
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *floats(Bench *b, int64_t n) {
    size_t bytes = ((size_t)n * sizeof(float) + 4096 + 63) / 64 * 64;
    if (b->used + bytes > POOL) {
        fprintf(stderr, "bench_kernels: operands of more than %d bytes\n", POOL);
        exit(1);
    }
    float *p = (float *)(void *)(b->pool + b->used);
    b->used += bytes;
    for (int64_t i = 0; i < n; i++) p[i] = (float)((i * 7919) % 2001 - 1000) * 1e-3f;
    return p;
}

static void add_attr(Spec *s, Attr a) {
    int i = s->spec.nattrs++;
    for (; i > 0 && s->attrs[i - 1].id > a.id; i--) s->attrs[i] = s->attrs[i - 1];
    s->attrs[i] = a;
}

static void add_int(Spec *s, AttrId id, int64_t v) { add_attr(s, attr_int(id, v)); }

// Epilogue named in a benchmark line; operands go to c->ops.
static void add_epilogue(Bench *b, Case *c, const char *name, int64_t m, int64_t n, int nops) {
    int64_t words[8];
    int count = 0;
    words[count++] = EPI_BIAS;
    c->ops[nops++] = floats(b, n);
    if (strstr(name, "store")) {
        words[count++] = EPI_STORE;
        c->ops[nops++] = floats(b, m * n);
    }
    if (strstr(name, "gelu")) words[count++] = strstr(name, "tanh") ? EPI_GELU_TANH : EPI_GELU;
    if (strstr(name, "stat")) {
        words[count++] = EPI_STAT_L2;
        c->ops[nops++] = floats(b, n);
    }
    if (strstr(name, "add")) {
        words[count++] = EPI_ADD;
        c->ops[nops++] = floats(b, m * n);
    }
    add_attr(&c->spec, attr_ints(b->arena, A_epilogue, words, count));
}

static bool case_gemm(Bench *b, Case *c, const char *line) {
    long m, k, n, mr, nr, ku;
    char order = 'm', epilogue[32] = "bias";
    if (sscanf(line, "gemm %ld %ld %ld %ld %ld %ld %c %31s", &m, &k, &n, &mr, &nr, &ku, &order,
               epilogue) < 6)
        return false;
    c->spec.spec.kind = K_GEMM;
    add_int(&c->spec, A_n, n);
    add_int(&c->spec, A_k, k);
    add_int(&c->spec, A_mr, mr);
    add_int(&c->spec, A_nr, nr);
    add_int(&c->spec, A_ku, ku);
    add_int(&c->spec, A_order, order == 'n');
    c->rows = m;
    c->cols = n;
    c->macs = (double)m * (double)k * (double)n;
    c->ops[0] = floats(b, m * k);
    c->ops[1] = floats(b, (n + nr - 1) / nr * nr * k);
    c->ops[2] = floats(b, m * n);
    add_epilogue(b, c, epilogue, m, n, 3);
    return true;
}

static bool case_gemm_dw(Bench *b, Case *c, const char *line) {
    long m, n, k, mr, nr, depth, packed = 0, cols = 0, maps = 1;
    if (sscanf(line, "gemm_dw %ld %ld %ld %ld %ld %ld %ld %ld %ld", &m, &n, &k, &mr, &nr, &depth,
               &packed, &cols, &maps) < 6)
        return false;
    int64_t all = packed & 2 ? k : n;
    if (cols == 0) cols = all;
    c->spec.spec.kind = K_GEMM_DW;
    add_int(&c->spec, A_m, depth);
    add_int(&c->spec, A_n, n);
    add_int(&c->spec, A_k, k);
    add_int(&c->spec, A_mr, mr);
    add_int(&c->spec, A_nr, nr);
    if (packed & 1) add_int(&c->spec, A_packed, 1);
    if (packed & 2) add_int(&c->spec, A_order, 1);
    if (packed & 4) add_int(&c->spec, A_from, dtype_word(DT_BF16));
    add_int(&c->spec, A_accumulate, 1);
    c->rows = m;
    c->cols = all;
    c->step = cols;
    c->images = (int)maps;
    c->image[0] = m * n;
    c->image[1] = m * k;
    c->macs = (double)(m * k * n * maps);
    c->ops[0] = floats(b, m * n * maps);
    c->ops[1] = floats(b, m * k * maps);
    c->ops[2] = floats(b, (depth + 16) * (n + mr + nr));
    c->ops[3] = floats(b, n * k);
    return true;
}

static bool case_dwconv(Bench *b, Case *c, const char *line) {
    long h, w, ch, k, tile;
    char epilogue[32] = "bias";
    if (sscanf(line, "dwconv %ld %ld %ld %ld %ld %31s", &h, &w, &ch, &k, &tile, epilogue) < 5)
        return false;
    c->spec.spec.kind = K_DWCONV;
    add_int(&c->spec, A_h, h);
    add_int(&c->spec, A_w, w);
    add_int(&c->spec, A_c, ch);
    add_attr(&c->spec, attr_ints2(b->arena, A_kernel, k, k));
    add_attr(&c->spec, attr_ints2(b->arena, A_pad, k / 2, k / 2));
    add_int(&c->spec, A_tile, tile);
    c->rows = h * w;
    c->cols = ch;
    c->macs = (double)(h * w * ch * k * k);
    c->ops[0] = floats(b, h * w * ch);
    c->ops[1] = floats(b, k * k * ch);
    c->ops[2] = floats(b, h * w * ch);
    add_epilogue(b, c, epilogue, h * w, ch, 3);
    return true;
}

// Kernels of rows, by the name of a line: operands are matrices [m,n] but those of `vectors`.
static const struct {
    const char *name;
    KernelKind kind;
    int operands, vectors; // the last ones are [n]
    int words;
    int64_t epilogue[4];
} row_kernels[] = {
    {"gelu", K_ELTWISE, 2, 0, 1, {EPI_GELU}},
    {"gelu_tanh", K_ELTWISE, 2, 0, 1, {EPI_GELU_TANH}},
    {"gelu_dx", K_ELTWISE, 3, 0, 1, {EPI_GELU_DX}},
    {"gelu_tanh_dx", K_ELTWISE, 3, 0, 1, {EPI_GELU_TANH_DX}},
    {"mul", K_ELTWISE, 3, 0, 1, {EPI_MUL}},
    {"scale", K_ELTWISE, 3, 1, 1, {EPI_SCALE}},
    {"grn_dx", K_ELTWISE, 7, 0, 4, {EPI_SCALE, EPI_FMA_SCALE, EPI_GELU_DX, EPI_STAT_MEAN}},
    {"grn_again", K_ELTWISE, 6, 3, 4, {EPI_GELU, EPI_STAT_DOT, EPI_SCALE, EPI_BIAS}},
    {"norm", K_NORM, 2, 0, 0, {0}},
    {"norm_dx", K_NORM_DX, 6, 3, 0, {0}},
    {"stat", K_STAT, 2, 1, 0, {0}},
    {"sum", K_SUM, 2, 1, 0, {0}},
    {"dot", K_DOT, 3, 1, 0, {0}},
};

// A map of 16 images: forward, dx or dw of a 7x7 kernel.
enum { IMAGES = 16 };

static void case_map(Bench *b, Case *c, const char *what, int64_t h, int64_t w, int64_t ch,
                     int64_t tile, int images) {
    bool dw = strcmp(what, "dw") == 0;
    c->spec.spec.kind = dw ? K_DWCONV_DW : K_DWCONV;
    add_int(&c->spec, A_h, h);
    add_int(&c->spec, A_w, w);
    add_int(&c->spec, A_c, ch);
    add_attr(&c->spec, attr_ints2(b->arena, A_kernel, 7, 7));
    add_attr(&c->spec, attr_ints2(b->arena, A_pad, 3, 3));
    if (dw) add_int(&c->spec, A_mr, tile);
    add_int(&c->spec, A_tile, dw ? (b->target->registers < 32 ? 7 : 14) : tile);
    if (strcmp(what, "dx") == 0) add_int(&c->spec, A_turned, 1);
    c->rows = dw ? 1 : h * w;
    c->cols = ch;
    c->images = images;
    c->macs = (double)(h * w * ch * 49 * images);
    for (int i = 0; i < 3; i++) c->image[i] = h * w * ch;
    c->image[1 + dw] = dw ? 49 * ch : 0;
    for (int i = 0; i < 3; i++)
        c->ops[i] = floats(b, i == 1 + dw ? IMAGES * 49 * ch : IMAGES * h * w * ch);
}

static bool case_training(Bench *b, Case *c, const char *line) {
    long h, w, ch, tile;
    int images = IMAGES;
    char what[8];
    if (sscanf(line, "map %7s %ld %ld %ld %ld %d", what, &h, &w, &ch, &tile, &images) < 5)
        return false;
    case_map(b, c, what, h, w, ch, tile, images);
    return true;
}

// Masks of 19 of 49 cells, as the rulebook of each image.
static int32_t *rulebooks(Bench *b, int64_t block, int64_t *entries) {
    enum { GRID = 7, CELLS = GRID * GRID, KEEP = 19 };
    Spec s = {.spec.kind = K_RULEBOOK};
    const char *why = "";
    int64_t side = block >= 2 ? 2 : 1, reach = block >= 2 ? 2 : 3, wide = 2 * reach + 1;
    add_int(&s, A_count, KEEP);
    add_int(&s, A_block, block);
    add_attr(&s, attr_ints2(b->arena, A_grid, GRID, GRID));
    add_attr(&s, attr_ints2(b->arena, A_kernel, 7, 7));
    s.spec.attrs = s.attrs;
    KernelFn fn = codegen_jit_kernel(b->arena, b->target, &s.spec, &why);
    *entries = KEEP * (block / side) * (block / side) * wide * wide;
    int32_t *rules = NEWN(b->arena, int32_t, IMAGES * *entries);
    double best = 1e9;
    for (int rep = 0; rep < 20; rep++) {
        uint32_t seed = 7;
        double time = 0;
        for (int i = 0; i < IMAGES; i++) {
            int32_t cells[CELLS];
            int n = 0;
            for (int k = 0; k < CELLS; k++) {
                seed = seed * 1664525u + 1013904223u;
                if ((int)((seed >> 8) % (unsigned)(CELLS - k)) < KEEP - n) cells[n++] = k;
            }
            double start = seconds();
            fn((void *[]){cells, rules + i * *entries}, 0, 1, 0, 1);
            time += seconds() - start;
        }
        if (time < best) best = time;
    }
    printf("%-44s %8.1f us\n", arena_printf(b->arena, "rulebook block %d", (int)block), best * 1e6);
    return rules;
}

static bool case_packed(Bench *b, Case *c, const char *line) {
    long block, ch, tile, mr = 32;
    int images = IMAGES;
    char what[8];
    if (sscanf(line, "packed %7s %ld %ld %ld %d %ld", what, &block, &ch, &tile, &images, &mr) < 4)
        return false;
    bool dw = strcmp(what, "dw") == 0;
    int64_t rows = 19 * block * block;
    c->spec.spec.kind = dw ? K_DWCONV_PACKED_DW : K_DWCONV_PACKED;
    add_int(&c->spec, A_n, ch);
    add_attr(&c->spec, attr_ints2(b->arena, A_kernel, 7, 7));
    add_int(&c->spec, A_block, block >= 2 ? 2 : 1);
    add_int(&c->spec, A_tile, tile);
    if (dw) add_int(&c->spec, A_mr, mr);
    if (strcmp(what, "dx") == 0) add_int(&c->spec, A_turned, 1);
    c->rows = rows;
    c->cols = ch;
    c->images = images;
    for (int i = 0; i < 4; i++) c->image[i] = rows * ch;
    c->ops[0] = floats(b, IMAGES * rows * ch);
    c->ops[1 + dw] = rulebooks(b, block, &c->image[1 + dw]);
    c->ops[dw ? 1 : 3] = floats(b, IMAGES * rows * ch);
    c->ops[dw ? 3 : 2] = floats(b, IMAGES * 49 * ch);
    c->image[dw ? 3 : 2] = dw ? 49 * ch : 0;
    return true;
}

// Patches of images of 3 channels, of 19 of 49 cells.
static bool case_patches(Bench *b, Case *c, const char *line) {
    enum { KEEP = 19, CELLS = 49 };
    long w, kernel, block;
    if (sscanf(line, "patches %ld %ld %ld", &w, &kernel, &block) < 3) return false;
    int64_t row = 3 * kernel * kernel;
    c->spec.spec.kind = K_PATCHIFY_ROWS;
    add_int(&c->spec, A_w, w);
    add_int(&c->spec, A_c, 3);
    add_attr(&c->spec, attr_ints2(b->arena, A_kernel, kernel, kernel));
    add_int(&c->spec, A_block, block);
    c->rows = KEEP * block * block;
    c->cols = row;
    c->images = IMAGES;
    c->elements = (double)(IMAGES * c->rows * row);
    int32_t *cells = NEWN(b->arena, int32_t, KEEP);
    for (int32_t i = 0; i < KEEP; i++) cells[i] = i * CELLS / KEEP;
    c->image[0] = w * w * 3;
    c->image[2] = c->rows * row;
    c->ops[0] = floats(b, IMAGES * c->image[0]);
    c->ops[1] = cells;
    c->ops[2] = floats(b, IMAGES * c->image[2]);
    return true;
}

static bool case_rows(Bench *b, Case *c, const char *line) {
    long m, n;
    char name[16];
    size_t k = 0, count = sizeof row_kernels / sizeof *row_kernels;
    if (sscanf(line, "%15s %ld %ld", name, &m, &n) < 3) return false;
    while (k < count && strcmp(row_kernels[k].name, name) != 0) k++;
    if (k == count) return false;
    c->spec.spec.kind = row_kernels[k].kind;
    add_int(&c->spec, A_n, n);
    if (c->spec.spec.kind == K_NORM || c->spec.spec.kind == K_NORM_DX)
        add_attr(&c->spec, attr_f64(A_eps, 1e-6));
    if (c->spec.spec.kind == K_NORM_DX) {
        add_int(&c->spec, A_affine, 1);
        add_int(&c->spec, A_partial, 1);
    }
    if (row_kernels[k].words)
        add_attr(&c->spec,
                 attr_ints(b->arena, A_epilogue, row_kernels[k].epilogue, row_kernels[k].words));
    c->rows = m;
    c->cols = n;
    c->elements = (double)m * (double)n;
    for (int i = 0; i < row_kernels[k].operands; i++)
        c->ops[i] = floats(b, i < row_kernels[k].operands - row_kernels[k].vectors ? m * n : n);
    return true;
}

static void case_call(const Case *c, KernelFn fn) {
    for (int i = 0; i < (c->images ? c->images : 1); i++) {
        void *ops[12];
        for (int k = 0; k < 12; k++)
            ops[k] = c->ops[k] ? (float *)c->ops[k] + i * c->image[k] : NULL;
        int64_t step = c->step ? c->step : c->cols;
        for (int64_t c0 = 0; c0 < c->cols; c0 += step)
            fn(ops, 0, c->rows, c0, c0 + step < c->cols ? c0 + step : c->cols);
    }
}

static double bench_run(Bench *b, const char *line) {
    Case *c = NEW(b->arena, Case);
    const char *why = "";
    b->used = 0;
    if (!case_gemm(b, c, line) && !case_gemm_dw(b, c, line) && !case_dwconv(b, c, line) &&
        !case_training(b, c, line) && !case_packed(b, c, line) && !case_patches(b, c, line) &&
        !case_rows(b, c, line)) {
        printf("%-44s unknown\n", line);
        return 0;
    }
    c->spec.spec.attrs = c->spec.attrs;
    double start = seconds();
    KernelFn fn = codegen_jit_kernel(b->arena, b->target, &c->spec.spec, &why);
    double compile = seconds() - start;
    if (!fn) {
        printf("%-44s %s\n", line, why);
        return 0;
    }
    const char *text = codegen_kernel_asm(b->arena, b->target, &c->spec.spec, &why);
    case_call(c, fn);
    start = seconds();
    case_call(c, fn);
    int inner = (int)(2e-3 / (seconds() - start)) + 1;
    double best = 1e9, peak = 0;
    for (int rep = 0; rep < 40; rep++) {
        start = seconds();
        for (int i = 0; i < inner; i++) case_call(c, fn);
        double t = (seconds() - start) / inner;
        if (t < best) best = t;
        start = seconds();
        double flops = b->peak(b->peak_rounds);
        double rate = flops / (seconds() - start);
        if (rate > peak) peak = rate;
    }
    printf("%-44s %8.1f us", line, best * 1e6);
    if (c->macs > 0)
        printf("  %6.1f GFLOP/s  %5.1f %% of %.1f", 2e-9 * c->macs / best,
               200 * c->macs / best / peak, peak * 1e-9);
    if (c->elements > 0) printf("  %6.3f ns/element", best / c->elements * 1e9);
    printf("  compile %.1f ms, %d spills\n", compile * 1e3, text ? codegen_spills(text, "") : -1);
    fflush(stdout);
    return best;
}

// Packed beside dense, per stage of a network of 224 pixels at 19 of 49 cells.
static void bench_packed(Bench *b) {
    static const char *const what[] = {"fwd", "dx", "dw"};
    static const int channels[2] = {40, 96};
    bool wide = b->target->vector_bits == 512;
    for (int net = 0; net < 2; net++)
        for (int stage = 0; stage < 4; stage++)
            for (int k = 0; k < 3; k++) {
                int side = 56 >> stage, block = 8 >> stage, c = channels[net] << stage;
                int tile = k == 2 ? (side == 56 ? 8 : side) : side < 14 ? side : wide ? 14 : 7;
                int vectors = block == 1 ? wide ? 8 : 4 : k == 2 ? 1 + wide : wide ? 5 : 2;
                char *dense =
                    arena_printf(b->arena, "map %s %d %d %d %d", what[k], side, side, c, tile);
                char *packed =
                    arena_printf(b->arena, "packed %s %d %d %d", what[k], block, c, vectors);
                double slow = bench_run(b, dense), fast = bench_run(b, packed);
                printf("    packed/dense %.3f\n", fast / slow);
            }
}

static const char *const lines_512[] = {
    "gemm 3136 40 160 8 32 4 m bias",
    "gemm 3136 160 40 7 40 4 m bias",
    "gemm 784 80 320 8 32 4 m bias",
    "gemm 784 320 80 5 80 4 m bias",
    "gemm 3136 96 384 8 32 4 m bias",
    "gemm 3136 384 96 8 32 4 m bias",
    "gemm 784 192 768 8 32 4 m bias",
    "gemm 196 384 1536 7 32 4 n bias",
    "gemm 49 768 3072 7 48 4 n bias",
    "gemm 49 3072 768 7 48 4 n bias",
    "gemm 3136 40 160 8 32 4 m gelu,stat",
    "gemm 3136 96 384 8 32 4 m gelu,stat",
    "gemm 784 192 768 8 32 4 m gelu,stat",
    "gemm 3136 384 96 8 32 4 m add",
    "gemm 3136 160 40 7 40 4 m add",
    "gemm_dw 3136 160 40 8 32 256",
    "gemm_dw 3136 40 160 8 32 256",
    "gemm_dw 3136 384 96 8 32 256",
    "gemm_dw 1568 192 768 8 32 256",
    "gemm_dw 784 384 1536 8 32 256",
    "dwconv 56 56 40 7 14",
    "dwconv 56 56 96 7 14",
    "dwconv 28 28 192 7 14",
    "dwconv 14 14 384 7 14",
    "dwconv 7 7 768 7 7",
    "gelu 196 160",
    "gelu_tanh 196 160",
    "norm 3136 40",
    "norm 3136 96",
    "norm 784 192",
    "norm 196 384",
    "stat 3136 160",
    "norm_dx 3136 40",
    "norm_dx 196 384",
    "gelu_dx 196 160",
    "gelu_tanh_dx 196 160",
    "scale 196 160",
    "mul 196 160",
    "grn_dx 196 160",
    "grn_dx 3136 160",
    "grn_again 196 160",
    "grn_again 3136 160",
    "sum 3136 160",
    "dot 3136 160",
};
static const char *const lines_256[] = {
    "gemm 3136 40 160 6 16 4 m bias",
    "gemm 3136 160 40 4 24 4 m bias",
    "gemm 784 80 320 6 16 4 m bias",
    "gemm 3136 96 384 6 16 4 m bias",
    "gemm 784 192 768 6 16 4 m bias",
    "gemm 196 384 1536 4 24 4 n bias",
    "gemm 49 768 3072 4 24 4 n bias",
    "gemm 49 3072 768 4 24 4 n bias",
    "dwconv 56 56 96 7 7",
    "dwconv 14 14 384 7 7",
    "gelu 196 160",
    "gelu_tanh 196 160",
    "gelu_dx 196 160",
    "gelu_tanh_dx 196 160",
    "norm 3136 96",
};

static bool wanted(const char *line, char **filter, int n) {
    for (int i = 0; i < n; i++)
        if (strstr(line, filter[i])) return true;
    return n == 0;
}

int main(int argc, char **argv) {
    Bench b = {.arena = arena_new()};
    const char *name = argc > 1 ? argv[1] : "native", *why = "";
    b.target = strcmp(name, "native") == 0 ? codegen_native_target(b.arena) : target_find(name);
    b.peak = b.target ? codegen_jit_peak(b.arena, b.target, &why) : NULL;
    if (!b.peak) {
        fprintf(stderr, "bench_kernels: target %s: %s\n", name, b.target ? why : "unknown");
        return 1;
    }
    b.pool = aligned_alloc(LARGE_PAGE, POOL);
    (void)madvise(b.pool, POOL, MADV_HUGEPAGE);
    b.peak_rounds = 4000;
    printf("target %s, cpu %s\n", b.target->name, b.target->cpu);
    if (argc > 2 && strcmp(argv[2], "packed") == 0) {
        bench_packed(&b);
    } else if (argc > 2 && strcmp(argv[2], "=") == 0) {
        for (int i = 3; i < argc; i++) bench_run(&b, argv[i]);
    } else {
        bool wide = b.target->vector_bits == 512;
        const char *const *lines = wide ? lines_512 : lines_256;
        int n = wide ? (int)(sizeof lines_512 / sizeof *lines_512)
                     : (int)(sizeof lines_256 / sizeof *lines_256);
        for (int i = 0; i < n; i++)
            if (wanted(lines[i], argv + 2, argc > 2 ? argc - 2 : 0)) bench_run(&b, lines[i]);
    }
    free(b.pool);
    arena_free(b.arena);
    return 0;
}
