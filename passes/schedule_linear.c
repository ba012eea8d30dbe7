// Steps of linear and depthwise groups.
//
// linear: A rows come from a buffer, or from a prologue: rows gathered (patchify), scaled (GRN), or
// handed over hot by a depthwise group, into scratch, row block by row block. Few rows per image
// split over columns instead, their prologue in a step before; so do somewhat more where a network
// only runs and the weight does not stay in L2: all rows then take the time that it takes to read
// it from memory, not those of the first row block, and each thread reads its part only. GRN's
// scale goes to the weight panels where rows outnumber the output columns by three and more, to the
// rows of A elsewhere.
#include "sched.h"

enum { SOME_ROWS = 256, PANELS_RATIO = 3, DEFER_ROWS = 128 };

Value body_operand(const Node *n, Value body_value) {
    for (int i = 0; i < n->body->inputs.n; i++)
        if (n->body->inputs.v[i] == body_value) return n->args[i];
    return NO_VALUE;
}

static const Node *body_node(const Node *n, int index) { return &n->body->nodes.v[index]; }

static bool has_prologue(const GroupForm *f) {
    return f->nprologue || f->widen >= 0 || f->narrow >= 0;
}

// A linear over rows per image of `a` splits over columns.
static bool splits_columns(const Sched *sc, int64_t rows, int64_t n, Type a) {
    if (rows <= FEW_ROWS) return true;
    int64_t k = type_last(a) * dtype_bytes(a.dt) / 4;
    return !sc->trains && rows <= SOME_ROWS && gemm_tile(sc->t, a.dt, rows, n, k, false).order;
}

// ---- epilogues ---------------------------------------------------------------------------------
Stat *stat_new(Sched *sc, const Node *like, const Node *op, Value stat, Rows r, int64_t block) {
    int64_t aggregate = node_int(op, A_aggregate), n = r.n;
    Stat st = {.stat = stat,
               .rows = r.rows,
               .row_block = block,
               .blocks = (r.rows + block - 1) / block,
               .batch = r.batch,
               .aggregate = aggregate,
               .statistics = node_int(op, A_statistics)};
    bool std = aggregate == AGG_STD;
    Dim d[] = {dim_b(1), dim_c(st.blocks), dim_c(std ? 2 * n : n)};
    Type t = r.batch ? type_make(DT_F32, 3, d) : type_make(DT_F32, 2, d + 1);
    const char *name = arena_printf(sc->a, "%s.partial", like->label ? like->label : "grn_stat");
    st.partial = buffer_new(sc, name, r.batch ? REGION_IMAGE : REGION_FIXED, t);
    vec_push(sc->a, &sc->stats, st);
    return &sc->stats.v[sc->stats.n - 1];
}

// The result of group n that is the body's value v; NO_VALUE when none is.
static Value group_result(const Node *n, Value v) {
    for (int i = 0; i < n->body->outputs.n; i++)
        if (n->body->outputs.v[i].value == v) return n->first + (Value)i;
    return NO_VALUE;
}

static void epilogue_stat(Sched *sc, const Node *n, const Node *op, int64_t block, SpecAttrs *s,
                          Operands *o) {
    Value result = group_result(n, op->first);
    if (result == NO_VALUE) return;
    Rows r = rows_of(graph_type(n->body, op->args[0]));
    const Stat *st = stat_new(sc, n, op, result, r, block);
    spec_word(s, (Epilogue)(EPI_STAT_L2 + node_int(op, A_aggregate)));
    operand_blocks(o, st->partial, r.n * 4);
}

// What the body's op gave, where it is a result of the group besides the last.
static void epilogue_store(Sched *sc, const Node *n, const GroupForm *f, const Node *op,
                           SpecAttrs *s, Operands *o) {
    Value result = op->first == f->result ? NO_VALUE : group_result(n, op->first);
    if (result == NO_VALUE || op->op == OP_GRN_STAT) return;
    spec_word(s, EPI_STORE);
    operand_value(sc, o, result);
}

