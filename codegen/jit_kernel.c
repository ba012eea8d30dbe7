// One kernel compiled into this process, or as assembly: for numeric tests, tuning and the count of
// register spills (spills.c).
#include "module.h"
#include "kernel.h"

static void fill_kernel(Unit *u, const void *spec) {
    LLVMSetLinkage(unit_kernel(u, spec), LLVMExternalLinkage);
}

static void fill_peak(Unit *u, const void *unused) {
    (void)unused;
    LLVMSetLinkage(emit_peak_loop(u), LLVMExternalLinkage);
}

// A module that `fill` writes; NULL with the reason in *why.
static Unit *filled(Arena *a, const Target *t, UnitFill fill, const void *content,
                    const char **why) {
    Unit *u = unit_new(a, "jit", t, 2, diag_new(a, stderr));
    if (u)
        unit_fill(u, fill, content);
    else
        *why = arena_printf(a, "LLVM has no code generator for %s", t->triple);
    return u;
}

KernelFn codegen_jit_kernel(Arena *a, const Target *t, const KernelSpec *spec, const char **why) {
    Unit *u = filled(a, t, fill_kernel, spec, why);
    if (!u) return NULL;
    void *fn = unit_load(u, u->kernels.v[0].symbol, why);
    unit_free(u);
    return (KernelFn)(uintptr_t)fn;
}

const char *codegen_kernel_object(Arena *a, const Target *t, const KernelSpec *spec,
                                  const char *path, const char **why) {
    Unit *u = filled(a, t, fill_kernel, spec, why);
    if (!u) return NULL;
    bool ok = unit_emit_object(u, path);
    unit_free(u);
    if (!ok) *why = "LLVM could not write the object";
    return ok ? u->kernels.v[0].symbol : NULL;
}

PeakFn codegen_jit_peak(Arena *a, const Target *t, const char **why) {
    Unit *u = filled(a, t, fill_peak, NULL, why);
    if (!u) return NULL;
    void *fn = unit_load(u, "peak_loop", why);
    unit_free(u);
    return (PeakFn)(uintptr_t)fn;
}

const char *codegen_kernel_asm(Arena *a, const Target *t, const KernelSpec *spec,
                               const char **why) {
    Unit *u = filled(a, t, fill_kernel, spec, why);
    if (!u) return NULL;
    Str text = {.arena = a};
    bool ok = unit_emit_text(u, &text);
    unit_free(u);
    if (!ok) *why = "LLVM could not print assembly";
    return ok ? str_cstr(&text) : NULL;
}
