// The one runner: checks the list of passes against the properties of the input, then runs,
// verifies, round-trips the text (debug builds), times, counts rewrites and dumps.
#include "pass.h"
#include "../ir/text.h"
#include <time.h>

enum When { ALWAYS, OPTIMISE, TRAINING, PACKED, REMAT, NAMED };

typedef struct {
    const char *name;
    void (*run)(Pipeline *p);
    Level level;
    enum When when;
    unsigned needs, gives, kills;
    const char *doc;
} PassInfo;

static const PassInfo passes[] = {
#define PASS(name, fn, level, when, needs, gives, kills, doc)                                      \
    {name, pass_##fn, level, when, needs, gives, kills, doc},
#include "pipeline.def"
#undef PASS
};
enum { PASSES = sizeof passes / sizeof *passes };

static const char *const property_text[PROPERTIES] = {"programs without drop_path",
                                                      "programs without conv2d",
                                                      "programs without grn",
                                                      "weight-only work hoisted",
                                                      "graphs (the input is a schedule)",
                                                      "a schedule",
                                                      "a memory plan"};

bool program_trains(const Graph *g) {
    return strcmp(g->name, "train") == 0 || strcmp(g->name, "pretrain") == 0;
}

bool pass_may_rewrite(Pipeline *p) {
    if (p->rewrite_limit >= 0 && p->rewrites >= p->rewrite_limit) return false;
    p->rewrites++;
    return true;
}

// ---- the list of passes to run -----------------------------------------------------------------
typedef struct {
    const PassInfo *v[64];
    int n;
} PassList;

static int find_pass(const char *name, size_t n) {
    for (int i = 0; i < PASSES; i++)
        if (strlen(passes[i].name) == n && memcmp(passes[i].name, name, n) == 0) return i;
    return -1;
}

static bool unknown_pass(Arena *a, Diag *d, const char *what, const char *name, size_t n) {
    const char *names[PASSES];
    for (int i = 0; i < PASSES; i++) names[i] = passes[i].name;
    const char *s = arena_strndup(a, name, n), *near = nearest_name(s, names, PASSES);
    diag_error(d, (Loc){0}, "%s '%s' is not a pass", what, s);
    if (near) diag_hint(d, "did you mean '%s'?", near);
    return false;
}

static bool list_named(PassList *l, Arena *a, Diag *d, const char *text) {
    for (const char *s = text; *s;) {
        size_t n = strcspn(s, ",");
        int i = find_pass(s, n);
        if (i < 0) return unknown_pass(a, d, "--passes:", s, n);
        if (l->n == (int)(sizeof l->v / sizeof *l->v)) {
            diag_error(d, (Loc){0}, "--passes: more than %d passes", l->n);
            return false;
        }
        l->v[l->n++] = &passes[i];
        s += n + (s[n] == ',');
    }
    return true;
}

// Whether a pass of the table runs where none is named.
static bool runs_by_default(const PassInfo *pass, const Pipeline *p, const PipelineOptions *opt) {
    bool trains = false;
    for (int i = 0; i < p->module->graphs.n; i++) trains |= program_trains(p->module->graphs.v[i]);
    if (pass->level > opt->stop_level) return false;
    if (pass->when == NAMED) return false;
    if (pass->when == PACKED && opt->sparse == SPARSE_DENSE) return false;
    if (pass->when == REMAT) return trains && !opt->unoptimised;
    if (pass->when == TRAINING || pass->when == PACKED) return trains;
    return pass->when == ALWAYS || !opt->unoptimised;
}

static bool list_passes(PassList *l, const Pipeline *p, const PipelineOptions *opt, Diag *d) {
    Arena *a = p->arena;
    int stop = opt->stop_after ? find_pass(opt->stop_after, strlen(opt->stop_after)) : -1;
    if (opt->stop_after && stop < 0)
        return unknown_pass(a, d, "--stop-after:", opt->stop_after, strlen(opt->stop_after));
    if (opt->dump && strcmp(opt->dump, "all") != 0 && strcmp(opt->dump, "changed") != 0 &&
        find_pass(opt->dump, strlen(opt->dump)) < 0)
        return unknown_pass(a, d, "--dump:", opt->dump, strlen(opt->dump));
    if (opt->passes && !list_named(l, a, d, opt->passes)) return false;
    for (int i = 0; !opt->passes && i < PASSES; i++)
        if (runs_by_default(&passes[i], p, opt)) l->v[l->n++] = &passes[i];
    for (int i = 0; i < l->n; i++)
        if (stop >= 0 && l->v[i] == &passes[stop]) l->n = i + 1;
    return true;
}

// ---- properties of the input -------------------------------------------------------------------
static unsigned ops_present(const Graph *g) {
    unsigned bad = 0;
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (n->op == OP_DROP_PATH) bad |= P_NO_DROP;
        if (n->op == OP_CONV2D) bad |= P_NO_CONV;
        if (n->op == OP_GRN) bad |= P_NO_GRN;
        if (n->body) bad |= ops_present(n->body);
    }
    return bad;
}

