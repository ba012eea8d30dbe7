// Depthwise convolution on packed rows. Rows come in sub-blocks of s x s positions (s 1 or 2); the
// rulebook names, for each sub-block and each offset between sub-blocks a kernel reaches, the
// sub-block there or -1.
//
// Forward (and dx, with the kernel turned): per sub-block, the sums of its positions for a few
// vectors of channels stay in registers over all offsets. Each offset is straight code with just
// the taps that join the two sub-blocks, skipped where there is no neighbour. Channels are the
// outer loop: the taps of one group of vectors stay in L1; sub-blocks some way ahead are fetched to
// L2 meanwhile. With s = 1 taps are added in the dense kernel's order, so results are equal to
// those of dwconv on an image whose masked positions are 0.
//
// dw: per block of `mr` sub-blocks the pairs that exist are first listed, offset by offset; then,
// for each group of vectors and each offset, the up to nine taps that join the two sub-blocks are
// summed in registers over the list; where these are few, for half the positions of dy after the
// other. Sums go to memory once per list. The next block is fetched meanwhile.
#include "../ir/packed.h"
#include "kernel.h"

enum { MAX_VECTORS = 12, MAX_SUB = 4, AHEAD = 64 }; // AHEAD: sub-blocks
enum { WIDE = 192, FAR = 1024 };                    // channels

typedef struct {
    int64_t n, s, kh, kw, ry, rx, nv, area; // area: positions of a sub-block
    bool turned;
    EpilogueCode epi;
    Val x, rules, weights, dy, out;
    Val j0, j1; // sub-blocks
} Packed;

static Packed packed_shape(const KernelSpec *spec) {
    Packed p = {.n = spec_int(spec, A_n), .s = spec_int(spec, A_block)};
    p.kh = spec_ints(spec, A_kernel, 0);
    p.kw = spec_ints(spec, A_kernel, 1);
    p.ry = packed_reach(p.kh, p.s);
    p.rx = packed_reach(p.kw, p.s);
    p.nv = (2 * p.ry + 1) * (2 * p.rx + 1);
    p.area = p.s * p.s;
    p.turned = spec_int(spec, A_turned);
    if (p.s != 1 && p.s != 2) ice((Loc){0}, "sub-blocks of side %d", (int)p.s);
    return p;
}

// The tap that joins position `to` of a sub-block with `from` of that at offset v; -1: none.
static int64_t joining_tap(const Packed *p, int64_t v, int64_t to, int64_t from) {
    int64_t wide = 2 * p->rx + 1, dy = v / wide - p->ry, dx = v % wide - p->rx;
    int64_t ky = dy * p->s + morton_row(from) - morton_row(to) + (p->kh - 1) / 2;
    int64_t kx = dx * p->s + morton_col(from) - morton_col(to) + (p->kw - 1) / 2;
    if (ky < 0 || ky >= p->kh || kx < 0 || kx >= p->kw) return -1;
    return p->turned ? (p->kh - 1 - ky) * p->kw + p->kw - 1 - kx : ky * p->kw + kx;
}

// The first tap that joins sub-blocks at offset v; -1: none does.
static int64_t first_tap(const Packed *p, int64_t v) {
    int64_t first = -1;
    for (int64_t i = 0; i < p->area * p->area; i++) {
        int64_t tap = joining_tap(p, v, i / p->area, i % p->area);
        if (tap >= 0 && (first < 0 || tap < first)) first = tap;
    }
    return first;
}

// ---- channels in groups of vectors -------------------------------------------------------------
typedef struct {
    Piece piece[MAX_VECTORS];
    int64_t off[MAX_VECTORS]; // channel of each vector after the group's first
    int n;
} Vectors;

typedef void (*GroupBody)(Emit *e, void *ctx, Val col, const Vectors *v);

// n full vectors, where the target has such instructions several as one.
static Vectors full_vectors(const Emit *e, int64_t n) {
    Vectors v = {0};
    int64_t group = target_group(e->target);
    for (int64_t i = 0; i < n;) {
        int width = (int)(n - i < group ? 1 : group) * e->lanes;
        v.piece[v.n] = (Piece){0, width, width, 0};
        v.off[v.n++] = i * e->lanes;
        i += width / e->lanes;
    }
    return v;
}

