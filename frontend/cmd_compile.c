// Spec -> pipeline -> the model description of an artifact; embedding of weights that
// the program prepare, run in this process, has made.
#include "cmd_compile.h"
#include "../runtime/cnxrt_weights.h"
#include "network.h"
#include <stdlib.h>

// ---- what the artifact says of itself ----------------------------------------------------------

static const float *to_floats(Arena *a, const double *v, int64_t n) {
    float *out = NEWN(a, float, n);
    for (int64_t i = 0; i < n; i++) out[i] = (float)v[i];
    return out;
}

static const char *shape_text(Arena *a, Type t) {
    Str s = {.arena = a};
    for (int i = 0; i < t.rank; i++)
        if (!t.d[i].b || t.d[i].c > 1)
            str_printf(&s, "%s%lld", s.n ? "x" : "", (long long)t.d[i].c);
    return str_cstr(&s);
}

// Layers are the labelled nodes of the program as the spec wrote it.
static void fill_layers(Arena *a, CodegenModel *m, const Graph *g) {
    m->layers = NEWN(a, struct CodegenLayer, g->nodes.n + 1);
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (!n->label || (op_info[n->op].traits & T_LEAF)) continue;
        struct CodegenLayer *l = &m->layers[m->nlayers++];
        *l = (struct CodegenLayer){n->label, op_info[n->op].name,
                                   shape_text(a, graph_type(g, n->first)), 0, node_macs(g, n)};
        for (int k = 0; k < n->nargs; k++)
            if (graph_def(g, n->args[k])->op == OP_PARAM)
                l->params += type_elems_at(graph_type(g, n->args[k]), 1);
    }
}

static const Schedule *schedule_of(const Pipeline *p, const char *name) {
    for (int i = 0; i < p->schedules.n; i++)
        if (strcmp(p->schedules.v[i]->name, name) == 0) return p->schedules.v[i];
    return NULL;
}

// Official names and shapes of the raw blob: PARAM buffers of prepare, shapes from the source.
static void fill_params(Arena *a, CodegenModel *m, const Graph *source, const Schedule *prepare) {
    m->params = NEWN(a, struct CodegenParam, source->nodes.n + 1);
    for (int i = 0; i < source->nodes.n; i++) {
        const Node *n = &source->nodes.v[i];
        if (n->op != OP_PARAM) continue;
        for (int k = 0; k < prepare->buffers.n; k++) {
            const Buffer *buffer = &prepare->buffers.v[k];
            if (buffer->region != REGION_PARAM || strcmp(buffer->name, node_str(n, A_name)))
                continue;
            m->params[m->nparams++] = (struct CodegenParam){
                .name = node_str(n, A_name),
                .type = graph_type(source, n->first),
                .offset = buffer->offset,
            };
        }
    }
}

static void fill_model(CompiledModel *c, const ModelSpec *spec) {
    Arena *a = c->pipeline.arena;
    const InputSpec *in = &spec->input;
    c->model = (CodegenModel){
        .schedules = c->pipeline.schedules.v,
        .nschedules = c->pipeline.schedules.n,
        .name = spec->name,
        .precision = "fp32",
        .channels = (int)in->channels,
        .height = (int)in->height,
        .width = (int)in->width,
        .classes = (int)spec->head.classes,
        .loss = supervised_loss(spec),
        .mean = to_floats(a, in->mean, in->channels),
        .std = to_floats(a, in->std, in->channels),
        .crop_pct = in->crop_pct,
        .warp = in->warp,
        .interpolation = in->interpolation ? "bilinear" : "bicubic",
    };
    fill_layers(a, &c->model, c->source);
    const Schedule *prepare = schedule_of(&c->pipeline, "prepare");
    if (!prepare) return;
    fill_params(a, &c->model, c->source, prepare);
    c->model.param_bytes = prepare->param_bytes;
    c->model.weight_bytes = prepare->weight_bytes;
}

