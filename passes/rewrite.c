// The walk that every graph pass is: read one graph in order, build the next, prune what died.
#include "pass.h"

static int *value_readers(const Graph *g) {
    int *reader = NEWN(g->arena, int, g->values.n + 1);
    for (int i = 0; i < g->values.n; i++) reader[i] = -1;
    for (int i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].nargs; k++) reader[g->nodes.v[i].args[k]] = i;
    return reader;
}

bool *weight_values(const Graph *g) {
    bool *weight = NEWN(g->arena, bool, g->values.n + 1);
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        bool yes = n->op == OP_PARAM || n->op == OP_CONSTANT;
        if (!(op_info[n->op].traits & (T_LEAF | T_EFFECT | T_RANDOM)) && n->nargs > 0) {
            yes = true;
            for (int k = 0; k < n->nargs; k++) yes = yes && weight[n->args[k]];
        }
        for (int r = 0; r < n->nresults; r++)
            weight[n->first + (Value)r] =
                yes && !type_has_batch(graph_type(g, n->first + (Value)r));
    }
    return weight;
}

static Graph *rewrite_graph(Pipeline *p, const Graph *g, RewriteRule rule) {
    Rewrite r = {.p = p,
                 .src = g,
                 .dst = graph_new(p->arena, g->name),
                 .map = NEWN(p->arena, Value, g->values.n + 1),
                 .uses = graph_use_counts(g),
                 .reader = value_readers(g),
                 .weight = weight_values(g)};
    for (int i = 0; i < g->values.n; i++) r.map[i] = NO_VALUE;
    for (int i = 0; i < g->nodes.n; i++)
        if (r.map[g->nodes.v[i].first] == NO_VALUE || !g->nodes.v[i].nresults)
            if (!rule(&r, i)) graph_copy_node(r.dst, g, i, r.map);
    for (int i = 0; i < g->outputs.n; i++)
        graph_output(r.dst, g->outputs.v[i].name, r.map[g->outputs.v[i].value]);
    return graph_prune(r.dst);
}

void rewrite_all(Pipeline *p, RewriteRule rule) {
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        ice_context.program = g->name;
        p->module->graphs.v[i] = rewrite_graph(p, g, rule);
    }
}

void rewrite_programs(Pipeline *p, RewriteRule rule) {
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        ice_context.program = g->name;
        if (strcmp(g->name, "prepare") != 0) p->module->graphs.v[i] = rewrite_graph(p, g, rule);
    }
}

const Node *single_use(const Rewrite *r, Value v, Op op) {
    const Node *n = graph_def(r->src, v);
    return n->op == op && n->nresults == 1 && r->uses[v] == 1 ? n : NULL;
}

bool constant_splat(const Graph *g, Value v, double *x) {
    const Node *n = graph_def(g, v);
    const Attr *a = n->op == OP_CONSTANT ? node_attr(n, A_value) : NULL;
    if (!a || a->data.n < 1) return false;
    for (int64_t i = 1; i < a->data.n; i++)
        if (memcmp(&a->data.v[i], &a->data.v[0], sizeof(double)) != 0) return false;
    *x = a->data.v[0];
    return true;
}

Value mapped_bias(const Rewrite *r, const Node *n) {
    return n->nargs > 2 ? r->map[n->args[2]] : NO_VALUE;
}

Value build_linear(Graph *dst, const Node *like, Value x, Value w, Value bias) {
    Value args[3] = {x, w, bias};
    return graph_op(dst, OP_LINEAR, like->loc, like->label, args, bias == NO_VALUE ? 2 : 3, NULL,
                    0);
}
