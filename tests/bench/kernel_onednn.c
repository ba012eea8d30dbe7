// oneDNN, versions 2 and 3: matmul and depthwise convolution as primitives whose constant weights
// take the layout the library likes best, packed beforehand. Maps are channels-last, as the
// network's.
#include "kernel_worker.h"
#include <dnnl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t ConstDesc;
typedef dnnl_memory_desc_t Desc;
#define DESC(d) (d)
#else
typedef const dnnl_memory_desc_t *ConstDesc;
typedef dnnl_memory_desc_t Desc;
#define DESC(d) (&(d))
#endif
enum { MAX_DIMS = 5 };

static struct {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[3];
    char form[128];
} kernel;

static dnnl_status_t describe(Desc *d, int n, const dnnl_dims_t dims, dnnl_format_tag_t tag) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(d, n, dims, dnnl_f32, tag);
#else
    return dnnl_memory_desc_init_by_tag(d, n, dims, dnnl_f32, tag);
#endif
}

static dnnl_memory_t memory(ConstDesc d, const float *values) {
    dnnl_memory_t m = NULL;
    void *p = values ? (void *)(uintptr_t)values : DNNL_MEMORY_ALLOCATE;
    return dnnl_memory_create(&m, d, kernel.engine, p) == dnnl_success ? m : NULL;
}

static dnnl_status_t execute(dnnl_primitive_t p, int n, const dnnl_exec_arg_t *args) {
    dnnl_status_t s = dnnl_primitive_execute(p, kernel.stream, n, args);
    return s == dnnl_success ? dnnl_stream_wait(kernel.stream) : s;
}

// `from` in the layout `to`.
static dnnl_memory_t reordered(dnnl_memory_t from, ConstDesc from_desc, ConstDesc to) {
    dnnl_memory_t out = memory(to, NULL);
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t p;
    if (!out ||
        dnnl_reorder_primitive_desc_create(&pd, from_desc, kernel.engine, to, kernel.engine,
                                           NULL) != dnnl_success ||
        dnnl_primitive_create(&p, pd) != dnnl_success)
        return NULL;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, out}};
    return execute(p, 2, args) == dnnl_success ? out : NULL;
}

static dnnl_status_t matmul(dnnl_primitive_desc_t *pd, ConstDesc a, ConstDesc b, ConstDesc out) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(pd, kernel.engine, a, b, NULL, out, NULL);
#else
    dnnl_matmul_desc_t d;
    dnnl_status_t s = dnnl_matmul_desc_init(&d, a, b, NULL, out);
    return s == dnnl_success ? dnnl_primitive_desc_create(pd, &d, NULL, kernel.engine, NULL) : s;
#endif
}

static dnnl_status_t convolution(dnnl_primitive_desc_t *pd, ConstDesc a, ConstDesc b,
                                 ConstDesc out) {
    const dnnl_dims_t one = {1, 1}, none = {0, 0}, pad = {PAD, PAD};
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_convolution_forward_primitive_desc_create(pd, kernel.engine, dnnl_forward_inference,
                                                          dnnl_convolution_direct, a, b, NULL, out,
                                                          one, none, pad, pad, NULL);
#else
    dnnl_convolution_desc_t d;
    dnnl_status_t s = dnnl_dilated_convolution_forward_desc_init(
        &d, dnnl_forward_inference, dnnl_convolution_direct, a, b, NULL, out, one, none, pad, pad);
    return s == dnnl_success ? dnnl_primitive_desc_create(pd, &d, NULL, kernel.engine, NULL) : s;
#endif
}

// Descriptors of a, b as given, b as the library likes it, out.
typedef struct {
    Desc a, b, any, out;
} Descs;

static bool describe_gemm(Descs *d, const KernelShape *s) {
    const dnnl_dims_t a = {s->m, s->k}, b = {s->k, s->n}, out = {s->m, s->n};
    return describe(&d->a, 2, a, dnnl_ab) == dnnl_success &&
           describe(&d->b, 2, b, dnnl_ab) == dnnl_success &&
           describe(&d->any, 2, b, dnnl_format_tag_any) == dnnl_success &&
           describe(&d->out, 2, out, dnnl_ab) == dnnl_success;
}

// Groups of one channel: weights [c,1,1,7,7], given as [7,7,c].
static bool describe_dwconv(Descs *d, const KernelShape *s) {
    const dnnl_dims_t a = {1, s->c, s->h, s->w}, b = {s->c, 1, 1, TAPS, TAPS};
    return describe(&d->a, 4, a, dnnl_nhwc) == dnnl_success &&
           describe(&d->b, MAX_DIMS, b, dnnl_hwigo) == dnnl_success &&
           describe(&d->any, MAX_DIMS, b, dnnl_format_tag_any) == dnnl_success &&
           describe(&d->out, 4, a, dnnl_nhwc) == dnnl_success;
}

static void name_form(dnnl_primitive_desc_t pd) {
    const char *name = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name);
    snprintf(kernel.form, sizeof kernel.form, "%s", name);
}

const char *kernel_open(const KernelShape *s) {
    Descs d;
    dnnl_primitive_desc_t pd;
    if (dnnl_engine_create(&kernel.engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&kernel.stream, kernel.engine, dnnl_stream_default_flags) !=
            dnnl_success)
        return "no engine of the CPU";
    if (!(s->depthwise ? describe_dwconv(&d, s) : describe_gemm(&d, s)))
        return "the layouts are refused";
    dnnl_status_t status = s->depthwise ? convolution(&pd, DESC(d.a), DESC(d.any), DESC(d.out))
                                        : matmul(&pd, DESC(d.a), DESC(d.any), DESC(d.out));
    if (status != dnnl_success || dnnl_primitive_create(&kernel.primitive, pd) != dnnl_success)
        return "no implementation";
    name_form(pd);
    ConstDesc best = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_memory_t b = reordered(memory(DESC(d.b), s->b), DESC(d.b), best);
    if (!b) return "the weights cannot be packed";
    kernel.args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory(DESC(d.a), s->a)};
    kernel.args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, b};
    kernel.args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory(DESC(d.out), s->out)};
    return NULL;
}

void kernel_run(void) { execute(kernel.primitive, 3, kernel.args); }

void kernel_finish(void) {}

const char *kernel_form(void) { return kernel.form; }

const char *kernel_version(void) {
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}
