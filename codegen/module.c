// An LLVM module under construction: types, constants, functions, kernels shared by content. No
// LLVM pass runs over the IR: kernels are emitted in their final shape, the rest is cold.
#include "module.h"
#include "../runtime/cnxrt_clock.h"
#include "kernel.h"
#include <llvm-c/Analysis.h>

// ---- the module --------------------------------------------------------------------------------
LLVMValueRef unit_i64(Unit *u, int64_t v) { return LLVMConstInt(u->i64, (unsigned long long)v, 1); }

LLVMValueRef unit_i32(Unit *u, int64_t v) { return LLVMConstInt(u->i32, (unsigned long long)v, 1); }

LLVMValueRef unit_add(Unit *u, LLVMValueRef x, LLVMValueRef y) {
    return LLVMBuildNSWAdd(u->b, x, y, "");
}

LLVMValueRef unit_mul_c(Unit *u, LLVMValueRef x, int64_t c) {
    return c == 1 ? x : LLVMBuildNSWMul(u->b, x, unit_i64(u, c), "");
}

LLVMValueRef unit_constant(Unit *u, LLVMValueRef init, const char *symbol) {
    LLVMValueRef g = LLVMAddGlobal(u->mod, LLVMTypeOf(init), symbol);
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetLinkage(g, LLVMPrivateLinkage);
    LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
    return g;
}

LLVMValueRef unit_string(Unit *u, const char *s) {
    if (!s) return LLVMConstPointerNull(u->ptr);
    LLVMValueRef init = LLVMConstStringInContext2(u->ctx, s, strlen(s), 0);
    LLVMValueRef g = unit_constant(u, init, "s");
    LLVMSetAlignment(g, 1);
    return g;
}

LLVMValueRef unit_table(Unit *u, LLVMTypeRef elem, LLVMValueRef *v, int n, const char *symbol) {
    if (n == 0) return LLVMConstPointerNull(u->ptr);
    return unit_constant(u, LLVMConstArray2(elem, v, (uint64_t)n), symbol);
}

LLVMValueRef unit_function(Unit *u, const char *symbol, LLVMTypeRef type, LLVMLinkage linkage) {
    LLVMValueRef fn = LLVMAddFunction(u->mod, symbol, type);
    LLVMSetLinkage(fn, linkage);
    emit_target_attributes(&u->emit, fn);
    u->emit.fn = fn;
    LLVMPositionBuilderAtEnd(u->b, LLVMAppendBasicBlockInContext(u->ctx, fn, "entry"));
    return fn;
}

LLVMValueRef unit_extern(Unit *u, const char *symbol, LLVMTypeRef type) {
    LLVMValueRef fn = LLVMGetNamedFunction(u->mod, symbol);
    return fn ? fn : LLVMAddFunction(u->mod, symbol, type);
}

static Shared *kernel_shared(Unit *u, const KernelSpec *spec) {
    const char *key = spec_print(u->arena, spec);
    for (int i = 0; i < u->kernels.n; i++)
        if (strcmp(u->kernels.v[i].key, key) == 0) return &u->kernels.v[i];
    const char *symbol =
        arena_printf(u->arena, "%s_%d", kernel_info[spec->kind].name, u->kernels.n);
    vec_push(u->arena, &u->kernels, ((Shared){key, symbol, spec, NULL}));
    return &u->kernels.v[u->kernels.n - 1];
}

LLVMValueRef unit_kernel(Unit *u, const KernelSpec *spec) {
    Shared *k = kernel_shared(u, spec);
    if (k->fn) return k->fn;
    double start = cnxrt_seconds();
    k->fn = emit_kernel(&u->emit, k->spec, k->symbol);
    LLVMSetLinkage(k->fn, LLVMInternalLinkage);
    u->kernel_seconds += cnxrt_seconds() - start;
    return k->fn;
}

static void unit_types(Unit *u) {
    u->ptr = LLVMPointerTypeInContext(u->ctx, 0);
    u->i8 = LLVMInt8TypeInContext(u->ctx);
    u->i32 = LLVMInt32TypeInContext(u->ctx);
    u->i64 = LLVMInt64TypeInContext(u->ctx);
    u->f32 = LLVMFloatTypeInContext(u->ctx);
    u->f64 = LLVMDoubleTypeInContext(u->ctx);
    u->none = LLVMVoidTypeInContext(u->ctx);
    LLVMTypeRef p = u->ptr, l = u->i64;
    u->frame =
        LLVMStructTypeInContext(u->ctx, (LLVMTypeRef[]){p, p, p, p, p, p, l, p, p, p}, 10, 0);
    u->kernel_fn = LLVMFunctionType(u->none, (LLVMTypeRef[]){p, l, l, l, l}, 5, 0);
    u->run_fn = LLVMFunctionType(u->none, (LLVMTypeRef[]){p, l, l}, 3, 0);
}

static void module_empty(Unit *u) {
    u->mod = u->emit.mod = LLVMModuleCreateWithNameInContext(u->name, u->ctx);
    LLVMSetTarget(u->mod, u->target->triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(u->machine);
    LLVMSetModuleDataLayout(u->mod, layout);
    LLVMDisposeTargetData(layout);
}

Unit *unit_new(Arena *a, const char *name, const Target *t, int opt_level, Diag *d) {
    Unit *u = NEW(a, Unit);
    *u = (Unit){.arena = a, .diag = d, .target = t, .name = name, .opt_level = opt_level};
    u->machine = machine_new(t, opt_level, d);
    if (!u->machine) return NULL;
    u->ctx = LLVMContextCreate();
    unit_watch_frames(u);
    module_empty(u);
    unit_types(u);
    emit_init(&u->emit, a, u->ctx, u->mod, t);
    u->b = u->emit.b;
    return u;
}

void unit_free(Unit *u) {
    emit_free(&u->emit);
    LLVMDisposeModule(u->mod);
    LLVMDisposeTargetMachine(u->machine);
    LLVMContextDispose(u->ctx);
}

void unit_fill(Unit *u, UnitFill fill, const void *content) {
    u->fill = fill;
    u->content = content;
    fill(u, content);
    char *why = NULL;
    if (LLVMVerifyModule(u->mod, LLVMReturnStatusAction, &why))
        ice((Loc){0}, "generated LLVM IR is malformed: %s", why);
    LLVMDisposeMessage(why);
}

void unit_refill(Unit *u) {
    LLVMDisposeModule(u->mod);
    module_empty(u);
    for (int i = 0; i < u->kernels.n; i++) u->kernels.v[i].fn = NULL;
    unit_fill(u, u->fill, u->content);
}
