// Recursive descent over the text of graphs. After an error in a statement its results count as
// poisoned: uses of them are taken as right, so that one mistake gives one message. Every node is
// checked with graph_check before it is added; text never reaches an internal error.
#include "attr_text.h"
#include "text.h"

enum { MAX_DEPTH = 8, MAX_ERRORS = 20, MAX_OPERANDS = 64, MAX_HINT_NAMES = 512 };

typedef struct {
    const char *s;
    size_t n;
    Value value; // NO_VALUE: poisoned
    int line;
} Symbol;

// Open addressing; slots hold 1 + the index into syms.
typedef struct {
    VEC(Symbol) syms;
    int *slots, nslots;
} Symbols;

typedef struct {
    Graph *g;
    bool body;    // of a group: outputs need no name
    bool damaged; // something in it was reported
    Symbols values, inputs, params, outputs;
} Scope;

typedef struct {
    Lexer l;
    Arena *a;
    int depth, errors_before;
} Parser;

static int *symbols_slot(const Symbols *t, const char *s, size_t n) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    int mask = t->nslots - 1;
    for (int i = (int)(h >> 33) & mask;; i = (i + 1) & mask) {
        int k = t->slots[i];
        if (k == 0) return &t->slots[i];
        const Symbol *y = &t->syms.v[k - 1];
        if (y->n == n && memcmp(y->s, s, n) == 0) return &t->slots[i];
    }
}

static Symbol *symbols_find(const Symbols *t, const char *s, size_t n) {
    int k = t->nslots ? *symbols_slot(t, s, n) : 0;
    return k ? &t->syms.v[k - 1] : NULL;
}

static void symbols_add(Arena *a, Symbols *t, Symbol y) {
    if (2 * (t->syms.n + 1) > t->nslots) {
        t->nslots = t->nslots ? 2 * t->nslots : 64;
        t->slots = NEWN(a, int, t->nslots);
        for (int i = 0; i < t->syms.n; i++)
            *symbols_slot(t, t->syms.v[i].s, t->syms.v[i].n) = i + 1;
    }
    int *slot = symbols_slot(t, y.s, y.n);
    vec_push(a, &t->syms, y);
    *slot = t->syms.n;
}

static bool too_many(const Parser *p) {
    return diag_count(p->l.diag) - p->errors_before > MAX_ERRORS;
}

// ---- values ------------------------------------------------------------------------------------

// The line on which a later statement of this block defines %s, or 0.
static int find_later_definition(const Parser *p, const char *s, size_t n) {
    Lexer l = p->l;
    l.quiet = true;
    bool defs = false; // inside the names before '='
    for (int depth = 0; depth >= 0 && l.tok.kind != TOK_END; lex_next(&l)) {
        if (l.tok.first) defs = depth == 0 && l.tok.kind == TOK_VALUE;
        if (lex_is(&l, '{')) depth++;
        if (lex_is(&l, '}')) depth--;
        if (lex_is(&l, '=')) defs = false;
        if (defs && l.tok.kind == TOK_VALUE && l.tok.n == n && memcmp(l.tok.s, s, n) == 0)
            return l.tok.loc.line;
    }
    return 0;
}

static void report_unknown_value(Parser *p, const Scope *sc) {
    Lexer *l = &p->l;
    const Token t = l->tok;
    int line = find_later_definition(p, t.s, t.n);
    if (line) {
        lex_error(l, t.loc, "%s is used before its definition on line %d", token_text(p->a, &t),
                  line);
        return;
    }
    const char *names[MAX_HINT_NAMES];
    int count = 0;
    for (int i = sc->values.syms.n - 1; i >= 0 && count < MAX_HINT_NAMES; i--)
        names[count++] = arena_strndup(p->a, sc->values.syms.v[i].s, sc->values.syms.v[i].n);
    lex_error(l, t.loc, "unknown value %s", token_text(p->a, &t));
    lex_hint_name(l, t.s, t.n, names, count);
}

// Takes %name at the current token. NO_VALUE is poison: unknown (reported here) or damaged before.
static Value parse_use(Parser *p, const Scope *sc) {
    const Symbol *y = symbols_find(&sc->values, p->l.tok.s, p->l.tok.n);
    if (!y) report_unknown_value(p, sc);
    lex_next(&p->l);
    return y ? y->value : NO_VALUE;
}

