// The driver of a program: its steps as constant tables (walk.h) and the function that has the
// walker run them:
//
//   void program_run(frame, thread, nthreads):  walk(frame, thread, nthreads, tables, memory)
#include "walk.h"

_Static_assert((int)STATE_PARAM == CNXRT_STATE_PARAM && (int)STATE_GRAD == CNXRT_STATE_GRAD &&
                   (int)STATE_M == CNXRT_STATE_M && (int)STATE_V == CNXRT_STATE_V &&
                   (int)STATE_EMA == CNXRT_STATE_EMA && (int)STATE_COUNT == CNXRT_STATES,
               "states of schedules are those of the runtime");

enum { ALL_ROWS = INT32_MAX }; // a block of them

typedef struct {
    int64_t word[PLACE_WORDS];
} Place;

// The tables of a program while they are written.
typedef struct {
    Unit *u;
    const Schedule *s;
    VEC(int32_t) words; // of all steps
    VEC(Place) places;
    VEC(LLVMValueRef) kernels;
    int span;                    // where the last one begins, -1: none yet
    int spans, calls;            // written
    int most_operands, most_ops; // of a part, of a call
} Tables;

// ---- operands ----------------------------------------------------------------------------------
static Place operand_place(const Schedule *s, const Operand *op, bool by_image) {
    const Buffer *buf = &s->buffers.v[op->buffer];
    Place p = {{0}};
    switch (buf->region) {
    case REGION_INPUT: p.word[PLACE_TABLE] = F_INPUTS; break;
    case REGION_OUTPUT: p.word[PLACE_TABLE] = F_OUTPUTS; break;
    case REGION_STATE: p.word[PLACE_TABLE] = F_STATE; break;
    case REGION_PARAM: p.word[PLACE_INDEX] = F_PARAMS; break;
    case REGION_WEIGHT: p.word[PLACE_INDEX] = F_WEIGHTS; break;
    case REGION_FIXED: p.word[PLACE_INDEX] = F_ARENA; break;
    case REGION_IMAGE:
        p.word[PLACE_INDEX] = F_ARENA;
        p.word[PLACE_CONSTANT] = s->fixed_bytes + op->offset;
        p.word[PLACE_BATCHED] = 1;
        break;
    case REGION_SLOT:
        p.word[PLACE_INDEX] = F_ARENA;
        p.word[PLACE_CONSTANT] = s->fixed_bytes + buf->offset + op->offset;
        p.word[PLACE_BATCHED] = 1;
        p.word[PLACE_SLOT] = -s->slot_bytes;
        p.word[PLACE_IMAGE] = s->slot_bytes;
        break;
    case REGION_SCRATCH:
        p.word[PLACE_INDEX] = F_SCRATCH;
        p.word[PLACE_THREAD] = s->scratch_bytes;
        p.word[PLACE_ROW] = -op->row_bytes;
        break;
    }
    if (p.word[PLACE_TABLE]) p.word[PLACE_INDEX] = buf->port;
    bool ported = buf->region == REGION_INPUT || buf->region == REGION_OUTPUT;
    if (by_image && (ported || buf->region == REGION_IMAGE) && type_has_batch(buf->type))
        p.word[PLACE_IMAGE] = buf->bytes;
    p.word[PLACE_BLOCK] = op->block_bytes;
    return p;
}

static int64_t operand_offset(const Schedule *s, const Operand *op) {
    const Buffer *buf = &s->buffers.v[op->buffer];
    switch (buf->region) {
    case REGION_INPUT:
    case REGION_OUTPUT: return op->offset;
    case REGION_IMAGE: return buf->offset;
    case REGION_SLOT: return s->image_bytes; // slots lie behind the images
    default: return buf->offset + op->offset;
    }
}

static int place_number(Tables *t, const Place *p) {
    int i = 0;
    while (i < t->places.n && memcmp(&t->places.v[i], p, sizeof *p) != 0) i++;
    if (i == t->places.n) vec_push(t->u->arena, &t->places, *p);
    return i;
}

