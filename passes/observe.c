// What calibration looks at: groups are taken apart and the input of every labelled linear becomes
// an output "input.LABEL" of its program. These are the very values the pass precision converts.
#include "pass.h"

static bool take_apart(Rewrite *r, int node) {
    const Node *n = &r->src->nodes.v[node];
    if (n->op != OP_GROUP) return false;
    Value *map = NEWN(r->p->arena, Value, n->body->values.n + 1);
    for (int i = 0, in = 0; i < n->body->nodes.n; i++) {
        if (n->body->nodes.v[i].op == OP_INPUT)
            map[n->body->nodes.v[i].first] = mapped(r, n, in++);
        else
            graph_copy_node(r->dst, n->body, i, map);
    }
    for (int i = 0; i < n->nresults; i++)
        r->map[n->first + (Value)i] = map[n->body->outputs.v[i].value];
    return true;
}

static bool has_output(const Graph *g, const char *name) {
    for (int i = 0; i < g->outputs.n; i++)
        if (strcmp(g->outputs.v[i].name, name) == 0) return true;
    return false;
}

void pass_observe(Pipeline *p) {
    rewrite_programs(p, take_apart);
    for (int i = 0; i < p->module->graphs.n; i++) {
        Graph *g = p->module->graphs.v[i];
        if (strcmp(g->name, "prepare") == 0) continue;
        for (int k = 0; k < g->nodes.n; k++) {
            const Node *n = &g->nodes.v[k];
            if (n->op != OP_LINEAR || !n->label || !type_has_batch(graph_type(g, n->first)))
                continue;
            const char *name = arena_printf(p->arena, "input.%s", n->label);
            if (has_output(g, name)) continue;
            graph_output(g, name, n->args[0]);
            p->rewrites++;
        }
    }
}
