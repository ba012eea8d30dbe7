// grad: the mean loss of a batch of tensors and its gradient by every parameter. Nothing random: no
// augmentation, mixing, smoothing or drop path.
#include "checkpoint.h"
#include "cli_training.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Cli *cli;
    Training *training;
    const char *program; // "train" or "pretrain"
    const CnxrtModel *model;
    CnxrtNpy x;
    int64_t n;
    float *targets;       // [n][classes], of train
    unsigned char *units; // [n][units], of pretrain: 1 is hidden
    double loss;
} Grad;

static int label_fill(const Grad *g, const CnxrtNpy *y, int64_t i) {
    int64_t v =
        strcmp(y->dtype, "i8") == 0 ? ((const int64_t *)y->data)[i] : ((const int32_t *)y->data)[i];
    if (v < 0 || v >= g->model->classes)
        return cli_fail(g->cli, "%s: label %lld of row %lld is outside 0 .. %d",
                        g->cli->args.labels, (long long)v, (long long)i, g->model->classes - 1);
    g->targets[i * g->model->classes + v] = 1;
    return CLI_OK;
}

// One class a tensor.
static int labels_fill(const Grad *g, const CnxrtNpy *y) {
    const Cli *c = g->cli;
    int status = CLI_OK;
    if (strcmp(y->dtype, "i4") != 0 && strcmp(y->dtype, "i8") != 0)
        return cli_fail(c, "%s: labels are int32 or int64, or rows of targets; this is %s",
                        c->args.labels, y->dtype);
    if (y->dims[0] != g->n)
        return cli_fail(c, "%s: %lld labels; expected %lld labels, one a tensor of %s",
                        c->args.labels, (long long)y->dims[0], (long long)g->n, c->args.input);
    for (int64_t i = 0; status == CLI_OK && i < g->n; i++) status = label_fill(g, y, i);
    return status;
}

#define ROW_TOLERANCE 1e-4 // of the sum of a row of probabilities

// What a row of targets may be: values in 0 .. 1, which for softmax sum to 1.
static int row_check(const Grad *g, const float *row, int64_t i) {
    const char *file = g->cli->args.labels;
    double sum = 0;
    for (int k = 0; k < g->model->classes; k++) {
        sum += (double)row[k];
        if (row[k] >= 0 && row[k] <= 1) continue;
        return cli_fail(g->cli, "%s: target %g of row %lld, class %d is outside 0 .. 1", file,
                        (double)row[k], (long long)i, k);
    }
    if (g->model->loss == CNXRT_LOSS_BCE || fabs(sum - 1) <= ROW_TOLERANCE) return CLI_OK;
    return cli_fail(g->cli,
                    "%s: row %lld sums to %.9g; the loss of this program (cross_entropy) takes "
                    "probabilities, which sum to 1",
                    file, (long long)i, sum);
}

