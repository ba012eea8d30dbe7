// The kernels of the backward side and of the losses on blocks of rows and columns: what lies
// outside a block is not written, the rest agrees with plain loops in double precision. Whole
// programs of these ops, against the evaluator: tests/unit/test_passes.c.
#include "kernel_case.h"

static const int64_t sizes[] = {1, 3, 8, 16, 40, 47, 96, 193, 255, 768};
enum { SIZES = sizeof sizes / sizeof *sizes };

// ---- layer normalisation -----------------------------------------------------------------------
typedef struct {
    int64_t rows, n, r0, r1;
    float *dy, *x, *gamma;
    double *dx, *dgamma, *dbeta;
} NormCase;

// dx = r (g - mean g - u mean(g u)), g = dy gamma, u = normalize(x)
static void norm_row(const NormCase *k, int64_t row) {
    const float *dy = k->dy + row * k->n, *x = k->x + row * k->n;
    double mean = 0, var = 0, g = 0, gu = 0, n = (double)k->n;
    for (int64_t i = 0; i < k->n; i++) mean += x[i] / n;
    for (int64_t i = 0; i < k->n; i++) var += (x[i] - mean) * (x[i] - mean) / n;
    double r = 1 / sqrt(var + 1e-6);
    for (int64_t i = 0; i < k->n; i++) {
        double v = dy[i] * (k->gamma ? k->gamma[i] : 1.0);
        g += v / n;
        gu += v * (x[i] - mean) * r / n;
    }
    for (int64_t i = 0; i < k->n; i++) {
        double u = (x[i] - mean) * r, v = dy[i] * (k->gamma ? k->gamma[i] : 1.0);
        k->dx[row * k->n + i] = r * (v - g - u * gu);
        k->dgamma[i] += dy[i] * u;
        k->dbeta[i] += dy[i];
    }
}

static NormCase norm_case(int64_t rows, int64_t n, bool affine, double offset) {
    NormCase k = {.rows = rows, .n = n, .r0 = rows > 3, .r1 = rows > 3 ? rows - 1 : rows};
    k.dy = reals(rows * n, 1);
    k.x = reals(rows * n, 2);
    for (int64_t i = 0; i < rows * n; i++) k.x[i] += (float)offset;
    k.gamma = affine ? reals(n, 1) : NULL;
    k.dx = NEWN(arena, double, rows *n);
    k.dgamma = NEWN(arena, double, n);
    k.dbeta = NEWN(arena, double, n);
    for (int64_t r = k.r0; r < k.r1; r++) norm_row(&k, r);
    return k;
}

static void norm_dx_check(const Target *t, int64_t rows, int64_t n, bool affine, bool partial,
                          double offset) {
    Spec s = spec_new(K_NORM_DX), sums = spec_new(K_NORM_DGAMMA);
    set_int(&s, A_n, n);
    set_f64(&s, A_eps, 1e-6);
    if (affine) set_int(&s, A_affine, 1);
    if (partial) set_int(&s, A_partial, 1);
    set_int(&sums, A_n, n);
    set_f64(&sums, A_eps, 1e-6);
    NormCase k = norm_case(rows, n, affine, offset);
    float *out = floats_new(rows * n), *dgamma = floats_new(n), *dbeta = floats_new(n);
    float *alone = floats_new(n);
    void *ops[8] = {k.dy, k.x, out};
    int nops = 3;
    if (affine) ops[nops++] = k.gamma;
    ops[nops++] = dgamma;
    ops[nops++] = dbeta;
    compile(t, &s)(ops, k.r0, k.r1, 0, n);
    compile(t, &sums)((void *[]){k.dy, k.x, alone}, k.r0, k.r1, 0, n);
    // Few channels may lie close together: r is then large.
    double tol = (n < 16 ? 2e-3 : 1e-5) * (1 + fabs(offset));
    block_check(spec_text(t, &s), out, k.dx, rows, n, k.r0, k.r1, 0, n, tol);
    if (partial) {
        block_check(spec_text(t, &s), dgamma, k.dgamma, 1, n, 0, 1, 0, n, tol);
        block_check(spec_text(t, &s), dbeta, k.dbeta, 1, n, 0, 1, 0, n, 1e-5);
    }
    block_check(spec_text(t, &sums), alone, k.dgamma, 1, n, 0, 1, 0, n, tol);
}

