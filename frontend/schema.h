// Typed fields of a YAML map as a table: names, kinds, ranges, where they go in a struct, what they
// mean. One reader checks any map against such a table and reports unknown keys, wrong types and
// values out of range with their place. Inside block bodies a value may be a parameter's name or an
// integer expression over parameters, resolved through a Scope.
#ifndef CNX_FRONTEND_SCHEMA_H
#define CNX_FRONTEND_SCHEMA_H
#include "yaml.h"

typedef enum {
    F_INT,   // int64_t; expression
    F_INT2,  // int64_t[2]; one expression for both, or a list of two
    F_INTS,  // IntList; one or a list
    F_NUM,   // double
    F_NUM2,  // double[2]; a list of two
    F_NUMS,  // NumList; one or a list
    F_BOOL,  // bool
    F_STR,   // const char *
    F_WORD,  // int: index into words "a|b|c"
    F_WORDS, // unsigned: bit set over words; a list
    F_NODE,  // const Yaml *, checked by somebody else
} FieldKind;

typedef struct {
    const int64_t *v;
    int n;
} IntList;
typedef struct {
    const double *v;
    int n;
} NumList;

// NONE: the word none is allowed for a number (zero) or a word (NULL)
enum { FIELD_REQUIRED = 1, FIELD_NONE = 2 };

typedef struct {
    const char *name;
    FieldKind kind;
    size_t offset;     // of the member in the struct that is filled
    double lo, hi;     // inclusive range of numbers; equal: not checked
    const char *words; // F_WORD, F_WORDS
    const char *init;  // default as YAML text; NULL: the member stays as it was
    unsigned flags;
    const char *doc;
} Field;

// Names a value may use. A binding is an integer or a YAML value read in the scope it came from.
typedef struct Scope Scope;
typedef struct {
    const char *name;
    const Yaml *node; // NULL: value
    Scope *scope;     // of node; NULL: no names there
    int64_t value;
    bool busy; // being resolved: a second visit is a cycle
} Binding;
struct Scope {
    VEC(Binding) bindings;
};
void scope_int(Arena *a, Scope *s, const char *name, int64_t value);
void scope_node(Arena *a, Scope *s, const char *name, const Yaml *node, Scope *from);

typedef struct {
    Arena *arena;
    Diag *diag;
} Schema;

// Fills out from map (NULL: all defaults), then from fallback (may be NULL), then from init. That
// map is one and its keys are known is schema_keys' to say.
// where: the place of a missing required field. Returns false after errors.
bool schema_read(Schema *s, const Yaml *map, const Yaml *fallback, Loc where, const char *what,
                 const Field *fields, int n, Scope *scope, void *out);
// Only the keys: every key of map must be a field or in extra[0..nextra).
bool schema_keys(Schema *s, const Yaml *map, const char *what, const Field *fields, int n,
                 const char *const *extra, int nextra);
// The index of the word, or -1.
int schema_word(const char *words, const char *text);
bool schema_int(Schema *s, const Yaml *y, Scope *scope, int64_t *out);
const Field *schema_find(const Field *fields, int n, const char *name);

#endif
