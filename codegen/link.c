// From objects to an artifact, with a C compiler's driver and its binutils. Everything is made in a
// directory of our own and moved into place, so that names of temporary files never reach the
// artifact and builds are reproducible.
#include "toolchain.h"
#include <errno.h>
#include <unistd.h>

typedef struct {
    const Artifact *f;
    Arena *arena;
    Toolchain tools;
    const char *weights; // object of the embedded weights, or NULL
    const char *out;     // what is made, inside the directory
} Link;

bool file_write(const char *path, const void *data, size_t n, Diag *d) {
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, n, f) == n;
    if (f && fclose(f) != 0) ok = false;
    if (!ok) diag_error(d, (Loc){0}, "cannot write %s: %s", path, strerror(errno));
    return ok;
}

static void arg(Link *l, Argv *v, const char *s) { argv_add(l->arena, v, s); }
static void args(Link *l, Argv *v, const char *words) { argv_words(l->arena, v, words); }
static const char *in_dir(Link *l, const char *file) { return toolchain_file(&l->tools, file); }
static bool run_tool(Link *l, Argv *v) { return tool_run(&l->tools, v); }

// ---- embedded weights --------------------------------------------------------------------------
static const char *assembler_quoted(Arena *a, const char *s) {
    Str o = {.arena = a};
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') str_add(&o, "\\");
        str_addn(&o, s, 1);
    }
    return str_cstr(&o);
}

// Assembles the blob with .incbin. From 1 GiB on it goes to the section for large data, which the
// linker places beyond everything that code must reach with 32 bits (x86-64 only).
static bool weights_object(Link *l) {
    const CodegenModel *m = l->f->model;
    const void *data = m->embedded ? m->embedded : m->raw;
    int64_t n = m->embedded ? m->weight_bytes : m->raw_bytes;
    const char *name = l->f->name;
    bool large = n >= (int64_t)1 << 30;
    if (large && n >= (int64_t)1 << 31 && strncmp(l->f->target->triple, "x86_64", 6) != 0) {
        diag_error(l->f->diag, (Loc){0},
                   "%.1f GB of weights are too large to embed: the limit is 2 GB", (double)n / 1e9);
        diag_hint(l->f->diag, "build without --weights and pass the checkpoint at run time");
        return false;
    }
    const char *blob = in_dir(l, "weights.bin"), *source = in_dir(l, "weights.s");
    const char *section = large ? ".lrodata,\"al\",@progbits" : ".rodata,\"a\",@progbits";
    const char *text = arena_printf(
        l->arena,
        "    .section %s\n    .globl %s_weights\n    .hidden %s_weights\n    .balign 64\n"
        "%s_weights:\n    .incbin \"%s\"\n    .section .note.GNU-stack,\"\",@progbits\n",
        section, name, name, name, assembler_quoted(l->arena, blob));
    bool ok = file_write(blob, data, (size_t)n, l->f->diag) &&
              file_write(source, text, strlen(text), l->f->diag);
    l->weights = in_dir(l, "weights.o");
    Argv v = {0};
    args(l, &v, l->tools.cc);
    arg(l, &v, "-c");
    arg(l, &v, source);
    arg(l, &v, "-o");
    arg(l, &v, l->weights);
    ok = ok && run_tool(l, &v);
    unlink(blob);
    unlink(source);
    return ok;
}

// ---- artifacts ---------------------------------------------------------------------------------
static void objects(Link *l, Argv *v) {
    for (int i = 0; i < l->f->objects.n; i++) arg(l, v, l->f->objects.v[i]);
    if (l->weights) arg(l, v, l->weights);
}

static const char *runtime_archive(Link *l, const char *file) {
    return arena_printf(l->arena, "%s/%s", l->tools.runtime_dir, file);
}

static void system_libraries(Link *l, Argv *v) {
    args(l, v, "-Wl,--gc-sections -Wl,--as-needed -static-libgcc");
    args(l, v, l->tools.openmp);
    arg(l, v, "-lm");
}

// For another architecture executables are static: its libraries are not likely to be those of the
// machine that runs them.
static bool link_exe(Link *l) {
    Argv v = {0};
    args(l, &v, l->tools.cc);
    if (l->tools.cross) arg(l, &v, "-static");
    arg(l, &v, "-o");
    arg(l, &v, l->out);
    objects(l, &v);
    arg(l, &v, runtime_archive(l, "libcnxrt_cli.a"));
    arg(l, &v, runtime_archive(l, "libcnxrt.a"));
    args(l, &v, l->tools.codec_libs);
    args(l, &v, l->tools.runtime_libs);
    system_libraries(l, &v);
    return run_tool(l, &v);
}