// Full vectors of each group in the loop, so that groups are few and none is left with a rest,
// which is more code.
static int64_t group_size(int64_t full, int64_t tails, int64_t most) {
    int64_t best = 1, least = INT64_MAX;
    for (int64_t each = 1; each <= most && each <= full; each++) {
        int64_t rest = full % each + tails, cost = full / each + (rest > 0 ? 2 : 0);
        if (rest > most || cost >= least) continue;
        least = cost;
        best = each;
    }
    return best;
}

// All n channels in groups of at most `most` vectors: equal groups in a loop, one with the rest.
static void channel_groups(Emit *e, int64_t n, int most, GroupBody body, void *ctx) {
    Piece tail[MAX_PIECES];
    int tails = emit_pieces(e, n % e->lanes, tail);
    if (most > MAX_VECTORS) most = MAX_VECTORS;
    if (most < tails) most = tails;
    int64_t full = n / e->lanes, each = group_size(full, tails, most);
    int64_t in_loop = full + tails <= most ? 0 : full / each * each;
    Loop l;
    if (in_loop) {
        Vectors v = full_vectors(e, each);
        Val col = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, in_loop * e->lanes),
                             each * e->lanes, NULL, 0);
        body(e, ctx, col, &v);
        loop_end(e, &l);
    }
    Vectors rest = full_vectors(e, full - in_loop);
    for (int i = 0; i < tails; i++) {
        rest.off[rest.n] = (full - in_loop) * e->lanes + tail[i].off;
        rest.piece[rest.n] = tail[i];
        rest.piece[rest.n++].off = 0;
    }
    if (rest.n) body(e, ctx, emit_i64(e, in_loop * e->lanes), &rest);
}

// ---- forward -----------------------------------------------------------------------------------
// Whether addresses of rows come each from the last one: LLVM would keep a register for each that
// offsets of loads do not reach.
static bool walks(const Emit *e, const Packed *p) {
    return e->target->bare || (e->target->short_offsets && p->n >= WIDE);
}

// A step towards `left` rows on. One that is FAR takes a register for each length, so they are few.
static int64_t row_step(const Packed *p, int64_t left) {
    int64_t size = left < 0 ? -left : left;
    if (size <= 2 || size * p->n < FAR) return left;
    size = size > 4 && 2 * size > p->kw ? p->kw : 2;
    return left < 0 ? -size : size;
}

static Val row_on(Emit *e, const Spaced *rows, int64_t by) {
    if (-by * rows->step < FAR) return emit_at_c(e, rows->at, by * rows->step);
    Val back = emit_here(e, emit_i64(e, -by * rows->step * 4)); // the length of the way forward
    return emit_bytes_at(e, rows->at, emit_isub(e, emit_i64(e, 0), back));
}

// On to row i, whose address LLVM does not know.
static Val walk_to(Emit *e, const Packed *p, Spaced *rows, int64_t i) {
    while (i != rows->i) {
        int64_t left = i - rows->i, by = walks(e, p) ? row_step(p, left) : left;
        rows->at = walks(e, p) ? emit_here(e, row_on(e, rows, by))
                               : emit_at_c(e, rows->at, by * rows->step);
        rows->i += by;
    }
    return rows->at;
}

// On to the first tap of offset v, whether or not there is a neighbour: what is constant between
// taps stays small.
static void walk_ahead(Emit *e, const Packed *p, Spaced *tap, int64_t v) {
    if (walks(e, p)) walk_to(e, p, tap, first_tap(p, v));
}

// Of offset v: the positions of the sub-block at x that a kernel reaches, and the taps from `tap`
// on that join them.
typedef struct {
    Val x[MAX_SUB], *tap;
} Operands;

