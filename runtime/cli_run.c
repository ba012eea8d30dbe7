// Pictures run in batches: the bytes of a batch are read in order, decoded and preprocessed by all
// threads, packed (skipped ones leave no gap), run, and handed out in order again.
#include "cli_run.h"
#include "classes.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void message(const Cli *c, const char *fmt, va_list ap) {
    fflush(stdout);
    fprintf(stderr, "%s %s: ", c->self, c->command->name);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

int cli_fail(const Cli *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    message(c, fmt, ap);
    va_end(ap);
    return CLI_ERROR;
}

int cli_usage(const Cli *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    message(c, fmt, ap);
    va_end(ap);
    return CLI_USAGE;
}

int cli_inputs_check(Cli *c) {
    CliArgs *a = &c->args;
    int status = cli_layout(c, &a->layout, "nchw");
    if (status == CLI_OK) status = cli_layout(c, &a->output_layout, a->layout);
    if (status != CLI_OK) return status;
    if (a->input && a->noperands)
        return cli_usage(c, "--input and pictures (%s) exclude each other", a->operands[0]);
    if (a->data && a->noperands)
        return cli_usage(c, "--data and pictures (%s) exclude each other", a->operands[0]);
    if (!a->input && !a->noperands && !a->data)
        return cli_usage(c, "no input: give pictures, folders or archives%s; see %s %s --help",
                         c->command->letter == 'm' ? ", or --data DATA" : ", or --input X.npy",
                         c->self, c->command->name);
    if (a->input && !a->output) return cli_usage(c, "--input needs --output Y.npy");
    if (a->input && (a->json || a->csv))
        return cli_usage(c, "--input writes logits to --output; --json and --csv are for pictures");
    if (a->json && a->csv) return cli_usage(c, "--json and --csv exclude each other");
    return CLI_OK;
}

int cli_worse(int status, int next) { return next != CLI_OK ? next : status; }

int64_t port_values(const CnxrtPort *p) {
    int64_t n = 1;
    for (int i = 0; i < p->rank; i++) n *= p->dims[i];
    return n;
}

const CnxrtProgram *cli_program(const Cli *c, const char *program, const char *output, int *port) {
    const CnxrtProgram *p = cnxrt_program(c->model, program);
    if (!p) {
        cli_fail(c, "model %s was built without the program %s (cnxc build --programs)",
                 c->model->name, program);
        return NULL;
    }
    for (int i = 0; i < p->noutputs; i++)
        if (strcmp(p->outputs[i].name, output) == 0) {
            *port = i;
            return p;
        }
    cli_fail(c, "model %s has no output %s in its program %s", c->model->name, output, program);
    return NULL;
}

// Splits newline-separated names; without them, ImageNet's when the number of classes fits.
static bool names_open(Cli *c) {
    const char *text = cnxrt_class_names(c->session);
    int classes = c->model->classes, n = 0;
    if (classes < 1 || (!text && classes != CLASSES_IMAGENET)) return true;
    c->names = malloc((size_t)classes * sizeof *c->names);
    if (!c->names || (text && !(c->names_text = strdup(text)))) return false;
    for (int i = 0; !text && i < classes; i++) c->names[i] = classes_imagenet(i);
    if (!text) return true;
    char *p = c->names_text;
    size_t end = strlen(p);
    while (end && p[end - 1] == '\n') p[--end] = 0;
    for (char *line; (line = strsep(&p, "\n")); n++)
        if (n < classes) c->names[n] = line;
    if (n == classes) return true;
    fprintf(stderr, "%s %s: warning: %d class names for %d classes are ignored\n", c->self,
            c->command->name, n, classes);
    free(c->names);
    c->names = NULL;
    return true;
}

int cli_open(Cli *c, const CnxrtProgram *p, int64_t batch) {
    const CnxrtModel *m = c->model;
    bool bench = c->command->letter == 'b';
    bool features = strchr(CLI_ENCODER_COMMANDS, c->command->letter) != NULL;
    if (!c->args.weights && !cnxrt_has_weights(m) && m->weight_bytes > 0 && !bench)
        return cli_usage(c, "no weights: none are built into this program; give a checkpoint: "
                            "--weights FILE (safetensors, .pt or .pth)");
    CnxrtOptions o = {.threads = (int)c->args.threads,
                      .max_batch = batch,
                      .weights = c->args.weights,
                      .programs = p->name,
                      .encoder = features,
                      .seeded = bench};
    if (cnxrt_create(m, &o, &c->session, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text ? c->err.text : "cannot start");
    if (features && c->err.text)
        fprintf(stderr,
                "%s %s: note: an encoder without classifier; its pooled features are normalised "
                "without weight and bias\n",
                c->self, c->command->name);
    cnxrt_error_free(&c->err);
    return names_open(c) ? CLI_OK : cli_fail(c, "out of memory");
}

void cli_close(Cli *c) {
    cnxrt_destroy(c->session);
    cnxrt_error_free(&c->err);
    free(c->names_text);
    free(c->names);
}

const char *cli_class_name(const Cli *c, int i, char buf[32]) {
    if (c->names) return c->names[i];
    snprintf(buf, 32, "class %d", i);
    return buf;
}

int cli_pictures_list(Cli *c, Pictures *p) {
    *p = (Pictures){0};
    for (int i = 0; i < c->args.noperands; i++)
        if (image_list_add(&p->list, c->args.operands[i], c->args.limit, &c->err) != CNXRT_OK)
            return cli_fail(c, "%s", c->err.text);
    p->count = p->list.count;
    return CLI_OK;
}

static int split_parse(const Cli *c, const char *name, Split *split) {
    static const char *const names[] = {"train", "val", "test"};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0) {
            *split = (Split)i;
            return CLI_OK;
        }
    return cli_usage(c, "--split %s: expected train, val or test", name);
}

