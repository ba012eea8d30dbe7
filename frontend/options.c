// Table-driven command lines.
#include "options.h"
#include <errno.h>
#include <stdlib.h>

static int option_find(const Command *c, const char *name, size_t n) {
    for (int i = 0; i < c->noptions; i++)
        if (strlen(c->options[i].name) == n && memcmp(c->options[i].name, name, n) == 0) return i;
    return -1;
}

static int option_letter(const Command *c, char letter) {
    for (int i = 0; i < c->noptions; i++)
        if (letter && c->options[i].letter == letter) return i;
    return -1;
}

static void option_add(Options *o, int option, const char *value) {
    if (o->nset == o->cap) o->set = vec_grow_(o->arena, o->set, &o->cap, sizeof *o->set);
    o->set[o->nset].option = option;
    o->set[o->nset++].value = value;
}

static bool unknown(const Options *o, const char *arg, FILE *err) {
    const Command *c = o->command;
    const char **names = NEWN(o->arena, const char *, c->noptions + 2);
    int n = 0;
    names[n++] = "help";
    for (int i = 0; i < c->noptions; i++) names[n++] = c->options[i].name;
    size_t len = strcspn(arg, "=");
    fprintf(err, "cnxc %s: error: unknown option '%.*s'\n", c->name, (int)len, arg);
    const char *bare = arena_strndup(o->arena, arg + strspn(arg, "-"), len - strspn(arg, "-"));
    const char *near = nearest_name(bare, names, n);
    if (near) fprintf(err, "    hint: did you mean '--%s'?\n", near);
    fprintf(err, "    hint: 'cnxc %s --help' lists all\n", c->name);
    return false;
}

// Takes one flag at argv[i]; returns how many words it used, 0 after an error.
static int parse_flag(Options *o, int i, int n, char *const *argv, FILE *err) {
    const char *arg = argv[i], *value = NULL;
    int option;
    if (arg[1] == '-') {
        size_t len = strcspn(arg + 2, "=");
        option = option_find(o->command, arg + 2, len);
        if (arg[2 + len] == '=') value = arg + 2 + len + 1;
    } else {
        option = option_letter(o->command, arg[1]);
        if (arg[2]) value = arg + 2;
    }
    if (option < 0) return unknown(o, arg, err), 0;
    const Option *opt = &o->command->options[option];
    if (!opt->value && value) {
        fprintf(err, "cnxc %s: error: --%s takes no value, not '%s'\n", o->command->name, opt->name,
                value);
        return 0;
    }
    bool next = opt->value && !value;
    if (next && i + 1 >= n) {
        fprintf(err, "cnxc %s: error: --%s needs a value: %s\n", o->command->name, opt->name,
                opt->value);
        return 0;
    }
    option_add(o, option, next ? argv[i + 1] : value);
    return next ? 2 : 1;
}

bool options_parse(Options *o, Arena *a, const Command *c, int n, char *const *argv, FILE *err) {
    *o = (Options){.command = c, .arena = a};
    bool flags = true;
    for (int i = 0; i < n;) {
        const char *arg = argv[i];
        if (flags && strcmp(arg, "--") == 0) {
            flags = false;
            i++;
        } else if (flags && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            o->help = true;
            return true;
        } else if (flags && arg[0] == '-' && arg[1]) {
            int used = parse_flag(o, i, n, argv, err);
            if (!used) return false;
            i += used;
        } else {
            vec_push(a, &o->args, arg);
            i++;
        }
    }
    return true;
}

bool options_has(const Options *o, const char *name) {
    int n;
    options_all(o, name, &n);
    return n > 0;
}

const char **options_all(const Options *o, const char *name, int *n) {
    int option = option_find(o->command, name, strlen(name));
    const char **out = NEWN(o->arena, const char *, o->nset + 1);
    *n = 0;
    for (int i = 0; i < o->nset; i++)
        if (o->set[i].option == option) out[(*n)++] = o->set[i].value;
    return out;
}

const char *options_get(const Options *o, const char *name, const char *fallback) {
    int n;
    const char **all = options_all(o, name, &n);
    return n ? all[n - 1] : fallback;
}

bool options_int(const Options *o, const char *name, int64_t lo, int64_t hi, int64_t *out,
                 FILE *err) {
    const char *text = options_get(o, name, NULL);
    if (!text) return true;
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (!errno && end != text && !*end && v >= lo && v <= hi) return *out = v, true;
    fprintf(err, "cnxc %s: error: --%s is '%s'; it must be a whole number from %lld to %lld\n",
            o->command->name, name, text, (long long)lo, (long long)hi);
    return false;
}

// ---- help --------------------------------------------------------------------------------------

enum { DOC_COLUMN = 26 };

static void option_help(const Option *opt, FILE *out) {
    int n = fprintf(out, "  ");
    if (opt->letter) n += fprintf(out, "-%c, ", opt->letter);
    n += fprintf(out, "--%s", opt->name);
    if (opt->value) n += fprintf(out, "=%s", opt->value);
    if (n >= DOC_COLUMN) {
        fputc('\n', out);
        n = 0;
    }
    for (const char *p = opt->doc; *p;) {
        size_t len = strcspn(p, "\n");
        fprintf(out, "%*s%.*s\n", DOC_COLUMN - n, "", (int)len, p);
        n = 0;
        p += len + (p[len] == '\n');
    }
}

void command_help(const Command *c, FILE *out) {
    fprintf(out, "cnxc %s - %s\n\nUsage: cnxc %s%s%s\n", c->name, c->summary, c->name,
            c->usage[0] ? " " : "", c->usage);
    if (c->help) fprintf(out, "\n%s\n", c->help);
    fprintf(out, "\nOptions:\n");
    for (int i = 0; i < c->noptions; i++) option_help(&c->options[i], out);
    option_help(&(Option){"help", 'h', NULL, "this text"}, out);
    if (c->trailer) fprintf(out, "\n%s\n", c->trailer);
    fprintf(out, "\nExit status: 0 done, 1 the input is at fault (every error names its place), "
                 "2 wrong usage.\n");
}
