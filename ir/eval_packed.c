// Definitions of masks, packed rows and the depthwise convolution on them. f64 throughout; indices
// are whole numbers in the same tensors.
//
// Legend: gh gw grid of cells, K listed cells of an image, b side of a cell in positions, s side of
// a sub-block, R = K*b*b packed rows, c channels.
#include "eval_op.h"
#include "packed.h"

// y = x (1 - m), hidden: x m, m being that of the position's cell
const char *eval_mask(const EvalCall *c) {
    const Tensor *x = &c->x[0], *m = &c->x[1];
    int64_t h = x->d[1], w = x->d[2], k = x->d[3], f = h / m->d[1], n = tensor_elems(x);
    bool hidden = node_int(c->n, A_hidden);
    for (int64_t i = 0; i < n; i++) {
        int64_t image = i / (h * w * k), row = i / (w * k) % h, col = i / k % w;
        double of = f64_data(m)[(image * m->d[1] + row / f) * m->d[2] + col / f];
        f64_data(&c->y[0])[i] = f64_data(x)[i] * (hidden ? of : 1 - of);
    }
    return NULL;
}

// y[b,*] = positions l where m[b,l] is 0, hidden: is not 0
const char *eval_cells(const EvalCall *c) {
    int64_t all = c->x[0].d[1] * c->x[0].d[2], count = c->y[0].d[1];
    bool hidden = node_int(c->n, A_hidden);
    for (int64_t b = 0; b < c->x[0].d[0]; b++) {
        int64_t found = 0;
        for (int64_t l = 0; l < all; l++) {
            if ((f64_data(&c->x[0])[b * all + l] != 0) != hidden) continue;
            if (found < count) f64_data(&c->y[0])[b * count + found] = (double)l;
            found++;
        }
        if (found != count)
            return arena_printf(c->ctx->arena, "image %lld has %lld %s cells, expected %lld",
                                (long long)b, (long long)found, hidden ? "hidden" : "visible",
                                (long long)count);
    }
    return NULL;
}

// Reads a list of indices in [lo,n).
static const char *read_indices(const EvalCall *c, const Tensor *t, int64_t lo, int64_t n,
                                const int64_t **out) {
    int64_t all = tensor_elems(t), *v = NEWN(c->tmp, int64_t, all);
    *out = v;
    for (int64_t i = 0; i < all; i++) {
        double x = f64_data(t)[i];
        if (!(x >= (double)lo && x < (double)n))
            return arena_printf(c->ctx->arena, "index %lld is %g, allowed are %lld to %lld",
                                (long long)i, x, (long long)lo, (long long)n - 1);
        v[i] = (int64_t)x;
    }
    return NULL;
}

// y[b,j,v] = sub-block at offset v of sub-block j, -1 where it is in no listed cell
const char *eval_rulebook(const EvalCall *c) {
    int64_t gh = node_ints(c->n, A_grid, 0), gw = node_ints(c->n, A_grid, 1);
    int64_t block = node_int(c->n, A_block), s = packed_side(block), side = block / s;
    int64_t ry = packed_reach(node_ints(c->n, A_kernel, 0), s);
    int64_t rx = packed_reach(node_ints(c->n, A_kernel, 1), s);
    int64_t count = c->x[0].d[1], ns = c->y[0].d[1], h = gh * side, w = gw * side;
    int64_t *at = NEWN(c->tmp, int64_t, ns); // place of a sub-block in the plane of all
    const int64_t *cells;
    const char *why = read_indices(c, &c->x[0], 0, gh * gw, &cells);
    if (why) return why;
    double *y = f64_data(&c->y[0]);
    for (int64_t b = 0; b < c->x[0].d[0]; b++, cells += count) {
        int64_t *plane = NEWN(c->tmp, int64_t, h * w); // index + 1, 0: in no listed cell
        for (int64_t j = 0; j < ns; j++) {
            int64_t cell = cells[j / (side * side)], q = j % (side * side);
            at[j] = (cell / gw * side + morton_row(q)) * w + cell % gw * side + morton_col(q);
            plane[at[j]] = j + 1;
        }
        for (int64_t j = 0; j < ns; j++)
            for (int64_t dy = -ry; dy <= ry; dy++)
                for (int64_t dx = -rx; dx <= rx; dx++) {
                    int64_t row = at[j] / w + dy, col = at[j] % w + dx;
                    bool inside = row >= 0 && row < h && col >= 0 && col < w;
                    *y++ = inside ? (double)(plane[row * w + col] - 1) : -1;
                }
    }
    return NULL;
}