// The layer's result and sums of dx besides.
static void norm_again_check(const Target *t, int64_t rows, int64_t n) {
    Spec s = spec_new(K_NORM_DX);
    set_int(&s, A_n, n);
    set_f64(&s, A_eps, 1e-6);
    set_int(&s, A_affine, 1);
    set_int(&s, A_partial, 1);
    set_int(&s, A_normalized, 1);
    set_ints(&s, A_epilogue, (int64_t[]){EPI_SCALE_ROWS, EPI_STAT_MEAN}, 2);
    NormCase k = norm_case(rows, n, true, 0);
    float *out = floats_new(rows * n), *dgamma = floats_new(n), *dbeta = floats_new(n);
    float *beta = reals(n, 1), *again = floats_new(rows * n), *factors = integers(rows, 3);
    float *sums = floats_new(n);
    void *ops[] = {k.dy, k.x, out, k.gamma, dgamma, dbeta, beta, again, factors, sums};
    double *y = NEWN(arena, double, rows *n), *sum = NEWN(arena, double, n);
    compile(t, &s)(ops, k.r0, k.r1, 0, n);
    for (int64_t r = k.r0; r < k.r1; r++) {
        double mean = 0, var = 1e-6;
        for (int64_t c = 0; c < n; c++) mean += k.x[r * n + c] / (double)n;
        for (int64_t c = 0; c < n; c++) var += pow(k.x[r * n + c] - mean, 2) / (double)n;
        for (int64_t c = 0; c < n; c++) {
            y[r * n + c] = (k.x[r * n + c] - mean) / sqrt(var) * k.gamma[c] + beta[c];
            sum[c] += k.dx[r * n + c] *= factors[r];
        }
    }
    block_check(spec_text(t, &s), out, k.dx, rows, n, k.r0, k.r1, 0, n, 1e-5);
    block_check(spec_text(t, &s), again, y, rows, n, k.r0, k.r1, 0, n, 1e-5);
    block_check(spec_text(t, &s), sums, sum, 1, n, 0, 1, 0, n, 1e-4);
    block_check(spec_text(t, &s), dgamma, k.dgamma, 1, n, 0, 1, 0, n, 1e-5);
}

static void test_norm_dx(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) {
        for (int c = 0; c < SIZES; c++) {
            if (sizes[c] == 1) continue; // the variance is 0, r is 1/sqrt(eps)
            norm_dx_check(targets[i], 37, sizes[c], c % 2, c % 3 != 0, 0);
            norm_dx_check(targets[i], c % 3 + 1, sizes[c], c % 2 == 0, true, 0);
        }
        norm_dx_check(targets[i], 20, 96, true, true, 100); // variance by two passes
        norm_again_check(targets[i], 37, 40);
        norm_again_check(targets[i], 19, 241);
    }
}

// ---- sums of rows ------------------------------------------------------------------------------
static void sum_check(const Target *t, int64_t rows, int64_t n, bool product) {
    Spec s = spec_new(product ? K_DOT : K_SUM);
    set_int(&s, A_n, n);
    float *x = integers(rows * n, 9), *y = integers(rows * n, 9), *out = floats_new(n);
    double *want = NEWN(arena, double, n);
    int64_t lanes = target_lanes(t), c0 = n > lanes ? lanes : 0, r0 = rows > 2, r1 = rows;
    for (int64_t r = r0; r < r1; r++)
        for (int64_t i = 0; i < n; i++)
            want[i] += (double)x[r * n + i] * (product ? y[r * n + i] : 1);
    void *ops[] = {x, product ? y : out, out};
    compile(t, &s)(ops, r0, r1, c0, n);
    block_check(spec_text(t, &s), out, want, 1, n, 0, 1, c0, n, 0);
    if (n < 3 * lanes) return; // a block in the middle
    out = floats_new(n);
    ops[1] = product ? y : out;
    ops[2] = out;
    compile(t, &s)(ops, r0, r1, lanes, 2 * lanes);
    block_check(spec_text(t, &s), out, want, 1, n, 0, 1, lanes, 2 * lanes, 0);
}

static void test_sums(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < SIZES; c++) {
            sum_check(targets[i], (int64_t[]){1, 64, 65, 200}[c % 4], sizes[c], c % 2);
            sum_check(targets[i], 129, sizes[c], c % 2 == 0);
        }
}

