// Kernels on narrow numbers, compiled for every row of the target table this machine can run: GEMM
// on bf16 and on bytes, exact on whole numbers; results rounded to bf16 and u8 as ops cast and
// quantize say; the layouts of weights. Dot products are looked for in the code.
#include "gemm_case.h"
#include "tile_model.h"

static double to_u8(double x, double step, double zero) {
    double q = rint(x / step + zero);
    return q > 255 ? 255 : q > 0 ? q : 0;
}

// n bytes between guards of 0xa5.
static char *bytes_new(int64_t n) {
    char *p = operand_bytes(arena, (size_t)n + 2 * GUARD);
    memset(p, 0xa5, (size_t)n + 2 * GUARD);
    return p + GUARD;
}

static void bytes_guarded(const char *what, const char *p, int64_t n) {
    for (int i = 1; i <= GUARD; i++)
        if ((unsigned char)p[-i] != 0xa5 || (unsigned char)p[n + i - 1] != 0xa5)
            fail_msg("%s: written %d past an end", what, i);
}

// Element i of an array of dt.
static double element(DType dt, const char *p, int64_t i) {
    uint32_t bits = 0;
    float f;
    if (dt == DT_U8) return (unsigned char)p[i];
    if (dt == DT_I8) return (signed char)p[i];
    memcpy(dt == DT_F32 ? (char *)&bits : (char *)&bits + 2, p + i * dtype_bytes(dt),
           (size_t)dtype_bytes(dt));
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void put(DType dt, char *p, int64_t i, double v) {
    float f = (float)v;
    int8_t b = (int8_t)(int)v;
    if (dt == DT_U8 || dt == DT_I8)
        memcpy(p + i, &b, 1);
    else
        memcpy(p + i * dtype_bytes(dt), dt == DT_F32 ? (char *)&f : (char *)&f + 2,
               (size_t)dtype_bytes(dt));
}

// n whole numbers of dt within [low,high].
static char *whole(DType dt, int64_t n, int low, int high) {
    char *p = bytes_new(n * dtype_bytes(dt));
    for (int64_t i = 0; i < n; i++) put(dt, p, i, low + (int)(draw() % (unsigned)(high - low + 1)));
    return p;
}

static void set_to(Spec *s, DType dt) {
    if (dt != DT_F32) set_int(s, A_dtype, dtype_word(dt));
}

// The last operand of what writes u8.
static float *grid(double step, double zero) {
    return floats_of((float[]){(float)(1 / step), (float)zero}, 2);
}

static double rounded(DType dt, double v, double step, int64_t zero) {
    if (dt == DT_BF16) return to_bf16((float)v);
    return dt == DT_U8 ? to_u8(v, step, (double)zero) : v;
}

// ---- gemm --------------------------------------------------------------------------------------
typedef struct {
    DType from, to;
    GemmCase g;
    bool tiles;
} Case;

static char *packed(DType dt, const char *w, int64_t n, int64_t k, int64_t nr) {
    int64_t size = dtype_bytes(dt), g = 4 / size, padded = (n + nr - 1) / nr * nr;
    char *out = bytes_new(padded * k * size);
    memset(out, 0, (size_t)(padded * k * size));
    for (int64_t c = 0; c < n; c++)
        for (int64_t i = 0; i < k; i += g)
            memcpy(out + (c / nr * nr * k + (i / g * nr + c % nr) * g) * size,
                   w + (c * k + i) * size, 4);
    return out;
}

// Columns and rows of narrow results against the reference; what lies outside is left alone.
static void narrow_check(const char *what, const Case *c, const Program *p,
                         const ProgramOperands *o, const char *out, const double *want) {
    const GemmCase *g = &c->g;
    for (int64_t i = 0; i < g->m * g->n; i++) {
        int64_t row = i / g->n, col = i % g->n;
        double got = element(c->to, out, i), w = element(c->to, "\xa5\xa5", 0);
        if (row >= g->r0 && row < g->r1 && col >= g->c0 && col < g->c1)
            w = rounded(c->to, program_apply(p, o, want[i], row, col, g->n), 64, 100);
        if (got != w) fail_msg("%s: [%d,%d] is %g, not %g", what, (int)row, (int)col, got, w);
    }
    bytes_guarded(what, out, g->m * g->n * dtype_bytes(c->to));
}

// The largest numbers where the program keeps sums exact, else small ones.
static void gemm_check(const Target *t, const Case *c, const Program *p) {
    const GemmCase *g = &c->g;
    Spec s;
    gemm_spec(&s, g, c->from, p);
    bool bytes = c->from == DT_U8, large = p->n <= 2 && p->tol == 0;
    DType wdt = bytes ? DT_I8 : c->from;
    int range = p->tol > 0 ? 1 : large && bytes ? 127 : large ? 8 : 4;
    set_to(&s, c->to);
    if (c->tiles) set_int(&s, A_tiles, 1);
    char *a = whole(c->from, g->m * g->k, bytes ? 0 : -range, bytes && large ? 255 : range);
    char *w = whole(wdt, g->n * g->k, -range, range);
    char *out = c->to == DT_F32 ? (char *)floats_new(g->m * g->n)
                                : bytes_new(g->m * g->n * dtype_bytes(c->to));
    double *want = NEWN(arena, double, g->m * g->n);
    for (int64_t i = 0; i < g->m * g->n; i++)
        for (int64_t k = 0; k < g->k; k++)
            want[i] +=
                element(c->from, a, i / g->n * g->k + k) * element(wdt, w, i % g->n * g->k + k);
    void *ops[12] = {a, packed(wdt, w, g->n, g->k, g->nr), out};
    ProgramOperands o = program_operands(p, g->m, g->n, ops, 3);
    if (c->to == DT_U8) ops[spec_operands(&s.spec) - 1] = grid(64, 100);
    compile(t, &s)(ops, g->r0, g->r1, g->c0, g->c1);
    const char *what = gemm_text(t, &s, g);
    if (c->to == DT_F32)
        program_check(what, p, &o, (float *)(void *)out, want, g->m, g->n, g->r0, g->r1, g->c0,
                      g->c1);
    else
        narrow_check(what, c, p, &o, out, want);
}

static const Program affine = {{EPI_SCALE, EPI_BIAS}, 2, 0};

static void test_gemm(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) {
        const Target *t = targets[i];
        int64_t lanes = target_lanes(t), mr = t->registers >= 32 ? 8 : 4, nr = 2 * lanes;
        int64_t odd = 3 * nr + lanes / 2 + 1;
        Case cases[] = {
            {DT_BF16, DT_F32, {2 * mr, 2 * nr, 8, mr, nr, 4, 0, 0, 2 * mr, 0, 2 * nr}, false},
            {DT_BF16, DT_BF16, {49, 3 * nr + 1, 14, mr, nr, 2, 0, 0, 49, 0, 3 * nr + 1}, false},
            {DT_BF16, DT_U8, {19, 4 * nr + 2, 22, mr, nr, 4, 1, 5, 17, nr, 3 * nr}, false},
            {DT_BF16, DT_F32, {3, 5, 2, mr, nr, 4, 1, 0, 3, 0, 5}, false},
            {DT_U8,
             DT_F32,
             {2 * mr + 1, 2 * nr, 32, mr, nr, 4, 0, 0, 2 * mr + 1, 0, 2 * nr},
             false},
            {DT_U8, DT_U8, {49, odd, 28, mr, nr, 2, 1, 0, 49, 0, odd}, false},
            {DT_U8,
             DT_BF16,
             {23, 80, 36, mr - 1, lanes == 16 ? 40 : nr, 4, 0, 2, 23, 0, 80},
             false},
            {DT_U8, DT_F32, {9, nr, 4, 1, nr, 4, 1, 0, 9, 0, nr}, false},
            {DT_F32, DT_U8, {9, nr + 3, 5, mr, nr, 4, 0, 0, 9, 0, nr + 3}, false},
        };
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) gemm_check(t, &cases[c], &affine);
        for (int p = 0; p < NPROGRAMS; p++) {
            Case c = {p % 2 ? DT_U8 : DT_BF16,
                      DT_F32,
                      {19, odd, 20, mr, nr, 2, p % 4 / 2, 2, 19, 0, odd},
                      false};
            gemm_check(t, &c, &programs[p]);
        }
    }
}

