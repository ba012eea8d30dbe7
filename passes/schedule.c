// Groups and single ops become steps: kernel calls on row blocks of buffers.
//
// Before: programs are lowered and hoisted. After: one Schedule per program, prepare last; buffers
// have no offsets yet. A group whose body has the form of group.h is one step (a prologue, when it
// does not pay inside, is a step before); any other body is taken apart and scheduled op by op.
// Results live in the caller's output where they are one; views share their operand's buffer.
#include "sched.h"

// ---- buffers and operands ----------------------------------------------------------------------
Rows rows_of(Type t) {
    Rows r = {.rows = 1, .n = 1, .batch = type_has_batch(t)};
    if (t.rank) r.n = t.d[t.rank - 1].c;
    for (int i = 0; i + 1 < t.rank; i++) r.rows *= t.d[i].c;
    return r;
}

static Value root_of(const Sched *sc, Value v) { return sc->root[v]; }

int buffer_new(Sched *sc, const char *name, Region region, Type t) {
    int64_t fixed, per_image;
    type_elems(t, &fixed, &per_image);
    Buffer b = {.name = name,
                .region = region,
                .type = t,
                .bytes = (fixed + per_image) * dtype_bytes(t.dt),
                .offset = -1,
                .first = -1,
                .last = -1};
    vec_push(sc->a, &sc->s->buffers, b);
    return sc->s->buffers.n - 1;
}

int weight_buffer(Sched *sc, const char *name, Type t) {
    for (int i = 0; i < sc->s->buffers.n; i++)
        if (sc->s->buffers.v[i].region == REGION_WEIGHT &&
            strcmp(sc->s->buffers.v[i].name, name) == 0)
            return i;
    return buffer_new(sc, name, REGION_WEIGHT, t);
}

int scratch_new(Sched *sc, const char *name, DType dt, int64_t rows, int64_t n) {
    return buffer_new(sc, name, REGION_SCRATCH, type_make(dt, 2, (Dim[]){dim_c(rows), dim_c(n)}));
}

// The state of a training run that a port of this name is, -1: a port of the caller.
static int port_state(const Sched *sc, const char *name) {
    const char *param;
    return sc->prepare && name ? state_of_name(name, &param) : -1;
}

static int state_buffer(Sched *sc, const char *name, Type t) {
    for (int i = 0; i < sc->s->buffers.n; i++)
        if (sc->s->buffers.v[i].region == REGION_STATE &&
            strcmp(sc->s->buffers.v[i].name, name) == 0)
            return i;
    int b = buffer_new(sc, name, REGION_STATE, t);
    sc->s->buffers.v[b].port = port_state(sc, name);
    return b;
}

// Numbers of ports count those that are no state.
static int input_port(const Sched *sc, Value v) {
    int port = 0;
    for (int i = 0; i < sc->g->inputs.n && sc->g->inputs.v[i] != v; i++)
        port += port_state(sc, node_str(graph_def(sc->g, sc->g->inputs.v[i]), A_name)) < 0;
    return port;
}

static int output_port(const Sched *sc, int i) {
    int port = 0;
    for (int k = 0; k < i; k++) port += port_state(sc, sc->g->outputs.v[k].name) < 0;
    return port;
}

static int port_buffer(Sched *sc, int i) {
    const Port *port = &sc->g->outputs.v[i];
    Type t = graph_type(sc->g, port->value);
    if (!sc->prepare) return buffer_new(sc, port->name, REGION_WEIGHT, t);
    if (port_state(sc, port->name) >= 0) return state_buffer(sc, port->name, t);
    int b = buffer_new(sc, port->name, REGION_OUTPUT, t);
    sc->s->buffers.v[b].port = output_port(sc, i);
    return b;
}

static int leaf_buffer(Sched *sc, const Node *n) {
    Type t = graph_type(sc->g, n->first);
    if (n->op == OP_INPUT) {
        const char *name = node_str(n, A_name) ? node_str(n, A_name) : "input";
        if (port_state(sc, name) >= 0) return state_buffer(sc, name, t);
        int b = buffer_new(sc, name, REGION_INPUT, t);
        sc->s->buffers.v[b].port = input_port(sc, n->first);
        return b;
    }
    if (!sc->prepare) return buffer_new(sc, node_str(n, A_name), REGION_PARAM, t);
    return weight_buffer(sc, prepare_plain(sc->prepare, sc->g, n), t);
}