static int data_open(Cli *c, const DatasetOptions *o, Pictures *p) {
    *p = (Pictures){0};
    if (dataset_open(o, &p->data, &c->err) != CNXRT_OK) return cli_fail(c, "%s", c->err.text);
    p->count = dataset_count(p->data);
    if (c->args.limit && c->args.limit < p->count) p->count = c->args.limit;
    return CLI_OK;
}

int cli_pictures_data(Cli *c, const char *path, const char *split, const Dataset *known,
                      Pictures *p) {
    DatasetOptions o = {.path = path, .split = SPLIT_VAL, .whole = !split};
    const char **names = NULL;
    *p = (Pictures){0};
    if (split && split_parse(c, split, &o.split) != CLI_OK) return CLI_USAGE;
    if (known) {
        o.nclasses = dataset_classes(known);
        o.classes = names = malloc(((size_t)o.nclasses + 1) * sizeof *names);
        if (!names) return cli_fail(c, "out of memory");
        for (int i = 0; i < o.nclasses; i++) names[i] = dataset_class_name(known, i);
    }
    int status = data_open(c, &o, p);
    free(names);
    if (status != CLI_OK || !split || known) return status;
    const char *found = dataset_split(p->data);
    if (found && strcmp(found, split) == 0) return CLI_OK;
    return cli_fail(c, "%s has no class folders in %s", path, split);
}

int cli_pictures_train(Cli *c, const char *path, Pictures *p) {
    DatasetOptions o = {.path = path, .split = SPLIT_TRAIN, .seed = (uint64_t)c->args.seed};
    if (!isnan(c->args.label_fraction)) o.label_fraction = c->args.label_fraction;
    return data_open(c, &o, p);
}

void cli_pictures_close(Pictures *p) {
    image_list_free(&p->list);
    dataset_close(p->data);
    *p = (Pictures){0};
}

const char *cli_picture_name(const Pictures *p, int64_t i, char *buf, size_t size) {
    return p->data ? dataset_sample_name(p->data, i, buf, size) : p->list.items[i].name;
}

static CnxrtStatus picture_decode(const Pictures *p, int64_t i, const uint8_t *bytes, size_t size,
                                  const Preprocess *q, float *dst, CnxrtError *err) {
    ImageOptions o = {.channels = q->channels};
    Image image;
    CnxrtStatus s =
        p->data ? dataset_decode(p->data, i, &o, &image, err)
                : image_item_decode(&p->list.items[i], bytes, size, o.channels, &image, err);
    if (s != CNXRT_OK) return s;
    s = preprocess_image(q, &image, dst, err);
    image_free(&image);
    return s;
}

CnxrtStatus cli_picture_read(const Pictures *p, ImageReader *reader, int64_t i,
                             const Preprocess *preprocess, float *dst, CnxrtError *err) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    CnxrtStatus s = CNXRT_OK;
    if (!p->data) s = image_reader_read(reader, &p->list.items[i], &bytes, &size, err);
    if (s == CNXRT_OK) s = picture_decode(p, i, bytes, size, preprocess, dst, err);
    free(bytes);
    return s;
}

int64_t cli_picture_batch(const Cli *c, const Pictures *p) {
    int64_t batch = c->args.batch ? c->args.batch : 8;
    return p->count < batch && p->count > 0 ? p->count : batch;
}

// One picture of the batch in work.
typedef struct {
    uint8_t *bytes;
    size_t size;
    CnxrtStatus status;
    CnxrtError err;
} Slot;

typedef struct {
    Cli *cli;
    const PictureRun *run;
    const Pictures *pictures;
    Preprocess preprocess;
    Slot *slots;
    float *in, *out;
    int64_t in_values, out_values;
    const void **inputs;
    void **outputs;
    Progress progress;
    int64_t skipped;
} Batch;

