// What the subcommands share: finding specs, targets, pipeline flags, files.
#include "cmd.h"
#include "../codegen/codegen.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static bool usage_error(const Options *o, const char *what) {
    const Command *c = o->command;
    fprintf(stderr, "cnxc %s: error: %s\n    hint: usage: cnxc %s %s\n", c->name, what, c->name,
            c->usage);
    return false;
}

bool cmd_wants(const Options *o, int n) {
    return o->args.n >= n || usage_error(o, "an argument is missing");
}

int cmd_begin(Options *o, Arena *a, const Command *c, int argc, char *const *argv, int lo, int hi) {
    if (!options_parse(o, a, c, argc, argv, stderr)) return EXIT_USAGE;
    if (o->help) {
        command_help(c, stdout);
        return EXIT_DONE;
    }
    if (!cmd_wants(o, lo)) return EXIT_USAGE;
    return o->args.n > hi && !usage_error(o, "too many arguments") ? EXIT_USAGE : -1;
}

const char *cmd_near(Arena *a, const char *relative) {
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return relative;
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    return arena_printf(a, "%.*s/%s", (int)(slash - exe), exe, relative);
}

YamlDirs cmd_model_dirs(Arena *a) {
    const char **dirs = NEWN(a, const char *, 3);
    dirs[0] = cmd_near(a, CNX_NEAR_DATADIR "/models");
    dirs[1] = CNX_MODELS_DIR;
    dirs[2] = CNX_DATADIR "/models";
    return (YamlDirs){dirs, 3};
}

ModelSpec *cmd_spec(const Options *o, Diag *d) {
    int n;
    const char **sets = options_all(o, "set", &n);
    return spec_load(o->arena, d, o->args.v[0], cmd_model_dirs(o->arena), sets, n,
                     options_get(o, "programs", NULL));
}

// Where a name stands in the table, -1 when it does not.
static int target_row(const char *name) {
    for (int i = 0; i < target_count; i++)
        if (strcmp(target_table[i].name, name) == 0) return i;
    return -1;
}

static const Target *target_named(const Options *o, const char *name) {
    if (strcmp(name, "native") == 0) {
        const Target *t = codegen_native_target(o->arena);
        if (!t)
            fprintf(stderr, "cnxc %s: error: no row of 'cnxc targets' describes this CPU\n",
                    o->command->name);
        return t;
    }
    const Target *t = target_find(name);
    if (t) return t;
    const char **names = NEWN(o->arena, const char *, target_count + 1);
    for (int i = 0; i < target_count; i++) names[i] = target_table[i].name;
    fprintf(stderr, "cnxc %s: error: unknown target '%s'\n", o->command->name, name);
    const char *near = nearest_name(name, names, target_count);
    if (near) fprintf(stderr, "    hint: did you mean '%s'?\n", near);
    fprintf(stderr, "    hint: 'cnxc targets' lists them\n");
    return NULL;
}

const Target *cmd_target(const Options *o) {
    const char *name = options_get(o, "target", "native");
    if (!strchr(name, ',')) return target_named(o, name);
    fprintf(stderr, "cnxc %s: error: --target=%s: one target at a time is printed\n",
            o->command->name, name);
    return NULL;
}

// Whether t may stand in a list behind others; says why not.
static bool target_joins(const Options *o, const Target **list, int n, const Target *t) {
    size_t arch = strcspn(t->triple, "-");
    for (int i = 0; i < n; i++) {
        bool same = strcmp(list[i]->name, t->name) == 0;
        if (!same && strncmp(list[i]->triple, t->triple, arch + 1) == 0) continue;
        fprintf(stderr, "cnxc %s: error: --target: %s ", o->command->name, t->name);
        if (same)
            fprintf(stderr, "is named twice\n");
        else
            fprintf(stderr,
                    "is of another architecture than %s\n"
                    "    hint: one file holds code of one architecture; build one for each\n",
                    list[i]->name);
        return false;
    }
    return true;
}

const Target **cmd_target_list(const Options *o, bool single, int *n) {
    if (single) {
        const Target *one = cmd_target(o), **list = NEWN(o->arena, const Target *, 1);
        list[0] = one;
        *n = 1;
        return one ? list : NULL;
    }
    char *text = arena_strdup(o->arena, options_get(o, "target", "native"));
    const Target **list = NEWN(o->arena, const Target *, strlen(text) + 1);
    *n = 0;
    for (char *name; (name = strsep(&text, ","));) {
        const Target *t = target_named(o, name);
        if (!t || !target_joins(o, list, *n, t)) return NULL;
        int at = (*n)++;
        for (; at > 0 && target_row(list[at - 1]->name) > target_row(t->name); at--)
            list[at] = list[at - 1];
        list[at] = t;
    }
    return list;
}