// ---- packing -----------------------------------------------------------------------------------
// For each packed row of a [B,h,w,...] image its position in it, over all images.
static const char *row_positions(const EvalCall *c, int64_t h, int64_t w, const int64_t **out) {
    const Tensor *list = &c->x[1];
    int64_t block = node_int(c->n, A_block), area = block * block, gw = w / block;
    int64_t count = list->d[1], rows = tensor_elems(list) * area, *at = NEWN(c->tmp, int64_t, rows);
    const int64_t *cells;
    const char *why = read_indices(c, list, 0, h / block * gw, &cells);
    for (int64_t r = 0; !why && r < rows; r++) {
        int64_t cell = cells[r / area], q = r % area, image = r / (count * area);
        int64_t row = cell / gw * block + morton_row(q), col = cell % gw * block + morton_col(q);
        at[r] = (image * h + row) * w + col;
    }
    *out = at;
    return why;
}

// y[b,r,c] = x at the position of row r
const char *eval_pack_rows(const EvalCall *c) {
    const Tensor *x = &c->x[0];
    int64_t k = x->d[3], rows = tensor_rows(&c->y[0]);
    const int64_t *at;
    const char *why = row_positions(c, x->d[1], x->d[2], &at);
    for (int64_t r = 0; !why && r < rows; r++)
        memcpy(f64_data(&c->y[0]) + r * k, f64_data(x) + at[r] * k, sizeof(double) * (size_t)k);
    return why;
}

// y at the position of row r = x[b,r,c]
const char *eval_unpack_rows(const EvalCall *c) {
    const Tensor *y = &c->y[0];
    int64_t k = y->d[3], rows = tensor_rows(&c->x[0]);
    const int64_t *at;
    const char *why = row_positions(c, y->d[1], y->d[2], &at);
    for (int64_t r = 0; !why && r < rows; r++)
        for (int64_t j = 0; j < k; j++) f64_data(y)[at[r] * k + j] += f64_data(&c->x[0])[r * k + j];
    return why;
}

// y[b,r,(ky*kw+kx)*c+i] = x[b, py*kh+ky, px*kw+kx, i], (py,px) being the position of row r
const char *eval_patchify_rows(const EvalCall *c) {
    const Tensor *x = &c->x[0];
    int64_t kh = node_ints(c->n, A_kernel, 0), kw = node_ints(c->n, A_kernel, 1), k = x->d[3];
    int64_t h = x->d[1] / kh, w = x->d[2] / kw, rows = tensor_rows(&c->y[0]);
    const int64_t *at;
    const char *why = row_positions(c, h, w, &at);
    double *y = f64_data(&c->y[0]);
    for (int64_t r = 0; !why && r < rows; r++)
        for (int64_t t = 0; t < kh * kw; t++, y += k) {
            int64_t image = at[r] / (h * w), row = at[r] / w % h * kh + t / kw;
            int64_t col = at[r] % w * kw + t % kw;
            memcpy(y, f64_data(x) + ((image * x->d[1] + row) * x->d[2] + col) * k,
                   sizeof(double) * (size_t)k);
        }
    return why;
}

// ---- depthwise convolution ---------------------------------------------------------------------
// The pairs a rulebook stands for.
typedef struct {
    const int64_t *rules;                  // [B,ns,nv]
    int64_t rows, ns, nv, s, kh, kw, wide; // wide: neighbours in a row of offsets
} Pairs;

