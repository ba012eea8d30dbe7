// CPUID says what the CPU can do, XGETBV what the operating system saves on a context switch: an
// instruction may be used only when both agree. Intel SDM vol. 1, 14.3 and 15.2-15.4.
#include "cpu.h"
#include <stdbool.h>
#include <string.h>

#if !defined(__x86_64__)
typedef int Cpu; // nothing is remembered
#endif

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

// What CPUID said so far. It traps in virtual machines, so every leaf is asked for once.
typedef struct {
    unsigned leaf, subleaf, r[4]; // r: zeros where there is no such leaf
} Leaf;
enum { LEAVES = 8 };
typedef struct {
    Leaf leaves[LEAVES];
    int n;
    uint64_t state; // XCR0, or 0 when the operating system has not enabled XGETBV
} Cpu;

static const unsigned *cpu_leaf(Cpu *c, unsigned leaf, unsigned subleaf) {
    for (int i = 0; i < c->n; i++)
        if (c->leaves[i].leaf == leaf && c->leaves[i].subleaf == subleaf) return c->leaves[i].r;
    Leaf *l = &c->leaves[c->n < LEAVES ? c->n++ : LEAVES - 1];
    *l = (Leaf){.leaf = leaf, .subleaf = subleaf};
    (void)__get_cpuid_count(leaf, subleaf, &l->r[EAX], &l->r[EBX], &l->r[ECX], &l->r[EDX]);
    return l->r;
}

static Cpu cpu_open(void) {
    Cpu c = {.n = 0};
    unsigned lo = 0, hi = 0;
    if (!(cpu_leaf(&c, 1, 0)[ECX] >> 27 & 1)) return c;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    c.state = (uint64_t)hi << 32 | lo;
    return c;
}

// Linux saves tile data only for processes that ask.
static bool tiles_granted(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

static bool feature_present(Cpu *c, const CpuFeature *f) {
    return (cpu_leaf(c, f->leaf, f->subleaf)[f->reg] >> f->bit & 1) &&
           (c->state & f->state) == f->state && (f->state != STATE_AMX || tiles_granted());
}

static bool cpu_has(Cpu *c, const char *name, size_t n) {
    for (size_t i = 0; i < sizeof cpu_features / sizeof *cpu_features; i++)
        if (strlen(cpu_features[i].name) == n && memcmp(cpu_features[i].name, name, n) == 0)
            return feature_present(c, &cpu_features[i]);
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
static bool cpu_has(Cpu *c, const char *name, size_t n) {
    (void)c;
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
#include <unistd.h>

// Linux answers riscv_hwprobe from 6.4 on; before that the letters of the ISA have to do.
static bool vectors_present(void) {
    enum { SYS_RISCV_HWPROBE = 258, IMA_EXT_0 = 4, IMA_V = 2 };
    struct {
        int64_t key;
        uint64_t value;
    } probe = {IMA_EXT_0, 0};
    if (syscall(SYS_RISCV_HWPROBE, &probe, 1, 0, 0, 0) == 0 && probe.key == IMA_EXT_0)
        return probe.value >> IMA_V & 1;
    return getauxval(AT_HWCAP) >> ('V' - 'A') & 1;
}

// v: the vector extension; zvl256b: vectors of 256 bits and more (register vlenb is 0xc22, which
// may be read only where there are vectors).
static bool cpu_has(Cpu *c, const char *name, size_t n) {
    (void)c;
    bool v = vectors_present();
    if (n == 1 && *name == 'v') return v;
    unsigned long bytes = 0;
    if (v) __asm__ volatile("csrr %0, 0xc22" : "=r"(bytes));
    return n == 7 && memcmp(name, "zvl256b", 7) == 0 && bytes >= 32;
}
#else
static bool cpu_has(Cpu *c, const char *name, size_t n) {
    (void)c, (void)name, (void)n;
    return false;
}
#endif

#if !defined(__x86_64__)
static Cpu cpu_open(void) { return 0; }
#endif

// The length of the first name of the list that the CPU lacks, *name pointing at it; 0: none.
static size_t next_lacking(Cpu *c, const char **name) {
    for (const char *p = *name; *p;) {
        size_t n = strcspn(p, ",");
        *name = p;
        if (n && !cpu_has(c, p, n)) return n;
        p += n + (p[n] == ',');
    }
    return 0;
}

bool cnxrt_cpu_can(const char *features) {
    Cpu c = cpu_open();
    return next_lacking(&c, &features) == 0;
}

CnxrtStatus cnxrt_cpu_check(const char *target, const char *features, CnxrtError *err) {
    Cpu c = cpu_open();
    size_t n = next_lacking(&c, &features);
    if (!n) return CNXRT_OK;
    cnxrt_error_set(err, "this program was compiled for %s CPUs; this one lacks %.*s", target,
                    (int)n, features);
    while (features += n + (features[n] == ','), (n = next_lacking(&c, &features)))
        cnxrt_error_add(err, ", %.*s", (int)n, features);
    cnxrt_error_add(err, " (rebuild with cnxc build --target=native on this machine)");
    return CNXRT_ERROR_CPU;
}