static bool is_plain_leaf(const Sched *sc, const Node *n) {
    return n->op == OP_INPUT || n->op == OP_PARAM ||
           (n->op == OP_CONSTANT && sc->prepare && !type_has_batch(graph_type(sc->g, n->first)));
}

int buffer_of(Sched *sc, Value v) {
    Value r = root_of(sc, v);
    if (sc->buffer[r] >= 0) return sc->buffer[r];
    const Node *n = graph_def(sc->g, r);
    int b = -1;
    if (is_plain_leaf(sc, n)) b = leaf_buffer(sc, n);
    for (int i = 0; b < 0 && i < sc->g->outputs.n; i++)
        if (root_of(sc, sc->g->outputs.v[i].value) == r &&
            port_state(sc, sc->g->outputs.v[i].name) != STATE_GRAD)
            b = port_buffer(sc, i);
    if (b < 0) {
        Type t = graph_type(sc->g, r);
        const char *name = n->label ? n->label : op_info[n->op].name;
        b = buffer_new(sc, name, type_has_batch(t) ? REGION_IMAGE : REGION_FIXED, t);
    }
    return sc->buffer[r] = b;
}

// The output that is a gradient and the only reader of r and its views; -1: none.
static int gradient_output(const Sched *sc, Value r) {
    int readers = 0, found = -1;
    for (int i = 0; i < sc->g->nodes.n; i++) {
        const Node *n = &sc->g->nodes.v[i];
        for (int k = 0; k < n->nargs && n->op != OP_RESHAPE; k++)
            readers += root_of(sc, n->args[k]) == r;
    }
    for (int i = 0; i < sc->g->outputs.n; i++) {
        if (root_of(sc, sc->g->outputs.v[i].value) != r) continue;
        readers++;
        if (port_state(sc, sc->g->outputs.v[i].name) == STATE_GRAD) found = i;
    }
    return readers == 1 ? found : -1;
}

int reduce_out(Sched *sc, Value v, SpecAttrs *attrs) {
    Value r = root_of(sc, v);
    int output = sc->buffer[r] < 0 ? gradient_output(sc, r) : -1;
    if (output < 0) return buffer_of(sc, v);
    if (attrs) spec_set(attrs, A_accumulate, 1);
    return sc->buffer[r] = port_buffer(sc, output);
}

int partials_new(Sched *sc, const Node *like, int64_t blocks, int64_t n, bool batch) {
    Dim d[] = {dim_b(1), dim_c(blocks), dim_c(n)};
    Type t = batch ? type_make(DT_F32, 3, d) : type_make(DT_F32, 2, d + 1);
    const char *name =
        arena_printf(sc->a, "%s.partial", like->label ? like->label : op_info[like->op].name);
    return buffer_new(sc, name, batch ? REGION_IMAGE : REGION_FIXED, t);
}

void reduce_partials(Sched *sc, const Node *like, int partial, int64_t blocks, int64_t n,
                     bool batch, Value out) {
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, partial);
    operand_add(&o, reduce_out(sc, out, &s));
    spec_set(&s, A_n, n);
    Step *st = step_new(sc, like, batch ? OVER_FLAT : OVER_ONCE, blocks, INT64_C(1) << 40, n,
                        col_block(n, target_lanes(sc->t)));
    call_new(sc, st, K_SUM, &s, &o, like, 0);
}

void operand_add(Operands *o, int buffer) { o->v[o->n++] = (Operand){.buffer = buffer}; }

void operand_value(Sched *sc, Operands *o, Value v) { operand_add(o, buffer_of(sc, v)); }

void operand_blocks(Operands *o, int buffer, int64_t block_bytes) {
    o->v[o->n++] = (Operand){.buffer = buffer, .block_bytes = block_bytes};
}

// ---- specs, steps, calls -----------------------------------------------------------------------
static void spec_put(SpecAttrs *s, Attr a) {
    int i = s->n++;
    for (; i > 0 && s->v[i - 1].id > a.id; i--) s->v[i] = s->v[i - 1];
    s->v[i] = a;
}

void spec_set(SpecAttrs *s, AttrId id, int64_t i) { spec_put(s, attr_int(id, i)); }
void spec_set_f64(SpecAttrs *s, AttrId id, double f) { spec_put(s, attr_f64(id, f)); }
void spec_set_pair(Sched *sc, SpecAttrs *s, AttrId id, int64_t x, int64_t y) {
    spec_put(s, attr_ints2(sc->a, id, x, y));
}
void spec_from(SpecAttrs *s, DType dt) {
    if (dt != DT_F32) spec_set(s, A_from, dtype_word(dt));
}

