// Checks YAML maps against field tables. Values of fields are resolved in two steps: a plain word
// that names a binding stands for its value (in the scope where that was written), then the text is
// read by the field's kind. Integer expressions: + - * / over integers and names, with parentheses;
// / rounds down. 64-bit overflow is an error.
#include "schema.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_HOPS = 32, MAX_WORDS = 16 };

void scope_int(Arena *a, Scope *s, const char *name, int64_t value) {
    vec_push(a, &s->bindings, ((Binding){.name = name, .value = value}));
}

void scope_node(Arena *a, Scope *s, const char *name, const Yaml *node, Scope *from) {
    vec_push(a, &s->bindings, ((Binding){.name = name, .node = node, .scope = from}));
}

static Binding *scope_find(Scope *s, const char *name, size_t n) {
    for (int i = 0; s && i < s->bindings.n; i++) {
        Binding *b = &s->bindings.v[i];
        if (strlen(b->name) == n && memcmp(b->name, name, n) == 0) return b;
    }
    return NULL;
}

const Field *schema_find(const Field *fields, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(fields[i].name, name) == 0) return &fields[i];
    return NULL;
}

// ---- integer expressions -----------------------------------------------------------------------

typedef struct {
    Schema *schema;
    const Yaml *node; // for places
    Scope *scope;
    const char *p;
    int depth;
    bool failed;
} Expr;

static bool int_value(Schema *s, const Yaml *y, Scope *scope, int depth, int64_t *out);

static int64_t expr_fail(Expr *e, const char *why) {
    if (!e->failed) diag_error(e->schema->diag, e->node->loc, "'%.60s': %s", e->node->text, why);
    e->failed = true;
    return 1;
}

static int64_t expr_unknown(Expr *e, const char *name, size_t n) {
    const char *names[64];
    int count = 0;
    for (int i = 0; e->scope && i < e->scope->bindings.n && count < 64; i++)
        names[count++] = e->scope->bindings.v[i].name;
    char *text = arena_strndup(e->schema->arena, name, n);
    if (e->failed) return 1;
    if (!e->scope) return expr_fail(e, "expected an integer");
    expr_fail(e, arena_printf(e->schema->arena, "no parameter '%s' here", text));
    const char *near = nearest_name(text, names, count);
    if (near) diag_hint(e->schema->diag, "did you mean '%s'?", near);
    return 1;
}

static int64_t expr_name(Expr *e) {
    const char *start = e->p;
    while (isalnum((unsigned char)*e->p) || *e->p == '_') e->p++;
    size_t n = (size_t)(e->p - start);
    Binding *b = scope_find(e->scope, start, n);
    if (!b) return expr_unknown(e, start, n);
    if (!b->node) return b->value;
    if (b->busy || e->depth > MAX_HOPS) return expr_fail(e, "the value depends on itself");
    int64_t value = 1;
    b->busy = true;
    if (!int_value(e->schema, b->node, b->scope, e->depth + 1, &value)) e->failed = true;
    b->busy = false;
    return value;
}

static int64_t expr_sum(Expr *e);

static void expr_space(Expr *e) {
    while (*e->p == ' ' || *e->p == '\t') e->p++;
}

static int64_t expr_atom(Expr *e) {
    expr_space(e);
    if (e->depth > MAX_HOPS) return expr_fail(e, "nested too deeply");
    if (*e->p == '(') {
        e->p++;
        e->depth++;
        int64_t v = expr_sum(e);
        e->depth--;
        expr_space(e);
        if (*e->p != ')') return expr_fail(e, "expected ')'");
        e->p++;
        return v;
    }
    if (*e->p == '-') {
        e->p++;
        e->depth++;
        int64_t v = expr_atom(e), r;
        e->depth--;
        return __builtin_sub_overflow((int64_t)0, v, &r) ? expr_fail(e, "too large") : r;
    }
    if (isdigit((unsigned char)*e->p)) {
        char *end;
        errno = 0;
        long long v = strtoll(e->p, &end, 10);
        if (errno) return expr_fail(e, "too large");
        e->p = end;
        if (isalnum((unsigned char)*end) || *end == '.' || *end == '_')
            return expr_fail(e, "expected an integer");
        return v;
    }
    if (isalpha((unsigned char)*e->p) || *e->p == '_') return expr_name(e);
    return expr_fail(e, "expected an integer");
}