static bool build_programs(CompiledModel *c, int which, const ModelSpec *spec, Diag *d) {
    static const char *const main_program[] = {"infer", "train", "pretrain"};
    if (which == MODEL_INFER) {
        c->pipeline.module = spec_module(spec, d);
    } else {
        TrainModel *t = NEW(spec->arena, TrainModel);
        bool ok = which == MODEL_TRAIN ? train_build(t, spec, d) : pretrain_build(t, spec, d);
        c->training = t;
        c->pipeline.module = ok ? t->module : NULL;
    }
    if (!c->pipeline.module) return false;
    c->source = module_find(c->pipeline.module, main_program[which]);
    return true;
}

PrecisionPlan *compile_plan(const ModelSpec *spec, const PipelineOptions *opt, Diag *d) {
    PrecisionPlan *plan = NEW(spec->arena, PrecisionPlan);
    const PrecisionPlan *over = opt ? opt->precision : NULL;
    bool ok = true;
    for (int i = 0; ok && i < spec->nprecision && !(over && over->alone); i++)
        ok = precision_parse(plan, spec->arena, d, spec->precision[i].loc, "key precision",
                             spec->precision[i].text);
    if (over) precision_merge(plan, spec->arena, over);
    return ok ? plan : NULL;
}

// "bf16", "bf16,head=fp32,stages.0=fp32": as --precision takes it.
static const char *plan_text(Arena *a, const PrecisionPlan *plan) {
    Str s = {.arena = a};
    str_add(&s, precision_name(plan->base));
    for (int i = 0; i < plan->rules.n; i++)
        str_printf(&s, ",%s=%s", plan->rules.v[i].pattern,
                   precision_name(plan->rules.v[i].precision));
    return str_cstr(&s);
}

bool compile_model(CompiledModel *c, int which, const ModelSpec *spec, const Target *target,
                   const PipelineOptions *opt, Diag *d) {
    *c = (CompiledModel){.pipeline = {.arena = spec->arena,
                                      .target = target,
                                      .rewrite_limit = opt ? opt->rewrite_limit : -1}};
    const PrecisionPlan *plan = compile_plan(spec, opt, d);
    if (!plan || !build_programs(c, which, spec, d)) return false;
    PipelineOptions own = opt ? *opt : (PipelineOptions){0};
    own.precision = plan;
    if (opt && !pipeline_run(&c->pipeline, &own, d)) return false;
    fill_model(c, spec);
    c->model.precision = plan_text(spec->arena, plan);
    if (c->training) compile_tables(c, which, spec, opt && opt->sparse == SPARSE_PACKED);
    return true;
}

// Whether pre-training can be packed, tried up to the pass that may refuse.
static bool packs(const ModelSpec *spec, const Target *target) {
    FILE *quiet = fopen("/dev/null", "w");
    PipelineOptions trial = {
        .stop_after = "specialize-rulebook", .stop_level = LEVEL_FUSED, .rewrite_limit = -1};
    CompiledModel c;
    Diag *d = diag_new(spec->arena, quiet ? quiet : stderr);
    bool ok = compile_model(&c, MODEL_PRETRAIN, spec, target, &trial, d);
    if (quiet) fclose(quiet);
    return ok;
}

unsigned compile_programs(const ModelSpec *spec, unsigned programs, const Target *target,
                          const PipelineOptions *opt) {
    bool asked = spec->asked & PROGRAM_PRETRAIN;
    bool packed = opt->sparse == SPARSE_PACKED && programs >> MODEL_PRETRAIN & 1;
    if (!packed || asked || packs(spec, target)) return programs;
    fprintf(stderr, "note: program pretrain is left out: its encoder cannot be packed "
                    "(--programs=pretrain says why, --sparse=dense builds it as it is)\n");
    return programs & ~(1u << MODEL_PRETRAIN);
}