// ---- statements --------------------------------------------------------------------------------

// One statement as read, before it is checked.
typedef struct {
    const Token *names; // results
    int nnames;
    Value args[MAX_OPERANDS];
    Type *types; // declared; ntypes 0: none
    const Loc *type_locs;
    int ntypes;
    bool poisoned; // an operand or the body is damaged
    NodeSpec spec;
} Statement;

static bool parse_results(Parser *p, Statement *st) {
    VEC(Token) names = {0};
    do {
        if (p->l.tok.kind != TOK_VALUE) {
            lex_expected(&p->l, "a result such as %x");
            return false;
        }
        vec_push(p->a, &names, p->l.tok);
        st->names = names.v;
        st->nnames = names.n;
        lex_next(&p->l);
    } while (lex_accept(&p->l, ','));
    return lex_expect(&p->l, '=', "after the results");
}

static bool parse_op(Parser *p, Op *op) {
    Lexer *l = &p->l;
    if (l->tok.kind != TOK_NAME) {
        lex_expected(l, "an op name");
        return false;
    }
    if (!op_parse(l->tok.s, l->tok.n, op)) {
        const char *names[OP_COUNT];
        for (int i = 0; i < OP_COUNT; i++) names[i] = op_info[i].name;
        lex_error(l, l->tok.loc, "unknown op %s", token_text(p->a, &l->tok));
        lex_hint_name(l, l->tok.s, l->tok.n, names, OP_COUNT);
        return false;
    }
    lex_next(l);
    return true;
}

static bool parse_args(Parser *p, const Scope *sc, Statement *st) {
    st->spec.args = st->args;
    if (p->l.tok.kind != TOK_VALUE || p->l.tok.first) return true;
    do {
        if (p->l.tok.kind != TOK_VALUE) {
            lex_expected(&p->l, "an operand such as %x");
            return false;
        }
        if (st->spec.nargs == MAX_OPERANDS) {
            lex_error(&p->l, p->l.tok.loc, "a node has at most %d operands", MAX_OPERANDS);
            return false;
        }
        Value v = parse_use(p, sc);
        st->poisoned |= v == NO_VALUE;
        st->args[st->spec.nargs++] = v;
    } while (lex_accept(&p->l, ','));
    return true;
}

static bool parse_types(Parser *p, Statement *st) {
    VEC(Type) types = {0};
    VEC(Loc) locs = {0};
    do {
        Type t;
        vec_push(p->a, &locs, p->l.tok.loc);
        if (!parse_type(&p->l, &t)) return false;
        vec_push(p->a, &types, t);
    } while (lex_accept(&p->l, ','));
    st->types = types.v;
    st->type_locs = locs.v;
    st->ntypes = types.n;
    return true;
}

// A '{' here opens the attributes of a group, not its body, when a name other than "return"
// follows.
static bool at_attrs(const Parser *p, Op op) {
    if (!lex_is(&p->l, '{')) return false;
    if (!(op_info[op].traits & T_REGION)) return true;
    Lexer ahead = p->l;
    ahead.quiet = true;
    lex_next(&ahead);
    return ahead.tok.kind == TOK_NAME && !lex_is_word(&ahead, "return");
}

static bool parse_block(Parser *p, Scope *sc, const char *what, int line);

static bool parse_body(Parser *p, Statement *st) {
    NodeSpec *spec = &st->spec;
    if (!(op_info[spec->op].traits & T_REGION)) return true;
    if (!lex_is(&p->l, '{')) {
        lex_expected(&p->l, arena_printf(p->a, "'{' and the body of %s", op_info[spec->op].name));
        return false;
    }
    if (p->depth == MAX_DEPTH) {
        lex_error(&p->l, p->l.tok.loc, "bodies nest deeper than %d", MAX_DEPTH);
        return false;
    }
    int line = p->l.tok.loc.line;
    lex_next(&p->l);
    const char *name = "body";
    for (int i = 0; i < spec->nattrs; i++)
        if (spec->attrs[i].id == A_name) name = spec->attrs[i].s;
    spec->body = graph_new(p->a, name);
    Scope inner = {.g = spec->body, .body = true};
    p->depth++;
    bool closed = parse_block(p, &inner, "the body", line);
    p->depth--;
    st->poisoned |= inner.damaged;
    return closed;
}

