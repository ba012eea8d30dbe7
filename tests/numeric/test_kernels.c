// Every kernel of ir/kernels.def, compiled for every row of the target table this machine can run,
// against plain loops in double precision. Inputs are small integers where the result must be
// exact. Shapes have H != W, C != H*W, tails in every direction; outputs are surrounded by guards.
#include "gemm_case.h"

// ---- gemm --------------------------------------------------------------------------------------
static void pack_reference(const float *w, int64_t n, int64_t k, int64_t nr, float *out) {
    for (int64_t c = 0; c < (n + nr - 1) / nr * nr; c++)
        for (int64_t i = 0; i < k; i++)
            out[c / nr * nr * k + i * nr + c % nr] = c < n ? w[c * k + i] : 0;
}

static void gemm_check(const Target *t, const GemmCase *g, const Program *p) {
    Spec s;
    gemm_spec(&s, g, DT_F32, p);
    int64_t padded = (g->n + g->nr - 1) / g->nr * g->nr;
    int range = p->tol > 0 ? 1 : 4;
    float *a = integers(g->m * g->k, range), *w = integers(g->n * g->k, range);
    float *b = floats_new(padded * g->k), *out = floats_new(g->m * g->n);
    pack_reference(w, g->n, g->k, g->nr, b);
    double *want = NEWN(arena, double, g->m * g->n);
    for (int64_t r = 0; r < g->m; r++)
        for (int64_t c = 0; c < g->n; c++)
            for (int64_t i = 0; i < g->k; i++)
                want[r * g->n + c] += (double)a[r * g->k + i] * w[c * g->k + i];
    void *ops[12] = {a, b, out};
    ProgramOperands o = program_operands(p, g->m, g->n, ops, 3);
    compile(t, &s)(ops, g->r0, g->r1, g->c0, g->c1);
    program_check(gemm_text(t, &s, g), p, &o, out, want, g->m, g->n, g->r0, g->r1, g->c0, g->c1);
}

static void test_gemm(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) {
        const Target *t = targets[i];
        int64_t lanes = target_lanes(t), mr = t->registers >= 32 ? 8 : 6;
        if (lanes == 4) mr = 4;
        int64_t nr = 2 * lanes;
        GemmCase cases[] = {
            {2 * mr, 2 * nr, 8, mr, nr, 4, 0, 0, 2 * mr, 0, 2 * nr},
            {2 * mr + 1, 2 * nr, 13, mr, nr, 4, 1, 0, 2 * mr + 1, 0, 2 * nr},
            {49, 3 * nr + 1, 7, mr, nr, 2, 0, 0, 49, 0, 3 * nr + 1},
            {49, 3 * nr + lanes + 3, 7, mr, nr, 1, 1, 0, 49, 0, 3 * nr + lanes + 3},
            {19, 4 * nr + 2, 11, mr, nr, 4, 0, 5, 17, nr, 3 * nr},
            {19, 4 * nr + 2, 11, mr, nr, 4, 1, 5, 18, 3 * nr, 4 * nr + 2},
            {23, 80, 9, mr - 1, lanes == 16 ? 40 : nr, 4, 0, 0, 23, 0, 80},
            {1, 10, 3, mr, nr, 4, 0, 0, 1, 0, 10},
            {3, 5, 2, mr, nr, 4, 1, 0, 3, 0, 5},
            {9, nr, 1, 1, nr, 4, 1, 0, 9, 0, nr},
            {5, nr, 5, mr, nr, 8, 1, 2, 2, 0, nr},
            // More sums than registers: the compiler takes fewer rows.
            {t->registers + 5, 2 * nr + 3, 13, t->registers / 2, nr, 4, 1, 0, t->registers + 5, 0,
             2 * nr + 3},
        };
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
            gemm_check(t, &cases[c], &programs[c % NPROGRAMS]);
        for (int p = 0; p < NPROGRAMS; p++) gemm_check(t, &cases[3], &programs[p]);
        static const Program stream = {{EPI_BIAS, EPI_STREAM, EPI_GELU, EPI_STAT_L2}, 4, 2e-6};
        for (int64_t order = 0; order < 2; order++)
            gemm_check(t, &(GemmCase){19, 4 * nr, 11, mr, nr, 4, order, 5, 18, nr, 4 * nr},
                       &stream);
    }
}

// ---- gradient of a weight ----------------------------------------------------------------------
typedef struct {
    int64_t rows, n, k, mr, nr, m, r0, r1, c0, c1;
    bool accumulate;
} DwCase;

