// Reverse-mode differentiation: a program that trains (train, pretrain) and has an output `loss`
// gets the gradient of every parameter.
//
//   before   return loss=%l, logits=%z
//   after    return loss=%l, logits=%z, grad.NAME=%g, ...     one per parameter, in program order
//
// The sweep goes over the nodes from the loss back. A value's cotangent is the sum of what its
// readers send back, added in the order in which the sweep meets them; values that do not depend on
// a parameter get none. The cotangent of the loss is the input `loss_scale`, of the loss's type
// (made when the program has none): 1/batch for a mean, 0 for a sample that only fills up a batch.
// A parameter the loss does not depend on has the gradient 0. Forward values are read as they are;
// which of them are kept and which computed again is a later pass's choice.
#include "autodiff.h"

typedef struct {
    Graph *g;
    bool *active; // by value: depends on one of `of`
    Value *cot;   // by value: its cotangent so far
    Diag *d;
} Sweep;

static void mark_active(Sweep *s, int nodes, const Value *of, int n) {
    for (int i = 0; i < n; i++) s->active[of[i]] = true;
    for (int i = 0; i < nodes; i++) {
        const Node *x = &s->g->nodes.v[i];
        bool any = false;
        for (int k = 0; k < x->nargs; k++) any |= s->active[x->args[k]];
        for (int r = 0; any && r < x->nresults; r++) s->active[x->first + (Value)r] = true;
    }
}

static bool refuse(Sweep *s, const Node *n, const char *hint) {
    diag_error(s->d, n->loc, "%s has no gradient", op_info[n->op].name);
    if (hint) diag_hint(s->d, "%s", hint);
    return false;
}

static void accumulate(Sweep *s, const Node *n, Value x, Value dx) {
    if (s->cot[x] != NO_VALUE)
        dx = graph_op(s->g, OP_ADD, n->loc, n->label, (Value[]){s->cot[x], dx}, 2, NULL, 0);
    s->cot[x] = dx;
}

// Sends the cotangent of a node's result to its operands.
static bool step_back(Sweep *s, int node) {
    const Node n = s->g->nodes.v[node]; // a copy: the graph grows
    if (n.nargs == 0 || n.nresults < 1) return true;
    if (n.op == OP_GROUP) {
        bool reached = false;
        for (int r = 0; r < n.nresults; r++) reached |= s->cot[n.first + (Value)r] != NO_VALUE;
        return !reached || refuse(s, &n, "differentiate before the passes that fuse");
    }
    if (s->cot[n.first] == NO_VALUE || !s->active[n.first]) return true;
    if (!vjp_of(n.op)) return refuse(s, &n, NULL);
    Value *dx = NEWN(s->g->arena, Value, n.nargs);
    for (int i = 0; i < n.nargs; i++) dx[i] = NO_VALUE;
    Vjp v = {.g = s->g, .n = &n, .dy = s->cot[n.first], .dx = dx};
    vjp_of(n.op)(&v);
    if (v.why) return refuse(s, &n, v.why);
    for (int i = 0; i < n.nargs; i++) {
        if (!s->active[n.args[i]]) continue;
        if (dx[i] == NO_VALUE) {
            diag_error(s->d, n.loc, "%s has no gradient for operand %d", op_info[n.op].name, i);
            diag_hint(s->d, "targets and masks must not depend on parameters");
            return false;
        }
        accumulate(s, &n, n.args[i], dx[i]);
    }
    return true;
}

bool graph_gradients(Graph *g, Value y, Value seed, const Value *of, int n, Value *grad, Diag *d) {
    int nodes = g->nodes.n, values = g->values.n;
    Sweep s = {.g = g,
               .active = NEWN(g->arena, bool, values + 1),
               .cot = NEWN(g->arena, Value, values + 1),
               .d = d};
    for (int i = 0; i < values; i++) s.cot[i] = NO_VALUE;
    mark_active(&s, nodes, of, n);
    s.cot[y] = seed;
    for (int i = nodes - 1; i >= 0; i--)
        if (!step_back(&s, i)) return false;
    for (int i = 0; i < n; i++) grad[i] = s.cot[of[i]];
    return true;
}

