// What a training run needs and what there is: the plan of the engine, the system's free memory
// within the limits of the process's control groups, and micro-batches chosen by them.
#include "cnxrt.h"
#include "memory.h"
#include "training_state.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool training_program_list(const TrainingOptions *o, char *buf, size_t size) {
    const char *update = !o->optimizer ? "" : o->ema ? ",update.ema" : ",update";
    int n = snprintf(buf, size, "%s%s,prepare", o->programs, update);
    return n > 0 && (size_t)n < size;
}

static bool add(int64_t *sum, int64_t factor, int64_t bytes) {
    int64_t product;
    return !__builtin_mul_overflow(factor, bytes, &product) &&
           !__builtin_add_overflow(*sum, product, sum);
}

// Ports of the programs at a micro-batch.
static bool add_ports(const TrainingOptions *o, const char *list, int64_t micro, int64_t *sum) {
    const CnxrtModel *m = o->model;
    for (int i = 0; i < m->nprograms; i++) {
        const CnxrtProgram *p = &m->programs[i];
        if (!cnxrt_program_listed(list, p->name)) continue;
        for (int k = 0; k < p->ninputs; k++)
            if (!add(sum, micro, (p->inputs[k].bytes + 63) / 64 * 64)) return false;
        for (int k = 0; k < p->noutputs; k++)
            if (!add(sum, micro, (p->outputs[k].bytes + 63) / 64 * 64)) return false;
    }
    return true;
}

int64_t training_plan_bytes(const TrainingOptions *o, int64_t micro) {
    char list[256];
    if (!training_program_list(o, list, sizeof list)) return INT64_MAX;
    CnxrtPlan plan = cnxrt_plan(o->model, list, micro, cnxrt_usable_threads(o->threads));
    int64_t sum = o->model->weight_bytes, states = 2 + 2 * o->optimizer + o->ema;
    if (plan.overflow || !add(&sum, states, o->model->param_bytes) || !add(&sum, 1, plan.arena) ||
        !add(&sum, 1, plan.scratch) || !add_ports(o, list, micro, &sum))
        return INT64_MAX;
    return sum;
}

// The first number in a file, or INT64_MAX ("max", no file).
static int64_t file_number(const char *path) {
    FILE *f = fopen(path, "re");
    int64_t v;
    if (!f) return INT64_MAX;
    int n = fscanf(f, "%" SCNd64, &v);
    fclose(f);
    return n == 1 && v >= 0 ? v : INT64_MAX;
}

// The value of a line "KEY number" (or "KEY: number") of a file; `otherwise` when there is none.
static int64_t file_key(const char *path, const char *key, int64_t otherwise) {
    FILE *f = fopen(path, "re");
    char line[256];
    size_t n = strlen(key);
    if (!f) return otherwise;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n) != 0 || (line[n] != ':' && line[n] != ' ')) continue;
        otherwise = strtoll(line + n + 1, NULL, 10);
        break;
    }
    fclose(f);
    return otherwise;
}

// What a control group leaves: its limit less what it holds, where cached files do not count.
static int64_t group_left(const char *dir, const char *limit, const char *used) {
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", dir, limit);
    int64_t most = file_number(path);
    if (most == INT64_MAX || most >= INT64_C(1) << 60) return INT64_MAX;
    snprintf(path, sizeof path, "%s/%s", dir, used);
    int64_t now = file_number(path);
    if (now == INT64_MAX) return most;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    now -= file_key(path, "inactive_file", 0);
    return now < 0 ? most : now > most ? 0 : most - now;
}

// The least that the group of this process and those above it leave (control groups v2).
static int64_t groups_left(void) {
    static const char root[] = "/sys/fs/cgroup";
    char line[4096], dir[4200];
    int64_t least = group_left("/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                               "memory.usage_in_bytes"); // v1
    FILE *f = fopen("/proc/self/cgroup", "re");
    *line = 0;
    while (f && fgets(line, sizeof line, f) && strncmp(line, "0::", 3) != 0) *line = 0;
    if (f) fclose(f);
    line[strcspn(line, "\n")] = 0;
    snprintf(dir, sizeof dir, "%s%s", root, *line ? line + 3 : "");
    for (;;) {
        int64_t left = group_left(dir, "memory.max", "memory.current");
        if (left < least) least = left;
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= strlen(root) || !slash) return least;
        *slash = 0;
    }
}

int64_t training_memory_available(void) {
    int64_t kib = file_key("/proc/meminfo", "MemAvailable", INT64_MAX);
    int64_t system = kib > INT64_MAX / 1024 ? INT64_MAX : kib * 1024, group = groups_left();
    return group < system ? group : system;
}

int64_t training_micro_fits(const TrainingOptions *o, int64_t bytes) {
    int64_t fits = 0, over = 1 << 20; // plan_bytes grows with the micro-batch
    bytes -= o->reserve;
    while (over - fits > 1) {
        int64_t middle = fits + (over - fits) / 2;
        if (training_plan_bytes(o, middle) <= bytes)
            fits = middle;
        else
            over = middle;
    }
    return o->batch && fits > o->batch ? o->batch : fits;
}

// Memory of an image while a program runs, the most of those asked for.
static int64_t image_bytes(const TrainingOptions *o) {
    int64_t most = 1;
    for (int i = 0; i < o->model->nprograms; i++) {
        const CnxrtProgram *p = &o->model->programs[i];
        int64_t bytes = p->image_bytes + p->slot_bytes;
        if (cnxrt_program_listed(o->programs, p->name) && bytes > most) most = bytes;
    }
    return most;
}

// As many images as the caches of a CPU hold (what a step writes is read by later ones), but enough
// for the few rows an image has in the last stage: 16, or 8 of large images, whose time is the same
// and memory is not. A power of two, and the same on every machine that has the memory: it decides
// where gradients are rounded.
int64_t training_micro(const TrainingOptions *o, int64_t bytes) {
    enum { LEAST = 8, MOST = 64, CACHES = 24 << 20, MUCH = 768 << 20 };
    int64_t image = image_bytes(o), micro = 2 * LEAST * image > MUCH ? LEAST : 2 * LEAST;
    while (micro < MOST && 2 * micro <= CACHES / image) micro *= 2;
    int64_t fits = training_micro_fits(o, bytes);
    if (o->batch && micro > o->batch) micro = o->batch;
    return micro < fits ? micro : fits;
}
