// The elementwise program a kernel applies to its result before the store (attribute epilogue), and
// the table from kernel kinds to emitters.
#include "kernel.h"

#undef KERNEL
#define KERNEL(name, NAME, operands, attrs, doc) [K_##NAME] = emit_##name,
static void (*const emitters[K_COUNT])(Emit *, const KernelSpec *, const char *) = {
#include "../ir/kernels.def"
};
#undef KERNEL

Val emit_kernel(Emit *e, const KernelSpec *spec, const char *symbol) {
    emitters[spec->kind](e, spec, symbol);
    return LLVMGetNamedFunction(e->mod, symbol);
}

KernelArgs kernel_begin(Emit *e, const char *symbol) {
    LLVMTypeRef params[] = {e->ptr, e->i64, e->i64, e->i64, e->i64};
    Val fn = emit_function(e, symbol, params, 5);
    return (KernelArgs){LLVMGetParam(fn, 0), LLVMGetParam(fn, 1), LLVMGetParam(fn, 2),
                        LLVMGetParam(fn, 3), LLVMGetParam(fn, 4)};
}

Window spec_window(const KernelSpec *s) {
    Window w = {.h = spec_int(s, A_h), .w = spec_int(s, A_w), .c = spec_int(s, A_c)};
    w.kh = spec_ints(s, A_kernel, 0);
    w.kw = spec_ints(s, A_kernel, 1);
    w.sh = spec_ints(s, A_stride, 0) > 0 ? spec_ints(s, A_stride, 0) : 1;
    w.sw = spec_ints(s, A_stride, 1) > 0 ? spec_ints(s, A_stride, 1) : 1;
    w.ph = spec_ints(s, A_pad, 0);
    w.pw = spec_ints(s, A_pad, 1);
    w.ho = (w.h + 2 * w.ph - w.kh) / w.sh + 1;
    w.wo = (w.w + 2 * w.pw - w.kw) / w.sw + 1;
    return w;
}

static bool is_stat(int64_t word) {
    return word == EPI_STAT_L2 || word == EPI_STAT_L1 || word == EPI_STAT_MEAN ||
           word == EPI_STAT_DOT;
}

void epilogue_init(Emit *e, EpilogueCode *p, const KernelSpec *spec, Val ops, int operands,
                   int64_t columns, bool take_bias) {
    *p = (EpilogueCode){.columns = columns};
    p->n = spec_epilogue(spec, &p->words);
    if (p->n > MAX_EPILOGUE) ice((Loc){0}, "an epilogue of %d words", p->n);
    p->first = take_bias && p->n > 0 && p->words[0] == EPI_BIAS;
    for (int i = 0; i < p->n; i++) {
        int count = epilogue_operands(p->words[i]);
        if (count == 2) p->mat[i] = emit_ptr(e, ops, operands++);
        if (count) p->at[i] = emit_ptr(e, ops, operands++);
    }
}

bool epilogue_has_stats(const EpilogueCode *p) {
    for (int i = 0; i < p->n; i++)
        if (is_stat(p->words[i])) return true;
    return false;
}

bool epilogue_is_long(const KernelSpec *spec) {
    const int64_t *words = NULL;
    for (int i = spec_epilogue(spec, &words) - 1; i >= 0; i--)
        if (words[i] == EPI_GELU || words[i] == EPI_GELU_TANH || words[i] == EPI_GELU_DX ||
            words[i] == EPI_GELU_TANH_DX)
            return true;
    return false;
}

int epilogue_stats(const EpilogueCode *p) {
    int n = 0;
    for (int i = 0; i < p->n; i++) n += is_stat(p->words[i]);
    return n;
}

void epilogue_carry(const EpilogueCode *p, EpilogueColumn *c, Val *sums, bool load) {
    for (int i = 0, k = 0; i < p->n; i++) {
        if (!is_stat(p->words[i])) continue;
        if (load)
            c->vec[i] = sums[k++];
        else
            sums[k++] = c->vec[i];
    }
}

void epilogue_end(Emit *e, const EpilogueCode *p) {
    for (int i = 0; i < p->n; i++)
        if (p->words[i] == EPI_STREAM) {
            emit_stream_end(e);
            return;
        }
}

