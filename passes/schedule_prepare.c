// The prepare program while schedules are made: weight layouts (GEMM panels, depthwise taps) are
// appended once and shared by every program that reads them; what nothing reads is dropped.
#include "sched.h"

void prepare_begin(Prepare *pr, Pipeline *p) {
    *pr = (Prepare){.g = graph_new(p->arena, "prepare")};
    const Graph *old = module_find(p->module, "prepare");
    if (!old) return;
    Value *map = NEWN(p->arena, Value, old->values.n + 1);
    for (int i = 0; i < old->nodes.n; i++) graph_copy_node(pr->g, old, i, map);
    for (int i = 0; i < old->outputs.n; i++)
        vec_push(p->arena, &pr->known,
                 ((Port){old->outputs.v[i].name, map[old->outputs.v[i].value]}));
}

Graph *prepare_end(Prepare *pr) {
    for (int i = 0; i < pr->wanted.n; i++)
        graph_output(pr->g, pr->wanted.v[i].name, pr->wanted.v[i].value);
    return graph_prune(pr->g);
}

// The value a parameter of another program stands for: a result of prepare, else a raw parameter.
static Value known_value(Prepare *pr, const Graph *g, const Node *param) {
    const char *name = node_str(param, A_name);
    for (int i = 0; param->op == OP_PARAM && i < pr->known.n; i++)
        if (strcmp(pr->known.v[i].name, name) == 0) return pr->known.v[i].value;
    const Attr *value = node_attr(param, A_value);
    if (param->op == OP_CONSTANT)
        return graph_constant(pr->g, graph_type(g, param->first), value->data.v, value->data.n,
                              param->loc);
    return graph_param(pr->g, name, graph_type(g, param->first), param->loc);
}

static const char *want(Prepare *pr, const char *name, Value v) {
    Arena *a = pr->g->arena;
    for (int i = 0; i < pr->wanted.n; i++)
        if (pr->wanted.v[i].value == v) return pr->wanted.v[i].name;
    const char *unique = name;
    for (int i = 0, k = 2; i < pr->wanted.n; i++)
        if (strcmp(pr->wanted.v[i].name, unique) == 0) {
            unique = arena_printf(a, "%s.%d", name, k++);
            i = -1;
        }
    vec_push(a, &pr->wanted, ((Port){unique, v}));
    return unique;
}

static const char *base_name(const Node *param) {
    return param->op == OP_CONSTANT ? "constant" : node_str(param, A_name);
}

const char *prepare_plain(Prepare *pr, const Graph *g, const Node *param) {
    return want(pr, base_name(param), known_value(pr, g, param));
}

const char *prepare_panels(Prepare *pr, const Graph *g, const Node *param, int64_t nr) {
    Value w = known_value(pr, g, param);
    Attr attr = attr_int(A_nr, nr);
    Value v = graph_op(pr->g, OP_PACK, param->loc, base_name(param), &w, 1, &attr, 1);
    return want(pr, arena_printf(pr->g->arena, "%s/panels%lld", base_name(param), (long long)nr),
                v);
}

const char *prepare_taps(Prepare *pr, const Graph *g, const Node *param) {
    Arena *a = pr->g->arena;
    Value w = known_value(pr, g, param);
    Type t = graph_type(pr->g, w);
    Dim flat[] = {t.d[0], dim_c(t.d[2].c * t.d[3].c)};
    Attr shape = attr_dims(a, A_shape, flat, 2), perm = attr_ints2(a, A_perm, 1, 0);
    Value v = graph_op(pr->g, OP_RESHAPE, param->loc, base_name(param), &w, 1, &shape, 1);
    v = graph_op(pr->g, OP_TRANSPOSE, param->loc, base_name(param), &v, 1, &perm, 1);
    return want(pr, arena_printf(a, "%s/taps", base_name(param)), v);
}

const char *prepare_constant(Prepare *pr, int64_t n, double value) {
    Value v = graph_constant(pr->g, type_make(DT_F32, 1, (Dim[]){dim_c(n)}), &value, 1, (Loc){0});
    return want(pr, arena_printf(pr->g->arena, "constant%lld.%g", (long long)n, value), v);
}
