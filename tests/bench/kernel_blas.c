// sgemm of a library with the C interface of BLAS. Weights cannot be packed beforehand in it.
#include "kernel_worker.h"
#include <cblas.h>
#include <stddef.h>

char *KERNEL_BLAS_VERSION(void); // the library's own function

static const KernelShape *shape;

const char *kernel_open(const KernelShape *s) {
    shape = s;
    return s->depthwise ? "no depthwise convolution" : NULL;
}

void kernel_run(void) {
    int m = (int)shape->m, k = (int)shape->k, n = (int)shape->n;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, shape->a, k, shape->b, n, 0,
                shape->out, n);
}

void kernel_finish(void) {}

const char *kernel_form(void) { return "cblas_sgemm"; }

const char *kernel_version(void) { return KERNEL_BLAS_VERSION(); }