// of_x: c0, c1 are columns of x, else of dy; what lies outside must stay.
static void gemm_dw_check(const Target *t, const DwCase *g, bool packed, bool of_x) {
    Spec s = spec_new(K_GEMM_DW);
    set_int(&s, A_n, g->n);
    set_int(&s, A_k, g->k);
    set_int(&s, A_m, g->m);
    set_int(&s, A_mr, g->mr);
    set_int(&s, A_nr, g->nr);
    if (g->accumulate) set_int(&s, A_accumulate, 1);
    if (packed) set_int(&s, A_packed, 1);
    if (of_x) set_int(&s, A_order, 1);
    float *dy = integers(g->rows * g->n, 4), *x = integers(g->rows * g->k, 4);
    float *out = integers(g->n * g->k, 4);
    float *work = packed ? floats_new((g->m + 16) * (g->n + g->mr + g->nr)) : NULL;
    double *want = NEWN(arena, double, g->n * g->k);
    for (int64_t i = 0; i < g->n * g->k; i++) {
        int64_t col = of_x ? i % g->k : i / g->k;
        bool inside = col >= g->c0 && col < g->c1;
        want[i] = g->accumulate || !inside ? out[i] : 0;
        for (int64_t r = g->r0; inside && r < g->r1; r++)
            want[i] += (double)dy[r * g->n + i / g->k] * x[r * g->k + i % g->k];
    }
    compile(t, &s)((void *[]){dy, x, work, out}, g->r0, g->r1, g->c0, g->c1);
    const char *what = arena_printf(arena, "%s rows %d..%d columns %d..%d", spec_text(t, &s),
                                    (int)g->r0, (int)g->r1, (int)g->c0, (int)g->c1);
    for (int64_t i = 0; i < g->n * g->k; i++)
        if ((double)out[i] != want[i])
            fail_msg("%s: [%d,%d] is %g, not %g", what, (int)(i / g->k), (int)(i % g->k), out[i],
                     want[i]);
}

static void test_gemm_dw(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) {
        const Target *t = targets[i];
        int64_t mr = t->registers >= 32 ? 8 : 4, nr = 2 * target_lanes(t);
        DwCase cases[] = {
            {37, 2 * mr, 2 * nr, mr, nr, 16, 0, 37, 0, 2 * mr, true},
            {19, 3 * mr + 1, nr + 3, mr, nr, 8, 0, 19, 0, 3 * mr + 1, false},
            {23, 3 * mr + 3, 3 * nr - 1, mr, nr, 5, 3, 21, mr, 3 * mr + 3, true},
            {9, 4 * mr, nr / 2, mr, nr, 64, 0, 9, mr, 3 * mr, false},
            {5, 3, 5, 3, nr, 4, 0, 5, 0, 3, true},
            {1, 10, 40, mr, 3 * nr / 4, 256, 0, 1, 0, 10, true},
            {4, mr, nr, mr, nr, 4, 2, 2, 0, mr, false},
            {33, 4 * mr + 2, nr + 8, 3 * mr / 2, nr, 16, 0, 33, 0, 4 * mr + 2, true},
        };
        DwCase of_x[] = {
            {37, 2 * mr, 4 * nr, mr, nr, 16, 0, 37, nr, 3 * nr, true},
            {19, 3 * mr + 1, 2 * nr + 3, mr, nr, 8, 2, 18, nr, 2 * nr + 3, false},
            {23, mr, nr, mr, nr, 64, 0, 23, 0, nr, false},
        };
        for (int packed = 0; packed < 2; packed++) {
            for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
                gemm_dw_check(t, &cases[c], packed, false);
            for (size_t c = 0; c < sizeof of_x / sizeof of_x[0]; c++)
                gemm_dw_check(t, &of_x[c], packed, true);
        }
    }
}

// ---- dwconv ------------------------------------------------------------------------------------
typedef struct {
    int64_t h, w, c, kh, kw, sh, sw, ph, pw, tile, program;
} ConvCase;