static bool sparse_option(const Options *o, Sparse *out) {
    const char *text = options_get(o, "sparse", "packed");
    *out = strcmp(text, "dense") == 0 ? SPARSE_DENSE : SPARSE_PACKED;
    if (*out == SPARSE_DENSE || strcmp(text, "packed") == 0) return true;
    fprintf(stderr, "cnxc %s: error: --sparse is '%s'; it must be packed or dense\n",
            o->command->name, text);
    return false;
}

static int precision_options(const Options *o, PipelineOptions *out) {
    const char *list = options_get(o, "precision", NULL), *file = options_get(o, "ranges", NULL);
    Diag *d = diag_new(o->arena, stderr);
    PrecisionPlan *plan = NEW(o->arena, PrecisionPlan);
    size_t n;
    out->precision = plan;
    if (list && !precision_parse(plan, o->arena, d, (Loc){0}, "--precision", list))
        return EXIT_USAGE;
    const char *text = file ? cmd_read(o->arena, d, file, &n) : "";
    return text && ranges_parse(plan, o->arena, d, file, text) ? -1 : EXIT_INPUT;
}

int cmd_pipeline_options(const Options *o, PipelineOptions *out) {
    *out = (PipelineOptions){.passes = options_get(o, "passes", NULL),
                             .stop_after = options_get(o, "stop-after", NULL),
                             .dump = options_get(o, "dump", NULL),
                             .stop_level = LEVEL_MEMORY,
                             .unoptimised = options_has(o, "unoptimised"),
                             .time = options_has(o, "time"),
                             .rewrite_limit = -1,
                             .dump_out = stderr};
    bool ok = sparse_option(o, &out->sparse) &&
              options_int(o, "rewrite-limit", 0, INT64_MAX, &out->rewrite_limit, stderr);
    return ok ? precision_options(o, out) : EXIT_USAGE;
}

bool cmd_write(const Options *o, const char *text, size_t n) {
    const char *path = options_get(o, "output", NULL);
    FILE *f = path ? fopen(path, "wb") : stdout;
    bool ok = f && fwrite(text, 1, n, f) == n;
    if (f && (path ? fclose(f) : fflush(f)) != 0) ok = false;
    if (!ok)
        fprintf(stderr, "cnxc %s: error: cannot write '%s': %s\n", o->command->name,
                path ? path : "standard output", strerror(errno));
    return ok;
}

const char *cmd_dtype(const Options *o, const char *option) {
    static const char *const words[] = {"f32", "f16", "bf16"};
    static const char *const names[] = {"F32", "F16", "BF16"};
    const char *text = options_get(o, option, "f32");
    for (int i = 0; i < 3; i++)
        if (strcmp(text, words[i]) == 0) return names[i];
    fprintf(stderr, "cnxc %s: error: --%s is %s; it must be f32, f16 or bf16\n", o->command->name,
            option, text);
    return NULL;
}

char *cmd_read(Arena *a, Diag *d, const char *path, size_t *n) {
    enum { LIMIT = 1 << 30 };
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    if (!f) {
        diag_error(d, (Loc){0}, "cannot open '%s': %s", path, strerror(errno));
        return NULL;
    }
    Str s = {.arena = a};
    char buf[65536];
    size_t got;
    str_add(&s, "");
    while ((got = fread(buf, 1, sizeof buf, f)) > 0 && s.n < LIMIT) str_addn(&s, buf, got);
    const char *why = ferror(f) ? strerror(errno) : s.n >= LIMIT ? "1 GiB or more" : NULL;
    if (f != stdin) fclose(f);
    *n = s.n;
    if (!why) return s.n ? s.s : arena_strdup(a, "");
    diag_error(d, (Loc){0}, "cannot read '%s': %s", path, why);
    return NULL;
}

const char *cmd_thousands(Arena *a, int64_t v) {
    const char *digits = arena_printf(a, "%lld", (long long)v);
    size_t n = strlen(digits), at = 0;
    char *out = arena_alloc(a, n + n / 3 + 2);
    for (size_t i = 0; i < n; i++) {
        out[at++] = digits[i];
        if ((n - 1 - i) % 3 == 0 && i + 1 < n) out[at++] = ',';
    }
    return out;
}
