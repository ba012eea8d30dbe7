// Ops whose operands are all constants become constants, computed by the naive evaluator in f64.
// Large results stay as they are: text and memory cost more than the work in prepare saves.
#include "pass.h"
#include "../ir/eval.h"

enum { MAX_FOLDED = 1 << 14 }; // elements

static bool foldable(const Rewrite *r, const Node *n) {
    if (op_info[n->op].traits & (T_LEAF | T_EFFECT | T_RANDOM | T_REGION)) return false;
    if (n->nargs == 0 || n->nresults != 1 || n->op == OP_PACK) return false;
    for (int i = 0; i < n->nargs; i++)
        if (graph_def(r->dst, mapped(r, n, i))->op != OP_CONSTANT) return false;
    Type t = graph_type(r->src, n->first);
    return t.dt == DT_F32 && !type_has_batch(t) && type_elems_at(t, 1) <= MAX_FOLDED;
}

static Tensor constant_tensor(const Rewrite *r, Value v) {
    const Attr *value = node_attr(graph_def(r->dst, v), A_value);
    Tensor t = tensor_for(r->p->arena, DT_F64, graph_type(r->dst, v), 1);
    int64_t n = tensor_elems(&t);
    for (int64_t i = 0; i < n; i++)
        ((double *)t.data)[i] = value->data.v[value->data.n == 1 ? 0 : i];
    return t;
}

static bool fold_node(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (!foldable(r, n)) return false;
    Tensor *args = NEWN(r->p->arena, Tensor, n->nargs), out;
    for (int i = 0; i < n->nargs; i++) {
        if (type_elems_at(graph_type(r->src, n->args[i]), 1) > MAX_FOLDED) return false;
        args[i] = constant_tensor(r, mapped(r, n, i));
    }
    EvalContext ctx = {.arena = r->p->arena, .dt = DT_F64, .batch = 1};
    if (!pass_may_rewrite(r->p)) return false;
    const char *why = eval_node(&ctx, r->src, n, args, &out);
    if (why) ice(n->loc, "folding %s: %s", op_info[n->op].name, why);
    r->map[n->first] =
        graph_constant(r->dst, graph_type(r->src, n->first), out.data, tensor_elems(&out), n->loc);
    return true;
}

void pass_fold_constants(Pipeline *p) { rewrite_programs(p, fold_node); }