static void dwconv_check(const Target *t, const ConvCase *v, bool blocks) {
    Spec s = spec_new(K_DWCONV);
    const Program *p = &programs[v->program];
    set_int(&s, A_h, v->h);
    set_int(&s, A_w, v->w);
    set_int(&s, A_c, v->c);
    set_pair(&s, A_kernel, v->kh, v->kw);
    set_pair(&s, A_stride, v->sh, v->sw);
    set_pair(&s, A_pad, v->ph, v->pw);
    set_int(&s, A_tile, v->tile);
    if (p->n) set_ints(&s, A_epilogue, p->words, p->n);
    int64_t ho = (v->h + 2 * v->ph - v->kh) / v->sh + 1,
            wo = (v->w + 2 * v->pw - v->kw) / v->sw + 1;
    float *x = integers(v->h * v->w * v->c, 2), *w = integers(v->kh * v->kw * v->c, 2);
    float *out = floats_new(ho * wo * v->c);
    double *want = NEWN(arena, double, ho *wo * v->c);
    for (int64_t o = 0; o < ho * wo * v->c; o++) {
        int64_t c = o % v->c, ox = o / v->c % wo, oy = o / v->c / wo;
        for (int64_t tap = 0; tap < v->kh * v->kw; tap++) {
            int64_t iy = oy * v->sh - v->ph + tap / v->kw, ix = ox * v->sw - v->pw + tap % v->kw;
            if (iy >= 0 && iy < v->h && ix >= 0 && ix < v->w)
                want[o] += (double)x[(iy * v->w + ix) * v->c + c] * w[tap * v->c + c];
        }
    }
    void *ops[12] = {x, w, out};
    ProgramOperands o = program_operands(p, ho * wo, v->c, ops, 3);
    int64_t r0 = blocks && ho > 2 ? wo : 0, r1 = blocks && ho > 2 ? (ho - 1) * wo : ho * wo;
    int64_t c0 = blocks && v->c > target_lanes(t) ? target_lanes(t) : 0;
    compile(t, &s)(ops, r0, r1, c0, v->c);
    program_check(spec_text(t, &s), p, &o, out, want, ho * wo, v->c, r0, r1, c0, v->c);
}

static void test_dwconv(void **unused) {
    (void)unused;
    static const ConvCase cases[] = {
        {9, 14, 40, 7, 7, 1, 1, 3, 3, 7, 1},  {11, 13, 17, 7, 7, 1, 1, 3, 3, 4, 0},
        {5, 7, 16, 7, 7, 1, 1, 3, 3, 7, 2},   {3, 2, 5, 7, 7, 1, 1, 3, 3, 8, 1},
        {12, 20, 24, 3, 3, 1, 1, 1, 1, 5, 4}, {10, 17, 33, 5, 5, 1, 1, 2, 2, 6, 1},
        {13, 12, 8, 9, 9, 1, 1, 4, 4, 4, 3},  {14, 15, 20, 7, 7, 2, 2, 3, 3, 3, 1},
        {13, 16, 12, 3, 3, 2, 2, 1, 1, 4, 5}, {9, 11, 40, 5, 3, 1, 2, 0, 0, 4, 1},
        {8, 9, 3, 4, 2, 2, 1, 1, 1, 3, 0},    {6, 6, 1, 2, 2, 2, 2, 0, 0, 2, 6},
        {4, 5, 18, 1, 1, 1, 1, 0, 0, 5, 1},   {4, 6, 16, 3, 3, 1, 1, 4, 4, 4, 1},
        {20, 56, 32, 7, 7, 1, 1, 3, 3, 8, 1},
    };
    for (int i = 0; i < ntargets; i++)
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
            dwconv_check(targets[i], &cases[c], c % 2);
}

// ---- norm and gather ---------------------------------------------------------------------------
static void normalise(const float *x, int64_t n, double eps, double *out) {
    double mean = 0, var = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
    for (int64_t i = 0; i < n; i++) out[i] = (x[i] - mean) / sqrt(var / (double)n + eps);
}

static void norm_check(const Target *t, int64_t rows, int64_t n, bool affine, bool in_place,
                       double offset) {
    Spec s = spec_new(K_NORM);
    set_int(&s, A_n, n);
    set_f64(&s, A_eps, 1e-6);
    if (affine) set_int(&s, A_affine, 1);
    float *x = reals(rows * n, 2), *gamma = reals(n, 1), *beta = reals(n, 1);
    for (int64_t i = 0; i < rows * n; i++) x[i] += (float)offset;
    float *out = in_place ? x : floats_new(rows * n);
    double *want = NEWN(arena, double, rows *n);
    int64_t r0 = rows > 3 ? 1 : 0, r1 = rows > 3 ? rows - 1 : rows;
    for (int64_t r = r0; r < r1; r++) {
        normalise(x + r * n, n, 1e-6, want + r * n);
        for (int64_t i = 0; i < n && affine; i++)
            want[r * n + i] = want[r * n + i] * gamma[i] + beta[i];
    }
    if (in_place)
        for (int64_t i = 0; i < rows * n; i++)
            if (i < r0 * n || i >= r1 * n) x[i] = POISON;
    void *ops[] = {x, out, gamma, beta};
    compile(t, &s)(ops, r0, r1, 0, n);
    // Few channels may lie close together: their mean is then rounded at a larger scale.
    double tol = (n < 16 ? 1e-4 : 3e-6) * (1 + fabs(offset));
    block_check(spec_text(t, &s), out, want, rows, n, r0, r1, 0, n, tol);
}