void epilogue_words(Sched *sc, const Node *n, const GroupForm *f, int64_t block, SpecAttrs *s,
                    Operands *o) {
    epilogue_store(sc, n, f, body_node(n, f->anchor), s, o);
    for (int i = 0; i < f->nepilogue; i++) {
        const Node *op = body_node(n, f->epilogue[i]);
        Value other = op->nargs > 1 ? body_operand(n, op->args[1]) : NO_VALUE;
        if (other == NO_VALUE && op->nargs > 1) other = body_operand(n, op->args[0]);
        bool vector =
            op->nargs > 1 && !type_eq(graph_type(sc->g, other), graph_type(n->body, op->first));
        switch (op->op) {
        case OP_GELU: spec_word(s, node_int(op, A_approx) ? EPI_GELU_TANH : EPI_GELU); break;
        case OP_GRN_STAT: epilogue_stat(sc, n, op, block, s, o); break;
        case OP_SCALE: spec_word(s, EPI_SCALE); break;
        case OP_MUL: spec_word(s, EPI_MUL); break;
        case OP_ADD: spec_word(s, vector ? EPI_BIAS : EPI_ADD); break;
        default: ice(op->loc, "%s in an epilogue", op_info[op->op].name);
        }
        if (op->nargs > 1) operand_value(sc, o, other);
        epilogue_store(sc, n, f, op, s, o);
    }
}

static bool needs_images(const Node *n, const GroupForm *f) {
    for (int i = 0; i < f->nprologue; i++) {
        const Node *op = body_node(n, f->prologue[i]);
        if (op->op == OP_PATCHIFY) return true;
        if (op->op == OP_SCALE && type_has_batch(graph_type(n->body, op->args[1]))) return true;
    }
    for (int i = 0; i < f->nepilogue; i++) {
        const Node *op = body_node(n, f->epilogue[i]);
        if (op->op == OP_GRN_STAT) return true;
        if (op->op == OP_SCALE && type_has_batch(graph_type(n->body, op->args[1]))) return true;
    }
    return false;
}

// ---- depthwise ---------------------------------------------------------------------------------
typedef struct {
    const Node *n, *anchor;
    GroupForm f;
    Type x, y; // images
    int64_t quantum;
} Dw;

static const char *dw_name(const Dw *d) { return d->n->label ? d->n->label : "dwconv"; }

static Dw dw_of(const Node *n) {
    Dw d = {.n = n};
    group_form(n->body, &d.f);
    d.anchor = body_node(n, d.f.anchor);
    d.x = graph_type(n->body, d.anchor->args[0]);
    d.y = graph_type(n->body, d.anchor->first);
    d.quantum = d.y.d[2].c;
    return d;
}

int taps_buffer(Sched *sc, Value w, const Node *like) {
    const Node *def = graph_def(sc->g, w);
    Type t = graph_type(sc->g, w);
    int64_t taps = t.d[2].c * t.d[3].c, c = t.d[0].c;
    Type tt = type_make(DT_F32, 2, (Dim[]){dim_c(taps), dim_c(c)});
    if (def->op == OP_PARAM && sc->prepare) {
        const char *name = prepare_taps(sc->prepare, sc->g, def);
        return weight_buffer(sc, name, tt);
    }
    int b = buffer_new(sc, "taps", REGION_FIXED, tt);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, w);
    operand_add(&o, b);
    spec_set_shape(sc, &s, (Dim[]){dim_c(c), dim_c(taps)}, (int64_t[]){1, 0}, 2);
    call_new(sc, step_new(sc, like, OVER_ONCE, 1, 1, 1, 1), K_PERMUTE, &s, &o, like, 0);
    return b;
}

// The tail of group n: rows[0] to rows[1].
static void norm_call(Sched *sc, Step *st, const Node *n, const GroupForm *f, int64_t channels,
                      const Operand *rows) {
    const Node *op = body_node(n, f->tail);
    Operands o = {0};
    SpecAttrs s = {0};
    o.v[o.n++] = rows[0];
    o.v[o.n++] = rows[1];
    if (f->store >= 0) spec_to(sc, &s, n, body_node(n, f->store));
    spec_set(&s, A_n, channels);
    spec_set_f64(&s, A_eps, node_f64(op, A_eps));
    if (op->op == OP_LAYERNORM) {
        spec_set(&s, A_affine, 1);
        operand_value(sc, &o, body_operand(n, op->args[1]));
        operand_value(sc, &o, body_operand(n, op->args[2]));
    }
    call_new(sc, st, K_NORM, &s, &o, n, 0);
}

// Rows as scratch of one row block.
static Operand scratch_rows(Sched *sc, const char *name, DType dt, int64_t rows, int64_t n) {
    return (Operand){.buffer = scratch_new(sc, name, dt, rows, n),
                     .row_bytes = n * dtype_bytes(dt)};
}