static Operands offset_operands(Emit *e, const Packed *p, int64_t v, Val x, Spaced tap) {
    int64_t ntaps = p->kh * p->kw;
    Operands o = {.tap = NEWN(e->arena, Val, ntaps)};
    Spaced row = {.at = x, .step = p->n};
    bool *joins = NEWN(e->arena, bool, ntaps);
    for (int64_t from = 0; from < p->area; from++) {
        bool any = false;
        for (int64_t to = 0; to < p->area; to++) {
            int64_t t = joining_tap(p, v, to, from);
            if (t < 0) continue;
            any = joins[t] = true;
        }
        if (any) o.x[from] = walk_to(e, p, &row, from);
    }
    for (int64_t t = 0; t < ntaps; t++)
        if (joins[t]) o.tap[t] = walk_to(e, p, &tap, t);
    return o;
}

// The pairs of offset v: from rows at x (channel of the group's first vector) into sums.
static void offset_pairs(Emit *e, const Packed *p, int64_t v, Val x, Spaced tap, const Vectors *g,
                         Val *sums) {
    Operands o = offset_operands(e, p, v, x, tap);
    for (int i = 0; i < g->n; i++) {
        Val *w = NEWN(e->arena, Val, p->kh * p->kw);
        for (int64_t from = 0; from < p->area; from++) {
            Val xv = NULL;
            for (int64_t to = 0; to < p->area; to++) {
                int64_t t = joining_tap(p, v, to, from);
                if (t < 0) continue;
                if (!xv) xv = vec_load(e, emit_at_c(e, o.x[from], g->off[i]), g->piece[i]);
                if (!w[t]) w[t] = vec_load(e, emit_at_c(e, o.tap[t], g->off[i]), g->piece[i]);
                Val *sum = &sums[i * p->area + to];
                *sum = emit_fma(e, xv, w[t], *sum);
            }
        }
    }
}

static void sub_block_store(Emit *e, const Packed *p, Val j, Val col, const Vectors *g, Val *sums) {
    Val rows[MAX_SUB], row = emit_imul(e, j, p->area);
    for (int64_t to = 0; to < p->area; to++) {
        rows[to] = emit_iadd(e, row, emit_i64(e, to));
        if (walks(e, p)) rows[to] = emit_here(e, rows[to]);
    }
    if (walks(e, p)) col = emit_here(e, col);
    for (int i = 0; i < g->n; i++) {
        EpilogueColumn ec;
        Val at = emit_iadd(e, col, emit_i64(e, g->off[i]));
        epilogue_column(e, &p->epi, &ec, at, g->piece[i]);
        for (int64_t to = 0; to < p->area; to++) {
            Val v = epilogue_apply(e, &p->epi, &ec, sums[i * p->area + to], rows[to]);
            Val index = emit_iadd(e, emit_imul(e, rows[to], p->n), at);
            vec_store(e, v, emit_at(e, p->out, index), g->piece[i]);
        }
        epilogue_column_end(e, &p->epi, &ec);
    }
}

// Offset v, static, or with single positions its tap v at run time.
static void forward_offset(Emit *e, const Packed *p, Val v, int64_t known, Val rules, Spaced *tap,
                           Val base, const Vectors *g, Val *sums) {
    If f;
    if (known >= 0) walk_ahead(e, p, tap, known);
    Val entry = emit_index_load(e, p->rules, emit_iadd(e, rules, v));
    Val there = LLVMBuildICmp(e->b, LLVMIntSGE, entry, emit_i64(e, 0), "");
    if_begin(e, &f, there, sums, g->n * (int)p->area);
    Val x = emit_opaque(e, emit_at(e, base, emit_imul(e, entry, p->area * p->n)));
    if (known >= 0) {
        offset_pairs(e, p, known, x, *tap, g, sums);
    } else {
        Val t = p->turned ? emit_isub(e, emit_i64(e, p->nv - 1), v) : v;
        Val w = emit_at(e, tap->at, emit_imul(e, t, p->n));
        for (int i = 0; i < g->n; i++)
            sums[i] = emit_fma(e, vec_load(e, emit_at_c(e, x, g->off[i]), g->piece[i]),
                               vec_load(e, emit_at_c(e, w, g->off[i]), g->piece[i]), sums[i]);
    }
    if_end(e, &f);
}

// Rows of the group's vectors of a sub-block: to L2.
static void fetch_rows(Emit *e, const Packed *p, Val at, int64_t first, int64_t count,
                       const Vectors *g) {
    for (int64_t row = first; row < first + count; row++)
        for (int i = 0; i < g->n; i++)
            emit_prefetch(e, emit_at_c(e, at, row * p->n + g->off[i]), false, 2);
}

