// One kernel compiled into this process, or as assembly: for numeric tests, tuning and the count of
// register spills.
#include "module.h"
#include "kernel.h"
#include <ctype.h>

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

static bool contains(const char *line, size_t n, const char *what) {
    return memmem(line, n, what, strlen(what)) != NULL;
}

// The label of a function.
static bool is_function(const char *line, size_t n) {
    return (isalpha((unsigned char)line[0]) || line[0] == '_') && memchr(line, ':', n);
}

// A line of assembly that stores or loads a spilled vector register. Pairs of narrow registers are
// what a prologue saves, not spills: AArch64 annotates them alike.
static bool is_spill(const char *line, size_t n) {
    static const char *const marks[] = {" 4-byte ", "16-byte ", "32-byte ", "64-byte ",
                                        "x 8-byte "};
    const char *name = line + strspn(line, " \t");
    if ((strncmp(name, "stp\t", 4) == 0 || strncmp(name, "ldp\t", 4) == 0) && name[4] != 'q')
        return false;
    for (size_t m = 0; m < sizeof marks / sizeof *marks; m++) {
        const char *at = memmem(line, n, marks[m], strlen(marks[m]));
        if (!at) continue;
        at += strlen(marks[m]);
        if (strncmp(at, "Spill", 5) == 0 || strncmp(at, "Reload", 6) == 0 ||
            strncmp(at, "Folded", 6) == 0)
            return true;
    }
    return false;
}

int codegen_spills(const char *assembly, const char *prefix) {
    size_t n = strlen(prefix);
    bool inside = false;
    int count = 0;
    for (const char *line = assembly; *line;) {
        size_t length = strcspn(line, "\n");
        if (is_function(line, length)) inside = strncmp(line, prefix, n) == 0;
        count += inside && is_spill(line, length);
        line += length + (line[length] == '\n');
    }
    return count;
}

// LLVM's comments say at the start of a block whether it lies in a loop, on several lines.
static int repeated_spills(const char *assembly, bool in_called) {
    bool called = false, loop = false;
    int count = 0;
    for (const char *line = assembly; *line;) {
        size_t length = strcspn(line, "\n");
        bool function = is_function(line, length);
        if (function) called = in_called && memchr(line, '.', strcspn(line, ":"));
        if (function || contains(line, length, "%bb.") || strncmp(line, ".LBB", 4) == 0)
            loop = false;
        loop = loop || contains(line, length, "Loop Header: Depth=") ||
               contains(line, length, "in Loop: Header=") || contains(line, length, "Parent Loop ");
        count += (called || loop) && is_spill(line, length);
        line += length + (line[length] == '\n');
    }
    return count;
}

int codegen_loop_spills(const char *assembly) { return repeated_spills(assembly, false); }

int codegen_hot_spills(const char *assembly) { return repeated_spills(assembly, true); }
