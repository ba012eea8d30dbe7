// The tools that make artifacts, started without a shell, and what they are for. Private to
// codegen/.
#ifndef CNX_CODEGEN_TOOLCHAIN_H
#define CNX_CODEGEN_TOOLCHAIN_H
#include "module.h"

typedef VEC(char *) Argv;
void argv_add(Arena *a, Argv *v, const char *word);
void argv_words(Arena *a, Argv *v, const char *words); // separated by spaces

// A compiler for the artifact's target, and the runtime that was compiled with it or its like.
typedef struct {
    Arena *arena;
    Diag *diag;
    const char *dir;     // of the artifact's parts, for temporary files
    const char *cc;      // words of the driver's command
    const char *machine; // what it compiles for: "aarch64-linux-gnu"
    const char *ar, *objcopy;
    bool cross;                            // for another architecture than cnxc's own
    const char *openmp;                    // flag, or ""
    const char *runtime_dir;               // where libcnxrt.a and libcnxrt_cli.a lie
    bool runtime_temporary;                // in dir
    const char *runtime_libs, *codec_libs; // what they need: archives, separated by spaces
} Toolchain;

// ---- toolchain.c -------------------------------------------------------------------------------
// Finds the driver (opt->cc, or cc, or TRIPLE-gcc for another architecture than cnxc's own) and
// checks that it compiles for the target. False with an error on the diagnostics of f.
bool toolchain_open(Toolchain *t, const Artifact *f);
// A path in t->dir.
const char *toolchain_file(const Toolchain *t, const char *file);
// Runs a command; what it prints is shown when it fails.
bool tool_run(const Toolchain *t, Argv *argv);
// Whether a command succeeds; what it prints, or why it cannot be started, goes to *out (may be
// NULL).
bool tool_try(const Toolchain *t, Argv *argv, const char **out);
// Starts a command in the folder `dir`, what it prints going to the file `log`; the process, 0 when
// it cannot be started. tool_wait reports like tool_run.
pid_t tool_start(const Toolchain *t, Argv *argv, const char *dir, const char *log);
bool tool_wait(const Toolchain *t, pid_t pid, const char *tool, const char *log);

// ---- toolchain_runtime.c -----------------------------------------------------------------------
// Fills what t says of the runtime: the archives cnxc was built or installed with where they fit,
// else ones compiled from the runtime's sources, kept in the user's cache. False after an error.
bool toolchain_runtime(Toolchain *t, const CodegenOptions *opt);

#endif
