// GEMM cases and the elementwise programs that follow, shared by the tests of f32 and narrow
// kernels.
#ifndef CNX_TESTS_GEMM_CASE_H
#define CNX_TESTS_GEMM_CASE_H
#include "kernel_case.h"

// ---- epilogues ---------------------------------------------------------------------------------
typedef struct {
    int64_t words[8];
    int n;
    double tol; // of the values after it
} Program;

typedef struct {
    float *at[8];  // operand of each word
    float *mat[8]; // the first of two
    double *stat[8], *stored[8];
} ProgramOperands;

// ProgramOperands of a program on [rows][n]; pushes them to ops.
static inline ProgramOperands program_operands(const Program *p, int64_t rows, int64_t n,
                                               void **ops, int nops) {
    ProgramOperands o = {0};
    for (int i = 0; i < p->n; i++) {
        switch (p->words[i]) {
        case EPI_GELU:
        case EPI_GELU_TANH:
        case EPI_OUT: continue;
        case EPI_ADD:
        case EPI_MUL: o.at[i] = integers(rows * n, 3); break;
        case EPI_GELU_DX:
        case EPI_GELU_TANH_DX: o.at[i] = reals(rows * n, 3); break;
        case EPI_FMA_SCALE:
            ops[nops++] = o.mat[i] = integers(rows * n, 3);
            o.at[i] = integers(n, 3);
            break;
        case EPI_STAT_DOT:
            ops[nops++] = o.mat[i] = integers(rows * n, 3);
            o.at[i] = floats_new(n);
            o.stat[i] = NEWN(arena, double, n);
            break;
        case EPI_SCALE_IMAGE: o.at[i] = integers(1, 3); break;
        case EPI_SCALE_ROWS: o.at[i] = integers(rows, 3); break;
        case EPI_STREAM:
        case EPI_STORE:
            o.at[i] = floats_new(rows * n);
            o.stored[i] = NEWN(arena, double, rows *n);
            break;
        case EPI_BIAS:
        case EPI_SCALE: o.at[i] = integers(n, 3); break;
        default: o.at[i] = floats_new(n); o.stat[i] = NEWN(arena, double, n);
        }
        ops[nops++] = o.at[i];
    }
    return o;
}

static inline double gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }

