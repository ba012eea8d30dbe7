// The functions behind a generated library; see library.h.
#include "library.h"
#include <stdio.h>
#include <stdlib.h>

// What archives of the system that are not position-independent see as `stdin`: generated libraries
// are linked with --wrap=stdin, because a shared library may refer directly to symbols of its own
// only. On purpose NULL: jansson's loader compares its input with it.
extern void *__wrap_stdin;
__attribute__((visibility("hidden"))) void *__wrap_stdin;

struct CnxrtLibrary {
    CnxrtSession *session;
    char error[512];
};

static CnxrtStatus session_open(const CnxrtModel *const *versions, const CnxrtOptions *o,
                                CnxrtSession **out, CnxrtError *err) {
    if (o->share) return cnxrt_create(cnxrt_model(o->share), o, out, err);
    const CnxrtModel *m;
    CnxrtStatus status = cnxrt_pick(versions, &m, err);
    return status == CNXRT_OK ? cnxrt_create(m, o, out, err) : status;
}

static int library_open(const CnxrtModel *const *versions, const CnxrtOptions *o,
                        CnxrtLibrary **out, char *err, size_t errlen) {
    CnxrtError e = {0};
    CnxrtStatus status = CNXRT_ERROR_MEMORY;
    *out = calloc(1, sizeof **out);
    if (*out) status = session_open(versions, o, &(*out)->session, &e);
    if (err && errlen) {
        const char *text = e.text ? e.text : "out of memory";
        snprintf(err, errlen, "%s", status == CNXRT_OK ? "" : text);
    }
    cnxrt_error_free(&e);
    if (status == CNXRT_OK) return CNXRT_OK;
    free(*out);
    *out = NULL;
    return status;
}

int cnxrt_library_create(const CnxrtModel *const *versions, const char *weights, int threads,
                         int64_t max_batch, CnxrtLibrary **out, char *err, size_t errlen) {
    CnxrtOptions o = {.threads = threads, .max_batch = max_batch, .weights = weights};
    return library_open(versions, &o, out, err, errlen);
}

int cnxrt_library_clone(const CnxrtLibrary *from, int threads, int64_t max_batch,
                        CnxrtLibrary **out, char *err, size_t errlen) {
    CnxrtOptions o = {.threads = threads, .max_batch = max_batch, .share = from->session};
    return library_open(NULL, &o, out, err, errlen);
}

int cnxrt_library_run(CnxrtLibrary *l, const char *program, int64_t batch, const float *images,
                      float *const *outputs) {
    CnxrtError e = {0};
    const CnxrtProgram *p = cnxrt_program(cnxrt_model(l->session), program);
    const void *inputs[1] = {images};
    CnxrtStatus status =
        cnxrt_run(l->session, p, batch, inputs, (void *const *)(uintptr_t)outputs, &e);
    snprintf(l->error, sizeof l->error, "%s", e.text ? e.text : "");
    cnxrt_error_free(&e);
    return status;
}

const char *cnxrt_library_error(const CnxrtLibrary *l) { return l->error; }

const char *cnxrt_library_class_names(const CnxrtLibrary *l) {
    return cnxrt_class_names(l->session);
}

void cnxrt_library_destroy(CnxrtLibrary *l) {
    if (!l) return;
    cnxrt_destroy(l->session);
    free(l);
}