// The calls of a depthwise group, writing to `out`; weights were made before the step. The tail
// works in place, or from scratch where it writes narrow numbers.
static void dw_calls(Sched *sc, Step *st, const Dw *d, int taps, Operand result) {
    Operand out = result;
    if (d->f.store >= 0)
        out = scratch_rows(sc, arena_printf(sc->a, "%s.rows", dw_name(d)), DT_F32, st->row_block,
                           d->y.d[3].c);
    Operands o = {0};
    SpecAttrs s = {0};
    const Node *a = d->anchor;
    Type w = graph_type(d->n->body, a->args[1]);
    operand_value(sc, &o, body_operand(d->n, a->args[0]));
    operand_add(&o, taps);
    o.v[o.n++] = out;
    spec_set(&s, A_h, d->x.d[1].c);
    spec_set(&s, A_w, d->x.d[2].c);
    spec_set(&s, A_c, d->x.d[3].c);
    spec_set_pair(sc, &s, A_kernel, w.d[2].c, w.d[3].c);
    spec_set_pair(sc, &s, A_stride, node_ints(a, A_stride, 0), node_ints(a, A_stride, 1));
    spec_set_pair(sc, &s, A_pad, node_ints(a, A_pad, 0), node_ints(a, A_pad, 1));
    spec_set(&s, A_tile, dwconv_tile(sc->t, d->y.d[2].c, w.d[3].c));
    if (a->nargs > 2) {
        spec_word(&s, EPI_BIAS);
        operand_value(sc, &o, body_operand(d->n, a->args[2]));
    }
    call_new(sc, st, K_DWCONV, &s, &o, d->n, node_macs(d->n->body, a));
    if (d->f.tail >= 0) norm_call(sc, st, d->n, &d->f, d->y.d[3].c, (Operand[]){out, result});
}

void schedule_dwconv(Sched *sc, const Node *n) {
    Dw d = dw_of(n);
    int taps = taps_buffer(sc, body_operand(n, d.anchor->args[1]), n);
    Rows r = rows_of(d.y);
    int64_t block = row_block(r.rows, d.quantum, d.quantum, r.n * 4, sc->t->l2 / 4);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, block, r.n, r.n);
    dw_calls(sc, st, &d, taps, (Operand){.buffer = buffer_of(sc, n->first)});
}

// The anchor's first operand is read by nothing else in the body.
static bool anchor_alone(const Graph *body, const Node *anchor) {
    return graph_use_counts(body)[anchor->args[0]] == 1;
}

bool dwconv_defers(const Sched *sc, const Node *n) {
    Dw d = dw_of(n);
    Rows r = rows_of(d.y);
    if (!r.batch || d.y.d[0].c != 1 || r.rows < DEFER_ROWS || sc->uses[n->first] != 1) return false;
    for (int i = 0; i < sc->g->nodes.n; i++) {
        const Node *u = &sc->g->nodes.v[i];
        for (int k = 0; k < u->nargs; k++) {
            if (u->args[k] != n->first) continue;
            GroupForm f;
            if (u->op != OP_GROUP || !group_form(u->body, &f) || has_prologue(&f)) return false;
            const Node *a = body_node(u, f.anchor);
            return a->op == OP_LINEAR && a->args[0] == u->body->inputs.v[k] &&
                   anchor_alone(u->body, a) &&
                   !splits_columns(sc, r.rows, type_last(graph_type(u->body, a->first)),
                                   graph_type(u->body, a->args[0]));
        }
    }
    return false;
}

// ---- linear ------------------------------------------------------------------------------------
typedef struct {
    const Node *n, *anchor;
    GroupForm f;
    Rows r;                 // of the result
    int64_t k;              // depth
    DType from;             // of A
    int64_t a_row, out_row; // bytes of a row of A and of the result
    Value x, w, result;
    GemmTile tile;
    Over over;
    bool columns;  // split over columns
    int64_t block; // rows of a unit when it is not
    int b;         // panels
} Lin;