// ---- unpatchify --------------------------------------------------------------------------------
typedef struct {
    int64_t h, w, c, kh, kw, sh, sw, ph, pw;
} ScatterCase;

static void scatter_check(const Target *t, const ScatterCase *v) {
    Spec s = spec_new(K_SCATTER);
    set_int(&s, A_h, v->h);
    set_int(&s, A_w, v->w);
    set_int(&s, A_c, v->c);
    set_pair(&s, A_kernel, v->kh, v->kw);
    set_pair(&s, A_stride, v->sh, v->sw);
    set_pair(&s, A_pad, v->ph, v->pw);
    int64_t ho = (v->h + 2 * v->ph - v->kh) / v->sh + 1,
            wo = (v->w + 2 * v->pw - v->kw) / v->sw + 1, pixels = v->h * v->w;
    float *x = integers(ho * wo * v->kh * v->kw * v->c, 9), *out = floats_new(pixels * v->c);
    double *want = NEWN(arena, double, pixels * v->c);
    for (int64_t o = 0; o < ho * wo * v->kh * v->kw * v->c; o++) {
        int64_t c = o % v->c, tap = o / v->c % (v->kh * v->kw), p = o / v->c / (v->kh * v->kw);
        int64_t y = p / wo * v->sh - v->ph + tap / v->kw, at = p % wo * v->sw - v->pw + tap % v->kw;
        if (y >= 0 && y < v->h && at >= 0 && at < v->w) want[(y * v->w + at) * v->c + c] += x[o];
    }
    int64_t r0 = v->h > 2 ? v->w : 0, r1 = v->h > 2 ? pixels - v->w : pixels;
    compile(t, &s)((void *[]){x, out}, r0, r1, 0, v->c);
    block_check(spec_text(t, &s), out, want, pixels, v->c, r0, r1, 0, v->c, 0);
}

static void test_scatter(void **unused) {
    (void)unused;
    static const ScatterCase cases[] = {
        {8, 12, 3, 4, 4, 4, 4, 0, 0}, {9, 13, 1, 4, 4, 4, 4, 0, 0}, {6, 10, 40, 2, 2, 2, 2, 0, 0},
        {7, 9, 18, 2, 2, 2, 2, 0, 0}, {5, 7, 6, 3, 3, 1, 1, 1, 1},  {6, 5, 17, 3, 2, 2, 1, 1, 0},
        {7, 8, 5, 2, 2, 3, 3, 0, 0},  {9, 6, 4, 5, 3, 2, 2, 2, 1},
    };
    for (int i = 0; i < ntargets; i++)
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
            scatter_check(targets[i], &cases[c]);
}

// ---- masks -------------------------------------------------------------------------------------
static void mask_check(const Target *t, int64_t h, int64_t w, int64_t fh, int64_t fw, int64_t n,
                       bool hidden) {
    Spec s = spec_new(K_MASK);
    set_int(&s, A_n, n);
    set_int(&s, A_w, w);
    set_pair(&s, A_kernel, fh, fw);
    if (hidden) set_int(&s, A_hidden, 1);
    float *x = integers(h * w * n, 9), *m = floats_new(h / fh * (w / fw));
    float *out = floats_new(h * w * n);
    double *want = NEWN(arena, double, h *w *n);
    for (int64_t i = 0; i < h / fh * (w / fw); i++) m[i] = (float)(draw() % 2);
    for (int64_t i = 0; i < h * w * n; i++) {
        float cell = m[i / n / w / fh * (w / fw) + i / n % w / fw];
        want[i] = x[i] * (hidden ? cell : 1 - cell);
    }
    compile(t, &s)((void *[]){x, m, out}, 1, h * w - 1, 0, n);
    block_check(spec_text(t, &s), out, want, h * w, n, 1, h * w - 1, 0, n, 0);
}

static void test_mask(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < SIZES; c++) {
            mask_check(targets[i], 6, 8, 2, 2, sizes[c], c % 2);
            mask_check(targets[i], 3, 4, 1, 1, sizes[c], c % 2 == 0);
        }
}

