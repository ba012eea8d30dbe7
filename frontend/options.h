// Command lines as tables: one Option row per flag gives parsing, the nearest-name hint and the
// --help text.
#ifndef CNX_FRONTEND_OPTIONS_H
#define CNX_FRONTEND_OPTIONS_H
#include "../ir/diag.h"

typedef struct {
    const char *name;  // without the dashes
    char letter;       // 0: none
    const char *value; // metavariable, NULL for a switch
    const char *doc;   // may hold newlines
} Option;

typedef struct {
    const char *name;    // "build"
    const char *usage;   // "SPEC -o OUT [options]"
    const char *summary; // one line
    const char *help;    // paragraphs between summary and options; may be NULL
    const Option *options;
    int noptions;
    const char *trailer; // after the options: examples, exit status; may be NULL
} Command;

typedef struct {
    const Command *command;
    Arena *arena;
    VEC(const char *) args; // positional
    struct {
        int option;
        const char *value;
    } * set;
    int nset, cap;
    bool help;
} Options;

// Reads argv[0..n). Accepts --name=v, --name v, -x v, -xv and "--". Returns false after printing
// what is wrong to err.
bool options_parse(Options *o, Arena *a, const Command *c, int n, char *const *argv, FILE *err);
bool options_has(const Options *o, const char *name);
// The last value of the option, or fallback.
const char *options_get(const Options *o, const char *name, const char *fallback);
// All values of the option, in order.
const char **options_all(const Options *o, const char *name, int *n);
// A whole number in [lo,hi]. Returns false after printing what is wrong.
bool options_int(const Options *o, const char *name, int64_t lo, int64_t hi, int64_t *out,
                 FILE *err);
void command_help(const Command *c, FILE *out);

#endif
