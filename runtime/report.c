// Drawing and quoting; nothing here knows of models. The progress bar is one line, redrawn in
// place, and only on terminals, so that logs and pipes stay clean.
#include "report.h"
#include "cnxrt_clock.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void progress_start(Progress *p, int64_t total, bool quiet) {
    *p = (Progress){.shown = !quiet && total > 1 && isatty(STDERR_FILENO), .total = total};
    p->start = p->last = cnxrt_seconds();
}

void progress_update(Progress *p, int64_t done) {
    double now = cnxrt_seconds();
    if (!p->shown || (now - p->last < 0.1 && done < p->total)) return;
    p->last = now;
    double rate = (double)done / (now - p->start + 1e-9);
    int eta = rate > 0 ? (int)((double)(p->total - done) / rate + 0.5) : 0;
    enum { BAR = 30 };
    char bar[BAR + 1];
    int filled = (int)(done * BAR / p->total);
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '-', (size_t)(BAR - filled));
    bar[BAR] = 0;
    fprintf(stderr, "\r[%s] %lld/%lld  %.1f images/s  ETA %d:%02d:%02d \033[K", bar,
            (long long)done, (long long)p->total, rate, eta / 3600, eta / 60 % 60, eta % 60);
    fflush(stderr);
}

void progress_clear(Progress *p) {
    if (!p->shown) return;
    fprintf(stderr, "\r\033[K");
    fflush(stderr);
}

bool table_row(Table *t, const char *fmt, ...) {
    if (t->rows == t->room) {
        int64_t room = t->room ? 2 * t->room : 64;
        char **cells = realloc(t->cells, (size_t)room * sizeof *cells);
        if (!cells) return false;
        t->cells = cells;
        t->room = room;
    }
    va_list ap;
    va_start(ap, fmt);
    char *row = NULL;
    int n = vasprintf(&row, fmt, ap);
    va_end(ap);
    if (n < 0) return false;
    t->cells[t->rows++] = row;
    return true;
}

// The next cell of a row: its length, and *row behind it.
static int cell_next(const char **row, const char **cell) {
    *cell = *row;
    int n = (int)strcspn(*row, "\t");
    *row += n + ((*row)[n] == '\t');
    return n;
}

void table_print(const Table *t, FILE *out) {
    int columns = (int)strlen(t->right), width[TABLE_COLUMNS] = {0};
    const char *cell;
    for (int64_t r = 0; r < t->rows; r++) {
        const char *row = t->cells[r];
        for (int c = 0; c < columns; c++) {
            int n = cell_next(&row, &cell);
            if (n > width[c]) width[c] = n;
        }
    }
    for (int64_t r = 0; r < t->rows; r++) {
        const char *row = t->cells[r];
        for (int c = 0; c < columns; c++) {
            int n = cell_next(&row, &cell);
            int pad = width[c] - n, right = t->right[c] == 'r';
            fprintf(out, "%s%*s%.*s%*s", c ? "  " : "", right ? pad : 0, "", n, cell,
                    right || c == columns - 1 ? 0 : pad, "");
        }
        fputc('\n', out);
    }
}

void table_free(Table *t) {
    for (int64_t r = 0; r < t->rows; r++) free(t->cells[r]);
    free(t->cells);
    *t = (Table){0};
}

// Bytes of the UTF-8 character at p, 0 when there is none.
static int utf8_length(const unsigned char *p) {
    static const unsigned lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (*p < 0x80) return 1;
    int n = *p >= 0xf0 && *p < 0xf8   ? 4
            : *p >= 0xe0 && *p < 0xf0 ? 3
            : *p >= 0xc0 && *p < 0xe0 ? 2
                                      : 0;
    if (!n) return 0;
    unsigned v = *p & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        v = v << 6 | (p[i] & 0x3fu);
    }
    return v < lowest[n] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000) ? 0 : n;
}

json_t *report_json_text(const char *text) {
    char *clean = malloc(3 * strlen(text) + 1), *q = clean;
    if (!clean) return NULL;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int n = utf8_length(p);
        memcpy(q, n ? (const char *)p : "\xef\xbf\xbd", (size_t)(n ? n : 3));
        q += n ? n : 3;
        p += n ? n : 1;
    }
    *q = 0;
    json_t *j = json_string(clean);
    free(clean);
    return j;
}

bool report_json_print(json_t *j, FILE *out, bool one_line) {
    size_t flags = JSON_REAL_PRECISION(8) | (one_line ? 0 : JSON_INDENT(1));
    return json_dumpf(j, out, flags) == 0 && fputc('\n', out) >= 0;
}

void report_csv_text(FILE *out, const char *text) {
    if (!strpbrk(text, "\",\n\r")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

const char *report_count(int64_t v, char buf[32]) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)v), k = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0 && digits[i - 1] != '-') buf[k++] = ',';
        buf[k++] = digits[i];
    }
    buf[k] = 0;
    return buf;
}