bool compile_spec(Compiled *c, const ModelSpec *spec, unsigned programs, const Target *target,
                  const PipelineOptions *opt, Diag *d) {
    *c = (Compiled){0};
    for (int i = 0; i < MODELS; i++)
        if (i == MODEL_INFER || (programs >> i & 1))
            if (!compile_model(&c->v[i], i, spec, target, opt, d)) return false;
    CodegenModel *m = &c->v[MODEL_INFER].model;
    if (c->v[MODEL_TRAIN].source) m->train = &c->v[MODEL_TRAIN].model;
    if (c->v[MODEL_PRETRAIN].source) m->pretrain = &c->v[MODEL_PRETRAIN].model;
    return true;
}

typedef VEC(const char *) Names;

static Names layer_names(Arena *a, const Compiled *c) {
    Names names = {0};
    for (int i = 0; i < MODELS; i++)
        for (int k = 0; k < c->v[i].model.nlayers; k++)
            vec_push(a, &names, c->v[i].model.layers[k].name);
    return names;
}

static bool has_layer(const Names *names, const char *pattern) {
    for (int i = 0; i < names->n; i++)
        if (precision_matches(pattern, names->v[i])) return true;
    return false;
}

// ": did you mean 'NAME'?" or nothing.
static const char *nearest_text(Arena *a, const char *s, const Names *names) {
    const char *near = nearest_name(s, names->v, names->n);
    return near ? arena_printf(a, ": did you mean '%s'?", near) : "";
}

// Layers, and what their names begin with up to a dot, as rules say them.
static Names rule_names(Arena *a, const Names *layers) {
    Names names = {0};
    for (int i = 0; i < layers->n; i++)
        for (const char *s = layers->v[i], *end = s; *s; s = end + (*end == '.')) {
            end = s + strcspn(s, ".");
            vec_push(a, &names, arena_strndup(a, layers->v[i], (size_t)(end - layers->v[i])));
        }
    return names;
}

static void note_rule(Arena *a, const Names *layers, const PrecisionRule *r) {
    if (has_layer(layers, r->pattern)) return;
    Names names = rule_names(a, layers);
    const char *place =
        r->loc.file ? arena_printf(a, "%s:%d:%d: ", r->loc.file, r->loc.line, r->loc.col) : "";
    fprintf(stderr, "note: %sprecision %s=%s: no layer of these programs is called so%s\n", place,
            r->pattern, precision_name(r->precision), nearest_text(a, r->pattern, &names));
}

static void note_range(Arena *a, const Names *layers, const ActivationRange *range) {
    if (!range->file || has_layer(layers, range->label)) return;
    fprintf(stderr, "note: %s:%d: no layer of these programs is called %s%s\n", range->file,
            range->line, range->label, nearest_text(a, range->label, layers));
}

void compile_note_rules(const Compiled *c, const ModelSpec *spec, const PipelineOptions *opt,
                        Diag *d) {
    const PrecisionPlan *plan = compile_plan(spec, opt, d);
    Names layers = layer_names(spec->arena, c);
    for (int i = 0; plan && i < plan->rules.n; i++)
        note_rule(spec->arena, &layers, &plan->rules.v[i]);
    for (int i = 0; plan && i < plan->ranges.n; i++)
        note_range(spec->arena, &layers, &plan->ranges.v[i]);
}

// ---- embedding ---------------------------------------------------------------------------------

static bool load_raw(CompiledModel *c, const char *path, char *blob, Diag *d) {
    Arena *a = c->pipeline.arena;
    const CodegenModel *m = &c->model;
    CnxrtParam *params = NEWN(a, CnxrtParam, m->nparams + 1);
    for (int i = 0; i < m->nparams; i++) {
        params[i] = (CnxrtParam){.name = m->params[i].name,
                                 .rank = m->params[i].type.rank,
                                 .offset = m->params[i].offset};
        for (int k = 0; k < params[i].rank; k++) params[i].dims[k] = m->params[i].type.d[k].c;
    }
    CnxrtError err = {0};
    CnxrtWeights *w = NULL;
    CnxrtStatus status = cnxrt_weights_open(path, &w, &err);
    if (status == CNXRT_OK) status = cnxrt_weights_load(w, params, m->nparams, blob, &err);
    if (status == CNXRT_OK && strstr(m->precision, "int8"))
        status = cnxrt_weights_finite(path, params, m->nparams, blob, &err);
    const char *classes = status == CNXRT_OK ? cnxrt_weights_metadata(w, "classes") : NULL;
    if (classes) c->model.class_names = arena_strdup(a, classes);
    cnxrt_weights_close(w);
    if (status != CNXRT_OK) diag_error(d, (Loc){0}, "%s", err.text ? err.text : path);
    cnxrt_error_free(&err);
    return status == CNXRT_OK;
}

