// Schedules as text and back. Buffers are numbered b0, b1, ... in order. What follows from the rest
// is not printed: the size of a buffer that its type gives, the facts of a target that are those of
// its row in the table, totals that are zero, offsets and live ranges that are not planned.
#include "attr_text.h"
#include "schedule.h"

enum { MAX_ERRORS = 20, MAX_BLOCK = 1 << 30, MAX_BUFFERS = 1 << 13 };
static const char *const over_names[] = {"image", "flat", "once", "list"};
static const char *const total_names[] = {"fixed", "image", "slot", "scratch", "weights", "params"};
enum { TOTALS = 6 };

static int64_t *schedule_total(Schedule *s, int i) {
    int64_t *const totals[TOTALS] = {&s->fixed_bytes,   &s->image_bytes,  &s->slot_bytes,
                                     &s->scratch_bytes, &s->weight_bytes, &s->param_bytes};
    return totals[i];
}

static int64_t type_bytes(Type t) {
    int64_t fixed, per_image;
    type_elems(t, &fixed, &per_image);
    return (fixed + per_image) * dtype_bytes(t.dt);
}

static bool region_has_port(Region r) {
    return r == REGION_INPUT || r == REGION_OUTPUT || r == REGION_STATE;
}

static bool region_has_offset(Region r) { return r != REGION_INPUT && r != REGION_OUTPUT; }

static AttrSchema kernel_schema(KernelKind k) {
    return (AttrSchema){"kernel", kernel_info[k].name, kernel_info[k].attrs, kernel_info[k].nattrs};
}

// ---- printing ----------------------------------------------------------------------------------

static void print_target(Str *out, const Target *t) {
    const Target *row = target_find(t->name);
    str_add(out, " target=");
    text_string(out, t->name, strlen(t->name));
    if (!row || strcmp(row->cpu, t->cpu) != 0) {
        str_add(out, " cpu=");
        text_string(out, t->cpu, strlen(t->cpu));
    }
    if (!row || strcmp(row->features, t->features) != 0) {
        str_add(out, " features=");
        text_string(out, t->features, strlen(t->features));
    }
    if (!row || row->l1 != t->l1) str_printf(out, " l1=%d", t->l1);
    if (!row || row->l2 != t->l2) str_printf(out, " l2=%d", t->l2);
}

static void print_buffer(Str *out, const Buffer *b, int index) {
    bool typed = b->region != REGION_SCRATCH || b->type.rank > 0;
    str_printf(out, "  buffer b%d ", index);
    text_string(out, b->name, strlen(b->name));
    str_printf(out, " %s", region_name(b->region));
    if (region_has_port(b->region)) str_printf(out, " %d", b->port);
    if (region_has_offset(b->region) && b->offset >= 0)
        str_printf(out, " +%lld", (long long)b->offset);
    if (typed) str_printf(out, " : %s", type_print(out->arena, b->type));
    if (!typed || b->bytes != type_bytes(b->type))
        str_printf(out, " bytes %lld", (long long)b->bytes);
    if (region_has_life(b->region) && b->first >= 0)
        str_printf(out, " live %d..%d", b->first, b->last);
    str_add(out, "\n");
}

static void print_operand(Str *out, const Operand *o) {
    str_printf(out, "b%d", o->buffer);
    if (o->offset) str_printf(out, "+%lld", (long long)o->offset);
    if (o->row_bytes) str_printf(out, " row %lld", (long long)o->row_bytes);
    if (o->block_bytes) str_printf(out, " block %lld", (long long)o->block_bytes);
}

static void print_call(Str *out, const Call *c) {
    AttrSchema schema = kernel_schema(c->spec.kind);
    str_printf(out, "    %s", schema.name);
    text_attrs(out, &schema, c->spec.attrs, c->spec.nattrs, true);
    str_add(out, " (");
    for (int i = 0; i < c->nops; i++) {
        if (i > 0) str_add(out, ", ");
        print_operand(out, &c->ops[i]);
    }
    str_add(out, ")");
    if (c->label) {
        str_add(out, " ");
        text_string(out, c->label, strlen(c->label));
    }
    if (c->macs) str_printf(out, " macs %lld", (long long)c->macs);
    str_add(out, "\n");
}

static void print_step(Str *out, const Step *s) {
    str_add(out, "  step ");
    text_string(out, s->name, strlen(s->name));
    str_printf(out, " %s rows %lld/%lld cols %lld/%lld%s {\n", over_names[s->over],
               (long long)s->rows, (long long)s->row_block, (long long)s->cols,
               (long long)s->col_block, s->then ? " then" : "");
    for (int i = 0; i < s->calls.n; i++) print_call(out, &s->calls.v[i]);
    str_add(out, "  }\n");
}

