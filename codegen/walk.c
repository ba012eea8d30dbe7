// The walker: the functions that run any program of the module from its tables (walk.h).
//
//   walk(frame, thread, nthreads, program, operands, ops):
//     for each span:
//       by image: batch / nthreads images of the thread's own, one after the other: run_span
//       the images left, all threads together:  run_span, with a barrier before each step
//   run_span(w, span):  for each step:  loop or list
//   loop(w, step):
//     units = images * row blocks * column blocks, split evenly and contiguously over threads
//     for each unit:  run_calls
//   list(w, step):
//     elements of all parts, split evenly and contiguously over threads in whole cache lines
//     for each part that has some of them, for each block:  run_calls
//   run_calls(w, part, image, block, r0, r1, c0, c1):
//     for each call:  ops[i] = address of operand i;  kernel(ops, r0, r1, c0, c1)
//
// What does not depend on the unit is computed once per step (resolve). Semantics of addresses and
// units: ir/schedule.h.
#include "walk.h"

// What all functions know, in a table of words: the arguments of walk, and what is being run.
enum {
    W_FRAME,
    W_THREAD,
    W_THREADS,
    W_PROGRAM,
    W_OPERANDS,
    W_OPS,
    W_ARGS,
    W_SHARE = W_ARGS, // of SHARES equal parts of each step: which one is this thread's
    W_SHARES,
    W_IMAGE,   // the first image
    W_IMAGES,  // how many
    W_SLOTS,   // the image of slot 0
    W_STARTED, // 1: there was a step before
    W_WORDS
};

// An operand of the current part.
enum { ROW_BASE, ROW_IMAGE, ROW_BLOCK, ROW_ROW };
_Static_assert(ROW_ROW + 1 == OPERAND_ROW, "memory of the walker");

// ---- words -------------------------------------------------------------------------------------
static Val words_at(Emit *e, Val table, Val index) {
    return LLVMBuildInBoundsGEP2(e->b, e->i64, table, &index, 1, "");
}

static Val words_at_c(Emit *e, Val table, int i) { return words_at(e, table, emit_i64(e, i)); }

static Val word(Emit *e, Val table, int i) {
    return LLVMBuildLoad2(e->b, e->i64, words_at_c(e, table, i), "");
}

static void word_set(Emit *e, Val table, int i, Val v) {
    LLVMBuildStore(e->b, v, words_at_c(e, table, i));
}

// Of the steps.
static Val entries_at(Emit *e, Val table, Val index) {
    return LLVMBuildInBoundsGEP2(e->b, e->i32, table, &index, 1, "");
}

static Val entries_at_c(Emit *e, Val table, int i) { return entries_at(e, table, emit_i64(e, i)); }

static Val entry(Emit *e, Val table, int i) { return emit_index_load(e, table, emit_i64(e, i)); }

static Val entry_offset(Emit *e, Val operand) {
    Val v = LLVMBuildLoad2(e->b, e->i64, entries_at_c(e, operand, OPERAND_OFFSET), "");
    LLVMSetAlignment(v, 4);
    return v;
}

static Val times(Emit *e, Val x, Val y) { return LLVMBuildNSWMul(e->b, x, y, ""); }

static Val quotient(Emit *e, Val x, Val y) { return LLVMBuildUDiv(e->b, x, y, ""); }

static Val remainder_of(Emit *e, Val x, Val y) { return LLVMBuildURem(e->b, x, y, ""); }

static Val is_set(Emit *e, Val word) {
    return LLVMBuildICmp(e->b, LLVMIntNE, word, emit_i64(e, 0), "");
}

static Val choose(Emit *e, Val word, Val x, Val y) {
    return LLVMBuildSelect(e->b, is_set(e, word), x, y, "");
}

// ceil(x / y)
static Val blocks_of(Emit *e, Val x, Val y) {
    Val one = emit_i64(e, 1);
    return emit_iadd(e, quotient(e, emit_isub(e, x, one), y), one);
}

// Where the thread's share of n things begins; next: the one after it.
static Val share_begin(Emit *e, Val w, Val n, int next) {
    Val share = emit_iadd(e, word(e, w, W_SHARE), emit_i64(e, next));
    return quotient(e, times(e, n, share), word(e, w, W_SHARES));
}

