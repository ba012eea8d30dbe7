// Algebra on single ops: the rules of rules.def, tried on each node once its operands are
// simplified. A rule looks at the new graph and returns the value that takes the node's place, or
// NO_VALUE.
#include "pass.h"

typedef struct {
    Rewrite *r;
    Graph *g;          // the new graph
    const Node *n;     // of the old one
    const Value *args; // its operands in g
} Rule;

static Type type_of(const Rule *m, Value v) { return graph_type(m->g, v); }

static Value named_input(const Graph *g, const char *name) {
    for (int i = 0; i < g->inputs.n; i++) {
        const char *other = node_str(graph_def(g, g->inputs.v[i]), A_name);
        if (other && strcmp(other, name) == 0) return g->inputs.v[i];
    }
    return NO_VALUE;
}

// The input drop.<key> [n]: what each sample's branch is multiplied by, 0 or 1/(1-rate). NO_VALUE
// after an error: the program has an input of that name that does not fit.
static Value drawn_input(const Rule *m, Dim n) {
    const char *name = arena_printf(m->g->arena, "drop.%lld", (long long)node_int(m->n, A_key));
    Type t = type_make(DT_F32, 1, &n);
    Value have = named_input(m->g, name), later = named_input(m->r->src, name);
    if (have == NO_VALUE && later == NO_VALUE) return graph_input(m->g, name, t, m->n->loc);
    if (have != NO_VALUE && type_eq(type_of(m, have), t)) return have;
    diag_error(m->r->p->diag, m->n->loc, "the draws of this drop_path are the input %s: %s", name,
               type_print(m->g->arena, t));
    diag_hint(m->r->p->diag, "the program's own input of that name comes later or is of another "
                             "type; leave it out");
    return NO_VALUE;
}

static Value rule_drop_path(const Rule *m) {
    if (!program_trains(m->r->src) || node_f64(m->n, A_rate) == 0) return m->args[0];
    Value keep = drawn_input(m, type_of(m, m->args[0]).d[0]);
    if (keep == NO_VALUE) return m->args[0];
    return graph_op(m->g, OP_SCALE_ROWS, m->n->loc, m->n->label, (Value[]){m->args[0], keep}, 2,
                    NULL, 0);
}

static Value rule_reshape_same(const Rule *m) {
    return type_eq(type_of(m, m->args[0]), graph_type(m->r->src, m->n->first)) ? m->args[0]
                                                                               : NO_VALUE;
}

static Value rule_reshape_twice(const Rule *m) {
    const Node *inner = graph_def(m->g, m->args[0]);
    if (inner->op != OP_RESHAPE) return NO_VALUE;
    Value x = inner->args[0];
    if (type_eq(type_of(m, x), graph_type(m->r->src, m->n->first))) return x;
    return graph_op(m->g, OP_RESHAPE, m->n->loc, m->n->label, &x, 1, m->n->attrs, m->n->nattrs);
}

static bool is_identity(const int64_t *perm, int n) {
    for (int i = 0; i < n; i++)
        if (perm[i] != i) return false;
    return true;
}

static Value rule_transpose_same(const Rule *m) {
    const Attr *perm = node_attr(m->n, A_perm);
    return is_identity(perm->ints.v, perm->ints.n) ? m->args[0] : NO_VALUE;
}

static Value rule_transpose_twice(const Rule *m) {
    const Node *inner = graph_def(m->g, m->args[0]);
    if (inner->op != OP_TRANSPOSE) return NO_VALUE;
    const Attr *outer = node_attr(m->n, A_perm), *in = node_attr(inner, A_perm);
    int64_t perm[MAX_RANK];
    for (int i = 0; i < outer->ints.n; i++) perm[i] = in->ints.v[outer->ints.v[i]];
    Value x = inner->args[0];
    if (is_identity(perm, outer->ints.n)) return x;
    Attr a = attr_ints(m->g->arena, A_perm, perm, outer->ints.n);
    return graph_op(m->g, OP_TRANSPOSE, m->n->loc, m->n->label, &x, 1, &a, 1);
}

static Value rule_tile_once(const Rule *m) {
    return node_int(m->n, A_times) == 1 ? m->args[0] : NO_VALUE;
}

static Value rule_patchify_pixel(const Rule *m) {
    for (int i = 0; i < 2; i++)
        if (node_ints(m->n, A_kernel, i) != 1 || node_ints(m->n, A_stride, i) != 1 ||
            node_ints(m->n, A_pad, i) != 0)
            return NO_VALUE;
    return m->args[0];
}

// x op constant, the result having x's type.
static Value neutral(const Rule *m, int x, double constant) {
    double c;
    if (!constant_splat(m->g, m->args[1 - x], &c) || c != constant) return NO_VALUE;
    return type_eq(type_of(m, m->args[x]), graph_type(m->r->src, m->n->first)) ? m->args[x]
                                                                               : NO_VALUE;
}

static Value rule_mul_one(const Rule *m) {
    Value v = neutral(m, 0, 1);
    return v != NO_VALUE ? v : neutral(m, 1, 1);
}

static Value rule_add_zero(const Rule *m) {
    Value v = neutral(m, 0, 0);
    return v != NO_VALUE ? v : neutral(m, 1, 0);
}

static Value rule_scale_one(const Rule *m) { return neutral(m, 0, 1); }

static Value rule_layernorm_plain(const Rule *m) {
    double gamma, beta;
    if (!constant_splat(m->g, m->args[1], &gamma) || !constant_splat(m->g, m->args[2], &beta) ||
        gamma != 1 || beta != 0)
        return NO_VALUE;
    return graph_op(m->g, OP_NORMALIZE, m->n->loc, m->n->label, m->args, 1, m->n->attrs,
                    m->n->nattrs);
}

static Value rule_pool_point(const Rule *m) {
    return type_of(m, m->args[0]).rank == 2 &&
                   type_eq(type_of(m, m->args[0]), graph_type(m->r->src, m->n->first))
               ? m->args[0]
               : NO_VALUE;
}

static const struct {
    Op op;
    Value (*apply)(const Rule *m);
} rules[] = {
#define RULE(op, name, text) {OP_##op, rule_##name},
#include "rules.def"
#undef RULE
};

static bool simplify_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (op_info[n->op].traits & (T_LEAF | T_REGION)) return false;
    Value *args = NEWN(r->p->arena, Value, n->nargs + 1);
    for (int i = 0; i < n->nargs; i++) args[i] = mapped(r, n, i);
    Rule m = {r, r->dst, n, args};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].op != n->op) continue;
        Value v = rules[i].apply(&m);
        if (v == NO_VALUE) continue;
        // on purpose: dropping drop_path is no optimisation, the limit does not apply
        if (n->op != OP_DROP_PATH && !pass_may_rewrite(r->p)) return false;
        r->map[n->first] = v;
        return true;
    }
    return false;
}

void pass_simplify(Pipeline *p) { rewrite_all(p, simplify_node); }
