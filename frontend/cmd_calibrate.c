// The fp32 network, its groups taken apart (pass observe), runs on every picture twice: first for
// the least and the greatest input of each linear, then for histograms between them. The range kept
// is the part of it, shrunk towards 0, whose u8 grid gives the least mean squared error: what lies
// outside is clipped, what lies inside is off by up to half a step.
#include "cmd_calibrate.h"
#include "../runtime/dataset.h"
#include "../runtime/preprocess.h"
#include <math.h>
#include <stdlib.h>

enum { BINS = 2048, SHRINKS = 40, COMPARED = 4 };

// ---- running a program -------------------------------------------------------------------------
typedef struct {
    CompiledModel model;
    const Schedule *s;
    CodegenRunFn run;
    char *weights;
    void *arena, *scratch;
    void **outputs;
    int noutputs;
} Runner;

static void *aligned(Arena *a, int64_t bytes) {
    char *p = arena_alloc(a, (size_t)bytes + 128);
    return p + (64 - (uintptr_t)p % 64);
}

static const Schedule *find_schedule(const CompiledModel *c, const char *name) {
    for (int i = 0; i < c->pipeline.schedules.n; i++)
        if (strcmp(c->pipeline.schedules.v[i]->name, name) == 0) return c->pipeline.schedules.v[i];
    return NULL;
}

// Compiles program infer of the spec for this machine and prepares the weights.
static bool runner_open(Runner *r, const Calibration *c, const PipelineOptions *opt, Diag *d) {
    Arena *a = c->spec->arena;
    const Target *t = codegen_native_target(a);
    if (!t) {
        diag_error(d, (Loc){0}, "int8 cannot be calibrated here: no target describes this CPU");
        return false;
    }
    if (!compile_model(&r->model, MODEL_INFER, c->spec, t, opt, d)) return false;
    r->s = find_schedule(&r->model, "infer");
    r->weights = compile_prepared(&r->model, c->weights, d);
    if (r->weights) r->run = codegen_jit_program(a, r->s, d);
    if (!r->run) return false;
    r->arena = aligned(a, r->s->fixed_bytes + r->s->image_bytes + r->s->slot_bytes);
    r->scratch = aligned(a, r->s->scratch_bytes);
    r->outputs = NEWN(a, void *, r->s->buffers.n + 1);
    for (int i = 0; i < r->s->buffers.n; i++) {
        const Buffer *b = &r->s->buffers.v[i];
        if (b->region != REGION_OUTPUT) continue;
        r->outputs[b->port] = aligned(a, b->bytes);
        if (b->port >= r->noutputs) r->noutputs = b->port + 1;
    }
    return true;
}

static void runner_run(const Runner *r, const float *image) {
    const void *inputs[] = {image};
    CnxrtFrame frame = {.arena = r->arena,
                        .scratch = r->scratch,
                        .weights = r->weights,
                        .inputs = inputs,
                        .outputs = r->outputs,
                        .batch = 1};
    r->run(&frame, 0, 1);
}

// ---- pictures ----------------------------------------------------------------------------------
typedef struct {
    Dataset *data;
    Preprocess pre;
    float *pixels;
} Feed;

static bool cannot_read(Diag *d, const char *what, CnxrtError *err) {
    diag_error(d, (Loc){0}, "--calibrate: %s", err->text ? err->text : what);
    cnxrt_error_free(err);
    return false;
}

static void note_corrupt(void *use, const char *sample, const char *reason) {
    fprintf(stderr, "note: %s: %s: %s; another picture takes its place\n", (const char *)use,
            sample, reason);
}

// use: what the pictures are for, as notes of corrupt ones say.
static bool feed_open(Feed *f, const Calibration *c, char *use, Diag *d) {
    CnxrtError err = {0};
    const InputSpec *in = &c->spec->input;
    float *mean = NEWN(c->spec->arena, float, 2 * in->channels);
    for (int64_t i = 0; i < in->channels; i++) {
        mean[i] = (float)in->mean[i];
        mean[in->channels + i] = (float)in->std[i];
    }
    CnxrtModel model = {.name = c->spec->name,
                        .channels = (int)in->channels,
                        .height = (int)in->height,
                        .width = (int)in->width,
                        .mean = mean,
                        .std = mean + in->channels,
                        .crop_pct = in->crop_pct,
                        .warp = in->warp,
                        .interpolation = in->interpolation ? "bilinear" : "bicubic"};
    DatasetOptions o = {.path = c->pictures,
                        .split = SPLIT_VAL,
                        .whole = true,
                        .report = note_corrupt,
                        .user = use};
    if (preprocess_of_model(&model, &f->pre, &err) != CNXRT_OK ||
        dataset_open(&o, &f->data, &err) != CNXRT_OK)
        return cannot_read(d, c->pictures, &err);
    f->pixels = aligned(c->spec->arena, in->channels * in->height * in->width * 4);
    return true;
}