// ---- calls -------------------------------------------------------------------------------------
// if (profile) cnxrt_tick(profile, thread, call)
static void emit_tick(Unit *u, Val w, Val call) {
    Emit *e = &u->emit;
    Val profile = emit_ptr(e, emit_ptr(e, w, W_FRAME), F_PROFILE);
    LLVMTypeRef type = LLVMFunctionType(u->none, (LLVMTypeRef[]){u->ptr, u->i64, u->i64}, 3, 0);
    If on;
    if_begin(e, &on, LLVMBuildIsNotNull(e->b, profile, ""), NULL, 0);
    emit_call(e, unit_extern(u, "cnxrt_tick", type), (Val[]){profile, word(e, w, W_THREAD), call},
              3);
    if_end(e, &on);
}

// The address of an operand but for what depends on the unit.
static Val operand_base(Emit *e, Val w, Val place, Val offset) {
    Val frame = emit_ptr(e, w, W_FRAME), thread = word(e, w, W_THREAD);
    Val field = word(e, place, PLACE_TABLE);
    Val table = LLVMBuildLoad2(e->b, e->ptr, words_at(e, frame, field), "");
    table = choose(e, field, table, frame);
    Val base = LLVMBuildLoad2(e->b, e->ptr, words_at(e, table, word(e, place, PLACE_INDEX)), "");
    Val batch = choose(e, word(e, place, PLACE_BATCHED), word(e, frame, F_BATCH), emit_i64(e, 1));
    Val bytes = emit_iadd(e, word(e, place, PLACE_CONSTANT), times(e, offset, batch));
    bytes = emit_iadd(e, bytes, times(e, thread, word(e, place, PLACE_THREAD)));
    bytes = emit_iadd(e, bytes, times(e, word(e, w, W_SLOTS), word(e, place, PLACE_SLOT)));
    return emit_bytes_at(e, base, bytes);
}

// void resolve(w, part): fills the rows of the part's operands; opens the step for the profile.
static Val emit_resolve(Unit *u) {
    Emit *e = &u->emit;
    Val fn = emit_internal(e, "walk_resolve", (LLVMTypeRef[]){u->ptr, u->ptr}, 2);
    Val w = LLVMGetParam(fn, 0), part = LLVMGetParam(fn, 1);
    Val places = emit_ptr(e, emit_ptr(e, w, W_PROGRAM), PROGRAM_PLACES);
    Val calls = emit_imul(e, entry(e, part, PART_CALLS), CALL_WORDS);
    Val walk[] = {entries_at(e, entries_at_c(e, part, PART_WORDS), calls),
                  emit_ptr(e, w, W_OPERANDS)};
    Loop l;
    loop_begin(e, &l, emit_i64(e, 0), entry(e, part, PART_OPERANDS), 1, walk, 2);
    Val place = words_at(e, places, emit_imul(e, entry(e, walk[0], OPERAND_PLACE), PLACE_WORDS));
    Val offset = entry_offset(e, walk[0]);
    word_set(e, walk[1], ROW_BASE, operand_base(e, w, place, offset));
    word_set(e, walk[1], ROW_IMAGE, word(e, place, PLACE_IMAGE));
    word_set(e, walk[1], ROW_BLOCK, word(e, place, PLACE_BLOCK));
    word_set(e, walk[1], ROW_ROW, word(e, place, PLACE_ROW));
    walk[0] = entries_at_c(e, walk[0], OPERAND_WORDS);
    walk[1] = words_at_c(e, walk[1], OPERAND_ROW);
    loop_end(e, &l);
    emit_return(e);
    return fn;
}

// Rows and columns of a unit, as parameters of run_calls.
enum { U_IMAGE, U_BLOCK, U_R0, U_R1, U_C0, U_C1, U_PARAMS };

// ops[i] = address of operand i of a call, for all of them; *row: their rows, left after the last.
static void emit_operands(Emit *e, Val ops, Val n, Val *row, const Val *unit) {
    static const int by[] = {U_IMAGE, U_BLOCK, U_R0};
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), n, 1, row, 1), at = emit_ptr(e, *row, ROW_BASE);
    for (int k = 0; k < 3; k++)
        at = emit_bytes_at(e, at, times(e, unit[by[k]], word(e, *row, ROW_IMAGE + k)));
    LLVMBuildStore(e->b, at, words_at(e, ops, i));
    *row = words_at_c(e, *row, OPERAND_ROW);
    loop_end(e, &l);
}

