// What tests of single kernels share: arrays between guards, specs under construction, the targets
// this machine can run.
#ifndef CNX_TESTS_KERNEL_CASE_H
#define CNX_TESTS_KERNEL_CASE_H
#include "emulator.h"
#include <math.h>

// Compiled kernels live until the process ends, on purpose: no leak to report.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; }

static Arena *arena;
static const Target *targets[16];
static int ntargets;

// ---- arrays with guards ------------------------------------------------------------------------
enum { GUARD = 64 };
static const float POISON = -7.25e30f;

// n floats between guards of POISON, 64-byte aligned.
static inline float *floats_new(int64_t n) {
    float *p = operand_bytes(arena, (size_t)(n + 2 * GUARD) * sizeof(float));
    for (int64_t i = 0; i < n + 2 * GUARD; i++) p[i] = POISON;
    return p + GUARD;
}

static inline void guards_check(const float *p, int64_t n) {
    for (int i = 1; i <= GUARD; i++)
        if (p[-i] != POISON || p[n + i - 1] != POISON) fail_msg("written %d past an end", i);
}

// x[0..n) where a kernel can read it.
static inline float *floats_of(const float *x, int64_t n) {
    return memcpy(floats_new(n), x, (size_t)n * sizeof(float));
}

static uint64_t state = 1;

static inline uint64_t draw(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

static inline float *integers(int64_t n, int range) {
    float *p = floats_new(n);
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)((int)(draw() % (2 * (unsigned)range + 1)) - range);
    return p;
}

static inline float *reals(int64_t n, double range) {
    float *p = floats_new(n);
    for (int64_t i = 0; i < n; i++) p[i] = (float)(range * ((double)draw() / 1073741824.0 - 1));
    return p;
}

static inline double to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

// Compares [rows][n] with leading dimension n over the computed block; the rest must be untouched.
static inline void block_check(const char *what, const float *got, const double *want, int64_t rows,
                               int64_t n, int64_t r0, int64_t r1, int64_t c0, int64_t c1,
                               double tol) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c++) {
            float g = got[r * n + c];
            bool inside = r >= r0 && r < r1 && c >= c0 && c < c1;
            if (!inside && g != POISON) fail_msg("%s: [%d,%d] written", what, (int)r, (int)c);
            if (inside && !(fabs(g - want[r * n + c]) <= tol * (1 + fabs(want[r * n + c]))))
                fail_msg("%s: [%d,%d] is %.9g, not %.9g", what, (int)r, (int)c, g, want[r * n + c]);
        }
    guards_check(got, rows * n);
}

// ---- specs -------------------------------------------------------------------------------------
typedef struct {
    KernelSpec spec;
    Attr attrs[12];
    int64_t lists[12][16];
} Spec;

static inline void spec_sort(Spec *s) {
    for (int i = 1; i < s->spec.nattrs; i++)
        for (int j = i; j > 0 && s->attrs[j - 1].id > s->attrs[j].id; j--) {
            Attr t = s->attrs[j];
            s->attrs[j] = s->attrs[j - 1];
            s->attrs[j - 1] = t;
        }
    s->spec.attrs = s->attrs;
}

static inline void set_int(Spec *s, AttrId id, int64_t v) {
    s->attrs[s->spec.nattrs++] = attr_int(id, v);
    spec_sort(s);
}

static inline void set_f64(Spec *s, AttrId id, double v) {
    s->attrs[s->spec.nattrs++] = attr_f64(id, v);
    spec_sort(s);
}

static inline void set_ints(Spec *s, AttrId id, const int64_t *v, int n) {
    s->attrs[s->spec.nattrs++] = attr_ints(arena, id, v, n);
    spec_sort(s);
}

static inline void set_pair(Spec *s, AttrId id, int64_t a, int64_t b) {
    set_ints(s, id, (int64_t[]){a, b}, 2);
}

static inline Spec spec_new(KernelKind kind) { return (Spec){.spec = {.kind = kind}}; }

static inline const char *spec_text(const Target *t, const Spec *s) {
    return arena_printf(arena, "%s %s", t->name, spec_print(arena, &s->spec));
}

// The kernel compiled last, as far as the server knows it.
static struct {
    const char *shared, *symbol;
    int operands;
} last;

static inline void emulated_kernel(void *const *ops, int64_t r0, int64_t r1, int64_t c0,
                                   int64_t c1) {
    void **there = operand_bytes(arena, (size_t)last.operands * sizeof *there);
    for (int i = 0; i < last.operands; i++) there[i] = ops[i];
    emulator_call(last.shared, last.symbol, there, r0, r1, c0, c1);
}

// The function is good until the next one is compiled.
static inline KernelFn compile(const Target *t, const Spec *s) {
    const char *why = "";
    KernelFn fn = NULL;
    if (emulated()) {
        if (last.shared) unlink(last.shared);
        last.symbol = codegen_kernel_object(arena, t, &s->spec, emulator_object(arena), &why);
        last.operands = spec_operands(&s->spec);
        last.shared = last.symbol ? emulator_link(arena) : NULL;
        if (last.symbol) fn = emulated_kernel;
    } else {
        fn = codegen_jit_kernel(arena, t, &s->spec, &why);
    }
    if (!fn) fail_msg("%s: %s", spec_text(t, s), why);
    return fn;
}

// ---- set-up ------------------------------------------------------------------------------------
static inline int setup(void **unused) {
    (void)unused;
    arena = arena_new();
    emulator_start(arena);
    if (emulated()) {
        targets[ntargets++] = emulator.target;
        return 0;
    }
    const Target *host = codegen_native_target(arena);
    for (int i = 0; host && i < target_count; i++)
        if (codegen_host_runs(arena, &target_table[i])) targets[ntargets++] = &target_table[i];
    if (host) targets[ntargets++] = host;
    return ntargets ? 0 : 1;
}

static inline int teardown(void **unused) {
    (void)unused;
    if (last.shared) unlink(last.shared);
    emulator_stop();
    arena_free(arena);
    return 0;
}
#endif
