// The CnxrtModel constant: everything of runtime/cnxrt_model.h, field by field in its order, with
// private tables and strings. Host layout rules apply to the structs: LLVM lays the literal struct
// types out as C does.
#include "module.h"

// ---- ports of a schedule -----------------------------------------------------------------------
const Buffer *schedule_port(const Schedule *s, Region region, int port) {
    for (int i = 0; i < s->buffers.n; i++)
        if (s->buffers.v[i].region == region && s->buffers.v[i].port == port)
            return &s->buffers.v[i];
    return NULL;
}

int schedule_ports(const Schedule *s, Region region) {
    int n = 0;
    while (schedule_port(s, region, n)) n++;
    return n;
}

int schedule_port_find(const Schedule *s, Region region, const char *name) {
    for (int i = 0; i < s->buffers.n; i++)
        if (s->buffers.v[i].region == region && strcmp(s->buffers.v[i].name, name) == 0)
            return s->buffers.v[i].port;
    return -1;
}

int schedule_feature_ports(const Schedule *s, int ports[MAX_PORTS]) {
    int total = schedule_ports(s, REGION_OUTPUT), n = 0;
    if (total > MAX_PORTS) ice((Loc){0}, "program %s has %d outputs", s->name, total);
    int pooled = schedule_port_find(s, REGION_OUTPUT, "pooled");
    int logits = schedule_port_find(s, REGION_OUTPUT, "logits");
    for (int i = 0; i < total; i++)
        if (i != pooled && i != logits) ports[n++] = i;
    if (pooled >= 0) ports[n++] = pooled;
    if (logits >= 0) ports[n++] = logits;
    return n;
}

Schedule *model_program(const CodegenModel *m, const char *name) {
    for (int i = 0; i < m->nschedules; i++)
        if (strcmp(m->schedules[i]->name, name) == 0) return m->schedules[i];
    return NULL;
}

// ---- features ----------------------------------------------------------------------------------
// Features the runtime can check; others of a host's list never change what is generated.
static const char *const checked_features[] = {
#define CPU_FEATURE(name, leaf, subleaf, reg, bit, state) name,
#define ARM_FEATURE(name, word, bits) name,
#include "../runtime/cnxrt_cpu.def"
#undef CPU_FEATURE
#undef ARM_FEATURE
};

static bool feature_checked(const char *s, size_t n) {
    for (size_t i = 0; i < sizeof checked_features / sizeof *checked_features; i++)
        if (strlen(checked_features[i]) == n && memcmp(checked_features[i], s, n) == 0) return true;
    return false;
}

static bool lists(const char *names, const char *s, size_t n) {
    for (const char *p = names; *p;) {
        size_t len = strcspn(p, ",");
        if (len == n && memcmp(p, s, n) == 0) return true;
        p += len + (p[len] == ',');
    }
    return false;
}

// What the CPU must have: the row's needs and what is switched on in the target's list.
static const char *required_features(Arena *a, const Target *t) {
    Str out = {.arena = a};
    str_add(&out, t->needs);
    for (const char *p = t->features; *p;) {
        size_t n = strcspn(p, ",");
        if (n > 1 && p[0] == '+' && feature_checked(p + 1, n - 1) &&
            !lists(t->needs, p + 1, n - 1)) {
            if (out.n) str_add(&out, ",");
            str_addn(&out, p + 1, n - 1);
        }
        p += n + (p[n] == ',');
    }
    return str_cstr(&out);
}

// ---- constants ---------------------------------------------------------------------------------
static LLVMValueRef structure(Unit *u, LLVMValueRef *fields, int n) {
    return LLVMConstStructInContext(u->ctx, fields, (unsigned)n, 0);
}
#define STRUCT(u, ...)                                                                             \
    structure((u), (LLVMValueRef[]){__VA_ARGS__},                                                  \
              (int)(sizeof((LLVMValueRef[]){__VA_ARGS__}) / sizeof(LLVMValueRef)))

static LLVMValueRef table_of(Unit *u, LLVMValueRef *v, int n, const char *symbol) {
    return unit_table(u, n ? LLVMTypeOf(v[0]) : u->i8, v, n, symbol);
}

static LLVMValueRef real(Unit *u, double v) { return LLVMConstReal(u->f64, v); }

static LLVMValueRef pair(Unit *u, const double *v) {
    return LLVMConstArray2(u->f64, (LLVMValueRef[]){real(u, v[0]), real(u, v[1])}, 2);
}

static LLVMValueRef floats(Unit *u, const float *v, int n, const char *symbol) {
    LLVMValueRef *c = NEWN(u->arena, LLVMValueRef, n + 1);
    for (int i = 0; i < n; i++) c[i] = LLVMConstReal(u->f32, (double)v[i]);
    return unit_table(u, u->f32, c, n, symbol);
}

