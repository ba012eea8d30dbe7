// The target table, expanded from targets.def.
#include "target.h"

const Target target_table[] = {
#define TARGET(label, ...) {.name = label, __VA_ARGS__},
#include "targets.def"
#undef TARGET
};

const int target_count = (int)(sizeof target_table / sizeof target_table[0]);

const Target *target_find(const char *name) {
    for (int i = 0; i < target_count; i++)
        if (strcmp(target_table[i].name, name) == 0) return &target_table[i];
    return NULL;
}
