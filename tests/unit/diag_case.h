// Memory for a test, and diagnostics that are kept as text.
#ifndef CNX_TESTS_DIAG_CASE_H
#define CNX_TESTS_DIAG_CASE_H
#include "ir/diag.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    Arena *a;
    Diag *d;
    char *errors; // what was printed; flush out before reading
    size_t size;
    FILE *out;
} World;

static inline void world_init(World *w) {
    *w = (World){.a = arena_new()};
    w->out = open_memstream(&w->errors, &w->size);
    w->d = diag_new(w->a, w->out);
}

static inline void world_free(World *w) {
    fclose(w->out);
    free(w->errors);
    arena_free(w->a);
}

#endif
