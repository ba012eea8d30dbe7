// A matrix that a GEMM stores on its way and that nothing reads before each image has touched more
// than L2, as the operand of GELU that training keeps for the backward pass, is written past the
// caches (word stream of the epilogue): its lines need not be read first, and what is read next
// stays.
//
//   step { gemm {epilogue=[bias,store,gelu]} (.., b) }  ..  step { eltwise (.., b) }
//     ->  step { gemm {epilogue=[bias,stream,gelu]} (.., b) }  ..  step { eltwise (.., b) }
//
// Only whole lines are worth it, so only where a vector is one.
#include "sched.h"

enum { LINE = 64 };

static bool touches(const Step *st, int buffer) {
    for (int c = 0; c < st->calls.n; c++)
        for (int k = 0; k < st->calls.v[c].nops; k++)
            if (st->calls.v[c].ops[k].buffer == buffer) return true;
    return false;
}

// The next step that touches what step i writes is far away.
static bool is_far(const Sched *sc, int i, int buffer) {
    int64_t bytes = 0;
    for (i++; i < sc->s->steps.n && !touches(&sc->s->steps.v[i], buffer); i++)
        bytes += touched_bytes(sc->s, &sc->s->steps.v[i]);
    return i < sc->s->steps.n && bytes > sc->t->l2;
}

// Vectors of the result are lines of memory.
static bool writes_lines(const Sched *sc, const Call *c) {
    int64_t lanes = target_lanes(sc->t);
    return lanes * (int64_t)sizeof(float) == LINE && spec_int(&c->spec, A_n) % lanes == 0 &&
           spec_int(&c->spec, A_nr) % lanes == 0 && !spec_int(&c->spec, A_tiles);
}

static void stream_call(const Sched *sc, int step, Call *c) {
    const int64_t *words;
    int n = spec_epilogue(&c->spec, &words), at = 3;
    int64_t *changed = NEWN(sc->a, int64_t, n + 1);
    for (int i = 0; i < n; at += epilogue_operands(words[i++])) {
        changed[i] = words[i];
        if (words[i] != EPI_STORE) continue;
        int buffer = c->ops[at].buffer;
        if (sc->s->buffers.v[buffer].region == REGION_IMAGE && is_far(sc, step, buffer))
            changed[i] = EPI_STREAM;
    }
    Attr *attrs = NEWN(sc->a, Attr, c->spec.nattrs + 1);
    for (int i = 0; i < c->spec.nattrs; i++)
        attrs[i] = c->spec.attrs[i].id == A_epilogue ? attr_ints(sc->a, A_epilogue, changed, n)
                                                     : c->spec.attrs[i];
    c->spec.attrs = attrs;
}

void stream_stores(Sched *sc) {
    for (int i = 0; i < sc->s->steps.n; i++) {
        Step *st = &sc->s->steps.v[i];
        for (int c = 0; c < st->calls.n; c++)
            if (st->calls.v[c].spec.kind == K_GEMM && writes_lines(sc, &st->calls.v[c]))
                stream_call(sc, i, &st->calls.v[c]);
    }
}