static void slot_decode(const Batch *b, int64_t i, Slot *s, float *dst) {
    if (s->status == CNXRT_OK)
        s->status = picture_decode(b->pictures, i, s->bytes, s->size, &b->preprocess, dst, &s->err);
}

// Reads, decodes and packs n pictures from `at` on; returns how many are ready to run.
static int64_t batch_load(Batch *b, ImageReader *reader, int64_t at, int64_t n) {
    const Pictures *p = b->pictures;
    for (int64_t i = 0; i < n; i++) {
        Slot *s = &b->slots[i];
        *s = (Slot){0};
        if (!p->data)
            s->status =
                image_reader_read(reader, &p->list.items[at + i], &s->bytes, &s->size, &s->err);
    }
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(cnxrt_threads(b->cli->session))
#endif
    for (int64_t i = 0; i < n; i++) slot_decode(b, at + i, &b->slots[i], b->in + i * b->in_values);
    int64_t ready = 0;
    for (int64_t i = 0; i < n; i++) {
        free(b->slots[i].bytes);
        if (b->slots[i].status != CNXRT_OK) continue;
        if (ready != i)
            memcpy(b->in + ready * b->in_values, b->in + i * b->in_values,
                   (size_t)b->in_values * sizeof(float));
        ready++;
    }
    return ready;
}

// Hands out the results of n pictures in order.
static bool batch_emit(Batch *b, int64_t at, int64_t n) {
    const float *values = b->out;
    char buf[4200];
    bool ok = true;
    progress_clear(&b->progress);
    for (int64_t i = 0; i < n; i++) {
        Slot *s = &b->slots[i];
        const char *reason = NULL;
        const char *name = cli_picture_name(b->pictures, at + i, buf, sizeof buf);
        if (s->status != CNXRT_OK) {
            reason = s->err.text ? s->err.text : "cannot be read";
            b->skipped++;
            fflush(stdout);
            fprintf(stderr, "%s: skipped %s: %s\n", b->cli->self, name, reason);
        }
        ok = ok && b->run->each(b->run->user, at + i, name, reason ? NULL : values, reason);
        if (!reason) values += b->out_values;
        cnxrt_error_free(&s->err);
    }
    return ok;
}

static bool batch_open(Batch *b, int64_t n) {
    const CnxrtProgram *p = b->run->program;
    b->in_values = port_values(&p->inputs[0]);
    b->out_values = port_values(&p->outputs[b->run->port]);
    b->slots = calloc((size_t)n, sizeof *b->slots);
    b->in = calloc((size_t)n, (size_t)b->in_values * sizeof *b->in);
    b->out = calloc((size_t)n, (size_t)b->out_values * sizeof *b->out);
    b->inputs = calloc((size_t)p->ninputs, sizeof *b->inputs);
    b->outputs = calloc((size_t)p->noutputs, sizeof *b->outputs);
    if (!b->slots || !b->in || !b->out || !b->inputs || !b->outputs) return false;
    b->inputs[0] = b->in;
    b->outputs[b->run->port] = b->out;
    return true;
}

static void batch_close(Batch *b) {
    free(b->slots);
    free(b->in);
    free(b->out);
    free(b->inputs);
    free(b->outputs);
}

static int batch_run_all(Batch *b, int64_t batch, ImageReader *reader) {
    Cli *c = b->cli;
    int64_t count = b->pictures->count;
    for (int64_t at = 0; at < count; at += batch) {
        int64_t n = count - at < batch ? count - at : batch;
        int64_t ready = batch_load(b, reader, at, n);
        if (ready && cnxrt_run(c->session, b->run->program, ready, b->inputs, b->outputs, &c->err))
            return cli_fail(c, "%s", c->err.text);
        if (!batch_emit(b, at, n)) return cli_fail(c, "out of memory");
        progress_update(&b->progress, at + n);
    }
    progress_clear(&b->progress);
    return b->skipped ? CLI_SKIPPED : CLI_OK;
}

int cli_pictures(Cli *c, const Pictures *p, int64_t batch, const PictureRun *run) {
    Batch b = {.cli = c, .run = run, .pictures = p};
    if (preprocess_of_model(c->model, &b.preprocess, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text);
    ImageReader reader = {0};
    progress_start(&b.progress, p->count, c->args.quiet);
    int status = batch_open(&b, batch)
                     ? batch_run_all(&b, batch, &reader)
                     : cli_fail(c, "out of memory for a batch of %lld pictures", (long long)batch);
    if (status == CLI_SKIPPED)
        fprintf(stderr, "%s: %lld of %lld inputs skipped\n", c->self, (long long)b.skipped,
                (long long)p->count);
    image_reader_close(&reader);
    batch_close(&b);
    return status;
}
