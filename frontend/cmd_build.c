// cnxc build: spec -> artifact.
#include "cmd.h"
#include "cmd_calibrate.h"
#include "cnxrt_clock.h"
#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

static const Option options[] = {
    {"output", 'o', "OUT", "the artifact; libraries and objects get a header beside them"},
    {"emit", 0, "KIND",
     "exe     a command: inference, training, evaluation (default)\n"
     "shared  a shared library with its C header\n"
     "static  an archive with its C header\n"
     "obj     one object file, to be linked with libcnxrt.a\n"
     "llvm    LLVM IR\n"
     "asm     assembly"},
    {"weights", 'w', "FILE",
     "prepare this checkpoint now and embed it: the artifact then\n"
     "needs no --weights (safetensors, .pt or .pth; official, timm,\n"
     "Hugging Face or mmpretrain names)"},
    {"weights-dtype", 0, "TYPE",
     "f32 (default), or f16 or bf16: embed parameters at half the size,\n"
     "prepared when the artifact opens them"},
    {"calibrate", 0, "PICTURES",
     "int8: a data set whose pictures show the ranges of the inputs of\n"
     "layers; prints how the result compares with fp32"},
    {"calibrate-pictures", 0, "N", "as many of them, evenly spread (default 64)"},
    {"save-ranges", 0, "FILE", "write the ranges, for --ranges"},
    OPTION_TARGETS,
    {"freestanding", 0, NULL,
     "with --emit=obj and --weights: inference that needs no libc and\n"
     "no other code; the caller gives the memory (firmware, sandboxes)"},
    OPTION_SET,
    OPTION_PROGRAMS,
    {"cc", 0, "CC",
     "compiler and linker driver (default: cc, or what compiled cnxc\n"
     "where that is not gcc; for targets of another architecture\n"
     "aarch64-linux-gnu-gcc and the like)"},
    {"runtime-dir", 0, "DIR",
     "where libcnxrt.a for the target is, when it is not where cnxc was\n"
     "built or installed and shall not be compiled"},
    {"opt-level", 'O', "N", "LLVM's level, 0 to 3 (default 3)"},
    OPTIONS_PIPELINE,
};
static const Command command = {
    .name = "build",
    .usage = "SPEC -o OUT [--emit=KIND] [--weights FILE] [options]",
    .summary = "compile a spec to an executable, library or object",
    .help = "SPEC is a file or the name of a model, as for 'cnxc check'. The artifact depends on\n"
            "nothing but libc, libm and OpenMP. Builds are reproducible: the same spec, weights\n"
            "and target give the same bytes.",
    .options = options,
    .noptions = sizeof options / sizeof *options,
    .trailer = "Examples:\n"
               "  cnxc build convnextv2_atto -o atto\n"
               "  cnxc build convnextv2_tiny -o libtiny.so --emit=shared --weights tiny.pt\n"
               "  cnxc build my.yaml -o my --set input.channels=4 --set head.classes=7",
};

static const char *const kind_names[] = {"exe", "shared", "static", "obj", "llvm", "asm"};
enum { KINDS = sizeof kind_names / sizeof *kind_names };

static int find_kind(const char *name) {
    for (int i = 0; i < KINDS; i++)
        if (strcmp(kind_names[i], name) == 0) return i;
    fprintf(stderr, "cnxc build: error: unknown kind '%s' of --emit\n", name);
    const char *near = nearest_name(name, kind_names, KINDS);
    fprintf(stderr, "    hint: %s%s\n",
            near ? "did you mean " : "exe, shared, static, obj, llvm or asm", near ? near : "");
    return -1;
}

static const char *runtime_dir(const Options *o) {
    const char *given = options_get(o, "runtime-dir", NULL);
    if (given) return given;
    const char *near = cmd_near(o->arena, CNX_NEAR_LIBDIR);
    if (access(arena_printf(o->arena, "%s/libcnxrt.a", near), R_OK) == 0) return near;
    bool in_tree = access(CNX_BUILD_LIBDIR "/libcnxrt.a", R_OK) == 0;
    return in_tree ? CNX_BUILD_LIBDIR : CNX_LIBDIR;
}