static char *raw_weights(CompiledModel *c, const char *weights, Diag *d) {
    char *raw = arena_alloc(c->pipeline.arena, (size_t)c->model.param_bytes + 64);
    return load_raw(c, weights, raw, d) ? raw : NULL;
}

char *compile_prepared(CompiledModel *c, const char *weights, Diag *d) {
    const Schedule *s = schedule_of(&c->pipeline, "prepare");
    if (!s) ice((Loc){0}, "no program prepare to embed weights with");
    const char *raw = raw_weights(c, weights, d);
    char *blob = arena_alloc(c->pipeline.arena, (size_t)c->model.weight_bytes + 128);
    blob += 64 - (uintptr_t)blob % 64;
    return raw && codegen_prepare(c->pipeline.arena, s, raw, blob, d) ? blob : NULL;
}

// The parameters of a raw blob as elements of dtype, each at half its offset; NULL: beyond its
// range.
static char *narrow_raw(const CompiledModel *c, const char *path, const char *raw,
                        const char *dtype, Diag *d) {
    const CodegenModel *m = &c->model;
    char *out = arena_alloc(c->pipeline.arena, (size_t)m->param_bytes / 2 + 64);
    CnxrtError err = {0};
    bool ok = true;
    memset(out, 0, (size_t)m->param_bytes / 2);
    for (int i = 0; i < m->nparams && ok; i++) {
        const struct CodegenParam *p = &m->params[i];
        ok = cnxrt_weights_narrow(path, p->name, dtype, (const float *)(raw + p->offset),
                                  type_elems_at(p->type, 1), out + p->offset / 2, &err) == CNXRT_OK;
    }
    if (!ok) diag_error(d, (Loc){0}, "%s", err.text);
    cnxrt_error_free(&err);
    return ok ? out : NULL;
}

// One blob serves all versions: where parameters lie in it follows from the spec alone.
static void share_raw(Compiled *versions, int n, const void *raw, const char *dtype) {
    const CodegenModel *first = &versions[0].v[MODEL_INFER].model;
    for (int i = 0; i < n; i++) {
        CodegenModel *m = &versions[i].v[MODEL_INFER].model;
        for (int k = 0; k < m->nparams; k++)
            if (m->param_bytes != first->param_bytes || m->nparams != first->nparams ||
                strcmp(m->params[k].name, first->params[k].name) != 0 ||
                m->params[k].offset != first->params[k].offset)
                ice((Loc){0}, "parameters of target %s lie elsewhere than those of %s",
                    m->schedules[0]->target->name, first->schedules[0]->target->name);
        m->raw = raw;
        m->raw_dtype = dtype;
        m->raw_bytes = m->param_bytes / (strcmp(dtype, "F32") ? 2 : 1);
        m->class_names = first->class_names;
    }
}

bool compile_embed(Compiled *versions, int n, const char *weights, const char *dtype, Diag *d) {
    CompiledModel *c = &versions[0].v[MODEL_INFER];
    bool wide = strcmp(dtype, "F32") == 0;
    if (n == 1 && wide) {
        c->model.embedded = compile_prepared(c, weights, d);
        return c->model.embedded != NULL;
    }
    const char *raw = raw_weights(c, weights, d);
    if (raw && !wide) raw = narrow_raw(c, weights, raw, dtype, d);
    if (raw) share_raw(versions, n, raw, dtype);
    return raw != NULL;
}
