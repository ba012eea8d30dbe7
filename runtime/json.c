// A small JSON library for builds without jansson (json.h): trees, a recursive-descent reader and a
// printer. Members keep their order and are found by a walk; objects are small.
#include "json.h"
#ifndef CNXRT_JANSSON
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };
typedef enum { OBJECT, ARRAY, STRING, INTEGER, REAL, TRUE, FALSE, NONE } Kind;

struct json_t {
    Kind kind;
    json_int_t integer;
    double real;
    char *string;
    char **keys; // of an object, else NULL
    json_t **items;
    size_t n, room;
};

// ---- trees -------------------------------------------------------------------------------------
static json_t *value_new(Kind kind) {
    json_t *j = calloc(1, sizeof *j);
    if (j) j->kind = kind;
    return j;
}

json_t *json_object(void) { return value_new(OBJECT); }
json_t *json_array(void) { return value_new(ARRAY); }
json_t *json_boolean(int v) { return value_new(v ? TRUE : FALSE); }
json_t *json_null(void) { return value_new(NONE); }

json_t *json_integer(json_int_t v) {
    json_t *j = value_new(INTEGER);
    if (j) j->integer = v;
    return j;
}

json_t *json_real(double v) {
    json_t *j = isfinite(v) ? value_new(REAL) : NULL;
    if (j) j->real = v;
    return j;
}

void json_decref(json_t *j) {
    if (!j) return;
    for (size_t i = 0; i < j->n; i++) {
        if (j->keys) free(j->keys[i]);
        json_decref(j->items[i]);
    }
    free(j->keys);
    free(j->items);
    free(j->string);
    free(j);
}

// Bytes of the UTF-8 character at p (ended by 0), 0 when there is none.
static int utf8_length(const unsigned char *p) {
    static const unsigned lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    int n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
    if (n < 2) return n;
    unsigned v = *p & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        v = v << 6 | (p[i] & 0x3fu);
    }
    return v < lowest[n] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000) ? 0 : n;
}

static bool utf8_valid(const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int n = utf8_length(p);
        if (!n) return false;
        p += n;
    }
    return true;
}

json_t *json_string(const char *text) {
    json_t *j = text && utf8_valid(text) ? value_new(STRING) : NULL;
    if (j && !(j->string = strdup(text))) {
        free(j);
        return NULL;
    }
    return j;
}

static bool grow(json_t *j) {
    if (j->n < j->room) return true;
    size_t room = j->room ? 2 * j->room : 8;
    json_t **items = realloc(j->items, room * sizeof *items);
    if (items) j->items = items;
    char **keys = items && j->kind == OBJECT ? realloc(j->keys, room * sizeof *keys) : NULL;
    if (keys) j->keys = keys;
    if (!items || (j->kind == OBJECT && !keys)) return false;
    j->room = room;
    return true;
}

static int refuse(json_t *value) {
    json_decref(value);
    return -1;
}

int json_array_append_new(json_t *array, json_t *value) {
    if (!array || !value || array->kind != ARRAY || !grow(array)) return refuse(value);
    array->items[array->n++] = value;
    return 0;
}

static json_t **find(const json_t *object, const char *key) {
    for (size_t i = 0; object && object->kind == OBJECT && i < object->n; i++)
        if (strcmp(object->keys[i], key) == 0) return &object->items[i];
    return NULL;
}

int json_object_set_new(json_t *object, const char *key, json_t *value) {
    json_t **old = find(object, key);
    if (old && value) {
        json_decref(*old);
        *old = value;
        return 0;
    }
    if (!object || !value || object->kind != OBJECT || !utf8_valid(key) || !grow(object))
        return refuse(value);
    if (!(object->keys[object->n] = strdup(key))) return refuse(value);
    object->items[object->n++] = value;
    return 0;
}

json_t *json_object_get(const json_t *object, const char *key) {
    json_t **at = find(object, key);
    return at ? *at : NULL;
}

const char *json_member(const json_t *object, size_t i, json_t **value) {
    if (!object || object->kind != OBJECT || i >= object->n) return NULL;
    *value = object->items[i];
    return object->keys[i];
}

size_t json_array_size(const json_t *j) { return j && j->kind == ARRAY ? j->n : 0; }
json_t *json_array_get(const json_t *j, size_t i) {
    return i < json_array_size(j) ? j->items[i] : NULL;
}
int json_is_object(const json_t *j) { return j && j->kind == OBJECT; }
int json_is_array(const json_t *j) { return j && j->kind == ARRAY; }
int json_is_null(const json_t *j) { return j && j->kind == NONE; }
int json_is_string(const json_t *j) { return j && j->kind == STRING; }
int json_is_integer(const json_t *j) { return j && j->kind == INTEGER; }
const char *json_string_value(const json_t *j) { return json_is_string(j) ? j->string : NULL; }
json_int_t json_integer_value(const json_t *j) { return json_is_integer(j) ? j->integer : 0; }
double json_real_value(const json_t *j) { return j && j->kind == REAL ? j->real : 0; }