void spec_to(Sched *sc, SpecAttrs *s, const Node *n, const Node *cast) {
    if (cast->op == OP_QUANTIZE) {
        spec_set(s, A_dtype, dtype_word(DT_U8));
        s->quantizes = true;
        s->grid = buffer_of(sc, n == cast ? n->args[1] : body_operand(n, cast->args[1]));
    } else if (node_int(cast, A_dtype)) {
        spec_set(s, A_dtype, node_int(cast, A_dtype));
    }
}

void spec_word(SpecAttrs *s, Epilogue word) { s->epilogue[s->nepilogue++] = word; }

void spec_set_shape(Sched *sc, SpecAttrs *s, const Dim *shape, const int64_t *perm, int rank) {
    spec_put(s, attr_dims(sc->a, A_shape, shape, rank));
    spec_put(s, attr_ints(sc->a, A_perm, perm, rank));
}

void spec_set_value(Sched *sc, SpecAttrs *s, double x) {
    double *v = NEW(sc->a, double);
    *v = x;
    spec_put(s, (Attr){.id = A_value, .data = {v, 1}});
}

Step *step_new(Sched *sc, const Node *like, Over over, int64_t rows, int64_t block, int64_t cols,
               int64_t col_block) {
    Step st = {.name = like->label ? like->label : op_info[like->op].name,
               .over = over,
               .rows = rows,
               .row_block = block,
               .cols = cols,
               .col_block = col_block};
    vec_push(sc->a, &sc->s->steps, st);
    return &sc->s->steps.v[sc->s->steps.n - 1];
}

void call_new(Sched *sc, Step *st, KernelKind kind, SpecAttrs *attrs, const Operands *ops,
              const Node *like, int64_t macs) {
    if (attrs->nepilogue)
        spec_put(attrs, attr_ints(sc->a, A_epilogue, attrs->epilogue, attrs->nepilogue));
    Attr *v = NEWN(sc->a, Attr, attrs->n);
    if (attrs->n) memcpy(v, attrs->v, sizeof *v * (size_t)attrs->n);
    Operand *o = NEWN(sc->a, Operand, ops->n + 1);
    memcpy(o, ops->v, sizeof *o * (size_t)ops->n);
    if (attrs->quantizes) o[ops->n] = (Operand){.buffer = attrs->grid};
    Call c = {.spec = {kind, v, attrs->n},
              .ops = o,
              .nops = ops->n + attrs->quantizes,
              .label = like->label,
              .macs = macs};
    vec_push(sc->a, &st->calls, c);
}

// ---- what kernels cannot express ----------------------------------------------------------------
// The operand that must be one map or one row per image; -1: none.
static int single_operand(const Graph *g, const Node *n) {
    switch (n->op) {
    case OP_DWCONV2D_DX:
    case OP_DWCONV2D_DW:
    case OP_CELLS:
    case OP_RULEBOOK:
    case OP_PACK_ROWS:
    case OP_UNPACK_ROWS:
    case OP_PATCHIFY_ROWS:
    case OP_DWCONV2D_PACKED:
    case OP_DWCONV2D_PACKED_DX:
    case OP_DWCONV2D_PACKED_DW:
    case OP_DWCONV2D:
    case OP_PATCHIFY:
    case OP_GLOBAL_AVG_POOL:
    case OP_GRN_STAT:
    case OP_IMAGE_SUM:
    case OP_MASK:
    case OP_MASKED_MSE:
    case OP_UNPATCHIFY:
    case OP_GRN_SCALE: return 0;
    case OP_GRN_STAT_DX:
    case OP_GRN_SCALE_DGAMMA:
    case OP_MASKED_MSE_DX: return 1;
    case OP_EXPAND: return graph_type(g, n->args[0]).rank == 2 ? 0 : -1;
    case OP_SCALE: return graph_type(g, n->args[1]).rank == 2 ? 1 : -1;
    default: return -1;
    }
}

static bool check_node(Pipeline *p, const Graph *g, const Node *n) {
    int single = single_operand(g, n);
    if (single >= 0 && graph_type(g, n->args[single]).d[0].c != 1) {
        diag_error(p->diag, n->loc, "%s of type %s cannot be scheduled: dimension 0 must be B or 1",
                   op_info[n->op].name, type_print(p->arena, graph_type(g, n->args[single])));
        return false;
    }
    for (int r = 0; r < n->nresults; r++) {
        Type t = graph_type(g, n->first + (Value)r);
        for (int k = 1; k < t.rank; k++) {
            if (!t.d[k].b) continue;
            diag_error(p->diag, n->loc,
                       "%s of type %s cannot be scheduled: the batch must be dimension 0, not %d",
                       op_info[n->op].name, type_print(p->arena, t), k);
            return false;
        }
    }
    return true;
}

