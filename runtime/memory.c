// Aligned blocks and the sizes of a session's memory: arena = fixed + batch * per image + a slot
// per image in work of the largest program, scratch per thread, and spare space for outputs the
// caller leaves out.
#include "memory.h"
#include "cnxrt.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

void *cnxrt_memory_take(int64_t bytes) {
    if (bytes < 0) return NULL;
    size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
    size_t n = ((size_t)bytes + 63) / 64 * 64;
    void *p = NULL;
    if (posix_memalign(&p, align, n ? n : 64) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE) (void)madvise(p, n, MADV_HUGEPAGE);
#endif
    return p;
}

void cnxrt_memory_give(void *p) { free(p); }

bool cnxrt_program_listed(const char *programs, const char *program) {
    if (!programs) return strcmp(program, "prepare") != 0;
    size_t n = strlen(program);
    for (const char *p = programs; *p;) {
        size_t len = strcspn(p, ",");
        if (len == n && memcmp(p, program, n) == 0) return true;
        p += len + (p[len] == ',');
    }
    return false;
}

// a + b*c into *a, remembering overflow.
static void add_product(int64_t *a, int64_t b, int64_t c, bool *overflow) {
    int64_t p = 0;
    if (__builtin_mul_overflow(b, c, &p) || __builtin_add_overflow(*a, p, a)) *overflow = true;
}

static void plan_grow(int64_t *most, int64_t bytes) {
    if (bytes > *most) *most = bytes;
}

CnxrtPlan cnxrt_plan(const CnxrtModel *m, const char *programs, int64_t batch, int threads) {
    CnxrtPlan plan = {0};
    for (int i = 0; i < m->nprograms; i++) {
        const CnxrtProgram *p = &m->programs[i];
        if (!cnxrt_program_listed(programs, p->name)) continue;
        int64_t arena = p->fixed_bytes, scratch = 0, spare = 0;
        add_product(&arena, batch, p->image_bytes, &plan.overflow);
        add_product(&arena, batch < threads ? batch : threads, p->slot_bytes, &plan.overflow);
        add_product(&scratch, threads, p->scratch_bytes, &plan.overflow);
        for (int k = 0; k < p->noutputs; k++)
            add_product(&spare, batch, (p->outputs[k].bytes + 63) / 64 * 64, &plan.overflow);
        plan_grow(&plan.arena, arena);
        plan_grow(&plan.scratch, scratch);
        plan_grow(&plan.spare, spare);
    }
    return plan;
}

int64_t cnxrt_planned_bytes(const CnxrtModel *m, const char *programs, int64_t batch, int threads) {
    CnxrtPlan p = cnxrt_plan(m, programs, batch, threads);
    int64_t sum = p.arena + p.scratch;
    return p.overflow ? INT64_MAX : sum + p.spare + m->weight_bytes;
}
