// The driver: one function per program that walks its steps, and one function per *distinct* step.
//
// Steps of equal structure (blocks of a stage) share a function; what differs between them, buffer
// offsets and the index of the first call, lies in a constant table of the program:
//
//   void step(frame, thread, nthreads, table):
//     units = images * row blocks * column blocks, split evenly and contiguously over threads
//     for each unit:  for each call:  ops[i] = address of operand i;  kernel(ops, r0, r1, c0, c1)
//   void list_step(frame, thread, nthreads, table):
//     elements of all parts, split evenly and contiguously over threads in whole cache lines
//     for each part that has some of them, for each block:  for each call:  as above
//   void program_run(frame, thread, nthreads):
//     step(..., table + 0); barrier; step(..., table + n); barrier; ...
//
// There is no barrier after the last step: the end of the parallel region is one. Semantics of
// addresses and units: ir/schedule.h.
#include "module.h"

// Fields of CnxrtFrame, in order.
enum {
    F_ARENA,
    F_SCRATCH,
    F_WEIGHTS,
    F_PARAMS,
    F_INPUTS,
    F_OUTPUTS,
    F_BATCH,
    F_TEAM,
    F_PROFILE,
    F_STATE
};

_Static_assert((int)STATE_PARAM == CNXRT_STATE_PARAM && (int)STATE_GRAD == CNXRT_STATE_GRAD &&
                   (int)STATE_M == CNXRT_STATE_M && (int)STATE_V == CNXRT_STATE_V &&
                   (int)STATE_EMA == CNXRT_STATE_EMA && (int)STATE_COUNT == CNXRT_STATES,
               "states of schedules are those of the runtime");

// A step function while it is emitted.
typedef struct {
    Unit *u;
    const Schedule *s;
    const Step *step;
    LLVMValueRef fn, frame, thread, nthreads, table;
    LLVMValueRef batch, profile;
    LLVMValueRef fields[10];                   // of the frame, once loaded
    LLVMValueRef image, r0, r1, c0, c1, block; // of the unit
    VEC(LLVMValueRef) bases;                   // of the operands of all calls, image 0
} StepEmit;

static LLVMValueRef min_c(Unit *u, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildSelect(u->b, LLVMBuildICmp(u->b, LLVMIntSLT, x, y, ""), x, y, "");
}

static LLVMValueRef max_c(Unit *u, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildSelect(u->b, LLVMBuildICmp(u->b, LLVMIntSLT, x, y, ""), y, x, "");
}

// A field of the frame, loaded at its first use: all uses are in the first block.
static LLVMValueRef frame_field(StepEmit *e, int field) {
    Unit *u = e->u;
    if (e->fields[field]) return e->fields[field];
    LLVMValueRef at = LLVMBuildStructGEP2(u->b, u->frame, e->frame, (unsigned)field, "");
    return e->fields[field] = LLVMBuildLoad2(u->b, field == F_BATCH ? u->i64 : u->ptr, at, "");
}

static LLVMValueRef table_entry(StepEmit *e, int i) {
    Unit *u = e->u;
    LLVMValueRef index = unit_i64(u, i);
    LLVMValueRef at = LLVMBuildInBoundsGEP2(u->b, u->i64, e->table, &index, 1, "");
    return LLVMBuildLoad2(u->b, u->i64, at, "");
}

static LLVMValueRef port_pointer(StepEmit *e, int field, int port) {
    Unit *u = e->u;
    LLVMValueRef index = unit_i64(u, port);
    LLVMValueRef at = LLVMBuildInBoundsGEP2(u->b, u->ptr, frame_field(e, field), &index, 1, "");
    return LLVMBuildLoad2(u->b, u->ptr, at, "");
}