// void run_calls(w, part, image, block, r0, r1, c0, c1)
static Val emit_run_calls(Unit *u) {
    Emit *e = &u->emit;
    LLVMTypeRef types[2 + U_PARAMS] = {u->ptr, u->ptr};
    for (int i = 0; i < U_PARAMS; i++) types[2 + i] = u->i64;
    Val fn = emit_internal(e, "walk_calls", types, 2 + U_PARAMS), unit[U_PARAMS];
    for (unsigned i = 0; i < U_PARAMS; i++) unit[i] = LLVMGetParam(fn, 2 + i);
    Val w = LLVMGetParam(fn, 0), part = LLVMGetParam(fn, 1), ops = emit_ptr(e, w, W_OPS);
    Val kernels = emit_ptr(e, emit_ptr(e, w, W_PROGRAM), PROGRAM_KERNELS);
    Val walk[] = {entries_at_c(e, part, PART_WORDS), emit_ptr(e, w, W_OPERANDS)};
    Loop l;
    Val i = loop_begin(e, &l, emit_i64(e, 0), entry(e, part, PART_CALLS), 1, walk, 2);
    emit_operands(e, ops, entry(e, walk[0], CALL_OPERANDS), &walk[1], unit);
    Val kernel =
        LLVMBuildLoad2(e->b, u->ptr, words_at(e, kernels, entry(e, walk[0], CALL_KERNEL)), "");
    Val own = entry(e, walk[0], CALL_COLS), c1 = choose(e, own, own, unit[U_C1]);
    LLVMBuildCall2(e->b, u->kernel_fn, kernel, (Val[]){ops, unit[U_R0], unit[U_R1], unit[U_C0], c1},
                   5, "");
    emit_tick(u, w, emit_iadd(e, entry(e, part, PART_FIRST), i));
    walk[0] = entries_at_c(e, walk[0], CALL_WORDS);
    loop_end(e, &l);
    emit_return(e);
    return fn;
}

// ---- steps -------------------------------------------------------------------------------------
typedef struct {
    Val resolve, run_calls;
    Val w, step; // parameters of the step's function
    Val image, images, rows, blocks, cols;
} StepEmit;

static StepEmit step_begin(Unit *u, const char *symbol, Val resolve, Val run_calls, Val *fn) {
    Emit *e = &u->emit;
    *fn = emit_internal(e, symbol, (LLVMTypeRef[]){u->ptr, u->ptr}, 2);
    StepEmit s = {.resolve = resolve, .run_calls = run_calls};
    s.w = LLVMGetParam(*fn, 0);
    s.step = LLVMGetParam(*fn, 1);
    return s;
}

// Runs the calls of a unit, counted image by image, row block by row block, column block by column
// block; the latter first of all where the step says so.
static void emit_unit(Emit *e, const StepEmit *s, Val part, Val i) {
    Val step = s->step, col_blocks = entry(e, step, STEP_COL_BLOCKS);
    Val first = entry(e, step, STEP_COLUMNS_FIRST), each = times(e, s->images, s->blocks);
    Val col = choose(e, first, quotient(e, i, each), remainder_of(e, i, col_blocks));
    Val rest = choose(e, first, remainder_of(e, i, each), quotient(e, i, col_blocks));
    Val row_block = entry(e, step, STEP_ROW_BLOCK), col_block = entry(e, step, STEP_COL_BLOCK);
    Val unit[2 + U_PARAMS] = {s->w, part}, *u = unit + 2;
    u[U_IMAGE] = emit_iadd(e, s->image, quotient(e, rest, s->blocks));
    u[U_BLOCK] = remainder_of(e, rest, s->blocks);
    u[U_R0] = times(e, u[U_BLOCK], row_block);
    u[U_R1] = emit_imin(e, emit_iadd(e, u[U_R0], row_block), s->rows);
    u[U_C0] = times(e, col, col_block);
    u[U_C1] = emit_imin(e, emit_iadd(e, u[U_C0], col_block), s->cols);
    emit_call(e, s->run_calls, unit, 2 + U_PARAMS);
}

