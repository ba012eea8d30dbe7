// The optimiser: one list step with a part per parameter.
//
//   adamw of every parameter                  -> step list { adamw; adamw; ... }
//   adamw, and ema of what it gives           -> step list { adamw; ema; adamw; ema; ... }
//
// The average is taken while the new parameter is in the nearest cache. A part whose operands are
// not there when the step runs, or whose calls differ, opens a step of its own.
#include "sched.h"

// Elements a part's calls take at once: all streams of the step together in half of the L1.
enum { STREAMS = 9 };
static int64_t list_block(const Target *t) {
    int64_t elems = t->l1 / 2 / STREAMS / (int64_t)sizeof(float);
    return elems / LIST_QUANTUM * LIST_QUANTUM;
}

static bool is_input(const Sched *sc, Value v) { return graph_def(sc->g, v)->op == OP_INPUT; }

static void add_adamw(Sched *sc, Step *st, const Node *n) {
    Operands o = {0};
    SpecAttrs s = {0};
    for (int i = 0; i < 6; i++) operand_value(sc, &o, n->args[i]);
    o.v[5].offset = 2 * (int64_t)sizeof(float) * node_int(n, A_index);
    for (int i = 0; i < 3; i++) operand_value(sc, &o, n->first + (Value)i);
    call_new(sc, st, K_ADAMW, &s, &o, n, 0);
}

static void add_ema(Sched *sc, Step *st, const Node *n) {
    Operands o = {0};
    SpecAttrs s = {0};
    for (int i = 0; i < 3; i++) operand_value(sc, &o, n->args[i]);
    operand_value(sc, &o, n->first);
    call_new(sc, st, K_EMA, &s, &o, n, 0);
}

static bool all_inputs(const Sched *sc, const Node *n) {
    for (int i = 0; i < n->nargs; i++)
        if (!is_input(sc, n->args[i])) return false;
    return true;
}

// The list step for a part of these kernels that starts with n.
static Step *list_step(Sched *sc, const Node *n, const KernelKind *kinds, int calls) {
    for (int i = 0; i < sc->s->steps.n && all_inputs(sc, n); i++) {
        Step *st = &sc->s->steps.v[i];
        bool same = st->over == OVER_LIST && list_calls(st) == calls;
        for (int k = 0; same && k < calls; k++) same = st->calls.v[k].spec.kind == kinds[k];
        if (same) return st;
    }
    Step *st = step_new(sc, n, OVER_LIST, 0, 1, 0, list_block(sc->t));
    st->name = op_info[n->op].name;
    return st;
}

static void part_begin(Sched *sc, Step *st, const Node *n) {
    int64_t fixed, per_image;
    type_elems(graph_type(sc->g, n->first), &fixed, &per_image);
    st->rows++;
    st->cols += (fixed + LIST_QUANTUM - 1) / LIST_QUANTUM * LIST_QUANTUM;
}

// The average of the parameter that adamw n gives, when all it needs is there.
static const Node *average_of(const Sched *sc, const Node *n) {
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++)
        if (u->op == OP_EMA && u->args[1] == n->first && is_input(sc, u->args[0])) return u;
    return NULL;
}

void schedule_adamw(Sched *sc, const Node *n) {
    static const KernelKind kinds[] = {K_ADAMW, K_EMA};
    const Node *average = average_of(sc, n);
    Step *st = list_step(sc, n, kinds, 1 + (average != NULL));
    part_begin(sc, st, n);
    add_adamw(sc, st, n);
    if (!average) return;
    add_ema(sc, st, average);
    vec_push(sc->a, &sc->done, average->first);
}

void schedule_ema(Sched *sc, const Node *n) {
    Step *st = list_step(sc, n, (const KernelKind[]){K_EMA}, 1);
    part_begin(sc, st, n);
    add_ema(sc, st, n);
}