// Tiles, on this CPU in C. Rows of whole blocks, of more than a tile and of less; panels whole,
// of more than 16 columns and of less; both orders; every program.
static void test_tiles(void **unused) {
    (void)unused;
    if (emulated()) return;
    static const Case cases[] = {
        {DT_BF16, DT_F32, {32, 32, 32, 32, 32, 16, 0, 0, 32, 0, 32}, true},
        {DT_BF16, DT_F32, {64, 96, 96, 32, 32, 16, 0, 0, 64, 0, 96}, true},
        {DT_BF16, DT_BF16, {49, 40, 40, 32, 32, 10, 0, 0, 49, 0, 40}, true},
        {DT_BF16, DT_U8, {57, 60, 48, 32, 32, 12, 1, 3, 54, 32, 60}, true},
        {DT_BF16, DT_F32, {1, 10, 20, 32, 32, 10, 1, 0, 1, 0, 10}, true},
        {DT_BF16, DT_F32, {5, 33, 6, 32, 32, 1, 0, 2, 2, 0, 33}, true},
        {DT_U8, DT_F32, {64, 64, 64, 32, 32, 16, 1, 0, 64, 0, 64}, true},
        {DT_U8, DT_U8, {100, 75, 112, 32, 32, 14, 0, 1, 100, 0, 75}, true},
        {DT_U8, DT_BF16, {48, 48, 40, 32, 32, 10, 1, 0, 48, 0, 48}, true},
        {DT_U8, DT_F32, {16, 5, 192, 32, 32, 16, 0, 0, 16, 0, 5}, true},
    };
    const Target *t = tile_model_target(arena, targets[ntargets - 1]);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const GemmCase *g = &cases[c].g;
        gemm_check(t, &cases[c], &affine);
        if (g->r0 < g->r1 && !tiles.dots) fail_msg("case %d ran without tiles", (int)c);
        tiles.dots = 0;
    }
    for (int p = 0; p < NPROGRAMS; p++)
        for (int order = 0; order < 2; order++) {
            Case c = {p % 2 ? DT_U8 : DT_BF16,
                      DT_F32,
                      {70, 75, 56, 32, 32, 14, order, 1, 70, 0, 75},
                      true};
            gemm_check(t, &c, &programs[p]);
        }
}