// Row blocks and the tile depend on each other: blocks are multiples of a first tile's rows (or of
// the depthwise group's), the final tile is the best one for the rows of a block.
static void choose_tile(Sched *sc, Lin *l) {
    bool gelu = false;
    for (int i = 0; i < l->f.nepilogue; i++)
        gelu |= body_node(l->n, l->f.epilogue[i])->op == OP_GELU;
    int64_t rows = l->r.rows == 1 ? 8 : l->r.rows, quantum = 1;
    if (sc->deferred[l->x] >= 0) quantum = dw_of(&sc->g->nodes.v[sc->deferred[l->x]]).quantum;
    l->tile = gemm_tile(sc->t, l->from, rows, l->r.n, l->a_row / 4, gelu);
    l->block = l->r.rows;
    if (l->columns) return;
    if (quantum == 1 && l->tile.mr < rows) quantum = l->tile.mr;
    bool shares = sc->trains && sc->deferred[l->x] < 0 && !has_prologue(&l->f) && l->f.tail < 0;
    l->block = shares ? shared_block(sc, rows, l->k > l->r.n ? l->k : l->r.n)
                      : row_block(rows, quantum, l->tile.mr, l->a_row + l->out_row, sc->t->l2 / 2);
    l->tile = gemm_tile(sc->t, l->from, l->block, l->r.n, l->a_row / 4, gelu);
}

static Lin lin_of(Sched *sc, const Node *n) {
    Lin l = {.n = n};
    group_form(n->body, &l.f);
    l.anchor = body_node(n, l.f.anchor);
    l.r = rows_of(graph_type(n->body, l.f.result));
    Type a = graph_type(n->body, l.anchor->args[0]);
    l.k = type_last(a);
    l.from = a.dt;
    l.a_row = l.k * dtype_bytes(a.dt);
    l.out_row = l.r.n * dtype_bytes(graph_type(n->body, l.f.result).dt);
    const Node *first = l.f.widen >= 0    ? body_node(n, l.f.widen)
                        : l.f.nprologue   ? body_node(n, l.f.prologue[0])
                        : l.f.narrow >= 0 ? body_node(n, l.f.narrow)
                                          : l.anchor;
    l.x = body_operand(n, first->args[0]);
    l.w = body_operand(n, l.anchor->args[1]);
    l.result = group_result(n, l.f.result);
    l.over = !l.r.batch                                ? OVER_ONCE
             : l.r.rows == 1 && !needs_images(n, &l.f) ? OVER_FLAT
                                                       : OVER_IMAGE;
    l.columns = splits_columns(sc, l.r.rows, l.r.n, a) && l.f.tail < 0;
    choose_tile(sc, &l);
    return l;
}

// Panels of W: made by prepare, or packed in a step of their own.
static int panels_buffer(Sched *sc, const Lin *l) {
    const Node *def = graph_def(sc->g, l->w);
    DType dt = graph_type(sc->g, l->w).dt;
    int64_t nr = l->tile.nr, panels = (l->r.n + nr - 1) / nr, group = 4 / dtype_bytes(dt);
    Type t = type_make(dt, 3, (Dim[]){dim_c(panels), dim_c(l->k / group), dim_c(nr * group)});
    if (def->op == OP_PARAM && sc->prepare) {
        const char *name = prepare_panels(sc->prepare, sc->g, def, nr);
        return weight_buffer(sc, name, t);
    }
    int b = buffer_new(sc, "panels", REGION_FIXED, t);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, l->w);
    operand_add(&o, b);
    spec_set(&s, A_n, l->r.n);
    spec_set(&s, A_k, l->k / group);
    spec_set(&s, A_nr, nr);
    Step *st = step_new(sc, l->n, OVER_ONCE, l->r.n, nr, 1, 1);
    call_new(sc, st, K_PACK, &s, &o, l->n, 0);
    return b;
}

// Panels scaled by the channels of s: per image, or once for all.
static void scale_panels(Sched *sc, Lin *l, Value scale) {
    bool per_image = type_has_batch(graph_type(sc->g, scale));
    int64_t nr = l->tile.nr, panels = (l->r.n + nr - 1) / nr;
    Dim d[] = {dim_b(1), dim_c(panels), dim_c(l->k), dim_c(nr)};
    Type t = per_image ? type_make(DT_F32, 4, d) : type_make(DT_F32, 3, d + 1);
    int out = buffer_new(sc, arena_printf(sc->a, "%s.panels", l->n->label ? l->n->label : "linear"),
                         per_image ? REGION_IMAGE : REGION_FIXED, t);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, l->b);
    operand_value(sc, &o, scale);
    operand_add(&o, out);
    spec_set(&s, A_n, l->r.n);
    spec_set(&s, A_k, l->k);
    spec_set(&s, A_nr, nr);
    Step *st =
        step_new(sc, l->n, per_image ? OVER_IMAGE : OVER_ONCE, 1, 1, l->r.n, col_block(l->r.n, nr));
    call_new(sc, st, K_SCALE_PANELS, &s, &o, l->n, 0);
    l->b = out;
}

