// cnxc emit: prints a spec at any stage, and the memory map as text and picture.
#include "cmd.h"
#include "memory_map.h"
#include "../codegen/codegen.h"
#include "cmd_compile.h"
#include "../ir/text.h"

static const Option options[] = {
    {"stage", 0, "STAGE",
     "graph     the network as built from the spec\n"
     "fused     after the graph passes: groups, prepare split off\n"
     "schedule  kernel calls on row ranges of buffers\n"
     "memory    the same with offsets, below a map of them\n"
     "llvm      LLVM IR\n"
     "asm       assembly\n"
     "(default: graph)"},
    {"program", 'p', "NAME",
     "only this program: infer, features; train, pretrain, reconstruct,\n"
     "update, update.ema; prepare (of the model --programs names)"},
    {"output", 'o', "FILE", "write there instead of standard output"},
    {"svg", 0, "FILE", "with --stage=memory: a picture of offsets over time"},
    OPTION_TARGET,
    OPTION_SET,
    OPTION_PROGRAMS,
    OPTIONS_PIPELINE,
};
static const Command command = {
    .name = "emit",
    .usage = "SPEC --stage=graph|fused|schedule|memory|llvm|asm [options]",
    .summary = "print a spec at any stage of compilation",
    .help = "SPEC is a file or the name of a model, as for 'cnxc check'. The text of the stages\n"
            "graph and fused can be given to 'cnxc opt' and 'cnxc eval', that of schedule to\n"
            "'cnxc opt'.",
    .options = options,
    .noptions = sizeof options / sizeof *options,
    .trailer = "Examples:\n"
               "  cnxc emit convnextv2_atto --stage=fused --program infer\n"
               "  cnxc emit convnextv2_tiny --stage=memory --svg memory.svg -o memory.txt\n"
               "  cnxc emit convnextv2_atto --stage=schedule --target=x86-64-v3",
};

enum { STAGE_GRAPH, STAGE_FUSED, STAGE_SCHEDULE, STAGE_MEMORY, STAGE_LLVM, STAGE_ASM, STAGES };
static const char *const stage_names[] = {"graph", "fused", "schedule", "memory", "llvm", "asm"};

static int usage_error(const char *fmt, const char *what, const char *hint) {
    fprintf(stderr, "cnxc emit: error: ");
    fprintf(stderr, fmt, what);
    if (hint) fprintf(stderr, "\n    hint: did you mean '%s'?", hint);
    fputc('\n', stderr);
    return EXIT_USAGE;
}

static int find_stage(const char *name) {
    for (int i = 0; i < STAGES; i++)
        if (strcmp(stage_names[i], name) == 0) return i;
    return -1;
}

// Only the program asked for. False after an error.
static bool keep_program(Pipeline *p, const char *name, Diag *d) {
    if (!name) return true;
    Module *m = module_new(p->arena);
    Graph *g = module_find(p->module, name);
    if (g) vec_push(p->arena, &m->graphs, g);
    int n = 0;
    for (int i = 0; i < p->schedules.n; i++)
        if (strcmp(p->schedules.v[i]->name, name) == 0) p->schedules.v[n++] = p->schedules.v[i];
    if (!g && !n) {
        diag_error(d, (Loc){0}, "no program '%s' at this stage", name);
        diag_hint(d, "a spec has infer, features; with --programs=train train, update, update.ema; "
                     "with --programs=pretrain pretrain, reconstruct, update, update.ema; and each "
                     "prepare once passes have run");
        return false;
    }
    p->module = m;
    p->schedules.n = n;
    return true;
}

static bool write_svg(Pipeline *p, const char *path, Diag *d) {
    Str svg = {.arena = p->arena};
    memory_svg(&svg, p->schedules.v, p->schedules.n);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(svg.s, 1, svg.n, f) == svg.n;
    if (f && fclose(f)) ok = false;
    if (!ok) diag_error(d, (Loc){0}, "cannot write '%s'", path);
    return ok;
}

