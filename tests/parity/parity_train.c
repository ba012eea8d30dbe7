// parity_train: the training programs of a case of train_cases.txt against its PyTorch fixture
// (make_train_fixtures.py), on seeded weights and seeded data. Linked with the object of the model.
//   parity_train check CASE PROGRAM FIXTURE MICRO key=value...
//     loss, logits and every gradient of the first step, then ten steps of AdamW, by the engine
//   parity_train data CASE PROGRAM key=value... X.npy Y.npy
//     what the command grad reads: the images and the masks or labels of the first step
//   parity_train compare FIXTURE GRADS.safetensors "loss VALUE"
//     what the command grad wrote
// key=value are those of the case's line. Exit 1 when something is above its tolerance: losses 1e-5
// relative (in ten steps 1e-4), a gradient 1e-4 of its norm.
#include "cnxrt.h"
#include "training.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const CnxrtModel *const net_versions[];

enum { STEPS = 10, SAMPLES = 64, PROJECTIONS = 4, SUMMARY = 1 + PROJECTIONS + SAMPLES };
static const double loss_tolerance = 1e-5, grad_tolerance = 1e-4, steps_tolerance = 1e-4;

typedef struct {
    const char *name, *program;
    const CnxrtModel *model;
    int64_t batch, micro;
    double drop; // rate of the last block
    bool soft;   // targets are distributions
    bool sets;   // or zeros and ones
    Training *training;
    int failures;
} Case;

static void die(const char *what, const CnxrtError *err) {
    fprintf(stderr, "parity_train: %s: %s\n", what, err && err->text ? err->text : "failed");
    exit(2);
}

static void *take(int64_t n, size_t size) {
    void *p = calloc((size_t)n, size);
    if (!p) die("memory", NULL);
    return p;
}

// n seeded values in [-1,1) of the stream "CASE.STEP<what>".
static float *draw(const Case *c, int step, const char *what, int64_t n) {
    char name[128];
    snprintf(name, sizeof name, "%s.%d%s", c->name, step, what);
    float *u = take(n, sizeof *u);
    cnxrt_seed_uniform(name, 0, n, u);
    return u;
}

// ---- the data of a step ------------------------------------------------------------------------
// [batch][c][h][w], or channels last.
static float *make_images(const Case *c, int step, bool last) {
    int64_t ch = c->model->channels, pixels = (int64_t)c->model->height * c->model->width;
    int64_t n = c->batch * ch * pixels;
    float *u = draw(c, step, "", n), *x = take(n, sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        int64_t image = i / (ch * pixels), k = i / pixels % ch, p = i % pixels;
        x[last ? (image * pixels + p) * ch + k : i] = 2 * u[i];
    }
    free(u);
    return x;
}

// Per unit, 1 hidden: the `keep` smallest draws of an image stay visible.
static float *make_units(const Case *c, int step) {
    const CnxrtFcmae *f = c->model->fcmae;
    float *u = draw(c, step, ".mask", c->batch * f->units);
    float *m = take(c->batch * f->units, sizeof *m);
    for (int64_t i = 0; i < c->batch * f->units; i++) {
        const float *row = u + i / f->units * f->units;
        int before = 0, at = (int)(i % f->units);
        for (int k = 0; k < f->units; k++)
            before += row[k] < row[at] || (row[k] == row[at] && k < at);
        m[i] = before >= f->keep;
    }
    free(u);
    return m;
}

static float *make_cells(const Case *c, int step) {
    const CnxrtFcmae *f = c->model->fcmae;
    int64_t u = f->mask_unit, h = f->grid[0] * u, w = f->grid[1] * u;
    float *units = make_units(c, step), *m = take(c->batch * h * w, sizeof *m);
    for (int64_t i = 0; i < c->batch * h * w; i++) {
        int64_t image = i / (h * w), y = i / w % h, x = i % w;
        m[i] = units[image * f->units + y / u * f->grid[1] + x / u];
    }
    free(units);
    return m;
}

