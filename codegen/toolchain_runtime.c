// The runtime's archives for a toolchain. For an architecture other than cnxc's own they are
// compiled from the sources that come with cnxc, with as much of what the runtime can use as the
// compiler finds, and kept in the user's cache, under a name that depends on all that went into
// them.
#include "toolchain.h"
#include "scratch.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

// Libraries the runtime does without where they are missing (docs/cnxc.md), in link order.
static const struct {
    const char *define, *archive, *header;
    bool codec, needs_zlib;
} optional[] = {
    {"-DCNXRT_JPEG=1", "libjpeg.a", "#include <stdio.h>\n#include <jpeglib.h>\n", true, false},
    {"-DCNXRT_PNG=1", "libpng16.a", "#include <png.h>\n", true, true},
    {"-DCNXRT_JANSSON=1", "libjansson.a", "#include <jansson.h>\n", false, false},
    {"-DCNXRT_MINIZIP=1", "libminizip.a", "#include <minizip/unzip.h>\n", false, true},
    {"-DCNXRT_ZLIB=1", "libz.a", "#include <zlib.h>\n", false, false},
};
enum { OPTIONAL = sizeof optional / sizeof *optional, ZLIB = OPTIONAL - 1 };

// The sources of libcnxrt.a and libcnxrt_cli.a, in this order.
static const char *const archives[] = {"libcnxrt.a", "libcnxrt_cli.a"};
static const char *const sources[] = {CNX_RUNTIME_SOURCES, CNX_RUNTIME_CLI_SOURCES};

typedef struct {
    Toolchain *t;
    const char *source_dir, *defines;
    char *dir; // where it is compiled
} RuntimeBuild;

// ---- what the compiler finds -------------------------------------------------------------------
// Whether the driver accepts a program with `flags`; `link`: as a static executable.
static bool accepts(const Toolchain *t, const char *program, const char *flags, bool link) {
    const char *source = toolchain_file(t, "probe.c"), *out = toolchain_file(t, "probe");
    if (!file_write(source, program, strlen(program), t->diag)) return false;
    Argv v = {0};
    argv_words(t->arena, &v, t->cc);
    argv_words(t->arena, &v, link ? "-static" : "-c");
    argv_add(t->arena, &v, source);
    argv_add(t->arena, &v, "-o");
    argv_add(t->arena, &v, out);
    argv_words(t->arena, &v, flags);
    bool ok = tool_try(t, &v, NULL);
    unlink(source);
    unlink(out);
    return ok;
}

// The path of an archive the driver would link, or NULL.
static const char *find_archive(const Toolchain *t, const char *file) {
    Argv v = {0};
    const char *path;
    argv_words(t->arena, &v, t->cc);
    argv_add(t->arena, &v, arena_printf(t->arena, "-print-file-name=%s", file));
    return tool_try(t, &v, &path) && strchr(path, '/') && !strchr(path, ' ') ? path : NULL;
}

// Sets the libraries and OpenMP of t; returns the flags that tell the sources.
static const char *find_optional(Toolchain *t) {
    Str defines = {.arena = t->arena}, libs = {.arena = t->arena}, codecs = {.arena = t->arena};
    const char *zlib = find_archive(t, optional[ZLIB].archive);
    if (zlib && !accepts(t, optional[ZLIB].header, "", false)) zlib = NULL;
    for (int i = 0; i < OPTIONAL; i++) {
        const char *path = i == ZLIB ? zlib : find_archive(t, optional[i].archive);
        if (!path || (optional[i].needs_zlib && !zlib)) continue;
        if (i != ZLIB && !accepts(t, optional[i].header, "", false)) continue;
        str_printf(&defines, " %s", optional[i].define);
        str_printf(optional[i].codec ? &codecs : &libs, " %s", path);
    }
    t->runtime_libs = str_cstr(&libs);
    t->codec_libs = str_cstr(&codecs);
    bool threads =
        *CNX_OPENMP_FLAG &&
        accepts(t, "#include <omp.h>\nint main(void) { return omp_get_max_threads(); }\n",
                CNX_OPENMP_FLAG, true);
    t->openmp = threads ? CNX_OPENMP_FLAG : "";
    str_printf(&defines, " %s", t->openmp);
    return str_cstr(&defines);
}

static const uint64_t HASH_START = 0xcbf29ce484222325u;

// ---- the cache ---------------------------------------------------------------------------------
static uint64_t hash_bytes(uint64_t h, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 0x100000001b3u; // FNV-1a
    return h;
}