// ---- losses ------------------------------------------------------------------------------------
// Logits up to `range`: large ones must neither overflow nor lose the small terms.
static void losses_check(const Target *t, int64_t n, double range) {
    int64_t rows = 5;
    float *z = reals(rows * n, range), *y = reals(rows * n, 1), *dl = reals(rows, 1);
    for (int64_t i = 0; i < rows * n; i++) y[i] = fabsf(y[i]) / (float)n;
    double *loss[2], *dz[2];
    for (int k = 0; k < 2; k++) {
        loss[k] = NEWN(arena, double, rows);
        dz[k] = NEWN(arena, double, rows *n);
    }
    for (int64_t r = 0; r < rows; r++) {
        double max = -1e300, sum = 0, mass = 0;
        for (int64_t i = r * n; i < (r + 1) * n; i++) max = fmax(max, z[i]);
        for (int64_t i = r * n; i < (r + 1) * n; i++) sum += exp(z[i] - max), mass += y[i];
        for (int64_t i = r * n; i < (r + 1) * n; i++) {
            double d = z[i] - max - log(sum);
            loss[0][r] -= y[i] * d;
            dz[0][i] = dl[r] * (exp(d) * mass - y[i]);
            loss[1][r] += (fmax(z[i], 0) + log1p(exp(-fabs(z[i]))) - y[i] * z[i]) / (double)n;
            dz[1][i] = dl[r] * (1 / (1 + exp(-z[i])) - y[i]) / (double)n;
        }
    }
    static const KernelKind kinds[] = {K_SOFTMAX_CE, K_SOFTMAX_CE_DX, K_BCE, K_BCE_DX};
    for (int k = 0; k < 4; k++) {
        Spec s = spec_new(kinds[k]);
        set_int(&s, A_n, n);
        bool dx = k % 2;
        float *out = floats_new(dx ? rows * n : rows);
        void *ops[4] = {z, y, out};
        if (dx) memcpy(ops, (void *[]){dl, z, y, out}, sizeof ops);
        compile(t, &s)(ops, 1, rows - 1, 0, n);
        block_check(spec_text(t, &s), out, dx ? dz[k / 2] : loss[k / 2], rows, dx ? n : 1, 1,
                    rows - 1, 0, dx ? n : 1, 3e-6);
    }
}

static void test_losses(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < SIZES; c++)
            for (int k = 0; k < 3; k++) losses_check(targets[i], sizes[c], (double[]){1, 8, 60}[k]);
}

// Rows that are not hidden count for nothing, whatever they hold.
static void masked_check(const Target *t, int64_t m, int64_t n, int kind) {
    Spec loss = spec_new(K_MASKED_MSE), dx = spec_new(K_MASKED_MSE_DX);
    set_int(&loss, A_m, m);
    set_int(&loss, A_n, n);
    set_int(&dx, A_m, m);
    set_int(&dx, A_n, n);
    float *p = reals(m * n, 2), *y = reals(m * n, 2), *mask = floats_new(m), *dl = reals(1, 1);
    float *out = floats_new(1), *d = floats_new(m * n);
    double want = 0, total = 0, *dp = NEWN(arena, double, m *n);
    for (int64_t l = 0; l < m; l++) {
        mask[l] = kind == 0 ? 0 : (float)(draw() % 2);
        total += mask[l];
        if (mask[l] == 0)
            for (int64_t i = 0; i < n; i++) p[l * n + i] = l % 2 ? NAN : INFINITY;
    }
    for (int64_t i = 0; i < m * n && total > 0; i++) {
        if (mask[i / n] == 0) continue;
        double e = (double)p[i] - y[i];
        want += e * e / ((double)n * total);
        dp[i] = dl[0] * 2 * e / ((double)n * total);
    }
    compile(t, &loss)((void *[]){p, y, mask, out}, 0, 1, 0, n);
    block_check(spec_text(t, &loss), out, &want, 1, 1, 0, 1, 0, 1, 2e-6);
    compile(t, &dx)((void *[]){dl, p, y, mask, d}, 1, m - 1, 0, n);
    block_check(spec_text(t, &dx), d, dp, m, n, 1, m - 1, 0, n, 2e-6);
    for (int64_t i = n; i < (m - 1) * n; i++)
        if (mask[i / n] == 0 && d[i] != 0)
            fail_msg("%s: a visible row is not 0", spec_text(t, &dx));
}