static void forward_group(Emit *e, void *ctx, Val col, const Vectors *g) {
    const Packed *p = ctx;
    Loop l, offsets;
    Val weights = emit_opaque(e, emit_at(e, p->weights, col));
    Val x = emit_opaque(e, emit_at(e, p->x, col));
    Spaced taps = {.at = weights, .step = p->n};
    if (p->s > 1) walk_ahead(e, p, &taps, 0);
    Val j = emit_here(e, loop_begin(e, &l, p->j0, p->j1, 1, NULL, 0));
    Val sums[MAX_VECTORS * MAX_SUB], first = walks(e, p) ? emit_here(e, col) : col;
    int nsums = g->n * (int)p->area;
    for (int i = 0; i < nsums; i++) {
        int k = i / (int)p->area;
        Val at = emit_iadd(e, first, emit_i64(e, g->off[k]));
        sums[i] = epilogue_start(e, &p->epi, at, g->piece[k]);
    }
    Val rules = emit_imul(e, j, p->nv);
    Spaced tap = taps;
    if (p->s == 1) {
        Val v = loop_begin(e, &offsets, emit_i64(e, 0), emit_i64(e, p->nv), 1, sums, nsums);
        forward_offset(e, p, v, -1, rules, &tap, x, g, sums);
        loop_end(e, &offsets);
    } else {
        Val row = emit_imul(e, emit_iadd(e, j, emit_i64(e, AHEAD)), p->area);
        fetch_rows(e, p, emit_at(e, x, emit_imul(e, row, p->n)), 0, p->area, g);
        for (int i = 0; i < g->n; i++) {
            Val at = emit_iadd(e, col, emit_i64(e, g->off[i]));
            epilogue_prefetch(e, &p->epi, row, at, (int)p->area, 1);
        }
        for (int64_t v = 0; v < p->nv; v++)
            if (first_tap(p, v) >= 0)
                forward_offset(e, p, emit_i64(e, v), v, rules, &tap, x, g, sums);
    }
    sub_block_store(e, p, emit_here(e, l.i), col, g, sums);
    loop_end(e, &l);
}

void emit_dwconv_packed(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    Packed p = packed_shape(spec);
    p.x = emit_ptr(e, k.ops, 0);
    p.rules = emit_ptr(e, k.ops, 1);
    p.weights = emit_ptr(e, k.ops, 2);
    p.out = emit_ptr(e, k.ops, 3);
    epilogue_init(e, &p.epi, spec, k.ops, 4, p.n, true);
    epilogue_zero_stats(e, &p.epi, emit_i64(e, 0), emit_i64(e, p.n));
    p.j0 = emit_idiv(e, k.r0, p.area);
    p.j1 = emit_idiv(e, k.r1, p.area);
    channel_groups(e, p.n, (int)spec_int(spec, A_tile), forward_group, &p);
    emit_return(e);
}

// ---- dw ----------------------------------------------------------------------------------------
// Lists of pairs of one block of sub-blocks: for each offset, the element offsets of the two
// sub-blocks in dy and x.
typedef struct {
    Packed p;
    int64_t block;
    int vectors;
    Val to, from, count; // i32 [nv][block], [nv][block], [nv]
    Val b0, b1;          // sub-blocks
} PairLists;

static void list_pairs(Emit *e, const PairLists *d) {
    const Packed *p = &d->p;
    Loop offsets, blocks;
    Val zero = emit_i64(e, 0), one = emit_i64(e, 1);
    Val v = loop_begin(e, &offsets, zero, emit_i64(e, p->nv), 1, NULL, 0);
    Val list = emit_imul(e, v, d->block), count = zero;
    Val j = loop_begin(e, &blocks, d->b0, d->b1, 1, &count, 1);
    Val entry = emit_index_load(e, p->rules, emit_iadd(e, emit_imul(e, j, p->nv), v));
    // Written always, counted when it is there: no branch.
    Val at = emit_iadd(e, list, count);
    emit_index_store(e, j, d->to, at);
    emit_index_store(e, entry, d->from, at);
    Val none = emit_less(e, entry, zero);
    count = emit_iadd(e, count, LLVMBuildSelect(e->b, none, zero, one, ""));
    loop_end(e, &blocks);
    emit_index_store(e, count, d->count, v);
    loop_end(e, &offsets);
}

