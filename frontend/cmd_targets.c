// cnxc targets: the target table.
#include "cmd.h"
#include "../codegen/codegen.h"

static const Command command = {
    .name = "targets",
    .usage = "",
    .summary = "list the CPUs code can be generated for",
    .help = "Prints the target table; the row that describes this machine is marked. Give a row's\n"
            "name to --target of 'cnxc build' and 'cnxc emit'.",
};

int cmd_targets(Arena *a, int argc, char *const *argv) {
    Options o;
    int status = cmd_begin(&o, a, &command, argc, argv, 0, 0);
    if (status >= 0) return status;
    const Target *native = codegen_native_target(a);
    printf("  %-12s %-6s %-9s %-4s %-9s %-5s %-6s %s\n", "target", "vector", "registers", "fma",
           "fma ports", "L1", "L2", "what it is");
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        bool here = native && strcmp(native->name, t->name) == 0;
        printf("%c %-12s %-6d %-9d %-4s %-9d %-5s %-6s %s\n", here ? '*' : ' ', t->name,
               t->vector_bits, t->registers, t->fma ? "yes" : "no", t->fma_ports,
               arena_printf(a, "%dK", t->l1 >> 10), arena_printf(a, "%dK", t->l2 >> 10), t->doc);
    }
    if (native) printf("\n* --target=native here: %s, LLVM CPU %s\n", native->name, native->cpu);
    return EXIT_DONE;
}
