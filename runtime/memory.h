// The blocks a session lives on, and how many bytes they are.
#ifndef CNXRT_MEMORY_H
#define CNXRT_MEMORY_H
#include "cnxrt_model.h"
#include <stdbool.h>
#include <stddef.h>

// Bytes of the blocks that running some programs at a batch takes: the largest of each.
typedef struct {
    int64_t arena, scratch; // scratch: of all threads together
    int64_t spare;          // where outputs go that the caller does not want
    bool overflow;          // the sizes do not fit in 63 bits
} CnxrtPlan;

// 64-byte aligned memory, page-aligned with huge pages advised when large. NULL when there is none.
void *cnxrt_memory_take(int64_t bytes);
void cnxrt_memory_give(void *p); // NULL is allowed

// True when `program` is in the comma-separated list; NULL lists all but "prepare".
bool cnxrt_program_listed(const char *programs, const char *program);
CnxrtPlan cnxrt_plan(const CnxrtModel *m, const char *programs, int64_t batch, int threads);

#endif
