// From an object to an artifact, with the host's `cc` and `ar`, started without a shell. What they
// print is shown when they fail. Everything is made in a directory of our own and moved into
// place, so that names of temporary files never reach the artifact and builds are reproducible.
#include "module.h"
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

extern char **environ;

typedef struct {
    Arena *arena;
    Diag *diag;
    const CodegenOptions *opt;
    const CodegenModel *model;
    const Target *target;
    const char *name, *dir, *object;
    const char *weights; // object of the embedded weights, or NULL
    const char *out;     // what is made, inside dir
} Link;

typedef VEC(char *) Argv;

bool file_write(const char *path, const void *data, size_t n, Diag *d) {
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, n, f) == n;
    if (f && fclose(f) != 0) ok = false;
    if (!ok) diag_error(d, (Loc){0}, "cannot write %s: %s", path, strerror(errno));
    return ok;
}

// ---- running tools -----------------------------------------------------------------------------
static void arg(Link *l, Argv *v, const char *s) {
    vec_push(l->arena, v, arena_strdup(l->arena, s));
}

// Space-separated words, as CMake passes lists of archives.
static void args(Link *l, Argv *v, const char *words) {
    for (const char *p = words; *p;) {
        size_t n = strcspn(p, " ");
        if (n) vec_push(l->arena, v, arena_strndup(l->arena, p, n));
        p += n + (p[n] == ' ');
    }
}

static const char *in_dir(Link *l, const char *file) {
    return arena_printf(l->arena, "%s/%s", l->dir, file);
}

static void report_failure(Link *l, const char *tool, const char *log) {
    char text[4096] = "";
    FILE *f = fopen(log, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    while (n && text[n - 1] == '\n') text[--n] = 0;
    diag_error(l->diag, (Loc){0}, "%s failed:\n%s", tool, text);
}

// Runs argv with output going to a file, which is shown when the tool fails.
static bool run_tool(Link *l, Argv *argv) {
    vec_push(l->arena, argv, NULL);
    const char *log = in_dir(l, "log");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid = 0;
    int error = posix_spawnp(&pid, argv->v[0], &actions, NULL, argv->v, environ);
    posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    if (error == 0)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
    bool ok = error == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (error != 0) {
        diag_error(l->diag, (Loc){0}, "cannot run %s: %s", argv->v[0], strerror(error));
        diag_hint(l->diag, "a C compiler and binutils link artifacts; --cc names another driver");
    } else if (!ok) {
        report_failure(l, argv->v[0], log);
    }
    unlink(log);
    return ok;
}

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
    int64_t n = l->model->weight_bytes;
    bool large = n >= (int64_t)1 << 30;
    if (large && n >= (int64_t)1 << 31 && strncmp(l->target->triple, "x86_64", 6) != 0) {
        diag_error(l->diag, (Loc){0},
                   "%.1f GB of weights are too large to embed: the limit is 2 GB", (double)n / 1e9);
        diag_hint(l->diag, "build without --weights and pass the checkpoint at run time");
        return false;
    }
    const char *blob = in_dir(l, "weights.bin"), *source = in_dir(l, "weights.s");
    const char *section = large ? ".lrodata,\"al\",@progbits" : ".rodata,\"a\",@progbits";
    const char *text = arena_printf(
        l->arena,
        "    .section %s\n    .globl %s_weights\n    .hidden %s_weights\n    .balign 64\n"
        "%s_weights:\n    .incbin \"%s\"\n    .section .note.GNU-stack,\"\",@progbits\n",
        section, l->name, l->name, l->name, assembler_quoted(l->arena, blob));
    bool ok = file_write(blob, l->model->embedded, (size_t)n, l->diag) &&
              file_write(source, text, strlen(text), l->diag);
    l->weights = in_dir(l, "weights.o");
    Argv v = {0};
    arg(l, &v, l->opt->cc);
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
    arg(l, v, l->object);
    if (l->weights) arg(l, v, l->weights);
}

static const char *runtime_archive(Link *l, const char *file) {
    return arena_printf(l->arena, "%s/%s", l->opt->runtime_dir, file);
}

static void system_libraries(Link *l, Argv *v) {
    args(l, v, "-Wl,--gc-sections -Wl,--as-needed -static-libgcc");
    args(l, v, CNX_OPENMP_FLAG);
    arg(l, v, "-lm");
}

