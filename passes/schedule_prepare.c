// The prepare program while schedules are made: weight layouts (GEMM panels, depthwise taps) are
// appended once and shared by every program that reads them; what nothing reads is dropped.
//
// Its steps read a weight once: what transposes, scales or rounds it is part of its packing, and
// everything that goes over its rows is a step that takes a block of them at a time.
//
//   matvec (w, beta, ..)
//   scale (w, gamma, s)               step rows n/block { matvec (w, beta, ..)
//   pack (s, panels)            ->                        pack (w, panels, gamma)
//   permute (w, t)                                        pack transposed (w, panels2) }
//   pack (t, panels2)
#include "sched.h"

void prepare_begin(Prepare *pr, Pipeline *p) {
    *pr = (Prepare){.g = graph_new(p->arena, "prepare")};
    const Graph *old = module_find(p->module, "prepare");
    if (!old) return;
    Value *map = NEWN(p->arena, Value, old->values.n + 1);
    for (int i = 0; i < old->nodes.n; i++) graph_copy_node(pr->g, old, i, map);
    for (int i = 0; i < old->outputs.n; i++)
        vec_push(p->arena, &pr->known,
                 ((Port){old->outputs.v[i].name, map[old->outputs.v[i].value]}));
}

Graph *prepare_end(Prepare *pr) {
    for (int i = 0; i < pr->wanted.n; i++)
        graph_output(pr->g, pr->wanted.v[i].name, pr->wanted.v[i].value);
    return graph_prune(pr->g);
}

// The value a parameter of another program stands for: a result of prepare, else a raw parameter.
static Value known_value(Prepare *pr, const Graph *g, const Node *param) {
    const char *name = node_str(param, A_name);
    for (int i = 0; param->op == OP_PARAM && i < pr->known.n; i++)
        if (strcmp(pr->known.v[i].name, name) == 0) return pr->known.v[i].value;
    const Attr *value = node_attr(param, A_value);
    if (param->op == OP_CONSTANT)
        return graph_constant(pr->g, graph_type(g, param->first), value->data.v, value->data.n,
                              param->loc);
    return graph_param(pr->g, name, graph_type(g, param->first), param->loc);
}

static const char *want(Prepare *pr, const char *name, Value v) {
    Arena *a = pr->g->arena;
    for (int i = 0; i < pr->wanted.n; i++)
        if (pr->wanted.v[i].value == v) return pr->wanted.v[i].name;
    const char *unique = name;
    for (int i = 0, k = 2; i < pr->wanted.n; i++)
        if (strcmp(pr->wanted.v[i].name, unique) == 0) {
            unique = arena_printf(a, "%s.%d", name, k++);
            i = -1;
        }
    vec_push(a, &pr->wanted, ((Port){unique, v}));
    return unique;
}

static const char *base_name(const Node *param) {
    return param->op == OP_CONSTANT ? "constant" : node_str(param, A_name);
}

const char *prepare_plain(Prepare *pr, const Graph *g, const Node *param) {
    return want(pr, base_name(param), known_value(pr, g, param));
}

const char *prepare_panels(Prepare *pr, const Graph *g, const Node *param, int64_t nr) {
    Value w = known_value(pr, g, param);
    Attr attr = attr_int(A_nr, nr);
    Value v = graph_op(pr->g, OP_PACK, param->loc, base_name(param), &w, 1, &attr, 1);
    return want(pr, arena_printf(pr->g->arena, "%s/panels%lld", base_name(param), (long long)nr),
                v);
}

const char *prepare_taps(Prepare *pr, const Graph *g, const Node *param) {
    Arena *a = pr->g->arena;
    Value w = known_value(pr, g, param);
    Type t = graph_type(pr->g, w);
    Dim flat[] = {t.d[0], dim_c(t.d[2].c * t.d[3].c)};
    Attr shape = attr_dims(a, A_shape, flat, 2), perm = attr_ints2(a, A_perm, 1, 0);
    Value v = graph_op(pr->g, OP_RESHAPE, param->loc, base_name(param), &w, 1, &shape, 1);
    v = graph_op(pr->g, OP_TRANSPOSE, param->loc, base_name(param), &v, 1, &perm, 1);
    return want(pr, arena_printf(a, "%s/taps", base_name(param)), v);
}

const char *prepare_constant(Prepare *pr, int64_t n, double value) {
    Value v = graph_constant(pr->g, type_make(DT_F32, 1, (Dim[]){dim_c(n)}), &value, 1, (Loc){0});
    return want(pr, arena_printf(pr->g->arena, "constant%lld.%g", (long long)n, value), v);
}

// ---- packing -----------------------------------------------------------------------------------
static bool is_factor(const Node *n) { return n->op == OP_SCALE || n->op == OP_SCALE_ROWS; }

static bool is_transposition(const Sched *sc, const Node *n) {
    return n->op == OP_TRANSPOSE && graph_type(sc->g, n->first).rank == 2 &&
           node_ints(n, A_perm, 0) == 1;
}

// pack(cast(f(x))), the cast and f, a factor or a transposition, where they are: n is one of these,
// and packs read it alone.
bool pack_takes(const Sched *sc, const Node *n) {
    bool inner = is_factor(n) || is_transposition(sc, n);
    bool cast = n->op == OP_CAST && graph_type(sc->g, n->first).dt == DT_BF16;
    if (!sc->p->fuse_steps || sc->prepare || !(inner || cast)) return false;
    if (graph_type(sc->g, n->args[0]).dt != DT_F32 || graph_type(sc->g, n->first).rank != 2 ||
        !sc->uses[n->first])
        return false;
    for (int i = 0; i < sc->g->outputs.n; i++)
        if (sc->g->outputs.v[i].value == n->first) return false;
    for (int i = 0; i < sc->g->nodes.n; i++) {
        const Node *u = &sc->g->nodes.v[i];
        for (int k = 0; k < u->nargs; k++)
            if (u->args[k] == n->first && u->op != OP_PACK &&
                !(inner && u->op == OP_CAST && pack_takes(sc, u)))
                return false;
    }
    return true;
}

