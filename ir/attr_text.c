// Printing and parsing of types, literals and attribute lists.
#include "attr_text.h"
#include <math.h>
#include <stdlib.h>

enum { MAX_LIST = 1 << 16 }; // elements of INTS, DIMS and ENUMS lists

// ---- printing ----------------------------------------------------------------------------------

void text_double(Str *out, double x) {
    char s[40];
    if (isnan(x)) {
        str_add(out, "nan");
        return;
    }
    snprintf(s, sizeof s, "%.9g", x);
    if (strtod(s, NULL) != x) snprintf(s, sizeof s, "%.17g", x);
    str_add(out, s);
}

void text_string(Str *out, const char *s, size_t n) {
    str_add(out, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            str_printf(out, "\\%c", c);
        else if (c == '\n')
            str_add(out, "\\n");
        else if (c == '\t')
            str_add(out, "\\t");
        else if (c < 32 || c == 127)
            str_printf(out, "\\x%02x", c);
        else
            str_addn(out, s + i, 1);
    }
    str_add(out, "\"");
}

static bool is_plain_name(const char *s) {
    if (!s || !((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == '_')) return false;
    for (; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
              *s == '_' || *s == '.' || *s == '-'))
            return false;
    return true;
}

void text_name(Str *out, const char *s) {
    if (is_plain_name(s))
        str_add(out, s);
    else
        text_string(out, s ? s : "", s ? strlen(s) : 0);
}

static int64_t attr_list_length(const Attr *a) {
    switch (attr_info[a->id].kind) {
    case AK_INTS:
    case AK_ENUMS: return a->ints.n;
    case AK_DIMS: return a->dims.n;
    case AK_DATA: return a->data.n;
    default: return -1;
    }
}

static void text_dim(Str *out, Dim d) {
    if (!d.b)
        str_printf(out, "%lld", (long long)d.c);
    else if (d.c == 1)
        str_add(out, "B");
    else
        str_printf(out, "%lldB", (long long)d.c);
}

static void text_element(Str *out, const Attr *a, int64_t i) {
    switch (attr_info[a->id].kind) {
    case AK_INTS: str_printf(out, "%lld", (long long)a->ints.v[i]); break;
    case AK_ENUMS: str_add(out, attr_word(a->id, (int)a->ints.v[i])); break;
    case AK_DIMS: text_dim(out, a->dims.v[i]); break;
    default: text_double(out, a->data.v[i]); break;
    }
}

void text_attr(Str *out, const Attr *a) {
    str_printf(out, "%s=", attr_info[a->id].name);
    int64_t n = attr_list_length(a);
    if (n >= 0) {
        str_add(out, "[");
        for (int64_t i = 0; i < n; i++) {
            if (i > 0) str_add(out, ",");
            text_element(out, a, i);
        }
        str_add(out, "]");
        return;
    }
    switch (attr_info[a->id].kind) {
    case AK_F64: text_double(out, a->f); break;
    case AK_BOOL: str_add(out, a->i ? "true" : "false"); break;
    case AK_STR: text_string(out, a->s ? a->s : "", a->s ? strlen(a->s) : 0); break;
    case AK_ENUM: str_add(out, attr_word(a->id, (int)a->i)); break;
    default: str_printf(out, "%lld", (long long)a->i); break;
    }
}

static bool attr_is_zero(const Attr *a) {
    int64_t n = attr_list_length(a);
    if (n >= 0) return n == 0;
    if (attr_info[a->id].kind == AK_F64) return a->f == 0;
    if (attr_info[a->id].kind == AK_STR) return !a->s || !*a->s;
    return a->i == 0;
}

void text_attrs(Str *out, const AttrSchema *schema, const Attr *attrs, int n, bool skip_zero) {
    bool any = false;
    for (int i = 0; i < schema->n; i++)
        for (int j = 0; j < n; j++) {
            if (attrs[j].id != schema->ids[i] || (skip_zero && attr_is_zero(&attrs[j]))) continue;
            str_add(out, any ? ", " : " {");
            text_attr(out, &attrs[j]);
            any = true;
        }
    if (any) str_add(out, "}");
}

// ---- parsing -----------------------------------------------------------------------------------

bool parse_int(Lexer *l, const char *what, int64_t lo, int64_t hi, int64_t *out) {
    Token *t = &l->tok;
    if (t->kind != TOK_NUMBER || (!t->integral && t->f != floor(t->f))) {
        lex_expected(l, arena_printf(l->arena, "%s (an integer)", what));
        return false;
    }
    if (!t->integral || t->i < lo || t->i > hi) {
        lex_error(l, t->loc, "%s must lie between %lld and %lld, found %s", what, (long long)lo,
                  (long long)hi, token_text(l->arena, t));
        return false;
    }
    *out = t->i;
    lex_next(l);
    return true;
}

