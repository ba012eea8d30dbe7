// Tensors in and out: .npy files in either layout, and rows gathered for them.
#include "cli_run.h"
#include <stdlib.h>
#include <string.h>

bool rows_add(Rows *r, const float *values) {
    if (r->count == r->room) {
        int64_t room = r->room ? 2 * r->room : 16;
        float *more = realloc(r->values, (size_t)(room * r->size) * sizeof *more);
        if (!more) return false;
        r->values = more;
        r->room = room;
    }
    memcpy(r->values + r->count++ * r->size, values, (size_t)r->size * sizeof *values);
    return true;
}

// dst[cols][rows] = src[rows][cols], transposed.
static void transpose(const float *src, int64_t rows, int64_t cols, float *dst) {
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = 0; r < rows; r++) dst[c * rows + r] = src[r * cols + c];
}

int rows_write(const Cli *c, const Rows *r, const CnxrtPort *port, const char *layout,
               const char *path) {
    int64_t dims[8] = {r->count};
    const int64_t *d = port->dims;
    bool planes = port->rank == 3 && strcmp(layout, "nchw") == 0;
    memcpy(dims + 1, d, (size_t)port->rank * sizeof *d);
    if (planes) {
        float *tmp = malloc((size_t)r->size * sizeof *tmp);
        if (!tmp) return cli_fail(c, "out of memory");
        for (int64_t i = 0; i < r->count; i++) {
            float *row = r->values + i * r->size;
            memcpy(tmp, row, (size_t)r->size * sizeof *tmp);
            transpose(tmp, d[0] * d[1], d[2], row);
        }
        free(tmp);
        dims[1] = d[2], dims[2] = d[0], dims[3] = d[1];
    }
    CnxrtError err = {0};
    int status = CLI_OK;
    if (cnxrt_npy_write_f32(path, port->rank + 1, dims, r->values, &err) != CNXRT_OK)
        status = cli_fail(c, "%s", err.text);
    cnxrt_error_free(&err);
    return status;
}

static void shape_text(char *buf, size_t size, int rank, const int64_t *dims) {
    size_t n = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%lld", i ? "," : "", (long long)dims[i]);
    if (n < size) snprintf(buf + n, size - n, "]");
}

static bool shape_is(const int64_t *d, int64_t a, int64_t b, int64_t c) {
    return d[0] == a && d[1] == b && d[2] == c;
}

// Checks [N,C,H,W] or [C,H,W] (or channels last); *n gets N.
static int input_check(const Cli *c, const CnxrtNpy *x, int64_t *n) {
    const CnxrtModel *m = c->model;
    bool planes = strcmp(c->args.layout, "nchw") == 0;
    const int64_t *d = x->dims + (x->rank == 4);
    bool rank = x->rank == 3 || x->rank == 4;
    bool first = rank && shape_is(d, m->channels, m->height, m->width);
    bool last = rank && shape_is(d, m->height, m->width, m->channels);
    *n = x->rank == 4 ? x->dims[0] : 1;
    if (planes ? first : last) {
        if (*n > 0) return CLI_OK;
        return cli_fail(c, "%s: holds no tensors (N is 0)", c->args.input);
    }
    char shape[200];
    shape_text(shape, sizeof shape, x->rank, x->dims);
    int64_t want[3] = {m->channels, m->height, m->width};
    if (!planes) want[0] = m->height, want[1] = m->width, want[2] = m->channels;
    return cli_fail(c, "%s: the shape is %s; the model takes [N,%lld,%lld,%lld] (%s)%s",
                    c->args.input, shape, (long long)want[0], (long long)want[1],
                    (long long)want[2], planes ? "nchw" : "nhwc",
                    planes && last     ? "; use --layout nhwc"
                    : !planes && first ? "; use --layout nchw"
                                       : "");
}

int cli_layout(const Cli *c, const char **layout, const char *otherwise) {
    if (!*layout) *layout = otherwise;
    if (strcmp(*layout, "nchw") == 0 || strcmp(*layout, "nhwc") == 0) return CLI_OK;
    return cli_usage(c, "layout %s: expected nchw or nhwc", *layout);
}

int cli_tensors_read(Cli *c, CnxrtNpy *x, int64_t *n) {
    if (cnxrt_npy_read_f32(c->args.input, x, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text);
    int status = input_check(c, x, n);
    if (status != CLI_OK) cnxrt_npy_free(x);
    return status;
}

void cli_tensors_fill(const Cli *c, const float *x, int64_t n, float *dst) {
    const CnxrtModel *m = c->model;
    int64_t pixels = (int64_t)m->height * m->width, size = pixels * m->channels;
    if (strcmp(c->args.layout, "nchw") != 0)
        memcpy(dst, x, (size_t)(n * size) * sizeof *dst);
    else
        for (int64_t i = 0; i < n; i++)
            transpose(x + i * size, m->channels, pixels, dst + i * size);
}

typedef struct {
    float *in, *out;
    const void **inputs;
    void **outputs;
} Buffers;

static void buffers_close(Buffers *b) {
    free(b->in);
    free(b->out);
    free(b->inputs);
    free(b->outputs);
}

static int tensors_run(Cli *c, const CnxrtProgram *p, const float *x, int64_t n, int64_t batch,
                       bool planes, Rows *rows, Buffers *b) {
    int64_t size = port_values(&p->inputs[0]);
    for (int64_t at = 0; at < n; at += batch) {
        int64_t part = n - at < batch ? n - at : batch;
        b->inputs[0] = x + at * size;
        if (planes) cli_tensors_fill(c, x + at * size, part, b->in);
        if (planes) b->inputs[0] = b->in;
        if (cnxrt_run(c->session, p, part, b->inputs, b->outputs, &c->err) != CNXRT_OK)
            return cli_fail(c, "%s", c->err.text);
        for (int64_t i = 0; i < part; i++)
            if (!rows_add(rows, b->out + i * rows->size)) return cli_fail(c, "out of memory");
    }
    return CLI_OK;
}

int cli_tensors(Cli *c, const CnxrtProgram *p, int port, Rows *rows) {
    enum { MAX_BATCH = 32 }; // when none is asked for
    bool planes = strcmp(c->args.layout, "nchw") == 0;
    CnxrtNpy x;
    int64_t n, batch;
    int status = cli_tensors_read(c, &x, &n);
    if (status != CLI_OK) return status;
    batch = c->args.batch ? c->args.batch : MAX_BATCH;
    if (batch > n) batch = n;
    status = cli_open(c, p, batch);
    if (status == CLI_OK) {
        rows->size = port_values(&p->outputs[port]);
        size_t in = (size_t)port_values(&p->inputs[0]) * sizeof(float);
        Buffers b = {.in = calloc((size_t)batch, planes ? in : 1),
                     .out = calloc((size_t)batch, (size_t)rows->size * sizeof(float)),
                     .inputs = calloc((size_t)p->ninputs, sizeof *b.inputs),
                     .outputs = calloc((size_t)p->noutputs, sizeof *b.outputs)};
        if (b.in && b.out && b.inputs && b.outputs) {
            b.outputs[port] = b.out;
            status = tensors_run(c, p, x.data, n, batch, planes, rows, &b);
        } else {
            status = cli_fail(c, "out of memory for a batch of %lld tensors", (long long)batch);
        }
        buffers_close(&b);
    }
    cnxrt_npy_free(&x);
    return status;
}