static int kernel_number(Tables *t, const KernelSpec *spec) {
    LLVMValueRef kernel = unit_kernel(t->u, spec);
    int i = 0;
    while (i < t->kernels.n && t->kernels.v[i] != kernel) i++;
    if (i == t->kernels.n) vec_push(t->u->arena, &t->kernels, kernel);
    return i;
}

// ---- steps -------------------------------------------------------------------------------------
static int32_t narrow(int64_t word) {
    if (word != (int32_t)word) ice((Loc){0}, "a step of %lld rows or columns", (long long)word);
    return (int32_t)word;
}

static void put(Tables *t, const int64_t *words, int n) {
    for (int i = 0; i < n; i++) vec_push(t->u->arena, &t->words, narrow(words[i]));
}

static void put_operand(Tables *t, const Place *p, int64_t offset) {
    vec_push(t->u->arena, &t->words, place_number(t, p));
    vec_push(t->u->arena, &t->words, (int32_t)(uint32_t)offset);
    vec_push(t->u->arena, &t->words, (int32_t)(offset >> 32));
}

// The end of a call's columns: of a step of one column block all of its own, whatever the step's.
static int64_t call_columns(const Step *st, const Call *call) {
    bool one = st->over != OVER_LIST && st->col_block >= st->cols;
    return one ? spec_int(&call->spec, call->spec.kind == K_DWCONV ? A_c : A_n) : 0;
}

static int64_t most(int64_t x, int64_t y) { return x > y ? x : y; }

static void put_part(Tables *t, const Step *st, const Call *calls, int n, int64_t elems) {
    int start = t->words.n, operands = 0;
    put(t, (int64_t[PART_WORDS]){0}, PART_WORDS);
    for (int c = 0; c < n; c++) {
        int64_t call[CALL_WORDS] = {[CALL_KERNEL] = kernel_number(t, &calls[c].spec),
                                    [CALL_COLS] = call_columns(st, &calls[c]),
                                    [CALL_OPERANDS] = calls[c].nops};
        put(t, call, CALL_WORDS);
        operands += calls[c].nops;
        t->most_ops = (int)most(t->most_ops, calls[c].nops);
    }
    for (int c = 0; c < n; c++)
        for (int i = 0; i < calls[c].nops; i++) {
            Place p = operand_place(t->s, &calls[c].ops[i], st->over == OVER_IMAGE);
            put_operand(t, &p, operand_offset(t->s, &calls[c].ops[i]));
        }
    int64_t head[PART_WORDS] = {[PART_LENGTH] = t->words.n - start,
                                [PART_FIRST] = t->calls,
                                [PART_ELEMS] = elems,
                                [PART_CALLS] = n,
                                [PART_OPERANDS] = operands};
    for (int i = 0; i < PART_WORDS; i++) t->words.v[start + i] = narrow(head[i]);
    t->calls += n;
    t->most_operands = (int)most(t->most_operands, operands);
}

static void put_step(Tables *t, const Step *st) {
    int start = t->words.n;
    int64_t col_block = st->col_block > 0 ? st->col_block : most(st->cols, 1);
    int64_t col_blocks = st->cols > 0 ? (st->cols - 1) / col_block + 1 : 1;
    int64_t head[STEP_WORDS] = {
        [STEP_IMAGES] = st->over == OVER_IMAGE,
        [STEP_FLAT] = st->over == OVER_FLAT,
        [STEP_LIST] = st->over == OVER_LIST,
        [STEP_ROWS] = st->rows,
        [STEP_ROW_BLOCK] = st->row_block > 0 && st->row_block < ALL_ROWS ? st->row_block : ALL_ROWS,
        [STEP_COLS] = st->cols,
        [STEP_COL_BLOCK] = col_block,
        [STEP_COL_BLOCKS] = col_blocks,
        [STEP_COLUMNS_FIRST] = step_columns_first(st)};
    put(t, head, STEP_WORDS);
    int parts = st->over == OVER_LIST ? (int)st->rows : 1, calls = st->calls.n / parts;
    for (int i = 0; i < parts; i++)
        put_part(t, st, st->calls.v + (ptrdiff_t)i * calls, calls,
                 st->over == OVER_LIST ? list_elems(t->s, st, i) : 0);
    t->words.v[start + STEP_LENGTH] = t->words.n - start;
}