// ---- reading -----------------------------------------------------------------------------------
typedef struct {
    const char *p, *end;
    size_t flags;
    const char *why; // of the first error
} Reader;

static json_t *read_value(Reader *r, int depth);

static void *wrong(Reader *r, const char *why) {
    if (!r->why) r->why = why;
    return NULL;
}

static int peek(Reader *r) {
    while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p) r->p++;
    return r->p < r->end ? (unsigned char)*r->p : -1;
}

static bool expect(Reader *r, char c) {
    if (peek(r) != c) return wrong(r, "unexpected character"), false;
    r->p++;
    return true;
}

static int hex4(Reader *r) {
    int v = 0;
    for (int i = 0; i < 4; i++, r->p++) {
        static const char digits[] = "0123456789abcdef";
        const char *at = r->p < r->end && *r->p ? strchr(digits, *r->p | 32) : NULL;
        if (!at) return -1;
        v = 16 * v + (int)(at - digits);
    }
    return v;
}

static char *put_utf8(char *q, unsigned v) {
    int n = v < 0x80 ? 1 : v < 0x800 ? 2 : v < 0x10000 ? 3 : 4;
    if (n == 1) return *q = (char)v, q + 1;
    for (int i = n - 1; i > 0; i--, v >>= 6) q[i] = (char)(0x80 | (v & 0x3f));
    *q = (char)((0xf00 >> n) | v);
    return q + n;
}

// The character after a backslash; NULL when it is none.
static char *read_escape(Reader *r, char *q) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = *r->p++;
    const char *at = c ? strchr(from, c) : NULL;
    if (at) return *q = to[at - from], q + 1;
    if (c != 'u') return NULL;
    int v = hex4(r);
    if (v >= 0xd800 && v < 0xdc00 && r->end - r->p > 2 && r->p[0] == '\\' && r->p[1] == 'u') {
        r->p += 2;
        int low = hex4(r);
        if (low < 0xdc00 || low > 0xdfff) return NULL;
        v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    }
    return v > 0 ? put_utf8(q, (unsigned)v) : NULL;
}

// Heap text; the opening quote is next.
static char *read_text(Reader *r) {
    if (!expect(r, '"')) return NULL;
    const char *end = r->p;
    while (end < r->end && *end != '"') end += *end == '\\' ? 2 : 1;
    if (end >= r->end) return wrong(r, "premature end of input");
    char *text = malloc((size_t)(end - r->p) + 1), *q = text;
    if (!text) return wrong(r, "out of memory");
    while (q && r->p < end) {
        if ((unsigned char)*r->p < 0x20)
            q = NULL;
        else if (*r->p == '\\')
            r->p++, q = read_escape(r, q);
        else
            *q++ = *r->p++;
    }
    if (q) *q = 0;
    if (q && utf8_valid(text)) return r->p = end + 1, text;
    free(text);
    return wrong(r, "a string that is not valid");
}

static json_t *read_number(Reader *r) {
    char text[64];
    size_t n = 0;
    while (r->p + n < r->end && n < sizeof text - 1 && r->p[n] &&
           strchr("+-.eE0123456789", r->p[n]))
        n++;
    memcpy(text, r->p, n);
    text[n] = 0;
    const char *digits = text + (*text == '-');
    if (*digits < '0' || *digits > '9' ||
        (digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9'))
        return wrong(r, "invalid token");
    char *end = text;
    bool whole = !strpbrk(text, ".eE");
    errno = 0;
    long long i = whole ? strtoll(text, &end, 10) : 0;
    double v = whole ? 0 : strtod(text, &end);
    if (*end || errno == ERANGE) return wrong(r, whole ? "too big integer" : "not a number");
    r->p += n;
    return whole ? json_integer(i) : json_real(v);
}

static json_t *read_word(Reader *r) {
    static const struct {
        const char *word;
        Kind kind;
    } words[] = {{"true", TRUE}, {"false", FALSE}, {"null", NONE}};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i].word);
        if ((size_t)(r->end - r->p) < n || memcmp(r->p, words[i].word, n) != 0) continue;
        r->p += n;
        return value_new(words[i].kind);
    }
    return wrong(r, "invalid token");
}