static inline double gelu_tanh(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static inline double gelu_slope(double x) {
    return erfc(-x / sqrt(2)) / 2 + x * exp(-x * x / 2) / sqrt(2 * M_PI);
}

static inline double gelu_tanh_slope(double x) {
    const double a = sqrt(2 / M_PI), b = 0.044715;
    double t = tanh(a * (x + b * x * x * x));
    return (1 + t) / 2 + x / 2 * (1 - t * t) * a * (1 + 3 * b * x * x);
}

// Applies the program to value v at (r, c); sums statistics.
static inline double program_apply(const Program *p, const ProgramOperands *o, double v, int64_t r,
                                   int64_t c, int64_t n) {
    double out = 0;
    bool stored = false;
    for (int i = 0; i < p->n; i++) {
        const float *at = o->at[i];
        switch (p->words[i]) {
        case EPI_OUT:
            out = v;
            stored = true;
            break;
        case EPI_BIAS: v += at[c]; break;
        case EPI_GELU: v = gelu(v); break;
        case EPI_GELU_TANH: v = gelu_tanh(v); break;
        case EPI_SCALE: v *= at[c]; break;
        case EPI_ADD: v += at[r * n + c]; break;
        case EPI_MUL: v *= at[r * n + c]; break;
        case EPI_SCALE_ROWS: v *= at[r]; break;
        case EPI_SCALE_IMAGE: v *= at[0]; break;
        case EPI_STREAM:
        case EPI_STORE: o->stored[i][r * n + c] = v; break;
        case EPI_STAT_L2: o->stat[i][c] += v * v; break;
        case EPI_STAT_L1: o->stat[i][c] += fabs(v); break;
        case EPI_STAT_MEAN: o->stat[i][c] += v; break;
        case EPI_GELU_DX: v *= gelu_slope(at[r * n + c]); break;
        case EPI_GELU_TANH_DX: v *= gelu_tanh_slope(at[r * n + c]); break;
        case EPI_FMA_SCALE: v += o->mat[i][r * n + c] * (double)at[c]; break;
        case EPI_STAT_DOT: o->stat[i][c] += v * o->mat[i][r * n + c]; break;
        }
    }
    return stored ? out : v;
}

// The reference of a block and its comparison: values [rows][n] before the program.
static inline void program_check(const char *what, const Program *p, const ProgramOperands *o,
                                 const float *got, double *want, int64_t rows, int64_t n,
                                 int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
    for (int64_t r = r0; r < r1; r++)
        for (int64_t c = c0; c < c1; c++)
            want[r * n + c] = program_apply(p, o, want[r * n + c], r, c, n);
    block_check(what, got, want, rows, n, r0, r1, c0, c1, p->tol);
    for (int i = 0; i < p->n; i++)
        if (o->stored[i])
            block_check(what, o->at[i], o->stored[i], rows, n, r0, r1, c0, c1, p->tol);
    for (int i = 0; i < p->n; i++)
        if (o->stat[i])
            block_check(what, o->at[i], o->stat[i], 1, n, 0, 1, c0, c1, fmax(2e-6, p->tol));
}

static const Program programs[] = {
    {{0}, 0, 0},
    {{EPI_BIAS}, 1, 0},
    {{EPI_BIAS, EPI_GELU, EPI_STAT_L2}, 3, 2e-6},
    {{EPI_BIAS, EPI_GELU_TANH, EPI_STAT_L1}, 3, 2e-6},
    {{EPI_SCALE, EPI_BIAS, EPI_ADD}, 3, 0},
    {{EPI_BIAS, EPI_ADD, EPI_STAT_MEAN, EPI_MUL, EPI_SCALE_ROWS}, 5, 0},
    {{EPI_GELU, EPI_SCALE, EPI_ADD, EPI_STAT_L2}, 4, 4e-6},
    {{EPI_STAT_DOT, EPI_SCALE, EPI_FMA_SCALE, EPI_STAT_DOT}, 4, 0},
    {{EPI_SCALE, EPI_FMA_SCALE, EPI_GELU_DX, EPI_STAT_MEAN}, 4, 1e-4},
    {{EPI_GELU_TANH_DX, EPI_ADD}, 2, 2e-5},
    {{EPI_BIAS, EPI_SCALE_IMAGE, EPI_ADD, EPI_STAT_MEAN}, 4, 0},
    {{EPI_BIAS, EPI_STORE, EPI_SCALE, EPI_STORE, EPI_STAT_MEAN}, 5, 0},
    {{EPI_BIAS, EPI_OUT, EPI_SCALE_ROWS, EPI_STAT_L2}, 4, 0},
    {{EPI_BIAS, EPI_STORE, EPI_GELU, EPI_OUT, EPI_SCALE_ROWS, EPI_STAT_L2}, 6, 2e-6},
};
enum { NPROGRAMS = sizeof programs / sizeof programs[0] };

// ---- specs -------------------------------------------------------------------------------------
typedef struct {
    int64_t m, n, k, mr, nr, ku, order, r0, r1, c0, c1;
} GemmCase;

// Sets *s to the kernel of a case whose operands are of type `from`.
static inline void gemm_spec(Spec *s, const GemmCase *g, DType from, const Program *p) {
    *s = spec_new(K_GEMM);
    set_int(s, A_n, g->n);
    set_int(s, A_k, g->k);
    set_int(s, A_mr, g->mr);
    set_int(s, A_nr, g->nr);
    set_int(s, A_ku, g->ku);
    set_int(s, A_order, g->order);
    if (from != DT_F32) set_int(s, A_from, dtype_word(from));
    if (p->n) set_ints(s, A_epilogue, p->words, p->n);
}

static inline const char *gemm_text(const Target *t, const Spec *s, const GemmCase *g) {
    return arena_printf(arena, "%s m=%d rows %d..%d columns %d..%d", spec_text(t, s), (int)g->m,
                        (int)g->r0, (int)g->r1, (int)g->c0, (int)g->c1);
}
#endif
