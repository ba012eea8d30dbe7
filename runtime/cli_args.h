// Parsing of the command line, table-driven (cli_options.def, cli_commands.def).
#ifndef CLI_ARGS_H
#define CLI_ARGS_H
#include "cli.h"
#include <stdbool.h>
#include <stdio.h>

#define CLI_KIND_TEXT(field) const char *field;
#define CLI_KIND_COUNT(field) int64_t field;
#define CLI_KIND_REAL(field) double field;
#define CLI_KIND_FLAG(field) int field;
#define OPTION(field, name, kind, value, min, max, commands, help) CLI_KIND_##kind(field)
// NULL, 0, NAN (REAL) where not given.
typedef struct {
#include "cli_options.def"
    char **operands; // in argv
    int noperands;
} CliArgs;
#undef OPTION

typedef struct {
    char letter;
    const char *name, *operands, *summary, *description;
} CliCommand;

// The command of that name; NULL when unknown.
const CliCommand *cli_command_find(const char *name);
// The command or option name nearest to a misspelt one, or NULL.
const char *cli_command_nearest(const char *name);
// Parses what follows the command (argv is permuted: operands come first). On error prints a
// message with a hint to stderr and returns false.
bool cli_args_parse(CliArgs *a, const char *self, const CliCommand *c, int argc, char **argv);

void cli_help(FILE *out, const char *self, const CnxrtModel *m);
void cli_command_help(FILE *out, const char *self, const CliCommand *c);

#endif
