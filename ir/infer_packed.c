// The type rules of masked images and packed rows, and of the optimiser.
//
// Legend: gh gw grid of cells, K listed cells of an image, b side of a cell in positions, s side of
// a sub-block, R = K*b*b packed rows, c channels.
#include "infer_op.h"
#include "packed.h"

#define MAX_BLOCK ((int64_t)1 << 12)

// ---- masks and lists of cells ------------------------------------------------------------------
const char *infer_mask(const Infer *in, Type *out) {
    Type x = in->t[0], m = in->t[1];
    TRY(want_image(in, "x", x));
    TRY(want_rank(in, "the mask", m, 3));
    TRY(want_static(in, "the mask", m, 1));
    int64_t f = x.d[1].c / m.d[1].c;
    if (!dim_eq(m.d[0], x.d[0]) || f < 1 || x.d[1].c != f * m.d[1].c || x.d[2].c != f * m.d[2].c)
        FAIL(in, "x %s is no multiple of the mask %s", show(in, x), show(in, m));
    const Attr *count = infer_attr(in, A_count);
    if (count && count->i > m.d[1].c * m.d[2].c)
        FAIL(in, "count %lld of %lld cells", ll(count->i), ll(m.d[1].c * m.d[2].c));
    *out = x;
    return NULL;
}

const char *infer_cells(const Infer *in, Type *out) {
    Type m = in->t[0];
    const Attr *count = infer_attr(in, A_count);
    TRY(want_rank(in, "the mask", m, 3));
    TRY(want_static(in, "the mask", m, 1));
    int64_t all = m.d[1].c * m.d[2].c, n = count ? count->i : 0;
    if (n < 1 || n > all)
        FAIL(in, "count must be 1 to %lld, the cells of %s, got %lld", ll(all), show(in, m), ll(n));
    *out = type_make(DT_I32, 2, (Dim[]){m.d[0], dim_c(n)});
    return NULL;
}

// A list of cells i32 [B,K].
static const char *want_cells(const Infer *in, Type cells) {
    if (cells.dt != DT_I32) FAIL(in, "the cells must be i32, got %s", show(in, cells));
    TRY(want_rank(in, "the cells", cells, 2));
    return want_static(in, "the cells", cells, 1);
}

static const char *want_block(const Infer *in, int64_t *block) {
    const Attr *a = infer_attr(in, A_block);
    *block = a ? a->i : 0;
    if (*block < 1 || *block > MAX_BLOCK || (*block & (*block - 1)))
        FAIL(in, "block must be a power of two up to %lld, got %lld", ll(MAX_BLOCK), ll(*block));
    return NULL;
}

static const char *want_odd(const Infer *in, const int64_t kernel[2]) {
    if (kernel[0] % 2 && kernel[1] % 2) return NULL;
    FAIL(in, "the kernel must be odd, got %lld x %lld", ll(kernel[0]), ll(kernel[1]));
}

// Neighbours of a sub-block of side s.
static int64_t neighbours(const int64_t kernel[2], int64_t s) {
    return (2 * packed_reach(kernel[0], s) + 1) * (2 * packed_reach(kernel[1], s) + 1);
}

const char *infer_rulebook(const Infer *in, Type *out) {
    Type cells = in->t[0];
    int64_t grid[2], kernel[2], block, taps;
    TRY(want_cells(in, cells));
    TRY(want_pair(in, A_grid, 1, grid));
    TRY(want_block(in, &block));
    TRY(want_kernel(in, 1, kernel, &taps));
    TRY(want_odd(in, kernel));
    if (grid[0] > INT32_MAX / grid[1] || grid[0] * grid[1] > INT32_MAX / (block * block))
        FAIL(in, "a grid of %lld x %lld cells of %lld x %lld is too large", ll(grid[0]),
             ll(grid[1]), ll(block), ll(block));
    if (cells.d[1].c > grid[0] * grid[1])
        FAIL(in, "%lld cells of a grid of %lld x %lld", ll(cells.d[1].c), ll(grid[0]), ll(grid[1]));
    int64_t s = packed_side(block), subs = block * block / (s * s);
    *out = type_make(DT_I32, 3,
                     (Dim[]){cells.d[0], dim_c(cells.d[1].c * subs), dim_c(neighbours(kernel, s))});
    return NULL;
}

// ---- packing -----------------------------------------------------------------------------------
// An image [B,h,w,c] and the K cells of it, block positions wide: its packed rows.
static const char *packed_rows(const Infer *in, Type x, Type cells, int64_t block, Type *out) {
    TRY(want_cells(in, cells));
    if (!dim_eq(x.d[0], cells.d[0]))
        FAIL(in, "the cells %s are not those of the images %s", show(in, cells), show(in, x));
    if (x.d[1].c % block || x.d[2].c % block)
        FAIL(in, "%s is not made of cells of %lld x %lld", show(in, x), ll(block), ll(block));
    if (cells.d[1].c > x.d[1].c / block * (x.d[2].c / block))
        FAIL(in, "%lld cells of %lld", ll(cells.d[1].c), ll(x.d[1].c / block * (x.d[2].c / block)));
    *out = type_make(x.dt, 3, (Dim[]){x.d[0], dim_c(cells.d[1].c * block * block), x.d[3]});
    return NULL;
}

const char *infer_pack_rows(const Infer *in, Type *out) {
    int64_t block;
    TRY(want_image(in, "x", in->t[0]));
    TRY(want_block(in, &block));
    return packed_rows(in, in->t[0], in->t[1], block, out);
}

