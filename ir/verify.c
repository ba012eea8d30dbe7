// The verifier: every invariant of a graph, checked from the data alone, as after a parse or a
// pass. What the builder guarantees by construction is checked again here on purpose.
#include "graph.h"

#define FAIL(g, ...) return arena_printf((g)->arena, __VA_ARGS__)

static const char *verify_results(const Graph *g, int i, int next) {
    const Node *n = &g->nodes.v[i];
    const char *op = op_info[n->op].name;
    if ((int64_t)n->first != next || n->nresults < 1 || n->nresults > g->values.n - next)
        FAIL(g, "node %d (%s): results %u..+%d, expected to start at %d", i, op, n->first,
             n->nresults, next);
    for (int r = 0; r < n->nresults; r++) {
        const ValueInfo *v = &g->values.v[next + r];
        if (v->node != i || v->result != r)
            FAIL(g, "value %d says it is result %d of node %d, it is result %d of node %d",
                 next + r, v->result, v->node, r, i);
    }
    return NULL;
}

static const char *verify_node(const Graph *g, int i, int next) {
    const Node *n = &g->nodes.v[i];
    if ((unsigned)n->op >= OP_COUNT) FAIL(g, "node %d: op %d does not exist", i, (int)n->op);
    const char *op = op_info[n->op].name, *why = verify_results(g, i, next);
    if (why) return why;
    for (int k = 0; k < n->nargs; k++)
        if (n->args[k] >= n->first)
            FAIL(g, "node %d (%s): operand %d is value %u, which comes later", i, op, k,
                 n->args[k]);
    for (int k = 1; k < n->nattrs; k++)
        if (n->attrs[k - 1].id >= n->attrs[k].id)
            FAIL(g, "node %d (%s): attributes are not sorted", i, op);
    NodeSpec spec = {.op = n->op,
                     .args = n->args,
                     .nargs = n->nargs,
                     .attrs = n->attrs,
                     .nattrs = n->nattrs,
                     .body = n->body,
                     .type = graph_type(g, n->first)};
    Type types[MAX_RESULTS];
    why = infer_node(g, &spec, types);
    if (why) FAIL(g, "node %d: %s", i, why);
    int results = n->body ? n->body->outputs.n : op_info[n->op].results;
    if (n->nresults != results)
        FAIL(g, "node %d (%s) has %d results, it must have %d", i, op, n->nresults, results);
    for (int r = 0; r < results; r++) {
        Type t = graph_type(g, n->first + (Value)r);
        if (!type_eq(t, types[r]))
            FAIL(g, "node %d (%s): result %d is declared %s, its type is %s", i, op, r,
                 type_print(g->arena, t), type_print(g->arena, types[r]));
    }
    return NULL;
}

static const char *verify_inputs(const Graph *g) {
    int next = 0;
    for (int i = 0; i < g->nodes.n; i++) {
        if (g->nodes.v[i].op != OP_INPUT) continue;
        if (next >= g->inputs.n || g->inputs.v[next] != g->nodes.v[i].first)
            FAIL(g, "input node %d is not port %d", i, next);
        next++;
    }
    if (next != g->inputs.n) FAIL(g, "%d inputs listed, %d present", g->inputs.n, next);
    return NULL;
}

static const char *verify_outputs(const Graph *g) {
    if (!g->outputs.n) FAIL(g, "there is no output");
    for (int i = 0; i < g->outputs.n; i++)
        if (g->outputs.v[i].value >= (Value)g->values.n)
            FAIL(g, "output %d is value %u, the program has %d values", i, g->outputs.v[i].value,
                 g->values.n);
    return NULL;
}

// Ports of a program are found by name, so names are there and unique.
static const char *verify_ports(const Graph *g) {
    for (int i = 0; i < g->inputs.n; i++) {
        const char *name = node_str(graph_def(g, g->inputs.v[i]), A_name);
        if (!name || !name[0]) FAIL(g, "input %d has no name", i);
        for (int k = 0; k < i; k++)
            if (strcmp(node_str(graph_def(g, g->inputs.v[k]), A_name), name) == 0)
                FAIL(g, "two inputs are named \"%s\"", name);
    }
    for (int i = 0; i < g->outputs.n; i++) {
        const char *name = g->outputs.v[i].name;
        if (!name || !name[0]) FAIL(g, "output %d has no name", i);
        for (int k = 0; k < i; k++)
            if (strcmp(g->outputs.v[k].name, name) == 0)
                FAIL(g, "two outputs are named \"%s\"", name);
    }
    return NULL;
}

// One parameter, one type.
static const char *verify_params(const Graph *g) {
    VEC(const Node *) params = {0};
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *n = &g->nodes.v[i];
        if (n->op != OP_PARAM) continue;
        for (int k = 0; k < params.n; k++) {
            Type x = graph_type(g, params.v[k]->first), y = graph_type(g, n->first);
            if (strcmp(node_str(params.v[k], A_name), node_str(n, A_name)) == 0 && !type_eq(x, y))
                FAIL(g, "parameter \"%s\" is both %s and %s", node_str(n, A_name),
                     type_print(g->arena, x), type_print(g->arena, y));
        }
        vec_push(g->arena, &params, n);
    }
    return NULL;
}

static const char *verify_nodes(const Graph *g) {
    int next = 0;
    for (int i = 0; i < g->nodes.n; i++) {
        const char *why = NULL;
        if (g->nodes.v[i].body) why = verify_nodes(g->nodes.v[i].body);
        if (!why) why = verify_node(g, i, next);
        if (why) return why;
        next += g->nodes.v[i].nresults;
    }
    if (next != g->values.n) FAIL(g, "%d values listed, the nodes have %d", g->values.n, next);
    const char *why = verify_inputs(g);
    return why ? why : verify_outputs(g);
}

const char *graph_verify(const Graph *g) {
    const char *why = verify_nodes(g);
    if (!why) why = verify_ports(g);
    if (!why) why = verify_params(g);
    return why && g->name ? arena_printf(g->arena, "program %s: %s", g->name, why) : why;
}
