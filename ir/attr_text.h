// Types, literals and attribute lists in text, for graphs and schedules alike; everything here
// follows the attribute schema (attrs.def), no attribute is known by name.
#ifndef CNX_IR_ATTR_TEXT_H
#define CNX_IR_ATTR_TEXT_H
#include "lex.h"
#include "op.h"

// Dimensions, sizes and counts in text stay below this, so that products stay within 63 bits.
#define TEXT_MAX_ELEMS ((int64_t)1 << 46)

// What an attribute list belongs to: "op conv2d", "kernel gemm"; ids in printing order.
typedef struct {
    const char *kind, *name;
    const AttrId *ids;
    int n;
} AttrSchema;

void text_double(Str *out, double x); // parses back to the same value
void text_string(Str *out, const char *s, size_t n);
void text_name(Str *out, const char *s); // a string unless it is a plain name
void text_attr(Str *out, const Attr *a); // name=value
// " {a=1, b=2}" in schema order, nothing when no attribute is set. skip_zero leaves out scalars
// that are 0 and empty lists, which mean the same as absent ones.
void text_attrs(Str *out, const AttrSchema *schema, const Attr *attrs, int n, bool skip_zero);

// Each returns false after reporting what is wrong.
bool parse_type(Lexer *l, Type *out);
bool parse_int(Lexer *l, const char *what, int64_t lo, int64_t hi, int64_t *out);
// '{' name=value, ... '}' or nothing; out is sorted by id, arena-allocated.
bool parse_attrs(Lexer *l, const AttrSchema *schema, Attr **out, int *n);

#endif
