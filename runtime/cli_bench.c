// bench: times runs of one program, of training whole steps, with slices of the FMA loop between
// them, so that both see the same clock rates and neighbours. Rates count 2 * MACs of convolutions
// and GEMMs.
#include "cli_step.h"
#include "cnxrt_clock.h"
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 2, PEAK_SLICES = 20 };
#define PEAK_SECONDS 0.02

typedef struct {
    Cli *cli;
    const CnxrtProgram *program;
    Step step;              // training programs
    const CnxrtCall *calls; // of a run
    int ncalls;
    int64_t batch, runs;
    int threads;
    float *in;
    const void **inputs;
    void **outputs;
    double *ms;              // per run, in the end sorted
    double *seconds, *least; // per call (--profile): of a run, the least of all runs
    double min_ms, median_ms, gflop, gflops, peak_gflops;
} Bench;

static bool bench_open(Bench *b) {
    const CnxrtProgram *p = b->program;
    b->calls = b->step.training ? b->step.calls : p->calls;
    b->ncalls = b->step.training ? b->step.ncalls : p->ncalls;
    int64_t n = b->step.training ? 0 : port_values(&p->inputs[0]) * b->batch;
    b->in = malloc((size_t)n * sizeof *b->in + 1);
    b->inputs = calloc((size_t)p->ninputs, sizeof *b->inputs);
    b->outputs = calloc((size_t)p->noutputs, sizeof *b->outputs);
    b->ms = calloc((size_t)b->runs, sizeof *b->ms);
    b->seconds = calloc((size_t)b->ncalls + 1, sizeof *b->seconds);
    b->least = calloc((size_t)b->ncalls + 1, sizeof *b->least);
    if (!b->in || !b->inputs || !b->outputs || !b->ms || !b->seconds || !b->least) return false;
    bench_fill(b->in, n);
    b->inputs[0] = b->in;
    return true;
}

