// User errors with the place, the source line and a caret; internal errors that name the pass.
// A Diag collects up to 20 errors; the caller looks at diag_count() and exits with status 1.
#ifndef CNX_IR_DIAG_H
#define CNX_IR_DIAG_H
#include "arena.h"
#include <stdio.h>

typedef struct {
    const char *file; // NULL: no place known
    int line, col;    // from 1
} Loc;

typedef struct Diag Diag;

Diag *diag_new(Arena *a, FILE *out);
// Registers the text of a file so that errors in it can show the line. The text must outlive d.
void diag_source(Diag *d, const char *file, const char *text, size_t n);
// Prints "file:line:col: error: ..." and the source line with a caret. The first 20 are printed.
void diag_error(Diag *d, Loc loc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Prints "    hint: ..." below the error just printed.
void diag_hint(Diag *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int diag_count(const Diag *d);
// The name in names[0..n) nearest to s by edit distance, or NULL when none is near enough.
const char *nearest_name(const char *s, const char *const *names, int n);

// Where the compiler stands, for ice(): set by the pipeline runner. on_ice, when set, is called
// once before the abort (it writes the pass's input as text and prints the replay command).
typedef struct {
    const char *pass, *program;
    void (*on_ice)(void *user);
    void *user;
} IceContext;
extern _Thread_local IceContext ice_context; // the one exception to "no globals": for a crash only
// A compiler bug: prints the message with pass, program and place, then aborts.
_Noreturn void ice(Loc loc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