// The sums of offset v: a tap that joins many positions has a sum for every two of them, so that
// sums do not wait for themselves; where there are few pairs, each has its own.
enum { MAX_SUMS = 10, FEW_PAIRS = 8 };
typedef struct {
    int n;
    int64_t tap[MAX_SUMS];    // -1: of the tap before
    int of[MAX_SUB][MAX_SUB]; // [to][from]: its sum or -1
} TapSums;

// For positions [first,end) of dy.
static TapSums tap_sums(const Packed *p, int64_t v, int64_t first, int64_t end) {
    TapSums t = {0};
    int64_t pairs = 0;
    int used[MAX_SUMS] = {0};
    memset(t.of, -1, sizeof t.of);
    for (int64_t i = first * p->area; i < end * p->area; i++)
        pairs += joining_tap(p, v, i / p->area, i % p->area) >= 0;
    for (int64_t i = first * p->area; i < end * p->area; i++) {
        int64_t to = i / p->area, from = i % p->area, tap = joining_tap(p, v, to, from);
        if (tap < 0) continue;
        int most = pairs > FEW_PAIRS ? 2 : 1, k = 0;
        while (k < t.n && (t.tap[k] != tap || used[k] == most)) k++;
        if (k == t.n) t.tap[t.n++] = tap;
        used[k]++;
        t.of[to][from] = k;
    }
    return t;
}

// One pair of sub-blocks into the sums.
static void pair_products(Emit *e, const Packed *p, const TapSums *t, Val dy, Val x,
                          const Vectors *g, Val *sums) {
    for (int i = 0; i < g->n; i++) {
        Val dv[MAX_SUB] = {0};
        Spaced of_x = {.at = emit_at_c(e, x, g->off[i]), .step = p->n};
        Spaced of_dy = {.at = emit_at_c(e, dy, g->off[i]), .step = p->n};
        for (int64_t from = 0; from < p->area; from++) {
            Val xv = NULL;
            for (int64_t to = 0; to < p->area; to++) {
                if (t->of[to][from] < 0) continue;
                if (!xv) xv = vec_load(e, emit_spaced(e, &of_x, from), g->piece[i]);
                if (!dv[to]) dv[to] = vec_load(e, emit_spaced(e, &of_dy, to), g->piece[i]);
                Val *sum = &sums[i * t->n + t->of[to][from]];
                *sum = emit_fma(e, xv, dv[to], *sum);
            }
        }
    }
}

// The list of offset v. taps: where tap `t->tap` of the group's first channel lies. fetched: this
// row of each sub-block of the next block is fetched meanwhile; -1: none.
static void offset_list(Emit *e, const PairLists *d, Val v, const TapSums *t, const Val *taps,
                        Val col, const Vectors *g, int64_t fetched) {
    const Packed *p = &d->p;
    Val sums[MAX_VECTORS * MAX_SUMS];
    int nsums = g->n * t->n;
    for (int k = 0; k < nsums; k++) {
        Piece piece = g->piece[k / t->n];
        bool first = true;
        for (int i = 0; i < k % t->n; i++) first &= t->tap[i] != t->tap[k % t->n];
        sums[k] = first ? vec_load(e, emit_at_c(e, taps[k % t->n], g->off[k / t->n]), piece)
                        : vec_const(e, piece.width, 0);
    }
    Loop l;
    Val list = emit_imul(e, v, d->block);
    Val i = loop_begin(e, &l, emit_i64(e, 0), emit_index_load(e, d->count, v), 1, sums, nsums);
    Val at = emit_iadd(e, list, i);
    Val to = emit_imul(e, emit_index_load(e, d->to, at), p->area * p->n);
    Val from = emit_imul(e, emit_index_load(e, d->from, at), p->area * p->n);
    Val dy = emit_at(e, emit_at(e, p->dy, to), col);
    if (fetched >= 0) {
        int64_t ahead = d->block * p->area * p->n;
        Val x = emit_at(e, emit_at(e, p->x, to), col);
        fetch_rows(e, p, emit_at_c(e, dy, ahead), fetched, 1, g);
        fetch_rows(e, p, emit_at_c(e, x, ahead), fetched, 1, g);
    }
    pair_products(e, p, t, emit_opaque(e, dy),
                  emit_opaque(e, emit_at(e, emit_at(e, p->x, from), col)), g, sums);
    loop_end(e, &l);
    for (int k = nsums - 1; k >= 0; k--) {
        int i0 = 0, base = k - k % t->n;
        while (t->tap[i0] != t->tap[k % t->n]) i0++;
        if (base + i0 != k)
            sums[base + i0] = emit_fadd(e, sums[base + i0], sums[k]);
        else
            vec_store(e, sums[k], emit_at_c(e, taps[k % t->n], g->off[k / t->n]),
                      g->piece[k / t->n]);
    }
}

