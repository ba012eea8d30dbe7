// Running the compiler driver and binutils, and checking that they are for the artifact's target.
#include "toolchain.h"
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

void argv_add(Arena *a, Argv *v, const char *word) { vec_push(a, v, arena_strdup(a, word)); }

void argv_words(Arena *a, Argv *v, const char *words) {
    for (const char *p = words; *p;) {
        size_t n = strcspn(p, " ");
        if (n) vec_push(a, v, arena_strndup(a, p, n));
        p += n + (p[n] == ' ');
    }
}

const char *toolchain_file(const Toolchain *t, const char *file) {
    return arena_printf(t->arena, "%s/%s", t->dir, file);
}

// ---- processes ---------------------------------------------------------------------------------
// What a log holds, without its last newlines.
static const char *log_text(Arena *a, const char *log) {
    char text[4096] = "";
    FILE *f = fopen(log, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    while (n && text[n - 1] == '\n') text[--n] = 0;
    return arena_strdup(a, text);
}

// The error of posix_spawnp, or 0.
static int start(Argv *argv, Arena *a, const char *dir, const char *log, pid_t *pid) {
    vec_push(a, argv, NULL);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    if (dir) posix_spawn_file_actions_addchdir_np(&actions, dir);
    int error = posix_spawnp(pid, argv->v[0], &actions, NULL, argv->v, environ);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static bool finish(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

pid_t tool_start(const Toolchain *t, Argv *argv, const char *dir, const char *log) {
    pid_t pid = 0;
    int error = start(argv, t->arena, dir, log, &pid);
    if (!error) return pid;
    diag_error(t->diag, (Loc){0}, "cannot run %s: %s", argv->v[0], strerror(error));
    diag_hint(t->diag, "a C compiler and binutils link artifacts; --cc names another driver");
    return 0;
}

bool tool_wait(const Toolchain *t, pid_t pid, const char *tool, const char *log) {
    bool ok = finish(pid);
    if (!ok) diag_error(t->diag, (Loc){0}, "%s failed:\n%s", tool, log_text(t->arena, log));
    unlink(log);
    return ok;
}

bool tool_run(const Toolchain *t, Argv *argv) {
    const char *log = toolchain_file(t, "log");
    pid_t pid = tool_start(t, argv, NULL, log);
    return pid && tool_wait(t, pid, argv->v[0], log);
}

bool tool_try(const Toolchain *t, Argv *argv, const char **out) {
    const char *log = toolchain_file(t, "log");
    pid_t pid;
    int error = start(argv, t->arena, NULL, log, &pid);
    bool ok = !error && finish(pid);
    if (out) *out = error ? arena_strdup(t->arena, strerror(error)) : log_text(t->arena, log);
    unlink(log);
    return ok;
}

// ---- the driver --------------------------------------------------------------------------------
static size_t arch_length(const char *triple) { return strcspn(triple, "-"); }

static bool same_arch(const char *a, const char *b) {
    size_t n = arch_length(a);
    return n == arch_length(b) && memcmp(a, b, n) == 0;
}

static bool driver_answer(const Toolchain *t, const char *question, const char **out) {
    Argv v = {0};
    argv_words(t->arena, &v, t->cc);
    argv_add(t->arena, &v, question);
    return tool_try(t, &v, out) && **out;
}

// The program `tool` that belongs to the driver, as it names it.
static const char *driver_tool(const Toolchain *t, const char *tool) {
    const char *path;
    bool ok = driver_answer(t, arena_printf(t->arena, "-print-prog-name=%s", tool), &path);
    return ok && !strpbrk(path, " \n") ? path : tool;
}

static void hint_driver(Toolchain *t, const Target *target) {
    if (t->cross)
        diag_hint(t->diag,
                  "--cc names a compiler for %s, such as %s-gcc (Debian: apt-get install gcc-%s)",
                  target->name, target->triple, target->triple);
    else
        diag_hint(t->diag, "a C compiler and binutils link artifacts; --cc names another driver");
}

bool toolchain_open(Toolchain *t, const Artifact *f) {
    const Target *target = f->target;
    *t = (Toolchain){.arena = f->arena, .diag = f->diag, .dir = f->dir, .cc = f->opt->cc};
    t->cross = !same_arch(target->triple, CNX_ARCH);
    if (!t->cc) t->cc = t->cross ? arena_printf(t->arena, "%s-gcc", target->triple) : CNX_CC;
    if (!driver_answer(t, "-dumpmachine", &t->machine)) {
        diag_error(t->diag, (Loc){0}, "cannot run the compiler %s%s%s", t->cc,
                   *t->machine ? ": " : "", t->machine);
        hint_driver(t, target);
        return false;
    }
    if (!same_arch(t->machine, target->triple)) {
        diag_error(t->diag, (Loc){0}, "%s compiles for %s, but target %s is for %.*s", t->cc,
                   t->machine, target->name, (int)arch_length(target->triple), target->triple);
        hint_driver(t, target);
        return false;
    }
    t->ar = driver_tool(t, "ar");
    t->objcopy = driver_tool(t, "objcopy");
    return true;
}