// The step is the next of the last span, or begins one.
static void put_spans(Tables *t, int step) {
    int first, last;
    step_span(t->s, step, &first, &last);
    bool by_image = first < last;
    bool begins = by_image || t->span < 0 ? step == first : t->words.v[t->span + SPAN_BY_IMAGE];
    if (begins) {
        t->span = t->words.n;
        t->spans++;
        put(t, (int64_t[SPAN_WORDS]){[SPAN_BY_IMAGE] = by_image}, SPAN_WORDS);
    }
    put_step(t, &t->s->steps.v[step]);
    t->words.v[t->span + SPAN_STEPS]++;
    t->words.v[t->span + SPAN_LENGTH] = t->words.n - t->span;
}

// ---- programs ----------------------------------------------------------------------------------
static LLVMValueRef steps_table(Unit *u, const int32_t *v, int n, const char *symbol) {
    LLVMValueRef *c = NEWN(u->arena, LLVMValueRef, n + 1);
    for (int i = 0; i < n; i++) c[i] = unit_i32(u, v[i]);
    return unit_table(u, u->i32, c, n, symbol);
}

static LLVMValueRef places_table(Unit *u, const Place *v, int n, const char *symbol) {
    LLVMValueRef *c = NEWN(u->arena, LLVMValueRef, n * PLACE_WORDS + 1);
    for (int i = 0; i < n * PLACE_WORDS; i++)
        c[i] = unit_i64(u, v[i / PLACE_WORDS].word[i % PLACE_WORDS]);
    return unit_table(u, u->i64, c, n * PLACE_WORDS, symbol);
}

static LLVMValueRef program_tables(Tables *t) {
    Unit *u = t->u;
    const char *name = t->s->name;
    LLVMValueRef fields[] = {
        [PROGRAM_SPANS] =
            steps_table(u, t->words.v, t->words.n, arena_printf(u->arena, "%s_steps", name)),
        [PROGRAM_PLACES] =
            places_table(u, t->places.v, t->places.n, arena_printf(u->arena, "%s_places", name)),
        [PROGRAM_KERNELS] = unit_table(u, u->ptr, t->kernels.v, t->kernels.n,
                                       arena_printf(u->arena, "%s_kernels", name)),
        [PROGRAM_COUNT] = unit_i64(u, t->spans)};
    unsigned n = sizeof fields / sizeof *fields;
    LLVMValueRef init = LLVMConstStructInContext(u->ctx, fields, n, 0);
    return unit_constant(u, init, arena_printf(u->arena, "%s_tables", name));
}

LLVMValueRef emit_program(Unit *u, const Schedule *s) {
    Tables t = {.u = u, .s = s, .span = -1, .most_operands = 1, .most_ops = 1};
    for (int i = 0; i < s->steps.n; i++) put_spans(&t, i);
    LLVMValueRef tables = program_tables(&t), walk = unit_walker(u);
    const char *symbol = arena_printf(u->arena, "%s_run", s->name);
    LLVMValueRef fn = unit_function(u, symbol, u->run_fn, LLVMInternalLinkage);
    LLVMTypeRef operands = LLVMArrayType2(u->i64, (uint64_t)t.most_operands * OPERAND_ROW);
    LLVMTypeRef ops = LLVMArrayType2(u->ptr, (uint64_t)t.most_ops);
    LLVMValueRef args[] = {LLVMGetParam(fn, 0),
                           LLVMGetParam(fn, 1),
                           LLVMGetParam(fn, 2),
                           tables,
                           LLVMBuildAlloca(u->b, operands, "operands"),
                           LLVMBuildAlloca(u->b, ops, "ops")};
    LLVMBuildCall2(u->b, LLVMGlobalGetValueType(walk), walk, args, 6, "");
    LLVMBuildRetVoid(u->b);
    return fn;
}
