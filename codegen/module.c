// From schedules to an LLVM module, and from there to an artifact:
//
//   kernels (one per distinct spec) -> steps and drivers -> model constant -> entry points
//   -> TargetMachine -> object -> cc / ar -> OUT (and OUT.h for libraries)
//
// No LLVM pass runs over the IR: kernels are emitted in their final shape, the rest is cold.
#include "module.h"
#include "kernel.h"
#include <ctype.h>
#include <errno.h>
#include <llvm-c/Analysis.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- the module --------------------------------------------------------------------------------
LLVMValueRef unit_i64(Unit *u, int64_t v) { return LLVMConstInt(u->i64, (unsigned long long)v, 1); }

LLVMValueRef unit_i32(Unit *u, int64_t v) { return LLVMConstInt(u->i32, (unsigned long long)v, 1); }

static LLVMValueRef private_constant(Unit *u, LLVMValueRef init, const char *symbol) {
    LLVMValueRef g = LLVMAddGlobal(u->mod, LLVMTypeOf(init), symbol);
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetLinkage(g, LLVMPrivateLinkage);
    LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
    return g;
}

LLVMValueRef unit_string(Unit *u, const char *s) {
    if (!s) return LLVMConstPointerNull(u->ptr);
    LLVMValueRef init = LLVMConstStringInContext2(u->ctx, s, strlen(s), 0);
    LLVMValueRef g = private_constant(u, init, "s");
    LLVMSetAlignment(g, 1);
    return g;
}

LLVMValueRef unit_table(Unit *u, LLVMTypeRef elem, LLVMValueRef *v, int n, const char *symbol) {
    if (n == 0) return LLVMConstPointerNull(u->ptr);
    return private_constant(u, LLVMConstArray2(elem, v, (uint64_t)n), symbol);
}

LLVMValueRef unit_function(Unit *u, const char *symbol, LLVMTypeRef type, LLVMLinkage linkage) {
    LLVMValueRef fn = LLVMAddFunction(u->mod, symbol, type);
    LLVMSetLinkage(fn, linkage);
    unsigned nounwind = LLVMGetEnumAttributeKindForName("nounwind", 8);
    LLVMAddAttributeAtIndex(fn, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(u->ctx, nounwind, 0));
    LLVMPositionBuilderAtEnd(u->b, LLVMAppendBasicBlockInContext(u->ctx, fn, "entry"));
    return fn;
}

LLVMValueRef unit_extern(Unit *u, const char *symbol, LLVMTypeRef type) {
    LLVMValueRef fn = LLVMGetNamedFunction(u->mod, symbol);
    return fn ? fn : LLVMAddFunction(u->mod, symbol, type);
}

LLVMValueRef unit_kernel(Unit *u, const KernelSpec *spec) {
    const char *key = spec_print(u->arena, spec);
    for (int i = 0; i < u->kernels.n; i++)
        if (strcmp(u->kernels.v[i].key, key) == 0) return u->kernels.v[i].fn;
    double start = seconds();
    const char *symbol =
        arena_printf(u->arena, "%s_%d", kernel_info[spec->kind].name, u->kernels.n);
    LLVMValueRef fn = emit_kernel(&u->emit, spec, symbol);
    LLVMSetLinkage(fn, LLVMInternalLinkage);
    vec_push(u->arena, &u->kernels, ((Shared){key, fn}));
    u->kernel_seconds += seconds() - start;
    return fn;
}

static void unit_types(Unit *u) {
    u->ptr = LLVMPointerTypeInContext(u->ctx, 0);
    u->i8 = LLVMInt8TypeInContext(u->ctx);
    u->i32 = LLVMInt32TypeInContext(u->ctx);
    u->i64 = LLVMInt64TypeInContext(u->ctx);
    u->f32 = LLVMFloatTypeInContext(u->ctx);
    u->f64 = LLVMDoubleTypeInContext(u->ctx);
    u->none = LLVMVoidTypeInContext(u->ctx);
    LLVMTypeRef p = u->ptr, l = u->i64;
    u->frame =
        LLVMStructTypeInContext(u->ctx, (LLVMTypeRef[]){p, p, p, p, p, p, l, p, p, p}, 10, 0);
    u->kernel_fn = LLVMFunctionType(u->none, (LLVMTypeRef[]){p, l, l, l, l}, 5, 0);
    u->run_fn = LLVMFunctionType(u->none, (LLVMTypeRef[]){p, l, l}, 3, 0);
}

