// CPUID says what the CPU can do, XGETBV what the operating system saves on a context switch: an
// instruction may be used only when both agree. Intel SDM vol. 1, 14.3 and 15.2-15.4.
#include "cpu.h"
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EAX, EBX, ECX, EDX };
// Bits of XCR0: SSE and AVX state; those and the three AVX-512 parts; the two AMX parts.
enum { STATE_NONE = 0, STATE_AVX = 0x6, STATE_AVX512 = 0xe6, STATE_AMX = 0x60000 };

typedef struct {
    const char *name;
    unsigned leaf, subleaf;
    int reg, bit;
    unsigned state;
} CpuFeature;

static const CpuFeature cpu_features[] = {
#define CPU_FEATURE(name, leaf, subleaf, reg, bit, state)                                          \
    {name, leaf, subleaf, reg, bit, STATE_##state},
#define ARM_FEATURE(name, word, bits)
#include "cnxrt_cpu.def"
#undef CPU_FEATURE
#undef ARM_FEATURE
};

// XCR0, or 0 when the operating system has not enabled XGETBV.
static uint64_t saved_state(void) {
    unsigned r[4] = {0};
    if (!__get_cpuid(1, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) || !(r[ECX] >> 27 & 1)) return 0;
    unsigned lo = 0, hi = 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

// Linux saves tile data only for processes that ask.
static bool tiles_granted(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

static bool feature_present(const CpuFeature *f, uint64_t state) {
    unsigned r[4] = {0};
    if (!__get_cpuid_count(f->leaf, f->subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX])) return false;
    return (r[f->reg] >> f->bit & 1) && (state & f->state) == f->state &&
           (f->state != STATE_AMX || tiles_granted());
}

static bool cpu_has(const char *name, size_t n) {
    uint64_t state = saved_state();
    for (size_t i = 0; i < sizeof cpu_features / sizeof *cpu_features; i++)
        if (strlen(cpu_features[i].name) == n && memcmp(cpu_features[i].name, name, n) == 0)
            return feature_present(&cpu_features[i], state);
    return false;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>
#include <sys/prctl.h>

static const struct {
    const char *name;
    unsigned long word, bits;
} cpu_features[] = {
#define CPU_FEATURE(name, leaf, subleaf, reg, bit, state)
#define ARM_FEATURE(name, word, bits) {name, AT_##word, bits},
#include "cnxrt_cpu.def"
#undef CPU_FEATURE
#undef ARM_FEATURE
};

static bool named(const char *known, const char *name, size_t n) {
    return strlen(known) == n && memcmp(known, name, n) == 0;
}

// sve256: scalable vectors of 256 bits and more.
static bool cpu_has(const char *name, size_t n) {
    if (named("sve256", name, n)) {
        int vl = prctl(PR_SVE_GET_VL);
        return vl >= 0 && (vl & PR_SVE_VL_LEN_MASK) >= 32;
    }
    for (size_t i = 0; i < sizeof cpu_features / sizeof *cpu_features; i++)
        if (named(cpu_features[i].name, name, n))
            return (getauxval(cpu_features[i].word) & cpu_features[i].bits) == cpu_features[i].bits;
    return false;
}
#elif defined(__riscv) && __riscv_xlen == 64
#include <sys/auxv.h>

// v: the vector extension; zvl256b: vectors of 256 bits and more (register vlenb is 0xc22).
static bool cpu_has(const char *name, size_t n) {
    bool v = getauxval(AT_HWCAP) >> ('V' - 'A') & 1;
    if (n == 1 && *name == 'v') return v;
    unsigned long bytes = 0;
    if (v) __asm__("csrr %0, 0xc22" : "=r"(bytes));
    return n == 7 && memcmp(name, "zvl256b", 7) == 0 && bytes >= 32;
}
#else
static bool cpu_has(const char *name, size_t n) {
    (void)name, (void)n;
    return false;
}
#endif

// The length of the first name of the list that the CPU lacks, *name pointing at it; 0: none.
static size_t next_lacking(const char **name) {
    for (const char *p = *name; *p;) {
        size_t n = strcspn(p, ",");
        *name = p;
        if (n && !cpu_has(p, n)) return n;
        p += n + (p[n] == ',');
    }
    return 0;
}

bool cnxrt_cpu_can(const char *features) { return next_lacking(&features) == 0; }

CnxrtStatus cnxrt_cpu_check(const char *target, const char *features, CnxrtError *err) {
    size_t n = next_lacking(&features);
    if (!n) return CNXRT_OK;
    cnxrt_error_set(err, "this program was compiled for %s CPUs; this one lacks %.*s", target,
                    (int)n, features);
    while (features += n + (features[n] == ','), (n = next_lacking(&features)))
        cnxrt_error_add(err, ", %.*s", (int)n, features);
    cnxrt_error_add(err, " (rebuild with cnxc build --target=native on this machine)");
    return CNXRT_ERROR_CPU;
}
