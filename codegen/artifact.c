// From schedules to an artifact, one LLVM module and object per target:
//
//   kernels (one per distinct spec) -> tables of steps -> model constant -> (in the first module)
//   the list of versions and entry points -> TargetMachine -> objects -> cc / ar -> OUT (and OUT.h
//   for libraries)
//
// Entry points only hand on what they are given, or run after a version was picked, so none has an
// instruction that the CPU may lack.
#include "module.h"
#include "../runtime/cnxrt_clock.h"
#include "scratch.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void print_phase(const CodegenOptions *o, const Unit *u, const char *phase, double s) {
    if (o->time) fprintf(stderr, "%-15s %-10s %8.3f s\n", u ? u->target->name : "", phase, s);
}

static void print_sizes(const CodegenOptions *o, Arena *a, const char *object) {
    if (!o->time) return;
    CodeSizes sizes = object_sizes(a, object);
    for (int i = 0; i < sizes.n; i++)
        fprintf(stderr, "%16s %9.1f kB in %d functions\n", sizes.v[i].kind,
                (double)sizes.v[i].bytes / 1000, sizes.v[i].functions);
}

// Kernels whose tile was made smaller.
static void print_fits(const CodegenOptions *o, Unit *u) {
    for (int i = 0; o->time && i < u->kernels.n; i++) {
        const char *now = spec_print(u->arena, u->kernels.v[i].spec);
        if (strcmp(now, u->kernels.v[i].key) == 0) continue;
        fprintf(stderr, "%16s %s\n%16s %s\n", "spilled", u->kernels.v[i].key, "now", now);
    }
}

// ---- names -------------------------------------------------------------------------------------
// The n characters of a path's base name without "lib" and extension: "out/libatto-224.so" ->
// "atto-224".
static const char *base_name(const char *path, size_t *n) {
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    if (strncmp(base, "lib", 3) == 0 && base[3]) base += 3;
    const char *dot = strrchr(base, '.');
    *n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    return base;
}

// A C identifier from the base name of a path: "out/libatto-224.so" -> "atto_224".
static const char *artifact_name(Arena *a, const char *path) {
    size_t n;
    const char *base = base_name(path, &n);
    char *id = arena_strndup(a, base, n);
    for (char *p = id; *p; p++)
        if (!isalnum((unsigned char)*p)) *p = '_';
    return isdigit((unsigned char)*id) || !*id ? arena_printf(a, "m%s", id) : id;
}

// The header beside a library: the path with its extension replaced, "lib" kept off the name.
static const char *header_path(Arena *a, const char *path) {
    size_t n;
    const char *base = base_name(path, &n), *slash = strrchr(path, '/');
    int dir = slash ? (int)(slash + 1 - path) : 0;
    return arena_printf(a, "%.*s%.*s.h", dir, path, (int)n, base);
}

// ---- modules -----------------------------------------------------------------------------------
static const Target *model_target(const CodegenModel *m) {
    if (m->nschedules == 0) ice((Loc){0}, "no schedules to compile");
    return m->schedules[0]->target;
}

// The constant of a version of the model `name`.
static const char *version_symbol(Arena *a, const char *name, const Target *t) {
    char *symbol = arena_printf(a, "%s_model_%s", name, t->name);
    for (char *p = symbol; *p; p++)
        if (!isalnum((unsigned char)*p)) *p = '_';
    return symbol;
}

// const CnxrtModel *const NAME_versions[], ended by NULL.
static LLVMValueRef emit_versions(Unit *u, const CodegenModel *const *models, int n) {
    LLVMValueRef *v = NEWN(u->arena, LLVMValueRef, n + 1);
    for (int i = 0; i < n; i++) {
        const char *symbol = version_symbol(u->arena, u->name, model_target(models[i]));
        v[i] = LLVMGetNamedGlobal(u->mod, symbol);
        if (!v[i]) v[i] = LLVMAddGlobal(u->mod, u->i8, symbol);
        LLVMSetVisibility(v[i], LLVMHiddenVisibility);
    }
    v[n] = LLVMConstPointerNull(u->ptr);
    LLVMValueRef init = LLVMConstArray2(u->ptr, v, (uint64_t)n + 1);
    const char *symbol = arena_printf(u->arena, "%s_versions", u->name);
    LLVMValueRef g = LLVMAddGlobal(u->mod, LLVMTypeOf(init), symbol);
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, 1);
    return g;
}

// Version i of n.
typedef struct {
    const CodegenModel *const *models;
    int n, i;
    const CodegenOptions *opt;
} Version;