// The address of an operand for image 0, row 0, block 0. `slot` is its entry of the table.
static LLVMValueRef operand_base(StepEmit *e, const Operand *op, int slot) {
    Unit *u = e->u;
    const Buffer *buf = &e->s->buffers.v[op->buffer];
    LLVMValueRef at = table_entry(e, slot), base = NULL;
    switch (buf->region) {
    case REGION_INPUT: return unit_bytes_at(u, port_pointer(e, F_INPUTS, buf->port), at);
    case REGION_OUTPUT: return unit_bytes_at(u, port_pointer(e, F_OUTPUTS, buf->port), at);
    case REGION_PARAM: return unit_bytes_at(u, frame_field(e, F_PARAMS), at);
    case REGION_WEIGHT: return unit_bytes_at(u, frame_field(e, F_WEIGHTS), at);
    case REGION_FIXED: return unit_bytes_at(u, frame_field(e, F_ARENA), at);
    case REGION_IMAGE:
        at = LLVMBuildNSWMul(u->b, at, e->batch, "");
        base = unit_bytes_at(u, frame_field(e, F_ARENA), at);
        return unit_bytes_at(u, base, unit_i64(u, e->s->fixed_bytes + op->offset));
    case REGION_STATE: return unit_bytes_at(u, port_pointer(e, F_STATE, buf->port), at);
    case REGION_SCRATCH:
        base = unit_bytes_at(u, frame_field(e, F_SCRATCH),
                             unit_mul_c(u, e->thread, e->s->scratch_bytes));
        return unit_bytes_at(u, base, at);
    }
    ice((Loc){0}, "region %d of buffer %s", buf->region, buf->name);
}

// What the table holds for an operand.
static int64_t operand_entry(const Schedule *s, const Operand *op) {
    const Buffer *buf = &s->buffers.v[op->buffer];
    switch (buf->region) {
    case REGION_INPUT:
    case REGION_OUTPUT: return op->offset;
    case REGION_IMAGE: return buf->offset;
    default: return buf->offset + op->offset;
    }
}

static bool operand_per_image(const Schedule *s, const Operand *op) {
    const Buffer *buf = &s->buffers.v[op->buffer];
    return (buf->region == REGION_IMAGE || buf->region == REGION_INPUT ||
            buf->region == REGION_OUTPUT) &&
           type_has_batch(buf->type);
}

// The address for the current unit.
static LLVMValueRef operand_address(StepEmit *e, const Operand *op, LLVMValueRef base) {
    Unit *u = e->u;
    const Buffer *buf = &e->s->buffers.v[op->buffer];
    if (e->image && operand_per_image(e->s, op))
        base = unit_bytes_at(u, base, unit_mul_c(u, e->image, buf->bytes));
    if (op->block_bytes) base = unit_bytes_at(u, base, unit_mul_c(u, e->block, op->block_bytes));
    if (buf->region == REGION_SCRATCH && op->row_bytes)
        base = LLVMBuildGEP2(u->b, u->i8, base,
                             (LLVMValueRef[]){unit_mul_c(u, e->r0, -op->row_bytes)}, 1, "");
    return base;
}

// if (profile) cnxrt_tick(profile, thread, call)
static void emit_tick(StepEmit *e, LLVMValueRef call) {
    Unit *u = e->u;
    LLVMBasicBlockRef tick = LLVMAppendBasicBlockInContext(u->ctx, e->fn, "tick");
    LLVMBasicBlockRef next = LLVMAppendBasicBlockInContext(u->ctx, e->fn, "");
    LLVMValueRef on = LLVMBuildIsNotNull(u->b, e->profile, "");
    LLVMBuildCondBr(u->b, on, tick, next);
    LLVMPositionBuilderAtEnd(u->b, tick);
    LLVMTypeRef type = LLVMFunctionType(u->none, (LLVMTypeRef[]){u->ptr, u->i64, u->i64}, 3, 0);
    LLVMBuildCall2(u->b, type, unit_extern(u, "cnxrt_tick", type),
                   (LLVMValueRef[]){e->profile, e->thread, call}, 3, "");
    LLVMBuildBr(u->b, next);
    LLVMPositionBuilderAtEnd(u->b, next);
}

