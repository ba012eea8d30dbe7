// Transposition of a square of vectors in registers, by the shuffles that CPUs have: first within
// the 16 bytes (quads) at the same place of four vectors each, then of whole quads.
#include "emit.h"

enum { QUAD = 4, MOST = 16 }; // lanes

// Within the 16 bytes at the same place of each of four vectors.
static void transpose_quads(Emit *e, Val *v, int n) {
    int low[MOST], high[MOST], even[MOST], odd[MOST];
    for (int i = 0; i < n; i++) {
        int at = i / QUAD * QUAD, y = i % 2 ? n : 0;
        low[i] = at + i % QUAD / 2 + y;
        high[i] = low[i] + 2;
        even[i] = at + i % 2 + (i % QUAD < 2 ? 0 : n);
        odd[i] = even[i] + 2;
    }
    Val a = vec_shuffle(e, v[0], v[1], low, n), b = vec_shuffle(e, v[0], v[1], high, n);
    Val c = vec_shuffle(e, v[2], v[3], low, n), d = vec_shuffle(e, v[2], v[3], high, n);
    v[0] = vec_shuffle(e, a, c, even, n);
    v[1] = vec_shuffle(e, a, c, odd, n);
    v[2] = vec_shuffle(e, b, d, even, n);
    v[3] = vec_shuffle(e, b, d, odd, n);
}

// out[QUAD * i] = the 16 bytes number i of each of the `count` vectors, for i = at, at + step...
static void gather_quads(Emit *e, const Val *v, int count, int n, int at, int step, Val *out) {
    if (count == 1) {
        out[(ptrdiff_t)QUAD * at] = v[0];
        return;
    }
    for (int odd = 0; odd < 2; odd++) {
        Val half[MOST / QUAD];
        int index[MOST];
        for (int i = 0; i < n; i++) index[i] = (i / QUAD * 2 + odd) * QUAD + i % QUAD;
        for (int i = 0; i < count / 2; i++)
            half[i] = vec_shuffle(e, v[2 * i], v[2 * i + 1], index, n);
        gather_quads(e, half, count / 2, n, at + odd * step, 2 * step, out);
    }
}

void vec_transpose(Emit *e, Val *v, int n) {
    Val quads[MOST / QUAD], out[MOST];
    for (int g = 0; g < n; g += QUAD) transpose_quads(e, v + g, n);
    for (int j = 0; j < QUAD; j++) {
        for (int g = 0; g < n / QUAD; g++) quads[g] = v[g * QUAD + j];
        gather_quads(e, quads, n / QUAD, n, 0, 1, out + j);
    }
    for (int i = 0; i < n; i++) v[i] = out[i];
}
