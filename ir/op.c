// The op and attribute tables, expanded from ops.def and attrs.def.
#include "op.h"

const AttrInfo attr_info[A_COUNT] = {
#define ATTR(name, KIND, doc) {#name, AK_##KIND, NULL, doc},
#define ATTR_ENUM(name, words, doc) {#name, AK_ENUM, words, doc},
#define ATTR_ENUMS(name, words, doc) {#name, AK_ENUMS, words, doc},
#include "attrs.def"
#undef ATTR
#undef ATTR_ENUM
#undef ATTR_ENUMS
};

#define ATTRS(...) __VA_ARGS__
#define NO_ATTRS A_COUNT
#define FIRST(first, ...) first
#define COUNT(...)                                                                                 \
    ((int)(sizeof((AttrId[]){__VA_ARGS__}) / sizeof(AttrId)) - (FIRST(__VA_ARGS__, ) == A_COUNT))
const OpInfo op_info[OP_COUNT] = {
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc)                                  \
    {#name, lo, hi, results, {attrs}, COUNT(attrs), traits, doc},
#include "ops.def"
#undef OP
};

bool op_parse(const char *s, size_t n, Op *out) {
    for (int i = 0; i < OP_COUNT; i++)
        if (strlen(op_info[i].name) == n && memcmp(op_info[i].name, s, n) == 0) {
            *out = (Op)i;
            return true;
        }
    return false;
}

bool attr_id_parse(const char *s, size_t n, AttrId *out) {
    for (int i = 0; i < A_COUNT; i++)
        if (strlen(attr_info[i].name) == n && memcmp(attr_info[i].name, s, n) == 0) {
            *out = (AttrId)i;
            return true;
        }
    return false;
}

const char *attr_word(AttrId id, int index) {
    const char *w = attr_info[id].words;
    if (!w || index < 0) return NULL;
    for (; *w && index > 0; index--) w += strlen(w) + 1;
    return *w ? w : NULL;
}

const char *attr_words(Arena *a, AttrId id) {
    Str s = {.arena = a};
    for (const char *w = attr_info[id].words; w && *w; w += strlen(w) + 1)
        str_printf(&s, "%s%s", s.n ? "|" : "", w);
    return str_cstr(&s);
}

int attr_word_index(AttrId id, const char *s, size_t n) {
    int i = 0;
    for (const char *w = attr_info[id].words; w && *w; w += strlen(w) + 1, i++)
        if (strlen(w) == n && memcmp(w, s, n) == 0) return i;
    return -1;
}

// Payloads of equal kind compare by content; numbers by their bits, so NaN equals itself.
bool attr_eq(const Attr *x, const Attr *y) {
    if (x->id != y->id) return false;
    switch (attr_info[x->id].kind) {
    case AK_INT:
    case AK_BOOL:
    case AK_ENUM: return x->i == y->i;
    case AK_F64: return memcmp(&x->f, &y->f, sizeof x->f) == 0;
    case AK_STR: return strcmp(x->s, y->s) == 0;
    case AK_INTS:
    case AK_ENUMS:
        return x->ints.n == y->ints.n &&
               (x->ints.n == 0 ||
                memcmp(x->ints.v, y->ints.v, sizeof(int64_t) * (size_t)x->ints.n) == 0);
    case AK_DIMS:
        if (x->dims.n != y->dims.n) return false;
        for (int i = 0; i < x->dims.n; i++)
            if (!dim_eq(x->dims.v[i], y->dims.v[i])) return false;
        return true;
    case AK_DATA:
        return x->data.n == y->data.n &&
               (x->data.n == 0 ||
                memcmp(x->data.v, y->data.v, sizeof(double) * (size_t)x->data.n) == 0);
    }
    return false;
}