static bool parse_dim(Lexer *l, int64_t lo, Dim *out) {
    if (lex_accept_word(l, "B")) {
        *out = dim_b(1);
        return true;
    }
    if (l->tok.kind != TOK_DIM) {
        out->b = false;
        return parse_int(l, "a dimension", lo, TEXT_MAX_ELEMS, &out->c);
    }
    if (l->tok.i < 1 || l->tok.i > TEXT_MAX_ELEMS) {
        lex_error(l, l->tok.loc, "a dimension must lie between 1 and %lld, found %s",
                  (long long)TEXT_MAX_ELEMS, token_text(l->arena, &l->tok));
        return false;
    }
    *out = dim_b(l->tok.i);
    lex_next(l);
    return true;
}

static bool parse_dtype(Lexer *l, DType *out) {
    if (l->tok.kind != TOK_NAME) {
        lex_expected(l, "a type such as f32[B,56,56,40]");
        return false;
    }
    if (!dtype_parse(l->tok.s, l->tok.n, out)) {
        const char *names[DT_COUNT];
        for (int i = 0; i < DT_COUNT; i++) names[i] = dtype_name((DType)i);
        lex_error(l, l->tok.loc, "unknown element type %s", token_text(l->arena, &l->tok));
        lex_hint_name(l, l->tok.s, l->tok.n, names, DT_COUNT);
        return false;
    }
    lex_next(l);
    return true;
}

bool parse_type(Lexer *l, Type *out) {
    Loc loc = l->tok.loc;
    int64_t elems = 1;
    int batches = 0;
    *out = (Type){0};
    if (!parse_dtype(l, &out->dt)) return false;
    if (!lex_accept(l, '[') || lex_accept(l, ']')) return true;
    do {
        Dim d;
        if (out->rank == MAX_RANK) {
            lex_error(l, l->tok.loc, "a type has at most %d dimensions", MAX_RANK);
            return false;
        }
        if (!parse_dim(l, 1, &d)) return false;
        out->d[out->rank++] = d;
        batches += d.b;
        if (elems > TEXT_MAX_ELEMS / d.c) {
            lex_error(l, loc, "the type has more than %lld elements", (long long)TEXT_MAX_ELEMS);
            return false;
        }
        elems *= d.c;
    } while (lex_accept(l, ','));
    if (batches > 1) {
        lex_error(l, loc, "the type has %d batch dimensions, at most one is allowed", batches);
        return false;
    }
    return lex_expect(l, ']', "after the dimensions");
}

static bool parse_double(Lexer *l, const char *what, double *out) {
    bool negative = lex_is_word(l, "-inf");
    if (negative || lex_is_word(l, "inf") || lex_is_word(l, "nan")) {
        *out = lex_is_word(l, "nan") ? (double)NAN : negative ? -HUGE_VAL : HUGE_VAL;
        lex_next(l);
        return true;
    }
    if (l->tok.kind != TOK_NUMBER) {
        lex_expected(l, arena_printf(l->arena, "%s (a number)", what));
        return false;
    }
    *out = l->tok.f;
    lex_next(l);
    return true;
}

static bool parse_word(Lexer *l, AttrId id, int64_t *out) {
    const char *name = attr_info[id].name, *words[32];
    int index = l->tok.kind == TOK_NAME ? attr_word_index(id, l->tok.s, l->tok.n) : -1;
    if (index >= 0) {
        *out = index;
        lex_next(l);
        return true;
    }
    if (l->tok.kind == TOK_BAD) return false;
    int count = 0;
    while (count < 32 && (words[count] = attr_word(id, count))) count++;
    lex_error(l, l->tok.loc, "%s must be one of %s, found %s", name, attr_words(l->arena, id),
              token_text(l->arena, &l->tok));
    if (l->tok.kind == TOK_NAME) lex_hint_name(l, l->tok.s, l->tok.n, words, count);
    return false;
}

// '[' element, ... ']' where parse_element appends one element to the attribute under way.
typedef struct {
    VEC(int64_t) ints;
    VEC(Dim) dims;
    VEC(double) data;
} ListParse;

static bool parse_element(Lexer *l, const Attr *a, ListParse *list) {
    const char *name = attr_info[a->id].name;
    int64_t i = 0;
    Dim d = {0};
    double f = 0;
    bool ok;
    switch (attr_info[a->id].kind) {
    case AK_INTS:
        ok = parse_int(l, name, -TEXT_MAX_ELEMS, TEXT_MAX_ELEMS, &i);
        vec_push(l->arena, &list->ints, i);
        break;
    case AK_ENUMS:
        ok = parse_word(l, a->id, &i);
        vec_push(l->arena, &list->ints, i);
        break;
    case AK_DIMS:
        ok = parse_dim(l, 1, &d);
        vec_push(l->arena, &list->dims, d);
        break;
    default:
        ok = parse_double(l, name, &f);
        vec_push(l->arena, &list->data, f);
        break;
    }
    return ok;
}

