// Layouts of weights, compiled for every row of the target table this machine can run: panels in
// all forms of pack, bit for bit, scaled panels, permuted dimensions. No form spills, on any row.
#include "kernel_case.h"

// ---- pack --------------------------------------------------------------------------------------
typedef struct {
    int64_t n, k, nr; // k in elements
    bool transposed, narrow;
    int64_t words[2];
    int nwords;
} PackCase;

static void pack_spec(Spec *s, const PackCase *p) {
    *s = spec_new(K_PACK);
    set_int(s, A_n, p->n);
    set_int(s, A_k, p->narrow ? p->k / 2 : p->k);
    set_int(s, A_nr, p->nr);
    if (p->transposed) set_int(s, A_transposed, 1);
    if (p->narrow) set_int(s, A_dtype, dtype_word(DT_BF16));
    if (p->nwords) set_ints(s, A_epilogue, p->words, p->nwords);
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

// Element (c,i) of the matrix [n,k] that is packed.
static float pack_element(const PackCase *p, const float *x, float *const *by, int64_t c,
                          int64_t i) {
    float v = p->transposed ? x[i * p->n + c] : x[c * p->k + i];
    for (int w = 0; w < p->nwords; w++)
        if (p->words[w] == EPI_SCALE) v *= by[w][i];
    for (int w = 0; w < p->nwords; w++)
        if (p->words[w] == EPI_SCALE_ROWS) v *= by[w][c];
    return p->narrow ? (float)to_bf16(v) : v;
}

// Group number `at` of the panels.
static uint32_t pack_group(const PackCase *p, const float *x, float *const *by, int64_t at) {
    int64_t g = p->narrow ? 2 : 1, i = at / p->nr % (p->k / g) * g;
    int64_t c = at / p->nr / (p->k / g) * p->nr + at % p->nr;
    if (c >= p->n) return 0;
    uint32_t low = bits_of(pack_element(p, x, by, c, i));
    return g == 1 ? low : low >> 16 | bits_of(pack_element(p, x, by, c, i + 1));
}

static void pack_check(const Target *t, const PackCase *p, bool part) {
    int64_t g = p->narrow ? 2 : 1, groups = p->k / g, panels = (p->n + p->nr - 1) / p->nr;
    int64_t rows = p->transposed ? p->k : p->n, quantum = p->transposed ? g : p->nr;
    float *x = reals(p->n * p->k, 2), *out = floats_new(panels * p->nr * groups);
    float *by[2] = {reals(p->k + p->n, 2), reals(p->k + p->n, 2)};
    int64_t r0 = part && rows > quantum ? quantum : 0;
    int64_t r1 = part && p->transposed && rows > 2 * quantum ? rows - quantum : rows;
    Spec s;
    pack_spec(&s, p);
    compile(t, &s)((void *[]){x, out, by[0], by[1]}, r0, r1, 0, p->n);
    for (int64_t at = 0; at < panels * p->nr * groups; at++) {
        int64_t row = p->transposed ? at / p->nr % groups * g : at / p->nr / groups * p->nr;
        uint32_t want = row >= r0 && row < r1 ? pack_group(p, x, by, at) : bits_of(POISON);
        if (bits_of(out[at]) != want)
            fail_msg("%s: group %d is %08x, not %08x", spec_text(t, &s), (int)at, bits_of(out[at]),
                     want);
    }
    guards_check(out, panels * p->nr * groups);
}

static PackCase pack_case(int64_t n, int64_t k, int64_t nr, int form) {
    PackCase p = {.n = n, .k = k, .nr = nr, .transposed = form % 5 == 4, .narrow = form / 5};
    if (form % 5 == 1 || form % 5 == 3) p.words[p.nwords++] = EPI_SCALE;
    if (form % 5 == 2 || form % 5 == 3) p.words[p.nwords++] = EPI_SCALE_ROWS;
    return p;
}

static void test_pack(void **unused) {
    (void)unused;
    static const int64_t widths[] = {8, 16, 32, 40, 48, 6, 10, 24, 28};
    static const int64_t sizes[][2] = {{80, 6}, {41, 38}, {7, 64}, {130, 32}, {96, 12}, {17, 2}};
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 10 * 9; c++) {
            const int64_t *size = sizes[(c + c / 9) % 6];
            PackCase p = pack_case(size[0], size[1], widths[c % 9], c / 9);
            p.k += !p.narrow && c % 4 < 2; // depths of every kind
            pack_check(targets[i], &p, c % 2);
        }
}

