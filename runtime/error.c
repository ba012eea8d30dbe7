// Messages of the runtime: heap text that grows.
#include "cnxrt_weights.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Formats to new heap memory after `keep` bytes of old; NULL when there is no memory.
static char *text_append(const char *old, size_t keep, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) return NULL;
    char *text = malloc(keep + (size_t)n + 1);
    if (!text) return NULL;
    if (keep) memcpy(text, old, keep);
    vsnprintf(text + keep, (size_t)n + 1, fmt, args);
    return text;
}

// The old text may be among the arguments, hence it is freed last.
static void error_replace(CnxrtError *e, size_t keep, const char *fmt, va_list args) {
    if (!e) return;
    char *text = text_append(e->text, keep, fmt, args);
    if (!text) return;
    free(e->text);
    e->text = text;
}

void cnxrt_error_set(CnxrtError *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    error_replace(e, 0, fmt, args);
    va_end(args);
}

void cnxrt_error_add(CnxrtError *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    error_replace(e, e && e->text ? strlen(e->text) : 0, fmt, args);
    va_end(args);
}

void cnxrt_error_free(CnxrtError *e) {
    if (!e) return;
    free(e->text);
    e->text = NULL;
}