// Everything after '='; false: reported, and the rest of the line is to be skipped.
static bool parse_node(Parser *p, const Scope *sc, Statement *st) {
    Lexer *l = &p->l;
    NodeSpec *spec = &st->spec;
    spec->loc = l->tok.loc;
    if (!parse_op(p, &spec->op) || !parse_args(p, sc, st)) return false;
    const OpInfo *op = &op_info[spec->op];
    Attr *attrs;
    if (at_attrs(p, spec->op)) {
        AttrSchema schema = {"op", op->name, op->attrs, op->nattrs};
        if (!parse_attrs(l, &schema, &attrs, &spec->nattrs)) return false;
        spec->attrs = attrs;
    }
    if (lex_accept(l, ':') && !parse_types(p, st)) return false;
    if (lex_accept(l, '@')) {
        if (l->tok.kind != TOK_STRING) {
            lex_expected(l, "a label (a string) after '@'");
            return false;
        }
        spec->label = l->tok.s;
        lex_next(l);
    }
    if (!parse_body(p, st)) return false;
    if (!l->tok.first && !lex_is(l, '}') && l->tok.kind != TOK_END) {
        lex_expected(l, "the end of the line");
        return false;
    }
    return true;
}

// ---- checks ------------------------------------------------------------------------------------

static const char *spec_name(const NodeSpec *spec) {
    for (int i = 0; i < spec->nattrs; i++)
        if (spec->attrs[i].id == A_name) return spec->attrs[i].s;
    return NULL;
}

static bool check_arity(Parser *p, const Statement *st) {
    const OpInfo *op = &op_info[st->spec.op];
    int n = st->spec.nargs;
    if (n >= op->min_args && n <= op->max_args) return true;
    if (op->min_args == op->max_args)
        lex_error(&p->l, st->spec.loc, "%s takes %d operand%s, found %d", op->name, op->min_args,
                  op->min_args == 1 ? "" : "s", n);
    else
        lex_error(&p->l, st->spec.loc, "%s takes %d to %d operands, found %d", op->name,
                  op->min_args, op->max_args, n);
    return false;
}

// Leaves: the declared type is the type, and names are unique in the program.
static bool check_leaf(Parser *p, Scope *sc, Statement *st) {
    NodeSpec *spec = &st->spec;
    const char *op = op_info[spec->op].name;
    if (st->ntypes != 1) {
        lex_error(&p->l, spec->loc, "%s needs one type, as in : f32[B,224,224,3]", op);
        return false;
    }
    spec->type = st->types[0];
    if (spec->op != OP_INPUT && spec->op != OP_PARAM) return true;
    const char *name = spec_name(spec);
    if (!name || !*name) {
        lex_error(&p->l, spec->loc, "%s needs a name, as in {name=\"x\"}", op);
        return false;
    }
    Symbols *table = spec->op == OP_INPUT ? &sc->inputs : &sc->params;
    const Symbol *old = symbols_find(table, name, strlen(name));
    if (old && spec->op == OP_INPUT) {
        lex_error(&p->l, spec->loc, "input \"%s\" is declared twice, first on line %d", name,
                  old->line);
        return false;
    }
    if (old && !type_eq(graph_type(sc->g, old->value), spec->type)) {
        lex_error(&p->l, spec->loc, "param \"%s\" is %s here and %s on line %d", name,
                  type_print(p->a, spec->type), type_print(p->a, graph_type(sc->g, old->value)),
                  old->line);
        return false;
    }
    return true;
}