static void bench_close(Bench *b) {
    free(b->in);
    free(b->inputs);
    free(b->outputs);
    free(b->ms);
    free(b->seconds);
    free(b->least);
    step_close(&b->step);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void peak_slice(Bench *b) {
    double rate = cnxrt_peak_flops(b->cli->model, b->threads, PEAK_SECONDS) / 1e9;
    if (rate > b->peak_gflops) b->peak_gflops = rate;
}

static bool bench_once(Bench *b, bool profiled) {
    Cli *c = b->cli;
    if (b->step.training) {
        step_profile(&b->step, profiled ? b->seconds : NULL);
        return step_run(&b->step, &c->err) == CNXRT_OK;
    }
    CnxrtStatus s =
        profiled ? cnxrt_run_profiled(c->session, b->program, b->batch, b->inputs, b->outputs,
                                      b->seconds, &c->err)
                 : cnxrt_run(c->session, b->program, b->batch, b->inputs, b->outputs, &c->err);
    return s == CNXRT_OK;
}

// The least time of every call: of a disturbed machine, what the kernel itself takes.
static bool bench_profile(Bench *b) {
    size_t calls = (size_t)b->ncalls;
    for (int64_t i = 0; i < b->runs; i++) {
        memset(b->seconds, 0, calls * sizeof *b->seconds);
        if (!bench_once(b, true)) return false;
        for (size_t c = 0; c < calls; c++)
            if (i == 0 || b->seconds[c] < b->least[c]) b->least[c] = b->seconds[c];
    }
    return true;
}

static bool bench_measure(Bench *b) {
    for (int i = 0; i < WARM_UP; i++)
        if (!bench_once(b, false)) return false;
    int64_t every = b->runs > PEAK_SLICES ? b->runs / PEAK_SLICES : 1;
    for (int64_t i = 0; i < b->runs; i++) {
        if (i % every == 0) peak_slice(b);
        double start = cnxrt_seconds();
        if (!bench_once(b, false)) return false;
        b->ms[i] = 1e3 * (cnxrt_seconds() - start);
    }
    peak_slice(b);
    if (b->cli->args.profile && !bench_profile(b)) return false;
    qsort(b->ms, (size_t)b->runs, sizeof *b->ms, by_value);
    b->min_ms = b->ms[0];
    b->median_ms = (b->ms[(b->runs - 1) / 2] + b->ms[b->runs / 2]) / 2;
    b->gflop = 2 * (double)b->program->macs * (double)b->batch / 1e9;
    b->gflops = b->gflop / b->min_ms * 1e3;
    return true;
}

// Calls of the same kernel, taken together.
typedef struct {
    const char *label, *kernel;
    int64_t calls, macs;
    double ms;
} KernelTime;

static int by_ms(const void *a, const void *b) {
    const KernelTime *x = a, *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

static int kernels_collect(const Bench *b, KernelTime *k) {
    int n = 0;
    for (int i = 0; i < b->ncalls; i++) {
        const CnxrtCall *call = &b->calls[i];
        int at = 0;
        while (at < n && strcmp(k[at].kernel, call->kernel) != 0) at++;
        if (at == n) k[n++] = (KernelTime){.label = call->label, .kernel = call->kernel};
        k[at].calls++;
        k[at].macs += call->macs;
        k[at].ms += b->least[i] * 1e3;
    }
    qsort(k, (size_t)n, sizeof *k, by_ms);
    return n;
}

typedef struct {
    double gflop, gflops, percent, percent_of_peak;
} KernelRate;

static KernelRate kernel_rate(const Bench *b, const KernelTime *k, double total_ms) {
    KernelRate r = {.gflop = 2 * (double)k->macs * (double)b->batch / 1e9};
    r.gflops = k->ms > 0 ? r.gflop / k->ms * 1e3 : 0;
    r.percent = total_ms > 0 ? 100 * k->ms / total_ms : 0;
    r.percent_of_peak = b->peak_gflops > 0 ? 100 * r.gflops / b->peak_gflops : 0;
    return r;
}

static json_t *kernels_json(const Bench *b, const KernelTime *k, int n, double total_ms) {
    json_t *a = json_array();
    for (int i = 0; i < n; i++) {
        KernelRate r = kernel_rate(b, &k[i], total_ms);
        json_t *o = json_object();
        json_object_set_new(o, "label", report_json_text(k[i].label));
        json_object_set_new(o, "kernel", report_json_text(k[i].kernel));
        json_object_set_new(o, "calls", json_integer(k[i].calls));
        json_object_set_new(o, "ms", json_real(k[i].ms));
        json_object_set_new(o, "gflop", json_real(r.gflop));
        json_object_set_new(o, "gflops", json_real(r.gflops));
        json_object_set_new(o, "percent", json_real(r.percent));
        json_object_set_new(o, "percent_of_peak", json_real(r.percent_of_peak));
        json_array_append_new(a, o);
    }
    return a;
}

// The kernels of a kind, taken together: in place, kernel being the kind. Sorted by time.
static int kinds_collect(KernelTime *k, int n) {
    int kinds = 0;
    for (int i = 0; i < n; i++) {
        size_t length = strcspn(k[i].kernel, " ");
        int at = 0;
        while (at < kinds && (strncmp(k[at].kernel, k[i].kernel, length) != 0 ||
                              strcspn(k[at].kernel, " ") != length))
            at++;
        if (at == kinds) {
            k[kinds++] = k[i];
            continue;
        }
        k[at].calls += k[i].calls;
        k[at].macs += k[i].macs;
        k[at].ms += k[i].ms;
    }
    qsort(k, (size_t)kinds, sizeof *k, by_ms);
    return kinds;
}

static bool kinds_table(const Bench *b, KernelTime *k, int n, double total_ms) {
    Table t = {.right = "rrrrrl"};
    bool ok = table_row(&t, "ms\t%% time\tGFLOP/s\t%% peak\tcalls\tkind");
    n = kinds_collect(k, n);
    for (int i = 0; ok && i < n; i++) {
        KernelRate r = kernel_rate(b, &k[i], total_ms);
        ok = table_row(&t, "%.3f\t%.1f\t%.1f\t%.1f\t%lld\t%.*s", k[i].ms, r.percent, r.gflops,
                       r.percent_of_peak, (long long)k[i].calls, (int)strcspn(k[i].kernel, " "),
                       k[i].kernel);
    }
    putchar('\n');
    if (ok) table_print(&t, stdout);
    table_free(&t);
    return ok;
}

static bool kernels_table(const Bench *b, const KernelTime *k, int n, double total_ms) {
    Table t = {.right = "rrrrrll"};
    bool ok = table_row(&t, "ms\t%% time\tGFLOP/s\t%% peak\tcalls\tlayer\tkernel");
    for (int i = 0; ok && i < n; i++) {
        KernelRate r = kernel_rate(b, &k[i], total_ms);
        ok = table_row(&t, "%.3f\t%.1f\t%.1f\t%.1f\t%lld\t%s\t%s", k[i].ms, r.percent, r.gflops,
                       r.percent_of_peak, (long long)k[i].calls, k[i].label, k[i].kernel);
    }
    putchar('\n');
    if (ok) table_print(&t, stdout);
    table_free(&t);
    return ok;
}

static json_t *bench_json(const Bench *b) {
    json_t *o = json_object();
    int64_t planned = b->step.training ? step_bytes(&b->step)
                                       : cnxrt_planned_bytes(b->cli->model, b->program->name,
                                                             b->batch, b->threads);
    json_object_set_new(o, "program", report_json_text(b->program->name));
    json_object_set_new(o, "batch", json_integer(b->batch));
    if (b->step.training) json_object_set_new(o, "micro", json_integer(b->step.micro));
    json_object_set_new(o, "threads", json_integer(b->threads));
    json_object_set_new(o, "min_ms", json_real(b->min_ms));
    json_object_set_new(o, "median_ms", json_real(b->median_ms));
    json_object_set_new(o, "gflop", json_real(b->gflop));
    json_object_set_new(o, "gflops", json_real(b->gflops));
    json_object_set_new(o, "peak_gflops", json_real(b->peak_gflops));
    json_object_set_new(o, "percent_of_peak",
                        json_real(b->peak_gflops > 0 ? 100 * b->gflops / b->peak_gflops : 0));
    json_object_set_new(o, "peak_rss_mb", json_real(cnxrt_peak_rss_mb()));
    json_object_set_new(o, "planned_mb", json_real((double)planned / 1e6));
    return o;
}

static json_t *runs_json(const Bench *b) {
    json_t *a = json_array();
    for (int64_t i = 0; i < b->runs; i++) json_array_append_new(a, json_real(b->ms[i]));
    return a;
}

static void bench_text(const json_t *o) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v) {
        if (json_is_string(v))
            printf("%-16s %s\n", key, json_string_value(v));
        else if (json_is_integer(v))
            printf("%-16s %lld\n", key, (long long)json_integer_value(v));
        else
            printf("%-16s %.3f\n", key, json_real_value(v));
    }
}