typedef struct {
    Value x; // the matrix in memory
    const Node *factor;
    bool transposed, rounded;
} PackForm;

static PackForm pack_form(const Sched *sc, const Node *pack) {
    PackForm f = {.x = pack->args[0]};
    const Node *n = graph_def(sc->g, f.x);
    if (n->op == OP_CAST && pack_takes(sc, n)) {
        f.rounded = true;
        f.x = n->args[0];
        n = graph_def(sc->g, f.x);
    }
    if (n->op == OP_CAST || !pack_takes(sc, n)) return f;
    f.x = n->args[0];
    f.transposed = !is_factor(n);
    if (is_factor(n)) f.factor = n;
    return f;
}

// ---- steps over the rows of a weight -----------------------------------------------------------
static int64_t common_multiple(int64_t a, int64_t b) {
    int64_t x = a, y = b;
    while (y) {
        int64_t rest = x % y;
        x = y;
        y = rest;
    }
    return a / x * b;
}

// Pack n may be one of x: a quick look, for pack_form searches the graph.
static bool made_of(const Sched *sc, const Node *n, Value x) {
    for (int i = 0; i < 3 && n->nargs; i++) {
        if (sc->root[n->args[0]] == sc->root[x]) return true;
        n = graph_def(sc->g, n->args[0]);
    }
    return false;
}

// Rows of a block that suit all that goes over the rows of x: whole panels, pairs of rows.
static int64_t weight_block(const Sched *sc, Value x) {
    int64_t quantum = 2;
    for (int i = 0; i < sc->g->nodes.n; i++) {
        const Node *n = &sc->g->nodes.v[i];
        if (n->op != OP_PACK || !made_of(sc, n, x)) continue;
        PackForm f = pack_form(sc, n);
        if (sc->root[f.x] == sc->root[x] && !f.transposed)
            quantum = common_multiple(quantum, node_int(n, A_nr));
    }
    Type t = graph_type(sc->g, x);
    return row_block(t.d[0].c, quantum, quantum, t.d[1].c * dtype_bytes(t.dt), sc->t->l2 / 2);
}

// Something from step `from` on touches the buffer, which is no parameter.
static bool touched_since(const Sched *sc, int from, int buffer) {
    if (sc->s->buffers.v[buffer].region == REGION_PARAM) return false;
    for (int i = from; i < sc->s->steps.n; i++)
        for (int c = 0; c < sc->s->steps.v[i].calls.n; c++) {
            const Call *call = &sc->s->steps.v[i].calls.v[c];
            for (int k = 0; k < call->nops; k++)
                if (call->ops[k].buffer == buffer) return true;
        }
    return false;
}

// The step for a call on blocks of rows of x, its first operand: one that is there when the others
// are ready before it.
static Step *weight_step(Sched *sc, const Node *n, Value x, const Operands *o) {
    for (int i = 0; sc->p->fuse_steps && i < sc->s->steps.n; i++) {
        Step *st = &sc->s->steps.v[i];
        const Call *call = st->calls.v;
        if (st->over != OVER_ONCE || !st->calls.n || call->ops[0].buffer != o->v[0].buffer ||
            (call->spec.kind != K_PACK && call->spec.kind != K_MATVEC))
            continue;
        bool ready = true;
        for (int k = 1; k < o->n; k++) ready &= !touched_since(sc, i, o->v[k].buffer);
        if (ready) return st;
    }
    return step_new(sc, n, OVER_ONCE, graph_type(sc->g, x).d[0].c, weight_block(sc, x), 1, 1);
}

void schedule_pack(Sched *sc, const Node *n) {
    PackForm f = pack_form(sc, n);
    Type t = graph_type(sc->g, n->args[0]);
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, f.x);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, t.d[0].c);
    spec_set(&s, A_k, t.d[1].c * dtype_bytes(t.dt) / 4);
    spec_set(&s, A_nr, node_int(n, A_nr));
    if (f.transposed) spec_set(&s, A_transposed, 1);
    if (f.rounded) spec_set(&s, A_dtype, dtype_word(DT_BF16));
    if (f.factor) {
        spec_word(&s, f.factor->op == OP_SCALE ? EPI_SCALE : EPI_SCALE_ROWS);
        operand_value(sc, &o, f.factor->args[1]);
    }
    call_new(sc, weight_step(sc, n, f.x, &o), K_PACK, &s, &o, n, 0);
}

void schedule_matvec(Sched *sc, const Node *n) {
    Value w = n->args[1];
    Operands o = {0};
    SpecAttrs s = {0};
    operand_value(sc, &o, w);
    operand_value(sc, &o, n->args[0]);
    operand_value(sc, &o, n->first);
    spec_set(&s, A_n, graph_type(sc->g, w).d[0].c);
    spec_set(&s, A_k, graph_type(sc->g, w).d[1].c);
    if (n->nargs > 2) {
        spec_word(&s, EPI_BIAS);
        operand_value(sc, &o, n->args[2]);
    }
    call_new(sc, weight_step(sc, n, w, &o), K_MATVEC, &s, &o, n, 0);
}