// The end of a call's columns: of a step of one column block all of its own, whatever the step's.
static LLVMValueRef call_columns(StepEmit *e, const Call *call) {
    int64_t own = spec_int(&call->spec, call->spec.kind == K_DWCONV ? A_c : A_n);
    return e->step->col_block >= e->step->cols && own > 0 ? unit_i64(e->u, own) : e->c1;
}

// The first n calls of the step on the current unit; `first`: the index of call 0 in the program.
static void emit_calls(StepEmit *e, LLVMValueRef ops, const LLVMValueRef *kernels, int n,
                       LLVMValueRef first) {
    Unit *u = e->u;
    int base = 0;
    for (int c = 0; c < n; c++) {
        const Call *call = &e->step->calls.v[c];
        for (int i = 0; i < call->nops; i++) {
            LLVMValueRef index = unit_i64(u, i);
            LLVMValueRef at = LLVMBuildInBoundsGEP2(u->b, u->ptr, ops, &index, 1, "");
            LLVMBuildStore(u->b, operand_address(e, &call->ops[i], e->bases.v[base + i]), at);
        }
        base += call->nops;
        LLVMValueRef c1 = call_columns(e, call);
        LLVMBuildCall2(u->b, u->kernel_fn, kernels[c],
                       (LLVMValueRef[]){ops, e->r0, e->r1, e->c0, c1}, 5, "");
        emit_tick(e, unit_add(u, first, unit_i64(u, c)));
    }
}

// Steps that read blocks of weights which do not stay in L2 as a whole (gemm, order n) take all
// images for one block of columns before the next.
static bool columns_first(const Step *st) {
    for (int i = 0; i < st->calls.n; i++)
        if (spec_int(&st->calls.v[i].spec, A_order)) return true;
    return false;
}

// Row and column ranges of a unit, counted image by image, row block by row block, column block by
// column block; the latter first of all where columns_first says so. rows and blocks are per image;
// e->image stays NULL where there is one "image".
static void emit_unit(StepEmit *e, LLVMValueRef unit, LLVMValueRef rows, LLVMValueRef blocks) {
    Unit *u = e->u;
    const Step *st = e->step;
    int64_t col_block = st->col_block > 0 ? st->col_block : st->cols > 0 ? st->cols : 1;
    int64_t ncols = st->cols > 0 ? (st->cols - 1) / col_block + 1 : 1;
    LLVMValueRef col = unit_i64(u, 0);
    if (ncols > 1 && columns_first(st)) {
        LLVMValueRef each = blocks;
        if (st->over == OVER_IMAGE) each = LLVMBuildNSWMul(u->b, blocks, e->batch, "");
        col = LLVMBuildUDiv(u->b, unit, each, "");
        unit = LLVMBuildURem(u->b, unit, each, "");
    } else if (ncols > 1) {
        col = LLVMBuildURem(u->b, unit, unit_i64(u, ncols), "");
        unit = LLVMBuildUDiv(u->b, unit, unit_i64(u, ncols), "");
    }
    e->block = unit;
    e->image = NULL;
    if (st->over == OVER_IMAGE) {
        e->block = LLVMBuildURem(u->b, unit, blocks, "");
        e->image = LLVMBuildUDiv(u->b, unit, blocks, "");
    }
    if (st->row_block > 0) {
        e->r0 = unit_mul_c(u, e->block, st->row_block);
        e->r1 = min_c(u, unit_add(u, e->r0, unit_i64(u, st->row_block)), rows);
    } else {
        e->r0 = unit_i64(u, 0);
        e->r1 = rows;
    }
    e->c0 = unit_mul_c(u, col, col_block);
    e->c1 = min_c(u, unit_add(u, e->c0, unit_i64(u, col_block)), unit_i64(u, st->cols));
}