static const char *pairs_of(const EvalCall *c, const Tensor *x, const Tensor *rules, int64_t kh,
                            int64_t kw, Pairs *p) {
    *p = (Pairs){.rows = x->d[1], .ns = rules->d[1], .nv = rules->d[2], .kh = kh, .kw = kw};
    p->s = p->rows == p->ns ? 1 : 2;
    p->wide = 2 * packed_reach(kw, p->s) + 1;
    return read_indices(c, rules, -1, p->ns, &p->rules);
}

static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// The row under tap t of row r (over all images), -1 where there is none.
static int64_t row_under(const Pairs *p, int64_t r, int64_t t) {
    int64_t image = r / p->rows, sub = r % p->rows / (p->s * p->s), q = r % (p->s * p->s);
    int64_t row = morton_row(q) + t / p->kw - (p->kh - 1) / 2;
    int64_t col = morton_col(q) + t % p->kw - (p->kw - 1) / 2;
    int64_t oy = floor_div(row, p->s), ox = floor_div(col, p->s);
    int64_t v = (oy + packed_reach(p->kh, p->s)) * p->wide + ox + packed_reach(p->kw, p->s);
    int64_t to = p->rules[(image * p->ns + sub) * p->nv + v];
    if (to < 0) return -1;
    return image * p->rows + to * p->s * p->s + morton_index(row - oy * p->s, col - ox * p->s);
}

// y[r,c] = bias[c] + sum_t x[row under tap t of r, c] w[c,0,t]
const char *eval_dwconv2d_packed(const EvalCall *c) {
    Pairs p;
    int64_t k = c->x[0].d[2], rows = tensor_rows(&c->x[0]), taps = c->x[2].d[2] * c->x[2].d[3];
    const char *why = pairs_of(c, &c->x[0], &c->x[1], c->x[2].d[2], c->x[2].d[3], &p);
    for (int64_t r = 0; !why && r < rows; r++) {
        double *y = f64_data(&c->y[0]) + r * k;
        for (int64_t j = 0; j < k; j++) y[j] = c->nx > 3 ? f64_data(&c->x[3])[j] : 0;
        for (int64_t t = 0; t < taps; t++) {
            int64_t from = row_under(&p, r, t);
            for (int64_t j = 0; from >= 0 && j < k; j++)
                y[j] += f64_data(&c->x[0])[from * k + j] * f64_data(&c->x[2])[j * taps + t];
        }
    }
    return why;
}

// dx[row under tap t of r, c] += dy[r,c] w[c,0,t]
const char *eval_dwconv2d_packed_dx(const EvalCall *c) {
    Pairs p;
    int64_t k = c->x[0].d[2], rows = tensor_rows(&c->x[0]), taps = c->x[2].d[2] * c->x[2].d[3];
    const char *why = pairs_of(c, &c->x[0], &c->x[1], c->x[2].d[2], c->x[2].d[3], &p);
    for (int64_t r = 0; !why && r < rows; r++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t to = row_under(&p, r, t);
            for (int64_t j = 0; to >= 0 && j < k; j++)
                f64_data(&c->y[0])[to * k + j] +=
                    f64_data(&c->x[0])[r * k + j] * f64_data(&c->x[2])[j * taps + t];
        }
    return why;
}

// dw[c,0,t] = sum_r dy[r,c] x[row under tap t of r, c]
const char *eval_dwconv2d_packed_dw(const EvalCall *c) {
    Pairs p;
    int64_t k = c->x[1].d[2], rows = tensor_rows(&c->x[1]), taps = c->y[0].d[2] * c->y[0].d[3];
    const char *why = pairs_of(c, &c->x[1], &c->x[2], c->y[0].d[2], c->y[0].d[3], &p);
    for (int64_t r = 0; !why && r < rows; r++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t from = row_under(&p, r, t);
            for (int64_t j = 0; from >= 0 && j < k; j++)
                f64_data(&c->y[0])[j * taps + t] +=
                    f64_data(&c->x[0])[r * k + j] * f64_data(&c->x[1])[from * k + j];
        }
    return why;
}