// ---- gradient of a weight ----------------------------------------------------------------------
typedef struct {
    int64_t rows, n, k, mr, nr, m, order, r0, r1, c0, c1;
    bool accumulate;
} DwCase;

// Whole numbers that bf16 holds give exact sums; others are rounded first.
static void gemm_dw_check(const Target *t, const DwCase *g, float scale) {
    Spec s = spec_new(K_GEMM_DW);
    set_int(&s, A_n, g->n);
    set_int(&s, A_k, g->k);
    set_int(&s, A_m, g->m);
    set_int(&s, A_mr, g->mr);
    set_int(&s, A_nr, g->nr);
    set_int(&s, A_packed, 1);
    set_int(&s, A_from, dtype_word(DT_BF16));
    if (g->order) set_int(&s, A_order, 1);
    if (g->accumulate) set_int(&s, A_accumulate, 1);
    float *dy = integers(g->rows * g->n, 8), *x = integers(g->rows * g->k, 8);
    float *out = integers(g->n * g->k, 4);
    for (int64_t i = 0; i < g->rows * g->n; i++) dy[i] *= scale;
    int64_t o0 = g->order ? 0 : g->c0, o1 = g->order ? g->n : g->c1;
    int64_t p0 = g->order ? g->c0 : 0, p1 = g->order ? g->c1 : g->k;
    float *work = floats_new((g->m + 16) * ((o1 - o0 + g->mr - 1) / g->mr * g->mr + g->nr));
    double *want = NEWN(arena, double, g->n * g->k);
    for (int64_t i = 0; i < g->n * g->k; i++) want[i] = g->accumulate ? out[i] : 0;
    for (int64_t r = g->r0; r < g->r1; r++)
        for (int64_t i = 0; i < g->n * g->k; i++)
            want[i] += to_bf16(dy[r * g->n + i / g->k]) * to_bf16(x[r * g->k + i % g->k]);
    compile(t, &s)((void *[]){dy, x, work, out}, g->r0, g->r1, g->c0, g->c1);
    for (int64_t i = o0; i < o1; i++)
        for (int64_t j = p0; j < p1; j++) {
            double w = want[i * g->k + j], got = out[i * g->k + j];
            if (fabs(got - w) > (scale == 1 ? 0 : 2e-5 * (10 + fabs(w))))
                fail_msg("%s: [%d,%d] is %g, not %g", spec_text(t, &s), (int)i, (int)j, got, w);
        }
}

