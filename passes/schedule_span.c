// Spans: steps that can run on one image after the other are joined (Step.then), so that what one
// writes the next finds in cache, whatever the batch. What only a span touches needs memory for the
// images in work, not for all: its buffers become slots.
//
//   step image { dwconv }                    step image then { dwconv }
//   step image { gemm }                ->    step image then { gemm }
//   step flat { sum (..) }                   step image { gemm }
//   step image { gemm }                      step flat { sum (..) }
//
// Not in a span are steps whose weights are larger than L2 where the rows of an image are few: they
// would come from far away once per image. Steps over the whole batch that come between wait for
// the end of the span, as long as that pays (Waiting).
#include "sched.h"

typedef VEC(Step) Steps;

// ---- steps over images -------------------------------------------------------------------------
// Every operand of a batch has `rows` rows per image, so that rows of all images are rows of each.
static bool rows_are_of_images(const Schedule *s, const Step *st) {
    for (int c = 0; c < st->calls.n; c++)
        for (int k = 0; k < st->calls.v[c].nops; k++) {
            const Operand *o = &st->calls.v[c].ops[k];
            const Buffer *b = &s->buffers.v[o->buffer];
            if (o->offset || o->block_bytes || o->row_bytes) return false;
            if (type_has_batch(b->type) &&
                b->bytes != st->rows * type_last(b->type) * dtype_bytes(b->type.dt))
                return false;
        }
    return true;
}

// Kernels that work row by row and know nothing of the others: grn_slope, too, where a block is a
// row (all images are one block where the statistic is that of the batch).
static bool is_by_rows(KernelKind kind) {
    return kind == K_NORM || kind == K_ELTWISE || kind == K_GRN_DSTAT || kind == K_GRN_SLOPE;
}

// A step over rows of the whole batch becomes one over images where that changes nothing.
static void divide_flat(const Schedule *s, Step *st) {
    if (st->over != OVER_FLAT || st->row_block > st->rows || !rows_are_of_images(s, st)) return;
    for (int c = 0; c < st->calls.n; c++)
        if (!is_by_rows(st->calls.v[c].spec.kind)) return;
    st->over = OVER_IMAGE;
}

// ---- forming -----------------------------------------------------------------------------------
// Weights of the step do not fit into L2 and are read in blocks of columns, best for many images:
// not where the rows of one take longer than reading them.
static bool reads_large_weights(const Sched *sc, const Step *st) {
    if (!step_columns_first(st) || (st->row_block == st->rows && st->rows > FEW_ROWS)) return false;
    for (int c = 0; c < st->calls.n; c++) {
        const KernelSpec *k = &st->calls.v[c].spec;
        if (spec_int(k, A_order) && spec_int(k, A_n) * spec_int(k, A_k) * 4 > sc->t->l2)
            return true;
    }
    return st->col_block < st->cols;
}

int64_t touched_bytes(const Schedule *s, const Step *st) {
    int64_t sum = 0;
    for (int c = 0; c < st->calls.n; c++)
        for (int k = 0; k < st->calls.v[c].nops; k++) {
            const Buffer *b = &s->buffers.v[st->calls.v[c].ops[k].buffer];
            if (type_has_batch(b->type)) sum += b->bytes;
        }
    return sum;
}

// Steps over the whole batch that wait for the end of a span. What they read is kept for all images
// until then, at most L2 of each. A sum of partial results, which has no MACs, would find them in
// cache if it did not wait: all of them must be little beside what the span's own steps touch.
typedef struct {
    Steps steps;
    int64_t read, sums;
} Waiting;

static bool may_pass(const Step *u, const Steps *waiting) {
    for (int i = 0; i < waiting->n; i++)
        if (step_depends(u, &waiting->v[i]) || step_depends(&waiting->v[i], u)) return false;
    return true;
}

static bool may_wait(const Sched *sc, const Step *st, Waiting *w, int64_t touched) {
    int64_t bytes = touched_bytes(sc->s, st), macs = 0;
    for (int c = 0; c < st->calls.n; c++) macs += st->calls.v[c].macs;
    w->read += bytes;
    if (!macs) w->sums += bytes;
    return w->read <= sc->t->l2 && w->sums <= touched / 8;
}

// Takes the span that begins at step i, and what waited for its end, over to `out`; the next step.
static int take_span(Sched *sc, int i, Steps *out) {
    const Schedule *s = sc->s;
    Waiting w = {0};
    int first = out->n;
    for (int64_t touched = 0; i < s->steps.n; i++) {
        const Step *st = &s->steps.v[i];
        if (st->over == OVER_IMAGE) {
            if (reads_large_weights(sc, st) || !may_pass(st, &w.steps)) break;
            vec_push(sc->a, out, *st);
            touched += touched_bytes(s, st);
            continue;
        }
        if (out->n == first || !may_wait(sc, st, &w, touched)) break;
        vec_push(sc->a, &w.steps, *st);
    }
    for (int k = first; k + 1 < out->n; k++) out->v[k].then = true;
    for (int k = 0; k < w.steps.n; k++) vec_push(sc->a, out, w.steps.v[k]);
    return i;
}

// ---- slots -------------------------------------------------------------------------------------
enum { UNUSED = -1, SHARED = -2 };

// Of each buffer the first step of the one span that touches it, or SHARED.
static int *span_of_buffers(Sched *sc) {
    const Schedule *s = sc->s;
    int *span = NEWN(sc->a, int, s->buffers.n + 1);
    for (int i = 0; i < s->buffers.n; i++) span[i] = UNUSED;
    for (int i = 0; i < s->steps.n; i++) {
        int first, last;
        step_span(s, i, &first, &last);
        for (int c = 0; c < s->steps.v[i].calls.n; c++)
            for (int k = 0; k < s->steps.v[i].calls.v[c].nops; k++) {
                int *at = &span[s->steps.v[i].calls.v[c].ops[k].buffer];
                *at = first == last || (*at != UNUSED && *at != first) ? SHARED : first;
            }
    }
    return span;
}

void form_spans(Sched *sc) {
    Schedule *s = sc->s;
    if (!sc->p->fuse_steps) return;
    Steps out = {0};
    for (int i = 0; i < s->steps.n; i++) divide_flat(s, &s->steps.v[i]);
    for (int i = 0; i < s->steps.n;) {
        int next = take_span(sc, i, &out);
        if (next == i) vec_push(sc->a, &out, s->steps.v[next++]);
        i = next;
    }
    for (int i = 0; i < out.n; i++) s->steps.v[i] = out.v[i];
    const int *span = span_of_buffers(sc);
    for (int b = 0; b < s->buffers.n; b++)
        if (s->buffers.v[b].region == REGION_IMAGE && span[b] >= 0)
            s->buffers.v[b].region = REGION_SLOT;
}
