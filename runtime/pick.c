// Which of an artifact's targets runs here.
#include "cnxrt.h"
#include "cpu.h"
#include <stdlib.h>
#include <string.h>

static void add_names(const CnxrtModel *const *versions, CnxrtError *err) {
    for (const CnxrtModel *const *v = versions; *v; v++)
        cnxrt_error_add(err, "%s%s", v == versions ? "" : ", ", (*v)->target);
}

static CnxrtStatus pick_named(const CnxrtModel *const *versions, const char *name,
                              const CnxrtModel **out, CnxrtError *err) {
    for (const CnxrtModel *const *v = versions; *v; v++) {
        if (strcmp((*v)->target, name) != 0) continue;
        *out = *v;
        CnxrtStatus status = cnxrt_cpu_check(name, (*v)->target_features, err);
        if (status == CNXRT_OK) return CNXRT_OK;
        cnxrt_error_add(err, "; CNXRT_TARGET asks for it, of ");
        add_names(versions, err);
        return status;
    }
    cnxrt_error_set(err, "CNXRT_TARGET is %s; compiled in: ", name);
    add_names(versions, err);
    return CNXRT_ERROR_ARGUMENT;
}

CnxrtStatus cnxrt_pick(const CnxrtModel *const *versions, const CnxrtModel **out, CnxrtError *err) {
    const char *name = getenv("CNXRT_TARGET");
    *out = versions[0];
    if (name && *name) return pick_named(versions, name, out, err);
    for (const CnxrtModel *const *v = versions; *v; v++)
        if (cnxrt_cpu_can((*v)->target_features)) *out = *v;
    return CNXRT_OK;
}