static int64_t *make_labels(const Case *c, int step) {
    float *u = draw(c, step, ".labels", c->batch);
    int64_t *y = take(c->batch, sizeof *y);
    for (int64_t i = 0; i < c->batch; i++)
        y[i] = (int64_t)(((double)u[i] + 1) * 0.5 * c->model->classes);
    free(u);
    return y;
}

static float *make_targets(const Case *c, int step) {
    int64_t classes = c->model->classes;
    float *t = take(c->batch * classes, sizeof *t);
    if (!c->soft && !c->sets) {
        int64_t *y = make_labels(c, step);
        for (int64_t i = 0; i < c->batch; i++) t[i * classes + y[i]] = 1;
        free(y);
        return t;
    }
    float *u = draw(c, step, ".targets", c->batch * classes);
    for (int64_t i = 0; i < c->batch * classes && c->sets; i++) // no class in the first row
        t[i] = i >= classes && u[i] > 0 ? 1 : 0;
    for (int64_t i = 0; i < c->batch && c->soft; i++) {
        double sum = 0;
        for (int64_t k = 0; k < classes; k++) sum += (double)u[i * classes + k] + 1;
        for (int64_t k = 0; k < classes; k++)
            t[i * classes + k] = (float)(((double)u[i * classes + k] + 1) / sum);
    }
    free(u);
    return t;
}

// Factors of a drop-path input: 0 or 1/(1-rate) for each image.
static float *make_drops(const Case *c, int step, const char *port) {
    const CnxrtDrop *d = NULL;
    for (int i = 0; i < c->model->ndrops; i++)
        if (atoi(port + strlen("drop.")) == c->model->drops[i].key) d = &c->model->drops[i];
    if (!d) die(port, NULL);
    char what[64];
    snprintf(what, sizeof what, ".%s", port);
    float *u = draw(c, step, what, c->batch);
    double rate = c->drop * d->share;
    for (int64_t i = 0; i < c->batch; i++)
        u[i] = ((double)u[i] + 1) * 0.5 < rate ? 0 : (float)(1 / (1 - rate));
    return u;
}

static float *make_port(const Case *c, int step, const char *port) {
    if (strcmp(port, "image") == 0) return make_images(c, step, true);
    if (strcmp(port, "mask") == 0) return make_cells(c, step);
    if (strcmp(port, "target") == 0) return make_targets(c, step);
    if (strncmp(port, "drop.", 5) == 0) return make_drops(c, step, port);
    if (strcmp(port, "loss_scale") != 0) die(port, NULL);
    float *scale = take(c->batch, sizeof *scale);
    for (int64_t i = 0; i < c->batch; i++) scale[i] = (float)(1 / (double)c->batch);
    return scale;
}

// ---- running -----------------------------------------------------------------------------------
// Runs a program on images at .. at+n of a step.
static void run_program(Case *c, const char *program, int step, int64_t at, int64_t n) {
    const CnxrtProgram *p = cnxrt_program(c->model, program);
    for (int i = 0; i < p->ninputs; i++) {
        size_t size = (size_t)p->inputs[i].bytes;
        float *data = make_port(c, step, p->inputs[i].name);
        memcpy(training_input(c->training, program, p->inputs[i].name),
               (char *)data + (size_t)at * size, (size_t)n * size);
        free(data);
    }
    CnxrtError err = {0};
    if (training_run(c->training, program, n, &err) != CNXRT_OK) die("run", &err);
}

// Loss and gradients of a step, in micro-batches; logits: [batch][classes], or NULL.
static double run_step(Case *c, int step, float *logits) {
    training_zero_grads(c->training);
    double sum = 0;
    for (int64_t at = 0; at < c->batch; at += c->micro) {
        int64_t n = c->batch - at < c->micro ? c->batch - at : c->micro;
        run_program(c, c->program, step, at, n);
        const float *loss = training_output(c->training, c->program, "loss");
        for (int64_t i = 0; i < n; i++) sum += (double)loss[i];
        if (!logits) continue;
        size_t row = (size_t)c->model->classes * sizeof *logits;
        memcpy(logits + at * c->model->classes, training_output(c->training, c->program, "logits"),
               (size_t)n * row);
    }
    return sum / (double)c->batch;
}

