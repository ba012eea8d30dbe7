// Steps of depthwise convolutions of the backward side.
//
// dx of stride 1 is dwconv with the kernel turned. dw is one unit per image and block of channels,
// which leaves partial sums [taps,c]; they are then added image by image, one unit per block of
// channels, so the thread count does not show.
#include "sched.h"

enum { FEW_TAP_ROWS = 4 }; // at least, or sums go to memory too often

static void window_spec(Sched *sc, SpecAttrs *s, Type x, int64_t kh, int64_t kw, const Node *n) {
    spec_set(s, A_h, x.d[1].c);
    spec_set(s, A_w, x.d[2].c);
    spec_set(s, A_c, x.d[3].c);
    spec_set_pair(sc, s, A_kernel, kh, kw);
    spec_set_pair(sc, s, A_stride, node_ints(n, A_stride, 0), node_ints(n, A_stride, 1));
    spec_set_pair(sc, s, A_pad, node_ints(n, A_pad, 0), node_ints(n, A_pad, 1));
}

static void schedule_dwconv_dx(Sched *sc, const Node *n) {
    Type dy = graph_type(sc->g, n->args[0]), w = graph_type(sc->g, n->args[1]);
    Type x = graph_type(sc->g, n->first);
    int64_t kh = w.d[2].c, kw = w.d[3].c, ph = node_ints(n, A_pad, 0), pw = node_ints(n, A_pad, 1);
    bool turned =
        node_ints(n, A_stride, 0) == 1 && node_ints(n, A_stride, 1) == 1 && ph < kh && pw < kw;
    int taps = taps_buffer(sc, n->args[1], n);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_add(&o, taps);
    operand_add(&o, -1); // out: below
    if (turned) {
        spec_set(&s, A_h, dy.d[1].c);
        spec_set(&s, A_w, dy.d[2].c);
        spec_set(&s, A_c, dy.d[3].c);
        spec_set_pair(sc, &s, A_kernel, kh, kw);
        spec_set_pair(sc, &s, A_stride, 1, 1);
        spec_set_pair(sc, &s, A_pad, kh - 1 - ph, kw - 1 - pw);
        spec_set(&s, A_tile, dwconv_tile(sc->t, x.d[2].c, kw));
        spec_set(&s, A_turned, 1);
    } else {
        window_spec(sc, &s, x, kh, kw, n);
    }
    Rows r = rows_of(x);
    int64_t width = x.d[2].c, block = row_block(r.rows, width, width, r.n * 4, sc->t->l2 / 4);
    Follow f = {0};
    Value result = turned ? follow_begin(sc, n, n->first, r, block, &s, &o, &f) : n->first;
    o.v[2].buffer = buffer_of(sc, result);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, block, r.n, r.n);
    call_new(sc, st, turned ? K_DWCONV : K_DWCONV_DX, &s, &o, n, node_macs(sc->g, n));
    follow_end(sc, &f);
}

// dw [c,1,kh,kw] = sum of the partial gradients over the images.
static void sum_taps(Sched *sc, const Node *n, int partial, int64_t taps, int64_t c, bool batch) {
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, partial);
    operand_add(&o, reduce_out(sc, n->first, &s));
    spec_set(&s, A_n, c);
    spec_set(&s, A_k, taps);
    Step *st = step_new(sc, n, batch ? OVER_FLAT : OVER_ONCE, 1, INT64_C(1) << 40, c,
                        col_block(c, target_lanes(sc->t)));
    call_new(sc, st, K_TAPS_SUM, &s, &o, n, 0);
}

// Output rows whose sums stay in registers, in even blocks: so many that one vector of channels of
// x and dy about fits L1, where every row of the kernel reads it.
static int64_t tap_rows(const Target *t, Type x, Type dy, int64_t kh) {
    int64_t line = 64, rows = dy.d[1].c, per_row = (x.d[2].c + dy.d[2].c) * line;
    int64_t most = (t->l1 * 5 / 4 - (kh - 1) * x.d[2].c * line) / per_row;
    if (most < FEW_TAP_ROWS) most = FEW_TAP_ROWS;
    int64_t blocks = (rows + most - 1) / most;
    return (rows + blocks - 1) / blocks;
}