static int64_t floor_div(int64_t x, int64_t y) {
    return x / y - (x % y != 0 && (x < 0) != (y < 0));
}

static int64_t expr_product(Expr *e) {
    int64_t v = expr_atom(e), w;
    for (;;) {
        expr_space(e);
        char op = *e->p;
        if ((op != '*' && op != '/') || e->failed) return v;
        e->p++;
        w = expr_atom(e);
        if (op == '*' ? __builtin_mul_overflow(v, w, &v) : w == -1)
            return expr_fail(e, op == '*' ? "too large" : "division by a negative number");
        if (op == '/' && w == 0) return expr_fail(e, "division by zero");
        if (op == '/') v = floor_div(v, w);
    }
}

static int64_t expr_sum(Expr *e) {
    int64_t v = expr_product(e), w;
    for (;;) {
        expr_space(e);
        char op = *e->p;
        if ((op != '+' && op != '-') || e->failed) return v;
        e->p++;
        w = expr_product(e);
        if (op == '+' ? __builtin_add_overflow(v, w, &v) : __builtin_sub_overflow(v, w, &v))
            return expr_fail(e, "too large");
    }
}

static bool int_value(Schema *s, const Yaml *y, Scope *scope, int depth, int64_t *out) {
    if (y->kind != YAML_TEXT || y->quoted || !*y->text) {
        diag_error(s->diag, y->loc, "expected an integer, not %s", yaml_describe(s->arena, y));
        return false;
    }
    Expr e = {s, y, scope, y->text, depth, false};
    *out = expr_sum(&e);
    expr_space(&e);
    if (*e.p) expr_fail(&e, scope ? "expected an integer expression" : "expected an integer");
    return !e.failed;
}

bool schema_int(Schema *s, const Yaml *y, Scope *scope, int64_t *out) {
    return int_value(s, y, scope, 0, out);
}

// ---- values by kind ----------------------------------------------------------------------------

// A word that names a binding stands for the binding's value.
static const Yaml *resolve(Schema *s, const Yaml *y, Scope **scope) {
    for (int hops = 0; y->kind == YAML_TEXT && !y->quoted; hops++) {
        Binding *b = scope_find(*scope, y->text, strlen(y->text));
        if (!b || !b->node) return y;
        if (hops > MAX_HOPS) {
            diag_error(s->diag, y->loc, "the value of '%s' depends on itself", y->text);
            return NULL;
        }
        y = b->node;
        *scope = b->scope;
    }
    return y;
}

static bool in_range(Schema *s, const Field *f, const Yaml *y, double v) {
    if (f->lo == f->hi || (v >= f->lo && v <= f->hi)) return true;
    diag_error(s->diag, y->loc, "%s is %.10g; it must be from %.10g to %.10g", f->name, v, f->lo,
               f->hi);
    return false;
}

static bool wrong_type(Schema *s, const Field *f, const Yaml *y, const char *wanted) {
    diag_error(s->diag, y->loc, "%s must be %s, not %s", f->name, wanted,
               yaml_describe(s->arena, y));
    return false;
}

static bool read_int(Schema *s, const Field *f, const Yaml *y, Scope *scope, int64_t *out) {
    if (y->kind != YAML_TEXT || y->quoted || !*y->text) return wrong_type(s, f, y, "an integer");
    return schema_int(s, y, scope, out) && in_range(s, f, y, (double)*out);
}

static bool read_num(Schema *s, const Field *f, const Yaml *y, double *out) {
    if (y->kind != YAML_TEXT || y->quoted || !*y->text) return wrong_type(s, f, y, "a number");
    char *end;
    *out = strtod(y->text, &end);
    bool plain = strspn(y->text, "0123456789+-.eE") == strlen(y->text);
    if (*end || !plain || !isfinite(*out)) return wrong_type(s, f, y, "a number");
    return in_range(s, f, y, *out);
}