static uint64_t hash_file(uint64_t h, const char *path) {
    char buffer[1 << 16];
    FILE *f = fopen(path, "rb");
    for (size_t n; f && (n = fread(buffer, 1, sizeof buffer, f)) > 0;) h = hash_bytes(h, buffer, n);
    if (f) fclose(f);
    return h;
}

// Of all sources, whatever the order of the folder. False when the folder cannot be read.
static bool hash_sources(Arena *a, const char *dir, uint64_t *out) {
    DIR *d = opendir(dir);
    if (!d) return false;
    for (struct dirent *e; (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || (strcmp(dot, ".c") && strcmp(dot, ".h") && strcmp(dot, ".def"))) continue;
        uint64_t h = hash_bytes(HASH_START, e->d_name, strlen(e->d_name));
        *out += hash_file(h, arena_printf(a, "%s/%s", dir, e->d_name));
    }
    closedir(d);
    return true;
}

static const char compile_flags[] =
    "-std=c17 -D_GNU_SOURCE -DNDEBUG -O2 -fPIC -ffunction-sections -fdata-sections -c";

static uint64_t hash_commands(const RuntimeBuild *b) {
    const char *version = "";
    Argv v = {0};
    argv_words(b->t->arena, &v, b->t->cc);
    argv_add(b->t->arena, &v, "--version");
    tool_try(b->t, &v, &version);
    const char *text = arena_printf(b->t->arena, "%s|%s|%s|%s|%s|%s|%s", b->t->cc, b->t->machine,
                                    version, compile_flags, b->defines, sources[0], sources[1]);
    return hash_bytes(HASH_START, text, strlen(text));
}

// The folder cnxc keeps compiled runtimes in, made when need be; NULL when there cannot be one.
static const char *cache_dir(Arena *a) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (!base || *base != '/') {
        if (!home || *home != '/') return NULL;
        base = arena_printf(a, "%s/.cache", home);
    }
    const char *dir = arena_printf(a, "%s/cnxc", base);
    (void)mkdir(base, 0700);
    (void)mkdir(dir, 0777);
    return access(dir, W_OK) == 0 ? dir : NULL;
}

// Beside the archives: the hash of both, by which damage is noticed.
static const char sum_name[] = "sum";

static const char *sum_of(Arena *a, const char *dir) {
    uint64_t h = HASH_START;
    for (int i = 0; i < 2; i++) h = hash_file(h, arena_printf(a, "%s/%s", dir, archives[i]));
    return arena_printf(a, "%016llx", (unsigned long long)h);
}

// The folder holds both archives as they were written.
static bool archives_in(Arena *a, const char *dir) {
    char sum[17] = "";
    FILE *f = fopen(arena_printf(a, "%s/%s", dir, sum_name), "rb");
    bool whole = f && fread(sum, 1, 16, f) == 16 && strcmp(sum, sum_of(a, dir)) == 0;
    if (f) fclose(f);
    return whole;
}

// ---- compiling ---------------------------------------------------------------------------------
enum { MAX_JOBS = 16 };

static Argv compile_command(const RuntimeBuild *b) {
    Argv v = {0};
    argv_words(b->t->arena, &v, b->t->cc);
    argv_words(b->t->arena, &v, compile_flags);
    argv_words(b->t->arena, &v, b->defines);
    return v;
}

// Compiles the files `names` in b->dir, a share of them in each of several drivers at once.
static bool compile_all(const RuntimeBuild *b, const char *names) {
    Arena *a = b->t->arena;
    Argv files = {0}, command[MAX_JOBS];
    argv_words(a, &files, names);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int jobs = cpus < 1 ? 1 : cpus > MAX_JOBS ? MAX_JOBS : (int)cpus;
    if (jobs > files.n) jobs = files.n;
    for (int i = 0; i < jobs; i++) command[i] = compile_command(b);
    for (int i = 0; i < files.n; i++)
        argv_add(a, &command[i % jobs], arena_printf(a, "%s/%s", b->source_dir, files.v[i]));
    pid_t pid[MAX_JOBS];
    const char *log[MAX_JOBS];
    bool ok = true;
    for (int i = 0; i < jobs; i++) {
        log[i] = arena_printf(a, "%s/log%d", b->dir, i);
        pid[i] = tool_start(b->t, &command[i], b->dir, log[i]);
    }
    for (int i = 0; i < jobs; i++)
        ok = pid[i] &&
             tool_wait(b->t, pid[i], arena_printf(a, "compiling the runtime: %s", b->t->cc),
                       log[i]) &&
             ok;
    return ok;
}