// The first module has the entry points of the artifact, too.
static void fill_version(Unit *u, const void *content) {
    const Version *v = content;
    EmitKind emit = v->opt->emit;
    if (v->opt->freestanding) {
        emit_freestanding(u, v->models[v->i]);
        return;
    }
    LLVMValueRef m = emit_model(u, v->models[v->i], version_symbol(u->arena, u->name, u->target));
    LLVMSetVisibility(m, LLVMHiddenVisibility);
    if (v->i > 0) return;
    LLVMValueRef versions = emit_versions(u, v->models, v->n);
    if (emit == EMIT_SHARED || emit == EMIT_STATIC || emit == EMIT_OBJ)
        emit_wrappers(u, versions, v->models[0]);
    else
        emit_main(u, versions);
}

static Unit *unit_version(Arena *a, const char *name, Version version, Diag *d) {
    const CodegenOptions *opt = version.opt;
    Unit *u = unit_new(a, name, model_target(version.models[version.i]), opt->opt_level, d);
    if (!u) return NULL;
    Version *content = NEW(a, Version);
    *content = version;
    double start = cnxrt_seconds();
    unit_fill(u, fill_version, content);
    print_phase(opt, u, "kernels", u->kernel_seconds);
    print_phase(opt, u, "driver", cnxrt_seconds() - start - u->kernel_seconds);
    return u;
}

static bool unit_text(Unit *u, EmitKind emit, Str *out) {
    if (emit == EMIT_ASM) return unit_emit_text(u, out);
    char *text = LLVMPrintModuleToString(u->mod);
    str_add(out, text);
    LLVMDisposeMessage(text);
    return true;
}

bool codegen_text(Arena *a, const CodegenModel *model, EmitKind emit, Str *out, Diag *d) {
    CodegenOptions opt = {.emit = emit, .opt_level = 2};
    Unit *u = unit_version(a, "cnxrt_main", (Version){&model, 1, 0, &opt}, d);
    bool ok = u && unit_text(u, emit, out);
    if (u) unit_free(u);
    return ok;
}

// ---- artifacts ---------------------------------------------------------------------------------
// A directory beside the output, on its file system; false with an error.
static bool artifact_dir(Artifact *f, Scratch *scratch) {
    const char *out = f->opt->out;
    struct stat st;
    if (stat(out, &st) == 0 && !S_ISREG(st.st_mode))
        diag_error(f->diag, (Loc){0}, "cannot write %s: it is no regular file", out);
    else if (scratch_open(scratch, arena_printf(f->arena, "%s.XXXXXX", out)))
        return true;
    else
        diag_error(f->diag, (Loc){0}, "cannot write %s: %s", out, strerror(errno));
    return false;
}

static bool artifact_object(Artifact *f, const CodegenModel *const *models, int n, int i) {
    Unit *u = unit_version(f->arena, f->name, (Version){models, n, i, f->opt}, f->diag);
    if (!u) return false;
    char *object = arena_printf(f->arena, "%s/%s_%d.o", f->dir, f->name, i);
    vec_push(f->arena, &f->objects, object);
    double start = cnxrt_seconds();
    bool ok = unit_emit_object(u, object);
    print_phase(f->opt, u, "LLVM", cnxrt_seconds() - start);
    print_fits(f->opt, u);
    if (ok) print_sizes(f->opt, f->arena, object);
    unit_free(u);
    return ok;
}

static bool write_header(Artifact *f) {
    Str text = {.arena = f->arena};
    header_print(&text, f->name, f->model, f->opt->freestanding);
    return file_write(header_path(f->arena, f->opt->out), str_cstr(&text), text.n, f->diag);
}

// Objects are emitted into a directory of our own and linked there; the result is moved: OUT is
// either whole or untouched.
static bool artifact_build(Artifact *f, const CodegenModel *const *models, int n) {
    Scratch scratch;
    if (!artifact_dir(f, &scratch)) return false;
    f->dir = scratch.dir;
    bool ok = true;
    for (int i = 0; i < n && ok; i++) ok = artifact_object(f, models, n, i);
    double start = cnxrt_seconds();
    ok = ok && link_artifact(f);
    print_phase(f->opt, NULL, "link", cnxrt_seconds() - start);
    scratch_close(&scratch);
    return ok && (f->opt->emit == EMIT_EXE || write_header(f));
}

bool codegen_build(Arena *a, const CodegenModel *const *models, int n, const CodegenOptions *opt,
                   Diag *d) {
    const char *name = opt->emit == EMIT_EXE ? "cnxrt_main" : artifact_name(a, opt->out);
    if (opt->emit != EMIT_LLVM && opt->emit != EMIT_ASM) {
        Artifact f = {.arena = a,
                      .diag = d,
                      .opt = opt,
                      .model = models[0],
                      .target = model_target(models[0]),
                      .name = name};
        return artifact_build(&f, models, n);
    }
    Str text = {.arena = a};
    Unit *u = unit_version(a, name, (Version){models, 1, 0, opt}, d);
    bool ok =
        u && unit_text(u, opt->emit, &text) && file_write(opt->out, str_cstr(&text), text.n, d);
    if (u) unit_free(u);
    return ok;
}
