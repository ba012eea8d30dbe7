// info: what was compiled.
#include "cli_info.h"
#include <string.h>

static int64_t parameters(const CnxrtModel *m) {
    int64_t sum = 0;
    for (int i = 0; i < m->nparams; i++) {
        int64_t n = 1;
        for (int k = 0; k < m->params[i].rank; k++) n *= m->params[i].dims[k];
        sum += n;
    }
    return sum;
}

static int64_t macs(const CnxrtModel *m) {
    const CnxrtProgram *p = cnxrt_program(m, "infer");
    if (!p) p = cnxrt_program(m, "features");
    return p ? p->macs : 0;
}

static json_t *floats_json(const float *v, int n) {
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, json_real(v[i]));
    return a;
}

static json_t *ports_json(const CnxrtPort *p, int n) {
    json_t *a = json_array();
    for (int i = 0; i < n; i++) {
        json_t *o = json_object(), *shape = json_array();
        for (int k = 0; k < p[i].rank; k++)
            json_array_append_new(shape, json_integer(p[i].dims[k]));
        json_object_set_new(o, "name", report_json_text(p[i].name));
        json_object_set_new(o, "shape", shape);
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *input_json(const CnxrtModel *m) {
    json_t *o = json_object();
    json_object_set_new(o, "channels", json_integer(m->channels));
    json_object_set_new(o, "height", json_integer(m->height));
    json_object_set_new(o, "width", json_integer(m->width));
    json_object_set_new(o, "mean", floats_json(m->mean, m->channels));
    json_object_set_new(o, "std", floats_json(m->std, m->channels));
    json_object_set_new(o, "crop_pct", json_real(m->crop_pct));
    json_object_set_new(o, "warp", json_boolean(m->warp));
    json_object_set_new(o, "interpolation",
                        report_json_text(m->interpolation ? m->interpolation : "bicubic"));
    return o;
}

json_t *info_programs_json(const CnxrtModel *m) {
    json_t *a = json_array();
    for (int i = 0; i < m->nprograms; i++) {
        const CnxrtProgram *p = &m->programs[i];
        json_t *o = json_object();
        json_object_set_new(o, "name", report_json_text(p->name));
        json_object_set_new(o, "macs", json_integer(p->macs));
        json_object_set_new(o, "fixed_bytes", json_integer(p->fixed_bytes));
        json_object_set_new(o, "image_bytes", json_integer(p->image_bytes));
        json_object_set_new(o, "slot_bytes", json_integer(p->slot_bytes));
        json_object_set_new(o, "scratch_bytes", json_integer(p->scratch_bytes));
        json_object_set_new(o, "kernel_calls", json_integer(p->ncalls));
        json_object_set_new(o, "inputs", ports_json(p->inputs, p->ninputs));
        json_object_set_new(o, "outputs", ports_json(p->outputs, p->noutputs));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *layers_json(const CnxrtModel *m) {
    json_t *a = json_array();
    for (int i = 0; i < m->nlayers; i++) {
        const CnxrtLayer *l = &m->layers[i];
        json_t *o = json_object();
        json_object_set_new(o, "name", report_json_text(l->name));
        json_object_set_new(o, "op", report_json_text(l->op));
        json_object_set_new(o, "shape", report_json_text(l->shape));
        json_object_set_new(o, "parameters", json_integer(l->params));
        json_object_set_new(o, "macs", json_integer(l->macs));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *targets_json(const Cli *c) {
    json_t *a = json_array();
    for (const CnxrtModel *const *v = c->versions; *v; v++)
        json_array_append_new(a, report_json_text((*v)->target));
    return a;
}

static int info_json(const Cli *c) {
    const CnxrtModel *m = c->model;
    json_t *o = json_object();
    json_object_set_new(o, "name", report_json_text(m->name));
    json_object_set_new(o, "target", report_json_text(m->target));
    json_object_set_new(o, "targets", targets_json(c));
    json_object_set_new(o, "target_features",
                        report_json_text(m->target_features ? m->target_features : ""));
    json_object_set_new(o, "precision", report_json_text(m->precision));
    json_object_set_new(o, "input", input_json(m));
    json_object_set_new(o, "classes", json_integer(m->classes));
    json_object_set_new(o, "parameters", json_integer(parameters(m)));
    json_object_set_new(o, "macs", json_integer(macs(m)));
    json_object_set_new(o, "weights_embedded", json_boolean(cnxrt_has_weights(m)));
    json_object_set_new(o, "weight_bytes", json_integer(m->weight_bytes));
    json_object_set_new(o, "programs", info_programs_json(m));
    json_object_set_new(o, "layers", layers_json(m));
    json_t *training = info_training_json(m);
    if (training) json_object_set_new(o, "training", training);
    bool ok = report_json_print(o, stdout, false);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(c, "cannot write to standard output");
}

static void print_values(const char *what, const float *v, int n) {
    printf("%s", what);
    for (int i = 0; i < n && i < 4; i++) printf(" %g", (double)v[i]);
    if (n > 4) printf(" ...");
}

static void print_targets(const Cli *c) {
    const CnxrtModel *m = c->model;
    printf("target      %s (%s)\n", m->target,
           m->target_features && *m->target_features ? m->target_features : "any CPU");
    if (!c->versions[1]) return;
    printf("picked of  ");
    for (const CnxrtModel *const *v = c->versions; *v; v++) printf(" %s", (*v)->target);
    putchar('\n');
}

// What the runtime was compiled without.
static const char *const lacking[] = {
#ifndef CNXRT_JPEG
    "JPEG",
#endif
#ifndef CNXRT_PNG
    "PNG",
#endif
#ifndef CNXRT_ZLIB
    "gzip",
#endif
#ifndef CNXRT_MINIZIP
    "PyTorch zip files",
#endif
#ifndef _OPENMP
    "threads (OpenMP)",
#endif
    NULL,
};

static void print_lacking(void) {
    if (!lacking[0]) return;
    printf("without     ");
    for (int i = 0; lacking[i]; i++) printf("%s%s", i ? ", " : "", lacking[i]);
    putchar('\n');
}

static void print_head(const Cli *c) {
    const CnxrtModel *m = c->model;
    char a[32];
    printf("model       %s, %s\n", m->name, m->precision);
    print_targets(c);
    print_lacking();
    printf("input       %d x %d x %d (channels, height, width),", m->channels, m->height, m->width);
    print_values(" mean", m->mean, m->channels);
    print_values(", std", m->std, m->channels);
    if (m->warp)
        printf("\npictures    both sides resized (%s)\n", m->interpolation);
    else
        printf("\npictures    short side resized to size / %g (%s), centre crop\n", m->crop_pct,
               m->interpolation);
    if (m->classes)
        printf("classes     %d\n", m->classes);
    else
        printf("classes     none (features only)\n");
    printf("parameters  %s\n", report_count(parameters(m), a));
    printf("MACs        %.4f G per image (convolutions and linears)\n", (double)macs(m) / 1e9);
    printf("weights     %.2f MB prepared, %s\n\n", (double)m->weight_bytes / 1e6,
           cnxrt_has_weights(m) ? "built in" : "from --weights");
}

bool info_programs_print(const CnxrtModel *m) {
    Table t = {.right = "lrrrrr"};
    bool ok = table_row(
        &t, "program\tfixed bytes\tbytes per image\tper image in work\tscratch per thread\t"
            "kernel calls");
    for (int i = 0; ok && i < m->nprograms; i++) {
        const CnxrtProgram *p = &m->programs[i];
        char a[32], b[32], w[32], s[32];
        ok = table_row(&t, "%s\t%s\t%s\t%s\t%s\t%d", p->name, report_count(p->fixed_bytes, a),
                       report_count(p->image_bytes, b), report_count(p->slot_bytes, w),
                       report_count(p->scratch_bytes, s), p->ncalls);
    }
    if (ok) table_print(&t, stdout);
    table_free(&t);
    return ok;
}

static bool print_layers(const CnxrtModel *m) {
    Table t = {.right = "llrrr"};
    bool ok = table_row(&t, "layer\top\tresult\tparameters\tMACs");
    for (int i = 0; ok && i < m->nlayers; i++) {
        const CnxrtLayer *l = &m->layers[i];
        char a[32], b[32];
        ok = table_row(&t, "%s\t%s\t%s\t%s\t%s", l->name, l->op, l->shape,
                       report_count(l->params, a), report_count(l->macs, b));
    }
    if (ok) table_print(&t, stdout);
    table_free(&t);
    return ok;
}

int cli_info(Cli *c) {
    if (c->args.json) return info_json(c);
    print_head(c);
    bool ok = info_programs_print(c->model) && putchar('\n') == '\n' && print_layers(c->model) &&
              info_training_print(c->model);
    return ok ? CLI_OK : cli_fail(c, "out of memory");
}