// Archives the objects of `names` and removes them.
static bool archive_all(const RuntimeBuild *b, const char *archive, const char *names) {
    Arena *a = b->t->arena;
    Argv files = {0}, v = {0};
    argv_words(a, &files, names);
    argv_add(a, &v, b->t->ar);
    argv_add(a, &v, "qcsD");
    argv_add(a, &v, arena_printf(a, "%s/%s", b->dir, archive));
    int first = v.n;
    for (int i = 0; i < files.n; i++) {
        int n = (int)strlen(files.v[i]);
        argv_add(a, &v, arena_printf(a, "%s/%.*s.o", b->dir, n - 2, files.v[i]));
    }
    int end = v.n;
    bool ok = tool_run(b->t, &v);
    for (int i = first; i < end; i++) unlink(v.v[i]);
    return ok;
}

// Moves the archives, and last their sum, into the folder they are kept in, over what is there.
static bool keep_runtime(const RuntimeBuild *b, const char *kept) {
    Arena *a = b->t->arena;
    const char *names[] = {archives[0], archives[1], sum_name}, *sum = sum_of(a, b->dir);
    bool ok = file_write(arena_printf(a, "%s/%s", b->dir, sum_name), sum, strlen(sum), b->t->diag);
    (void)mkdir(kept, 0777);
    for (int i = 0; i < 3 && ok; i++) {
        ok = rename(arena_printf(a, "%s/%s", b->dir, names[i]),
                    arena_printf(a, "%s/%s", kept, names[i])) == 0;
        if (!ok) diag_error(b->t->diag, (Loc){0}, "cannot write %s: %s", kept, strerror(errno));
    }
    return ok;
}

// Compiles the archives in a folder beside the one they are kept in.
static bool compile_runtime(RuntimeBuild *b, const char *parent, const char *kept) {
    Toolchain *t = b->t;
    Scratch scratch;
    b->dir = arena_printf(t->arena, "%s/building-XXXXXX", parent);
    if (!scratch_open(&scratch, b->dir)) {
        diag_error(t->diag, (Loc){0}, "cannot write %s: %s", b->dir, strerror(errno));
        return false;
    }
    if (access(kept, F_OK) == 0) fprintf(stderr, "note: the runtime in %s is damaged\n", kept);
    fprintf(stderr, "note: compiling the runtime for %s with %s%s%s\n", t->machine, t->cc,
            t->runtime_temporary ? "" : "; it is kept in ", t->runtime_temporary ? "" : kept);
    bool ok = true;
    for (int i = 0; i < 2 && ok; i++)
        ok = compile_all(b, sources[i]) && archive_all(b, archives[i], sources[i]);
    ok = ok && keep_runtime(b, kept);
    scratch_close(&scratch);
    return ok;
}

bool toolchain_runtime(Toolchain *t, const CodegenOptions *opt) {
    t->openmp = CNX_OPENMP_FLAG;
    t->runtime_libs = CNX_RUNTIME_LIBS;
    t->codec_libs = CNX_CODEC_LIBS;
    t->runtime_dir = opt->runtime_dir;
    if (opt->runtime_given &&
        access(arena_printf(t->arena, "%s/%s", t->runtime_dir, archives[0]), R_OK)) {
        diag_error(t->diag, (Loc){0}, "--runtime-dir=%s: no %s there: %s", t->runtime_dir,
                   archives[0], strerror(errno));
        return false;
    }
    if (!t->cross) return true;
    RuntimeBuild b = {.t = t, .source_dir = opt->runtime_source, .defines = find_optional(t)};
    if (opt->runtime_given) return true;
    uint64_t hash = 0;
    if (!hash_sources(t->arena, b.source_dir, &hash)) {
        diag_error(t->diag, (Loc){0}, "cannot read the runtime's sources in %s", b.source_dir);
        diag_hint(t->diag, "--runtime-dir names a folder with libcnxrt.a and libcnxrt_cli.a for %s",
                  t->machine);
        return false;
    }
    const char *cache = cache_dir(t->arena), *parent = cache ? cache : t->dir;
    t->runtime_temporary = !cache;
    t->runtime_dir = arena_printf(t->arena, "%s/%s-%016llx", parent, t->machine,
                                  (unsigned long long)(hash + hash_commands(&b)));
    return archives_in(t->arena, t->runtime_dir) || compile_runtime(&b, parent, t->runtime_dir);
}