// Every parameter of a program other than prepare is an output of prepare, and nothing weight-only
// is computed there.
static bool is_hoisted(const Module *m, const Graph *g) {
    const Graph *prepare = module_find(m, "prepare");
    const bool *weight = weight_values(g);
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (!n->nresults || !weight[n->first]) continue;
        bool found = false;
        for (int k = 0; n->op == OP_PARAM && prepare && k < prepare->outputs.n; k++)
            found |= strcmp(prepare->outputs.v[k].name, node_str(n, A_name)) == 0;
        if (!found) return false;
    }
    return true;
}

static unsigned input_properties(const Pipeline *p) {
    if (p->schedules.n) {
        bool planned = true;
        for (int i = 0; i < p->schedules.n; i++)
            for (int k = 0; k < p->schedules.v[i]->buffers.n; k++) {
                const Buffer *b = &p->schedules.v[i]->buffers.v[k];
                if (b->region != REGION_INPUT && b->region != REGION_OUTPUT)
                    planned &= b->offset >= 0;
            }
        return P_SCHEDULED | (planned ? P_PLANNED : 0);
    }
    unsigned have = P_NO_DROP | P_NO_CONV | P_NO_GRN | P_HOISTED | P_GRAPHS;
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        have &= ~ops_present(g);
        if (strcmp(g->name, "prepare") != 0 && !is_hoisted(p->module, g))
            have &= ~(unsigned)P_HOISTED;
    }
    return have;
}

static bool check_needs(const Pipeline *p, const PassList *l, Diag *d) {
    unsigned have = input_properties(p);
    for (int i = 0; i < l->n; i++) {
        unsigned missing = l->v[i]->needs & ~have;
        for (int b = 0; b < PROPERTIES; b++) {
            if (!(missing >> b & 1)) continue;
            diag_error(d, (Loc){0}, "pass %s needs %s", l->v[i]->name, property_text[b]);
            for (int k = 0; k < PASSES; k++)
                if (passes[k].gives >> b & 1) diag_hint(d, "run %s before it", passes[k].name);
        }
        if (missing) return false;
        have = (have | l->v[i]->gives) & ~l->v[i]->kills;
    }
    return true;
}

// A parameter has one type in all programs, and the type of prepare's output where that has its
// name.
typedef struct {
    const char *name, *program;
    Type type;
} ParamType;

static bool params_clash(Pipeline *p, const ParamType *x, Type type, const char *program, Loc loc) {
    if (type_eq(x->type, type)) return false;
    diag_error(p->diag, loc, "%s is %s in program %s, but %s in program %s", x->name,
               type_print(p->arena, type), program, type_print(p->arena, x->type), x->program);
    return true;
}

static bool check_params(Pipeline *p) {
    const Graph *prepare = module_find(p->module, "prepare");
    VEC(ParamType) seen = {0};
    for (int i = 0; prepare && i < prepare->outputs.n; i++) {
        const Port *o = &prepare->outputs.v[i];
        ParamType t = {o->name, prepare->name, graph_type(prepare, o->value)};
        vec_push(p->arena, &seen, t);
    }
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        for (int k = 0; g != prepare && k < g->nodes.n; k++) {
            const Node *n = &g->nodes.v[k];
            if (n->op != OP_PARAM) continue;
            ParamType t = {node_str(n, A_name), g->name, graph_type(g, n->first)};
            bool known = false;
            for (int q = 0; q < seen.n && !known; q++) {
                known = strcmp(seen.v[q].name, t.name) == 0;
                if (known && params_clash(p, &seen.v[q], t.type, g->name, n->loc)) return false;
            }
            if (!known) vec_push(p->arena, &seen, t);
        }
    }
    return true;
}

// ---- running -----------------------------------------------------------------------------------
static Level pipeline_level(const Pipeline *p) {
    if (!p->schedules.n) return LEVEL_GRAPH;
    return input_properties(p) & P_PLANNED ? LEVEL_MEMORY : LEVEL_SCHEDULE;
}

void pipeline_print(Str *out, const Pipeline *p) {
    if (p->schedules.n)
        for (int i = 0; i < p->schedules.n; i++) schedule_print(out, p->schedules.v[i]);
    else
        module_print(out, p->module);
}