// The prologue's call: rows of A into `out`.
static void prologue_call(Sched *sc, Step *st, const Lin *l, Operand out) {
    Operands o = {0};
    SpecAttrs s = {0};
    const Node *first = l->f.nprologue ? body_node(l->n, l->f.prologue[0]) : NULL;
    operand_value(sc, &o, l->x);
    o.v[o.n++] = out;
    spec_from(&s, graph_type(sc->g, l->x).dt);
    if (l->f.narrow >= 0) spec_to(sc, &s, l->n, body_node(l->n, l->f.narrow));
    if (!first || first->op == OP_SCALE) {
        spec_set(&s, A_n, l->k);
        if (first) {
            spec_word(&s, EPI_SCALE);
            operand_value(sc, &o, body_operand(l->n, first->args[1]));
        }
        call_new(sc, st, K_ELTWISE, &s, &o, l->n, 0);
        return;
    }
    const Node *last = body_node(l->n, l->f.prologue[l->f.nprologue - 1]);
    if (last->op == OP_NORMALIZE) {
        spec_set(&s, A_n, l->k);
        spec_set_f64(&s, A_eps, node_f64(last, A_eps));
        call_new(sc, st, K_NORM, &s, &o, l->n, 0);
        return;
    }
    gather_spec(sc, &s, last, graph_type(sc->g, l->x));
    if (first->op == OP_NORMALIZE) {
        spec_set(&s, A_normalized, 1);
        spec_set_f64(&s, A_eps, node_f64(first, A_eps));
    }
    call_new(sc, st, K_GATHER, &s, &o, l->n, 0);
}

// Writes what the value ends in that follows in the epilogue.
static Follow gemm_call(Sched *sc, Step *st, const Lin *l, Operand a) {
    Operands o = {0};
    SpecAttrs s = {0};
    o.v[o.n++] = a;
    operand_add(&o, l->b);
    operand_add(&o, -1); // out: below
    spec_set(&s, A_n, l->r.n);
    spec_set(&s, A_k, l->k);
    spec_set(&s, A_mr, l->tile.mr);
    spec_set(&s, A_nr, l->tile.nr);
    spec_set(&s, A_ku, l->tile.ku);
    if (l->tile.tiles) spec_set(&s, A_tiles, 1);
    if (l->tile.order) spec_set(&s, A_order, 1);
    spec_from(&s, l->from);
    if (l->f.store >= 0) spec_to(sc, &s, l->n, body_node(l->n, l->f.store));
    if (l->anchor->nargs > 2) {
        spec_word(&s, EPI_BIAS);
        operand_value(sc, &o, body_operand(l->n, l->anchor->args[2]));
    }
    epilogue_words(sc, l->n, &l->f, st->row_block, &s, &o);
    Follow f = {0};
    Value v = l->result;
    if (l->f.tail < 0 && l->f.store < 0 && l->over != OVER_FLAT)
        v = follow_begin(sc, l->n, v, l->r, st->row_block, &s, &o, &f);
    o.v[2].buffer = buffer_of(sc, v);
    call_new(sc, st, K_GEMM, &s, &o, l->n, node_macs(l->n->body, l->anchor));
    return f;
}

// Columns of a unit: its panels stay in L2 while every image passes (driver.c, order n).
// Whole vectors: the sums of columns are cleared by them.
static int64_t unit_columns(const Sched *sc, const Lin *l) {
    int64_t nr = l->tile.nr, step = nr % target_lanes(sc->t) ? 2 * nr : nr;
    int64_t cols = col_block(l->r.n, step), panel = step * l->k * 4, most = sc->t->l2 / 2;
    if (!l->tile.order || cols / step * panel <= most) return cols;
    return step * row_block((l->r.n + step - 1) / step, 1, 1, panel, most);
}