// Picture i of `all`, spread evenly over the data, into f->pixels; *sample is its number.
static bool feed_take(Feed *f, int64_t i, int64_t all, int64_t *sample, Diag *d) {
    CnxrtError err = {0};
    ImageOptions o = {.channels = f->pre.channels};
    Image image = {0};
    int64_t n = dataset_count(f->data), wanted = i * n / all;
    CnxrtStatus status = dataset_take(f->data, wanted, &o, &image, sample, &err);
    if (status == CNXRT_OK) status = preprocess_image(&f->pre, &image, f->pixels, &err);
    image_free(&image);
    return status == CNXRT_OK || cannot_read(d, "a picture", &err);
}

// ---- ranges ------------------------------------------------------------------------------------
typedef struct {
    const char *label;
    const float *values;
    int64_t n;
    double low, high;
    double bins[BINS];
} Observed;

// False when a value is not finite.
static bool observe_range(Observed *o) {
    for (int64_t i = 0; i < o->n; i++) {
        if (!isfinite(o->values[i])) return false;
        if (o->values[i] < o->low) o->low = o->values[i];
        if (o->values[i] > o->high) o->high = o->values[i];
    }
    return true;
}

static void observe_bins(Observed *o) {
    double width = (o->high - o->low) / BINS;
    for (int64_t i = 0; width > 0 && i < o->n; i++) {
        double at = (o->values[i] - o->low) / width;
        o->bins[at < 0 ? 0 : at < BINS - 1 ? (int)at : BINS - 1]++;
    }
}

static bool observe(Observed *o, int sweep, const Calibration *c, Diag *d) {
    if (sweep) observe_bins(o);
    if (sweep || observe_range(o)) return true;
    diag_error(d, (Loc){0}, "--calibrate: inputs of layer %s are not finite with the weights in %s",
               o->label, c->weights);
    return false;
}

// Mean squared error (times the count) of the u8 grid over [low,high].
static double grid_error(const Observed *o, double low, double high) {
    double step = (high - low) / 255, width = (o->high - o->low) / BINS, error = 0;
    for (int i = 0; i < BINS; i++) {
        double x = o->low + (i + 0.5) * width;
        double off = x < low ? low - x : x > high ? x - high : 0;
        error += o->bins[i] * (off > 0 ? off * off : step * step / 12);
    }
    return error;
}

static ActivationRange best_range(const Observed *o) {
    ActivationRange best = {.label = o->label, .low = o->low, .high = o->high};
    double least = grid_error(o, o->low, o->high);
    for (int i = 1; i < SHRINKS; i++)
        for (int k = 0; k < 3; k++) { // both ends, the lower one, the upper one
            double f = 1 - (double)i / SHRINKS;
            double low = k == 2 ? o->low : o->low * f, high = k == 1 ? o->high : o->high * f;
            double error = grid_error(o, low, high);
            if (error >= least) continue;
            least = error;
            best.low = low;
            best.high = high;
        }
    return best;
}

static Observed *observed_outputs(Arena *a, const Runner *r, int *count) {
    Observed *all = NEWN(a, Observed, r->noutputs + 1);
    *count = 0;
    for (int i = 0; i < r->s->buffers.n; i++) {
        const Buffer *b = &r->s->buffers.v[i];
        if (b->region != REGION_OUTPUT || strncmp(b->name, "input.", 6) != 0) continue;
        Observed *o = &all[(*count)++];
        o->label = b->name + 6;
        o->values = r->outputs[b->port];
        o->n = b->bytes / 4;
    }
    return all;
}

static int64_t at_most(const Feed *f, int64_t n) {
    return dataset_count(f->data) < n ? dataset_count(f->data) : n;
}

static const char observe_passes[] =
    "simplify,fold-constants,lower-conv,lower-grn,fuse-layernorm-pointwise,fuse-grn-gelu,"
    "fuse-residual,observe,hoist-prepare,schedule,plan-memory";

