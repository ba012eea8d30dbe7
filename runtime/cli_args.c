// The options of a command are the rows of cli_options.def whose `commands` hold its letter.
#include "cli_args.h"
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum { TEXT, COUNT, REAL, FLAG } Kind;

typedef struct {
    const char *name;
    Kind kind;
    const char *value;
    int64_t min, max;
    double low, high; // the same for REAL
    const char *commands, *help;
    size_t offset;
} Option;

static const Option options[] = {
#define OPTION(field, name, kind, value, min, max, commands, help)                                 \
    {name,          kind,          value,    (int64_t)(min), (int64_t)(max),                       \
     (double)(min), (double)(max), commands, help,           offsetof(CliArgs, field)},
#include "cli_options.def"
#undef OPTION
};
enum { OPTIONS = sizeof options / sizeof *options };

static const CliCommand commands[] = {
#define COMMAND(letter, name, operands, summary, description)                                      \
    {letter, name, operands, summary, description},
#include "cli_commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof *commands, NAME = 32 };

// Edits (inserted, deleted, changed, swapped letters) between names no longer than NAME.
static int distance(const char *a, const char *b) {
    int d[NAME + 1][NAME + 1], m = (int)strlen(a), n = (int)strlen(b);
    if (m > NAME || n > NAME) return NAME;
    for (int i = 0; i <= m; i++)
        for (int j = 0; j <= n; j++) {
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[m][n];
}

static bool near_enough(int d, const char *name) { return d <= 1 + (int)strlen(name) / 3; }

const CliCommand *cli_command_find(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

const char *cli_command_nearest(const char *name) {
    int best = 0;
    for (int i = 1; i < COMMANDS; i++)
        if (distance(name, commands[i].name) < distance(name, commands[best].name)) best = i;
    return near_enough(distance(name, commands[best].name), name) ? commands[best].name : NULL;
}

static bool option_of(const Option *o, const CliCommand *c) {
    return strchr(o->commands, c->letter) != NULL;
}

static const Option *option_find(const CliCommand *c, const char *name) {
    for (int i = 0; i < OPTIONS; i++)
        if (option_of(&options[i], c) && strcmp(options[i].name, name) == 0) return &options[i];
    return NULL;
}

// Says what is wrong with an unknown option: of another command, or misspelt.
static void option_unknown(const char *self, const CliCommand *c, const char *name) {
    int best = -1;
    fprintf(stderr, "%s %s: unknown option --%s", self, c->name, name);
    for (int i = 0; i < OPTIONS; i++) {
        if (strcmp(options[i].name, name) == 0) {
            fprintf(stderr, " (an option of");
            for (int k = 0; k < COMMANDS; k++)
                if (option_of(&options[i], &commands[k])) fprintf(stderr, " %s", commands[k].name);
            fprintf(stderr, ")\n");
            return;
        }
        if (!option_of(&options[i], c)) continue;
        if (best < 0 || distance(name, options[i].name) < distance(name, options[best].name))
            best = i;
    }
    if (best >= 0 && near_enough(distance(name, options[best].name), name))
        fprintf(stderr, "; did you mean --%s?\n", options[best].name);
    else
        fprintf(stderr, "; see %s %s --help\n", self, c->name);
}

static bool real_set(double *field, const Option *o, const char *value, const char *self,
                     const CliCommand *c) {
    char *end;
    *field = strtod(value, &end);
    if (end != value && !*end && *field >= o->low && *field <= o->high) return true;
    fprintf(stderr, "%s %s: --%s %s: expected a number from %g to %g\n", self, c->name, o->name,
            value, o->low, o->high);
    return false;
}

static bool option_set(CliArgs *a, const Option *o, const char *value, const char *self,
                       const CliCommand *c) {
    char *field = (char *)a + o->offset;
    if (o->kind == FLAG) {
        *(int *)(void *)field = 1;
        return true;
    }
    if (o->kind == TEXT) {
        *(const char **)(void *)field = value;
        return true;
    }
    if (o->kind == REAL) return real_set((double *)(void *)field, o, value, self, c);
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (errno || end == value || *end || v < o->min || v > o->max) {
        if (o->max == INT64_MAX)
            fprintf(stderr, "%s %s: --%s %s: expected a whole number from %lld\n", self, c->name,
                    o->name, value, (long long)o->min);
        else
            fprintf(stderr, "%s %s: --%s %s: expected a whole number from %lld to %lld\n", self,
                    c->name, o->name, value, (long long)o->min, (long long)o->max);
        return false;
    }
    *(int64_t *)(void *)field = v;
    return true;
}

// Takes argv[*i], an option, and its value. *i moves to the last argument taken.
static bool option_parse(CliArgs *a, const char *self, const CliCommand *c, int argc, char **argv,
                         int *i) {
    char name[64];
    const char *text = argv[*i] + 2, *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : strlen(text);
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), text);
    const Option *o = option_find(c, name);
    if (!o) {
        option_unknown(self, c, name);
        return false;
    }
    if (o->kind == FLAG && equals) {
        fprintf(stderr, "%s %s: --%s takes no value\n", self, c->name, o->name);
        return false;
    }
    const char *value = equals ? equals + 1 : NULL;
    if (o->kind != FLAG && !value) {
        if (*i + 1 >= argc) {
            fprintf(stderr, "%s %s: --%s needs a value: --%s %s\n", self, c->name, o->name, o->name,
                    o->value);
            return false;
        }
        value = argv[++*i];
    }
    return option_set(a, o, value, self, c);
}

bool cli_args_parse(CliArgs *a, const char *self, const CliCommand *c, int argc, char **argv) {
    *a = (CliArgs){.operands = argv};
    for (int i = 0; i < OPTIONS; i++)
        if (options[i].kind == REAL) *(double *)(void *)((char *)a + options[i].offset) = NAN;
    bool ended = false;
    for (int i = 0; i < argc; i++) {
        const char *s = argv[i];
        if (ended || s[0] != '-' || s[1] == 0) {
            argv[a->noperands++] = argv[i];
        } else if (strcmp(s, "--") == 0) {
            ended = true;
        } else if (strcmp(s, "-h") == 0) {
            a->help = 1;
        } else if (s[1] != '-') {
            fprintf(stderr, "%s %s: unknown option %s; options have two dashes, see %s %s --help\n",
                    self, c->name, s, self, c->name);
            return false;
        } else if (!option_parse(a, self, c, argc, argv, &i)) {
            return false;
        }
    }
    if (a->noperands && !c->operands[0] && !a->help) {
        fprintf(stderr, "%s %s: unexpected operand %s\n", self, c->name, argv[0]);
        return false;
    }
    return true;
}

static void print_indented(FILE *out, int indent, const char *text) {
    for (; *text; text++) {
        fputc(*text, out);
        if (*text == '\n' && text[1] != '\n') fprintf(out, "%*s", indent, "");
    }
}

void cli_help(FILE *out, const char *self, const CnxrtModel *m) {
    fprintf(out, "NAME\n    %s - %s compiled for %s\n\n", self, m->name, m->target);
    fprintf(out, "SYNOPSIS\n    %s COMMAND [OPTION]... [PICTURE]...\n\nCOMMANDS\n", self);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "    %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n    %s COMMAND --help explains a command.\n\n", self);
    fprintf(out,
            "EXIT STATUS\n    0 success, 1 error, 2 wrong usage, 3 some inputs were skipped\n\n");
    fprintf(out, "EXAMPLES\n    %s infer --weights convnextv2.safetensors cat.jpg pictures/\n",
            self);
    fprintf(out, "    %s bench --batch 1 --threads 1\n", self);
}

