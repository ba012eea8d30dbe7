// The cnxc command: picks the subcommand. With cmd_*.c the only code that sees every layer.
#include "cmd.h"

static const struct {
    const char *name;
    int (*run)(Arena *a, int argc, char *const *argv);
    const char *doc;
} commands[] = {
    {"check", cmd_check, "validate a spec and print its shapes, parameters and MACs"},
    {"build", cmd_build, "compile a spec to an executable, library or object"},
    {"emit", cmd_emit, "print a spec at any stage of compilation"},
    {"opt", cmd_opt, "run passes over IR text"},
    {"eval", cmd_eval, "run IR text by its naive definition"},
    {"weights", cmd_weights, "inspect, convert or make checkpoints"},
    {"targets", cmd_targets, "list the CPUs code can be generated for"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out) {
    fprintf(out, "cnxc - compiles ConvNeXt V1/V2 networks, described in YAML, to native code\n\n"
                 "Usage: cnxc COMMAND [arguments]\n\nCommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].doc);
    fprintf(out, "\n  --help     this text; 'cnxc COMMAND --help' describes a command\n"
                 "  --version  print the version\n\n"
                 "Start with:\n"
                 "  cnxc check convnextv2_atto\n"
                 "  cnxc build convnextv2_atto -o atto\n"
                 "  ./atto infer --weights checkpoint.safetensors image.jpg\n\n"
                 "Exit status: 0 done, 1 the input is at fault, 2 wrong usage.\n");
}

static int unknown(const char *name) {
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    fprintf(stderr, "cnxc: error: unknown command '%s'\n", name);
    const char *near = nearest_name(name, names, COMMANDS);
    if (near) fprintf(stderr, "    hint: did you mean '%s'?\n", near);
    fprintf(stderr, "    hint: 'cnxc --help' lists all\n");
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return EXIT_DONE;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("cnxc %s\n", CNX_VERSION);
        return EXIT_DONE;
    }
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name)) continue;
        Arena *a = arena_new();
        int status = commands[i].run(a, argc - 2, argv + 2);
        arena_free(a);
        return status;
    }
    return unknown(argv[1]);
}
