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

// What else the row gives, in words.
static const char *units(Arena *a, const Target *t) {
    static const char *const bf16[] = {
        [BF16_NONE] = "", [BF16_VDPBF16PS] = " vdpbf16ps", [BF16_BFDOT] = " bfdot"};
    static const char *const int8[] = {[INT8_NONE] = "",
                                       [INT8_VPDPBUSD] = " vpdpbusd",
                                       [INT8_SDOT] = " sdot",
                                       [INT8_USDOT] = " usdot",
                                       [INT8_PMADDWD] = " pmaddwd"};
    const char *s = arena_printf(a, "%s%s%s%s", t->fp16 ? " fp16" : "", bf16[t->bf16_dot],
                                 int8[t->int8_dot], t->amx ? " amx" : "");
    return *s ? s + 1 : "-";
}

// Bits of a vector; of scalable ones as many are used of what the CPU has.
static const char *width(Arena *a, const Target *t) {
    if (t->vector_bits == 32) return "scalar";
    return arena_printf(a, "%d%s", t->vector_bits, t->vscale ? "+" : "");
}

int cmd_targets(Arena *a, int argc, char *const *argv) {
    Options o;
    int status = cmd_begin(&o, a, &command, argc, argv, 0, 0);
    if (status >= 0) return status;
    const Target *native = codegen_native_target(a);
    static const char head[] = "  %-14s %-6s %-9s %-3s %-9s %-28s %-5s %-6s %s\n";
    printf(head, "target", "vector", "registers", "fma", "fma ports", "converts, dot products",
           "L1", "L2", "what it is");
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        bool here = native && strcmp(native->name, t->name) == 0;
        printf("%c %-14s %-6s %-9d %-3s %-9d %-28s %-5s %-6s %s\n", here ? '*' : ' ', t->name,
               width(a, t), t->registers, t->fma ? "yes" : "no", t->fma_ports, units(a, t),
               arena_printf(a, "%dK", t->l1 >> 10), arena_printf(a, "%dK", t->l2 >> 10), t->doc);
    }
    if (native) printf("\n* --target=native here: %s, LLVM CPU %s\n", native->name, native->cpu);
    return EXIT_DONE;
}
