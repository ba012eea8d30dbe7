// One kernel compiled into this process, or as assembly: for numeric tests, tuning and the count of
// register spills.
#include "module.h"
#include "kernel.h"

// A module that holds the kernel, external; NULL with the reason in *why.
static Unit *kernel_unit(Arena *a, const Target *t, const KernelSpec *spec, const char **symbol,
                         const char **why) {
    Str text = {.arena = a};
    Unit *u = unit_new(a, "jit", t, 2, diag_new(a, stderr));
    if (!u) {
        str_printf(&text, "LLVM has no code generator for %s", t->triple);
        *why = str_cstr(&text);
        return NULL;
    }
    Val fn = unit_kernel(u, spec);
    LLVMSetLinkage(fn, LLVMExternalLinkage);
    size_t n = 0;
    *symbol = arena_strdup(a, LLVMGetValueName2(fn, &n));
    return u;
}

KernelFn codegen_jit_kernel(Arena *a, const Target *t, const KernelSpec *spec, const char **why) {
    const char *symbol = NULL;
    Unit *u = kernel_unit(a, t, spec, &symbol, why);
    if (!u) return NULL;
    void *fn = unit_load(u, symbol, why);
    unit_free(u);
    return (KernelFn)(uintptr_t)fn;
}

PeakFn codegen_jit_peak(Arena *a, const Target *t, const char **why) {
    Unit *u = unit_new(a, "jit", t, 2, diag_new(a, stderr));
    if (!u) {
        *why = "LLVM has no code generator for the target";
        return NULL;
    }
    LLVMSetLinkage(emit_peak_loop(u), LLVMExternalLinkage);
    void *fn = unit_load(u, "peak_loop", why);
    unit_free(u);
    return (PeakFn)(uintptr_t)fn;
}

const char *codegen_kernel_asm(Arena *a, const Target *t, const KernelSpec *spec,
                               const char **why) {
    const char *symbol = NULL;
    Unit *u = kernel_unit(a, t, spec, &symbol, why);
    if (!u) return NULL;
    Str text = {.arena = a};
    unit_verify(u);
    LLVMSetTargetMachineAsmVerbosity(u->machine, 1);
    bool ok = machine_emit_text(u->machine, u->mod, &text, u->diag);
    unit_free(u);
    if (!ok) *why = "LLVM could not print assembly";
    return ok ? str_cstr(&text) : NULL;
}

int codegen_spills(const char *assembly, const char *prefix) {
    static const char *const marks[] = {"16-byte ", "32-byte ", "64-byte "};
    size_t n = strlen(prefix);
    bool inside = false;
    int count = 0;
    for (const char *line = assembly; *line; line = strchr(line, '\n') + 1) {
        size_t length = strcspn(line, "\n");
        const char *colon = memchr(line, ':', length);
        if (colon && colon > line && line[0] != '.' && line[0] != '\t' && line[0] != ' ')
            inside = strncmp(line, prefix, n) == 0;
        for (int m = 0; inside && m < 3; m++) {
            const char *at = strstr(line, marks[m]);
            if (!at || at >= line + length) continue;
            at += strlen(marks[m]);
            count += strncmp(at, "Spill", 5) == 0 || strncmp(at, "Reload", 6) == 0 ||
                     strncmp(at, "Folded", 6) == 0;
        }
        if (!line[length]) break;
    }
    return count;
}
