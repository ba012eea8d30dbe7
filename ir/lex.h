// Tokens of both text forms, one at a time, each with its place. Comments run from ';' to the end
// of the line. Bad characters and broken strings are reported by the lexer itself and come out as
// TOK_BAD; a Lexer is a plain value, so a copy of it (with quiet set) can look ahead.
#ifndef CNX_IR_LEX_H
#define CNX_IR_LEX_H
#include "diag.h"

typedef enum {
    TOK_END,
    TOK_NAME,   // letter or _, then letters, digits, _ . -
    TOK_VALUE,  // %name; s, n without the %
    TOK_NUMBER, // -12, 3.5, 1e-06
    TOK_DIM,    // 19B: i times the batch
    TOK_STRING, // s, n decoded; NUL-terminated, no NUL inside
    TOK_PUNCT,  // one of = { } [ ] ( ) , : @ / +
    TOK_DOTS,   // ..
    TOK_BAD,    // already reported
} TokKind;

typedef struct {
    TokKind kind;
    char punct;
    bool first;    // first token on its line
    bool integral; // NUMBER: i holds it exactly
    const char *s; // NAME, VALUE, STRING
    size_t n;
    int64_t i; // NUMBER (when integral), DIM
    double f;  // NUMBER
    Loc loc;
} Token;

typedef struct {
    Arena *arena;
    Diag *diag;
    const char *file, *p, *end, *line_start;
    int line;
    bool fresh; // no token on this line yet
    bool quiet; // report nothing
    Token tok;  // the current token
} Lexer;

// Starts at the first token. text need not be NUL-terminated; names point into it.
void lex_start(Lexer *l, Arena *a, Diag *d, const char *file, const char *text, size_t n);
void lex_next(Lexer *l);

bool lex_is(const Lexer *l, char punct);
bool lex_is_word(const Lexer *l, const char *word);
bool lex_accept(Lexer *l, char punct); // takes it when it is there
bool lex_accept_word(Lexer *l, const char *word);
// Takes the punctuation or reports that `what` wanted it; a TOK_BAD is not reported twice.
bool lex_expect(Lexer *l, char punct, const char *what);
// "expected <what>, found <token>" at the current token.
void lex_expected(Lexer *l, const char *what);
void lex_error(Lexer *l, Loc loc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void lex_hint_name(Lexer *l, const char *s, size_t n, const char *const *names, int count);
const char *token_text(Arena *a, const Token *t); // for messages, shortened

// Error recovery: skips to the first token of a later line, over any braces opened on the way, or
// to the '}' that ends the enclosing block (only one that opens a line counts).
void lex_skip_line(Lexer *l);

#endif