// void loop(w, step)
static Val emit_loop(Unit *u, Val resolve, Val run_calls) {
    Emit *e = &u->emit;
    Val fn = NULL;
    StepEmit s = step_begin(u, "walk_loop", resolve, run_calls, &fn);
    Val part = entries_at_c(e, s.step, STEP_WORDS), one = emit_i64(e, 1);
    emit_call(e, resolve, (Val[]){s.w, part}, 2);
    emit_tick(u, s.w, emit_i64(e, -1));
    Val batch = word(e, emit_ptr(e, s.w, W_FRAME), F_BATCH), rows = entry(e, s.step, STEP_ROWS);
    Val by_image = entry(e, s.step, STEP_IMAGES);
    s.image = choose(e, by_image, word(e, s.w, W_IMAGE), emit_i64(e, 0));
    s.images = choose(e, by_image, word(e, s.w, W_IMAGES), one);
    s.rows = times(e, rows, choose(e, entry(e, s.step, STEP_FLAT), batch, one));
    s.blocks = blocks_of(e, s.rows, entry(e, s.step, STEP_ROW_BLOCK));
    s.cols = entry(e, s.step, STEP_COLS);
    Val units = times(e, times(e, s.images, s.blocks), entry(e, s.step, STEP_COL_BLOCKS));
    Loop l;
    Val i =
        loop_begin(e, &l, share_begin(e, s.w, units, 0), share_begin(e, s.w, units, 1), 1, NULL, 0);
    emit_unit(e, &s, part, i);
    loop_end(e, &l);
    emit_return(e);
    return fn;
}

// The elements [begin, end) of a list that are in a part; before: elements of the parts before it.
static void emit_part(Emit *e, const StepEmit *s, Val part, Val before, Val begin, Val end) {
    Val zero = emit_i64(e, 0), elems = entry(e, part, PART_ELEMS);
    Val from = emit_imax(e, emit_isub(e, begin, before), zero);
    Val to = emit_imin(e, emit_isub(e, end, before), elems);
    Val block = entry(e, s->step, STEP_COL_BLOCK);
    If any;
    if_begin(e, &any, emit_less(e, from, to), NULL, 0);
    emit_call(e, s->resolve, (Val[]){s->w, part}, 2);
    Loop l;
    Val i = loop_begin(e, &l, zero, blocks_of(e, emit_isub(e, to, from), block), 1, NULL, 0);
    Val c0 = emit_iadd(e, from, times(e, i, block)), c1 = emit_iadd(e, c0, block);
    emit_call(e, s->run_calls,
              (Val[]){s->w, part, zero, zero, zero, emit_i64(e, 1), c0, emit_imin(e, c1, to)},
              2 + U_PARAMS);
    loop_end(e, &l);
    if_end(e, &any);
}

// void list(w, step)
static Val emit_list(Unit *u, Val resolve, Val run_calls) {
    Emit *e = &u->emit;
    Val fn = NULL;
    StepEmit s = step_begin(u, "walk_list", resolve, run_calls, &fn);
    emit_tick(u, s.w, emit_i64(e, -1));
    Val lines = emit_idiv(e, entry(e, s.step, STEP_COLS), LIST_QUANTUM);
    Val begin = emit_imul(e, share_begin(e, s.w, lines, 0), LIST_QUANTUM);
    Val end = emit_imul(e, share_begin(e, s.w, lines, 1), LIST_QUANTUM);
    Val walk[] = {entries_at_c(e, s.step, STEP_WORDS), emit_i64(e, 0)};
    Loop l;
    loop_begin(e, &l, emit_i64(e, 0), entry(e, s.step, STEP_ROWS), 1, walk, 2);
    emit_part(e, &s, walk[0], walk[1], begin, end);
    Val elems = blocks_of(e, entry(e, walk[0], PART_ELEMS), emit_i64(e, LIST_QUANTUM));
    walk[1] = emit_iadd(e, walk[1], emit_imul(e, elems, LIST_QUANTUM));
    walk[0] = entries_at(e, walk[0], entry(e, walk[0], PART_LENGTH));
    loop_end(e, &l);
    emit_return(e);
    return fn;
}

// ---- programs ----------------------------------------------------------------------------------
// The barrier, when there is more than one thread and a step before.
static void emit_barrier(Unit *u, Val w) {
    Emit *e = &u->emit;
    Val thread = word(e, w, W_THREAD), threads = word(e, w, W_THREADS);
    Val team = emit_ptr(e, emit_ptr(e, w, W_FRAME), F_TEAM);
    Val many = emit_less(e, emit_i64(e, 1), threads), started = is_set(e, word(e, w, W_STARTED));
    LLVMTypeRef type = LLVMFunctionType(u->none, (LLVMTypeRef[]){u->ptr, u->i64, u->i64}, 3, 0);
    If wait;
    if_begin(e, &wait, LLVMBuildAnd(e->b, many, started, ""), NULL, 0);
    emit_call(e, unit_extern(u, "cnxrt_barrier", type), (Val[]){team, thread, threads}, 3);
    if_end(e, &wait);
    word_set(e, w, W_STARTED, emit_i64(e, 1));
}