static bool check_graph(Pipeline *p, const Graph *g) {
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (n->body && !check_graph(p, n->body)) return false;
        if (!check_node(p, g, n)) return false;
    }
    return true;
}

// ---- taking graphs into schedulable form -------------------------------------------------------
static bool is_gemm(const Graph *g, const Node *n) {
    return n->op == OP_LINEAR && graph_type(g, n->args[0]).rank >= 2;
}

// Appends the ops of group n in its place.
static void inline_group(Graph *dst, const Node *n, Value *map) {
    const Graph *body = n->body;
    Value *inner = NEWN(dst->arena, Value, body->values.n + 1);
    for (int i = 0; i < body->inputs.n; i++) inner[body->inputs.v[i]] = map[n->args[i]];
    for (int i = 0; i < body->nodes.n; i++)
        if (body->nodes.v[i].op != OP_INPUT) graph_copy_node(dst, body, i, inner);
    for (int i = 0; i < body->outputs.n; i++)
        map[n->first + (Value)i] = inner[body->outputs.v[i].value];
}

// A copy of g; where `rule` returns true it has appended the node in a form of its own.
static Graph *rebuild(const Graph *g, bool (*rule)(Graph *, const Graph *, const Node *, Value *)) {
    Graph *dst = graph_new(g->arena, g->name);
    Value *map = NEWN(g->arena, Value, g->values.n + 1);
    for (int i = 0; i < g->nodes.n; i++)
        if (!rule(dst, g, &g->nodes.v[i], map)) graph_copy_node(dst, g, i, map);
    for (int i = 0; i < g->outputs.n; i++)
        graph_output(dst, g->outputs.v[i].name, map[g->outputs.v[i].value]);
    return graph_prune(dst);
}

// Groups of another form are taken apart.
static bool take_apart(Graph *dst, const Graph *src, const Node *n, Value *map) {
    GroupForm f;
    (void)src;
    if (n->op != OP_GROUP || group_form(n->body, &f)) return false;
    inline_group(dst, n, map);
    return true;
}

// A single linear or depthwise convolution becomes a group of one op.
static bool wrap_anchor(Graph *dst, const Graph *src, const Node *n, Value *map) {
    if (n->op != OP_DWCONV2D && !is_gemm(src, n)) return false;
    Group b;
    Value args[3];
    group_begin(&b, dst, n);
    for (int i = 0; i < n->nargs; i++) args[i] = group_operand(&b, map[n->args[i]]);
    vec_push(dst->arena, &b.results, group_append(&b, n, args, n->nargs));
    map[n->first] = group_end(&b);
    return true;
}

// ---- a program ---------------------------------------------------------------------------------
static void sched_begin(Sched *sc, Pipeline *p, Prepare *prepare, const Graph *g) {
    *sc = (Sched){.p = p, .a = p->arena, .t = p->target, .prepare = prepare};
    sc->g = rebuild(rebuild(g, take_apart), wrap_anchor);
    sc->s = NEW(p->arena, Schedule);
    sc->s->arena = p->arena;
    sc->s->name = g->name;
    sc->s->target = p->target;
    sc->uses = graph_use_counts(sc->g);
    sc->root = NEWN(p->arena, Value, sc->g->values.n + 1);
    sc->buffer = NEWN(p->arena, int, sc->g->values.n + 1);
    sc->factors = NEWN(p->arena, int, sc->g->values.n + 1);
    sc->deferred = NEWN(p->arena, int, sc->g->values.n + 1);
    for (int i = 0; i < sc->g->values.n; i++) {
        const Node *n = graph_def(sc->g, (Value)i);
        sc->root[i] = op_info[n->op].traits & T_VIEW ? sc->root[n->args[0]] : (Value)i;
        sc->buffer[i] = sc->deferred[i] = sc->factors[i] = -1;
    }
}

bool is_done(const Sched *sc, Value v) {
    for (int i = 0; i < sc->done.n; i++)
        if (sc->done.v[i] == v) return true;
    return false;
}