static bool check_results(Parser *p, const Scope *sc, const Statement *st) {
    const NodeSpec *spec = &st->spec;
    const OpInfo *op = &op_info[spec->op];
    int n = op->results >= 0 ? op->results : spec->body->outputs.n;
    if (st->nnames != n) {
        lex_error(&p->l, st->names[0].loc, "%s gives %d result%s, %d named", op->name, n,
                  n == 1 ? "" : "s", st->nnames);
        return false;
    }
    if (st->ntypes && st->ntypes != n) {
        lex_error(&p->l, st->type_locs[0], "%s gives %d result%s, %d types follow", op->name, n,
                  n == 1 ? "" : "s", st->ntypes);
        return false;
    }
    if (op->traits & T_LEAF) return true;
    Type *types = NEWN(p->a, Type, n + 1);
    const char *why = infer_node(sc->g, spec, types);
    for (int i = 0; i < st->ntypes && !why; i++)
        if (!type_eq(types[i], st->types[i])) {
            lex_error(&p->l, st->type_locs[i], "%s gives %s, the text says %s", op->name,
                      type_print(p->a, types[i]), type_print(p->a, st->types[i]));
            return false;
        }
    if (why) lex_error(&p->l, spec->loc, "%s", why);
    return !why;
}

static bool check_node(Parser *p, Scope *sc, Statement *st) {
    if (!check_arity(p, st) || st->poisoned) return false;
    if ((op_info[st->spec.op].traits & T_LEAF) && !check_leaf(p, sc, st)) return false;
    const char *why = graph_check(sc->g, &st->spec);
    if (why) {
        lex_error(&p->l, st->spec.loc, "%s", why);
        return false;
    }
    return check_results(p, sc, st);
}

static Value add_node(Parser *p, Scope *sc, const Statement *st) {
    const NodeSpec *spec = &st->spec;
    const char *name = spec_name(spec);
    Value v;
    if (spec->op == OP_INPUT) {
        v = graph_input(sc->g, name, spec->type, spec->loc);
        sc->g->nodes.v[sc->g->values.v[v].node].label = spec->label;
    } else {
        v = graph_add(sc->g, spec);
    }
    Symbol y = {name, name ? strlen(name) : 0, v, spec->loc.line};
    if (spec->op == OP_INPUT) symbols_add(p->a, &sc->inputs, y);
    if (spec->op == OP_PARAM && !symbols_find(&sc->params, y.s, y.n))
        symbols_add(p->a, &sc->params, y);
    return v;
}

// Gives the result names their values, first + i, or poison.
static bool define_results(Parser *p, Scope *sc, const Statement *st, Value first) {
    bool ok = true;
    for (int i = 0; i < st->nnames; i++) {
        const Token *t = &st->names[i];
        const Symbol *old = symbols_find(&sc->values, t->s, t->n);
        Value v = first == NO_VALUE ? NO_VALUE : first + (Value)i;
        if (old)
            lex_error(&p->l, t->loc, "%s is defined twice, first on line %d", token_text(p->a, t),
                      old->line);
        else
            symbols_add(p->a, &sc->values, (Symbol){t->s, t->n, v, t->loc.line});
        ok &= !old;
    }
    return ok;
}

static void parse_statement(Parser *p, Scope *sc) {
    Statement st = {0};
    Value first = NO_VALUE;
    bool read = parse_results(p, &st) && parse_node(p, sc, &st);
    if (read && check_node(p, sc, &st)) first = add_node(p, sc, &st);
    bool fresh = define_results(p, sc, &st, first);
    sc->damaged |= first == NO_VALUE || !fresh;
    if (!read) lex_skip_line(&p->l);
}

// ---- blocks ------------------------------------------------------------------------------------

static bool parse_output(Parser *p, Scope *sc) {
    Lexer *l = &p->l;
    const Token t = l->tok;
    const char *name = "";
    if (t.kind == TOK_NAME || t.kind == TOK_STRING) {
        name = arena_strndup(p->a, t.s, t.n);
        lex_next(l);
        if (!lex_expect(l, '=', "after the name of an output")) return false;
        const Symbol *old = symbols_find(&sc->outputs, name, t.n);
        if (old && t.n) lex_error(l, t.loc, "output \"%s\" is returned twice", name);
        sc->damaged |= old && t.n;
        symbols_add(p->a, &sc->outputs, (Symbol){name, t.n, 0, t.loc.line});
    }
    if (l->tok.kind != TOK_VALUE || (!sc->body && !*name)) {
        lex_expected(l, sc->body ? "a value such as %x" : "a named output such as logits=%x");
        return false;
    }
    Value v = parse_use(p, sc);
    sc->damaged |= v == NO_VALUE;
    if (v != NO_VALUE) graph_output(sc->g, name, v);
    return true;
}

