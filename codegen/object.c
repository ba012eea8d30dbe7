// The TargetMachine of a row of the target table, the host's row, and what an object holds.
// Position-independent always, so that one object serves executables and shared libraries.
#include "module.h"
#include <llvm-c/Object.h>
#include <llvm-c/Target.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

// The vector length of scalable vectors, by the names of the table: LLVM does not report it.
static const char *host_vector_length(void) {
    long bytes = 0;
#if defined(__aarch64__)
    int vl = prctl(PR_SVE_GET_VL);
    bytes = vl < 0 ? 0 : vl & PR_SVE_VL_LEN_MASK;
    return bytes >= 32 ? ",+sve256" : "";
#elif defined(__riscv) && __riscv_xlen == 64
    if (getauxval(AT_HWCAP) >> ('V' - 'A') & 1)
        __asm__ volatile("csrr %0, 0xc22" : "=r"(bytes)); // vlenb
    return bytes >= 32 ? ",+zvl256b" : "";
#endif
    return bytes ? "?" : "";
}

// Linux saves tiles only for processes that ask.
static bool host_grants_tiles(void) {
#if defined(__x86_64__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#endif
    return false;
}

typedef struct {
    char *triple, *cpu;
    const char *features; // LLVM's names
    const char *has;      // and the vector length
} Host;

static Host host_read(Arena *a) {
    char *features = LLVMGetHostCPUFeatures();
    Host h = {LLVMGetDefaultTargetTriple(), LLVMGetHostCPUName(), arena_strdup(a, features),
              arena_printf(a, "%s%s", features, host_vector_length())};
    LLVMDisposeMessage(features);
    return h;
}

static void host_free(Host *h) {
    LLVMDisposeMessage(h->triple);
    LLVMDisposeMessage(h->cpu);
}

static bool host_runs(const Host *h, const Target *t) {
    size_t arch = strcspn(t->triple, "-") + 1;
    return strncmp(h->triple, t->triple, arch) == 0 && host_has(h->has, t->needs) &&
           (!t->amx || host_grants_tiles());
}

bool codegen_host_runs(Arena *a, const Target *t) {
    Host h = host_read(a);
    bool runs = host_runs(&h, t);
    host_free(&h);
    return runs;
}

// Sizes the system reports, where they are plausible.
static void host_caches(Target *t) {
    long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (l1 >= 16 << 10 && l1 <= 1 << 20) t->l1 = (int)l1;
    if (l2 >= 128 << 10 && l2 <= 64 << 20) t->l2 = (int)l2;
}

const Target *codegen_native_target(Arena *a) {
    Host h = host_read(a);
    const Target *row = NULL;
    for (int i = 0; i < target_count; i++)
        if (host_runs(&h, &target_table[i])) row = &target_table[i];
    Target *t = NULL;
    if (row) {
        t = NEW(a, Target);
        *t = *row;
        t->cpu = arena_strdup(a, h.cpu);
        t->features =
            arena_printf(a, "%s%s%s", h.features, *row->features ? "," : "", row->features);
        host_caches(t);
    }
    host_free(&h);
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

// "gemm_12.8xnr" -> "gemm", "train_run" -> "run"
static const char *kind_of_symbol(Arena *a, const char *symbol) {
    size_t n = strcspn(symbol, ".");
    if (n > 4 && memcmp(symbol + n - 4, "_run", 4) == 0) return "run";
    while (n > 0 && symbol[n - 1] >= '0' && symbol[n - 1] <= '9') n--;
    while (n > 0 && symbol[n - 1] == '_') n--;
    return arena_strndup(a, symbol, n);
}

static void add_size(Arena *a, CodeSizes *sizes, const char *kind, uint64_t bytes) {
    int i = 0;
    while (i < sizes->n && strcmp(sizes->v[i].kind, kind) != 0) i++;
    if (i == sizes->n) vec_push(a, sizes, ((CodeSize){.kind = kind}));
    sizes->v[i].functions++;
    sizes->v[i].bytes += bytes;
}

static int by_bytes(const void *x, const void *y) {
    uint64_t p = ((const CodeSize *)x)->bytes, q = ((const CodeSize *)y)->bytes;
    return (p < q) - (p > q);
}

static bool is_code(LLVMBinaryRef binary, LLVMSymbolIteratorRef symbol) {
    LLVMSectionIteratorRef section = LLVMObjectFileCopySectionIterator(binary);
    LLVMMoveToContainingSection(section, symbol);
    bool code = !LLVMObjectFileIsSectionIteratorAtEnd(binary, section) &&
                strncmp(LLVMGetSectionName(section), ".text", 5) == 0;
    LLVMDisposeSectionIterator(section);
    return code;
}

CodeSizes object_sizes(Arena *a, const char *path) {
    CodeSizes sizes = {0};
    char *why = NULL;
    LLVMMemoryBufferRef buf = NULL;
    if (LLVMCreateMemoryBufferWithContentsOfFile(path, &buf, &why)) {
        LLVMDisposeMessage(why);
        return sizes;
    }
    LLVMBinaryRef binary = LLVMCreateBinary(buf, NULL, &why);
    if (binary) {
        LLVMSymbolIteratorRef s = LLVMObjectFileCopySymbolIterator(binary);
        for (; !LLVMObjectFileIsSymbolIteratorAtEnd(binary, s); LLVMMoveToNextSymbol(s))
            if (LLVMGetSymbolSize(s) && is_code(binary, s))
                add_size(a, &sizes, kind_of_symbol(a, LLVMGetSymbolName(s)), LLVMGetSymbolSize(s));
        LLVMDisposeSymbolIterator(s);
        LLVMDisposeBinary(binary);
    } else {
        LLVMDisposeMessage(why);
    }
    LLVMDisposeMemoryBuffer(buf);
    if (sizes.n) qsort(sizes.v, (size_t)sizes.n, sizeof *sizes.v, by_bytes);
    return sizes;
}