static void test_pack_spills(void **unused) {
    (void)unused;
    if (emulated()) return;
    for (int i = 0; i < target_count; i++)
        for (int form = 0; form < 10; form++) {
            const Target *t = &target_table[i];
            int64_t nr = 3 * (int64_t)(target_lanes(t) < 4 ? 4 : target_lanes(t));
            PackCase p = pack_case(2 * nr + 1, 96, nr, form);
            Spec s;
            pack_spec(&s, &p);
            const char *why = "", *text = codegen_kernel_asm(arena, t, &s.spec, &why);
            if (!text) fail_msg("%s: %s", spec_text(t, &s), why);
            int spills = codegen_spills(text, "");
            if (spills > (CNX_LLVM_MAJOR < 22 ? 2 : 0)) // 19: a factor of AVX2's bf16
                fail_msg("%s: %d spills", spec_text(t, &s), spills);
        }
}

static void test_scale_panels(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++)
        for (int c = 0; c < 24; c++) {
            int64_t nr = (int64_t[]){8, 16, 32, 40, 6, 10}[c % 6];
            int64_t n = (int64_t[]){80, 41, 7, 130}[c / 6], k = 5 + c % 5, panel = nr * k;
            int64_t panels = (n + nr - 1) / nr, c0 = n > nr && c % 2 ? nr : 0;
            Spec s = spec_new(K_SCALE_PANELS);
            set_int(&s, A_n, n);
            set_int(&s, A_k, k);
            set_int(&s, A_nr, nr);
            float *x = integers(panels * panel, 50), *by = integers(k, 5);
            float *out = floats_new(panels * panel);
            double *want = NEWN(arena, double, panels *panel);
            for (int64_t j = 0; j < panels * panel; j++) want[j] = x[j] * (double)by[j / nr % k];
            compile(targets[i], &s)((void *[]){x, by, out}, 0, 1, c0, n);
            block_check(spec_text(targets[i], &s), out, want, panels, panel, c0 / nr, panels, 0,
                        panel, 0);
        }
}

// ---- permute -----------------------------------------------------------------------------------
static void permute_check(const Target *t, int rank, const int64_t *size, const int64_t *perm) {
    Spec s = spec_new(K_PERMUTE);
    Dim dims[MAX_RANK] = {0};
    int64_t n = 1, stride[MAX_RANK];
    for (int d = rank - 1; d >= 0; d--) {
        stride[d] = n;
        n *= size[d];
        dims[d] = dim_c(size[d]);
    }
    s.attrs[s.spec.nattrs++] = attr_dims(arena, A_shape, dims, rank);
    set_ints(&s, A_perm, perm, rank);
    float *x = floats_new(n), *out = floats_new(n);
    double *want = NEWN(arena, double, n);
    for (int64_t i = 0; i < n; i++) x[i] = (float)i;
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, from = 0;
        for (int d = rank - 1; d >= 0; d--) {
            from += rest % size[perm[d]] * stride[perm[d]];
            rest /= size[perm[d]];
        }
        want[i] = (double)from;
    }
    compile(t, &s)((void *[]){x, out}, 0, 1, 0, 1);
    block_check(spec_text(t, &s), out, want, 1, n, 0, 1, 0, n, 0);
}

static void test_permute(void **unused) {
    (void)unused;
    for (int i = 0; i < ntargets; i++) {
        const Target *t = targets[i];
        permute_check(t, 2, (int64_t[]){5, 7}, (int64_t[]){1, 0});
        permute_check(t, 4, (int64_t[]){6, 3, 4, 5}, (int64_t[]){0, 2, 3, 1});
        permute_check(t, 4, (int64_t[]){17, 1, 7, 7}, (int64_t[]){2, 3, 1, 0});
        permute_check(t, 4, (int64_t[]){2, 5, 3, 4}, (int64_t[]){3, 1, 0, 2});
        permute_check(t, 3, (int64_t[]){3, 4, 40}, (int64_t[]){1, 0, 2});
        permute_check(t, 2, (int64_t[]){3, 4}, (int64_t[]){0, 1});
        permute_check(t, 1, (int64_t[]){1}, (int64_t[]){0});
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_pack_spills),
        cmocka_unit_test(test_scale_panels),
        cmocka_unit_test(test_permute),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