static void zero_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    vec_store(e, vec_const(e, piece.width, 0), emit_at(e, ctx, col), piece);
}

void epilogue_zero_stats(Emit *e, const EpilogueCode *p, Val c0, Val c1) {
    for (int i = 0; i < p->n; i++)
        if (is_stat(p->words[i]))
            emit_columns(e, p->columns, c0, c1, 1, zero_column, p->at[i], NULL, 0);
}

Val epilogue_start(Emit *e, const EpilogueCode *p, Val col, Piece piece) {
    if (!p->first) return vec_const(e, piece.width, 0);
    return vec_load(e, emit_at(e, p->at[0], col), piece);
}

void epilogue_column(Emit *e, const EpilogueCode *p, EpilogueColumn *c, Val col, Piece piece) {
    *c = (EpilogueColumn){.col = col, .piece = piece};
    for (int i = p->first; i < p->n; i++)
        if (p->words[i] == EPI_BIAS || p->words[i] == EPI_SCALE || p->words[i] == EPI_FMA_SCALE)
            c->vec[i] = vec_load(e, emit_at(e, p->at[i], col), piece);
        else if (p->words[i] == EPI_SCALE_IMAGE)
            c->vec[i] = vec_broadcast(e, p->at[i], piece.width);
}

static Val add_stat(Emit *e, int64_t word, Val sum, Val v) {
    if (word == EPI_STAT_L2) return sum ? emit_fma(e, v, v, sum) : emit_fmul(e, v, v);
    if (word == EPI_STAT_L1) v = emit_fabs(e, v);
    return sum ? emit_fadd(e, sum, v) : v;
}

// The element of a matrix of the result's shape at (row, c->col).
static Val load_matrix(Emit *e, const EpilogueCode *p, const EpilogueColumn *c, Val matrix,
                       Val row) {
    Val at = emit_iadd(e, emit_imul(e, row, p->columns), c->col);
    return vec_load(e, emit_at(e, matrix, at), c->piece);
}

static void store_matrix(Emit *e, const EpilogueCode *p, const EpilogueColumn *c, Val matrix,
                         Val row, Val v) {
    Val at = emit_iadd(e, emit_imul(e, row, p->columns), c->col);
    vec_store(e, v, emit_at(e, matrix, at), c->piece);
}

static void stream_matrix(Emit *e, const EpilogueCode *p, const EpilogueColumn *c, Val matrix,
                          Val row, Val v) {
    Val at = emit_iadd(e, emit_imul(e, row, p->columns), c->col);
    vec_stream(e, v, emit_at(e, matrix, at), c->piece);
}

// The matrix a word reads or, `store`, writes; NULL: none.
static Val matrix_of(const EpilogueCode *p, int i) {
    if (p->mat[i]) return p->mat[i];
    switch (p->words[i]) {
    case EPI_ADD:
    case EPI_MUL:
    case EPI_GELU_DX:
    case EPI_GELU_TANH_DX:
    case EPI_STORE: return p->at[i];
    default: return NULL;
    }
}

void epilogue_prefetch(Emit *e, const EpilogueCode *p, Val row, Val col, int rows, int64_t width) {
    for (int i = 0; i < p->n; i++) {
        Val matrix = matrix_of(p, i);
        if (!matrix) continue;
        Val at = emit_at(e, matrix, emit_iadd(e, emit_imul(e, row, p->columns), col));
        for (int r = 0; r < rows; r++)
            for (int64_t f = 0; f < width; f += 16)
                emit_prefetch(e, emit_at_c(e, at, r * p->columns + f), p->words[i] == EPI_STORE, 3);
    }
}