// The constants of reference_train.py; the moments' decays and the groups are the recipe's.
static void update(Case *c, int step, const CnxrtRecipe *r) {
    double t = step + 1;
    float hyper[CNXRT_HYPERS] = {0};
    hyper[CNXRT_HYPER_LR] = 1e-3f;
    hyper[CNXRT_HYPER_BETA1] = (float)r->beta1;
    hyper[CNXRT_HYPER_BETA2] = (float)r->beta2;
    hyper[CNXRT_HYPER_EPS] = 1e-8f;
    hyper[CNXRT_HYPER_DECAY] = r->kind == CNXRT_PRETRAIN ? 0.05f : 0.3f;
    hyper[CNXRT_HYPER_CORRECTION1] = (float)(1 / (1 - pow(r->beta1, t)));
    hyper[CNXRT_HYPER_CORRECTION2] = (float)(1 / sqrt(1 - pow(r->beta2, t)));
    hyper[CNXRT_HYPER_GRAD_SCALE] = 1;
    hyper[CNXRT_HYPER_ONE_MINUS_BETA1] = (float)(1 - r->beta1);
    hyper[CNXRT_HYPER_ONE_MINUS_BETA2] = (float)(1 - r->beta2);
    CnxrtError err = {0};
    if (training_update(c->training, hyper, r->groups, &err) != CNXRT_OK) die("update", &err);
    training_prepare(c->training);
}

// The recipe pretrain; else finetune, which has layer decay, else the first.
static const CnxrtRecipe *find_recipe(const Case *c) {
    const char *name = strcmp(c->program, "pretrain") == 0 ? "pretrain" : "finetune";
    for (int i = 0; i < c->model->nrecipes; i++)
        if (strcmp(c->model->recipes[i].name, name) == 0) return &c->model->recipes[i];
    if (c->model->nrecipes == 0) die("the model has no recipe", NULL);
    return &c->model->recipes[0];
}

static void seed_weights(Case *c) {
    for (int i = 0; i < c->model->nparams; i++) {
        const CnxrtParam *p = &c->model->params[i];
        cnxrt_seed_weights(p->name, p->rank, p->dims, 0,
                           training_param(c->training, CNXRT_STATE_PARAM, i));
    }
    training_begin(c->training);
    training_prepare(c->training);
}

// ---- comparing ---------------------------------------------------------------------------------
static void report(Case *c, const char *what, double error, double tolerance) {
    bool ok = error <= tolerance; // NaN is not
    c->failures += !ok;
    if (!ok || strncmp(what, "grad.", 5) != 0)
        printf("%s %s %s: %.2e, allowed %.0e\n", ok ? "ok  " : "FAIL", c->name, what, error,
               tolerance);
}

// Tensor `name` of a file in f64; n its elements, to be checked where it is not -1.
static double *read_tensor(const CnxrtWeights *w, const char *name, int64_t *n) {
    for (int i = 0; i < cnxrt_weights_count(w); i++) {
        const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
        if (strcmp(t->name, name) != 0) continue;
        int64_t size = 1;
        for (int k = 0; k < t->rank; k++) size *= t->dims[k];
        if (*n >= 0 && size != *n) die(name, NULL);
        *n = size;
        float *f = take(size, sizeof *f);
        double *v = take(size, sizeof *v);
        if (cnxrt_weights_read(w, i, f, NULL) != CNXRT_OK) die(name, NULL);
        for (int64_t k = 0; k < size; k++) v[k] = (double)f[k];
        free(f);
        return v;
    }
    return NULL;
}

static double *need_tensor(const CnxrtWeights *w, const char *name, int64_t n) {
    double *v = read_tensor(w, name, &n);
    if (!v) die(name, NULL);
    return v;
}