static LLVMValueRef row_blocks(StepEmit *e, LLVMValueRef rows) {
    Unit *u = e->u;
    int64_t block = e->step->row_block;
    if (block <= 0) return unit_i64(u, 1);
    if (e->step->over != OVER_FLAT) return unit_i64(u, (e->step->rows - 1) / block + 1);
    LLVMValueRef less = LLVMBuildNSWSub(u->b, rows, unit_i64(u, 1), "");
    return unit_add(u, LLVMBuildUDiv(u->b, less, unit_i64(u, block), ""), unit_i64(u, 1));
}

// The number of units of a step and, through rows and blocks, what emit_unit needs.
static LLVMValueRef unit_count(StepEmit *e, LLVMValueRef *rows, LLVMValueRef *blocks) {
    Unit *u = e->u;
    const Step *st = e->step;
    int64_t col_block = st->col_block > 0 ? st->col_block : st->cols > 0 ? st->cols : 1;
    int64_t ncols = st->cols > 0 ? (st->cols - 1) / col_block + 1 : 1;
    *rows = unit_i64(u, st->rows);
    if (st->over == OVER_FLAT) *rows = unit_mul_c(u, e->batch, st->rows);
    *blocks = row_blocks(e, *rows);
    LLVMValueRef units = unit_mul_c(u, *blocks, ncols);
    return st->over == OVER_IMAGE ? LLVMBuildNSWMul(u->b, units, e->batch, "") : units;
}

static LLVMValueRef share_begin(StepEmit *e, LLVMValueRef units, LLVMValueRef thread) {
    Unit *u = e->u;
    return LLVMBuildUDiv(u->b, LLVMBuildNSWMul(u->b, units, thread, ""), e->nthreads, "");
}

// for (i = from; i < end; i += step) between begin and end; carry: an i64 that the body updates.
typedef struct {
    LLVMBasicBlockRef head, done;
    LLVMValueRef i, carry;
} UnitLoop;

static UnitLoop unit_loop(StepEmit *e, LLVMValueRef from, LLVMValueRef end, LLVMValueRef carry) {
    Unit *u = e->u;
    UnitLoop l = {LLVMAppendBasicBlockInContext(u->ctx, e->fn, "head"),
                  LLVMAppendBasicBlockInContext(u->ctx, e->fn, "done"), NULL, NULL};
    LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(u->ctx, e->fn, "body");
    LLVMBasicBlockRef before = LLVMGetInsertBlock(u->b);
    LLVMBuildBr(u->b, l.head);
    LLVMPositionBuilderAtEnd(u->b, l.head);
    l.i = LLVMBuildPhi(u->b, u->i64, "i");
    LLVMAddIncoming(l.i, &from, &before, 1);
    if (carry) {
        l.carry = LLVMBuildPhi(u->b, u->i64, "carry");
        LLVMAddIncoming(l.carry, &carry, &before, 1);
    }
    LLVMBuildCondBr(u->b, LLVMBuildICmp(u->b, LLVMIntSLT, l.i, end, ""), body, l.done);
    LLVMPositionBuilderAtEnd(u->b, body);
    return l;
}

static void unit_loop_end(StepEmit *e, const UnitLoop *l, int64_t step, LLVMValueRef carry) {
    Unit *u = e->u;
    LLVMValueRef next = unit_add(u, l->i, unit_i64(u, step));
    LLVMBasicBlockRef latch = LLVMGetInsertBlock(u->b);
    LLVMBuildBr(u->b, l->head);
    LLVMAddIncoming(l->i, &next, &latch, 1);
    if (carry) LLVMAddIncoming(l->carry, &carry, &latch, 1);
    LLVMPositionBuilderAtEnd(u->b, l->done);
}

static void emit_bases(StepEmit *e, int calls, int slot) {
    for (int c = 0; c < calls; c++)
        for (int i = 0; i < e->step->calls.v[c].nops; i++)
            vec_push(e->u->arena, &e->bases, operand_base(e, &e->step->calls.v[c].ops[i], slot++));
}

