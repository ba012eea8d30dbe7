// What commands print: a progress bar on stderr, aligned tables, names of classes, JSON text.
#ifndef REPORT_H
#define REPORT_H
#include "json.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
    bool shown; // stderr is a terminal
    int64_t total;
    double start, last;
} Progress;
void progress_start(Progress *p, int64_t total, bool quiet);
void progress_update(Progress *p, int64_t done); // draws at most ten times a second
void progress_clear(Progress *p);                // before anything else is printed, and at the end

// Rows of text cells, printed with columns as wide as they need.
enum { TABLE_COLUMNS = 8 };
typedef struct {
    const char *right; // a character a column: 'r' is aligned right, 'l' left
    char **cells;
    int64_t rows, room;
} Table;
// Adds a row: one printf format and its arguments, cells separated by tabs. False: no memory.
bool table_row(Table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(const Table *t, FILE *out);
void table_free(Table *t);

// Text as a JSON string, with bytes that are no UTF-8 replaced by U+FFFD.
json_t *report_json_text(const char *text);
// Prints j and a newline, on one line or indented. False when it cannot be written.
bool report_json_print(json_t *j, FILE *out, bool one_line);
// A CSV field, quoted when needed.
void report_csv_text(FILE *out, const char *text);
// 12345678 -> "12,345,678".
const char *report_count(int64_t v, char buf[32]);

#endif