static bool read_member(Reader *r, json_t *o, int depth) {
    char *key = NULL;
    if (o->kind == OBJECT) {
        if (!(key = read_text(r))) return false;
        if ((r->flags & JSON_REJECT_DUPLICATES) && find(o, key)) wrong(r, "duplicate object key");
        if (r->why || !expect(r, ':')) return free(key), false;
    }
    json_t *v = read_value(r, depth + 1);
    int failed = !v || (key ? json_object_set_new(o, key, v) : json_array_append_new(o, v));
    free(key);
    if (failed) wrong(r, "out of memory");
    return !failed;
}

static json_t *read_container(Reader *r, Kind kind, int depth) {
    char close = kind == OBJECT ? '}' : ']';
    if (depth > MAX_DEPTH) return wrong(r, "nested too deeply");
    json_t *o = value_new(kind);
    if (!o) return wrong(r, "out of memory");
    r->p++;
    if (peek(r) == close) return r->p++, o;
    while (read_member(r, o, depth)) {
        int c = peek(r);
        if (c != ',' && c != close) break;
        r->p++;
        if (c == close) return o;
    }
    json_decref(o);
    return wrong(r, r->p < r->end ? "unexpected character" : "premature end of input");
}

static json_t *read_value(Reader *r, int depth) {
    int c = peek(r);
    if (c == '{' || c == '[') return read_container(r, c == '{' ? OBJECT : ARRAY, depth);
    if (c < 0) return wrong(r, "premature end of input");
    if (c != '"') return c == '-' || (c >= '0' && c <= '9') ? read_number(r) : read_word(r);
    char *text = read_text(r);
    json_t *j = text ? value_new(STRING) : NULL;
    if (!j) return free(text), wrong(r, "out of memory");
    j->string = text;
    return j;
}

json_t *json_loadb(const char *text, size_t n, size_t flags, json_error_t *error) {
    Reader r = {text, text + n, flags, NULL};
    int c = peek(&r);
    json_t *j = c == '{' || c == '[' ? read_value(&r, 0) : wrong(&r, "'[' or '{' expected");
    if (j && peek(&r) >= 0) {
        json_decref(j);
        j = wrong(&r, "end of file expected");
    }
    if (!j && error) {
        error->position = (int)(r.p - text);
        snprintf(error->text, sizeof error->text, "%s", r.why ? r.why : "out of memory");
    }
    return j;
}

// ---- printing ----------------------------------------------------------------------------------
static void print_text(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            fprintf(f, "\\u%04x", (unsigned)*s);
        else
            fputc(*s, f);
    }
    fputc('"', f);
}

// The shortest form of `precision` digits that reads back as a real.
static void print_real(FILE *f, double v, int precision) {
    char text[40];
    snprintf(text, sizeof text, "%.*g", precision ? precision : 17, v);
    fprintf(f, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void print_break(FILE *f, size_t flags, int depth, bool between) {
    int indent = (int)(flags >> 8 & 0xff) * depth;
    if (flags >> 8 & 0xff)
        fprintf(f, "\n%*s", indent, "");
    else if (between && !(flags & JSON_COMPACT))
        fputc(' ', f);
}

static void print_value(FILE *f, const json_t *j, size_t flags, int depth) {
    switch (j->kind) {
    case STRING: print_text(f, j->string); return;
    case INTEGER: fprintf(f, "%lld", j->integer); return;
    case REAL: print_real(f, j->real, (int)(flags >> 16)); return;
    case TRUE: fputs("true", f); return;
    case FALSE: fputs("false", f); return;
    case NONE: fputs("null", f); return;
    default: break;
    }
    fputc(j->keys || j->kind == OBJECT ? '{' : '[', f);
    for (size_t i = 0; i < j->n; i++) {
        if (i) fputc(',', f);
        print_break(f, flags, depth + 1, i > 0);
        if (j->keys) {
            print_text(f, j->keys[i]);
            fputs(flags & JSON_COMPACT ? ":" : ": ", f);
        }
        print_value(f, j->items[i], flags, depth + 1);
    }
    if (j->n) print_break(f, flags, depth, false);
    fputc(j->kind == OBJECT ? '}' : ']', f);
}

int json_dumpf(const json_t *j, FILE *f, size_t flags) {
    if (!j) return -1;
    print_value(f, j, flags, 0);
    return ferror(f) ? -1 : 0;
}

char *json_dumps(const json_t *j, size_t flags) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    int failed = json_dumpf(j, f, flags);
    if (fclose(f) == 0 && !failed) return text;
    free(text);
    return NULL;
}
#else
typedef int json_from_jansson; // a translation unit holds something
#endif