// Positions of dy whose sums stay in registers beside them, a column of x, the next one and, where
// there is no FMA, a product.
static int64_t positions_at_once(const Target *t, const Packed *p) {
    int registers = t->registers / target_group(t);
    return MAX_SUMS + p->area + 2 + !t->fma <= registers ? p->area : p->area / 2;
}

static void dw_group(Emit *e, void *ctx, Val col, const Vectors *g) {
    const PairLists *d = ctx;
    const Packed *p = &d->p;
    Val taps[MAX_SUMS];
    if (p->s == 1) { // offset v is tap v
        Loop l;
        TapSums one = {.n = 1};
        Val v = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, p->nv), 1, NULL, 0);
        taps[0] = emit_at(e, emit_at(e, p->out, col), emit_imul(e, v, p->n));
        offset_list(e, d, v, &one, taps, col, g, -1);
        loop_end(e, &l);
        return;
    }
    Val out = emit_opaque(e, emit_at(e, p->out, col));
    int64_t step = positions_at_once(e->target, p);
    for (int64_t i = 0; i < p->nv * p->area; i += step) {
        int64_t v = i / p->area, first = i % p->area;
        TapSums t = tap_sums(p, v, first, first + step);
        for (int k = 0; k < t.n; k++) taps[k] = emit_at_c(e, out, t.tap[k] * p->n);
        // The offsets in the middle have the longest lists.
        int64_t fetched = v - (p->nv - p->area) / 2;
        if (fetched >= p->area || first > 0) fetched = -1;
        if (t.n) offset_list(e, d, emit_i64(e, v), &t, taps, col, g, fetched);
    }
}

static void zero_taps(Emit *e, const Packed *p) {
    Loop l;
    Val tap = loop_begin(e, &l, emit_i64(e, 0), emit_i64(e, p->kh * p->kw), 1, NULL, 0);
    emit_run(e, emit_at(e, p->out, emit_imul(e, tap, p->n)), NULL, p->n);
    loop_end(e, &l);
}

void emit_dwconv_packed_dw(Emit *e, const KernelSpec *spec, const char *symbol) {
    KernelArgs k = kernel_begin(e, symbol);
    PairLists d = {.p = packed_shape(spec), .block = spec_int(spec, A_mr)};
    Packed *p = &d.p;
    p->dy = emit_ptr(e, k.ops, 0);
    p->x = emit_ptr(e, k.ops, 1);
    p->rules = emit_ptr(e, k.ops, 2);
    p->out = emit_ptr(e, k.ops, 3);
    d.to = emit_stack(e, e->i32, p->nv * d.block);
    d.from = emit_stack(e, e->i32, p->nv * d.block);
    d.count = emit_stack(e, e->i32, p->nv);
    zero_taps(e, p);
    Loop l;
    Val j1 = emit_idiv(e, k.r1, p->area);
    d.b0 = loop_begin(e, &l, emit_idiv(e, k.r0, p->area), j1, d.block, NULL, 0);
    d.b1 = emit_imin(e, emit_iadd(e, d.b0, emit_i64(e, d.block)), j1);
    list_pairs(e, &d);
    channel_groups(e, p->n, (int)spec_int(spec, A_tile), dw_group, &d);
    loop_end(e, &l);
    emit_return(e);
}