static void test_norm(void **unused) {
    (void)unused;
    static const int64_t sizes[] = {1, 2, 5, 8, 16, 40, 47, 96, 160, 193, 255, 768, 1030};
    for (int i = 0; i < ntargets; i++) {
        for (size_t c = 0; c < sizeof sizes / sizeof sizes[0]; c++) {
            norm_check(targets[i], 35, sizes[c], c % 2, c % 3 == 0, 0);
            norm_check(targets[i], (int64_t)c % 3 + 1, sizes[c], c % 2 == 0, false, 0);
        }
        norm_check(targets[i], 20, 96, false, false, 100); // variance by two passes
    }
}

static void gather_check(const Target *t, const ConvCase *v, bool normalized) {
    Spec s = spec_new(K_GATHER);
    set_int(&s, A_h, v->h);
    set_int(&s, A_w, v->w);
    set_int(&s, A_c, v->c);
    set_pair(&s, A_kernel, v->kh, v->kw);
    set_pair(&s, A_stride, v->sh, v->sw);
    if (v->ph || v->pw) set_pair(&s, A_pad, v->ph, v->pw);
    if (normalized) set_int(&s, A_normalized, 1);
    if (normalized) set_f64(&s, A_eps, 1e-6);
    int64_t ho = (v->h + 2 * v->ph - v->kh) / v->sh + 1,
            wo = (v->w + 2 * v->pw - v->kw) / v->sw + 1;
    int64_t rows = ho * wo, n = v->kh * v->kw * v->c;
    float *x = reals(v->h * v->w * v->c, 2), *out = floats_new(rows * n);
    double *want = NEWN(arena, double, rows *n);
    for (int64_t tap = 0; tap < rows * v->kh * v->kw; tap++) {
        int64_t kx = tap % v->kw, ky = tap / v->kw % v->kh, o = tap / v->kw / v->kh;
        int64_t iy = o / wo * v->sh - v->ph + ky, ix = o % wo * v->sw - v->pw + kx;
        if (iy < 0 || iy >= v->h || ix < 0 || ix >= v->w) continue;
        const float *src = x + (iy * v->w + ix) * v->c;
        if (normalized)
            normalise(src, v->c, 1e-6, want + tap * v->c);
        else
            for (int64_t c = 0; c < v->c; c++) want[tap * v->c + c] = src[c];
    }
    int64_t r0 = rows > 5 ? 2 : 0, r1 = rows > 5 ? rows - 1 : rows;
    void *ops[] = {x, out};
    compile(t, &s)(ops, r0, r1, 0, n);
    block_check(spec_text(t, &s), out, want, rows, n, r0, r1, 0, n, normalized ? 3e-6 : 0);
}

static void test_gather(void **unused) {
    (void)unused;
    static const ConvCase cases[] = {
        {8, 12, 3, 4, 4, 4, 4, 0, 0, 0, 0},  {9, 13, 1, 4, 4, 4, 4, 0, 0, 0, 0},
        {6, 10, 40, 2, 2, 2, 2, 0, 0, 0, 0}, {7, 9, 18, 2, 2, 2, 2, 0, 0, 0, 0},
        {5, 7, 6, 3, 3, 1, 1, 1, 1, 0, 0},   {6, 5, 17, 3, 2, 2, 1, 1, 0, 0, 0},
        {4, 6, 192, 2, 2, 2, 2, 0, 0, 0, 0}, {4, 5, 7, 1, 1, 1, 1, 0, 0, 0, 0},
        {6, 7, 3, 5, 5, 1, 1, 2, 2, 0, 0},
    };
    for (int i = 0; i < ntargets; i++)
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            gather_check(targets[i], &cases[c], false);
            if (!cases[c].ph && !cases[c].pw) gather_check(targets[i], &cases[c], true);
        }
}