static bool print_stage(Str *out, CompiledModel *c, int stage, const char *svg, Diag *d) {
    Pipeline *p = &c->pipeline;
    c->model.schedules = p->schedules.v;
    c->model.nschedules = p->schedules.n;
    if (stage >= STAGE_LLVM)
        return codegen_text(p->arena, &c->model, stage == STAGE_LLVM ? EMIT_LLVM : EMIT_ASM, out,
                            d);
    if (stage == STAGE_MEMORY)
        for (int i = 0; i < p->schedules.n; i++) memory_map(out, p->schedules.v[i]);
    if (stage == STAGE_MEMORY && svg && !write_svg(p, svg, d)) return false;
    if (stage == STAGE_GRAPH)
        module_print(out, p->module);
    else
        pipeline_print(out, p);
    return true;
}

// The model that has the program: of the one --programs names, else the first.
static int find_model(const ModelSpec *spec, const char *program) {
    if (spec->asked == PROGRAM_TRAIN) return MODEL_TRAIN;
    if (spec->asked == PROGRAM_PRETRAIN) return MODEL_PRETRAIN;
    if (!program) return MODEL_INFER;
    bool update = strncmp(program, "update", 6) == 0;
    if (strcmp(program, "train") == 0 || (update && (spec->programs & PROGRAM_TRAIN)))
        return MODEL_TRAIN;
    return update || strcmp(program, "pretrain") == 0 || strcmp(program, "reconstruct") == 0
               ? MODEL_PRETRAIN
               : MODEL_INFER;
}

// That model, when the spec supports it.
static bool compile_one(CompiledModel *c, const ModelSpec *spec, const char *program,
                        const Target *target, const PipelineOptions *opt, Diag *d) {
    int which = find_model(spec, program);
    if (which != MODEL_INFER && !(spec->programs >> which & 1)) {
        diag_error(d, (Loc){0}, "the spec does not support program %s", program);
        for (int i = 0; i < spec->notes.n; i++) diag_hint(d, "%s", spec->notes.v[i]);
        return false;
    }
    return compile_model(c, which, spec, target, opt, d) && keep_program(&c->pipeline, program, d);
}

int cmd_emit(Arena *a, int argc, char *const *argv) {
    static const Level levels[] = {LEVEL_GRAPH,  LEVEL_FUSED,  LEVEL_SCHEDULE,
                                   LEVEL_MEMORY, LEVEL_MEMORY, LEVEL_MEMORY};
    Options o;
    PipelineOptions opt;
    int status = cmd_begin(&o, a, &command, argc, argv, 1, 1);
    if (status >= 0) return status;
    const char *name = options_get(&o, "stage", "graph"), *svg = options_get(&o, "svg", NULL);
    int stage = find_stage(name);
    if (stage < 0)
        return usage_error("unknown stage '%s'", name, nearest_name(name, stage_names, STAGES));
    if (svg && stage != STAGE_MEMORY)
        return usage_error("--svg needs --stage=memory, not %s", name, NULL);
    const Target *target = cmd_target(&o);
    if (!target) return EXIT_USAGE;
    if ((status = cmd_pipeline_options(&o, &opt)) >= 0) return status;
    opt.stop_level = levels[stage];
    Diag *d = diag_new(a, stderr);
    CompiledModel c;
    bool run = stage != STAGE_GRAPH || opt.passes;
    ModelSpec *spec = cmd_spec(&o, d);
    if (!spec ||
        !compile_one(&c, spec, options_get(&o, "program", NULL), target, run ? &opt : NULL, d))
        return EXIT_INPUT;
    Str out = {.arena = a};
    if (!print_stage(&out, &c, stage, svg, d)) return EXIT_INPUT;
    return cmd_write(&o, str_cstr(&out), out.n) ? EXIT_DONE : EXIT_INPUT;
}
