// From a spec to planned schedules and the description codegen embeds, for `build` and `emit`.
// Part of the command: it sees passes, codegen and runtime.
#ifndef CNX_FRONTEND_CMD_COMPILE_H
#define CNX_FRONTEND_CMD_COMPILE_H
#include "../codegen/codegen.h"
#include "../passes/pipeline.h"
#include "train.h"

// The models of an artifact: each has programs, parameters and a pipeline run of its own.
enum { MODEL_INFER, MODEL_TRAIN, MODEL_PRETRAIN, MODELS };

typedef struct {
    Pipeline pipeline;
    const Graph *source;        // infer, train or pretrain as the spec describes it
    const TrainModel *training; // NULL for inference
    CodegenModel model;
} CompiledModel;

typedef struct {
    CompiledModel v[MODELS]; // those not built are empty
} Compiled;

// Builds the programs of one model of spec and runs the pipeline (opt NULL: not at all); fills
// model as far as schedules exist. False after errors on d.
bool compile_model(CompiledModel *c, int which, const ModelSpec *spec, const Target *target,
                   const PipelineOptions *opt, Diag *d);
// The programs (PROGRAM_*) to build of those: pre-training that was not asked for by name is left
// out, with a note, where it cannot be packed.
unsigned compile_programs(const ModelSpec *spec, unsigned programs, const Target *target,
                          const PipelineOptions *opt);
// Inference and the training models of `programs`, in one description: v[0].model.
bool compile_spec(Compiled *c, const ModelSpec *spec, unsigned programs, const Target *target,
                  const PipelineOptions *opt, Diag *d);
// Loads a checkpoint into the n versions of a model: into one, as program prepare of inference
// makes it (model.embedded); into several, or in another dtype than "F32" ("F16", "BF16"), raw,
// once for all (model.raw). False after errors on d.
bool compile_embed(Compiled *versions, int n, const char *weights, const char *dtype, Diag *d);
// Prepared weights of a model from a checkpoint (weight_bytes, arena memory); NULL after errors on
// d.
char *compile_prepared(CompiledModel *c, const char *weights, Diag *d);
// What the spec says about precisions, and over it what opt does. NULL after errors on d.
PrecisionPlan *compile_plan(const ModelSpec *spec, const PipelineOptions *opt, Diag *d);
// Names on stderr the rules of that plan, and the lines of a file of ranges, which no layer of c is
// meant by.
void compile_note_rules(const Compiled *c, const ModelSpec *spec, const PipelineOptions *opt,
                        Diag *d);
// Recipes, initial values, drop keys and geometry of a training model (cmd_tables.c).
void compile_tables(CompiledModel *c, int which, const ModelSpec *spec, bool packed);

#endif