bool calibrate_ranges(const Calibration *c, PrecisionPlan *plan, Diag *d) {
    PipelineOptions opt = {
        .passes = observe_passes, .stop_level = LEVEL_MEMORY, .rewrite_limit = -1};
    Runner r = {0};
    Feed f = {0};
    int count = 0;
    bool ok = runner_open(&r, c, &opt, d) && feed_open(&f, c, "calibration", d);
    Observed *all = ok ? observed_outputs(c->spec->arena, &r, &count) : NULL;
    int64_t pictures = ok ? at_most(&f, c->count) : 0, sample;
    for (int sweep = 0; ok && sweep < 2; sweep++)
        for (int64_t i = 0; ok && i < pictures; i++) {
            ok = feed_take(&f, 2 * i, 2 * pictures, &sample, d);
            if (ok) runner_run(&r, f.pixels);
            for (int k = 0; ok && k < count; k++) ok = observe(&all[k], sweep, c, d);
        }
    for (int k = 0; ok && k < count; k++)
        vec_push(c->spec->arena, &plan->ranges, best_range(&all[k]));
    dataset_close(f.data);
    return ok;
}

const char *ranges_print(Arena *a, const PrecisionPlan *plan) {
    Str s = {.arena = a};
    for (int i = 0; i < plan->ranges.n; i++)
        str_printf(&s, "%s %.9g %.9g\n", plan->ranges.v[i].label, plan->ranges.v[i].low,
                   plan->ranges.v[i].high);
    return str_cstr(&s);
}

// ---- the report --------------------------------------------------------------------------------
typedef struct {
    int64_t pictures, agree, labelled, right[2];
    double difference, size; // sums of squares
} Comparison;

static int top_class(const float *logits, int64_t n) {
    int best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = (int)i;
    return best;
}

static void compare(Comparison *c, const float *x, const float *y, int64_t n, int label) {
    int tops[] = {top_class(x, n), top_class(y, n)};
    c->pictures++;
    c->agree += tops[0] == tops[1];
    for (int64_t i = 0; i < n; i++) {
        c->difference += (double)(x[i] - y[i]) * (x[i] - y[i]);
        c->size += (double)x[i] * x[i];
    }
    if (label < 0) return;
    c->labelled++;
    for (int k = 0; k < 2; k++) c->right[k] += tops[k] == label;
}

static void print_comparison(const Comparison *c, const PrecisionPlan *plan, FILE *out) {
    double n = (double)c->pictures;
    fprintf(out,
            "%s against fp32 on %lld picture%s: top-1 agrees on %.2f %%, logits differ by %.2f %%",
            precision_name(plan->base), (long long)c->pictures, c->pictures == 1 ? "" : "s",
            100 * (double)c->agree / n, 100 * sqrt(c->difference / (c->size > 0 ? c->size : 1)));
    if (c->labelled)
        fprintf(out, "; accuracy %.2f %% against %.2f %%",
                100 * (double)c->right[1] / (double)c->labelled,
                100 * (double)c->right[0] / (double)c->labelled);
    fputc('\n', out);
}

bool calibrate_report(const Calibration *c, const PrecisionPlan *plan, FILE *out, Diag *d) {
    static const PrecisionPlan fp32 = {.base = PRECISION_FP32, .given = true, .alone = true};
    PipelineOptions opt = {.stop_level = LEVEL_MEMORY, .rewrite_limit = -1, .precision = &fp32};
    Runner r[2] = {0};
    Feed f = {0};
    bool ok = runner_open(&r[0], c, &opt, d);
    opt.precision = plan;
    ok = ok && runner_open(&r[1], c, &opt, d) && feed_open(&f, c, "comparison", d);
    Comparison sum = {0};
    int64_t pictures = ok ? at_most(&f, COMPARED * c->count) : 0, classes = c->spec->head.classes,
            sample;
    bool labels = ok && dataset_classes(f.data) == classes;
    for (int64_t i = 0; ok && classes && i < pictures; i++) {
        ok = feed_take(&f, 2 * i + 1, 2 * pictures, &sample, d);
        for (int k = 0; ok && k < 2; k++) runner_run(&r[k], f.pixels);
        if (ok)
            compare(&sum, r[0].outputs[0], r[1].outputs[0], classes,
                    labels ? dataset_label(f.data, sample) : -1);
    }
    if (ok && sum.pictures) print_comparison(&sum, plan, out);
    dataset_close(f.data);
    return ok;
}