// ---- eltwise, gelu -----------------------------------------------------------------------------
static void test_eltwise(void **unused) {
    (void)unused;
    static const int64_t sizes[] = {1, 3, 8, 23, 40, 64, 97};
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 7 * NPROGRAMS; c++) {
            int64_t n = sizes[c % 7], rows = 5 + c % 6, r0 = c % 2,
                    lanes = target_lanes(targets[i]);
            int64_t c0 = n > lanes ? lanes : 0;
            const Program *p = &programs[c / 7];
            Spec s = spec_new(K_ELTWISE);
            set_int(&s, A_n, n);
            if (p->n) set_ints(&s, A_epilogue, p->words, p->n);
            float *x = integers(rows * n, 5), *out = floats_new(rows * n);
            double *want = NEWN(arena, double, rows *n);
            for (int64_t j = 0; j < rows * n; j++) want[j] = x[j];
            void *ops[12] = {x, out};
            ProgramOperands o = program_operands(p, rows, n, ops, 2);
            compile(targets[i], &s)(ops, r0, rows - 1, c0, n);
            program_check(spec_text(targets[i], &s), p, &o, out, want, rows, n, r0, rows - 1, c0,
                          n);
        }
}

// The largest error of a word's function of x; a derivative's is that of 1 * gelu'(x).
static double gelu_worst(const Target *t, Epilogue word, double (*exact)(double)) {
    enum { N = 40001 };
    Spec s = spec_new(K_ELTWISE);
    set_int(&s, A_n, N);
    set_ints(&s, A_epilogue, (int64_t[]){word}, 1);
    KernelFn fn = compile(t, &s);
    double worst = 0;
    for (int scale = 0; scale < 3; scale++) {
        static const double top[] = {8, 1, 60};
        float *x = floats_new(N), *y = floats_new(N), *ones = floats_new(N);
        for (int i = 0; i < N; i++) x[i] = (float)(top[scale] * (2.0 * i / (N - 1) - 1));
        for (int i = 0; i < N; i++) ones[i] = 1;
        fn((void *[]){epilogue_operands(word) ? ones : x, y, x}, 0, 1, 0, N);
        for (int i = 0; i < N; i++) {
            // What f32 itself cannot represent is not an error of the form.
            double error = fabs(y[i] - exact(x[i])) - fmax(0, fabs(x[i]) - 8) * 1e-7;
            if (!(error <= worst)) worst = isnan(error) ? INFINITY : error;
        }
    }
    return worst;
}

static void test_gelu(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) {
        double erf_error = gelu_worst(targets[i], EPI_GELU, gelu);
        double tanh_error = gelu_worst(targets[i], EPI_GELU_TANH, gelu_tanh);
        print_message("%s: gelu %.2g, tanh form %.2g\n", targets[i]->name, erf_error, tanh_error);
        if (!(erf_error <= 1e-6) || !(tanh_error <= 1e-6)) fail_msg("GELU is off");
        erf_error = gelu_worst(targets[i], EPI_GELU_DX, gelu_slope);
        tanh_error = gelu_worst(targets[i], EPI_GELU_TANH_DX, gelu_tanh_slope);
        print_message("%s: slope %.2g, tanh form %.2g\n", targets[i]->name, erf_error, tanh_error);
        if (!(erf_error <= 1e-6) || !(tanh_error <= 1e-6)) fail_msg("the slope of GELU is off");
    }
}

// Slopes of what is not finite, and far from zero.
static void slope_special(const Target *t, int64_t word) {
    static const float far[] = {INFINITY, 3e38f, 1e10f, 40};
    enum { N = 19 };
    Spec s = spec_new(K_ELTWISE);
    set_int(&s, A_n, N);
    set_ints(&s, A_epilogue, &word, 1);
    float *x = floats_new(N), *y = floats_new(N), *ones = floats_new(N);
    for (int j = 0; j < N; j++) ones[j] = 1;
    for (int j = 0; j < N; j++) x[j] = (j & 1 ? -1 : 1) * far[j / 2 % 4];
    x[N - 1] = NAN;
    compile(t, &s)((void *[]){ones, y, x}, 0, 1, 0, N);
    for (int j = 0; j < N - 1; j++) assert_true(fabsf(y[j] - (j & 1 ? 0 : 1)) < 1e-6f);
    assert_true(isnan(y[N - 1]) || (word == EPI_GELU_DX && t->permute2));
}