// A row of targets a tensor, of any real type.
static int rows_fill(const Grad *g, const CnxrtNpy *y) {
    Cli *c = g->cli;
    CnxrtNpy rows;
    if (y->dims[0] != g->n || y->dims[1] != g->model->classes)
        return cli_fail(c,
                        "%s: targets of shape (%lld, %lld); expected (%lld, %d): one row a "
                        "tensor of %s, one column a class",
                        c->args.labels, (long long)y->dims[0], (long long)y->dims[1],
                        (long long)g->n, g->model->classes, c->args.input);
    if (cnxrt_npy_read_f32(c->args.labels, &rows, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text);
    int64_t classes = g->model->classes;
    int status = CLI_OK;
    memcpy(g->targets, rows.data, (size_t)(g->n * classes) * sizeof *g->targets);
    cnxrt_npy_free(&rows);
    for (int64_t i = 0; status == CLI_OK && i < g->n; i++)
        status = row_check(g, g->targets + i * classes, i);
    return status;
}

static int targets_read(Grad *g) {
    Cli *c = g->cli;
    CnxrtNpy y;
    if (cnxrt_npy_read(c->args.labels, &y, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text);
    g->targets = calloc((size_t)g->n, (size_t)g->model->classes * sizeof *g->targets);
    int status = CLI_ERROR;
    if (!g->targets)
        cli_fail(c, "out of memory");
    else if (y.rank == 1)
        status = labels_fill(g, &y);
    else if (y.rank == 2)
        status = rows_fill(g, &y);
    else
        cli_fail(c,
                 "%s: an array of %d dimensions; expected %lld labels or targets of shape "
                 "(%lld, %d)",
                 c->args.labels, y.rank, (long long)g->n, (long long)g->n, g->model->classes);
    cnxrt_npy_free(&y);
    return status;
}

// One row of the mask: zeros and ones, as many zeros as the program keeps.
static int mask_row(const Grad *g, const float *row, int64_t i) {
    const CnxrtFcmae *f = g->model->fcmae;
    unsigned char *units = g->units + i * f->units;
    int zeros = 0;
    for (int k = 0; k < f->units; k++) {
        if (row[k] != 0 && row[k] != 1)
            return cli_fail(g->cli, "%s: row %lld holds %g; expected 0 (visible) or 1 (removed)",
                            g->cli->args.mask, (long long)i, (double)row[k]);
        units[k] = row[k] != 0;
        zeros += !units[k];
    }
    if (zeros == f->keep) return CLI_OK;
    return cli_fail(g->cli,
                    "%s: row %lld has %d zeros (visible patches); this program keeps %d of %d",
                    g->cli->args.mask, (long long)i, zeros, f->keep, f->units);
}

static int mask_read(Grad *g) {
    Cli *c = g->cli;
    const CnxrtFcmae *f = g->model->fcmae;
    CnxrtNpy m;
    if (cnxrt_npy_read_f32(c->args.mask, &m, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text);
    int status = CLI_OK;
    if (m.rank != 2 || m.dims[0] != g->n || m.dims[1] != f->units)
        status = cli_fail(c,
                          "%s: expected the shape (%lld, %d): one row a tensor of %s, %d x %d "
                          "patches",
                          c->args.mask, (long long)g->n, f->units, c->args.input, f->grid[0],
                          f->grid[1]);
    else if (!(g->units = malloc((size_t)(g->n * f->units))))
        status = cli_fail(c, "out of memory");
    for (int64_t i = 0; status == CLI_OK && i < g->n; i++)
        status = mask_row(g, (const float *)m.data + i * f->units, i);
    cnxrt_npy_free(&m);
    return status;
}

// Inputs of the images from `at` on: the loss is the mean over all n.
static void inputs_fill(Grad *g, int64_t at, int64_t n) {
    const CnxrtProgram *p = cnxrt_program(g->model, g->program);
    for (int i = 0; i < p->ninputs; i++) {
        const CnxrtPort *port = &p->inputs[i];
        float *dst = training_input(g->training, g->program, port->name);
        int64_t size = port_values(port);
        if (strcmp(port->name, "image") == 0) {
            cli_tensors_fill(g->cli, (const float *)g->x.data + at * size, n, dst);
        } else if (strcmp(port->name, "target") == 0) {
            memcpy(dst, g->targets + at * size, (size_t)(n * size) * sizeof *dst);
        } else if (strcmp(port->name, "mask") == 0) {
            const CnxrtFcmae *f = g->model->fcmae;
            for (int64_t k = 0; k < n; k++)
                fcmae_cells(f, g->units + (at + k) * f->units, dst + k * size);
        } else { // loss_scale, and drop paths that keep everything
            float value = strcmp(port->name, "loss_scale") == 0 ? (float)(1.0 / (double)g->n) : 1;
            for (int64_t k = 0; k < n * size; k++) dst[k] = value;
        }
    }
}

static int grad_run(Grad *g) {
    int64_t micro = training_micro_batch(g->training);
    double sum = 0;
    training_zero_grads(g->training);
    for (int64_t at = 0; at < g->n; at += micro) {
        int64_t n = g->n - at < micro ? g->n - at : micro;
        inputs_fill(g, at, n);
        if (training_run(g->training, g->program, n, &g->cli->err) != CNXRT_OK)
            return cli_fail(g->cli, "%s", g->cli->err.text);
        const float *loss = training_output(g->training, g->program, "loss");
        for (int64_t i = 0; i < n; i++) sum += (double)loss[i];
    }
    g->loss = sum / (double)g->n;
    return CLI_OK;
}

// Under the names and in the shapes of checkpoints.
static int grad_write(const Grad *g) {
    Cli *c = g->cli;
    CnxrtStatus s = checkpoint_write(c->args.output, g->training, CNXRT_STATE_GRAD, NULL, &c->err);
    return s == CNXRT_OK ? CLI_OK : cli_fail(c, "%s", c->err.text);
}

static int grad_check(Cli *c) {
    const CliArgs *a = &c->args;
    if (!a->input) return cli_usage(c, "no input: give --input X.npy");
    if (!a->output) return cli_usage(c, "where to? give --output GRADS.safetensors");
    if (!a->mask == !a->labels)
        return cli_usage(c, "give --labels Y.npy (supervised) or --mask M.npy (pre-training)%s",
                         a->mask ? ", not both" : "");
    return cli_layout(c, &c->args.layout, "nchw");
}

int cli_grad(Cli *c) {
    int status = grad_check(c);
    if (status != CLI_OK) return status;
    Grad g = {.cli = c, .program = c->args.mask ? "pretrain" : "train"};
    g.model = cli_training_model(c, g.program);
    if (!g.model) return CLI_ERROR;
    status = cli_tensors_read(c, &g.x, &g.n);
    if (status == CLI_OK) status = c->args.mask ? mask_read(&g) : targets_read(&g);
    TrainingOptions o = {.model = g.model, .programs = g.program, .threads = (int)c->args.threads};
    o.micro = cli_training_micro(c, &o, g.n);
    if (status == CLI_OK) status = cli_training_open(c, o, false, &g.training);
    if (status == CLI_OK) status = grad_run(&g);
    if (status == CLI_OK) status = grad_write(&g);
    if (status == CLI_OK) printf("loss %.9g\n", g.loss);
    training_close(g.training);
    cnxrt_npy_free(&g.x);
    free(g.targets);
    free(g.units);
    return status;
}
