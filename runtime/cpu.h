// Does this CPU (and its operating system) have what generated code needs?
#ifndef CNXRT_CPU_H
#define CNXRT_CPU_H
#include "cnxrt_weights.h"
#include <stdbool.h>

// Whether the CPU has every feature of a list as below.
bool cnxrt_cpu_can(const char *features);
// Checks a comma-separated list of LLVM feature names (cnxrt_cpu.def). CNXRT_ERROR_CPU with a
// message that lists every feature the CPU lacks; names the runtime does not know count as lacking.
CnxrtStatus cnxrt_cpu_check(const char *target, const char *features, CnxrtError *err);

#endif
