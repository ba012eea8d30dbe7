// The texts that say which layers compute in which precision.
#include "precision.h"
#include <float.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>

static const char *const names[PRECISIONS] = {"fp32", "bf16", "int8"};

const char *precision_name(Precision p) { return names[p]; }

static bool parse_name(Arena *a, Diag *d, Loc loc, const char *what, const char *s, size_t n,
                       Precision *out) {
    for (int i = 0; i < PRECISIONS; i++)
        if (strlen(names[i]) == n && memcmp(names[i], s, n) == 0) {
            *out = (Precision)i;
            return true;
        }
    const char *text = arena_strndup(a, s, n), *near = nearest_name(text, names, PRECISIONS);
    diag_error(d, loc, "%s: unknown precision '%s'", what, text);
    diag_hint(d, near ? "did you mean '%s'?" : "fp32, bf16 or int8", near);
    return false;
}

bool precision_parse(PrecisionPlan *plan, Arena *a, Diag *d, Loc loc, const char *what,
                     const char *text) {
    for (const char *s = text;; s++) {
        size_t n = strcspn(s, ","), key = 0;
        while (key < n && s[key] != '=') key++;
        bool rule = key < n;
        Precision p;
        if (rule && key == 0) {
            diag_error(d, loc, "%s: no layer before '='", what);
            return false;
        }
        if (!parse_name(a, d, loc, what, rule ? s + key + 1 : s, rule ? n - key - 1 : n, &p))
            return false;
        if (rule)
            vec_push(a, &plan->rules, ((PrecisionRule){arena_strndup(a, s, key), p, loc}));
        else
            plan->base = p, plan->given = true;
        s += n;
        if (!*s) return true;
    }
}

void precision_merge(PrecisionPlan *plan, Arena *a, const PrecisionPlan *more) {
    if (more->given) plan->base = more->base;
    plan->given |= more->given;
    for (int i = 0; i < more->rules.n; i++) vec_push(a, &plan->rules, more->rules.v[i]);
    for (int i = 0; i < more->ranges.n; i++) vec_push(a, &plan->ranges, more->ranges.v[i]);
}

// "LAYER LEAST GREATEST", the numbers being those of f32.
static bool parse_range(Arena *a, const char *line, ActivationRange *out) {
    char label[256];
    int end = 0;
    bool ok = sscanf(line, "%255s %lf %lf %n", label, &out->low, &out->high, &end) == 3 &&
              !line[end] && out->low >= -(double)FLT_MAX && out->low <= out->high &&
              out->high <= (double)FLT_MAX;
    out->label = ok ? arena_strdup(a, label) : NULL;
    return ok;
}

// Reports a layer that an earlier line of the file names.
static bool named_before(const PrecisionPlan *plan, const ActivationRange *range, Diag *d) {
    for (int i = 0; i < plan->ranges.n; i++) {
        const ActivationRange *r = &plan->ranges.v[i];
        if (r->file != range->file || strcmp(r->label, range->label) != 0) continue;
        diag_error(d, (Loc){0}, "%s:%d: layer %s has a range in line %d", range->file, range->line,
                   range->label, r->line);
        return true;
    }
    return false;
}

bool ranges_parse(PrecisionPlan *plan, Arena *a, Diag *d, const char *file, const char *text) {
    int line = 1;
    for (const char *s = text; *s; line++) {
        size_t n = strcspn(s, "\n");
        const char *copy = arena_strndup(a, s, n);
        ActivationRange range;
        if (n && !parse_range(a, copy, &range)) {
            diag_error(d, (Loc){0},
                       "%s:%d: expected a layer, its least and its greatest input, "
                       "got '%s'",
                       file, line, copy);
            diag_hint(d, "cnxc build --calibrate=PICTURES --save-ranges=FILE writes such files");
            return false;
        }
        range.file = file;
        range.line = line;
        if (n && named_before(plan, &range, d)) return false;
        if (n) vec_push(a, &plan->ranges, range);
        s += n + (s[n] == '\n');
    }
    return true;
}

bool precision_matches(const char *pattern, const char *label) {
    size_t n = strlen(pattern);
    if (strncmp(label, pattern, n) == 0 && (label[n] == 0 || label[n] == '.')) return true;
    return fnmatch(pattern, label, 0) == 0;
}

Precision precision_of(const PrecisionPlan *plan, const char *label, bool *named) {
    *named = false;
    Precision p = plan->base;
    for (int i = 0; label && i < plan->rules.n; i++)
        if (precision_matches(plan->rules.v[i].pattern, label)) {
            p = plan->rules.v[i].precision;
            *named = true;
        }
    return p;
}

bool precision_uses(const PrecisionPlan *plan, Precision p) {
    bool found = plan->base == p;
    for (int i = 0; i < plan->rules.n; i++) found |= plan->rules.v[i].precision == p;
    return found;
}
