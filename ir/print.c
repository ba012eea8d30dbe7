// Graphs as text; parse.c reads it back. Values are numbered by their index in the graph, so equal
// graphs print equal text.
#include "attr_text.h"
#include "text.h"

static void indent(Str *out, int depth) {
    for (int i = 0; i < depth; i++) str_add(out, "  ");
}

static void print_nodes(Str *out, const Graph *g, int depth);

static void print_node(Str *out, const Graph *g, const Node *n, int depth) {
    const OpInfo *op = &op_info[n->op];
    indent(out, depth);
    for (int i = 0; i < n->nresults; i++)
        str_printf(out, "%s%%%u", i ? ", " : "", n->first + (unsigned)i);
    str_printf(out, " = %s", op->name);
    for (int i = 0; i < n->nargs; i++) str_printf(out, "%s %%%u", i ? "," : "", n->args[i]);
    text_attrs(out, &(AttrSchema){"op", op->name, op->attrs, op->nattrs}, n->attrs, n->nattrs,
               false);
    for (int i = 0; i < n->nresults; i++) {
        Type t = graph_type(g, n->first + (Value)i);
        str_printf(out, "%s%s", i ? ", " : " : ", type_print(out->arena, t));
    }
    if (n->label) {
        str_add(out, " @");
        text_string(out, n->label, strlen(n->label));
    }
    if (n->body) {
        str_add(out, " {\n");
        print_nodes(out, n->body, depth + 1);
        indent(out, depth);
        str_add(out, "}");
    }
    str_add(out, "\n");
}

// Statements and the return line. Only a body may leave its outputs without names.
static void print_nodes(Str *out, const Graph *g, int depth) {
    for (int i = 0; i < g->nodes.n; i++) print_node(out, g, &g->nodes.v[i], depth);
    indent(out, depth);
    str_add(out, "return");
    for (int i = 0; i < g->outputs.n; i++) {
        const Port *p = &g->outputs.v[i];
        str_add(out, i ? ", " : " ");
        if (depth == 1 || (p->name && *p->name)) {
            text_name(out, p->name);
            str_add(out, "=");
        }
        str_printf(out, "%%%u", p->value);
    }
    str_add(out, "\n");
}

void graph_print(Str *out, const Graph *g) {
    str_add(out, "program ");
    text_name(out, g->name);
    str_add(out, " {\n");
    print_nodes(out, g, 1);
    str_add(out, "}\n");
}

void module_print(Str *out, const Module *m) {
    for (int i = 0; i < m->graphs.n; i++) {
        if (i > 0) str_add(out, "\n");
        graph_print(out, m->graphs.v[i]);
    }
}