// int32_t rank; int64_t dims[6]
static LLVMValueRef dims_array(Unit *u, const Type *t, int from, LLVMValueRef *rank) {
    LLVMValueRef d[6];
    int n = 0;
    for (int i = from; i < t->rank; i++) d[n++] = unit_i64(u, t->d[i].c);
    *rank = unit_i32(u, n);
    while (n < 6) d[n++] = unit_i64(u, 0);
    return LLVMConstArray2(u->i64, d, 6);
}

static LLVMValueRef emit_ports(Unit *u, const Schedule *s, Region region, int n) {
    LLVMValueRef *v = NEWN(u->arena, LLVMValueRef, n + 1);
    for (int i = 0; i < n; i++) {
        const Buffer *b = schedule_port(s, region, i);
        int from = b->type.rank && b->type.d[0].b && b->type.d[0].c == 1;
        LLVMValueRef rank = NULL, dims = dims_array(u, &b->type, from, &rank);
        v[i] = STRUCT(u, unit_string(u, b->name), rank, dims, unit_i64(u, b->bytes));
    }
    return table_of(u, v, n, "ports");
}

static LLVMValueRef emit_call_table(Unit *u, const Schedule *s, int *ncalls, int64_t *macs) {
    VEC(LLVMValueRef) v = {0};
    for (int i = 0; i < s->steps.n; i++)
        for (int c = 0; c < s->steps.v[i].calls.n; c++) {
            const Call *call = &s->steps.v[i].calls.v[c];
            const char *label = call->label ? call->label : s->steps.v[i].name;
            LLVMValueRef kernel = unit_string(u, spec_print(u->arena, &call->spec));
            LLVMValueRef row =
                STRUCT(u, kernel, unit_string(u, label ? label : ""), unit_i64(u, call->macs));
            vec_push(u->arena, &v, row);
            *macs += call->macs;
        }
    *ncalls = v.n;
    return table_of(u, v.v, v.n, "calls");
}

static LLVMValueRef program_constant(Unit *u, const Schedule *s, LLVMValueRef run) {
    int nin = schedule_ports(s, REGION_INPUT), nout = schedule_ports(s, REGION_OUTPUT), ncalls = 0;
    int64_t macs = 0;
    LLVMValueRef calls = emit_call_table(u, s, &ncalls, &macs);
    return STRUCT(u, unit_string(u, s->name), run, unit_i64(u, s->fixed_bytes),
                  unit_i64(u, s->image_bytes), unit_i64(u, s->slot_bytes),
                  unit_i64(u, s->scratch_bytes), unit_i32(u, nin), unit_i32(u, nout),
                  unit_i32(u, ncalls), emit_ports(u, s, REGION_INPUT, nin),
                  emit_ports(u, s, REGION_OUTPUT, nout), calls, unit_i64(u, macs));
}

static LLVMValueRef emit_params(Unit *u, const CodegenModel *m) {
    LLVMValueRef *v = NEWN(u->arena, LLVMValueRef, m->nparams + 1);
    for (int i = 0; i < m->nparams; i++) {
        LLVMValueRef rank = NULL, dims = dims_array(u, &m->params[i].type, 0, &rank);
        v[i] = STRUCT(u, unit_string(u, m->params[i].name), rank, dims,
                      unit_i64(u, m->params[i].offset), unit_i32(u, m->params[i].init),
                      real(u, m->params[i].init_value));
    }
    return table_of(u, v, m->nparams, "params");
}

static LLVMValueRef emit_layers(Unit *u, const CodegenModel *m) {
    LLVMValueRef *v = NEWN(u->arena, LLVMValueRef, m->nlayers + 1);
    for (int i = 0; i < m->nlayers; i++) {
        const struct CodegenLayer *l = &m->layers[i];
        v[i] = STRUCT(u, unit_string(u, l->name), unit_string(u, l->op), unit_string(u, l->shape),
                      unit_i64(u, l->params), unit_i64(u, l->macs));
    }
    return table_of(u, v, m->nlayers, "layers");
}

// The symbol of the blob that link.c assembles, or NULL when there is no such blob.
static LLVMValueRef emit_blob(Unit *u, const void *blob) {
    if (!blob) return LLVMConstPointerNull(u->ptr);
    const char *symbol = arena_printf(u->arena, "%s_weights", u->name);
    LLVMValueRef g = LLVMAddGlobal(u->mod, u->i8, symbol);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetVisibility(g, LLVMHiddenVisibility);
    return g;
}

// ---- training ----------------------------------------------------------------------------------
static LLVMValueRef recipe_constant(Unit *u, const CnxrtRecipe *r, int nparams) {
    return STRUCT(u, unit_string(u, r->name), unit_i32(u, r->kind), unit_i64(u, r->batch),
                  real(u, r->base_lr), real(u, r->lr), real(u, r->min_lr), real(u, r->weight_decay),
                  real(u, r->beta1), real(u, r->beta2), real(u, r->eps), real(u, r->clip),
                  real(u, r->epochs), real(u, r->warmup_epochs), real(u, r->drop_path),
                  real(u, r->label_smoothing), real(u, r->mixup), real(u, r->cutmix),
                  real(u, r->mix_switch), real(u, r->ema), real(u, r->head_init_scale),
                  pair(u, r->crop_scale), pair(u, r->crop_ratio), real(u, r->flip),
                  real(u, r->erase), unit_string(u, r->rand_augment),
                  unit_string(u, r->interpolation), floats(u, r->groups, 2 * nparams, "groups"));
}

