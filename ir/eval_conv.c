// Definitions of the sums of products, linear, convolutions, patchify, and of their adjoints. f64
// throughout.
//
// Legend: n images, h w input height and width, ho wo of the result, c i o channels, kh kw kernel.
#include "eval_op.h"

// Four rows of w at once, each sum still in the order of k.
static void dot4(const double *x, const double *w, int64_t k, double *sum) {
    double s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
    for (int64_t j = 0; j < k; j++) {
        s0 += x[j] * w[j];
        s1 += x[j] * w[k + j];
        s2 += x[j] * w[2 * k + j];
        s3 += x[j] * w[3 * k + j];
    }
    sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}

static double dot(const double *x, const double *w, int64_t k, double sum) {
    for (int64_t j = 0; j < k; j++) sum += x[j] * w[j];
    return sum;
}

// y[r,o] = sum_i x[r,i] w[o,i] + bias[o]
const char *eval_linear(const EvalCall *c) {
    int64_t o = c->x[1].d[0], k = c->x[1].d[1], rows = tensor_rows(&c->x[0]);
    const double *w = f64_data(&c->x[1]), *bias = c->nx > 2 ? f64_data(&c->x[2]) : NULL;
    for (int64_t r = 0; r < rows; r++) {
        const double *x = f64_data(&c->x[0]) + r * k;
        double *y = f64_data(&c->y[0]) + r * o;
        for (int64_t j = 0; j < o; j++) y[j] = bias ? bias[j] : 0;
        int64_t j = 0;
        for (; j + 4 <= o; j += 4) dot4(x, w + j * k, k, y + j);
        for (; j < o; j++) y[j] = dot(x, w + j * k, k, y[j]);
    }
    return NULL;
}

// A window sliding over an image batch [n,h,w,c].
typedef struct {
    int64_t n, h, w, c, ho, wo, kh, kw, stride[2], pad[2];
} Window;

// The node's window over image x, results being at the pixels of y.
static Window window_of(const EvalCall *c, const Tensor *x, const Tensor *y, int64_t kh,
                        int64_t kw) {
    Window v = {.n = x->d[0],
                .h = x->d[1],
                .w = x->d[2],
                .c = x->d[3],
                .ho = y->d[1],
                .wo = y->d[2],
                .kh = kh,
                .kw = kw};
    for (int i = 0; i < 2; i++) {
        v.stride[i] = node_ints(c->n, A_stride, i);
        v.pad[i] = node_ints(c->n, A_pad, i);
    }
    return v;
}

// The pixel under tap (ky,kx) of result pixel (n,y,x): its channels, or NULL outside the image.
static const double *tap(const Window *v, const double *x, int64_t n, int64_t oy, int64_t ox,
                         int64_t ky, int64_t kx) {
    int64_t iy = oy * v->stride[0] - v->pad[0] + ky, ix = ox * v->stride[1] - v->pad[1] + kx;
    if (iy < 0 || iy >= v->h || ix < 0 || ix >= v->w) return NULL;
    return x + ((n * v->h + iy) * v->w + ix) * v->c;
}

// Weights [o,i,kh,kw] -> [kh*kw][o][i], so that the channels of a tap are contiguous.
static double *taps_first(Arena *a, const Tensor *w) {
    int64_t o = w->d[0], i = w->d[1], taps = w->d[2] * w->d[3];
    double *r = NEWN(a, double, o *i *taps);
    for (int64_t t = 0; t < taps; t++)
        for (int64_t j = 0; j < o * i; j++) r[t * o * i + j] = f64_data(w)[j * taps + t];
    return r;
}

// y[n,oy,ox,o] = bias[o] + sum_{ky,kx,i} x[n, oy*s-p+ky, ox*s-p+kx, i] w[o,i,ky,kx]
const char *eval_conv2d(const EvalCall *c) {
    Window v = window_of(c, &c->x[0], &c->y[0], c->x[1].d[2], c->x[1].d[3]);
    int64_t o = c->x[1].d[0];
    const double *w = taps_first(c->tmp, &c->x[1]), *x = f64_data(&c->x[0]);
    const double *bias = c->nx > 2 ? f64_data(&c->x[2]) : NULL;
    double *y = f64_data(&c->y[0]);
    for (int64_t p = 0; p < v.n * v.ho * v.wo; p++, y += o) {
        int64_t n = p / (v.ho * v.wo), oy = p / v.wo % v.ho, ox = p % v.wo;
        for (int64_t j = 0; j < o; j++) y[j] = bias ? bias[j] : 0;
        for (int64_t t = 0; t < v.kh * v.kw; t++) {
            const double *px = tap(&v, x, n, oy, ox, t / v.kw, t % v.kw);
            if (!px) continue;
            const double *wt = w + t * o * v.c;
            for (int64_t j = 0; j < o; j++) y[j] = dot(px, wt + j * v.c, v.c, y[j]);
        }
    }
    return NULL;
}