static void schedule_dwconv_dw(Sched *sc, const Node *n) {
    Type dy = graph_type(sc->g, n->args[0]), x = graph_type(sc->g, n->args[1]);
    Type w = graph_type(sc->g, n->first);
    int64_t taps = w.d[2].c * w.d[3].c, c = w.d[0].c;
    bool batch = type_has_batch(x);
    int partial = partials_new(sc, n, taps, c, batch);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->args[1]);
    operand_add(&o, partial);
    window_spec(sc, &s, x, w.d[2].c, w.d[3].c, n);
    spec_set(&s, A_mr, tap_rows(sc->t, x, dy, w.d[2].c));
    spec_set(&s, A_tile, dwconv_dw_tile(sc->t, w.d[3].c));
    Step *st =
        step_new(sc, n, batch ? OVER_IMAGE : OVER_ONCE, 1, 1, c, col_block(c, target_lanes(sc->t)));
    call_new(sc, st, K_DWCONV_DW, &s, &o, n, node_macs(sc->g, n));
    sum_taps(sc, n, partial, taps, c, batch);
}

// ---- packed rows -------------------------------------------------------------------------------
enum { PACKED_BLOCK = 32 }; // sub-blocks per list of pairs

// Operands in order, the result last, over images or once; rows of the result.
static void copy_step(Sched *sc, const Node *n, KernelKind kind, SpecAttrs *s, int64_t rows,
                      int64_t block, int64_t cols, int64_t col_block) {
    Operands o = {0};
    for (int i = 0; i < n->nargs; i++) operand_value(sc, &o, n->args[i]);
    operand_value(sc, &o, n->first);
    Over over = type_has_batch(graph_type(sc->g, n->first)) ? OVER_IMAGE : OVER_ONCE;
    call_new(sc, step_new(sc, n, over, rows, block, cols, col_block), kind, s, &o, n, 0);
}

static void schedule_cells(Sched *sc, const Node *n) {
    Type m = graph_type(sc->g, n->args[0]);
    SpecAttrs s = {0};
    spec_set(&s, A_n, m.d[1].c * m.d[2].c);
    spec_set(&s, A_count, node_int(n, A_count));
    if (node_int(n, A_hidden)) spec_set(&s, A_hidden, 1);
    copy_step(sc, n, K_CELLS, &s, 1, 1, 1, 1);
}

static void schedule_rulebook(Sched *sc, const Node *n) {
    SpecAttrs s = {0};
    spec_set(&s, A_count, graph_type(sc->g, n->args[0]).d[1].c);
    spec_set_pair(sc, &s, A_grid, node_ints(n, A_grid, 0), node_ints(n, A_grid, 1));
    spec_set(&s, A_block, node_int(n, A_block));
    spec_set_pair(sc, &s, A_kernel, node_ints(n, A_kernel, 0), node_ints(n, A_kernel, 1));
    copy_step(sc, n, K_RULEBOOK, &s, 1, 1, 1, 1);
}

static void schedule_pack_rows(Sched *sc, const Node *n) {
    Type x = graph_type(sc->g, n->args[0]), t = graph_type(sc->g, n->first);
    Rows r = rows_of(t);
    SpecAttrs s = {0};
    spec_set(&s, A_w, x.d[2].c);
    spec_set(&s, A_c, x.d[3].c);
    spec_set(&s, A_block, node_int(n, A_block));
    if (n->op == OP_PATCHIFY_ROWS)
        spec_set_pair(sc, &s, A_kernel, node_ints(n, A_kernel, 0), node_ints(n, A_kernel, 1));
    copy_step(sc, n, n->op == OP_PATCHIFY_ROWS ? K_PATCHIFY_ROWS : K_PACK_ROWS, &s, r.rows,
              row_block(r.rows, 1, 1, r.n * 8, sc->t->l2 / 4), r.n, r.n);
}