static void test_masked(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < SIZES; c++) {
            masked_check(targets[i], 9, sizes[c], 1);
            masked_check(targets[i], 4, sizes[c], 0);
        }
}

// Unbiased variance: norm with `unbiased`.
static void test_norm_pix(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 1; c < SIZES; c++) {
            int64_t n = sizes[c], rows = 19;
            Spec s = spec_new(K_NORM);
            set_int(&s, A_n, n);
            set_f64(&s, A_eps, 1e-6);
            set_int(&s, A_unbiased, 1);
            float *x = reals(rows * n, 2), *out = floats_new(rows * n);
            double *want = NEWN(arena, double, rows *n);
            for (int64_t r = 0; r < rows; r++) {
                double mean = 0, var = 0;
                for (int64_t j = 0; j < n; j++) mean += x[r * n + j] / (double)n;
                for (int64_t j = 0; j < n; j++) var += pow(x[r * n + j] - mean, 2);
                for (int64_t j = 0; j < n; j++)
                    want[r * n + j] = (x[r * n + j] - mean) / sqrt(var / (double)(n - 1) + 1e-6);
            }
            compile(targets[i], &s)((void *[]){x, out}, 0, rows, 0, n);
            block_check(spec_text(targets[i], &s), out, want, rows, n, 0, rows, 0, n,
                        n < 16 ? 1e-4 : 3e-6);
        }
}

// ---- GRN ---------------------------------------------------------------------------------------
// Channels whose statistic is 0 have the slope 0.
static void test_grn_slope(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 8 * SIZES; c++) {
            int64_t n = sizes[c / 8], aggregate = c % 4, batch = c / 4 % 2, rows = 4, m = 35;
            Spec s = spec_new(K_GRN_SLOPE);
            set_int(&s, A_n, n);
            set_int(&s, A_m, m);
            set_int(&s, A_aggregate, aggregate);
            set_int(&s, A_statistics, batch);
            float *dg = reals(rows * n, 1), *g = reals(rows * n, 1), *out = floats_new(rows * n);
            double *want = NEWN(arena, double, rows *n), count = (double)(batch ? m * rows : m);
            for (int64_t j = 0; j < rows * n; j++) {
                if (j % 3 == 0) g[j] = 0;
                want[j] = aggregate == 1 ? dg[j] : aggregate == 2 ? dg[j] / count : 0;
                if ((aggregate == 0 || aggregate == 3) && g[j] != 0)
                    want[j] = dg[j] / g[j] / (aggregate == 3 ? count : 1);
            }
            compile(targets[i], &s)((void *[]){dg, g, out}, 0, rows, 0, n);
            block_check(spec_text(targets[i], &s), out, want, rows, n, 0, batch ? 1 : rows, 0, n,
                        1e-6);
        }
}

// ---- other machines ----------------------------------------------------------------------------
// Every kernel of this file is code on every row of the table, whether it runs here or not.
static void test_all_targets(void **unused) {
    (void)unused;
    if (emulated()) return;
    static const KernelKind kinds[] = {
        K_NORM_DX,    K_NORM_DGAMMA, K_SUM,           K_DOT,    K_GRN_SLOPE,  K_GRN_DSTAT,
        K_SOFTMAX_CE, K_BCE,         K_SOFTMAX_CE_DX, K_BCE_DX, K_MASKED_MSE, K_MASKED_MSE_DX};
    for (int i = 0; i < target_count; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            Spec s = spec_new(kinds[k]);
            set_int(&s, A_n, 77);
            if (kinds[k] == K_MASKED_MSE || kinds[k] == K_MASKED_MSE_DX || kinds[k] == K_GRN_SLOPE)
                set_int(&s, A_m, 9);
            const char *why = "",
                       *text = codegen_kernel_asm(arena, &target_table[i], &s.spec, &why);
            if (!text) fail_msg("%s: %s", spec_text(&target_table[i], &s), why);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm_dx),     cmocka_unit_test(test_sums),
        cmocka_unit_test(test_scatter),     cmocka_unit_test(test_mask),
        cmocka_unit_test(test_losses),      cmocka_unit_test(test_masked),
        cmocka_unit_test(test_norm_pix),    cmocka_unit_test(test_grn_slope),
        cmocka_unit_test(test_all_targets),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