static void test_gelu_special(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int64_t word = EPI_GELU; word <= EPI_GELU_TANH; word++) {
            Spec s = spec_new(K_ELTWISE);
            set_int(&s, A_n, 21);
            set_ints(&s, A_epilogue, &word, 1);
            float *x = floats_new(21), *y = floats_new(21);
            for (int j = 0; j < 21; j++) x[j] = 0;
            x[0] = x[17] = NAN;
            x[1] = x[18] = INFINITY;
            x[2] = -INFINITY;
            x[3] = -0.0f;
            x[4] = 3e38f;
            x[5] = -3e38f;
            x[6] = 1e-40f;
            compile(targets[i], &s)((void *[]){x, y}, 0, 1, 0, 21);
            assert_true(isnan(y[0]) && isnan(y[17]));
            assert_true(y[1] == INFINITY && y[18] == INFINITY);
            assert_true(fabsf(y[2]) < 1e-6f && y[3] == 0 && y[7] == 0);
            assert_true(y[4] == 3e38f && fabsf(y[5]) < 1e-6f && fabsf(y[6]) < 1e-30f);
        }
    for (int i = 0; i < ntargets; i++) slope_special(targets[i], EPI_GELU_DX);
    for (int i = 0; i < ntargets; i++) slope_special(targets[i], EPI_GELU_TANH_DX);
}

// ---- statistics --------------------------------------------------------------------------------
static void test_stat(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 12; c++) {
            int64_t n = (int64_t[]){40, 7, 65}[c / 4], rows = 11, r0 = 2, r1 = 9;
            int aggregate = c % 4;
            Spec s = spec_new(K_STAT);
            set_int(&s, A_n, n);
            set_int(&s, A_aggregate, aggregate);
            float *x = integers(rows * n, 6);
            int64_t parts = aggregate == 3 ? 2 : 1;
            float *out = floats_new(parts * n);
            double *want = NEWN(arena, double, parts *n);
            for (int64_t j = 0; j < n; j++) {
                double sum = 0, mean = 0;
                for (int64_t r = r0; r < r1; r++) mean += x[r * n + j] / (double)(r1 - r0);
                for (int64_t r = r0; r < r1; r++) {
                    double v = x[r * n + j];
                    sum += aggregate == 0 ? v * v : aggregate == 1 ? fabs(v) : v;
                    if (aggregate == 3) want[n + j] += (v - mean) * (v - mean);
                }
                want[j] = aggregate == 3 ? mean : sum;
            }
            compile(targets[i], &s)((void *[]){x, out}, r0, r1, 0, n);
            block_check(spec_text(targets[i], &s), out, want, parts, n, 0, parts, 0, n,
                        aggregate == 3 ? 1e-6 : 0);
        }
}

// s = gamma * N(G) (+ 1) of `images` images in one, in double, from the data itself.
static void grn_reference(const float *x, int64_t rows, int64_t n, int aggregate, int normalise_by,
                          bool residual, double eps, const float *gamma, double *s) {
    double sum = 0, dev = 0;
    for (int64_t c = 0; c < n; c++) {
        double mean = 0, acc = 0;
        for (int64_t r = 0; r < rows; r++) mean += x[r * n + c] / (double)rows;
        for (int64_t r = 0; r < rows; r++) {
            double v = x[r * n + c];
            acc += aggregate == 0   ? v * v
                   : aggregate == 1 ? fabs(v)
                   : aggregate == 2 ? v
                                    : (v - mean) * (v - mean);
        }
        if (aggregate == 2 || aggregate == 3) acc /= (double)rows;
        s[c] = aggregate == 0 || aggregate == 3 ? sqrt(acc) : acc;
        sum += s[c];
    }
    double mean = sum / (double)n;
    for (int64_t c = 0; c < n; c++) dev += (s[c] - mean) * (s[c] - mean) / (double)n;
    for (int64_t c = 0; c < n; c++) {
        double v = s[c];
        if (normalise_by == 0) v /= mean + eps;
        if (normalise_by == 1) v /= sum + eps;
        if (normalise_by == 2) v = (v - mean) / (sqrt(dev) + eps);
        s[c] = gamma[c] * v + (residual ? 1 : 0);
    }
}