void schedule_print(Str *out, const Schedule *s) {
    Schedule totals = *s;
    str_add(out, "schedule ");
    text_name(out, s->name);
    print_target(out, s->target);
    for (int i = 0; i < TOTALS; i++)
        if (*schedule_total(&totals, i))
            str_printf(out, " %s %lld", total_names[i], (long long)*schedule_total(&totals, i));
    str_add(out, " {\n");
    for (int i = 0; i < s->buffers.n; i++) print_buffer(out, &s->buffers.v[i], i);
    for (int i = 0; i < s->steps.n; i++) print_step(out, &s->steps.v[i]);
    str_add(out, "}\n");
}

// ---- parsing -----------------------------------------------------------------------------------

static const char *parse_string(Lexer *l, const char *what) {
    if (l->tok.kind != TOK_STRING) {
        lex_expected(l, what);
        return NULL;
    }
    const char *s = l->tok.s;
    lex_next(l);
    return s;
}

// Takes one of the words and gives its index, or reports and gives -1.
static int parse_choice(Lexer *l, const char *what, const char *const *words, int n) {
    for (int i = 0; i < n; i++)
        if (lex_accept_word(l, words[i])) return i;
    lex_expected(l, what);
    if (l->tok.kind == TOK_NAME) lex_hint_name(l, l->tok.s, l->tok.n, words, n);
    return -1;
}

static bool parse_count(Lexer *l, const char *what, int64_t *out) {
    return parse_int(l, what, 0, TEXT_MAX_ELEMS * 8, out);
}

// Takes the word and a count after it when the word is there; false after an error.
static bool parse_optional(Lexer *l, const char *word, int64_t *out) {
    return !lex_accept_word(l, word) || parse_count(l, word, out);
}

static bool end_of_line(Lexer *l) {
    if (l->tok.first || lex_is(l, '}') || l->tok.kind == TOK_END) return true;
    lex_expected(l, "the end of the line");
    return false;
}

// bN; the number or -1 after reporting.
static int parse_buffer_name(Lexer *l) {
    const Token *t = &l->tok;
    bool ok = t->kind == TOK_NAME && t->n >= 2 && t->n <= 8 && t->s[0] == 'b';
    int number = 0;
    for (size_t i = 1; ok && i < t->n; i++) {
        ok = t->s[i] >= '0' && t->s[i] <= '9';
        number = number * 10 + (t->s[i] - '0');
    }
    if (!ok) {
        lex_expected(l, "a buffer such as b0");
        return -1;
    }
    lex_next(l);
    return number;
}

static bool parse_place(Lexer *l, Buffer *b) {
    int64_t port = 0;
    if (region_has_port(b->region)) {
        if (!parse_int(l, "the port number", 0, MAX_BLOCK, &port)) return false;
        b->port = (int)port;
    }
    return !region_has_offset(b->region) || !lex_accept(l, '+') ||
           parse_count(l, "the offset", &b->offset);
}

static bool parse_life(Lexer *l, Buffer *b) {
    int64_t first, last;
    if (!lex_accept_word(l, "live")) return true;
    if (!parse_int(l, "the first step", 0, MAX_BLOCK, &first)) return false;
    if (l->tok.kind != TOK_DOTS) {
        lex_expected(l, "'..' between the first and the last step");
        return false;
    }
    lex_next(l);
    if (!parse_int(l, "the last step", 0, MAX_BLOCK, &last)) return false;
    b->first = (int)first;
    b->last = (int)last;
    return true;
}

static bool parse_buffer(Lexer *l, Schedule *s) {
    Buffer b = {.offset = -1, .bytes = -1, .first = -1, .last = -1};
    const char *regions[REGION_SCRATCH + 1];
    for (int i = 0; i <= REGION_SCRATCH; i++) regions[i] = region_name((Region)i);
    Loc loc = l->tok.loc;
    int number = parse_buffer_name(l);
    if (number < 0) return false;
    if (number == MAX_BUFFERS) {
        lex_error(l, loc, "a schedule has at most %d buffers", MAX_BUFFERS);
        return false;
    }
    if (number != s->buffers.n) {
        lex_error(l, loc, "buffers are numbered in order: expected b%d, found b%d", s->buffers.n,
                  number);
        return false;
    }
    b.name = parse_string(l, "the name of the buffer (a string)");
    if (!b.name) return false;
    int region = parse_choice(l, "a region", regions, REGION_SCRATCH + 1);
    if (region < 0) return false;
    b.region = (Region)region;
    bool typed = false;
    if (!parse_place(l, &b)) return false;
    if (lex_accept(l, ':')) {
        if (!parse_type(l, &b.type)) return false;
        b.bytes = type_bytes(b.type);
        typed = true;
    } else if (b.region != REGION_SCRATCH) {
        lex_expected(l, "the type of the buffer");
        return false;
    }
    if (!typed && !lex_is_word(l, "bytes")) {
        lex_expected(l, "a type or bytes");
        return false;
    }
    if (!parse_optional(l, "bytes", &b.bytes) || !parse_life(l, &b) || !end_of_line(l))
        return false;
    vec_push(s->arena, &s->buffers, b);
    return true;
}