Unit *unit_new(Arena *a, const char *name, const Target *t, int opt_level, Diag *d) {
    Unit *u = NEW(a, Unit);
    *u = (Unit){.arena = a, .diag = d, .target = t, .name = name};
    u->machine = machine_new(t, opt_level, d);
    if (!u->machine) return NULL;
    u->ctx = LLVMContextCreate();
    u->mod = LLVMModuleCreateWithNameInContext(name, u->ctx);
    u->b = LLVMCreateBuilderInContext(u->ctx);
    LLVMSetTarget(u->mod, t->triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(u->machine);
    LLVMSetModuleDataLayout(u->mod, layout);
    LLVMDisposeTargetData(layout);
    unit_types(u);
    emit_init(&u->emit, a, u->ctx, u->mod, t);
    return u;
}

void unit_free(Unit *u) {
    emit_free(&u->emit);
    LLVMDisposeBuilder(u->b);
    LLVMDisposeModule(u->mod);
    LLVMDisposeTargetMachine(u->machine);
    LLVMContextDispose(u->ctx);
}

void unit_verify(Unit *u) {
    char *why = NULL;
    if (LLVMVerifyModule(u->mod, LLVMReturnStatusAction, &why))
        ice((Loc){0}, "generated LLVM IR is malformed: %s", why);
    LLVMDisposeMessage(why);
}

// Everything of an artifact of kind `emit` into u->mod.
static void unit_fill(Unit *u, const CodegenModel *model, EmitKind emit) {
    bool library = emit == EMIT_SHARED || emit == EMIT_STATIC || emit == EMIT_OBJ;
    const char *symbol = library ? arena_printf(u->arena, "%s_model", u->name) : "cnxrt_main_model";
    LLVMValueRef m = emit_model(u, model, symbol);
    if (library)
        emit_wrappers(u, m, model);
    else
        emit_main(u, m);
    unit_verify(u);
}

// ---- output ------------------------------------------------------------------------------------
// A C identifier from the base name of a path: "out/libatto-224.so" -> "atto_224".
static const char *artifact_name(Arena *a, const char *path) {
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    if (strncmp(base, "lib", 3) == 0 && base[3]) base += 3;
    const char *dot = strrchr(base, '.');
    size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    char *id = arena_strndup(a, base, n);
    for (char *p = id; *p; p++)
        if (!isalnum((unsigned char)*p)) *p = '_';
    return isdigit((unsigned char)*id) || !*id ? arena_printf(a, "m%s", id) : id;
}

// The header beside a library: the path with its extension replaced, "lib" kept off the name.
static const char *header_path(Arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    size_t dir = (size_t)(base - path);
    if (strncmp(base, "lib", 3) == 0 && base[3]) base += 3;
    const char *dot = strrchr(base, '.');
    size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    return arena_printf(a, "%.*s%.*s.h", (int)dir, path, (int)n, base);
}

static bool unit_text(Unit *u, EmitKind emit, Str *out) {
    if (emit == EMIT_ASM) return machine_emit_text(u->machine, u->mod, out, u->diag);
    char *text = LLVMPrintModuleToString(u->mod);
    str_add(out, text);
    LLVMDisposeMessage(text);
    return true;
}

static void print_phase(const CodegenOptions *o, const char *phase, double s) {
    if (o->time) fprintf(stderr, "%-10s %8.3f s\n", phase, s);
}

// Emits the object into a directory beside the output, links it there, moves the result: OUT is
// either whole or untouched.
static bool unit_artifact(Unit *u, const CodegenModel *model, const CodegenOptions *opt) {
    char *dir = arena_printf(u->arena, "%s.XXXXXX", opt->out);
    struct stat st;
    if (stat(opt->out, &st) == 0 && !S_ISREG(st.st_mode)) {
        diag_error(u->diag, (Loc){0}, "cannot write %s: it is no regular file", opt->out);
        return false;
    }
    if (!mkdtemp(dir)) {
        diag_error(u->diag, (Loc){0}, "cannot write %s: %s", opt->out, strerror(errno));
        return false;
    }
    const char *object = arena_printf(u->arena, "%s/%s.o", dir, u->name);
    double start = seconds();
    bool ok = machine_emit_file(u->machine, u->mod, object, LLVMObjectFile, u->diag);
    print_phase(opt, "emit", seconds() - start);
    start = seconds();
    if (ok) ok = link_artifact(u, opt, model, dir, object);
    print_phase(opt, "link", seconds() - start);
    unlink(object);
    rmdir(dir);
    return ok;
}

static bool write_header(Unit *u, const CodegenModel *model, const CodegenOptions *opt) {
    Str text = {.arena = u->arena};
    header_print(&text, u->name, model);
    return file_write(header_path(u->arena, opt->out), str_cstr(&text), text.n, u->diag);
}

static const Target *model_target(const CodegenModel *m) {
    if (m->nschedules == 0) ice((Loc){0}, "no schedules to compile");
    return m->schedules[0]->target;
}

bool codegen_build(Arena *a, const CodegenModel *model, const CodegenOptions *opt, Diag *d) {
    const Target *target = model_target(model);
    Unit *u = unit_new(a, artifact_name(a, opt->out), target, opt->opt_level, d);
    if (!u) return false;
    double start = seconds();
    if (opt->emit == EMIT_EXE) u->name = "cnxrt_main";
    unit_fill(u, model, opt->emit);
    print_phase(opt, "kernels", u->kernel_seconds);
    print_phase(opt, "driver", seconds() - start - u->kernel_seconds);
    bool ok = true;
    if (opt->emit == EMIT_LLVM || opt->emit == EMIT_ASM) {
        Str text = {.arena = a};
        ok = unit_text(u, opt->emit, &text) && file_write(opt->out, str_cstr(&text), text.n, d);
    } else {
        ok = unit_artifact(u, model, opt);
        if (ok && opt->emit != EMIT_EXE) ok = write_header(u, model, opt);
    }
    unit_free(u);
    return ok;
}

bool codegen_text(Arena *a, const CodegenModel *model, EmitKind emit, Str *out, Diag *d) {
    Unit *u = unit_new(a, "cnxrt_main", model_target(model), 2, d);
    if (!u) return false;
    unit_fill(u, model, emit);
    bool ok = unit_text(u, emit, out);
    unit_free(u);
    return ok;
}