static void test_gemm_dw(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) {
        const Target *t = targets[i];
        int64_t mr = t->registers >= 32 ? 8 : 4, nr = 2 * target_lanes(t);
        DwCase cases[] = {
            {37, 2 * mr, 2 * nr, mr, nr, 16, 0, 0, 37, 0, 2 * mr, true},
            {19, 3 * mr + 1, nr + 3, mr, nr, 8, 0, 3, 19, mr, 3 * mr + 1, false},
            {24, 3 * mr + 3, 3 * nr - 1, mr, nr, 8, 1, 0, 24, nr, 3 * nr - 1, true},
            {1, 10, 40, mr, nr, 4, 0, 0, 1, 0, 10, false},
        };
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            gemm_dw_check(t, &cases[c], 1);
            gemm_dw_check(t, &cases[c], 0.3711f);
        }
    }
}

// ---- conversions -------------------------------------------------------------------------------
static void eltwise_check(const Target *t, DType from, DType to, int64_t n) {
    enum { ROWS = 6 };
    Spec s = spec_new(K_ELTWISE);
    set_int(&s, A_n, n);
    if (from != DT_F32) set_int(&s, A_from, dtype_word(from));
    set_to(&s, to);
    set_ints(&s, A_epilogue, (int64_t[]){EPI_SCALE}, 1);
    char *x = from == DT_F32 ? (char *)reals(ROWS * n, 100) : whole(from, ROWS * n, -100, 100);
    float *scale = floats_new(n);
    for (int64_t i = 0; i < n; i++) scale[i] = i % 3 ? 0.25f : 1.5f;
    char *out = bytes_new(ROWS * n * dtype_bytes(to));
    compile(t, &s)((void *[]){x, out, scale, grid(0.5, 100)}, 0, ROWS, 0, n);
    for (int64_t i = 0; i < ROWS * n; i++) {
        double v = element(from, x, i) * scale[i % n];
        double want = rounded(to, (float)v, 0.5, 100), got = element(to, out, i);
        if (got != want) fail_msg("%s: %g gives %g, not %g", spec_text(t, &s), v, got, want);
    }
    bytes_guarded(spec_text(t, &s), out, ROWS * n * dtype_bytes(to));
}

static void test_conversions(void **unused) {
    (void)unused;
    static const int64_t widths[] = {1, 5, 16, 29, 64};
    for (int i = 0; i < ntargets; i++)
        for (int w = 0; w < 5; w++) {
            eltwise_check(targets[i], DT_F32, DT_BF16, widths[w]);
            eltwise_check(targets[i], DT_F32, DT_U8, widths[w]);
            eltwise_check(targets[i], DT_BF16, DT_F32, widths[w]);
            eltwise_check(targets[i], DT_BF16, DT_BF16, widths[w]);
            eltwise_check(targets[i], DT_BF16, DT_U8, widths[w]);
            eltwise_check(targets[i], DT_I8, DT_F32, widths[w]);
        }
}

// Halves, infinities and NaN.
static void test_rounding(void **unused) {
    (void)unused;
    enum { N = 16 };
    const float x[N] = {257, 259, -257, 0,           -0.0f,    INFINITY, -INFINITY, NAN,
                        1,   3,   5,    0.00390625f, 65280.0f, 3.3e38f,  -1,        7};
    for (int i = 0; i < ntargets; i++) {
        Spec s = spec_new(K_ELTWISE);
        set_int(&s, A_n, N);
        set_to(&s, DT_BF16);
        char *out = bytes_new(N * 2);
        compile(targets[i], &s)((void *[]){floats_of(x, N), out}, 0, 1, 0, N);
        for (int k = 0; k < N; k++) {
            double got = element(DT_BF16, out, k), want = isnan(x[k]) ? NAN : to_bf16(x[k]);
            if (isnan(want) ? !isnan(got) : got != want)
                fail_msg("%s: %g gives %g", targets[i]->name, x[k], got);
        }
    }
}

// ---- norm and gather ---------------------------------------------------------------------------
// Both write narrow numbers of what they write as f32.
static void narrow_like_f32(const Target *t, Spec s, int64_t rows, int64_t n, void *x, DType to) {
    Spec narrow = s;
    spec_sort(&narrow);
    set_to(&narrow, to);
    spec_sort(&s);
    float *f = floats_new(rows * n);
    char *out = bytes_new(rows * n * dtype_bytes(to));
    compile(t, &s)((void *[]){x, f}, 0, rows, 0, n);
    compile(t, &narrow)((void *[]){x, out, grid(0.0625, 90)}, 0, rows, 0, n);
    for (int64_t i = 0; i < rows * n; i++) {
        double want = rounded(to, f[i], 0.0625, 90), got = element(to, out, i);
        if (got != want) fail_msg("%s: %g gives %g", spec_text(t, &narrow), f[i], got);
    }
    bytes_guarded(spec_text(t, &narrow), out, rows * n * dtype_bytes(to));
}