static void call_if(Emit *e, Val cond, Val fn, Val w, Val step) {
    If is;
    if_begin(e, &is, cond, NULL, 0);
    emit_call(e, fn, (Val[]){w, step}, 2);
    if_end(e, &is);
}

// void run_span(w, span)
static Val emit_run_span(Unit *u) {
    Emit *e = &u->emit;
    Val resolve = emit_resolve(u), calls = emit_run_calls(u);
    Val loop = emit_loop(u, resolve, calls), list = emit_list(u, resolve, calls);
    Val fn = emit_internal(e, "walk_span", (LLVMTypeRef[]){u->ptr, u->ptr}, 2);
    Val w = LLVMGetParam(fn, 0), span = LLVMGetParam(fn, 1);
    Val step = entries_at_c(e, span, SPAN_WORDS);
    Val together = emit_less(e, emit_i64(e, 1), word(e, w, W_SHARES));
    Loop l;
    loop_begin(e, &l, emit_i64(e, 0), entry(e, span, SPAN_STEPS), 1, &step, 1);
    If wait;
    if_begin(e, &wait, together, NULL, 0);
    emit_barrier(u, w);
    if_end(e, &wait);
    Val is_list = is_set(e, entry(e, step, STEP_LIST));
    call_if(e, is_list, list, w, step);
    call_if(e, LLVMBuildNot(e->b, is_list, ""), loop, w, step);
    step = entries_at(e, step, entry(e, step, STEP_LENGTH));
    loop_end(e, &l);
    emit_return(e);
    return fn;
}

// What is run next: `images` images from `image` on, the first of them in slot `slot`.
static void set_images(Emit *e, Val w, Val image, Val images, Val slot) {
    word_set(e, w, W_IMAGE, image);
    word_set(e, w, W_IMAGES, images);
    word_set(e, w, W_SLOTS, emit_isub(e, image, slot));
}

static void set_share(Emit *e, Val w, Val share, Val shares) {
    word_set(e, w, W_SHARE, share);
    word_set(e, w, W_SHARES, shares);
}

// Each thread `own` images, one after the other.
static void emit_own_images(Unit *u, Val w, Val run_span, Val span, Val own) {
    Emit *e = &u->emit;
    Val zero = emit_i64(e, 0), one = emit_i64(e, 1), thread = word(e, w, W_THREAD);
    If any;
    if_begin(e, &any, is_set(e, own), NULL, 0);
    emit_barrier(u, w);
    set_share(e, w, zero, one);
    Loop l;
    Val i = loop_begin(e, &l, zero, own, 1, NULL, 0);
    set_images(e, w, emit_iadd(e, times(e, thread, own), i), one, thread);
    emit_call(e, run_span, (Val[]){w, span}, 2);
    loop_end(e, &l);
    if_end(e, &any);
}

LLVMValueRef unit_walker(Unit *u) {
    Emit *e = &u->emit;
    Val fn = LLVMGetNamedFunction(u->mod, "walk");
    if (fn) return fn;
    Val run_span = emit_run_span(u), zero = emit_i64(e, 0);
    LLVMTypeRef p = u->ptr, i = u->i64;
    fn = emit_internal(e, "walk", (LLVMTypeRef[]){p, i, i, p, p, p}, W_ARGS);
    Val w = emit_stack(e, u->i64, W_WORDS), program = LLVMGetParam(fn, W_PROGRAM);
    for (int k = 0; k < W_ARGS; k++) word_set(e, w, k, LLVMGetParam(fn, (unsigned)k));
    word_set(e, w, W_STARTED, zero);
    Val thread = LLVMGetParam(fn, W_THREAD), threads = LLVMGetParam(fn, W_THREADS);
    Val batch = word(e, LLVMGetParam(fn, W_FRAME), F_BATCH);
    Val span = emit_ptr(e, program, PROGRAM_SPANS);
    Loop l;
    loop_begin(e, &l, zero, word(e, program, PROGRAM_COUNT), 1, &span, 1);
    Val own = choose(e, entry(e, span, SPAN_BY_IMAGE), quotient(e, batch, threads), zero);
    emit_own_images(u, w, run_span, span, own);
    Val done = times(e, own, threads);
    set_share(e, w, thread, threads);
    set_images(e, w, done, emit_isub(e, batch, done), zero);
    call_if(e, emit_less(e, done, batch), run_span, w, span);
    span = entries_at(e, span, entry(e, span, SPAN_LENGTH));
    loop_end(e, &l);
    emit_return(e);
    return fn;
}
