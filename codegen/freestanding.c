// Functions of freestanding objects, which need no other code: they lay the frame of a run out on
// the stack and in the caller's memory and call the program on the one thread there is.
//
//   memory, rounded up to 64 | arena: fixed + batch * per image + a slot | scratch | one result
//   after the other
//
// The last part takes the results the caller does not want.
#include "module.h"

enum { ALIGN = 64, MAX_PARAMS = 3 + MAX_PORTS };

static int64_t rounded(int64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t results_bytes(const Schedule *s) {
    int64_t sum = 0;
    for (int i = 0; i < schedule_ports(s, REGION_OUTPUT); i++)
        sum += rounded(schedule_port(s, REGION_OUTPUT, i)->bytes);
    return sum;
}

FreestandingMemory freestanding_memory(const CodegenModel *m) {
    static const char *const programs[] = {"infer", "features"};
    int64_t fixed = 0, image = 0, slot = 0, scratch = 0, results = 0;
    for (int i = 0; i < 2; i++) {
        const Schedule *s = model_program(m, programs[i]);
        if (!s) continue;
        fixed = most(fixed, s->fixed_bytes);
        image = most(image, s->image_bytes);
        slot = most(slot, s->slot_bytes);
        scratch = most(scratch, s->scratch_bytes);
        results = most(results, results_bytes(s));
    }
    int64_t per_image = rounded(image) + results;
    return (FreestandingMemory){
        ALIGN + rounded(fixed) + rounded(slot) + rounded(scratch) + per_image, per_image};
}

// ---- code --------------------------------------------------------------------------------------
static LLVMValueRef round_up(Unit *u, LLVMValueRef x) {
    LLVMValueRef more = unit_add(u, x, unit_i64(u, ALIGN - 1));
    return LLVMBuildAnd(u->b, more, unit_i64(u, -ALIGN), "");
}

static LLVMValueRef array_at(Unit *u, LLVMValueRef array, int i) {
    LLVMValueRef index = unit_i64(u, i);
    return LLVMBuildInBoundsGEP2(u->b, u->ptr, array, &index, 1, "");
}

// Pointers of the output ports: the caller's, or where they are NULL or missing, a part of `spare`.
static LLVMValueRef output_table(Unit *u, const Schedule *s, const LLVMValueRef *wanted,
                                 LLVMValueRef spare, LLVMValueRef batch) {
    int total = schedule_ports(s, REGION_OUTPUT);
    LLVMValueRef table = LLVMBuildAlloca(u->b, LLVMArrayType2(u->ptr, (uint64_t)total), "outputs");
    for (int i = 0; i < total; i++) {
        LLVMValueRef to = spare;
        if (wanted[i])
            to = LLVMBuildSelect(u->b, LLVMBuildIsNull(u->b, wanted[i], ""), spare, wanted[i], "");
        LLVMBuildStore(u->b, to, array_at(u, table, i));
        int64_t bytes = rounded(schedule_port(s, REGION_OUTPUT, i)->bytes);
        spare = emit_bytes_at(&u->emit, spare, unit_mul_c(u, batch, bytes));
    }
    return table;
}

// void NAME_suffix(memory, batch, images, float *x...): the program `run` with x... as its outputs
// number ports[0..n).
static void emit_runner(Unit *u, const char *suffix, const Schedule *s, LLVMValueRef run,
                        LLVMValueRef weights, const int *ports, int n) {
    LLVMTypeRef params[MAX_PARAMS] = {u->ptr, u->i64, u->ptr};
    for (int i = 0; i < n; i++) params[3 + i] = u->ptr;
    LLVMTypeRef type = LLVMFunctionType(u->none, params, 3 + (unsigned)n, 0);
    const char *symbol = arena_printf(u->arena, "%s_%s", u->name, suffix);
    LLVMValueRef fn = unit_function(u, symbol, type, LLVMExternalLinkage);
    LLVMValueRef batch = LLVMGetParam(fn, 1), wanted[MAX_PORTS] = {NULL};
    for (int i = 0; i < n; i++) wanted[ports[i]] = LLVMGetParam(fn, 3 + (unsigned)i);
    LLVMValueRef frame = LLVMBuildAlloca(u->b, u->frame, "frame");
    LLVMValueRef inputs = LLVMBuildAlloca(u->b, u->ptr, "inputs");
    LLVMBuildStore(u->b, LLVMGetParam(fn, 2), inputs);
    LLVMValueRef address = LLVMBuildPtrToInt(u->b, LLVMGetParam(fn, 0), u->i64, "");
    LLVMValueRef skip = LLVMBuildNSWSub(u->b, round_up(u, address), address, "");
    LLVMValueRef arena = emit_bytes_at(&u->emit, LLVMGetParam(fn, 0), skip);
    LLVMValueRef bytes = unit_add(u, unit_mul_c(u, batch, s->image_bytes),
                                  unit_i64(u, s->fixed_bytes + s->slot_bytes));
    LLVMValueRef scratch = emit_bytes_at(&u->emit, arena, round_up(u, bytes));
    LLVMValueRef spare = emit_bytes_at(&u->emit, scratch, unit_i64(u, rounded(s->scratch_bytes)));
    LLVMValueRef null = LLVMConstPointerNull(u->ptr);
    LLVMValueRef fields[] = {
        arena, scratch, weights, null, inputs, output_table(u, s, wanted, spare, batch),
        batch, null,    null,    null};
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++)
        LLVMBuildStore(u->b, fields[i], LLVMBuildStructGEP2(u->b, u->frame, frame, i, ""));
    LLVMBuildCall2(u->b, u->run_fn, run, (LLVMValueRef[]){frame, unit_i64(u, 0), unit_i64(u, 1)}, 3,
                   "");
    LLVMBuildRetVoid(u->b);
}