static void emit_loop(StepEmit *e, LLVMValueRef ops, const LLVMValueRef *kernels) {
    Unit *u = e->u;
    LLVMValueRef rows = NULL, blocks = NULL;
    emit_bases(e, e->step->calls.n, 1);
    emit_tick(e, unit_i64(u, -1));
    LLVMValueRef units = unit_count(e, &rows, &blocks);
    LLVMValueRef begin = share_begin(e, units, e->thread);
    LLVMValueRef end = share_begin(e, units, unit_add(u, e->thread, unit_i64(u, 1)));
    UnitLoop l = unit_loop(e, begin, end, NULL);
    emit_unit(e, l.i, rows, blocks);
    emit_calls(e, ops, kernels, e->step->calls.n, table_entry(e, 0));
    unit_loop_end(e, &l, 1, NULL);
}

// The part l->i of a list step: its table is elements and operands; at: elements before it.
static void emit_part(StepEmit *e, LLVMValueRef ops, const LLVMValueRef *kernels, const UnitLoop *l,
                      LLVMValueRef first, LLVMValueRef begin, LLVMValueRef end) {
    Unit *u = e->u;
    int calls = list_calls(e->step);
    e->bases.n = 0;
    emit_bases(e, calls, 1);
    LLVMValueRef at = l->carry, elems = table_entry(e, 0);
    LLVMValueRef from = max_c(u, LLVMBuildNSWSub(u->b, begin, at, ""), unit_i64(u, 0));
    LLVMValueRef to = min_c(u, LLVMBuildNSWSub(u->b, end, at, ""), elems);
    UnitLoop blocks = unit_loop(e, from, to, NULL);
    e->r0 = unit_i64(u, 0);
    e->r1 = unit_i64(u, 1);
    e->c0 = blocks.i;
    e->c1 = min_c(u, unit_add(u, e->c0, unit_i64(u, e->step->col_block)), to);
    emit_calls(e, ops, kernels, calls, unit_add(u, first, unit_mul_c(u, l->i, calls)));
    unit_loop_end(e, &blocks, e->step->col_block, NULL);
}

static void emit_list(StepEmit *e, LLVMValueRef ops, const LLVMValueRef *kernels) {
    Unit *u = e->u;
    int64_t stride = 1;
    for (int c = 0; c < list_calls(e->step); c++) stride += e->step->calls.v[c].nops;
    for (int field = F_ARENA; field <= F_STATE; field++) frame_field(e, field);
    emit_tick(e, unit_i64(u, -1));
    LLVMValueRef first = table_entry(e, 0), table = e->table;
    LLVMValueRef lines = unit_i64(u, e->step->cols / LIST_QUANTUM);
    LLVMValueRef begin = unit_mul_c(u, share_begin(e, lines, e->thread), LIST_QUANTUM);
    LLVMValueRef end = share_begin(e, lines, unit_add(u, e->thread, unit_i64(u, 1)));
    end = unit_mul_c(u, end, LIST_QUANTUM);
    UnitLoop l = unit_loop(e, unit_i64(u, 0), unit_i64(u, e->step->rows), unit_i64(u, 0));
    LLVMValueRef entry = unit_add(u, unit_mul_c(u, l.i, stride), unit_i64(u, 1));
    e->table = LLVMBuildInBoundsGEP2(u->b, u->i64, table, &entry, 1, "");
    LLVMValueRef elems = unit_add(u, table_entry(e, 0), unit_i64(u, LIST_QUANTUM - 1));
    elems = LLVMBuildAnd(u->b, elems, unit_i64(u, -LIST_QUANTUM), "");
    LLVMValueRef next = unit_add(u, l.carry, elems);
    emit_part(e, ops, kernels, &l, first, begin, end);
    unit_loop_end(e, &l, 1, next);
}

// On purpose: scalar code that runs once per unit of work or less is translated quickly. In a
// program of hundreds of such functions optimising them takes a third of the compile time, and
// changes their size by 3 %.
static void translate_quickly(Unit *u, LLVMValueRef fn) {
    static const char *const names[] = {"noinline", "optnone"};
    for (int i = 0; i < 2; i++) {
        unsigned kind = LLVMGetEnumAttributeKindForName(names[i], strlen(names[i]));
        LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
                                LLVMCreateEnumAttribute(u->ctx, kind, 0));
    }
}