static void schedule_unpack_rows(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first), cells = graph_type(sc->g, n->args[1]);
    SpecAttrs s = {0};
    spec_set(&s, A_h, t.d[1].c);
    spec_set(&s, A_w, t.d[2].c);
    spec_set(&s, A_c, t.d[3].c);
    spec_set(&s, A_block, node_int(n, A_block));
    spec_set(&s, A_count, cells.d[1].c);
    copy_step(sc, n, K_UNPACK_ROWS, &s, 1, 1, t.d[3].c, col_block(t.d[3].c, target_lanes(sc->t)));
}

// Side of the sub-blocks of a rulebook for rows x.
static int64_t sub_block_side(Type x, Type rules) { return x.d[1].c == rules.d[1].c ? 1 : 2; }

static void schedule_packed(Sched *sc, const Node *n) {
    Type x = graph_type(sc->g, n->args[0]), w = graph_type(sc->g, n->args[2]);
    Rows r = rows_of(x);
    int64_t side = sub_block_side(x, graph_type(sc->g, n->args[1])), area = side * side;
    int taps = taps_buffer(sc, n->args[2], n);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->args[1]);
    operand_add(&o, taps);
    operand_add(&o, -1); // out: below
    spec_set(&s, A_n, r.n);
    spec_set_pair(sc, &s, A_kernel, w.d[2].c, w.d[3].c);
    spec_set(&s, A_block, side);
    spec_set(&s, A_tile, packed_vectors(sc->t, side, false));
    if (n->op == OP_DWCONV2D_PACKED_DX) spec_set(&s, A_turned, 1);
    if (n->nargs > 3) {
        spec_word(&s, EPI_BIAS);
        operand_value(sc, &o, n->args[3]);
    }
    int64_t block = row_block(r.rows, area, area, r.n * 8, sc->t->l2 / 2);
    Follow f;
    Value result = follow_begin(sc, n, n->first, r, block, &s, &o, &f);
    o.v[3].buffer = buffer_of(sc, result);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, block, r.n, r.n);
    call_new(sc, st, K_DWCONV_PACKED, &s, &o, n, node_macs(sc->g, n));
    follow_end(sc, &f);
}

static void schedule_packed_dw(Sched *sc, const Node *n) {
    Type x = graph_type(sc->g, n->args[1]), w = graph_type(sc->g, n->first);
    Rows r = rows_of(x);
    int64_t side = sub_block_side(x, graph_type(sc->g, n->args[2]));
    int64_t taps = w.d[2].c * w.d[3].c;
    int partial = partials_new(sc, n, taps, r.n, r.batch);
    Operands o = {0};
    SpecAttrs s = {0};
    for (int i = 0; i < 3; i++) operand_value(sc, &o, n->args[i]);
    operand_add(&o, partial);
    spec_set(&s, A_n, r.n);
    spec_set_pair(sc, &s, A_kernel, w.d[2].c, w.d[3].c);
    spec_set(&s, A_block, side);
    spec_set(&s, A_mr, PACKED_BLOCK);
    spec_set(&s, A_tile, packed_vectors(sc->t, side, true));
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, r.rows, r.n, r.n);
    call_new(sc, st, K_DWCONV_PACKED_DW, &s, &o, n, node_macs(sc->g, n));
    sum_taps(sc, n, partial, taps, r.n, r.batch);
}

bool schedule_depthwise(Sched *sc, const Node *n) {
    switch (n->op) {
    case OP_DWCONV2D_DX: schedule_dwconv_dx(sc, n); return true;
    case OP_DWCONV2D_DW: schedule_dwconv_dw(sc, n); return true;
    case OP_CELLS: schedule_cells(sc, n); return true;
    case OP_RULEBOOK: schedule_rulebook(sc, n); return true;
    case OP_PACK_ROWS:
    case OP_PATCHIFY_ROWS: schedule_pack_rows(sc, n); return true;
    case OP_UNPACK_ROWS: schedule_unpack_rows(sc, n); return true;
    case OP_DWCONV2D_PACKED:
    case OP_DWCONV2D_PACKED_DX: schedule_packed(sc, n); return true;
    case OP_DWCONV2D_PACKED_DW: schedule_packed_dw(sc, n); return true;
    default: return false;
    }
}
