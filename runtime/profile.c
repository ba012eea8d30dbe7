// Per-call timing. Generated code ticks after every kernel call while a profile is attached; the
// time since the thread's previous tick belongs to that call. The tick that opens a step starts the
// clock again, so that waiting at the barrier before it belongs to nobody.
#include "profile.h"
#include "cnxrt_clock.h"
#include "cnxrt_model.h"
#include <string.h>

static int64_t row_stride(int64_t ncalls) { return (ncalls + 1 + 15) / 16 * 16; }

int64_t cnxrt_profile_doubles(int64_t ncalls, int64_t threads) {
    return row_stride(ncalls) * threads;
}

void cnxrt_profile_start(CnxrtProfile *p, double *rows, int64_t ncalls, int64_t threads) {
    *p = (CnxrtProfile){ncalls, row_stride(ncalls), threads, rows};
    memset(rows, 0, sizeof(double) * (size_t)(p->stride * threads));
}

void cnxrt_tick(struct CnxrtProfile *profile, int64_t thread, int64_t call) {
    double *row = profile->rows + thread * profile->stride;
    double now = cnxrt_seconds();
    if (call >= 0) row[1 + call] += now - row[0];
    row[0] = now;
}

void cnxrt_profile_sum(const CnxrtProfile *p, int64_t threads, double *seconds) {
    for (int64_t c = 0; c < p->ncalls; c++) {
        double sum = 0;
        for (int64_t t = 0; t < threads; t++) sum += p->rows[t * p->stride + 1 + c];
        seconds[c] += sum / (double)threads;
    }
}