// Programs whose latency counts: their steps may take microseconds.
static bool is_inference(const Schedule *s) {
    return strcmp(s->name, "infer") == 0 || strcmp(s->name, "features") == 0;
}

static LLVMValueRef emit_step(Unit *u, const Schedule *s, const Step *st, const char *symbol) {
    LLVMValueRef *kernels = NEWN(u->arena, LLVMValueRef, st->calls.n);
    int most = 1;
    for (int c = 0; c < st->calls.n; c++) {
        kernels[c] = unit_kernel(u, &st->calls.v[c].spec);
        if (st->calls.v[c].nops > most) most = st->calls.v[c].nops;
    }
    LLVMTypeRef type =
        LLVMFunctionType(u->none, (LLVMTypeRef[]){u->ptr, u->i64, u->i64, u->ptr}, 4, 0);
    LLVMValueRef fn = unit_function(u, symbol, type, LLVMInternalLinkage);
    if (!is_inference(s)) translate_quickly(u, fn);
    StepEmit e = {.u = u, .s = s, .step = st, .fn = fn};
    e.frame = LLVMGetParam(fn, 0);
    e.thread = LLVMGetParam(fn, 1);
    e.nthreads = LLVMGetParam(fn, 2);
    e.table = LLVMGetParam(fn, 3);
    LLVMValueRef ops = LLVMBuildAlloca(u->b, LLVMArrayType2(u->ptr, (uint64_t)most), "ops");
    e.batch = frame_field(&e, F_BATCH);
    e.profile = frame_field(&e, F_PROFILE);
    if (st->over == OVER_LIST)
        emit_list(&e, ops, kernels);
    else
        emit_loop(&e, ops, kernels);
    LLVMBuildRetVoid(u->b);
    return fn;
}

// Equal text <=> the same step function serves both.
static const char *step_key(Unit *u, const Schedule *s, const Step *st) {
    Str k = {.arena = u->arena};
    str_printf(&k, "%d %lld/%lld %lld/%lld", st->over, (long long)st->rows,
               (long long)st->row_block, (long long)st->cols, (long long)st->col_block);
    for (int c = 0; c < st->calls.n; c++) {
        const Call *call = &st->calls.v[c];
        str_printf(&k, "; %s", spec_print(u->arena, &call->spec));
        for (int i = 0; i < call->nops; i++) {
            const Operand *op = &call->ops[i];
            const Buffer *buf = &s->buffers.v[op->buffer];
            str_printf(&k, " %d", buf->region);
            if (buf->region == REGION_INPUT || buf->region == REGION_OUTPUT ||
                buf->region == REGION_STATE)
                str_printf(&k, " port %d", buf->port);
            if (buf->region == REGION_IMAGE)
                str_printf(&k, " +%lld", (long long)(s->fixed_bytes + op->offset));
            if (buf->region == REGION_SCRATCH)
                str_printf(&k, " of %lld row %lld", (long long)s->scratch_bytes,
                           (long long)op->row_bytes);
            if (operand_per_image(s, op)) str_printf(&k, " image %lld", (long long)buf->bytes);
            str_printf(&k, " block %lld", (long long)op->block_bytes);
        }
    }
    return str_cstr(&k);
}

static LLVMValueRef unit_step(Unit *u, const Schedule *s, const Step *st) {
    const char *key = step_key(u, s, st);
    for (int i = 0; i < u->steps.n; i++)
        if (strcmp(u->steps.v[i].key, key) == 0) return u->steps.v[i].fn;
    LLVMValueRef fn = emit_step(u, s, st, arena_printf(u->arena, "step_%d", u->steps.n));
    vec_push(u->arena, &u->steps, ((Shared){key, fn}));
    return fn;
}

