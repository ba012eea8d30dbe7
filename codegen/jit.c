// Generated code in this process: modules are emitted as objects by their own TargetMachine and
// linked in memory. Used to run `prepare` at build time (embedded weights) and by tests. The code
// of jit functions lives until the process ends.
#include "module.h"
#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>
#include <stdlib.h>

void unit_close_externs(Unit *u) {
    static const char *const names[] = {"cnxrt_barrier", "cnxrt_tick"};
    for (int i = 0; i < 2; i++) {
        LLVMValueRef fn = LLVMGetNamedFunction(u->mod, names[i]);
        if (!fn) continue;
        LLVMPositionBuilderAtEnd(u->b, LLVMAppendBasicBlockInContext(u->ctx, fn, "entry"));
        LLVMBuildRetVoid(u->b);
        LLVMSetLinkage(fn, LLVMInternalLinkage);
    }
}

static const char *take_message(Arena *a, LLVMErrorRef error) {
    char *text = LLVMGetErrorMessage(error);
    const char *copy = arena_strdup(a, text);
    LLVMDisposeErrorMessage(text);
    return copy;
}

void *unit_load(Unit *u, const char *symbol, const char **why) {
    LLVMMemoryBufferRef object = unit_emit(u, LLVMObjectFile, why);
    if (!object) return NULL;
    LLVMOrcLLJITRef jit = NULL;
    LLVMOrcExecutorAddress at = 0;
    LLVMErrorRef error = LLVMOrcCreateLLJIT(&jit, NULL);
    if (!error) error = LLVMOrcLLJITAddObjectFile(jit, LLVMOrcLLJITGetMainJITDylib(jit), object);
    if (!error) error = LLVMOrcLLJITLookup(jit, &at, symbol);
    u->jit = jit;
    if (!error) return (void *)(uintptr_t)at;
    *why = take_message(u->arena, error);
    return NULL;
}

static void fill_program(Unit *u, const void *schedule) {
    LLVMSetLinkage(emit_program(u, schedule), LLVMExternalLinkage);
    unit_close_externs(u);
}

static CodegenRunFn load_program(Unit *u, const Schedule *s, Diag *d) {
    unit_fill(u, fill_program, s);
    const char *why = "";
    void *fn = unit_load(u, arena_printf(u->arena, "%s_run", s->name), &why);
    if (!fn) diag_error(d, (Loc){0}, "cannot run program %s in memory: %s", s->name, why);
    return (CodegenRunFn)(uintptr_t)fn;
}

CodegenRunFn codegen_jit_program(Arena *a, const Schedule *s, Diag *d) {
    Unit *u = unit_new(a, "jit", s->target, 2, d);
    if (!u) return NULL;
    CodegenRunFn run = load_program(u, s, d);
    unit_free(u);
    return run;
}

const char *codegen_program_object(Arena *a, const Schedule *s, const char *path, Diag *d) {
    Unit *u = unit_new(a, "jit", s->target, 2, d);
    if (!u) return NULL;
    unit_fill(u, fill_program, s);
    bool ok = unit_emit_object(u, path);
    unit_free(u);
    return ok ? arena_printf(a, "%s_run", s->name) : NULL;
}

// One run with memory of its own for the time.
static bool run_once(CodegenRunFn run, const Schedule *s, const void *params, void *weights,
                     Diag *d) {
    void *arena = NULL, *scratch = NULL;
    int64_t bytes = s->fixed_bytes + s->image_bytes + s->slot_bytes;
    if (posix_memalign(&arena, 64, (size_t)bytes + 64) ||
        posix_memalign(&scratch, 64, (size_t)s->scratch_bytes + 64)) {
        free(arena);
        diag_error(d, (Loc){0}, "out of memory: preparing the weights takes %.1f MB",
                   (double)(bytes + s->scratch_bytes) / 1e6);
        return false;
    }
    CnxrtFrame frame = {
        .arena = arena, .scratch = scratch, .weights = weights, .params = params, .batch = 1};
    run(&frame, 0, 1);
    free(arena);
    free(scratch);
    return true;
}

bool codegen_prepare(Arena *a, const Schedule *prepare, const void *params, void *weights,
                     Diag *d) {
    // The kernels of prepare mean the same on every target, so cross builds run them here.
    Schedule host = *prepare;
    host.target = codegen_native_target(a);
    if (!host.target) {
        diag_error(d, (Loc){0}, "weights cannot be embedded here: no target describes this CPU");
        diag_hint(d, "a machine that runs one of the targets of 'cnxc targets' can embed them");
        return false;
    }
    Unit *u = unit_new(a, "jit", host.target, 2, d);
    if (!u) return false;
    CodegenRunFn run = load_program(u, &host, d);
    bool ok = run && run_once(run, &host, params, weights, d);
    if (u->jit) LLVMConsumeError(LLVMOrcDisposeLLJIT(u->jit));
    unit_free(u);
    return ok;
}