static void test_rows(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int k = 0; k < 4; k++) {
            DType to = k % 2 ? DT_U8 : DT_BF16;
            Spec norm = spec_new(K_NORM);
            int64_t n = k < 2 ? 24 : 27;
            set_int(&norm, A_n, n);
            set_f64(&norm, A_eps, 1e-6);
            narrow_like_f32(targets[i], norm, 21, n, reals(21 * n, 2), to);
            Spec gather = spec_new(K_GATHER);
            set_int(&gather, A_h, 6);
            set_int(&gather, A_w, 8);
            set_int(&gather, A_c, 5);
            set_pair(&gather, A_kernel, 2, 2);
            set_pair(&gather, A_stride, 2, 2);
            set_pair(&gather, A_pad, k == 2, k == 2);
            if (k == 3) {
                set_int(&gather, A_normalized, 1);
                set_f64(&gather, A_eps, 1e-6);
            }
            int64_t rows = k == 2 ? 4 * 5 : 3 * 4;
            narrow_like_f32(targets[i], gather, rows, 20, reals(6 * 8 * 5, 2), to);
        }
}

// ---- weights -----------------------------------------------------------------------------------
static void test_quantize_rows(void **unused) {
    (void)unused;
    enum { N = 5, K = 37 };
    for (int i = 0; i < ntargets; i++) {
        Spec s = spec_new(K_QUANTIZE_ROWS);
        set_int(&s, A_n, K);
        float *w = integers(N * K, 254), *scale = floats_new(N);
        for (int64_t k = 0; k < K; k++) w[2 * K + k] = 0;
        for (int64_t r = 0; r < N; r++)
            if (r != 2) w[r * K + 1 + r] = r % 2 ? -254 : 254;
        char *out = bytes_new(N * K);
        compile(targets[i], &s)((void *[]){w, scale, out}, 0, N, 0, K);
        for (int64_t k = 0; k < N * K; k++) {
            double want = rint(w[k] / 2), got = element(DT_I8, out, k);
            if (got != want) fail_msg("%s: %g gives %g", targets[i]->name, w[k], got);
        }
        for (int r = 0; r < N; r++) assert_true(scale[r] == (r == 2 ? 0 : 2));
        bytes_guarded(targets[i]->name, out, N * K);
    }
}

// ---- the code ----------------------------------------------------------------------------------
static void test_instructions(void **unused) {
    (void)unused;
    if (emulated()) return;
    static const struct {
        const char *target, *dot;
        DType from;
    } rows[] = {{"znver4", "vdpbf16ps", DT_BF16}, {"znver4", "vpdpbusd", DT_U8},
                {"armv8.6-a", "bfdot", DT_BF16},  {"armv8.6-a", "usdot", DT_U8},
                {"armv8.2-a", "sdot", DT_U8},     {"x86-64-v3", "vpmaddwd", DT_U8},
                {"x86-64-v3", "vfmadd", DT_BF16}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const Target *t = target_find(rows[i].target);
        const char *why = "";
        assert_non_null(t);
        Spec s = spec_new(K_GEMM);
        set_int(&s, A_n, 2 * target_lanes(t));
        set_int(&s, A_k, 64);
        set_int(&s, A_mr, t->registers >= 32 ? 8 : 4);
        set_int(&s, A_nr, 2 * target_lanes(t));
        set_int(&s, A_ku, 4);
        set_int(&s, A_from, dtype_word(rows[i].from));
        const char *text = codegen_kernel_asm(arena, t, &s.spec, &why);
        if (!text) fail_msg("%s: %s", spec_text(t, &s), why);
        if (!strstr(text, rows[i].dot)) fail_msg("%s: no %s", spec_text(t, &s), rows[i].dot);
        if (strstr(text, "64-byte Spill")) fail_msg("%s spills", spec_text(t, &s));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),          cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_gemm_dw),       cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_rounding),      cmocka_unit_test(test_rows),
        cmocka_unit_test(test_quantize_rows), cmocka_unit_test(test_instructions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