static bool parse_list(Lexer *l, Attr *a) {
    ListParse list = {0};
    const char *name = attr_info[a->id].name;
    bool data = attr_info[a->id].kind == AK_DATA;
    if (!lex_expect(l, '[', arena_printf(l->arena, "for %s (a list)", name))) return false;
    if (!lex_is(l, ']')) do {
            Loc loc = l->tok.loc;
            if (!parse_element(l, a, &list)) return false;
            if (!data && list.ints.n + list.dims.n > MAX_LIST) {
                lex_error(l, loc, "%s has more than %d elements", name, MAX_LIST);
                return false;
            }
        } while (lex_accept(l, ','));
    if (!lex_expect(l, ']', arena_printf(l->arena, "after the elements of %s", name))) return false;
    if (data) {
        a->data.v = list.data.v;
        a->data.n = list.data.n;
    } else if (attr_info[a->id].kind == AK_DIMS) {
        a->dims.v = list.dims.v;
        a->dims.n = list.dims.n;
    } else {
        a->ints.v = list.ints.v;
        a->ints.n = list.ints.n;
    }
    return true;
}

static bool parse_bool(Lexer *l, const char *name, int64_t *out) {
    *out = lex_is_word(l, "true");
    if (lex_accept_word(l, "true") || lex_accept_word(l, "false")) return true;
    lex_expected(l, arena_printf(l->arena, "true or false for %s", name));
    return false;
}

static bool parse_value(Lexer *l, Attr *a) {
    const char *name = attr_info[a->id].name;
    switch (attr_info[a->id].kind) {
    case AK_INT: return parse_int(l, name, -INT64_MAX, INT64_MAX, &a->i);
    case AK_F64: return parse_double(l, name, &a->f);
    case AK_BOOL: return parse_bool(l, name, &a->i);
    case AK_ENUM: return parse_word(l, a->id, &a->i);
    case AK_STR:
        if (l->tok.kind != TOK_STRING) {
            lex_expected(l, arena_printf(l->arena, "a string for %s", name));
            return false;
        }
        a->s = l->tok.s;
        lex_next(l);
        return true;
    default: return parse_list(l, a);
    }
}

// "op linear takes no attribute" / "...takes stride, pad"
static void report_attr(Lexer *l, const AttrSchema *schema) {
    Str list = {.arena = l->arena};
    const char *names[A_COUNT];
    for (int i = 0; i < schema->n; i++) {
        names[i] = attr_info[schema->ids[i]].name;
        str_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    lex_error(l, l->tok.loc, "%s %s has no attribute %s; it takes %s", schema->kind, schema->name,
              token_text(l->arena, &l->tok), schema->n ? str_cstr(&list) : "none");
    lex_hint_name(l, l->tok.s, l->tok.n, names, schema->n);
}

static bool schema_has(const AttrSchema *schema, AttrId id) {
    for (int i = 0; i < schema->n; i++)
        if (schema->ids[i] == id) return true;
    return false;
}

static bool parse_attr(Lexer *l, const AttrSchema *schema, bool seen[A_COUNT], Attr *out) {
    if (l->tok.kind != TOK_NAME) {
        lex_expected(l, "an attribute name");
        return false;
    }
    *out = (Attr){0};
    if (!attr_id_parse(l->tok.s, l->tok.n, &out->id) || !schema_has(schema, out->id)) {
        report_attr(l, schema);
        return false;
    }
    if (seen[out->id]) {
        lex_error(l, l->tok.loc, "attribute %s is given twice", attr_info[out->id].name);
        return false;
    }
    seen[out->id] = true;
    lex_next(l);
    return lex_expect(l, '=', "after the attribute name") && parse_value(l, out);
}

static int attr_order(const void *x, const void *y) {
    return (int)((const Attr *)x)->id - (int)((const Attr *)y)->id;
}

bool parse_attrs(Lexer *l, const AttrSchema *schema, Attr **out, int *n) {
    bool seen[A_COUNT] = {false};
    Attr *attrs = NULL;
    *n = 0;
    *out = NULL;
    if (!lex_accept(l, '{')) return true;
    if (lex_accept(l, '}')) return true;
    attrs = NEWN(l->arena, Attr, A_COUNT);
    do {
        if (!parse_attr(l, schema, seen, &attrs[*n])) return false;
        ++*n;
    } while (lex_accept(l, ','));
    qsort(attrs, (size_t)*n, sizeof *attrs, attr_order);
    *out = attrs;
    return lex_expect(l, '}', "after the attributes");
}