static void parse_return(Parser *p, Scope *sc) {
    Lexer *l = &p->l;
    bool ok = true;
    lex_next(l);
    if (!l->tok.first && !lex_is(l, '}')) do {
            ok = parse_output(p, sc);
        } while (ok && lex_accept(l, ','));
    if (ok && !l->tok.first && !lex_is(l, '}') && l->tok.kind != TOK_END) {
        lex_expected(l, "the end of the line");
        ok = false;
    }
    sc->damaged |= !ok;
    if (!ok) lex_skip_line(l);
}

static void report_stray(Parser *p, Scope *sc) {
    static const char *const words[] = {"return"};
    Lexer *l = &p->l;
    lex_expected(l, "a statement such as %x = op, return or '}'");
    if (l->tok.kind == TOK_NAME) lex_hint_name(l, l->tok.s, l->tok.n, words, 1);
    sc->damaged = true;
    lex_next(l);
    lex_skip_line(l);
}

// Statements of the block opened on that line, up to and with the '}'; false when the file ends
// before it, or after too many errors.
static bool parse_block(Parser *p, Scope *sc, const char *what, int line) {
    Lexer *l = &p->l;
    bool returned = false;
    while (!lex_is(l, '}')) {
        if (l->tok.kind == TOK_END) {
            lex_error(l, l->tok.loc, "expected '}' to close %s opened on line %d", what, line);
            sc->damaged = true;
            return false;
        }
        if (too_many(p)) return false;
        if (returned) {
            lex_expected(l, "'}' after return");
            sc->damaged = true;
            returned = false;
        }
        if (l->tok.kind == TOK_VALUE) {
            parse_statement(p, sc);
        } else if (lex_is_word(l, "return")) {
            parse_return(p, sc);
            returned = true;
        } else {
            report_stray(p, sc);
        }
    }
    if (!returned && !sc->damaged) {
        lex_expected(l, "return before the end of the block");
        sc->damaged = true;
    }
    lex_next(l);
    return true;
}

static void skip_to_program(Parser *p) {
    do lex_next(&p->l);
    while (p->l.tok.kind != TOK_END && !(p->l.tok.first && lex_is_word(&p->l, "program")));
}

static bool parse_header(Parser *p, Module *m, const char **name) {
    Lexer *l = &p->l;
    if (!lex_accept_word(l, "program")) {
        static const char *const words[] = {"program"};
        lex_expected(l, "program NAME {");
        if (l->tok.kind == TOK_NAME) lex_hint_name(l, l->tok.s, l->tok.n, words, 1);
        return false;
    }
    if ((l->tok.kind != TOK_NAME && l->tok.kind != TOK_STRING) || l->tok.n == 0) {
        lex_expected(l, "the name of the program");
        return false;
    }
    *name = arena_strndup(p->a, l->tok.s, l->tok.n);
    if (module_find(m, *name)) {
        lex_error(l, l->tok.loc, "program %s is defined twice", *name);
        return false;
    }
    lex_next(l);
    return lex_expect(l, '{', "after the name of the program");
}

static void parse_program(Parser *p, Module *m) {
    const char *name;
    Loc loc = p->l.tok.loc;
    if (!parse_header(p, m, &name)) {
        skip_to_program(p);
        return;
    }
    Scope sc = {.g = graph_new(p->a, name)};
    vec_push(p->a, &m->graphs, sc.g);
    parse_block(p, &sc, arena_printf(p->a, "program %s", name), loc.line);
    const char *why = sc.damaged || too_many(p) ? NULL : graph_verify(sc.g);
    if (why) lex_error(&p->l, loc, "program %s: %s", name, why);
}

Module *module_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n) {
    Parser p = {.a = a, .errors_before = diag_count(d)};
    Module *m = module_new(a);
    file = arena_strdup(a, file);
    diag_source(d, file, text, n);
    lex_start(&p.l, a, d, file, text, n);
    if (p.l.tok.kind == TOK_END) lex_expected(&p.l, "program NAME {");
    while (p.l.tok.kind != TOK_END && !too_many(&p)) parse_program(&p, m);
    return diag_count(d) == p.errors_before ? m : NULL;
}
