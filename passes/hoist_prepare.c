// Splits weight-only work off into the program `prepare`. In the other programs every weight-only
// value that something else reads becomes a param; prepare has an output of that name. Equal values
// are one output, whichever programs read them. A parameter read as it is keeps its name; a
// computed one is named after the parameter it is mostly made of and its last op.
#include "pass.h"

typedef struct {
    Pipeline *p;
    Graph *prepare;
    const Graph *old; // a prepare program that was there, copied into the new one
} Hoist;

// The output of prepare for value v of it; named when new.
static const char *output_of(Hoist *h, Value v, const char *name) {
    for (int i = 0; i < h->prepare->outputs.n; i++)
        if (h->prepare->outputs.v[i].value == v) return h->prepare->outputs.v[i].name;
    const char *unique = name;
    for (int n = 2, clash = 1; clash; n++) {
        clash = 0;
        for (int i = 0; i < h->prepare->outputs.n; i++)
            clash |= strcmp(h->prepare->outputs.v[i].name, unique) == 0;
        if (clash) unique = arena_printf(h->p->arena, "%s.%d", name, n);
    }
    graph_output(h->prepare, unique, v);
    return unique;
}

static const char *primary_name(const Graph *g, Value v) {
    const Node *n = graph_def(g, v);
    if (n->op == OP_PARAM) return node_str(n, A_name);
    if (n->nargs == 0) return "constant";
    return primary_name(g, n->args[n->op == OP_LINEAR ? n->nargs - 1 : 0]);
}

// The value of prepare that a parameter of another program stands for.
static Value hoist_param(Hoist *h, const Graph *g, Value v) {
    const Node *n = graph_def(g, v);
    const char *name = node_str(n, A_name);
    for (int i = 0; h->old && i < h->old->outputs.n; i++)
        if (strcmp(h->old->outputs.v[i].name, name) == 0) return h->prepare->outputs.v[i].value;
    return graph_param(h->prepare, name, graph_type(g, v), n->loc);
}

static Graph *hoist_graph(Hoist *h, const Graph *g) {
    const bool *weight = weight_values(g);
    Value *in_prepare = NEWN(h->p->arena, Value, g->values.n + 1);
    Value *map = NEWN(h->p->arena, Value, g->values.n + 1);
    bool *needed = NEWN(h->p->arena, bool, g->values.n + 1);
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        bool weight_node = n->nresults > 0 && weight[n->first];
        for (int k = 0; !weight_node && k < n->nargs; k++) needed[n->args[k]] = true;
    }
    for (int i = 0; i < g->outputs.n; i++) needed[g->outputs.v[i].value] = true;
    Graph *dst = graph_new(h->p->arena, g->name);
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (!n->nresults || !weight[n->first]) {
            graph_copy_node(dst, g, i, map);
            continue;
        }
        if (n->op == OP_PARAM)
            in_prepare[n->first] = hoist_param(h, g, n->first);
        else
            graph_copy_node(h->prepare, g, i, in_prepare);
        for (Value v = n->first; v < n->first + (Value)n->nresults; v++) {
            if (!needed[v]) continue;
            const char *name = primary_name(g, v);
            if (n->op != OP_PARAM && n->nargs)
                name = arena_printf(h->p->arena, "%s.%s", name, op_info[n->op].name);
            map[v] = graph_param(dst, output_of(h, in_prepare[v], name), graph_type(g, v), n->loc);
        }
        if (n->op != OP_PARAM) h->p->rewrites++;
    }
    for (int i = 0; i < g->outputs.n; i++)
        graph_output(dst, g->outputs.v[i].name, map[g->outputs.v[i].value]);
    return graph_prune(dst);
}

void pass_hoist_prepare(Pipeline *p) {
    Hoist h = {.p = p,
               .prepare = graph_new(p->arena, "prepare"),
               .old = module_find(p->module, "prepare")};
    if (h.old) {
        Value *map = NEWN(p->arena, Value, h.old->values.n + 1);
        for (int i = 0; i < h.old->nodes.n; i++) graph_copy_node(h.prepare, h.old, i, map);
        for (int i = 0; i < h.old->outputs.n; i++)
            graph_output(h.prepare, h.old->outputs.v[i].name, map[h.old->outputs.v[i].value]);
    }
    Module *m = module_new(p->arena);
    for (int i = 0; i < p->module->graphs.n; i++) {
        const Graph *g = p->module->graphs.v[i];
        ice_context.program = g->name;
        if (g != h.old) vec_push(p->arena, &m->graphs, hoist_graph(&h, g));
    }
    if (h.prepare->outputs.n) vec_push(p->arena, &m->graphs, graph_prune(h.prepare));
    p->module = m;
}