static void schedule_node(Sched *sc, int index) {
    const Node *n = &sc->g->nodes.v[index];
    if (op_info[n->op].traits & T_VIEW || is_plain_leaf(sc, n)) return;
    if (is_done(sc, n->first)) return;
    sc->p->rewrites++;
    if (n->op != OP_GROUP) {
        schedule_op(sc, n);
        return;
    }
    GroupForm f;
    group_form(n->body, &f);
    if (n->body->nodes.v[f.anchor].op == OP_LINEAR)
        schedule_linear(sc, n);
    else if (dwconv_defers(sc, n))
        sc->deferred[n->first] = index;
    else
        schedule_dwconv(sc, n);
}

// A gradient whose kernel did not add to it: state += value. A zero adds nothing.
static void add_gradient(Sched *sc, const Port *port, int from, int to) {
    const Node *like = graph_def(sc->g, port->value);
    double x;
    if (constant_splat(sc->g, port->value, &x) && x == 0) return;
    int64_t fixed, per_image;
    type_elems(graph_type(sc->g, port->value), &fixed, &per_image);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_add(&o, from);
    operand_add(&o, to);
    operand_add(&o, to);
    spec_set(&s, A_n, fixed);
    spec_word(&s, EPI_ADD);
    Step *st = step_new(sc, like, OVER_ONCE, 1, 1, fixed, col_block(fixed, target_lanes(sc->t)));
    call_new(sc, st, K_ELTWISE, &s, &o, like, 0);
}

// Outputs that are not written where they belong: a value returned twice, an operand returned, a
// gradient.
static void copy_outputs(Sched *sc) {
    for (int i = 0; i < sc->g->outputs.n; i++) {
        const Port *port = &sc->g->outputs.v[i];
        int from = buffer_of(sc, port->value);
        const Buffer *b = &sc->s->buffers.v[from];
        int state = port_state(sc, port->name);
        bool there = state >= 0    ? b->region == REGION_STATE && strcmp(b->name, port->name) == 0
                     : sc->prepare ? b->region == REGION_OUTPUT && b->port == output_port(sc, i)
                                   : b->region == REGION_WEIGHT && strcmp(b->name, port->name) == 0;
        if (there) continue;
        if (state == STATE_GRAD) {
            add_gradient(sc, port, from, port_buffer(sc, i));
            continue;
        }
        Rows r = rows_of(graph_type(sc->g, port->value));
        Operands o = {0};
        operand_add(&o, from);
        operand_add(&o, port_buffer(sc, i));
        SpecAttrs s = {0};
        spec_set(&s, A_n, r.n);
        const Node *like = graph_def(sc->g, port->value);
        Step *st = step_new(sc, like, r.batch ? OVER_FLAT : OVER_ONCE, r.rows,
                            row_block(r.rows, 1, 1, r.n * 8, sc->t->l2), r.n, r.n);
        call_new(sc, st, K_COPY, &s, &o, like, 0);
    }
}

static Schedule *schedule_program(Pipeline *p, Prepare *prepare, const Graph *g) {
    Sched sc;
    ice_context.program = g->name;
    sched_begin(&sc, p, prepare, g);
    for (int i = 0; i < sc.g->inputs.n; i++) buffer_of(&sc, sc.g->inputs.v[i]);
    for (int i = 0; i < sc.g->inputs.n; i++) {
        const char *name = node_str(graph_def(sc.g, sc.g->inputs.v[i]), A_name);
        sc.trains |= name && strcmp(name, "loss_scale") == 0;
    }
    mask_factors(&sc);
    for (int i = 0; i < sc.g->nodes.n; i++) schedule_node(&sc, i);
    copy_outputs(&sc);
    merge_steps(&sc);
    form_spans(&sc);
    stream_stores(&sc);
    return sc.s;
}

void pass_schedule(Pipeline *p) {
    for (int i = 0; i < p->module->graphs.n; i++)
        if (!check_graph(p, p->module->graphs.v[i])) return;
    Prepare prepare;
    prepare_begin(&prepare, p);
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        if (strcmp(g->name, "prepare") != 0)
            vec_push(p->arena, &p->schedules, schedule_program(p, &prepare, g));
    }
    Graph *g = prepare_end(&prepare);
    if (!g->outputs.n) return;
    vec_push(p->arena, &p->schedules, schedule_program(p, NULL, g));
    for (int i = 0; i < p->module->graphs.n; i++)
        if (strcmp(p->module->graphs.v[i]->name, "prepare") == 0) {
            p->module->graphs.v[i] = g;
            return;
        }
    vec_push(p->arena, &p->module->graphs, g);
}
