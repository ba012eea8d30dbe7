// The TargetMachine of a row of the target table, and emission of a module through it: object and
// assembly files, assembly text. Position-independent always, so that one object serves
// executables and shared libraries.
#include "module.h"
#include <llvm-c/Target.h>
#include <unistd.h>

// ---- the host ----------------------------------------------------------------------------------
// True when the host's feature list switches on every one of the comma-separated names.
static bool host_has(const char *features, const char *names) {
    for (const char *p = names; *p;) {
        size_t n = strcspn(p, ",");
        bool found = false;
        for (const char *f = features; *f && !found;) {
            size_t len = strcspn(f, ",");
            found = len == n + 1 && *f == '+' && memcmp(f + 1, p, n) == 0;
            f += len + (f[len] == ',');
        }
        if (!found) return false;
        p += n + (p[n] == ',');
    }
    return true;
}

// Rows that can describe a host, best first.
static const struct {
    const char *row, *arch, *needs;
} host_rows[] = {
    {"x86-64-v4", "x86_64",
     "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2,f16c,lzcnt,movbe"},
    {"x86-64-v3", "x86_64", "avx2,fma,bmi,bmi2,f16c,lzcnt,movbe"},
    {"x86-64-v2", "x86_64", "sse4.2,popcnt,cx16"},
    {"aarch64", "aarch64", ""},
};

static const Target *host_row(const char *triple, const char *features) {
    for (size_t i = 0; i < sizeof host_rows / sizeof *host_rows; i++)
        if (strncmp(triple, host_rows[i].arch, strlen(host_rows[i].arch)) == 0 &&
            host_has(features, host_rows[i].needs))
            return target_find(host_rows[i].row);
    return NULL;
}

// Sizes the system reports, where they are plausible.
static void host_caches(Target *t) {
    long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (l1 >= 16 << 10 && l1 <= 1 << 20) t->l1 = (int)l1;
    if (l2 >= 128 << 10 && l2 <= 64 << 20) t->l2 = (int)l2;
}

const Target *codegen_native_target(Arena *a) {
    char *triple = LLVMGetDefaultTargetTriple();
    char *cpu = LLVMGetHostCPUName(), *features = LLVMGetHostCPUFeatures();
    const Target *row = host_row(triple, features);
    Target *t = NULL;
    if (row) {
        t = NEW(a, Target);
        *t = *row;
        t->cpu = arena_strdup(a, cpu);
        t->features = arena_printf(a, "%s%s%s", features, *row->features ? "," : "", row->features);
        host_caches(t);
    }
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(features);
    return t;
}

// ---- the machine -------------------------------------------------------------------------------
LLVMTargetMachineRef machine_new(const Target *t, int opt_level, Diag *d) {
    LLVMInitializeAllTargetInfos();
    LLVMInitializeAllTargets();
    LLVMInitializeAllTargetMCs();
    LLVMInitializeAllAsmPrinters();
    LLVMInitializeAllAsmParsers();
    LLVMTargetRef target = NULL;
    char *why = NULL;
    if (LLVMGetTargetFromTriple(t->triple, &target, &why)) {
        diag_error(d, (Loc){0}, "target %s: LLVM has no code generator for %s: %s", t->name,
                   t->triple, why);
        LLVMDisposeMessage(why);
        return NULL;
    }
    LLVMCodeGenOptLevel level = opt_level <= 0   ? LLVMCodeGenLevelNone
                                : opt_level == 1 ? LLVMCodeGenLevelLess
                                : opt_level == 2 ? LLVMCodeGenLevelDefault
                                                 : LLVMCodeGenLevelAggressive;
    return LLVMCreateTargetMachine(target, t->triple, t->cpu, t->features, level, LLVMRelocPIC,
                                   LLVMCodeModelDefault);
}

bool machine_emit_file(LLVMTargetMachineRef m, LLVMModuleRef mod, const char *path,
                       LLVMCodeGenFileType kind, Diag *d) {
    char *why = NULL;
    if (!LLVMTargetMachineEmitToFile(m, mod, path, kind, &why)) return true;
    diag_error(d, (Loc){0}, "cannot write %s: %s", path, why ? why : "unknown error");
    LLVMDisposeMessage(why);
    return false;
}

bool machine_emit_text(LLVMTargetMachineRef m, LLVMModuleRef mod, Str *out, Diag *d) {
    char *why = NULL;
    LLVMMemoryBufferRef buf = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(m, mod, LLVMAssemblyFile, &why, &buf)) {
        diag_error(d, (Loc){0}, "cannot print assembly: %s", why ? why : "unknown error");
        LLVMDisposeMessage(why);
        return false;
    }
    str_addn(out, LLVMGetBufferStart(buf), LLVMGetBufferSize(buf));
    LLVMDisposeMemoryBuffer(buf);
    return true;
}
