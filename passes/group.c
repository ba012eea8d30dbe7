// Building groups and recognising their form. Bodies are rebuilt, never changed.
#include "group.h"

// ---- form --------------------------------------------------------------------------------------
typedef struct {
    const Graph *g;
    Value main; // result of the chain so far
    int stage;  // 0 prologue, 1 anchor seen, 2 tail seen, 3 all seen
    int ops;
} FormWalk;

static bool is_body_input(const Graph *g, Value v) { return graph_def(g, v)->op == OP_INPUT; }

// Which operand of n is the chain: operand 0, or operand 1 of an add or mul; -1: none. All others
// must be inputs.
static int chain_operand(const FormWalk *w, const Node *n) {
    int at = -1;
    for (int i = 0; i < n->nargs; i++) {
        bool chain = w->ops ? n->args[i] == w->main : i == 0 && is_body_input(w->g, n->args[0]);
        if (chain && at < 0)
            at = i;
        else if (!is_body_input(w->g, n->args[i]))
            return -1;
    }
    if (at == 1 && (n->op == OP_ADD || n->op == OP_MUL)) {
        Type x = graph_type(w->g, n->args[0]), y = graph_type(w->g, n->args[1]);
        return type_eq(x, y) ? 1 : -1;
    }
    return at == 0 ? 0 : -1;
}

static bool narrows(const Node *n) {
    return n->op == OP_QUANTIZE ||
           (n->op == OP_CAST && dtype_of_word(node_int(n, A_dtype)) != DT_F32);
}

// Casts around the prologue.
static bool walk_cast(const Node *n, int index, GroupForm *f) {
    int *place = narrows(n) ? &f->narrow : &f->widen;
    if (*place >= 0 || f->narrow >= 0 || (!narrows(n) && f->nprologue)) return false;
    *place = index;
    return true;
}

static bool walk_prologue(FormWalk *w, const Node *n, int index, GroupForm *f) {
    bool first = f->nprologue == 0;
    if (n->op == OP_CAST || n->op == OP_QUANTIZE) return walk_cast(n, index, f);
    if (f->narrow >= 0 && n->op != OP_LINEAR) return false;
    bool after = f->nprologue == 1 && w->g->nodes.v[f->prologue[0]].op == OP_NORMALIZE;
    switch (n->op) {
    case OP_SCALE:
    case OP_NORMALIZE:
        if (!first) return false;
        break;
    case OP_PATCHIFY:
        if (!first && (!after || node_ints(n, A_pad, 0) || node_ints(n, A_pad, 1))) return false;
        break;
    case OP_DWCONV2D:
        if (!first) return false;
        f->anchor = index;
        w->stage = 1;
        return true;
    case OP_LINEAR:
        f->anchor = index;
        w->stage = 1;
        return true;
    default: return false;
    }
    f->prologue[f->nprologue++] = index;
    return true;
}

static bool walk_epilogue(FormWalk *w, const Node *n, int index, GroupForm *f) {
    bool linear = w->g->nodes.v[f->anchor].op == OP_LINEAR;
    if (narrows(n)) {
        f->store = index;
        w->stage = 3;
        return linear ? f->tail < 0 : f->tail >= 0;
    }
    if (w->stage == 2) return false;
    switch (n->op) {
    case OP_NORMALIZE:
    case OP_LAYERNORM:
        f->tail = index;
        w->stage = 2;
        return true;
    case OP_GRN_STAT:
        if (!linear || node_int(n, A_aggregate) == AGG_STD) return false;
        break;
    case OP_GELU:
    case OP_SCALE:
    case OP_ADD:
    case OP_MUL:
        if (!linear) return false;
        break;
    default: return false;
    }
    if (f->nepilogue == MAX_GROUP) return false;
    f->epilogue[f->nepilogue++] = index;
    return true;
}

// v is on the way of a linear's chain: it can be stored there.
static bool passes_by(const Graph *body, const GroupForm *f, Value v) {
    int node = body->values.v[v].node;
    if (body->nodes.v[f->anchor].op != OP_LINEAR) return false;
    for (int i = 0; i < f->nepilogue; i++)
        if (f->epilogue[i] == node) return true;
    return node == f->anchor;
}

// Results: the last of the chain once, statistics, what the chain gave before, nothing else.
static bool form_results(const Graph *body, const GroupForm *f) {
    int main = 0;
    for (int i = 0; i < body->outputs.n; i++) {
        Value v = body->outputs.v[i].value;
        if (v == f->result)
            main++;
        else if (graph_def(body, v)->op != OP_GRN_STAT && !passes_by(body, f, v))
            return false;
        for (int k = 0; k < i; k++)
            if (body->outputs.v[k].value == v) return false;
    }
    return main == 1;
}