// The prologue of a linear whose units are blocks of columns: rows of A in memory. A scale works on
// columns, too, as what comes before it did, and where nothing else reads x in its place.
static Operand prologue_step(Sched *sc, const Lin *l) {
    bool scales = l->f.nprologue && body_node(l->n, l->f.prologue[0])->op == OP_SCALE;
    Operand a = {.buffer = buffer_of(sc, l->x)};
    const Buffer *x = &sc->s->buffers.v[a.buffer];
    bool own = x->region == REGION_IMAGE && sc->uses[l->x] == 1 && sc->root[l->x] == l->x;
    if (!scales || !own || x->type.dt != l->from) {
        Dim d[] = {dim_b(1), dim_c(l->r.rows), dim_c(l->k)};
        Type t = l->r.batch ? type_make(l->from, 3, d) : type_make(l->from, 2, d + 1);
        a.buffer = buffer_new(sc, arena_printf(sc->a, "%s.rows", l->n->label ? l->n->label : ""),
                              l->r.batch ? REGION_IMAGE : REGION_FIXED, t);
    }
    int64_t rows = l->r.rows, block = row_block(rows, 1, 1, l->a_row * 2, sc->t->l2 / 8);
    Step *st = step_new(sc, l->n, l->over, rows, scales ? rows : block, l->k,
                        scales ? col_block(l->k, target_lanes(sc->t)) : l->k);
    prologue_call(sc, st, l, a);
    return a;
}

// A step whose unit is a block of columns; the prologue is a step of its own before it.
static void schedule_columns(Sched *sc, Lin *l) {
    Operand a = {0};
    if (has_prologue(&l->f))
        a = prologue_step(sc, l);
    else
        a.buffer = buffer_of(sc, l->x);
    int64_t rows = l->over == OVER_FLAT ? 8 * l->tile.mr : l->r.rows;
    Step *st = step_new(sc, l->n, l->over, l->r.rows, rows, l->r.n, unit_columns(sc, l));
    Follow follow = gemm_call(sc, st, l, a);
    follow_end(sc, &follow);
}

// A step whose unit is a block of rows of A: made in scratch by `dw` or by the prologue, or there.
static void schedule_rows(Sched *sc, Lin *l, const Dw *dw) {
    int taps = dw ? taps_buffer(sc, body_operand(dw->n, dw->anchor->args[1]), dw->n) : -1;
    int64_t block = l->block;
    Step *st = step_new(sc, l->n, l->over, l->r.rows, block, l->r.n, l->r.n);
    Operand a = {0};
    if (dw) {
        a = scratch_rows(sc, dw_name(dw), l->from, block, l->k);
        dw_calls(sc, st, dw, taps, a);
    } else if (has_prologue(&l->f)) {
        a = scratch_rows(sc, arena_printf(sc->a, "%s.rows", l->n->label ? l->n->label : ""),
                         l->from, block, l->k);
        prologue_call(sc, st, l, a);
    } else {
        a.buffer = buffer_of(sc, l->x);
    }
    Follow follow = gemm_call(sc, st, l, a);
    Operand out = {.buffer = l->f.tail < 0 ? -1 : buffer_of(sc, l->result)};
    if (l->f.tail >= 0) norm_call(sc, st, l->n, &l->f, l->r.n, (Operand[]){out, out});
    follow_end(sc, &follow);
}

void schedule_linear(Sched *sc, const Node *n) {
    Lin l = lin_of(sc, n);
    int deferred = sc->deferred[l.x];
    l.b = panels_buffer(sc, &l);
    if (l.from == DT_F32 && l.f.nprologue == 1 && body_node(n, l.f.prologue[0])->op == OP_SCALE &&
        l.r.rows > PANELS_RATIO * l.r.n) {
        scale_panels(sc, &l, body_operand(n, body_node(n, l.f.prologue[0])->args[1]));
        l.f.nprologue = 0;
    }
    if (deferred >= 0) {
        Dw d = dw_of(&sc->g->nodes.v[deferred]);
        schedule_rows(sc, &l, &d);
    } else if (l.columns) {
        schedule_columns(sc, &l);
    } else {
        schedule_rows(sc, &l, NULL);
    }
    for (int i = 0; i < l.f.nepilogue; i++) {
        const Node *op = body_node(n, l.f.epilogue[i]);
        if (op->op == OP_GRN_STAT && group_result(n, op->first) != NO_VALUE)
            materialise_stat(sc, n, group_result(n, op->first));
    }
}