// ---- the pass ----------------------------------------------------------------------------------
static Value find_output(const Graph *g, const char *name) {
    for (int i = 0; i < g->outputs.n; i++)
        if (strcmp(g->outputs.v[i].name, name) == 0) return g->outputs.v[i].value;
    return NO_VALUE;
}

// The input `loss_scale`, made when new; NO_VALUE after an error.
static Value loss_seed(Pipeline *p, Graph *g, Value loss) {
    Type t = graph_type(g, loss);
    for (int i = 0; i < g->inputs.n; i++) {
        const Node *n = graph_def(g, g->inputs.v[i]);
        if (!node_str(n, A_name) || strcmp(node_str(n, A_name), "loss_scale") != 0) continue;
        if (type_eq(graph_type(g, n->first), t)) return n->first;
        diag_error(p->diag, n->loc, "input loss_scale is %s, the loss %s",
                   type_print(p->arena, graph_type(g, n->first)), type_print(p->arena, t));
        return NO_VALUE;
    }
    return graph_input(g, "loss_scale", t, graph_def(g, loss)->loc);
}

typedef VEC(Value) Values;

static Values list_params(const Graph *g) {
    Values v = {0};
    for (int i = 0; i < g->nodes.n; i++)
        if (g->nodes.v[i].op == OP_PARAM) vec_push(g->arena, &v, g->nodes.v[i].first);
    return v;
}

static bool output_gradient(Pipeline *p, Graph *g, Value param, Value grad) {
    const Node *n = graph_def(g, param);
    const char *name = arena_printf(p->arena, "grad.%s", node_str(n, A_name));
    double zero = 0;
    if (find_output(g, name) != NO_VALUE) {
        diag_error(p->diag, n->loc, "program %s has an output %s already", g->name, name);
        return false;
    }
    if (grad == NO_VALUE) grad = graph_constant(g, graph_type(g, param), &zero, 1, n->loc);
    graph_output(g, name, grad);
    return true;
}

// The program with its gradients, or NULL after an error.
static Graph *differentiate(Pipeline *p, const Graph *src) {
    Graph *g = graph_new(p->arena, src->name);
    Value *map = NEWN(p->arena, Value, src->values.n + 1);
    for (int i = 0; i < src->nodes.n; i++) graph_copy_node(g, src, i, map);
    for (int i = 0; i < src->outputs.n; i++)
        graph_output(g, src->outputs.v[i].name, map[src->outputs.v[i].value]);
    Value loss = find_output(g, "loss"), seed = loss_seed(p, g, loss);
    if (seed == NO_VALUE) return NULL;
    Values params = list_params(g);
    Value *grads = NEWN(p->arena, Value, params.n + 1);
    int before = g->nodes.n;
    if (!graph_gradients(g, loss, seed, params.v, params.n, grads, p->diag)) return NULL;
    for (int i = 0; i < params.n; i++)
        if (!output_gradient(p, g, params.v[i], grads[i])) return NULL;
    p->rewrites += g->nodes.n - before;
    return graph_prune(g);
}

void pass_autodiff(Pipeline *p) {
    int found = 0;
    if (module_find(p->module, "prepare")) {
        diag_error(p->diag, (Loc){0}, "autodiff: the work on parameters is in program prepare");
        diag_hint(p->diag, "differentiate before hoist-prepare");
        return;
    }
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        if (!program_trains(g) || find_output(g, "loss") == NO_VALUE) continue;
        ice_context.program = g->name;
        found++;
        Graph *with = differentiate(p, g);
        if (!with) return;
        p->module->graphs.v[i] = with;
    }
    if (!found)
        diag_error(p->diag, (Loc){0},
                   "autodiff: no program train or pretrain has an output named loss");
}
