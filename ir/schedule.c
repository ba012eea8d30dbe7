// The kernel table and what can be asked of a KernelSpec.
#include "schedule.h"
#include "attr_text.h"

#undef KERNEL
#define ATTRS(...)                                                                                 \
    .attrs = {__VA_ARGS__}, .nattrs = (int)(sizeof((AttrId[]){__VA_ARGS__}) / sizeof(AttrId))
#define NO_ATTRS .nattrs = 0
#define KERNEL(name, NAME, operands, attrs, doc) [K_##NAME] = {#name, operands, attrs, doc},
const KernelInfo kernel_info[K_COUNT] = {
#include "kernels.def"
};

static const Attr *spec_attr(const KernelSpec *s, AttrId id) {
    for (int i = 0; i < s->nattrs; i++)
        if (s->attrs[i].id == id) return &s->attrs[i];
    return NULL;
}

int64_t spec_int(const KernelSpec *s, AttrId id) {
    const Attr *a = spec_attr(s, id);
    return a ? a->i : 0;
}

double spec_f64(const KernelSpec *s, AttrId id) {
    const Attr *a = spec_attr(s, id);
    return a ? a->f : 0;
}

int64_t spec_ints(const KernelSpec *s, AttrId id, int i) {
    const Attr *a = spec_attr(s, id);
    return a && i < a->ints.n ? a->ints.v[i] : 0;
}

int spec_epilogue(const KernelSpec *s, const int64_t **words) {
    const Attr *a = spec_attr(s, A_epilogue);
    *words = a ? a->ints.v : NULL;
    return a ? a->ints.n : 0;
}

int epilogue_operands(int64_t word) {
    switch (word) {
    case EPI_GELU:
    case EPI_GELU_TANH:
    case EPI_SIGN:
    case EPI_OUT: return 0;
    case EPI_FMA_SCALE:
    case EPI_STAT_DOT: return 2;
    default: return 1;
    }
}

int spec_operands(const KernelSpec *s) {
    int n = 0;
    for (const char *p = kernel_info[s->kind].operands; *p; p++)
        n += *p != ' ' && (p[1] == ' ' || p[1] == '\0');
    if (s->kind == K_NORM && spec_int(s, A_affine)) n += 2;
    if (s->kind == K_NORM_DX)
        n += (spec_int(s, A_affine) != 0) + 2 * (spec_int(s, A_partial) != 0) +
             2 * (spec_int(s, A_normalized) != 0);
    const int64_t *words;
    int count = spec_epilogue(s, &words);
    for (int i = 0; i < count; i++) n += epilogue_operands(words[i]);
    return n + (dtype_of_word(spec_int(s, A_dtype)) == DT_U8);
}

const char *spec_print(Arena *a, const KernelSpec *s) {
    const KernelInfo *k = &kernel_info[s->kind];
    Str out = {.arena = a};
    str_add(&out, k->name);
    text_attrs(&out, &(AttrSchema){"kernel", k->name, k->attrs, k->nattrs}, s->attrs, s->nattrs,
               true);
    return str_cstr(&out);
}

void step_span(const Schedule *s, int step, int *first, int *last) {
    for (*first = step; *first > 0 && s->steps.v[*first - 1].then;) --*first;
    for (*last = step; *last + 1 < s->steps.n && s->steps.v[*last].then;) ++*last;
}

bool region_has_life(Region r) {
    return r == REGION_FIXED || r == REGION_IMAGE || r == REGION_SLOT || r == REGION_SCRATCH;
}

bool step_columns_first(const Step *st) {
    for (int i = 0; i < st->calls.n; i++)
        if (spec_int(&st->calls.v[i].spec, A_order)) return true;
    return false;
}

int list_calls(const Step *st) { return st->calls.n / (int)st->rows; }

int64_t list_elems(const Schedule *s, const Step *st, int part) {
    const Call *call = &st->calls.v[part * list_calls(st)];
    return s->buffers.v[call->ops[0].buffer].bytes / (int64_t)sizeof(float);
}

const char *region_name(Region r) {
    static const char *const names[] = {"input", "output", "param", "weight", "fixed",
                                        "image", "slot",   "state", "scratch"};
    return names[r];
}

int state_of_name(const char *name, const char **param) {
    static const char *const prefixes[STATE_COUNT] = {"param.", "grad.", "m.", "v.", "ema."};
    for (int i = 0; i < STATE_COUNT; i++) {
        size_t n = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], n) != 0 || !name[n]) continue;
        *param = name + n;
        return i;
    }
    return -1;
}