// The prepared weights as a constant of the module: no other tool is needed.
static LLVMValueRef emit_weights(Unit *u, const CodegenModel *m) {
    LLVMValueRef init = LLVMConstStringInContext2(u->ctx, m->embedded, (size_t)m->weight_bytes, 1);
    LLVMValueRef g = LLVMAddGlobal(u->mod, LLVMTypeOf(init), "weights");
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetLinkage(g, LLVMPrivateLinkage);
    LLVMSetAlignment(g, ALIGN);
    return g;
}

// Interrupt handlers of firmware and kernels use the stack right below the pointer.
static void forbid_red_zone(Unit *u) {
    unsigned kind = LLVMGetEnumAttributeKindForName("noredzone", 9);
    for (LLVMValueRef fn = LLVMGetFirstFunction(u->mod); fn; fn = LLVMGetNextFunction(fn))
        if (!LLVMIsDeclaration(fn))
            LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
                                    LLVMCreateEnumAttribute(u->ctx, kind, 0));
}

static void emit_one_output(Unit *u, const char *suffix, const Schedule *s, LLVMValueRef run,
                            LLVMValueRef weights, const char *output) {
    int port = schedule_port_find(s, REGION_OUTPUT, output);
    if (port >= 0) emit_runner(u, suffix, s, run, weights, &port, 1);
}

void emit_freestanding(Unit *u, const CodegenModel *m) {
    LLVMValueRef weights = emit_weights(u, m);
    const Schedule *infer = model_program(m, "infer"), *features = model_program(m, "features");
    if (infer) {
        LLVMValueRef run = emit_program(u, infer);
        emit_one_output(u, "infer", infer, run, weights, "logits");
        emit_one_output(u, "embed", infer, run, weights, "pooled");
    }
    if (features) {
        int ports[MAX_PORTS], n = schedule_feature_ports(features, ports);
        emit_runner(u, "features", features, emit_program(u, features), weights, ports, n);
    }
    unit_close_externs(u);
    forbid_red_zone(u);
}
