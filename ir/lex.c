// The lexer of both text forms.
#include "lex.h"
#include <errno.h>
#include <stdlib.h>

enum { MAX_NUMBER = 63, SHOWN_TEXT = 40 };

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_name(char c) { return is_alpha(c) || is_digit(c) || c == '.' || c == '-'; }

static int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

void lex_error(Lexer *l, Loc loc, const char *fmt, ...) {
    if (l->quiet) return;
    va_list ap;
    va_start(ap, fmt);
    const char *text = arena_vprintf(l->arena, fmt, ap);
    va_end(ap);
    diag_error(l->diag, loc, "%s", text);
}

void lex_hint_name(Lexer *l, const char *s, size_t n, const char *const *names, int count) {
    const char *near = nearest_name(arena_strndup(l->arena, s, n), names, count);
    if (near && !l->quiet) diag_hint(l->diag, "did you mean \"%s\"?", near);
}

static Loc lex_loc(const Lexer *l, const char *p) {
    return (Loc){l->file, l->line, (int)(p - l->line_start) + 1};
}

// Blanks, line ends and comments.
static void skip_blank(Lexer *l) {
    while (l->p < l->end) {
        char c = *l->p;
        if (c == '\n') {
            l->line++;
            l->line_start = ++l->p;
            l->fresh = true;
        } else if (c == ' ' || c == '\t' || c == '\r') {
            l->p++;
        } else if (c == ';') {
            while (l->p < l->end && *l->p != '\n') l->p++;
        } else {
            return;
        }
    }
}

static const char *scan_digits(const Lexer *l, const char *p) {
    while (p < l->end && is_digit(*p)) p++;
    return p;
}

// Fraction and exponent after the digits that end at p; p itself when there is neither.
static const char *scan_fraction(const Lexer *l, const char *p) {
    if (p + 1 < l->end && *p == '.' && is_digit(p[1])) p = scan_digits(l, p + 1);
    if (p < l->end && (*p == 'e' || *p == 'E')) {
        const char *q = p + 1;
        if (q < l->end && (*q == '+' || *q == '-')) q++;
        if (q < l->end && is_digit(*q)) p = scan_digits(l, q);
    }
    return p;
}

static void lex_number(Lexer *l) {
    Token *t = &l->tok;
    const char *s = l->p, *p = scan_digits(l, s + (*s == '-'));
    const char *e = scan_fraction(l, p);
    char text[MAX_NUMBER + 1];
    size_t n = (size_t)(e - s);
    bool dim = e == p && *s != '-' && e < l->end && *e == 'B';
    l->p = e + dim;
    bool junk = l->p < l->end && (is_alpha(*l->p) || (is_digit(*l->p)));
    while (l->p < l->end && junk && is_name(*l->p)) l->p++;
    if (n > MAX_NUMBER || junk) {
        t->kind = TOK_BAD;
        lex_error(l, t->loc, "malformed number");
        return;
    }
    memcpy(text, s, n);
    text[n] = '\0';
    errno = 0;
    t->i = e == p ? strtoll(text, NULL, 10) : 0;
    t->integral = e == p && errno == 0;
    t->f = strtod(text, NULL);
    t->kind = dim ? TOK_DIM : TOK_NUMBER;
    if (dim && !t->integral) {
        t->kind = TOK_BAD;
        lex_error(l, t->loc, "%s is too large", text);
    }
}

// One escape sequence after the backslash at p - 1; returns the character or -1.
static int lex_escape(Lexer *l) {
    char c = l->p < l->end ? *l->p : '\0';
    if (c == 'x' && l->end - l->p >= 3) {
        int hi = hex_digit(l->p[1]), lo = hex_digit(l->p[2]);
        if (hi < 0 || lo < 0 || hi * 16 + lo == 0) return -1;
        l->p += 3;
        return hi * 16 + lo;
    }
    l->p++;
    return c == 'n' ? '\n' : c == 't' ? '\t' : c == '"' || c == '\\' ? c : -1;
}

static void lex_string(Lexer *l) {
    Token *t = &l->tok;
    Str text = {.arena = l->arena};
    t->kind = TOK_STRING;
    for (l->p++; l->p < l->end && *l->p != '"' && *l->p != '\n';) {
        char c = *l->p;
        int value = (unsigned char)c;
        Loc loc = lex_loc(l, l->p);
        if (c == '\\') {
            l->p++;
            value = lex_escape(l);
        } else {
            l->p++;
        }
        if (value <= 0) {
            t->kind = TOK_BAD;
            lex_error(l, loc, "bad %s in a string (known: \\\" \\\\ \\n \\t \\xHH)",
                      c == '\\' ? "escape" : "character");
            value = '?';
            if (l->p > l->end) l->p = l->end;
        }
        char byte = (char)value;
        str_addn(&text, &byte, 1);
    }
    if (l->p < l->end && *l->p == '"') {
        l->p++;
    } else {
        t->kind = TOK_BAD;
        lex_error(l, t->loc, "the string does not end on its line");
    }
    t->s = str_cstr(&text);
    t->n = text.n;
}