// The error of a gradient relative to its norm, as far as its summary tells: of the norm, of the
// projections, and the norm of the difference estimated from the samples.
static double gradient_error(const char *name, const double *want, const float *g, int64_t n) {
    double norm = 0, worst = 0, sum = 0;
    float *u = take(n > SAMPLES ? n : SAMPLES, sizeof *u);
    for (int64_t i = 0; i < n; i++) norm += (double)g[i] * (double)g[i];
    worst = fabs(sqrt(norm) - want[0]);
    for (int k = 0; k < PROJECTIONS; k++) {
        char stream[160];
        snprintf(stream, sizeof stream, "%s.%d", name, k);
        cnxrt_seed_uniform(stream, 0, n, u);
        double p = 0;
        for (int64_t i = 0; i < n; i++) p += (double)g[i] * (double)u[i];
        worst = fmax(worst, fabs(p - want[1 + k]));
    }
    cnxrt_seed_uniform(name, 0, SAMPLES, u);
    for (int k = 0; k < SAMPLES; k++) {
        double got = (double)g[(int64_t)(((double)u[k] + 1) * 0.5 * (double)n)];
        sum += (got - want[1 + PROJECTIONS + k]) * (got - want[1 + PROJECTIONS + k]);
    }
    free(u);
    worst = fmax(worst, sqrt(sum * (double)n / SAMPLES));
    return norm == norm && want[0] > 0 ? worst / want[0] : NAN;
}

static double check_gradient(Case *c, const CnxrtWeights *fixture, const char *name, const float *g,
                             int64_t n) {
    char key[160];
    snprintf(key, sizeof key, "grad.%s", name);
    int64_t size = SUMMARY;
    double *want = read_tensor(fixture, key, &size);
    double error = want ? gradient_error(name, want, g, n) : NAN;
    report(c, key, error, grad_tolerance);
    free(want);
    return error;
}

static void check_logits(Case *c, const CnxrtWeights *fixture, const float *got) {
    int64_t n = c->batch * c->model->classes;
    double *want = need_tensor(fixture, "logits", n), worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]);
        if (!(e <= worst)) worst = e;
        scale = fmax(scale, fabs(want[i]));
    }
    report(c, "logits", worst / scale, grad_tolerance);
    free(want);
}

// The whole prediction of the images of step 0, by program reconstruct.
static void check_pred(Case *c, const CnxrtWeights *fixture) {
    const CnxrtProgram *p = cnxrt_program(c->model, "reconstruct");
    if (!p) die("no program reconstruct", NULL);
    int64_t size = 0;
    for (int i = 0; i < p->noutputs; i++)
        if (strcmp(p->outputs[i].name, "pred") == 0)
            size = p->outputs[i].bytes / (int64_t)sizeof(float);
    float *pred = take(c->batch * size, sizeof *pred), u[SAMPLES];
    for (int64_t at = 0; at < c->batch; at += c->micro) {
        int64_t n = c->batch - at < c->micro ? c->batch - at : c->micro;
        run_program(c, "reconstruct", 0, at, n);
        memcpy(pred + at * size, training_output(c->training, "reconstruct", "pred"),
               (size_t)(n * size) * sizeof *pred);
    }
    double *want = need_tensor(fixture, "pred", SAMPLES), worst = 0, scale = 0;
    cnxrt_seed_uniform("pred", 0, SAMPLES, u);
    for (int k = 0; k < SAMPLES; k++) {
        int64_t i = (int64_t)(((double)u[k] + 1) * 0.5 * (double)(c->batch * size));
        double e = fabs((double)pred[i] - want[k]);
        if (!(e <= worst)) worst = e;
        scale = fmax(scale, fabs(want[k]));
    }
    report(c, "prediction", worst / scale, grad_tolerance);
    free(want);
    free(pred);
}

