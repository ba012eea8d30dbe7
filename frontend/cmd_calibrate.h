// Calibration of int8: the ranges of the inputs of linears, found by running the fp32 network on
// pictures in this process; and how the finished network compares with it. Part of the command.
#ifndef CNX_FRONTEND_CMD_CALIBRATE_H
#define CNX_FRONTEND_CMD_CALIBRATE_H
#include "cmd_compile.h"

typedef struct {
    const ModelSpec *spec;
    const char *weights;  // the checkpoint
    const char *pictures; // a data set, as for `OUT eval`
    int64_t count;        // pictures to calibrate with; four times as many others are compared
} Calibration;

// Adds the ranges of all labelled linears of program infer to the plan. False after errors on d.
bool calibrate_ranges(const Calibration *c, PrecisionPlan *plan, Diag *d);
// Prints how logits under the plan compare with fp32. False after errors on d.
bool calibrate_report(const Calibration *c, const PrecisionPlan *plan, FILE *out, Diag *d);
// The ranges of a plan as text that ranges_parse reads.
const char *ranges_print(Arena *a, const PrecisionPlan *plan);
#endif
