// The subcommands of cnxc and what they share. Each returns the exit status: 0 done, 1 the input is
// at fault, 2 wrong usage.
#ifndef CNX_FRONTEND_CMD_H
#define CNX_FRONTEND_CMD_H
#include "../passes/pipeline.h"
#include "options.h"
#include "spec.h"

enum { EXIT_DONE = 0, EXIT_INPUT = 1, EXIT_USAGE = 2 };

int cmd_check(Arena *a, int argc, char *const *argv);
int cmd_emit(Arena *a, int argc, char *const *argv);
int cmd_opt(Arena *a, int argc, char *const *argv);
int cmd_eval(Arena *a, int argc, char *const *argv);
int cmd_build(Arena *a, int argc, char *const *argv);
int cmd_targets(Arena *a, int argc, char *const *argv);
int cmd_weights(Arena *a, int argc, char *const *argv);

// ---- shared (cmd_common.c) ---------------------------------------------------------------------

// Parses and handles --help and the count of positional arguments. Returns -1 to go on, else the
// exit status.
int cmd_begin(Options *o, Arena *a, const Command *c, int argc, char *const *argv, int lo, int hi);

// Whether there are at least n arguments; prints the usage otherwise.
bool cmd_wants(const Options *o, int n);

#define OPTION_SET                                                                                 \
    {                                                                                              \
        "set", 0, "KEY.PATH=VALUE",                                                                \
            "override a field of the spec, e.g. --set=input.channels=4,\n"                         \
            "--set head.classes=7, --set stages.1.dim=96; may be repeated"                         \
    }
#define OPTION_PROGRAMS                                                                            \
    {                                                                                              \
        "programs", 0, "LIST",                                                                     \
            "programs of the spec: infer,train,pretrain (default: all it supports)"                \
    }
#define OPTION_TARGET                                                                              \
    { "target", 0, "ROW", "row of 'cnxc targets', or native (the default: this machine)" }
#define OPTION_TARGETS                                                                             \
    {                                                                                              \
        "target", 0, "ROW,...",                                                                    \
            "rows of 'cnxc targets', or native (the default: this machine);\n"                     \
            "several of one architecture go into one file, which picks at start"                   \
    }
#define OPTIONS_PIPELINE                                                                           \
    {"passes", 0, "LIST", "run just these passes, comma-separated (see 'cnxc opt --help')"},       \
        {"stop-after", 0, "PASS", "run no pass after this one"},                                   \
        {"dump", 0, "PASS|all|changed",                                                            \
         "print the text after that pass, after every pass, or after\n"                            \
         "those that changed something, to standard error"},                                       \
        {"unoptimised", 0, NULL,                                                                   \
         "leave out the passes that only optimise: no fusion, every op\n"                          \
         "by itself; slower, and the reference for the optimised code"},                           \
        {"sparse", 0, "packed|dense",                                                              \
         "the masked encoder of pretrain: on the visible rows alone (default),\n"                  \
         "or on whole maps, as reference and for comparison"},                                     \
        {"precision", 0, "LIST",                                                                   \
         "fp32 (default), bf16 or int8; also by layer: int8,head=bf16,stages.0=fp32"},             \
        {"ranges", 0, "FILE", "int8: the ranges of the inputs of layers, from --save-ranges"},     \
        {"time", 0, NULL, "print the time and rewrites of each pass, to standard error"}, {        \
        "rewrite-limit", 0, "N", "stop rewriting after N rewrites, to bisect a bad one"            \
    }

// A path relative to the folder this command lies in.
const char *cmd_near(Arena *a, const char *relative);
YamlDirs cmd_model_dirs(Arena *a);
// The spec named by the option's first argument with --set and --programs applied; NULL after
// errors on d.
ModelSpec *cmd_spec(const Options *o, Diag *d);
// --target. NULL after printing the error.
const Target *cmd_target(const Options *o);
// --target as a list of *n rows of one architecture, in the order of the table; of one row where
// `single`. NULL after printing the error.
const Target **cmd_target_list(const Options *o, bool single, int *n);
// Pipeline flags. Returns -1 to go on, else the exit status after printing the error.
int cmd_pipeline_options(const Options *o, PipelineOptions *out);
// Writes text to -o FILE or standard output. False after printing the error.
bool cmd_write(const Options *o, const char *text, size_t n);
// The element type f32, f16 or bf16 as tensor files call it; NULL after printing the error.
const char *cmd_dtype(const Options *o, const char *option);
// A whole file or, for "-", standard input. NULL after errors on d.
char *cmd_read(Arena *a, Diag *d, const char *path, size_t *n);
// "1,234,567"
const char *cmd_thousands(Arena *a, int64_t v);

#endif