static bool read_ints(Schema *s, const Field *f, const Yaml *y, Scope *scope, int64_t *v, int n) {
    if (y->kind == YAML_LIST && y->entries.n != n) {
        diag_error(s->diag, y->loc, "%s is one integer or %d, not %d", f->name, n, y->entries.n);
        return false;
    }
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        Scope *at = scope;
        const Yaml *item = y->kind == YAML_LIST ? resolve(s, y->entries.v[i].value, &at) : y;
        ok = item && read_int(s, f, item, at, &v[i]);
    }
    return ok;
}

static bool read_nums(Schema *s, const Field *f, const Yaml *y, NumList *out) {
    int n = y->kind == YAML_LIST ? y->entries.n : 1;
    double *v = NEWN(s->arena, double, n + 1);
    bool ok = true;
    for (int i = 0; i < n; i++)
        ok &= read_num(s, f, y->kind == YAML_LIST ? y->entries.v[i].value : y, &v[i]);
    *out = (NumList){v, n};
    return ok;
}

static bool read_num2(Schema *s, const Field *f, const Yaml *y, double *out) {
    NumList list;
    if (y->kind != YAML_LIST || y->entries.n != 2) return wrong_type(s, f, y, "a list of two");
    if (!read_nums(s, f, y, &list)) return false;
    out[0] = list.v[0];
    out[1] = list.v[1];
    return true;
}

static bool read_int_list(Schema *s, const Field *f, const Yaml *y, Scope *scope, IntList *out) {
    int n = y->kind == YAML_LIST ? y->entries.n : 1;
    int64_t *v = NEWN(s->arena, int64_t, n + 1);
    *out = (IntList){v, n};
    return n == 0 ? wrong_type(s, f, y, "an integer or a list of them")
                  : read_ints(s, f, y, scope, v, n);
}

int schema_word(const char *words, const char *text) {
    size_t n = strlen(text);
    for (int i = 0; words && *words; i++) {
        size_t len = strcspn(words, "|");
        if (len == n && memcmp(words, text, n) == 0) return i;
        words += len + (words[len] == '|');
    }
    return -1;
}

static bool read_word(Schema *s, const Field *f, const Yaml *y, int *out) {
    *out = y->kind == YAML_TEXT ? schema_word(f->words, y->text) : -1;
    if (*out >= 0) return true;
    diag_error(s->diag, y->loc, "%s is one of %s, not %s", f->name, f->words,
               yaml_describe(s->arena, y));
    if (y->kind != YAML_TEXT) return false;
    const char *names[MAX_WORDS];
    int n = 0;
    char *copy = arena_strdup(s->arena, f->words), *save = NULL;
    for (char *w = strtok_r(copy, "|", &save); w && n < MAX_WORDS; w = strtok_r(NULL, "|", &save))
        names[n++] = w;
    const char *near = nearest_name(y->text, names, n);
    if (near) diag_hint(s->diag, "did you mean '%s'?", near);
    return false;
}

static bool read_words(Schema *s, const Field *f, const Yaml *y, unsigned *out) {
    int n = y->kind == YAML_LIST ? y->entries.n : 1, bit;
    bool ok = true;
    *out = 0;
    for (int i = 0; i < n; i++) {
        const Yaml *item = y->kind == YAML_LIST ? y->entries.v[i].value : y;
        if (read_word(s, f, item, &bit))
            *out |= 1u << bit;
        else
            ok = false;
    }
    return ok;
}

static bool read_bool(Schema *s, const Field *f, const Yaml *y, bool *out) {
    if (y->kind == YAML_TEXT && !y->quoted) {
        *out = strcmp(y->text, "true") == 0;
        if (*out || strcmp(y->text, "false") == 0) return true;
    }
    return wrong_type(s, f, y, "true or false");
}

static bool read_str(Schema *s, const Field *f, const Yaml *y, const char **out) {
    *out = y->text;
    return (y->kind == YAML_TEXT && *y->text) || wrong_type(s, f, y, "a word");
}