// y[n,oy,ox,c] = bias[c] + sum_{ky,kx} x[n, oy*s-p+ky, ox*s-p+kx, c] w[c,0,ky,kx]
const char *eval_dwconv2d(const EvalCall *c) {
    Window v = window_of(c, &c->x[0], &c->y[0], c->x[1].d[2], c->x[1].d[3]);
    const double *w = taps_first(c->tmp, &c->x[1]), *x = f64_data(&c->x[0]);
    const double *bias = c->nx > 2 ? f64_data(&c->x[2]) : NULL;
    double *y = f64_data(&c->y[0]);
    for (int64_t p = 0; p < v.n * v.ho * v.wo; p++, y += v.c) {
        int64_t n = p / (v.ho * v.wo), oy = p / v.wo % v.ho, ox = p % v.wo;
        for (int64_t j = 0; j < v.c; j++) y[j] = bias ? bias[j] : 0;
        for (int64_t t = 0; t < v.kh * v.kw; t++) {
            const double *px = tap(&v, x, n, oy, ox, t / v.kw, t % v.kw);
            for (int64_t j = 0; px && j < v.c; j++) y[j] += px[j] * w[t * v.c + j];
        }
    }
    return NULL;
}

// y[n,oy,ox,(ky*kw+kx)*c+i] = x[n, oy*s-p+ky, ox*s-p+kx, i], zero outside
const char *eval_patchify(const EvalCall *c) {
    Window v = window_of(c, &c->x[0], &c->y[0], node_ints(c->n, A_kernel, 0),
                         node_ints(c->n, A_kernel, 1));
    const double *x = f64_data(&c->x[0]);
    double *y = f64_data(&c->y[0]);
    for (int64_t p = 0; p < v.n * v.ho * v.wo; p++) {
        int64_t n = p / (v.ho * v.wo), oy = p / v.wo % v.ho, ox = p % v.wo;
        for (int64_t t = 0; t < v.kh * v.kw; t++, y += v.c) {
            const double *px = tap(&v, x, n, oy, ox, t / v.kw, t % v.kw);
            for (int64_t j = 0; j < v.c; j++) y[j] = px ? px[j] : 0;
        }
    }
    return NULL;
}

// ---- adjoints ----------------------------------------------------------------------------------
// dw[o,i] = sum_r dy[r,o] x[r,i]
const char *eval_linear_dw(const EvalCall *c) {
    int64_t o = c->y[0].d[0], k = c->y[0].d[1], rows = tensor_rows(&c->x[1]);
    const double *dy = f64_data(&c->x[0]), *x = f64_data(&c->x[1]);
    double *dw = f64_data(&c->y[0]);
    for (int64_t r = 0; r < rows; r++, dy += o, x += k)
        for (int64_t i = 0; i < o; i++)
            for (int64_t j = 0; j < k; j++) dw[i * k + j] += dy[i] * x[j];
    return NULL;
}

// Each element of a patch goes back to the pixel it came from; what lay outside is dropped.
const char *eval_unpatchify(const EvalCall *c) {
    Window v = window_of(c, &c->y[0], &c->x[0], node_ints(c->n, A_kernel, 0),
                         node_ints(c->n, A_kernel, 1));
    const double *dy = f64_data(&c->x[0]);
    double *dx = f64_data(&c->y[0]);
    for (int64_t p = 0; p < v.n * v.ho * v.wo; p++) {
        int64_t n = p / (v.ho * v.wo), oy = p / v.wo % v.ho, ox = p % v.wo;
        for (int64_t t = 0; t < v.kh * v.kw; t++, dy += v.c) {
            const double *px = tap(&v, dx, n, oy, ox, t / v.kw, t % v.kw);
            for (int64_t j = 0; px && j < v.c; j++) dx[px - dx + j] += dy[j];
        }
    }
    return NULL;
}

// dx[n, oy*s-p+ky, ox*s-p+kx, c] += dy[n,oy,ox,c] w[c,0,ky,kx]
const char *eval_dwconv2d_dx(const EvalCall *c) {
    Window v = window_of(c, &c->y[0], &c->x[0], c->x[1].d[2], c->x[1].d[3]);
    const double *w = taps_first(c->tmp, &c->x[1]), *dy = f64_data(&c->x[0]);
    double *dx = f64_data(&c->y[0]);
    for (int64_t p = 0; p < v.n * v.ho * v.wo; p++, dy += v.c) {
        int64_t n = p / (v.ho * v.wo), oy = p / v.wo % v.ho, ox = p % v.wo;
        for (int64_t t = 0; t < v.kh * v.kw; t++) {
            const double *px = tap(&v, dx, n, oy, ox, t / v.kw, t % v.kw);
            for (int64_t j = 0; px && j < v.c; j++) dx[px - dx + j] += dy[j] * w[t * v.c + j];
        }
    }
    return NULL;
}

// dw[c,0,ky,kx] = sum_{n,oy,ox} dy[n,oy,ox,c] x[n, oy*s-p+ky, ox*s-p+kx, c]
const char *eval_dwconv2d_dw(const EvalCall *c) {
    Window v = window_of(c, &c->x[1], &c->x[0], c->y[0].d[2], c->y[0].d[3]);
    int64_t taps = v.kh * v.kw;
    const double *dy = f64_data(&c->x[0]), *x = f64_data(&c->x[1]);
    double *dw = f64_data(&c->y[0]);
    for (int64_t p = 0; p < v.n * v.ho * v.wo; p++, dy += v.c) {
        int64_t n = p / (v.ho * v.wo), oy = p / v.wo % v.ho, ox = p % v.wo;
        for (int64_t t = 0; t < taps; t++) {
            const double *px = tap(&v, x, n, oy, ox, t / v.kw, t % v.kw);
            for (int64_t j = 0; px && j < v.c; j++) dw[j * taps + t] += dy[j] * px[j];
        }
    }
    return NULL;
}