static void grn_check(const Target *t, int64_t n, int aggregate, int normalise_by, bool batch,
                      bool residual) {
    int64_t m = 23, block = 7, blocks = 4, images = batch ? 3 : 1;
    Spec stat = spec_new(K_STAT), s = spec_new(K_GRN_SCALE);
    set_int(&stat, A_n, n);
    set_int(&stat, A_aggregate, aggregate);
    set_int(&s, A_m, m);
    set_int(&s, A_n, n);
    set_int(&s, A_k, block);
    set_int(&s, A_blocks, blocks);
    set_int(&s, A_aggregate, aggregate);
    set_int(&s, A_normalise, normalise_by);
    set_int(&s, A_statistics, batch);
    set_int(&s, A_residual, residual);
    set_f64(&s, A_eps, 1e-6);
    float *x = reals(images * m * n, 2), *gamma = reals(n, 1), *out = floats_new(n);
    for (int64_t i = 0; i < images * m * n; i++) x[i] += 0.5f;
    int64_t part = n * (aggregate == 3 ? 2 : 1);
    float *partial = floats_new(images * blocks * part);
    KernelFn stat_fn = compile(t, &stat);
    for (int64_t b = 0; b < images * blocks; b++) {
        int64_t r0 = b % blocks * block, r1 = r0 + block < m ? r0 + block : m;
        stat_fn((void *[]){x + b / blocks * m * n, partial + b * part}, r0, r1, 0, n);
    }
    double *want = NEWN(arena, double, n);
    grn_reference(x, images * m, n, aggregate, normalise_by, residual, 1e-6, gamma, want);
    compile(t, &s)((void *[]){partial, gamma, out}, 0, images, 0, n);
    block_check(spec_text(t, &s), out, want, 1, n, 0, 1, 0, n, 1e-5);
}

static void test_grn_scale(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 64; c++) {
            int64_t n = (int64_t[]){160, 37, 5}[c % 3];
            grn_check(targets[i], n, c % 4, c / 4 % 4, c / 16 % 2, c / 32);
        }
}

static void test_pool(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 3; c++) {
            int64_t n = (int64_t[]){320, 21, 6}[c], m = 8;
            Spec s = spec_new(K_POOL);
            set_int(&s, A_m, m);
            set_int(&s, A_n, n);
            float *x = integers(m * n, 9), *out = floats_new(n);
            double *want = NEWN(arena, double, n);
            for (int64_t j = 0; j < m * n; j++) want[j % n] += x[j] / (double)m;
            int64_t c0 = c == 0 ? 2 * target_lanes(targets[i]) : 0;
            compile(targets[i], &s)((void *[]){x, out}, 0, 1, c0, n);
            block_check(spec_text(targets[i], &s), out, want, 1, n, 0, 1, c0, n, 0);
        }
}

// ---- weights -----------------------------------------------------------------------------------
static void rows_check(const Target *t, KernelKind kind, int64_t n) {
    Spec s = spec_new(kind);
    int64_t rows = 6, r0 = 1, r1 = 5, c0 = n > target_lanes(t) ? target_lanes(t) : 0;
    double value = 0.75;
    set_int(&s, A_n, n);
    if (kind == K_FILL) {
        s.attrs[s.spec.nattrs++] = (Attr){.id = A_value, .data = {&value, 1}};
        spec_sort(&s);
    }
    float *x = integers(rows * n, 99), *out = floats_new(rows * n);
    double *want = NEWN(arena, double, rows *n);
    for (int64_t i = 0; i < rows * n; i++)
        want[i] = kind == K_FILL ? value : x[kind == K_TILE ? i % n : i];
    compile(t, &s)(kind == K_FILL ? (void *[]){out, NULL} : (void *[]){x, out}, r0, r1, c0, n);
    block_check(spec_text(t, &s), out, want, rows, n, r0, r1, c0, n, 0);
}

static void test_rows(void **unused) {
    (void)unused;
    static const int64_t sizes[] = {1, 7, 16, 40, 75, 200};
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 6; c++) {
            rows_check(targets[i], K_COPY, sizes[c]);
            rows_check(targets[i], K_TILE, sizes[c]);
            rows_check(targets[i], K_FILL, sizes[c]);
        }
}

static void test_matvec(void **unused) {
    (void)unused;
    static const Program some[] = {{{0}, 0, 0},
                                   {{EPI_BIAS}, 1, 0},
                                   {{EPI_BIAS, EPI_SCALE, EPI_ADD}, 3, 0},
                                   {{EPI_SCALE, EPI_GELU}, 2, 2e-6}};
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 8; c++) {
            const Program *p = &some[c % 4];
            int64_t n = 13 + c, k = (int64_t[]){160, 7, 33, 1}[c / 2];
            Spec s = spec_new(K_MATVEC);
            set_int(&s, A_n, n);
            set_int(&s, A_k, k);
            if (p->n) set_ints(&s, A_epilogue, p->words, p->n);
            float *w = integers(n * k, 3), *x = integers(k, 3), *out = floats_new(n);
            double *want = NEWN(arena, double, n);
            for (int64_t j = 0; j < n * k; j++) want[j / k] += (double)w[j] * x[j % k];
            void *ops[8] = {w, x, out};
            ProgramOperands o = program_operands(p, 1, n, ops, 3);
            compile(targets[i], &s)(ops, 2, n - 1, 0, 1);
            program_check(spec_text(targets[i], &s), p, &o, out, want, 1, n, 0, 1, 2, n - 1);
        }
}