static bool read_field(Schema *s, const Field *f, const Yaml *y, Scope *scope, void *member) {
    if (f->kind == F_NODE) return *(const Yaml **)member = y, true;
    y = resolve(s, y, &scope);
    if (!y) return false;
    if ((f->flags & FIELD_NONE) && yaml_is_none(y)) {
        if (f->kind == F_NUM) *(double *)member = 0;
        if (f->kind == F_STR) *(const char **)member = NULL;
        return true;
    }
    switch (f->kind) {
    case F_INT: return read_int(s, f, y, scope, member);
    case F_INT2: return read_ints(s, f, y, scope, member, 2);
    case F_INTS: return read_int_list(s, f, y, scope, member);
    case F_NUM: return read_num(s, f, y, member);
    case F_NUM2: return read_num2(s, f, y, member);
    case F_NUMS: return read_nums(s, f, y, member);
    case F_BOOL: return read_bool(s, f, y, member);
    case F_STR: return read_str(s, f, y, member);
    case F_WORD: return read_word(s, f, y, member);
    case F_WORDS: return read_words(s, f, y, member);
    case F_NODE: break;
    }
    return false;
}

// ---- maps --------------------------------------------------------------------------------------

static void unknown_key(Schema *s, const YamlEntry *e, const char *what, const Field *fields, int n,
                        const char *const *extra, int nextra) {
    const char **names = NEWN(s->arena, const char *, n + nextra + 1);
    for (int i = 0; i < n; i++) names[i] = fields[i].name;
    for (int i = 0; i < nextra; i++) names[n + i] = extra[i];
    diag_error(s->diag, e->loc, "unknown key '%s' in %s", e->key, what);
    const char *near = nearest_name(e->key, names, n + nextra);
    if (near) {
        diag_hint(s->diag, "did you mean '%s'?", near);
        return;
    }
    Str all = {.arena = s->arena};
    for (int i = 0; i < n + nextra; i++) str_printf(&all, "%s%s", i ? ", " : "", names[i]);
    diag_hint(s->diag, "known here: %s", str_cstr(&all));
}

bool schema_keys(Schema *s, const Yaml *map, const char *what, const Field *fields, int n,
                 const char *const *extra, int nextra) {
    if (map->kind != YAML_MAP) {
        diag_error(s->diag, map->loc, "%s must be a map, not %s", what,
                   yaml_describe(s->arena, map));
        return false;
    }
    bool ok = true;
    for (int i = 0; i < map->entries.n; i++) {
        const YamlEntry *e = &map->entries.v[i];
        bool known = schema_find(fields, n, e->key) != NULL;
        for (int j = 0; j < nextra && !known; j++) known = strcmp(extra[j], e->key) == 0;
        if (!known) unknown_key(s, e, what, fields, n, extra, nextra);
        ok &= known;
    }
    return ok;
}

static bool read_one(Schema *s, const Yaml *map, const Yaml *fallback, Loc where, const char *what,
                     const Field *f, Scope *scope, void *out) {
    void *member = (char *)out + f->offset;
    const Yaml *y = yaml_get(map, f->name);
    if (y) return read_field(s, f, y, scope, member);
    if ((y = yaml_get(fallback, f->name))) return read_field(s, f, y, NULL, member);
    if (f->flags & FIELD_REQUIRED) {
        diag_error(s->diag, where, "%s needs '%s' (%s)", what, f->name, f->doc);
        return false;
    }
    if (!f->init) return true;
    Yaml text = {.kind = YAML_TEXT, .loc = where, .text = f->init};
    return read_field(s, f, &text, scope, member);
}

bool schema_read(Schema *s, const Yaml *map, const Yaml *fallback, Loc where, const char *what,
                 const Field *fields, int n, Scope *scope, void *out) {
    if (map && map->kind != YAML_MAP) return false; // reported by schema_keys
    bool ok = true;
    for (int i = 0; i < n; i++)
        ok &= read_one(s, map, fallback, where, what, &fields[i], scope, out);
    return ok;
}
