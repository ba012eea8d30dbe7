// From a spec to planned schedules and the description codegen embeds, for `build` and `emit`.
// Part of the command: it sees passes, codegen and runtime.
#ifndef CNX_FRONTEND_CMD_COMPILE_H
#define CNX_FRONTEND_CMD_COMPILE_H
#include "../codegen/codegen.h"
#include "../passes/pipeline.h"
#include "spec.h"

typedef struct {
    Pipeline pipeline;
    Graph *source; // program infer as the spec describes it
    CodegenModel model;
} Compiled;

// Builds the programs of spec and runs the pipeline (opt NULL: not at all); fills model as far as
// schedules exist. False after errors on d.
bool compile_spec(Compiled *c, const ModelSpec *spec, const Target *target,
                  const PipelineOptions *opt, Diag *d);
// Loads a checkpoint, runs program prepare on it and sets model.embedded. False after errors on d.
bool compile_embed(Compiled *c, const char *weights, Diag *d);

#endif