static const char *examples(char letter) {
    switch (letter) {
    case 'n': return "info\n    %s info --json\n";
    case 'i':
        return "infer --weights W.safetensors cat.jpg holidays/ archive.tar\n"
               "    %s infer --weights W.pt --top 1 --csv pictures/ > classes.csv\n"
               "    %s infer --weights W.pt --input x.npy --output logits.npy\n";
    case 'f':
        return "features --weights W.pt --stage=2 --output maps.npy cat.jpg\n"
               "    %s features --weights W.pt --stage=3 --input x.npy --output y.npy\n";
    case 'g':
        return "grad --weights W.safetensors --input x.npy --labels y.npy --output g.safetensors\n"
               "    %s grad --weights seed:0 --input x.npy --mask m.npy --output g.safetensors\n";
    case 'r':
        return "reconstruct --weights last.safetensors --output grid.png pictures/\n"
               "    %s reconstruct --weights last.safetensors --output grids --limit 64 "
               "data.tar.gz\n";
    case 'l':
        return "probe --weights last.safetensors --data data.tar.gz\n"
               "    %s probe --weights last.safetensors --data train/ --val test/ --json\n";
    case 'k': return "knn --weights last.safetensors --data data.tar.gz --k 20\n";
    case 'm': return "embed --weights W.pt --output vectors.npy pictures/\n";
    case 'e':
        return "eval --weights W.pt imagenet/\n    %s eval --weights W.pt --split train "
               "data.tar.gz\n";
    case 'p':
        return "pretrain --data pictures/ --out run --epochs 100\n"
               "    %s pretrain --data pictures/ --out run --epochs 100 --resume\n";
    case 'u': return "finetune --data cifar10.tar.gz --init run/last.safetensors --out tuned\n";
    case 't': return "train --data cifar10.tar.gz --out run --epochs 50 --batch 128 --lr 1e-3\n";
    default:
        return "bench --batch 1 --threads 1 --runs 50 --json\n    %s bench --batch 8 --profile\n";
    }
}

// Prints text with every %s as `self`.
static void print_named(FILE *out, const char *text, const char *self) {
    for (const char *p = text; *p; p++) {
        if (p[0] == '%' && p[1] == 's') {
            fputs(self, out);
            p++;
        } else {
            fputc(*p, out);
        }
    }
}

void cli_command_help(FILE *out, const char *self, const CliCommand *c) {
    fprintf(out, "NAME\n    %s %s - %s\n\n", self, c->name, c->summary);
    fprintf(out, "SYNOPSIS\n    %s %s [OPTION]...%s%s\n\nDESCRIPTION\n    ", self, c->name,
            *c->operands ? " " : "", c->operands);
    print_indented(out, 4, c->description);
    fprintf(out, "\n\nOPTIONS\n");
    for (int i = 0; i < OPTIONS; i++) {
        if (!option_of(&options[i], c)) continue;
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", options[i].name, *options[i].value ? " " : "",
                 options[i].value);
        fprintf(out, "    %-26s ", left);
        print_indented(out, 31, options[i].help);
        fputc('\n', out);
    }
    fprintf(out,
            "\nEXIT STATUS\n    0 success, 1 error, 2 wrong usage, 3 some inputs were skipped\n");
    fprintf(out, "\nEXAMPLES\n    %s ", self);
    print_named(out, examples(c->letter), self);
}