// ---- registers ---------------------------------------------------------------------------------
static void spill_check(const char *target, KernelKind kind, const int64_t *v, int64_t order,
                        const Program *p, int limit) {
    const Target *t = target_find(target);
    Spec s = spec_new(kind);
    if (kind == K_GEMM) {
        set_int(&s, A_n, v[0]);
        set_int(&s, A_k, v[1]);
        set_int(&s, A_mr, v[2]);
        set_int(&s, A_nr, v[3]);
        set_int(&s, A_ku, v[4]);
        set_int(&s, A_order, order);
    } else {
        set_int(&s, A_h, v[0]);
        set_int(&s, A_w, v[1]);
        set_int(&s, A_c, v[2]);
        set_pair(&s, A_kernel, v[3], v[3]);
        set_pair(&s, A_pad, v[3] / 2, v[3] / 2);
        set_int(&s, A_tile, v[4]);
    }
    if (p->n) set_ints(&s, A_epilogue, p->words, p->n);
    const char *why = "", *text = codegen_kernel_asm(arena, t, &s.spec, &why);
    if (!text) fail_msg("%s: %s", spec_text(t, &s), why);
    int spills = codegen_spills(text, "");
    if (spills > limit) fail_msg("%s: %d spills and reloads", spec_text(t, &s), spills);
}

static void test_spills(void **unused) {
    (void)unused;
    if (emulated()) return;
    static const Program bias = {{EPI_BIAS}, 1, 0}, add = {{EPI_BIAS, EPI_ADD}, 2, 0},
                         first = {{EPI_BIAS, EPI_GELU, EPI_STAT_L2}, 3, 0};
    static const struct {
        const char *target;
        int64_t v[5];
    } gemms[] = {
        {"x86-64-v4", {160, 40, 8, 32, 4}},   {"x86-64-v4", {384, 96, 7, 32, 4}},
        {"x86-64-v4", {768, 3072, 7, 48, 4}}, {"x86-64-v4", {40, 160, 7, 40, 4}},
        {"x86-64-v4", {80, 320, 5, 80, 4}},   {"x86-64-v3", {96, 384, 6, 16, 4}},
        {"x86-64-v3", {96, 384, 4, 24, 4}},   {"x86-64-v2", {96, 384, 4, 8, 4}},
        {"aarch64", {96, 384, 8, 8, 4}},
    };
    for (size_t i = 0; i < sizeof gemms / sizeof gemms[0]; i++) {
        spill_check(gemms[i].target, K_GEMM, gemms[i].v, 0, &bias, 0);
        spill_check(gemms[i].target, K_GEMM, gemms[i].v, 1, &add, 0);
        // Tiles of at most 16 sums, as GELU has them.
        if (i < 2) spill_check(gemms[i].target, K_GEMM, gemms[i].v, 0, &first, 0);
    }
    spill_check("x86-64-v4", K_DWCONV, (int64_t[]){56, 56, 40, 7, 7}, 0, &bias, 0);
    spill_check("x86-64-v4", K_DWCONV, (int64_t[]){14, 14, 160, 7, 14}, 0, &bias, 0);
    spill_check("x86-64-v3", K_DWCONV, (int64_t[]){56, 56, 96, 7, 7}, 0, &bias, 0);
}

// A tile that cannot fit must be counted, or the count proves nothing.
static void test_spills_are_counted(void **unused) {
    (void)unused;
    if (emulated()) return;
    Spec s = spec_new(K_GEMM);
    set_int(&s, A_n, 96);
    set_int(&s, A_k, 64);
    set_int(&s, A_mr, 8);
    set_int(&s, A_nr, 32);
    set_int(&s, A_ku, 4);
    const char *why = "";
    const char *text = codegen_kernel_asm(arena, target_find("x86-64-v3"), &s.spec, &why);
    assert_non_null(text);
    assert_true(codegen_spills(text, "") > 20);
    assert_int_equal(codegen_spills(text, "gemm"), codegen_spills(text, ""));
    assert_int_equal(codegen_spills(text, "no_such_function"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_matvec),
        cmocka_unit_test(test_eltwise),
        cmocka_unit_test(test_gelu),
        cmocka_unit_test(test_gelu_special),
        cmocka_unit_test(test_stat),
        cmocka_unit_test(test_grn_scale),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_gemm_dw),
        cmocka_unit_test(test_dwconv),
        cmocka_unit_test(test_spills),
        cmocka_unit_test(test_spills_are_counted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
