// The main function of executables: picks the command, parses its options, runs it.
#include "cli_run.h"
#include <stdlib.h>
#include <string.h>

static int command_run(Cli *c) {
    switch (c->command->letter) {
    case 'n': return cli_info(c);
    case 'i': return cli_infer(c);
    case 'f': return cli_features(c);
    case 'm': return cli_embed(c);
    case 'e': return cli_eval(c);
    case 'g': return cli_grad(c);
    case 'p':
    case 'u':
    case 't': return cli_train(c);
    case 'r': return cli_reconstruct(c);
    case 'l': return cli_probe(c);
    case 'k': return cli_knn(c);
    default: return cli_bench(c);
    }
}

static int command_unknown(const char *self, const char *name) {
    const char *nearest = cli_command_nearest(name);
    if (nearest)
        fprintf(stderr, "%s: unknown command %s; did you mean %s?\n", self, name, nearest);
    else
        fprintf(stderr, "%s: unknown command %s; see %s --help\n", self, name, self);
    return CLI_USAGE;
}

// "help [COMMAND]" and "--help".
static int help(const char *self, const CnxrtModel *model, const char *name) {
    const CliCommand *c = name ? cli_command_find(name) : NULL;
    if (name && !c) return command_unknown(self, name);
    if (c)
        cli_command_help(stdout, self, c);
    else
        cli_help(stdout, self, model);
    return CLI_OK;
}

static int dispatch(const CnxrtModel *const *versions, const char *self, int argc, char **argv) {
    CnxrtError err = {0};
    const CnxrtModel *model;
    if (cnxrt_pick(versions, &model, &err) != CNXRT_OK) {
        fprintf(stderr, "%s: %s\n", self, err.text ? err.text : "out of memory");
        cnxrt_error_free(&err);
        return CLI_ERROR;
    }
    if (argc < 2) {
        cli_help(stderr, self, model);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help(self, model, argc > 2 ? argv[2] : NULL);
    Cli c = {.versions = versions, .model = model, .self = self, .command = cli_command_find(name)};
    if (!c.command) return command_unknown(self, name);
    if (!cli_args_parse(&c.args, self, c.command, argc - 2, argv + 2)) return CLI_USAGE;
    if (c.args.help) return help(self, model, name);
    int status = command_run(&c);
    cli_close(&c);
    return status;
}

int cnxrt_main(const CnxrtModel *const *versions, int argc, char **argv) {
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *self = slash ? slash + 1 : argc > 0 ? argv[0] : versions[0]->name;
    int status = dispatch(versions, self, argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "%s: cannot write to standard output\n", self);
        if (status == CLI_OK || status == CLI_SKIPPED) status = CLI_ERROR;
    }
    return status;
}
