// Nodes of test tables written as text: operand types "B,4,5,3; iB,4" (f32, i: i32, h: bf16, u: u8,
// c: i8) and attributes
// "stride=2,1 eps=0.5 approx=tanh". Malformed text fails the test.
#ifndef CNX_TESTS_IR_CASE_H
#define CNX_TESTS_IR_CASE_H
#include "ir/graph.h"
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

enum { CASE_ARGS = 8, CASE_ATTRS = 16 };

static inline Dim case_dim(const char **s) {
    char *end;
    long long c = strtoll(*s, &end, 10);
    bool number = end != *s;
    *s = end;
    bool b = **s == 'B';
    *s += b;
    return (Dim){number ? c : 1, b};
}

// "2,B,3" up to ';', ' ' or the end.
static inline Type case_type(const char **s) {
    Type t = {.dt = DT_F32};
    while (**s == ' ') ++*s;
    static const char letters[] = "ihuc";
    static const DType dtypes[] = {DT_I32, DT_BF16, DT_U8, DT_I8};
    const char *letter = **s ? strchr(letters, **s) : NULL;
    if (letter) t.dt = dtypes[letter - letters], ++*s;
    while (**s && **s != ';' && **s != ' ') {
        assert_true(t.rank < MAX_RANK);
        t.d[t.rank++] = case_dim(s);
        if (**s == ',') ++*s;
    }
    return t;
}

static inline int case_types(const char *s, Type t[CASE_ARGS]) {
    int n = 0;
    if (!*s) return 0;
    do {
        assert_true(n < CASE_ARGS);
        t[n++] = case_type(&s);
    } while (*s++ == ';');
    return n;
}

static inline Attr case_attr(Arena *a, AttrId id, const char *s, const char *end) {
    int64_t ints[64];
    double *data = NEWN(a, double, 64);
    int n = 0;
    switch (attr_info[id].kind) {
    case AK_F64: return attr_f64(id, strtod(s, NULL));
    case AK_STR: return attr_str(id, arena_strndup(a, s, (size_t)(end - s)));
    case AK_ENUM: return attr_int(id, attr_word_index(id, s, (size_t)(end - s)));
    case AK_DIMS: {
        Type t = case_type(&s);
        return attr_dims(a, id, t.d, t.rank);
    }
    case AK_INTS:
        for (char *p; s < end && n < 64; s = p + 1) ints[n++] = strtoll(s, &p, 10);
        return attr_ints(a, id, ints, n);
    case AK_DATA:
        for (char *p; s < end && n < 64; s = p + 1) data[n++] = strtod(s, &p);
        return (Attr){.id = id, .data = {data, n}};
    default: return attr_int(id, strtoll(s, NULL, 10));
    }
}

static inline int case_attrs(Arena *a, const char *s, Attr attrs[CASE_ATTRS]) {
    int n = 0;
    while (*s) {
        AttrId id;
        size_t name = strcspn(s, "=");
        assert_true(attr_id_parse(s, name, &id) && n < CASE_ATTRS);
        s += name + 1;
        size_t len = strcspn(s, " ");
        attrs[n++] = case_attr(a, id, s, s + len);
        s += len + (s[len] == ' ');
    }
    return n;
}

// A node over inputs of the given types, appended to g by the caller. Leaves take their declared
// type from `types`.
static inline NodeSpec case_spec(Graph *g, Op op, const char *types, const char *attrs) {
    Type t[CASE_ARGS] = {0};
    int n = case_types(types, t);
    Attr *av = NEWN(g->arena, Attr, CASE_ATTRS);
    NodeSpec spec = {.op = op, .attrs = av, .nattrs = case_attrs(g->arena, attrs, av)};
    if (op_info[op].traits & T_LEAF) {
        spec.type = t[0];
        return spec;
    }
    Value *args = NEWN(g->arena, Value, n);
    for (int i = 0; i < n; i++)
        args[i] = graph_input(g, arena_printf(g->arena, "x%d", i), t[i], (Loc){0});
    spec.args = args;
    spec.nargs = n;
    return spec;
}

#endif