static bool parse_operand(Lexer *l, const Schedule *s, Operand *o) {
    Loc loc = l->tok.loc;
    *o = (Operand){.buffer = parse_buffer_name(l)};
    if (o->buffer < 0) return false;
    if (o->buffer >= s->buffers.n) {
        lex_error(l, loc, "unknown buffer b%d; the schedule has %d", o->buffer, s->buffers.n);
        return false;
    }
    if (lex_accept(l, '+') && !parse_count(l, "the offset", &o->offset)) return false;
    return parse_optional(l, "row", &o->row_bytes) && parse_optional(l, "block", &o->block_bytes);
}

static bool parse_operands(Lexer *l, const Schedule *s, Call *c) {
    VEC(Operand) ops = {0};
    if (!lex_expect(l, '(', "before the operands")) return false;
    if (!lex_is(l, ')')) do {
            Operand o;
            if (!parse_operand(l, s, &o)) return false;
            vec_push(s->arena, &ops, o);
        } while (lex_accept(l, ','));
    c->ops = ops.v;
    c->nops = ops.n;
    return lex_expect(l, ')', "after the operands");
}

static bool parse_call(Lexer *l, const Schedule *s, Step *step) {
    Call c = {0};
    const char *names[K_COUNT];
    for (int i = 0; i < K_COUNT; i++) names[i] = kernel_info[i].name;
    Loc loc = l->tok.loc;
    int kind = parse_choice(l, "a kernel call or '}'", names, K_COUNT);
    if (kind < 0) {
        lex_next(l);
        return false;
    }
    c.spec.kind = (KernelKind)kind;
    AttrSchema schema = kernel_schema(c.spec.kind);
    Attr *attrs;
    if (!parse_attrs(l, &schema, &attrs, &c.spec.nattrs)) return false;
    c.spec.attrs = attrs;
    if (!parse_operands(l, s, &c)) return false;
    if (c.nops != spec_operands(&c.spec)) {
        lex_error(l, loc, "%s takes %d operands with these attributes, found %d", schema.name,
                  spec_operands(&c.spec), c.nops);
        return false;
    }
    if (l->tok.kind == TOK_STRING) c.label = parse_string(l, "a label");
    if (!parse_optional(l, "macs", &c.macs) || !end_of_line(l)) return false;
    vec_push(s->arena, &step->calls, c);
    return true;
}

static bool parse_extent(Lexer *l, const char *word, int64_t *all, int64_t *block) {
    if (!lex_accept_word(l, word)) {
        lex_expected(l, arena_printf(l->arena, "%s N/BLOCK", word));
        return false;
    }
    return parse_int(l, word, 1, TEXT_MAX_ELEMS, all) && lex_expect(l, '/', "before the block") &&
           parse_int(l, "the block", 1, TEXT_MAX_ELEMS, block);
}

static bool too_many(const Lexer *l, int before) {
    return diag_count(l->diag) - before > MAX_ERRORS;
}

// The head of a step; false after reporting.
static bool parse_step_head(Lexer *l, Step *step) {
    step->name = parse_string(l, "the name of the step (a string)");
    if (!step->name) return false;
    int over = parse_choice(l, "image, flat, once or list", over_names, 4);
    if (over < 0) return false;
    step->over = (Over)over;
    if (!parse_extent(l, "rows", &step->rows, &step->row_block) ||
        !parse_extent(l, "cols", &step->cols, &step->col_block))
        return false;
    step->then = lex_accept_word(l, "then");
    return lex_expect(l, '{', "before the calls");
}

static bool parse_step(Lexer *l, Schedule *s, int before) {
    Step step = {0};
    int line = l->tok.loc.line;
    if (!parse_step_head(l, &step)) return false;
    while (!lex_is(l, '}') && !too_many(l, before)) {
        if (l->tok.kind == TOK_END) {
            lex_error(l, l->tok.loc, "expected '}' to close the step on line %d", line);
            return false;
        }
        if (!parse_call(l, s, &step)) lex_skip_line(l);
    }
    vec_push(s->arena, &s->steps, step);
    lex_next(l);
    return true;
}

