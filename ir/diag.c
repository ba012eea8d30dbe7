// User errors with a caret under the source line, name hints, and the internal-error exit.
//
// A Diag prints as errors come in and counts them all; only the first MAX_SHOWN are printed. The
// source line is shown through a window round the caret, tabs widened and control bytes replaced,
// so that hostile text can neither flood nor disturb a terminal.
#include "diag.h"
#include <stdlib.h>

enum { MAX_SHOWN = 20, WINDOW = 96, MAX_NAME = 64 };

typedef struct {
    const char *file, *text;
    size_t n;
} Source;

struct Diag {
    Arena *arena;
    FILE *out;
    VEC(Source) sources;
    int count;
};

_Thread_local IceContext ice_context;

Diag *diag_new(Arena *a, FILE *out) {
    Diag *d = NEW(a, Diag);
    d->arena = a;
    d->out = out;
    return d;
}

void diag_source(Diag *d, const char *file, const char *text, size_t n) {
    vec_push(d->arena, &d->sources, ((Source){file, text, n}));
}

int diag_count(const Diag *d) { return d->count; }

static bool diag_muted(const Diag *d) { return !d->out || d->count > MAX_SHOWN; }

// The latest registered text of that file name, so that a name may be used again.
static const Source *diag_find_source(const Diag *d, const char *file) {
    for (int i = d->sources.n - 1; i >= 0; i--)
        if (strcmp(d->sources.v[i].file, file) == 0) return &d->sources.v[i];
    return NULL;
}

// Line number `line` (from 1) of the text, without its end; false when there is none.
static bool source_line(const Source *s, int line, const char **begin, size_t *len) {
    const char *p = s->text, *end = s->text + s->n;
    for (int i = 1; i < line; i++) {
        p = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (!p) return false;
        p++;
    }
    const char *e = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    if (!e) e = end;
    if (e > p && e[-1] == '\r') e--;
    *begin = p;
    *len = (size_t)(e - p);
    return true;
}

static bool byte_continues(char c) { return ((unsigned char)c & 0xc0) == 0x80; } // inside UTF-8

static void print_caret_line(FILE *out, const char *s, size_t len, size_t caret) {
    if (caret > len) caret = len;
    size_t from = caret > WINDOW * 2 / 3 ? caret - WINDOW * 2 / 3 : 0;
    while (from > 0 && byte_continues(s[from])) from--;
    size_t to = from + WINDOW < len ? from + WINDOW : len;
    while (to < len && byte_continues(s[to])) to++;
    int pad = 4;
    fprintf(out, "    ");
    if (from > 0) pad += fprintf(out, "...");
    for (size_t i = from; i < to; i++) {
        char c = s[i];
        fputc(c == '\t' ? ' ' : ((unsigned char)c < 32 || c == 127) ? '?' : c, out);
        if (i < caret && !byte_continues(c)) pad++;
    }
    fprintf(out, "%s\n%*s^\n", to < len ? "..." : "", pad, "");
}

void diag_error(Diag *d, Loc loc, const char *fmt, ...) {
    d->count++;
    if (d->out && d->count == MAX_SHOWN + 1)
        fprintf(d->out, "more errors follow; the first %d are shown\n", MAX_SHOWN);
    if (diag_muted(d)) return;
    if (loc.file && loc.line > 0)
        fprintf(d->out, "%s:%d:%d: error: ", loc.file, loc.line, loc.col > 0 ? loc.col : 1);
    else
        fprintf(d->out, "%s: error: ", loc.file ? loc.file : "cnxc");
    va_list ap;
    va_start(ap, fmt);
    vfprintf(d->out, fmt, ap);
    va_end(ap);
    fputc('\n', d->out);
    const Source *s = loc.file && loc.line > 0 ? diag_find_source(d, loc.file) : NULL;
    const char *line;
    size_t len;
    if (s && source_line(s, loc.line, &line, &len))
        print_caret_line(d->out, line, len, loc.col > 0 ? (size_t)loc.col - 1 : 0);
}

void diag_hint(Diag *d, const char *fmt, ...) {
    if (diag_muted(d)) return;
    fprintf(d->out, "    hint: ");
    va_list ap;
    va_start(ap, fmt);
    vfprintf(d->out, fmt, ap);
    va_end(ap);
    fputc('\n', d->out);
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

static int min3(int x, int y, int z) { return x < y ? (x < z ? x : z) : (y < z ? y : z); }

// Edit distance with neighbour swaps (optimal string alignment), case ignored. Lengths <= MAX_NAME.
static int edit_distance(const char *s, int ns, const char *t, int nt) {
    int row[3][MAX_NAME + 1];
    for (int j = 0; j <= nt; j++) row[0][j] = j;
    for (int i = 1; i <= ns; i++) {
        int *cur = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        cur[0] = i;
        for (int j = 1; j <= nt; j++) {
            bool same = lower(s[i - 1]) == lower(t[j - 1]);
            cur[j] = min3(up[j] + 1, cur[j - 1] + 1, up[j - 1] + !same);
            if (i > 1 && j > 1 && lower(s[i - 1]) == lower(t[j - 2]) &&
                lower(s[i - 2]) == lower(t[j - 1]) && up2[j - 2] + 1 < cur[j])
                cur[j] = up2[j - 2] + 1;
        }
    }
    return row[ns % 3][nt];
}

const char *nearest_name(const char *s, const char *const *names, int n) {
    size_t ns = strlen(s);
    if (ns == 0 || ns > MAX_NAME) return NULL;
    const char *best = NULL;
    int best_distance = 0;
    for (int i = 0; i < n; i++) {
        size_t nt = strlen(names[i]);
        if (nt == 0 || nt > MAX_NAME) continue;
        int d = edit_distance(s, (int)ns, names[i], (int)nt);
        int limit = (int)(ns > nt ? ns : nt) / 3;
        if (d > (limit > 1 ? limit : 1) || d >= (int)nt) continue;
        if (!best || d < best_distance) best = names[i], best_distance = d;
    }
    return best;
}

_Noreturn void ice(Loc loc, const char *fmt, ...) {
    fflush(stdout);
    fprintf(stderr, "cnxc: internal error: ");
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    if (ice_context.pass) fprintf(stderr, "    in pass %s\n", ice_context.pass);
    if (ice_context.program) fprintf(stderr, "    in program %s\n", ice_context.program);
    if (loc.file) fprintf(stderr, "    for %s:%d:%d\n", loc.file, loc.line, loc.col);
    void (*on_ice)(void *) = ice_context.on_ice;
    ice_context.on_ice = NULL; // an ice inside the handler must not come back here
    if (on_ice) on_ice(ice_context.user);
    abort();
}