// void sync(frame, thread, nthreads): the barrier, when there is more than one thread.
static LLVMValueRef unit_sync(Unit *u) {
    LLVMValueRef fn = LLVMGetNamedFunction(u->mod, "sync");
    if (fn) return fn;
    fn = unit_function(u, "sync", u->run_fn, LLVMInternalLinkage);
    StepEmit e = {.u = u, .fn = fn, .frame = LLVMGetParam(fn, 0)};
    LLVMValueRef thread = LLVMGetParam(fn, 1), nthreads = LLVMGetParam(fn, 2);
    LLVMBasicBlockRef wait = LLVMAppendBasicBlockInContext(u->ctx, fn, "wait");
    LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(u->ctx, fn, "done");
    LLVMValueRef many = LLVMBuildICmp(u->b, LLVMIntSGT, nthreads, unit_i64(u, 1), "");
    LLVMBuildCondBr(u->b, many, wait, done);
    LLVMPositionBuilderAtEnd(u->b, wait);
    LLVMTypeRef type = LLVMFunctionType(u->none, (LLVMTypeRef[]){u->ptr, u->i64, u->i64}, 3, 0);
    LLVMBuildCall2(u->b, type, unit_extern(u, "cnxrt_barrier", type),
                   (LLVMValueRef[]){frame_field(&e, F_TEAM), thread, nthreads}, 3, "");
    LLVMBuildBr(u->b, done);
    LLVMPositionBuilderAtEnd(u->b, done);
    LLVMBuildRetVoid(u->b);
    return fn;
}

// The constants of all steps, each step's at first[i].
static LLVMValueRef emit_step_table(Unit *u, const Schedule *s, int64_t *first) {
    VEC(LLVMValueRef) entries = {0};
    int calls = 0;
    for (int i = 0; i < s->steps.n; i++) {
        const Step *st = &s->steps.v[i];
        first[i] = entries.n;
        vec_push(u->arena, &entries, unit_i64(u, calls));
        calls += st->calls.n;
        int part = st->over == OVER_LIST ? list_calls(st) : st->calls.n;
        for (int c = 0; c < st->calls.n; c++) {
            if (st->over == OVER_LIST && c % part == 0)
                vec_push(u->arena, &entries, unit_i64(u, list_elems(s, st, c / part)));
            for (int k = 0; k < st->calls.v[c].nops; k++)
                vec_push(u->arena, &entries, unit_i64(u, operand_entry(s, &st->calls.v[c].ops[k])));
        }
    }
    const char *symbol = arena_printf(u->arena, "%s_steps", s->name);
    return unit_table(u, u->i64, entries.v, entries.n, symbol);
}

LLVMValueRef emit_program(Unit *u, const Schedule *s) {
    int64_t *first = NEWN(u->arena, int64_t, s->steps.n + 1);
    LLVMValueRef table = emit_step_table(u, s, first);
    LLVMValueRef *steps = NEWN(u->arena, LLVMValueRef, s->steps.n + 1);
    for (int i = 0; i < s->steps.n; i++) steps[i] = unit_step(u, s, &s->steps.v[i]);
    LLVMValueRef sync = unit_sync(u);
    const char *symbol = arena_printf(u->arena, "%s_run", s->name);
    LLVMValueRef fn = unit_function(u, symbol, u->run_fn, LLVMInternalLinkage);
    translate_quickly(u, fn);
    LLVMValueRef args[4] = {LLVMGetParam(fn, 0), LLVMGetParam(fn, 1), LLVMGetParam(fn, 2), NULL};
    for (int i = 0; i < s->steps.n; i++) {
        LLVMValueRef index = unit_i64(u, first[i]);
        args[3] = LLVMConstInBoundsGEP2(u->i64, table, &index, 1);
        LLVMBuildCall2(u->b, LLVMGlobalGetValueType(steps[i]), steps[i], args, 4, "");
        if (i + 1 < s->steps.n) LLVMBuildCall2(u->b, u->run_fn, sync, args, 3, "");
    }
    LLVMBuildRetVoid(u->b);
    return fn;
}
