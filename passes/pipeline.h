// The ordered pass table (pipeline.def) and the one runner.
#ifndef CNX_PASSES_PIPELINE_H
#define CNX_PASSES_PIPELINE_H
#include "../ir/graph.h"
#include "../ir/schedule.h"
#include "precision.h"

typedef enum { LEVEL_GRAPH, LEVEL_FUSED, LEVEL_SCHEDULE, LEVEL_MEMORY } Level;

// How masked pre-training runs its encoder: on packed visible rows, or on whole maps as written.
typedef enum { SPARSE_PACKED, SPARSE_DENSE } Sparse;

// What a pass sees and may replace.
typedef struct {
    Arena *arena;
    const Target *target;
    Module *module;                  // graphs by program; passes on graphs replace entries
    VEC(Schedule *) schedules;       // filled by the schedule pass, one per program
    int64_t rewrites, rewrite_limit; // limit < 0: none. A pass asks pass_may_rewrite() before each
    bool fuse_steps; // the scheduler may make one step of several ops: not where unoptimised
    const PrecisionPlan *precision; // NULL: fp32
    Diag *diag; // where passes report what the input's text asks for and they cannot do
} Pipeline;
bool pass_may_rewrite(Pipeline *p);

typedef struct {
    const char *passes;     // comma-separated names, NULL: the whole table
    const char *stop_after; // pass name or NULL
    const char *dump;       // pass name, "all", "changed" or NULL: print after it to dump_out
    Level stop_level;       // run no pass beyond this level
    bool unoptimised;       // leave out the passes that only optimise: the oracle
    Sparse sparse;          // SPARSE_DENSE leaves out the passes that pack
    const PrecisionPlan *precision; // of linears; NULL: fp32
    bool time;                      // print seconds per pass to stderr
    int64_t rewrite_limit;          // -1: none
    FILE *dump_out;
} PipelineOptions;

// Runs the table over p. Unknown names and unmet needs are user errors on d. Returns false then.
bool pipeline_run(Pipeline *p, const PipelineOptions *opt, Diag *d);
void pipeline_print(Str *out, const Pipeline *p); // whatever level p is at, as text
void pipeline_help(FILE *out);                    // the table, for --help

#endif