static LLVMValueRef emit_recipes(Unit *u, const CodegenModel *m) {
    LLVMValueRef *v = NEWN(u->arena, LLVMValueRef, m->nrecipes + 1);
    for (int i = 0; i < m->nrecipes; i++) v[i] = recipe_constant(u, &m->recipes[i], m->nparams);
    return table_of(u, v, m->nrecipes, "recipes");
}

static LLVMValueRef emit_drops(Unit *u, const CodegenModel *m) {
    LLVMValueRef *v = NEWN(u->arena, LLVMValueRef, m->ndrops + 1);
    for (int i = 0; i < m->ndrops; i++)
        v[i] = STRUCT(u, unit_i32(u, m->drops[i].key), real(u, m->drops[i].share));
    return table_of(u, v, m->ndrops, "drops");
}

static LLVMValueRef int_pair(Unit *u, const int32_t *v) {
    return LLVMConstArray2(u->i32, (LLVMValueRef[]){unit_i32(u, v[0]), unit_i32(u, v[1])}, 2);
}

static LLVMValueRef emit_fcmae(Unit *u, const CnxrtFcmae *f) {
    if (!f) return LLVMConstPointerNull(u->ptr);
    LLVMValueRef v =
        STRUCT(u, int_pair(u, f->grid), unit_i32(u, f->mask_unit), int_pair(u, f->stride),
               unit_i32(u, f->units), unit_i32(u, f->keep), unit_i32(u, f->norm_pix),
               unit_i32(u, f->packed), real(u, f->mask_ratio));
    return table_of(u, &v, 1, "fcmae");
}

// ---- the whole ---------------------------------------------------------------------------------
static LLVMValueRef emit_programs(Unit *u, const CodegenModel *m) {
    LLVMValueRef *v = NEWN(u->arena, LLVMValueRef, m->nschedules + 1);
    for (int i = 0; i < m->nschedules; i++) {
        ice_context.program = m->schedules[i]->name;
        v[i] = program_constant(u, m->schedules[i], emit_program(u, m->schedules[i]));
    }
    return table_of(u, v, m->nschedules, "programs");
}

// training: the constants of train and pretrain; peak: the loop all share.
static LLVMValueRef model_constant(Unit *u, const CodegenModel *m, const LLVMValueRef *training,
                                   LLVMValueRef peak, const char *symbol) {
    LLVMValueRef programs = emit_programs(u, m);
    LLVMValueRef init =
        STRUCT(u, unit_i32(u, CNXRT_ABI), unit_string(u, m->name), unit_string(u, u->target->name),
               unit_string(u, m->precision), unit_string(u, required_features(u->arena, u->target)),
               unit_i32(u, m->channels), unit_i32(u, m->height), unit_i32(u, m->width),
               unit_i32(u, m->classes), floats(u, m->mean, m->channels, "mean"),
               floats(u, m->std, m->channels, "std"), real(u, m->crop_pct), unit_i32(u, m->warp),
               unit_string(u, m->interpolation), unit_string(u, m->class_names),
               unit_i32(u, m->nschedules), unit_i32(u, m->nparams), unit_i32(u, m->nlayers),
               programs, emit_params(u, m), emit_layers(u, m), unit_i64(u, m->param_bytes),
               unit_i64(u, m->weight_bytes), emit_blob(u, m->embedded), emit_blob(u, m->raw),
               unit_string(u, m->raw_dtype), peak, training[0], training[1],
               emit_fcmae(u, m->fcmae), unit_i32(u, m->loss), unit_i32(u, m->nrecipes),
               unit_i32(u, m->ndrops), emit_recipes(u, m), emit_drops(u, m));
    LLVMValueRef g = LLVMAddGlobal(u->mod, LLVMTypeOf(init), symbol);
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetAlignment(g, 64);
    return g;
}

LLVMValueRef emit_model(Unit *u, const CodegenModel *m, const char *symbol) {
    LLVMValueRef null = LLVMConstPointerNull(u->ptr), none[] = {null, null};
    LLVMValueRef peak = emit_peak_loop(u), training[] = {null, null};
    const CodegenModel *models[] = {m->train, m->pretrain};
    static const char *const symbols[] = {"train_model", "pretrain_model"};
    for (int i = 0; i < 2; i++) {
        if (!models[i]) continue;
        training[i] = model_constant(u, models[i], none, peak, symbols[i]);
        LLVMSetLinkage(training[i], LLVMPrivateLinkage);
    }
    return model_constant(u, m, training, peak, symbol);
}