static bool link_exe(Link *l) {
    Argv v = {0};
    args(l, &v, l->opt->cc);
    arg(l, &v, "-o");
    arg(l, &v, l->out);
    objects(l, &v);
    arg(l, &v, runtime_archive(l, "libcnxrt_cli.a"));
    arg(l, &v, runtime_archive(l, "libcnxrt.a"));
    args(l, &v, CNX_CODEC_LIBS);
    args(l, &v, CNX_RUNTIME_LIBS);
    system_libraries(l, &v);
    return run_tool(l, &v);
}

// Archives of the system may hold code that is not position-independent: what it refers to directly
// must lie inside the library (runtime/library.c).
static const char wrapped[] = "-Wl,--wrap=stdin";

// Only NAME_* leaves the library.
static bool link_shared(Link *l) {
    const char *exports = in_dir(l, "exports");
    const char *text = arena_printf(l->arena, "{ global: %s_*; local: *; };\n", l->name);
    if (!file_write(exports, text, strlen(text), l->diag)) return false;
    const char *base = strrchr(l->opt->out, '/');
    Argv v = {0};
    args(l, &v, l->opt->cc);
    arg(l, &v, "-shared");
    arg(l, &v, "-o");
    arg(l, &v, l->out);
    arg(l, &v, arena_printf(l->arena, "-Wl,--version-script=%s", exports));
    arg(l, &v, arena_printf(l->arena, "-Wl,-soname,%s", base ? base + 1 : l->opt->out));
    arg(l, &v, "-Wl,-z,defs");
    arg(l, &v, wrapped);
    objects(l, &v);
    arg(l, &v, runtime_archive(l, "libcnxrt.a"));
    args(l, &v, CNX_RUNTIME_LIBS);
    system_libraries(l, &v);
    bool ok = run_tool(l, &v);
    unlink(exports);
    return ok;
}

// An archive of one object into which everything is linked, with NAME_* as its only global symbols:
// users link one file, and two models (or their own zlib) in one program never clash.
static bool link_static(Link *l) {
    const char *object = in_dir(l, arena_printf(l->arena, "%s_library.o", l->name));
    Argv v = {0};
    args(l, &v, l->opt->cc);
    args(l, &v, "-r -nostdlib -Wl,-S"); // debug information of wrapped symbols crashes some linkers
    arg(l, &v, wrapped);
    arg(l, &v, "-o");
    arg(l, &v, object);
    objects(l, &v);
    arg(l, &v, runtime_archive(l, "libcnxrt.a"));
    args(l, &v, CNX_RUNTIME_LIBS);
    bool ok = run_tool(l, &v);
    Argv localize = {0};
    args(l, &localize, "objcopy -w");
    arg(l, &localize, arena_printf(l->arena, "--keep-global-symbol=%s_*", l->name));
    arg(l, &localize, object);
    Argv archive = {0};
    args(l, &archive, "ar qcsD");
    arg(l, &archive, l->out);
    arg(l, &archive, object);
    ok = ok && run_tool(l, &localize) && run_tool(l, &archive);
    unlink(object);
    return ok;
}

static bool link_object(Link *l) {
    if (!l->weights) {
        l->out = l->object;
        return true;
    }
    Argv v = {0};
    args(l, &v, l->opt->cc);
    args(l, &v, "-r -nostdlib -o");
    arg(l, &v, l->out);
    objects(l, &v);
    return run_tool(l, &v);
}

bool link_artifact(Unit *u, const CodegenOptions *opt, const CodegenModel *model, const char *dir,
                   const char *object) {
    Link l = {.arena = u->arena,
              .diag = u->diag,
              .opt = opt,
              .model = model,
              .target = u->target,
              .name = u->name,
              .dir = dir,
              .object = object};
    Diag *d = u->diag;
    l.out = in_dir(&l, "out");
    bool ok = !model->embedded || weights_object(&l);
    if (ok) {
        switch (opt->emit) {
        case EMIT_EXE: ok = link_exe(&l); break;
        case EMIT_SHARED: ok = link_shared(&l); break;
        case EMIT_STATIC: ok = link_static(&l); break;
        default: ok = link_object(&l); break;
        }
    }
    if (ok && rename(l.out, opt->out) != 0) {
        diag_error(d, (Loc){0}, "cannot write %s: %s", opt->out, strerror(errno));
        ok = false;
    }
    unlink(l.out);
    if (l.weights) unlink(l.weights);
    return ok;
}
