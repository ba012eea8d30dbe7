// Steps on the same row blocks of images become one where a step reads what another one before it
// writes: a unit runs their calls in order, so that rows are read while they lie in cache. What no
// other step touches then is held for one row block only, as scratch of the thread.
//
//   step image rows 3136/256 { eltwise (.., dp) }        step image rows 3136/256 {
//   step flat { sum (..) }                          ->     eltwise (.., dp row 640)
//   step image rows 3136/256 { gemm (dp, ..) }             gemm (dp row 640, ..)  }
//                                                        step flat { sum (..) }
#include "sched.h"

enum { LOOK_BACK = 12 }; // steps

// ---- operands ----------------------------------------------------------------------------------
// The number of a kernel's own operands that the table lists.
static int listed_operands(const KernelSpec *s) {
    int n = 0;
    for (const char *p = kernel_info[s->kind].operands; *p; p++)
        n += *p != ' ' && (p[1] == ' ' || p[1] == '\0');
    return n;
}

// The kernel works on rows: operand `at` and those of the epilogue hold the rows of the result, or
// are the same for all rows of an image. dw: rows of dy and x.
static bool takes_rows(KernelKind kind, int at) {
    switch (kind) {
    case K_GEMM: return at != 1;
    case K_ELTWISE:
    case K_NORM_DX: return true;
    case K_GEMM_DW: return at < 2;
    default: return false;
    }
}

static bool is_row_kernel(KernelKind kind) { return takes_rows(kind, 0); }

// Operand `at` holds a row of its own for each row of the step.
static bool holds_rows(const Schedule *s, const Step *st, const Call *c, int at) {
    const Operand *o = &c->ops[at];
    const Buffer *b = &s->buffers.v[o->buffer];
    if (!takes_rows(c->spec.kind, at) || o->offset || o->block_bytes || b->region != REGION_IMAGE)
        return false;
    return b->type.rank >= 3 && b->bytes == st->rows * type_last(b->type) * 4;
}

// Operand `at` of the words of an epilogue is written.
static bool epilogue_writes(const KernelSpec *s, int at) {
    const int64_t *words;
    int n = spec_epilogue(s, &words);
    for (int i = 0; i < n && at >= 0; i++) {
        int count = epilogue_operands(words[i]);
        bool writes = words[i] == EPI_STORE || words[i] == EPI_STREAM || words[i] == EPI_STAT_L2 ||
                      words[i] == EPI_STAT_L1 || words[i] == EPI_STAT_MEAN ||
                      words[i] == EPI_STAT_DOT;
        if (at < count) return writes && at == count - 1;
        at -= count;
    }
    return false;
}

// Operand `at` may be written: kernels that are none of rows write any of theirs but the first, or
// the only one.
static bool may_write(const KernelSpec *s, int at) {
    int listed = listed_operands(s), extra = spec_operands(s) - listed;
    const int64_t *words;
    int n = spec_epilogue(s, &words);
    for (int i = 0; i < n; i++) extra -= epilogue_operands(words[i]);
    if (!is_row_kernel(s->kind)) return at > 0 || spec_operands(s) == 1;
    if (at < listed) return at == listed - 1 || (s->kind == K_GEMM_DW && at == 2);
    if (at < listed + extra) return at >= listed + (spec_int(s, A_affine) != 0); // norm_dx
    return epilogue_writes(s, at - listed - extra);
}

// ---- dependence --------------------------------------------------------------------------------
static bool writes_buffer(const Step *st, int buffer) {
    for (int c = 0; c < st->calls.n; c++)
        for (int k = 0; k < st->calls.v[c].nops; k++)
            if (st->calls.v[c].ops[k].buffer == buffer && may_write(&st->calls.v[c].spec, k))
                return true;
    return false;
}

bool step_depends(const Step *u, const Step *st) {
    for (int c = 0; c < u->calls.n; c++)
        for (int k = 0; k < u->calls.v[c].nops; k++)
            if (writes_buffer(st, u->calls.v[c].ops[k].buffer)) return true;
    return false;
}