static void check_gradients(Case *c, const CnxrtWeights *fixture) {
    double worst = 0;
    int of_fixture = 0;
    for (int i = 0; i < c->model->nparams; i++) {
        const CnxrtParam *p = &c->model->params[i];
        double e =
            check_gradient(c, fixture, p->name, training_param(c->training, CNXRT_STATE_GRAD, i),
                           training_param_count(p));
        worst = fmax(worst, e);
    }
    for (int i = 0; i < cnxrt_weights_count(fixture); i++)
        of_fixture += strncmp(cnxrt_weights_info(fixture, i)->name, "grad.", 5) == 0;
    if (of_fixture != c->model->nparams) die("the number of parameters differs", NULL);
    report(c, "gradients", worst, grad_tolerance);
}

static double relative(double got, double want) { return fabs(got - want) / fabs(want); }

static void check(Case *c, const char *path) {
    CnxrtError err = {0};
    CnxrtWeights *fixture;
    if (cnxrt_weights_open(path, &fixture, &err) != CNXRT_OK) die(path, &err);
    bool pretrain = strcmp(c->program, "pretrain") == 0;
    const char *programs = pretrain ? "pretrain,reconstruct" : c->program;
    TrainingOptions o = {.model = c->model,
                         .programs = programs,
                         .micro = c->micro,
                         .batch = c->batch,
                         .optimizer = true};
    if (training_open(&o, &c->training, &err) != CNXRT_OK) die("training_open", &err);
    seed_weights(c);
    float *logits = c->model->classes && strcmp(c->program, "train") == 0
                        ? take(c->batch * c->model->classes, sizeof *logits)
                        : NULL;
    double *losses = need_tensor(fixture, "losses", STEPS), worst = 0;
    const CnxrtRecipe *recipe = find_recipe(c);
    for (int step = 0; step < STEPS; step++) {
        double loss = run_step(c, step, step == 0 ? logits : NULL);
        if (step == 0) {
            report(c, "loss", relative(loss, losses[0]), loss_tolerance);
            if (logits) check_logits(c, fixture, logits);
            check_gradients(c, fixture);
            if (pretrain) check_pred(c, fixture);
        }
        double e = relative(loss, losses[step]);
        if (!(e <= worst)) worst = e;
        update(c, step, recipe);
    }
    report(c, "ten steps", worst, steps_tolerance);
    free(losses);
    free(logits);
    training_close(c->training);
    cnxrt_weights_close(fixture);
}

// ---- files of the command grad -----------------------------------------------------------------
static void write_i64(const char *path, int64_t n, const int64_t *v) {
    FILE *f = fopen(path, "wb");
    if (!f) die(path, NULL);
    char head[128];
    snprintf(head, sizeof head, "{'descr': '<i8', 'fortran_order': False, 'shape': (%lld,), }",
             (long long)n);
    fprintf(f, "\x93NUMPY\x01%c\x76%c%-117s\n", 0, 0, head);
    fwrite(v, sizeof *v, (size_t)n, f);
    if (fclose(f) != 0) die(path, NULL);
}

static void write_data(const Case *c, const char *x_path, const char *y_path) {
    CnxrtError err = {0};
    int64_t d[] = {c->batch, c->model->channels, c->model->height, c->model->width};
    float *x = make_images(c, 0, false);
    if (cnxrt_npy_write_f32(x_path, 4, d, x, &err) != CNXRT_OK) die(x_path, &err);
    free(x);
    if (c->soft || c->sets) {
        int64_t yd[] = {c->batch, c->model->classes};
        float *y = make_targets(c, 0);
        if (cnxrt_npy_write_f32(y_path, 2, yd, y, &err) != CNXRT_OK) die(y_path, &err);
        free(y);
        return;
    }
    if (strcmp(c->program, "train") == 0) {
        int64_t *y = make_labels(c, 0);
        write_i64(y_path, c->batch, y);
        free(y);
        return;
    }
    float *m = make_units(c, 0);
    int64_t md[] = {c->batch, c->model->fcmae->units};
    if (cnxrt_npy_write_f32(y_path, 2, md, m, &err) != CNXRT_OK) die(y_path, &err);
    free(m);
}

