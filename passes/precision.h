// Which layers compute in which precision: a default, rules by label, and for int8 the ranges of
// the layers' inputs that calibration found. Parsed from the texts of the command line and the
// spec.
#ifndef CNX_PASSES_PRECISION_H
#define CNX_PASSES_PRECISION_H
#include "../ir/diag.h"

typedef enum { PRECISION_FP32, PRECISION_BF16, PRECISION_INT8, PRECISIONS } Precision;
const char *precision_name(Precision p);

typedef struct {
    const char *pattern; // a label, what labels begin with up to a dot, or a glob of labels
    Precision precision;
    Loc loc; // of the spec; no place: of the command line
} PrecisionRule;

typedef struct {
    const char *label;
    double low, high;
    const char *file; // where it was read, line `line`; NULL: calibration found it
    int line;
} ActivationRange;

typedef struct {
    Precision base;
    bool given;               // the default was named
    bool alone;               // nothing else has a say: not the spec
    VEC(PrecisionRule) rules; // the last that matches decides
    VEC(ActivationRange) ranges;
} PrecisionPlan;

// Adds "int8", "bf16,head=fp32,stages.0=bf16" to the plan. False after an error at loc, naming
// `what`.
bool precision_parse(PrecisionPlan *plan, Arena *a, Diag *d, Loc loc, const char *what,
                     const char *text);
// What `more` says beside what the plan says; where both do, more.
void precision_merge(PrecisionPlan *plan, Arena *a, const PrecisionPlan *more);
// Adds lines "label low high". False after an error.
bool ranges_parse(PrecisionPlan *plan, Arena *a, Diag *d, const char *file, const char *text);
// A rule with that pattern is meant for the layer.
bool precision_matches(const char *pattern, const char *label);
// The precision the plan asks for; label may be NULL. *named: by a rule, not by default.
Precision precision_of(const PrecisionPlan *plan, const char *label, bool *named);
// The plan has a layer in precision p by default or by a rule.
bool precision_uses(const PrecisionPlan *plan, Precision p);
#endif