const char *infer_unpack_rows(const Infer *in, Type *out) {
    Type image = shape_attr(in), rows = {0};
    int64_t block;
    TRY(want_image(in, "shape", image));
    TRY(want_block(in, &block));
    TRY(packed_rows(in, image, in->t[1], block, &rows));
    if (!type_eq(in->t[0], rows))
        FAIL(in, "x: %s, rows of %s: %s", show(in, in->t[0]), show(in, image), show(in, rows));
    *out = image;
    return NULL;
}

const char *infer_patchify_rows(const Infer *in, Type *out) {
    Type x = in->t[0];
    int64_t kernel[2], k, block;
    TRY(want_image(in, "x", x));
    TRY(want_kernel(in, x.d[3].c, kernel, &k));
    TRY(want_block(in, &block));
    Dim d[] = {x.d[0], dim_c(x.d[1].c / kernel[0]), dim_c(x.d[2].c / kernel[1]), dim_c(k)};
    if (d[1].c < 1 || d[2].c < 1)
        FAIL(in, "a patch of %lld x %lld is larger than %s", ll(kernel[0]), ll(kernel[1]),
             show(in, x));
    return packed_rows(in, type_make(x.dt, 4, d), in->t[1], block, out);
}

// ---- depthwise convolution ---------------------------------------------------------------------
// Packed rows [B,R,c] and the rulebook of a kernel for them.
static const char *want_rules(const Infer *in, Type x, Type rules, const int64_t kernel[2]) {
    TRY(want_rank(in, "x", x, 3));
    TRY(want_static(in, "x", x, 1));
    TRY(want_odd(in, kernel));
    if (rules.dt != DT_I32) FAIL(in, "the rulebook must be i32, got %s", show(in, rules));
    TRY(want_rank(in, "the rulebook", rules, 3));
    TRY(want_static(in, "the rulebook", rules, 1));
    int64_t s = x.d[1].c == rules.d[1].c ? 1 : 2;
    if (!dim_eq(x.d[0], rules.d[0]) || x.d[1].c != rules.d[1].c * s * s)
        FAIL(in, "the rulebook %s is not that of the rows %s", show(in, rules), show(in, x));
    if (rules.d[2].c != neighbours(kernel, s))
        FAIL(in, "the rulebook %s lists %lld neighbours, a kernel of %lld x %lld has %lld",
             show(in, rules), ll(rules.d[2].c), ll(kernel[0]), ll(kernel[1]),
             ll(neighbours(kernel, s)));
    return NULL;
}

static const char *want_depthwise(const Infer *in, Type x, Type rules, Type w) {
    TRY(want_weight(in, "weight", w, 4));
    TRY(want_rules(in, x, rules, (int64_t[]){w.d[2].c, w.d[3].c}));
    if (w.d[1].c != 1 || w.d[0].c != x.d[2].c)
        FAIL(in, "weight must have shape [%lld,1,kh,kw], got %s", ll(x.d[2].c), show(in, w));
    return NULL;
}

const char *infer_dwconv2d_packed(const Infer *in, Type *out) {
    TRY(want_depthwise(in, in->t[0], in->t[1], in->t[2]));
    if (in->n > 3) TRY(want_vector(in, "bias", in->t[3], type_last(in->t[0]), "x"));
    *out = in->t[0];
    return NULL;
}

const char *infer_dwconv2d_packed_dx(const Infer *in, Type *out) {
    TRY(want_depthwise(in, in->t[0], in->t[1], in->t[2]));
    *out = in->t[0];
    return NULL;
}

const char *infer_dwconv2d_packed_dw(const Infer *in, Type *out) {
    Type dy = in->t[0], x = in->t[1];
    int64_t kernel[2], taps;
    TRY(want_kernel(in, 1, kernel, &taps));
    TRY(want_rules(in, x, in->t[2], kernel));
    if (!type_eq(dy, x)) FAIL(in, "dy: %s, x: %s", show(in, dy), show(in, x));
    *out = type_make(x.dt, 4, (Dim[]){x.d[2], dim_c(1), dim_c(kernel[0]), dim_c(kernel[1])});
    return NULL;
}

// ---- optimiser ---------------------------------------------------------------------------------
enum { HYPERS = 12 };

// Operands 0 to n-1 are weights of one shape; then come the hyper-parameters.
static const char *want_state(const Infer *in, int n) {
    TRY(want_static(in, "the parameter", in->t[0], 0));
    for (int i = 1; i < n; i++)
        if (!type_eq(in->t[i], in->t[0]))
            FAIL(in, "operand %d is %s, the parameter %s", i, show(in, in->t[i]),
                 show(in, in->t[0]));
    Type hyper = in->t[n];
    if (hyper.rank != 1 || !dim_eq(hyper.d[0], dim_c(HYPERS)))
        FAIL(in, "the hyper-parameters must be [%d], got %s", HYPERS, show(in, hyper));
    return NULL;
}

const char *infer_adamw(const Infer *in, Type *out) {
    Type groups = in->t[5];
    const Attr *index = infer_attr(in, A_index);
    TRY(want_state(in, 4));
    TRY(want_weight(in, "the table of groups", groups, 2));
    if (groups.d[1].c != 2) FAIL(in, "the table of groups must be [n,2], got %s", show(in, groups));
    if (index && index->i >= groups.d[0].c)
        FAIL(in, "index %lld of a table of %lld groups", ll(index->i), ll(groups.d[0].c));
    out[0] = out[1] = out[2] = in->t[0];
    return NULL;
}

const char *infer_ema(const Infer *in, Type *out) {
    *out = in->t[0];
    return want_state(in, 2);
}