static const char *runtime_source(Arena *a) {
    const char *near = cmd_near(a, CNX_NEAR_DATADIR "/runtime");
    if (access(arena_printf(a, "%s/cnxrt.h", near), R_OK) == 0) return near;
    bool in_tree = access(CNX_RUNTIME_DIR "/cnxrt.h", R_OK) == 0;
    return in_tree ? CNX_RUNTIME_DIR : CNX_DATADIR "/runtime";
}

// The programs an artifact of that kind holds: all the spec supports in an executable. Libraries
// serve inference only.
static bool choose_programs(const ModelSpec *spec, const CodegenOptions *cg, unsigned *out,
                            Diag *d) {
    bool library = cg->freestanding || cg->emit == EMIT_SHARED || cg->emit == EMIT_STATIC;
    *out = spec->asked || cg->emit == EMIT_EXE ? spec->programs : PROGRAM_INFER;
    if (!library || !(spec->asked & (PROGRAM_TRAIN | PROGRAM_PRETRAIN))) return true;
    diag_error(d, (Loc){0}, "programs train and pretrain are not for libraries");
    diag_hint(d, "use --emit=exe, or --programs=infer");
    return false;
}

// Of this process and of those it started and waited for.
static double cpu_seconds(void) {
    double sum = 0;
    static const int who[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (int i = 0; i < 2; i++) {
        struct rusage r;
        getrusage(who[i], &r);
        sum += (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
               1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
    }
    return sum;
}

// Whether the options go with --freestanding, when that is given.
static bool freestanding_check(const Options *o, EmitKind kind, int ntargets) {
    const char *why = kind != EMIT_OBJ             ? "makes objects: give --emit=obj"
                      : !options_has(o, "weights") ? "needs --weights: its objects read no files"
                      : ntargets > 1 ? "takes one target: its objects do not look at the CPU"
                      : options_has(o, "weights-dtype")
                          ? "takes prepared weights: leave out --weights-dtype"
                          : NULL;
    if (!options_has(o, "freestanding") || !why) return true;
    fprintf(stderr, "cnxc build: error: --freestanding %s\n", why);
    return false;
}

// The list with its target's tiles switched off: on bare metal nothing says that they may be used.
static void without_tiles(Arena *a, const Target **list) {
    if (!list[0]->amx) return;
    Target *t = NEW(a, Target);
    *t = *list[0];
    t->amx = false;
    list[0] = t;
}

// Whether each option has beside it what it goes with, and nothing that it does not.
static bool companions_check(const Options *o) {
    static const char *const pairs[][2] = {{"save-ranges", "calibrate"},
                                           {"calibrate-pictures", "calibrate"},
                                           {"calibrate", "weights"},
                                           {"weights-dtype", "weights"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (!options_has(o, pairs[i][0]) || options_has(o, pairs[i][1])) continue;
        fprintf(stderr, "cnxc build: error: --%s needs --%s\n", pairs[i][0], pairs[i][1]);
        return false;
    }
    bool both = options_has(o, "calibrate") && options_has(o, "ranges");
    if (both) fputs("cnxc build: error: --calibrate and --ranges: give one\n", stderr);
    return !both;
}

static bool save_ranges(const Options *o, const PrecisionPlan *plan, Diag *d) {
    const char *path = options_get(o, "save-ranges", NULL);
    if (!path) return true;
    FILE *f = fopen(path, "w");
    bool ok = f && fputs(ranges_print(o->arena, plan), f) >= 0;
    if (f) ok &= fclose(f) == 0;
    if (!ok) diag_error(d, (Loc){0}, "cannot write '%s': %s", path, strerror(errno));
    return ok;
}

// The ranges of int8 into *opt, where pictures are given.
static bool calibrate(const Options *o, const Calibration *c, PipelineOptions *opt, Diag *d) {
    if (!c->pictures && !options_has(o, "ranges")) return true;
    PrecisionPlan *plan = compile_plan(c->spec, opt, d);
    if (!plan) return false;
    if (!precision_uses(plan, PRECISION_INT8)) {
        diag_error(d, (Loc){0}, "--%s is for int8, and no layer is to compute in that",
                   c->pictures ? "calibrate" : "ranges");
        diag_hint(d, "give --precision=int8");
        return false;
    }
    if (!c->pictures) return true;
    if (!calibrate_ranges(c, plan, d)) return false;
    plan->alone = true;
    opt->precision = plan;
    return save_ranges(o, plan, d);
}

static bool build(const Options *o, const CodegenOptions *cg, PipelineOptions *opt,
                  int64_t pictures, const Target *const *targets, int n, Diag *d) {
    double start = cnxrt_seconds();
    Compiled *c = NEWN(o->arena, Compiled, n);
    const CodegenModel **models = NEWN(o->arena, const CodegenModel *, n);
    unsigned programs;
    ModelSpec *spec = cmd_spec(o, d);
    Calibration cal = {spec, options_get(o, "weights", NULL), options_get(o, "calibrate", NULL),
                       pictures};
    if (!spec || !calibrate(o, &cal, opt, d) || !choose_programs(spec, cg, &programs, d))
        return false;
    programs = compile_programs(spec, programs, targets[0], opt);
    for (int i = 0; i < n; i++) {
        if (!compile_spec(&c[i], spec, programs, targets[i], opt, d)) return false;
        models[i] = &c[i].v[MODEL_INFER].model;
    }
    compile_note_rules(&c[0], spec, opt, d);
    double planned = cnxrt_seconds();
    const char *weights = options_get(o, "weights", NULL);
    const char *dtype = cmd_dtype(o, "weights-dtype");
    if (weights && !compile_embed(c, n, weights, dtype, d)) return false;
    double embedded = cnxrt_seconds();
    if (cal.pictures && !calibrate_report(&cal, opt->precision, stdout, d)) return false;
    if (!codegen_build(o->arena, models, n, cg, d)) return false;
    if (cg->time)
        fprintf(stderr,
                "spec and passes %.3f s, weights %.3f s, code %.3f s, total %.3f s, CPU %.3f s\n",
                planned - start, embedded - planned, cnxrt_seconds() - embedded,
                cnxrt_seconds() - start, cpu_seconds());
    return true;
}

int cmd_build(Arena *a, int argc, char *const *argv) {
    Options o;
    PipelineOptions opt;
    int status = cmd_begin(&o, a, &command, argc, argv, 1, 1);
    if (status >= 0) return status;
    const char *out = options_get(&o, "output", NULL);
    if (!out) {
        fprintf(stderr, "cnxc build: error: -o OUT is missing\n");
        return EXIT_USAGE;
    }
    int kind = find_kind(options_get(&o, "emit", "exe"));
    int64_t level = 3, pictures = 64;
    int n = 0;
    bool text = kind == EMIT_LLVM || kind == EMIT_ASM;
    const Target **targets = kind >= 0 ? cmd_target_list(&o, text, &n) : NULL;
    if (!targets || !freestanding_check(&o, (EmitKind)kind, n) || !companions_check(&o) ||
        !cmd_dtype(&o, "weights-dtype") || !options_int(&o, "opt-level", 0, 3, &level, stderr) ||
        !options_int(&o, "calibrate-pictures", 1, 1 << 20, &pictures, stderr))
        return EXIT_USAGE;
    if ((status = cmd_pipeline_options(&o, &opt)) >= 0) return status;
    if (options_has(&o, "freestanding")) without_tiles(a, targets);
    CodegenOptions cg = {.out = out,
                         .emit = (EmitKind)kind,
                         .cc = options_get(&o, "cc", NULL),
                         .runtime_dir = runtime_dir(&o),
                         .runtime_given = options_has(&o, "runtime-dir"),
                         .runtime_source = runtime_source(a),
                         .freestanding = options_has(&o, "freestanding"),
                         .time = opt.time,
                         .opt_level = (int)level};
    return build(&o, &cg, &opt, pictures, targets, n, diag_new(a, stderr)) ? EXIT_DONE : EXIT_INPUT;
}
