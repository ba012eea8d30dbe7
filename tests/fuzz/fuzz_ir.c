// Fuzz target of both text forms: any bytes are either refused with a message or give IR that
// verifies and whose text is a fixed point of print and parse. libFuzzer entry; driver.c runs it
// without clang.
#include "ir/schedule.h"
#include "ir/text.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "fuzz_ir: %s\n", what);
    abort();
}

static const char *print_module(Arena *a, const Module *m) {
    Str out = {.arena = a};
    module_print(&out, m);
    return str_cstr(&out);
}

static void fuzz_module(Arena *a, const char *text, size_t n) {
    Diag *d = diag_new(a, NULL);
    Module *m = module_parse(a, d, "in", text, n);
    check(!m == (diag_count(d) > 0), "no module without a message, and none with one");
    if (!m) return;
    for (int i = 0; i < m->graphs.n; i++) {
        check(!graph_verify(m->graphs.v[i]), "a parsed program does not verify");
        check(graph_macs(m->graphs.v[i]) >= 0, "negative MACs");
        check(!graph_verify(graph_prune(m->graphs.v[i])), "a pruned program does not verify");
    }
    const char *once = print_module(a, m);
    Module *again = module_parse(a, diag_new(a, stderr), "printed", once, strlen(once));
    check(again && strcmp(print_module(a, again), once) == 0, "printed text is no fixed point");
}

static const char *print_schedules(Arena *a, Schedule **list, int n) {
    Str out = {.arena = a};
    for (int i = 0; i < n; i++) schedule_print(&out, list[i]);
    return str_cstr(&out);
}

static void fuzz_schedules(Arena *a, const char *text, size_t n) {
    Diag *d = diag_new(a, NULL);
    int count, count2;
    Schedule **list = schedules_parse(a, d, "in", text, n, &count);
    check(!list == (diag_count(d) > 0), "no schedule without a message, and none with one");
    if (!list) return;
    for (int i = 0; i < count; i++) check(!schedule_verify(list[i]), "a schedule does not verify");
    const char *once = print_schedules(a, list, count);
    Schedule **again =
        schedules_parse(a, diag_new(a, stderr), "printed", once, strlen(once), &count2);
    check(again && strcmp(print_schedules(a, again, count2), once) == 0,
          "printed schedules are no fixed point");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena *a = arena_new();
    char *text = malloc(size + 1); // its own block, so that a sanitizer sees any reading past it
    if (size) memcpy(text, data, size);
    fuzz_module(a, text, size);
    fuzz_schedules(a, text, size);
    free(text);
    arena_free(a);
    return 0;
}