static void lex_name(Lexer *l, TokKind kind) {
    Token *t = &l->tok;
    t->kind = kind;
    t->s = l->p;
    while (l->p < l->end && is_name(*l->p)) l->p++;
    t->n = (size_t)(l->p - t->s);
}

static void lex_punct(Lexer *l) {
    Token *t = &l->tok;
    char c = *l->p++;
    t->punct = c;
    t->kind = TOK_PUNCT;
    if (c == '.' && l->p < l->end && *l->p == '.') {
        l->p++;
        t->kind = TOK_DOTS;
    } else if (c == '\0' || !strchr("={}[](),:@/+", c)) {
        t->kind = TOK_BAD;
        if (c > 32 && c < 127)
            lex_error(l, t->loc, "unexpected character '%c'", c);
        else
            lex_error(l, t->loc, "unexpected byte 0x%02x", (unsigned char)c);
    }
}

void lex_next(Lexer *l) {
    skip_blank(l);
    l->tok = (Token){.kind = TOK_END, .first = l->fresh, .loc = lex_loc(l, l->p)};
    l->fresh = false;
    if (l->p >= l->end) return;
    char c = *l->p, next = l->p + 1 < l->end ? l->p[1] : '\0';
    if (is_digit(c) || (c == '-' && is_digit(next))) {
        lex_number(l);
    } else if (c == '"') {
        lex_string(l);
    } else if (c == '%' && is_name(next)) {
        l->p++;
        lex_name(l, TOK_VALUE);
    } else if (is_alpha(c) || (c == '-' && is_alpha(next))) {
        lex_name(l, TOK_NAME);
    } else {
        lex_punct(l);
    }
}

void lex_start(Lexer *l, Arena *a, Diag *d, const char *file, const char *text, size_t n) {
    *l = (Lexer){.arena = a,
                 .diag = d,
                 .file = file,
                 .p = text,
                 .end = text + n,
                 .line_start = text,
                 .line = 1,
                 .fresh = true};
    lex_next(l);
}

bool lex_is(const Lexer *l, char punct) {
    return l->tok.kind == TOK_PUNCT && l->tok.punct == punct;
}

bool lex_is_word(const Lexer *l, const char *word) {
    return l->tok.kind == TOK_NAME && l->tok.n == strlen(word) &&
           memcmp(l->tok.s, word, l->tok.n) == 0;
}

bool lex_accept(Lexer *l, char punct) {
    if (!lex_is(l, punct)) return false;
    lex_next(l);
    return true;
}

bool lex_accept_word(Lexer *l, const char *word) {
    if (!lex_is_word(l, word)) return false;
    lex_next(l);
    return true;
}

const char *token_text(Arena *a, const Token *t) {
    int n = t->n < SHOWN_TEXT ? (int)t->n : SHOWN_TEXT;
    const char *more = t->n > SHOWN_TEXT ? "..." : "";
    switch (t->kind) {
    case TOK_END: return "the end of the file";
    case TOK_NAME: return arena_printf(a, "\"%.*s%s\"", n, t->s, more);
    case TOK_VALUE: return arena_printf(a, "%%%.*s%s", n, t->s, more);
    case TOK_STRING: return arena_printf(a, "the string \"%.*s%s\"", n, t->s, more);
    case TOK_NUMBER: return arena_printf(a, "%.9g", t->f);
    case TOK_DIM: return arena_printf(a, "%lldB", (long long)t->i);
    case TOK_DOTS: return "'..'";
    case TOK_BAD: return "something unreadable";
    case TOK_PUNCT: break;
    }
    return arena_printf(a, "'%c'", t->punct);
}

void lex_expected(Lexer *l, const char *what) {
    if (l->tok.kind == TOK_BAD) return;
    lex_error(l, l->tok.loc, "expected %s, found %s", what, token_text(l->arena, &l->tok));
}

bool lex_expect(Lexer *l, char punct, const char *what) {
    if (lex_accept(l, punct)) return true;
    lex_expected(l, arena_printf(l->arena, "'%c' %s", punct, what));
    return false;
}

void lex_skip_line(Lexer *l) {
    int depth = 0;
    for (; l->tok.kind != TOK_END; lex_next(l)) {
        bool close = lex_is(l, '}');
        if (depth == 0 && l->tok.first) return;
        if (lex_is(l, '{')) depth++;
        if (close && depth > 0) depth--;
    }
}