static void verify_state(const Pipeline *p) {
    for (int i = 0; i < p->module->graphs.n; i++) {
        ice_context.program = p->module->graphs.v[i]->name;
        const char *why = graph_verify(p->module->graphs.v[i]);
        if (why) ice((Loc){0}, "the result is not well-formed: %s", why);
    }
    for (int i = 0; i < p->schedules.n; i++) {
        ice_context.program = p->schedules.v[i]->name;
        const char *why = schedule_verify(p->schedules.v[i]);
        if (why) ice((Loc){0}, "the schedule is not well-formed: %s", why);
    }
    ice_context.program = NULL;
}

// print -> parse -> print is the identity.
static void check_round_trip(const Pipeline *p, const char *text) {
    Arena *a = arena_new();
    FILE *quiet = fopen("/dev/null", "w");
    Diag *d = diag_new(a, quiet ? quiet : stderr);
    Str again = {.arena = a};
    size_t n = strlen(text);
    if (pipeline_level(p) == LEVEL_GRAPH) {
        Module *m = module_parse(a, d, "(dump)", text, n);
        if (!m) ice((Loc){0}, "the printed text does not parse");
        module_print(&again, m);
    } else {
        for (int i = 0; i < p->schedules.n; i++) {
            Str one = {.arena = a};
            schedule_print(&one, p->schedules.v[i]);
            Schedule *s = schedule_parse(a, d, "(dump)", str_cstr(&one), one.n);
            if (!s) ice((Loc){0}, "the printed schedule does not parse");
            schedule_print(&again, s);
        }
    }
    if (strcmp(str_cstr(&again), text) != 0) ice((Loc){0}, "printed text does not round-trip");
    if (quiet) fclose(quiet);
    arena_free(a);
}

// The input of the running pass, for a crash.
typedef struct {
    const char *text, *pass, *target;
    bool graphs;
} Replay;

static void write_replay(void *user) {
    const Replay *r = user;
    char path[] = "cnxc-ice.ir";
    FILE *f = fopen(path, "w");
    if (!f || fputs(r->text, f) < 0 || fclose(f)) return;
    fprintf(stderr, "    the input of the pass is in %s\n", path);
    if (r->graphs)
        fprintf(stderr, "    replay: cnxc opt %s --passes=%s --target=%s\n", path, r->pass,
                r->target);
}

static const char *state_text(Pipeline *p) {
    Str s = {.arena = p->arena};
    pipeline_print(&s, p);
    return str_cstr(&s);
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#ifdef NDEBUG
enum { CHECK_TEXT = 0 };
#else
enum { CHECK_TEXT = 1 };
#endif

static bool run_pass(Pipeline *p, const PassInfo *pass, const PipelineOptions *opt, Diag *d) {
    Replay replay = {.pass = pass->name,
                     .target = p->target ? p->target->name : "native",
                     .graphs = !p->schedules.n};
    replay.text = state_text(p);
    ice_context = (IceContext){.pass = pass->name, .on_ice = write_replay, .user = &replay};
    int64_t before = p->rewrites;
    double start = seconds_now();
    pass->run(p);
    double spent = seconds_now() - start;
    if (diag_count(d) == 0) {
        verify_state(p);
        const char *text = opt->dump || CHECK_TEXT ? state_text(p) : NULL;
        if (CHECK_TEXT) check_round_trip(p, text);
        bool wanted =
            opt->dump && (strcmp(opt->dump, "all") == 0 ||
                          (strcmp(opt->dump, "changed") == 0 ? strcmp(text, replay.text) != 0
                                                             : strcmp(opt->dump, pass->name) == 0));
        if (wanted)
            fprintf(opt->dump_out ? opt->dump_out : stderr, "; after %s\n%s", pass->name, text);
    }
    ice_context = (IceContext){0};
    if (opt->time)
        fprintf(stderr, "%-15s %9.3f ms  %-26s %lld rewrites\n", p->target ? p->target->name : "",
                spent * 1e3, pass->name, (long long)(p->rewrites - before));
    return diag_count(d) == 0;
}

bool pipeline_run(Pipeline *p, const PipelineOptions *opt, Diag *d) {
    PassList list = {.n = 0};
    if (diag_count(d)) return false;
    p->diag = d;
    if (!list_passes(&list, p, opt, d) || !check_needs(p, &list, d) || !check_params(p))
        return false;
    p->rewrite_limit = opt->rewrite_limit;
    p->fuse_steps = !opt->unoptimised;
    p->precision = opt->precision;
    for (int i = 0; i < list.n; i++)
        if (!run_pass(p, list.v[i], opt, d)) return false;
    return true;
}

void pipeline_help(FILE *out) {
    static const char *const levels[] = {"graph", "fused", "schedule", "memory"};
    for (int i = 0; i < PASSES; i++)
        fprintf(out, "  %-26s %-9s %s\n", passes[i].name, levels[passes[i].level], passes[i].doc);
}
