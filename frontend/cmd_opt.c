// cnxc opt: passes over IR text.
#include "cmd.h"
#include "../ir/text.h"

static const Option options[] = {
    {"output", 'o', "FILE", "write there instead of standard output"},
    OPTION_TARGET,
    OPTIONS_PIPELINE,
};
static const Command command = {
    .name = "opt",
    .usage = "FILE.ir --passes=a,b [options]",
    .summary = "run passes over IR text",
    .help = "Reads programs (ir/README.md describes the language; '-' is standard input), checks\n"
            "them, runs the passes named in that order and prints the result. Without --passes\n"
            "the programs are checked and printed as they are. 'cnxc emit' makes such text, and\n"
            "so does the compiler when it finds a bug of its own. The text of a schedule is read\n"
            "too, for the passes after it.",
    .options = options,
    .noptions = sizeof options / sizeof *options,
    .trailer = "Examples:\n"
               "  cnxc emit convnextv2_atto -o atto.ir\n"
               "  cnxc opt atto.ir --passes=simplify,lower-conv --time\n"
               "  cnxc opt atto.ir --passes=fuse-grn-gelu --rewrite-limit=3",
};

static bool verify_module(const Module *m, const char *path, Diag *d) {
    for (int i = 0; i < m->graphs.n; i++) {
        const char *why = graph_verify(m->graphs.v[i]);
        if (why) diag_error(d, (Loc){path, 1, 1}, "program %s: %s", m->graphs.v[i]->name, why);
    }
    return diag_count(d) == 0;
}

// Whether the first word, comments left out, opens a schedule.
static bool is_schedule(const char *text) {
    for (;;) {
        text += strspn(text, " \t\r\n");
        if (*text != ';') return strncmp(text, "schedule", 8) == 0;
        text += strcspn(text, "\n");
    }
}

// Programs or schedules of a text into p. False after errors on d.
static bool read_text(Pipeline *p, const char *path, const char *text, size_t n, Diag *d) {
    const char *file = strcmp(path, "-") ? path : "<stdin>";
    if (!is_schedule(text)) {
        p->module = module_parse(p->arena, d, file, text, n);
        return p->module && verify_module(p->module, file, d);
    }
    int count = 0;
    Schedule **list = schedules_parse(p->arena, d, file, text, n, &count);
    p->module = module_new(p->arena);
    for (int i = 0; list && i < count; i++) {
        const char *why = schedule_verify(list[i]);
        if (why) diag_error(d, (Loc){file, 1, 1}, "schedule %s: %s", list[i]->name, why);
        vec_push(p->arena, &p->schedules, list[i]);
    }
    return list && diag_count(d) == 0;
}

int cmd_opt(Arena *a, int argc, char *const *argv) {
    Options o;
    PipelineOptions opt;
    int status = cmd_begin(&o, a, &command, argc, argv, 1, 1);
    if (status >= 0) {
        if (o.help) {
            printf("\nPasses:\n");
            pipeline_help(stdout);
        }
        return status;
    }
    const Target *target = cmd_target(&o);
    if (!target) return EXIT_USAGE;
    if ((status = cmd_pipeline_options(&o, &opt)) >= 0) return status;
    Diag *d = diag_new(a, stderr);
    size_t n = 0;
    const char *path = o.args.v[0];
    char *text = cmd_read(a, d, path, &n);
    Pipeline p = {.arena = a, .target = target, .rewrite_limit = opt.rewrite_limit};
    if (!text || !read_text(&p, path, text, n, d)) return EXIT_INPUT;
    if (opt.passes && !pipeline_run(&p, &opt, d)) return EXIT_INPUT;
    Str out = {.arena = a};
    pipeline_print(&out, &p);
    return cmd_write(&o, str_cstr(&out), out.n) ? EXIT_DONE : EXIT_INPUT;
}
