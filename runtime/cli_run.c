// Pictures run in batches: the bytes of a batch are read in order, decoded and preprocessed by all
// threads, packed (skipped ones leave no gap), run, and handed out in order again.
#include "cli_run.h"
#include "classes.h"
#include "preprocess.h"
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
    if (!c->args.weights && !m->embedded && m->weight_bytes > 0 && !bench)
        return cli_usage(c, "no weights: none are built into this program; give a checkpoint: "
                            "--weights FILE (safetensors, .pt or .pth)");
    CnxrtOptions o = {.threads = (int)c->args.threads,
                      .max_batch = batch,
                      .weights = c->args.weights,
                      .programs = p->name,
                      .seeded = bench};
    if (cnxrt_create(m, &o, &c->session, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text ? c->err.text : "cannot start");
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

int cli_list(Cli *c, ImageList *list) {
    for (int i = 0; i < c->args.noperands; i++)
        if (image_list_add(list, c->args.operands[i], c->args.limit, &c->err) != CNXRT_OK)
            return cli_fail(c, "%s", c->err.text);
    return CLI_OK;
}

int64_t cli_picture_batch(const Cli *c, const ImageList *list) {
    int64_t batch = c->args.batch ? c->args.batch : 8;
    return list->count < batch && list->count > 0 ? list->count : batch;
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
    Preprocess preprocess;
    Slot *slots;
    float *in, *out;
    int64_t in_values, out_values;
    const void **inputs;
    void **outputs;
    Progress progress;
    int64_t skipped;
} Batch;

static void slot_decode(const Batch *b, const ImageItem *item, Slot *s, float *dst) {
    Image image;
    if (s->status != CNXRT_OK) return;
    s->status = image_item_decode(item, s->bytes, s->size, b->preprocess.channels, &image, &s->err);
    if (s->status != CNXRT_OK) return;
    s->status = preprocess_image(&b->preprocess, &image, dst, &s->err);
    image_free(&image);
}

// Reads, decodes and packs n items; returns how many are ready to run.
static int64_t batch_load(Batch *b, ImageReader *reader, const ImageItem *items, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        Slot *s = &b->slots[i];
        *s = (Slot){0};
        s->status = image_reader_read(reader, &items[i], &s->bytes, &s->size, &s->err);
    }
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(cnxrt_threads(b->cli->session))
#endif
    for (int64_t i = 0; i < n; i++)
        slot_decode(b, &items[i], &b->slots[i], b->in + i * b->in_values);
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

// Hands out the results of n items in order.
static bool batch_emit(Batch *b, const ImageItem *items, int64_t n) {
    const float *values = b->out;
    bool ok = true;
    progress_clear(&b->progress);
    for (int64_t i = 0; i < n; i++) {
        Slot *s = &b->slots[i];
        const char *reason = NULL;
        if (s->status != CNXRT_OK) {
            reason = s->err.text ? s->err.text : "cannot be read";
            b->skipped++;
            fflush(stdout);
            fprintf(stderr, "%s: skipped %s: %s\n", b->cli->self, items[i].name, reason);
        }
        ok = ok && b->run->each(b->run->user, &items[i], reason ? NULL : values, reason);
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

static int batch_run_all(Batch *b, const ImageList *list, int64_t batch, ImageReader *reader) {
    Cli *c = b->cli;
    for (int64_t at = 0; at < list->count; at += batch) {
        int64_t n = list->count - at < batch ? list->count - at : batch;
        int64_t ready = batch_load(b, reader, list->items + at, n);
        if (ready && cnxrt_run(c->session, b->run->program, ready, b->inputs, b->outputs, &c->err))
            return cli_fail(c, "%s", c->err.text);
        if (!batch_emit(b, list->items + at, n)) return cli_fail(c, "out of memory");
        progress_update(&b->progress, at + n);
    }
    progress_clear(&b->progress);
    return b->skipped ? CLI_SKIPPED : CLI_OK;
}

int cli_pictures(Cli *c, const ImageList *list, int64_t batch, const PictureRun *run) {
    Batch b = {.cli = c, .run = run};
    if (preprocess_of_model(c->model, &b.preprocess, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text);
    ImageReader reader = {0};
    progress_start(&b.progress, list->count, c->args.quiet);
    int status = batch_open(&b, batch)
                     ? batch_run_all(&b, list, batch, &reader)
                     : cli_fail(c, "out of memory for a batch of %lld pictures", (long long)batch);
    if (status == CLI_SKIPPED)
        fprintf(stderr, "%s: %lld of %lld inputs skipped\n", c->self, (long long)b.skipped,
                (long long)list->count);
    image_reader_close(&reader);
    batch_close(&b);
    return status;
}