// Every use of the buffer in st is by rows.
static bool used_by_rows(const Schedule *s, const Step *st, int buffer) {
    for (int c = 0; c < st->calls.n; c++)
        for (int k = 0; k < st->calls.v[c].nops; k++)
            if (st->calls.v[c].ops[k].buffer == buffer && !holds_rows(s, st, &st->calls.v[c], k))
                return false;
    return true;
}

static bool is_row_step(const Step *st) {
    if (st->over != OVER_IMAGE || st->rows < 2 || st->col_block < st->cols) return false;
    for (int c = 0; c < st->calls.n; c++)
        if (!is_row_kernel(st->calls.v[c].spec.kind)) return false;
    return true;
}

// What step u reads of st are rows of the same block.
static bool joins(const Schedule *s, const Step *st, const Step *u) {
    if (!is_row_step(st) || !is_row_step(u) || st->rows != u->rows ||
        st->row_block != u->row_block || !step_depends(u, st))
        return false;
    for (int c = 0; c < u->calls.n; c++)
        for (int k = 0; k < u->calls.v[c].nops; k++) {
            int buffer = u->calls.v[c].ops[k].buffer;
            if (writes_buffer(st, buffer) &&
                !(holds_rows(s, u, &u->calls.v[c], k) && used_by_rows(s, st, buffer)))
                return false;
        }
    return true;
}

// ---- merging -----------------------------------------------------------------------------------
// The step of out[0..n) that u can be appended to: everything between is independent of u. -1:
// none.
static int find_host(const Schedule *s, const Step *out, int n, const Step *u) {
    for (int j = n - 1; j >= 0 && j >= n - LOOK_BACK; j--) {
        if (joins(s, &out[j], u)) return j;
        if (step_depends(u, &out[j])) return -1;
    }
    return -1;
}

static void append_calls(Arena *a, Step *st, const Step *u) {
    for (int c = 0; c < u->calls.n; c++) vec_push(a, &st->calls, u->calls.v[c]);
    if (u->cols > st->cols) st->cols = st->col_block = u->cols;
}

static void join_steps(Sched *sc) {
    Schedule *s = sc->s;
    int n = 0;
    for (int i = 0; i < s->steps.n; i++) {
        Step u = s->steps.v[i];
        int host = find_host(s, s->steps.v, n, &u);
        if (host >= 0)
            append_calls(sc->a, &s->steps.v[host], &u);
        else
            s->steps.v[n++] = u;
    }
    s->steps.n = n;
}

// ---- scratch -----------------------------------------------------------------------------------
// The one step that touches the buffer, NULL: several, or none.
static Step *only_step(Schedule *s, int buffer) {
    Step *found = NULL;
    for (int i = 0; i < s->steps.n; i++)
        for (int c = 0; c < s->steps.v[i].calls.n; c++)
            for (int k = 0; k < s->steps.v[i].calls.v[c].nops; k++) {
                if (s->steps.v[i].calls.v[c].ops[k].buffer != buffer) continue;
                if (found && found != &s->steps.v[i]) return NULL;
                found = &s->steps.v[i];
            }
    return found;
}

static void make_scratch(Sched *sc, int buffer, Step *st) {
    Buffer *b = &sc->s->buffers.v[buffer];
    int64_t n = type_last(b->type);
    b->region = REGION_SCRATCH;
    b->type = type_make(DT_F32, 2, (Dim[]){dim_c(st->row_block), dim_c(n)});
    b->bytes = st->row_block * n * 4;
    for (int c = 0; c < st->calls.n; c++) {
        Call *call = &st->calls.v[c];
        Operand *ops = NEWN(sc->a, Operand, call->nops);
        for (int k = 0; k < call->nops; k++) {
            ops[k] = call->ops[k];
            if (ops[k].buffer == buffer) ops[k].row_bytes = n * 4;
        }
        call->ops = ops;
    }
}

void merge_steps(Sched *sc) {
    if (!sc->p->fuse_steps || !sc->trains) return;
    join_steps(sc);
    for (int b = 0; b < sc->s->buffers.n; b++) {
        if (sc->s->buffers.v[b].region != REGION_IMAGE) continue;
        Step *st = only_step(sc->s, b);
        if (st && is_row_step(st) && used_by_rows(sc->s, st, b)) make_scratch(sc, b, st);
    }
}