// Archives of the system may hold code that is not position-independent: what it refers to directly
// must lie inside the library (runtime/library.c).
static const char wrapped[] = "-Wl,--wrap=stdin";

// Only NAME_* leaves the library.
static bool link_shared(Link *l) {
    const char *exports = in_dir(l, "exports");
    const char *text = arena_printf(l->arena, "{ global: %s_*; local: *; };\n", l->f->name);
    if (!file_write(exports, text, strlen(text), l->f->diag)) return false;
    const char *base = strrchr(l->f->opt->out, '/');
    Argv v = {0};
    args(l, &v, l->tools.cc);
    arg(l, &v, "-shared");
    arg(l, &v, "-o");
    arg(l, &v, l->out);
    arg(l, &v, arena_printf(l->arena, "-Wl,--version-script=%s", exports));
    arg(l, &v, arena_printf(l->arena, "-Wl,-soname,%s", base ? base + 1 : l->f->opt->out));
    arg(l, &v, "-Wl,-z,defs");
    arg(l, &v, wrapped);
    objects(l, &v);
    arg(l, &v, runtime_archive(l, "libcnxrt.a"));
    args(l, &v, l->tools.runtime_libs);
    system_libraries(l, &v);
    bool ok = run_tool(l, &v);
    unlink(exports);
    return ok;
}

// An archive of one object into which everything is linked, with NAME_* as its only global symbols:
// users link one file, and two models (or their own zlib) in one program never clash.
static bool link_static(Link *l) {
    const char *object = in_dir(l, arena_printf(l->arena, "%s_library.o", l->f->name));
    Argv v = {0};
    args(l, &v, l->tools.cc);
    args(l, &v, "-r -nostdlib -Wl,-S"); // debug information of wrapped symbols crashes some linkers
    arg(l, &v, wrapped);
    arg(l, &v, "-o");
    arg(l, &v, object);
    objects(l, &v);
    arg(l, &v, runtime_archive(l, "libcnxrt.a"));
    args(l, &v, l->tools.runtime_libs);
    bool ok = run_tool(l, &v);
    Argv localize = {0};
    arg(l, &localize, l->tools.objcopy);
    arg(l, &localize, "-w");
    arg(l, &localize, arena_printf(l->arena, "--keep-global-symbol=%s_*", l->f->name));
    arg(l, &localize, object);
    Argv archive = {0};
    arg(l, &archive, l->tools.ar);
    arg(l, &archive, "qcsD");
    arg(l, &archive, l->out);
    arg(l, &archive, object);
    ok = ok && run_tool(l, &localize) && run_tool(l, &archive);
    unlink(object);
    return ok;
}

static bool link_object(Link *l) {
    if (!l->weights && l->f->objects.n == 1) {
        l->out = l->f->objects.v[0];
        return true;
    }
    Argv v = {0};
    args(l, &v, l->tools.cc);
    args(l, &v, "-r -nostdlib -o");
    arg(l, &v, l->out);
    objects(l, &v);
    return run_tool(l, &v);
}

static bool link_kind(Link *l, EmitKind emit) {
    bool embeds = (l->f->model->embedded || l->f->model->raw) && !l->f->opt->freestanding;
    if (emit == EMIT_OBJ && !embeds && l->f->objects.n == 1) return link_object(l);
    if (!toolchain_open(&l->tools, l->f) || (embeds && !weights_object(l))) return false;
    if (emit == EMIT_OBJ) return link_object(l);
    if (!toolchain_runtime(&l->tools, l->f->opt)) return false;
    return emit == EMIT_EXE ? link_exe(l) : emit == EMIT_SHARED ? link_shared(l) : link_static(l);
}

bool link_artifact(const Artifact *f) {
    Link l = {.f = f, .arena = f->arena, .tools = {.arena = f->arena, .dir = f->dir}};
    l.out = in_dir(&l, "out");
    bool ok = link_kind(&l, f->opt->emit);
    if (ok && rename(l.out, f->opt->out) != 0) {
        diag_error(f->diag, (Loc){0}, "cannot write %s: %s", f->opt->out, strerror(errno));
        ok = false;
    }
    unlink(l.out);
    if (l.weights) unlink(l.weights);
    return ok;
}
