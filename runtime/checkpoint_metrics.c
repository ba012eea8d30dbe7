// metrics.jsonl and metrics.csv. Rows are a function of the run alone (no time, no rate), so that
// equal runs have equal files; a resumed run first drops the rows behind its state.
#include "checkpoint.h"
#include "weights_file.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char header[] = "step,epoch,lr,loss,grad_norm,val_loss,val_top1,val_top5,val_map\n";
static const char json_start[] = "{\"step\": ";

static CnxrtStatus failed(const char *path, CnxrtError *err) {
    cnxrt_error_set(err, "%s: cannot write: %s", path, strerror(errno));
    return CNXRT_ERROR_IO;
}

// Copies the whole lines of `from` that are rows of the first `step` steps. The rows' numbers
// follow `start`.
static CnxrtStatus copy_rows(FILE *from, AtomicFile *to, const char *start, int64_t step,
                             CnxrtError *err) {
    char line[1024];
    size_t skip = strlen(start);
    CnxrtStatus status = CNXRT_OK;
    while (status == CNXRT_OK && fgets(line, sizeof line, from)) {
        size_t n = strlen(line);
        char *end = line;
        long long row = strncmp(line, start, skip) == 0 ? strtoll(line + skip, &end, 10) : 0;
        if (end == line || row < 1 || row > step || line[n - 1] != '\n') continue;
        status = atomic_write(to, line, n, err);
    }
    return status;
}

static CnxrtStatus cut(const char *path, const char *first, const char *start, int64_t step,
                       CnxrtError *err) {
    AtomicFile to;
    CnxrtStatus status = atomic_open(&to, path, err);
    if (status != CNXRT_OK) return status;
    status = atomic_write(&to, first, strlen(first), err);
    FILE *from = step > 0 ? fopen(path, "re") : NULL;
    if (from && status == CNXRT_OK) status = copy_rows(from, &to, start, step, err);
    if (from) fclose(from);
    return atomic_close(&to, status, err);
}

CnxrtStatus metrics_open(Metrics *m, const char *dir, int64_t step, CnxrtError *err) {
    char json[4096], csv[4096];
    *m = (Metrics){0};
    snprintf(json, sizeof json, "%.4000s/metrics.jsonl", dir);
    snprintf(csv, sizeof csv, "%.4000s/metrics.csv", dir);
    CnxrtStatus status = cut(json, "", json_start, step, err);
    if (status == CNXRT_OK) status = cut(csv, header, "", step, err);
    if (status != CNXRT_OK) return status;
    if (!(m->json = fopen(json, "ae"))) return failed(json, err);
    if (!(m->csv = fopen(csv, "ae"))) return failed(csv, err);
    return CNXRT_OK;
}

CnxrtStatus metrics_add(Metrics *m, const MetricsRow *r, CnxrtError *err) {
    static const char *const names[] = {"epoch",    "lr",       "loss",     "grad_norm",
                                        "val_loss", "val_top1", "val_top5", "val_map"};
    const double values[] = {r->epoch,    r->lr,       r->loss,     r->grad_norm,
                             r->val_loss, r->val_top1, r->val_top5, r->val_map};
    fprintf(m->json, "%s%" PRId64, json_start, r->step);
    fprintf(m->csv, "%" PRId64, r->step);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        fputc(',', m->csv);
        if (!isfinite(values[i])) continue;
        fprintf(m->csv, "%.9g", values[i]);
        fprintf(m->json, ", \"%s\": %.9g", names[i], values[i]);
    }
    fputs("}\n", m->json);
    fputc('\n', m->csv);
    if (fflush(m->json) == 0 && fflush(m->csv) == 0) return CNXRT_OK;
    return failed("metrics", err);
}

void metrics_sync(Metrics *m) {
    if (m->json) (void)fsync(fileno(m->json));
    if (m->csv) (void)fsync(fileno(m->csv));
}

void metrics_close(Metrics *m) {
    if (m->json) fclose(m->json);
    if (m->csv) fclose(m->csv);
    *m = (Metrics){0};
}