// target="row" and what differs from the row.
static bool parse_target(Lexer *l, Schedule *s) {
    Target *t = NEW(l->arena, Target);
    if (!lex_accept_word(l, "target") || !lex_is(l, '=')) {
        lex_expected(l, "target=\"NAME\"");
        return false;
    }
    lex_next(l);
    Loc loc = l->tok.loc;
    const char *name = parse_string(l, "the name of the target (a string)");
    if (!name) return false;
    const Target *row = target_find(name);
    if (!row) {
        const char *names[32];
        int n = target_count < 32 ? target_count : 32;
        for (int i = 0; i < n; i++) names[i] = target_table[i].name;
        lex_error(l, loc, "unknown target \"%s\"", name);
        lex_hint_name(l, name, strlen(name), names, n);
        return false;
    }
    *t = *row;
    s->target = t;
    static const char *const keys[] = {"cpu", "features", "l1", "l2"};
    for (int i = 0; i < 4; i++) {
        if (!lex_accept_word(l, keys[i])) continue;
        if (!lex_expect(l, '=', "after the target's key")) return false;
        int64_t bytes = 0;
        const char *text = i < 2 ? parse_string(l, "a string") : NULL;
        if (i < 2 ? !text : !parse_int(l, keys[i], 1, MAX_BLOCK, &bytes)) return false;
        if (i == 0) t->cpu = text;
        if (i == 1) t->features = text;
        if (i == 2) t->l1 = (int)bytes;
        if (i == 3) t->l2 = (int)bytes;
    }
    return true;
}

static bool parse_head(Lexer *l, Schedule *s) {
    if (!lex_accept_word(l, "schedule")) {
        static const char *const words[] = {"schedule"};
        lex_expected(l, "schedule NAME target=\"NAME\" {");
        if (l->tok.kind == TOK_NAME) lex_hint_name(l, l->tok.s, l->tok.n, words, 1);
        return false;
    }
    if ((l->tok.kind != TOK_NAME && l->tok.kind != TOK_STRING) || l->tok.n == 0) {
        lex_expected(l, "the name of the schedule");
        return false;
    }
    s->name = arena_strndup(l->arena, l->tok.s, l->tok.n);
    lex_next(l);
    if (!parse_target(l, s)) return false;
    for (int i = 0; i < TOTALS; i++)
        if (!parse_optional(l, total_names[i], schedule_total(s, i))) return false;
    return lex_expect(l, '{', "before the buffers");
}

static void parse_lines(Lexer *l, Schedule *s, int before) {
    static const char *const words[] = {"buffer", "step"};
    while (!lex_is(l, '}') && !too_many(l, before)) {
        if (l->tok.kind == TOK_END) {
            lex_expected(l, "'}' to close the schedule");
            return;
        }
        int word = parse_choice(l, "buffer, step or '}'", words, 2);
        if (word < 0) lex_next(l);
        if (word < 0 || !(word ? parse_step(l, s, before) : parse_buffer(l, s))) lex_skip_line(l);
    }
    lex_next(l);
}

static void skip_to_schedule(Lexer *l) {
    while (l->tok.kind != TOK_END && !(l->tok.first && lex_is_word(l, "schedule"))) lex_next(l);
}

// One schedule; NULL after reporting.
static Schedule *parse_schedule(Lexer *l, int before) {
    Schedule *s = NEW(l->arena, Schedule);
    Loc loc = l->tok.loc;
    int errors = diag_count(l->diag);
    s->arena = l->arena;
    if (!parse_head(l, s)) {
        if (l->tok.loc.line == loc.line) lex_next(l);
        skip_to_schedule(l);
        return NULL;
    }
    parse_lines(l, s, before);
    if (diag_count(l->diag) > errors) return NULL;
    const char *why = schedule_verify(s);
    if (why) lex_error(l, loc, "schedule %s: %s", s->name, why);
    return why ? NULL : s;
}

Schedule **schedules_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n,
                           int *count) {
    Lexer l;
    VEC(Schedule *) list = {0};
    int before = diag_count(d);
    file = arena_strdup(a, file);
    diag_source(d, file, text, n);
    lex_start(&l, a, d, file, text, n);
    if (l.tok.kind == TOK_END) lex_expected(&l, "schedule NAME target=\"NAME\" {");
    while (l.tok.kind != TOK_END && !too_many(&l, before)) {
        Loc loc = l.tok.loc;
        Schedule *s = parse_schedule(&l, before);
        for (int i = 0; s && i < list.n; i++)
            if (strcmp(list.v[i]->name, s->name) == 0)
                lex_error(&l, loc, "schedule %s is defined twice", s->name);
        if (s) vec_push(a, &list, s);
    }
    *count = list.n;
    return diag_count(d) == before ? list.v : NULL;
}

Schedule *schedule_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n) {
    int count;
    Schedule **list = schedules_parse(a, d, file, text, n, &count);
    if (!list) return NULL;
    if (count == 1) return list[0];
    diag_error(d, (Loc){.file = file}, "expected one schedule, found %d", count);
    return NULL;
}