static Val apply_word(Emit *e, const EpilogueCode *p, EpilogueColumn *c, int i, Val v, Val row) {
    Val y = NULL;
    switch (p->words[i]) {
    case EPI_BIAS: return emit_fadd(e, v, c->vec[i]);
    case EPI_GELU: return emit_gelu(e, v);
    case EPI_GELU_TANH: return emit_gelu_tanh(e, v);
    case EPI_SCALE:
    case EPI_SCALE_IMAGE: return emit_fmul(e, v, c->vec[i]);
    case EPI_ADD: return emit_fadd(e, v, load_matrix(e, p, c, p->at[i], row));
    case EPI_MUL: return emit_fmul(e, v, load_matrix(e, p, c, p->at[i], row));
    case EPI_GELU_DX:
        return emit_fmul(e, v, emit_gelu_slope(e, load_matrix(e, p, c, p->at[i], row)));
    case EPI_GELU_TANH_DX:
        return emit_fmul(e, v, emit_gelu_tanh_slope(e, load_matrix(e, p, c, p->at[i], row)));
    case EPI_FMA_SCALE: return emit_fma(e, load_matrix(e, p, c, p->mat[i], row), c->vec[i], v);
    case EPI_STAT_DOT:
        y = load_matrix(e, p, c, p->mat[i], row);
        c->vec[i] = c->vec[i] ? emit_fma(e, v, y, c->vec[i]) : emit_fmul(e, v, y);
        return v;
    case EPI_SIGN: return emit_sign(e, v);
    case EPI_STORE: store_matrix(e, p, c, p->at[i], row, v); return v;
    case EPI_STREAM: stream_matrix(e, p, c, p->at[i], row, v); return v;
    case EPI_SCALE_ROWS:
        return emit_fmul(e, v, vec_broadcast(e, emit_at(e, p->at[i], row), c->piece.width));
    default: c->vec[i] = add_stat(e, p->words[i], c->vec[i], v); return v;
    }
}

Val epilogue_apply(Emit *e, const EpilogueCode *p, EpilogueColumn *c, Val v, Val row) {
    Val out = NULL;
    for (int i = p->first; i < p->n; i++) {
        if (p->words[i] == EPI_OUT)
            out = v;
        else
            v = apply_word(e, p, c, i, v, row);
    }
    return out ? out : v;
}

void epilogue_column_end(Emit *e, const EpilogueCode *p, EpilogueColumn *c) {
    for (int i = 0; i < p->n; i++) {
        if (!is_stat(p->words[i]) || !c->vec[i]) continue;
        Val at = emit_at(e, p->at[i], c->col);
        vec_store(e, emit_fadd(e, vec_load(e, at, c->piece), c->vec[i]), at, c->piece);
    }
}

void epilogue_rows(Emit *e, const EpilogueCode *p, Val col, Piece piece, Val rows, RowBody body,
                   void *ctx) {
    EpilogueColumn c;
    Val stats[MAX_EPILOGUE];
    int n = epilogue_stats(p);
    epilogue_column(e, p, &c, col, piece);
    for (int i = 0; i < n; i++) stats[i] = vec_const(e, piece.width, 0);
    Loop l;
    Val r = loop_begin(e, &l, emit_i64(e, 0), rows, 1, stats, n);
    epilogue_carry(p, &c, stats, true);
    body(e, ctx, r, &c);
    epilogue_carry(p, &c, stats, false);
    loop_end(e, &l);
    epilogue_carry(p, &c, stats, true);
    epilogue_column_end(e, p, &c);
}

typedef struct {
    const Narrow *to;
    Val dst, src;
} Run;

static void copy_column(Emit *e, void *ctx, Val col, Piece piece, Val *carry) {
    (void)carry;
    Run *r = ctx;
    Val v = r->src ? vec_load(e, emit_at(e, r->src, col), piece) : vec_const(e, piece.width, 0);
    vec_store_as(e, r->to, v, emit_at_as(e, r->to->dt, r->dst, col), piece);
}

void emit_run_as(Emit *e, const Narrow *to, Val dst, Val src, int64_t n) {
    Run r = {to, dst, src};
    if (n > 16 * e->lanes) {
        emit_columns(e, n, emit_i64(e, 0), emit_i64(e, n), 4, copy_column, &r, NULL, 0);
        return;
    }
    Piece pieces[MAX_PIECES];
    int count = emit_pieces(e, n, pieces);
    for (int i = 0; i < count; i++) copy_column(e, &r, emit_i64(e, pieces[i].off), pieces[i], NULL);
}

void emit_run(Emit *e, Val dst, Val src, int64_t n) {
    emit_run_as(e, &(Narrow){.dt = DT_F32}, dst, src, n);
}