bool group_form(const Graph *body, GroupForm *f) {
    FormWalk w = {.g = body};
    *f = (GroupForm){.widen = -1, .narrow = -1, .anchor = -1, .tail = -1, .store = -1};
    for (int i = 0; i < body->nodes.n; i++) {
        const Node *n = &body->nodes.v[i];
        if (n->op == OP_INPUT) continue;
        if (w.stage == 3 || n->nresults != 1 || chain_operand(&w, n) < 0) return false;
        if (!(w.stage == 0 ? walk_prologue(&w, n, i, f) : walk_epilogue(&w, n, i, f))) return false;
        if (n->op != OP_GRN_STAT) w.main = n->first;
        w.ops++;
    }
    if (f->anchor < 0) return false;
    f->result = w.main;
    return form_results(body, f);
}

// ---- building ----------------------------------------------------------------------------------
void group_begin(Group *b, Graph *dst, const Node *like) {
    *b = (Group){.dst = dst, .body = graph_new(dst->arena, NULL), .like = like};
}

Value group_operand(Group *b, Value v) {
    for (int i = 0; i < b->args.n; i++)
        if (b->args.v[i] == v) return b->inputs.v[i];
    const char *name = arena_printf(b->dst->arena, "x%d", b->args.n);
    Value in = graph_input(b->body, name, graph_type(b->dst, v), b->like->loc);
    vec_push(b->dst->arena, &b->args, v);
    vec_push(b->dst->arena, &b->inputs, in);
    return in;
}

Value group_append(Group *b, const Node *like, const Value *args, int nargs) {
    return graph_op(b->body, like->op, like->loc, like->label, args, nargs, like->attrs,
                    like->nattrs);
}

Value group_absorb(Group *b, Value v) {
    const ValueInfo *info = &b->dst->values.v[v];
    const Node n = b->dst->nodes.v[info->node];
    Value *args = NEWN(b->dst->arena, Value, n.nargs + 1);
    for (int i = 0; i < n.nargs; i++) args[i] = group_operand(b, n.args[i]);
    if (n.op != OP_GROUP) {
        Value r = group_append(b, &n, args, n.nargs);
        vec_push(b->dst->arena, &b->results, r);
        return r;
    }
    Value *map = NEWN(b->dst->arena, Value, n.body->values.n + 1);
    for (int i = 0, in = 0; i < n.body->nodes.n; i++) {
        if (n.body->nodes.v[i].op == OP_INPUT)
            map[n.body->nodes.v[i].first] = args[in++];
        else
            graph_copy_node(b->body, n.body, i, map);
    }
    for (int i = 0; i < n.body->outputs.n; i++)
        vec_push(b->dst->arena, &b->results, map[n.body->outputs.v[i].value]);
    return b->results.v[b->results.n - n.body->outputs.n + info->result];
}

// "linear+gelu+grn_stat"
static const char *group_name(const Graph *body) {
    Str s = {.arena = body->arena};
    for (int i = 0; i < body->nodes.n; i++)
        if (body->nodes.v[i].op != OP_INPUT)
            str_printf(&s, "%s%s", s.n ? "+" : "", op_info[body->nodes.v[i].op].name);
    return str_cstr(&s);
}

Value group_end(Group *b) {
    for (int i = 0; i < b->results.n; i++) graph_output(b->body, NULL, b->results.v[i]);
    Attr name = attr_str(A_name, group_name(b->body));
    return graph_add(b->dst, &(NodeSpec){.op = OP_GROUP,
                                         .args = b->args.v,
                                         .nargs = b->args.n,
                                         .attrs = &name,
                                         .nattrs = 1,
                                         .loc = b->like->loc,
                                         .label = b->like->label,
                                         .body = b->body});
}

// ---- what may follow ---------------------------------------------------------------------------
static bool takes_more(const Graph *dst, Value v, bool tail) {
    const Node *n = graph_def(dst, v);
    if (n->op == OP_LINEAR) return graph_type(dst, v).rank > 1;
    if (n->op == OP_DWCONV2D) return tail;
    if (n->op != OP_GROUP) return false;
    GroupForm f;
    if (!group_form(n->body, &f) || f.tail >= 0 || f.store >= 0 || f.nepilogue == MAX_GROUP)
        return false;
    if (n->body->outputs.v[dst->values.v[v].result].value != f.result) return false;
    return n->body->nodes.v[f.anchor].op == OP_LINEAR || tail;
}

bool takes_epilogue(const Graph *dst, Value v) { return takes_more(dst, v, false); }
bool takes_tail(const Graph *dst, Value v) { return takes_more(dst, v, true); }