static float *read_gradient(const CnxrtWeights *w, int i, int64_t *n) {
    const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
    *n = 1;
    for (int k = 0; k < t->rank; k++) *n *= t->dims[k];
    float *g = take(*n, sizeof *g);
    CnxrtError err = {0};
    if (cnxrt_weights_read(w, i, g, &err) != CNXRT_OK) die(t->name, &err);
    return g;
}

static double printed_loss(const char *line) {
    char *end = NULL;
    double loss = strncmp(line, "loss ", 5) == 0 ? strtod(line + 5, &end) : NAN;
    if (!end || *end) die("the output is not 'loss VALUE'", NULL);
    return loss;
}

static void compare(Case *c, const char *path, const char *grads_path, const char *printed) {
    CnxrtError err = {0};
    CnxrtWeights *fixture, *grads;
    if (cnxrt_weights_open(path, &fixture, &err) != CNXRT_OK) die(path, &err);
    if (cnxrt_weights_open(grads_path, &grads, &err) != CNXRT_OK) die(grads_path, &err);
    double loss = printed_loss(printed), worst = 0;
    double *want = need_tensor(fixture, "loss", 1);
    report(c, "loss printed", relative(loss, *want), loss_tolerance);
    int count = cnxrt_weights_count(grads), of_fixture = 0;
    for (int i = 0; i < count; i++) {
        int64_t n;
        float *g = read_gradient(grads, i, &n);
        worst = fmax(worst, check_gradient(c, fixture, cnxrt_weights_info(grads, i)->name, g, n));
        free(g);
    }
    for (int i = 0; i < cnxrt_weights_count(fixture); i++)
        of_fixture += strncmp(cnxrt_weights_info(fixture, i)->name, "grad.", 5) == 0;
    if (count != of_fixture) die("the number of gradients differs", NULL);
    report(c, "gradients written", worst, grad_tolerance);
    free(want);
    cnxrt_weights_close(fixture);
    cnxrt_weights_close(grads);
}

// ------------------------------------------------------------------------------------------------
static void parse_keys(Case *c, int n, char **arg) {
    for (int i = 0; i < n; i++) {
        if (strncmp(arg[i], "input=", 6) == 0) c->batch = atoll(arg[i] + 6);
        if (strncmp(arg[i], "drop=", 5) == 0) c->drop = atof(arg[i] + 5);
        if (strcmp(arg[i], "targets=soft") == 0) c->soft = true;
        if (strcmp(arg[i], "targets=sets") == 0) c->sets = true;
    }
    if (c->batch < 1) die("the case has no input", NULL);
}

static void set_program(Case *c, const char *program) {
    c->program = program;
    c->model = strcmp(program, "train") == 0 ? net_versions[0]->train : net_versions[0]->pretrain;
    if (!c->model) die("the model lacks the program", NULL);
}

int main(int argc, char **argv) {
    Case c = {.name = argc > 2 ? argv[2] : ""};
    if (argc >= 7 && strcmp(argv[1], "check") == 0) {
        set_program(&c, argv[3]);
        parse_keys(&c, argc - 6, argv + 6);
        c.micro = atoll(argv[5]) ? atoll(argv[5]) : c.batch;
        check(&c, argv[4]);
    } else if (argc >= 7 && strcmp(argv[1], "data") == 0) {
        set_program(&c, argv[3]);
        parse_keys(&c, argc - 6, argv + 4);
        write_data(&c, argv[argc - 2], argv[argc - 1]);
    } else if (argc == 5 && strcmp(argv[1], "compare") == 0) {
        c.name = "grad";
        compare(&c, argv[2], argv[3], argv[4]);
    } else {
        fprintf(stderr, "usage: see the head of parity_train.c\n");
        return 2;
    }
    return c.failures ? 1 : 0;
}