static int bench_print(const Bench *b) {
    json_t *o = bench_json(b);
    KernelTime *k = NULL;
    int n = 0;
    bool ok = true, table = b->cli->args.profile && !b->cli->args.json;
    if (b->cli->args.profile) {
        k = calloc((size_t)b->ncalls + 1, sizeof *k);
        n = k ? kernels_collect(b, k) : 0;
    }
    double total = 0;
    for (int i = 0; i < n; i++) total += k[i].ms;
    if (b->cli->args.profile && !table)
        json_object_set_new(o, "kernels", kernels_json(b, k, n, total));
    if (b->cli->args.json) {
        json_object_set_new(o, "run_ms", runs_json(b));
        ok = report_json_print(o, stdout, !b->cli->args.profile);
    } else {
        bench_text(o);
    }
    if (table) ok = kernels_table(b, k, n, total) && kinds_table(b, k, n, total);
    free(k);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(b->cli, "cannot write the results");
}

// Opens the session or the training model.
static int program_open(Bench *b, const char *name) {
    Cli *c = b->cli;
    if (strcmp(name, "train") == 0 || strcmp(name, "pretrain") == 0) {
        int status = step_open(&b->step, c, name, b->batch);
        if (status != CLI_OK) return status;
        b->program = cnxrt_program(training_model(b->step.training), name);
        b->threads = training_threads(b->step.training);
        return CLI_OK;
    }
    if (strcmp(name, "infer") != 0 && strcmp(name, "features") != 0)
        return cli_usage(c, "--program %s: expected infer, features, train or pretrain", name);
    if (c->args.micro) return cli_usage(c, "--micro is for train and pretrain");
    b->program = cnxrt_program(c->model, name);
    if (!b->program)
        return cli_fail(c, "model %s was built without the program %s", c->model->name, name);
    int status = cli_open(c, b->program, b->batch);
    if (status == CLI_OK) b->threads = cnxrt_threads(c->session);
    return status;
}

int cli_bench(Cli *c) {
    const char *name = c->args.program ? c->args.program : "infer";
    Bench b = {.cli = c,
               .batch = c->args.batch ? c->args.batch : 1,
               .runs = c->args.runs ? c->args.runs : 20};
    int status = program_open(&b, name);
    if (status == CLI_OK && !bench_open(&b))
        status = cli_fail(c, "out of memory for a batch of %lld", (long long)b.batch);
    else if (status == CLI_OK && !bench_measure(&b))
        status = cli_fail(c, "%s", c->err.text ? c->err.text : "the run failed");
    else if (status == CLI_OK)
        status = bench_print(&b);
    bench_close(&b);
    return status;
}
