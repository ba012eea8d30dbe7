// Graphs as text: identity of print and parse for every op and attribute kind, values, places and
// hints of errors, recovery, and hostile text. Single messages have their own files in tests/error.
#include "ir/attr_text.h"
#include "ir/schedule.h"
#include "ir/text.h"
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

typedef struct {
    Module *m;
    const char *errors;
    int count;
} Parsed;

static Parsed parse_n(Arena *a, const char *text, size_t n) {
    char *errors = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&errors, &size);
    Diag *d = diag_new(a, f);
    Parsed p = {.m = module_parse(a, d, "t.ir", text, n)};
    p.count = diag_count(d);
    fclose(f);
    p.errors = arena_strdup(a, errors);
    free(errors);
    assert_true(!p.m == (p.count > 0));
    return p;
}

static Parsed parse(Arena *a, const char *text) { return parse_n(a, text, strlen(text)); }

static const char *print(Arena *a, const Module *m) {
    Str out = {.arena = a};
    module_print(&out, m);
    return str_cstr(&out);
}

// The printed form, after checking that printing and parsing it again changes nothing.
static const char *canonical(Arena *a, const char *text) {
    Parsed p = parse(a, text);
    if (!p.m) fail_msg("%s", p.errors);
    const char *once = print(a, p.m);
    Parsed again = parse(a, once);
    if (!again.m) fail_msg("%s", again.errors);
    assert_string_equal(print(a, again.m), once);
    return once;
}

// A program with every op, under any names and spacing; canonical text is checked for identity.
static const char *const every_op =
    "; a comment\n"
    "program infer {\n"
    "%image=input{name=\"image\"}:f32[B,9,7,4]\n"
    "%w = param {name=\"c.weight\"} : f32[8,4,2,2]\n"
    "%b = param {name=\"c.bias\"} : f32[8]\n"
    "%c = conv2d %image, %w, %b {stride=[2,2], pad=[0,0]} : f32[B,4,3,8] @\"stem\"\n"
    "%dw = param {name=\"d.weight\"} : f32[8,1,3,3]\n"
    "%d = dwconv2d %c, %dw, %b {pad=[1,1], stride=[1,1]}\n"
    "%g = param {name=\"g\"} : f32[8]\n"
    "%n = layernorm %d, %g, %b {eps=1e-6}\n"
    "%nn = normalize %n {eps=0.25}\n"
    "%r = grn %nn, %g, %b {eps=1e-6, aggregate=std, normalise=standardise, residual=true, "
    "statistics=batch}\n"
    "%e = gelu %r {approx=tanh}\n"
    "%st = grn_stat %e {aggregate=l1}\n"
    "%s = grn_scale %st, %g {normalise=sum, eps=1e-6}\n"
    "%sc = scale %e, %s\n"
    "%ad = add %sc, %d\n"
    "%mu = mul %ad, %sc\n"
    "%dp = drop_path %mu {rate=0.1, key=7}\n"
    "%p = patchify %dp {kernel=[2,1], stride=[2,1]}\n"
    "%lw = param {name=\"l.weight\"} : f32[5,16]\n"
    "%half = constant {value=[0.5]} : f32[5]\n"
    "%lr = scale_rows %lw, %half\n"
    "%l = linear %p, %lr, %half\n"
    "%pool = global_avg_pool %l\n"
    "%re = reshape %pool {shape=[B,1,5]}\n"
    "%tr = transpose %re {perm=[0,2,1]}\n"
    "%k = constant {value=[1,2.5,-3,1e-300,inf]} : f32[5]\n"
    "%ti = tile %k {times=3}\n"
    "%pk = pack %lw {nr=4}\n"
    "%px = constant {value=[2]} : f32[B,4,6,8]\n"
    "%up = unpatchify %p {kernel=[2,1], stride=[2,1], shape=[B,4,3,8]}\n"
    "%ldw = linear_dw %up, %e\n"
    "%cdx = dwconv2d_dx %up, %dw {pad=[1,1], stride=[1,1], shape=[B,4,3,8]}\n"
    "%cdw = dwconv2d_dw %up, %c {kernel=[3,3], pad=[1,1], stride=[1,1]}\n"
    "%ndx = layernorm_dx %cdx, %d, %g {eps=1e-6}\n"
    "%ndg = layernorm_dgamma %cdx, %d {eps=1e-6}\n"
    "%nndx = normalize_dx %ndx, %n {eps=0.25}\n"
    "%edx = gelu_dx %nndx, %r {approx=tanh}\n"
    "%sum = image_sum %edx\n"
    "%dst = grn_scale_dstat %sum, %st, %g {normalise=sum, eps=1e-6}\n"
    "%dg = grn_scale_dgamma %sum, %st {normalise=sum, eps=1e-6}\n"
    "%sdx = grn_stat_dx %dst, %e, %st {aggregate=l1}\n"
    "%rows = sum_rows %sdx\n"
    "%ex = expand %rows {shape=[B,4,3,8]}\n"
    "%ce = softmax_cross_entropy %dst, %st\n"
    "%ced = softmax_cross_entropy_dx %ce, %dst, %st\n"
    "%bce = bce_with_logits %ced, %st\n"
    "%bced = bce_with_logits_dx %bce, %dst, %st\n"
    "%pix = norm_pix %ex {eps=1e-6}\n"
    "%mask = constant {value=[1]} : f32[B,12]\n"
    "%mse = masked_mse %ex, %pix, %mask\n"
    "%msed = masked_mse_dx %mse, %ex, %pix, %mask\n"
    "%pm = constant {value=[0]} : f32[B,2,3]\n"
    "%mk = mask %px, %pm {hidden=true}\n"
    "%ce2 = cells %pm {count=6}\n"
    "%ru = rulebook %ce2 {grid=[2,3], block=2, kernel=[3,3]}\n"
    "%pr = pack_rows %mk, %ce2 {block=2}\n"
    "%dp2 = dwconv2d_packed %pr, %ru, %dw\n"
    "%dx2 = dwconv2d_packed_dx %dp2, %ru, %dw\n"
    "%dw2 = dwconv2d_packed_dw %dx2, %pr, %ru {kernel=[3,3]}\n"
    "%ur = unpack_rows %dx2, %ce2 {block=2, shape=[B,4,6,8]}\n"
    "%pp = patchify_rows %ur, %ce2 {kernel=[2,2], block=1}\n"
    "%hy = param {name=\"hyper\"} : f32[12]\n"
    "%gp = param {name=\"groups\"} : f32[3,2]\n"
    "%np, %nm, %nv = adamw %dw2, %dw, %dw, %dw, %hy, %gp {index=2}\n"
    "%nr = recall %nm\n"
    "%em = ema %nr, %np, %hy\n"
    "%c1 = cast %l {dtype=bf16}\n"
    "%grid = constant {value=[4,128]} : f32[2]\n"
    "%q1 = quantize %l, %grid\n"
    "%qw, %qs = quantize_rows %lw\n"
    "%gr, %gs = group %l, %lw {name=\"fused\"} : f32[B,2,3,5], f32[B,5] @\"g\\\"1\\\"\" {\n"
    "  %x = input {name=\"x\"} : f32[B,2,3,5]\n"
    "  %y = input {name=\"y\"} : f32[5,16]\n"
    "  %a = gelu %x\n"
    "  %b = grn_stat %a\n"
    "  return %a, %b\n"
    "}\n"
    "return pooled=%tr, \"odd name\"=%ti, packed=%pk, g=%gr, s=%gs, a=%ldw, b=%cdw, c=%ndg, d=%dg, "
    "e=%bced, f=%msed, h=%em, i=%pp, j=%c1, k=%q1, l=%qw, m=%qs\n"
    "}\n"
    "program other { %x = input {name=\"x\"} : f32[]\n return x=%x }\n";

static void every_op_round_trips(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *text = canonical(a, every_op);
    for (int i = 0; i < OP_COUNT; i++)
        if (!strstr(text, arena_printf(a, " = %s ", op_info[i].name)))
            fail_msg("op %s is missing in the test", op_info[i].name);
    assert_non_null(strstr(text, "program infer {\n"
                                 "  %0 = input {name=\"image\"} : f32[B,9,7,4]\n"));
    assert_non_null(strstr(
        text, "  %3 = conv2d %0, %1, %2 {stride=[2,2], pad=[0,0]} : f32[B,4,3,8] @\"stem\"\n"));
    assert_non_null(strstr(text, "{value=[1,2.5,-3,1e-300,inf]} : f32[5]"));
    assert_non_null(strstr(text, "aggregate=std, normalise=standardise, residual=true, "
                                 "statistics=batch}"));
    assert_non_null(strstr(text, "@\"g\\\"1\\\"\" {\n    %0 = input {name=\"x\"}"));
    assert_non_null(strstr(text, "    return %2, %3\n  }\n"));
    assert_non_null(strstr(text, "\"odd name\"=%"));
    assert_non_null(strstr(text, "}\n\nprogram other {\n"));
    arena_free(a);
}

static void values_and_places(void **state) {
    (void)state;
    Arena *a = arena_new();
    Parsed p = parse(a, every_op);
    assert_int_equal(p.m->graphs.n, 2);
    Graph *g = module_find(p.m, "infer");
    assert_int_equal(g->inputs.n, 1);
    assert_int_equal(g->outputs.n, 17);
    const Node *n = graph_def(g, 3);
    assert_int_equal(n->op, OP_CONV2D);
    assert_int_equal(n->nargs, 3);
    assert_int_equal(n->loc.line, 6);
    assert_string_equal(n->loc.file, "t.ir");
    assert_string_equal(n->label, "stem");
    assert_int_equal(node_ints(n, A_stride, 1), 2);
    assert_true(graph_type(g, 3).d[0].b && graph_type(g, 3).d[1].c == 4);
    arena_free(a);
}

// Attributes in any order give the same node, so equal statements are one value.
static void equal_statements_are_one_value(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *text = canonical(a, "program p {\n"
                                    "  %x = input {name=\"x\"} : f32[B,4,4,2]\n"
                                    "  %a = patchify %x {stride=[2,2], kernel=[2,2]}\n"
                                    "  %b = patchify %x {kernel=[2,2], stride=[2,2]}\n"
                                    "  %c = add %a, %b\n"
                                    "  return c=%c\n}\n");
    assert_non_null(strstr(text, "%2 = add %1, %1 :"));
    arena_free(a);
}

static void doubles_round_trip(void **state) {
    (void)state;
    Arena *a = arena_new();
    static const double values[] = {
        0,       -0.0,    1,      0.1,       1e-6,     1e-12, 1.0 / 3,
        DBL_MAX, DBL_MIN, 5e-324, -INFINITY, INFINITY, 1e22,  123456789012345678.0,
        0.1f,    FLT_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        Str out = {.arena = a};
        text_double(&out, values[i]);
        const char *text =
            arena_printf(a, "program p {\n%%c = constant {value=[%s]} : f32[1]\nreturn c=%%c\n}",
                         str_cstr(&out));
        Parsed p = parse(a, text);
        if (!p.m) fail_msg("%s", p.errors);
        const Attr *v = node_attr(&p.m->graphs.v[0]->nodes.v[0], A_value);
        assert_memory_equal(&v->data.v[0], &values[i], sizeof(double));
    }
    Str short_form = {.arena = a};
    text_double(&short_form, 0.1);
    text_double(&short_form, 1e-6);
    assert_string_equal(str_cstr(&short_form), "0.11e-06");
    arena_free(a);
}

static void strings_round_trip(void **state) {
    (void)state;
    Arena *a = arena_new();
    char all[300];
    int n = 0;
    for (int c = 1; c < 256; c++) all[n++] = (char)c;
    all[n] = '\0';
    Graph *g = graph_new(a, "odd \"program\"\n");
    graph_output(g, all, graph_input(g, all, type_make(DT_F32, 1, (Dim[]){dim_b(1)}), (Loc){0}));
    Str out = {.arena = a};
    graph_print(&out, g);
    Parsed p = parse(a, str_cstr(&out));
    if (!p.m) fail_msg("%s", p.errors);
    assert_string_equal(p.m->graphs.v[0]->outputs.v[0].name, all);
    assert_string_equal(p.m->graphs.v[0]->name, "odd \"program\"\n");
    assert_string_equal(node_str(&p.m->graphs.v[0]->nodes.v[0], A_name), all);
    arena_free(a);
}

static void large_constant(void **state) {
    (void)state;
    enum { N = 20000 };
    Arena *a = arena_new();
    double *data = NEWN(a, double, N);
    for (int i = 0; i < N; i++) data[i] = (float)(i * 0.37 - 100) / 3.0f;
    Graph *g = graph_new(a, "p");
    Type t = type_make(DT_F32, 2, (Dim[]){dim_c(N / 4), dim_c(4)});
    graph_output(g, "c", graph_constant(g, t, data, N, (Loc){0}));
    Str out = {.arena = a};
    graph_print(&out, g);
    Parsed p = parse(a, str_cstr(&out));
    assert_non_null(p.m);
    const Attr *v = node_attr(&p.m->graphs.v[0]->nodes.v[0], A_value);
    assert_int_equal(v->data.n, N);
    assert_memory_equal(v->data.v, data, N * sizeof(double));
    arena_free(a);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++) n++;
    return n;
}

// One mistake, one message: what depends on a bad value is not reported again.
static void no_cascades(void **state) {
    (void)state;
    Arena *a = arena_new();
    Parsed p = parse(a, "program p {\n"
                        "  %x = input {name=\"x\"} : f32[B,4]\n"
                        "  %a = gleu %x\n"
                        "  %b = add %a, %x\n"
                        "  %g = group %b {name=\"g\"} : f32[B,4] {\n"
                        "    %i = input {name=\"i\"} : f32[B,4]\n"
                        "    return %i\n"
                        "  }\n"
                        "  %c = add %g, %b\n"
                        "  return c=%c\n}\n");
    assert_int_equal(p.count, 1);
    assert_non_null(strstr(p.errors, "t.ir:3:8: error: unknown op \"gleu\"\n"
                                     "      %a = gleu %x\n"
                                     "           ^\n"
                                     "    hint: did you mean \"gelu\"?\n"));
    arena_free(a);
}

// An error in the head of a group skips its body; the statements after it are read.
static void recovery_skips_bodies(void **state) {
    (void)state;
    Arena *a = arena_new();
    Parsed p = parse(a, "program p {\n"
                        "  %x = input {name=\"x\"} : f32[B,4]\n"
                        "  %g = group %x {nmae=\"g\"} : f32[B,4] {\n"
                        "    %i = input {name=\"i\"} : f32[B,4]\n"
                        "    %j = nothing %i {eps=1}\n"
                        "    return %i\n"
                        "  }\n"
                        "  %c = gelu %nope\n"
                        "  return c=%c, g=%g\n"
                        "}\n"
                        "program q {\n"
                        "  %x = inptu {name=\"x\"} : f32[B,4]\n"
                        "  return x=%x\n"
                        "}\n");
    assert_int_equal(p.count, 3);
    assert_int_equal(count(p.errors, "t.ir:3:18: error: op group has no attribute \"nmae\""), 1);
    assert_int_equal(count(p.errors, "t.ir:8:13: error: unknown value %nope"), 1);
    assert_int_equal(count(p.errors, "t.ir:12:8: error: unknown op \"inptu\""), 1);
    arena_free(a);
}

static void floods_end(void **state) {
    (void)state;
    Arena *a = arena_new();
    Str text = {.arena = a};
    str_add(&text, "program p {\n");
    for (int i = 0; i < 10000; i++) str_printf(&text, "  %%v%d = oops %%w%d\n", i, i);
    Parsed p = parse(a, str_cstr(&text));
    assert_true(p.count < 30);
    assert_int_equal(count(p.errors, "error: "), 20);
    arena_free(a);
}

static void deep_nesting(void **state) {
    (void)state;
    Arena *a = arena_new();
    Str text = {.arena = a};
    str_add(&text, "program p {\n");
    for (int i = 0; i < 20000; i++) str_add(&text, "%a = group {\n");
    Parsed p = parse(a, str_cstr(&text));
    assert_non_null(strstr(p.errors, "bodies nest deeper than"));
    arena_free(a);
}

// Thousands of operands, names, digits, brackets: refused or read, never a crash.
static void long_things(void **state) {
    (void)state;
    static const char *const pieces[] = {"%x, ", "9",  "[", "(", "{",  "\"", "%",    "B,",   "-",
                                         "x.",   "\\", "@", ":", "\t", ";",  "\xff", "inf,", "}"};
    static const char *const heads[] = {"",
                                        "program ",
                                        "program p {\n%x = ",
                                        "program p {\n%x = add ",
                                        "program p {\n%x = constant {value=[",
                                        "program p {\n%x = reshape %y {shape=[",
                                        "program p {\nreturn "};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) {
            Arena *a = arena_new();
            Str text = {.arena = a};
            str_add(&text, heads[h]);
            for (int k = 0; k < 3000; k++) str_add(&text, pieces[i]);
            assert_null(parse(a, str_cstr(&text)).m);
            arena_free(a);
        }
}

static void cut_anywhere(void **state) {
    (void)state;
    size_t whole = strlen(every_op), first = (size_t)(strstr(every_op, "program other") - every_op);
    for (size_t n = 0; n < whole; n++) {
        Arena *a = arena_new();
        char *part = malloc(n + 1); // exact size, so that reading on is caught
        memcpy(part, every_op, n);
        Module *m = parse_n(a, part, n).m;
        if (m) assert_true(n + 2 >= whole || (n + 2 >= first && n <= first));
        free(part);
        arena_free(a);
    }
}

static void zero_bytes(void **state) {
    (void)state;
    Arena *a = arena_new();
    static const char text[] = "program p {\n  %x = input {name=\"a\0b\"} : f32[B,4]\0\n}\n";
    Parsed p = parse_n(a, text, sizeof text - 1);
    assert_null(p.m);
    assert_non_null(strstr(p.errors, "bad character in a string"));
    arena_free(a);
}

// What the type rules refuse is reported at the op, with its reason.
static void type_rules_have_places(void **state) {
    (void)state;
    static const struct {
        const char *line, *want;
    } cases[] = {
        {"%y = linear %x, %w", "t.ir:4:8: error: linear: "},
        {"%y = reshape %x {shape=[B,5]}", "t.ir:4:8: error: reshape: "},
        {"%y = transpose %x {perm=[0,0,1]}", "t.ir:4:8: error: transpose: "},
        {"%y = conv2d %x, %w", "t.ir:4:8: error: conv2d: "},
        {"%y = pack %w {nr=0}", "t.ir:4:8: error: pack: "},
        {"%y = pack %w {nr=-4}", "t.ir:4:8: error: pack: "},
        {"%y = tile %w {times=4}", "t.ir:4:8: error: tile: "},
        {"%y = drop_path %x {rate=1.5}", "t.ir:4:8: error: drop_path: "},
        {"%y = mul %x, %w", "t.ir:4:8: error: mul: "},
        {"%y = patchify %x {kernel=[2], stride=[1,1]}", "t.ir:4:8: error: patchify: "},
        {"%y = constant {value=[1,2]} : f32[3]", "t.ir:4:8: error: constant: "},
        {"%y = constant {value=[]} : f32[3]", "t.ir:4:8: error: constant: "},
        {"%y = group %x {name=\"g\"} {\nreturn\n}", "t.ir:4:8: error: group: "},
        {"%y = group %x {name=\"g\"} {\n%i = input {name=\"i\"} : f32[B,9]\nreturn %i\n}",
         "t.ir:4:8: error: group: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Arena *a = arena_new();
        Parsed p = parse(a, arena_printf(a,
                                         "program p {\n"
                                         "  %%x = input {name=\"x\"} : f32[B,6,4]\n"
                                         "  %%w = param {name=\"w\"} : f32[8,3]\n"
                                         "  %s\n"
                                         "  return y=%%y\n}\n",
                                         cases[i].line));
        if (p.count != 1 || !strstr(p.errors, cases[i].want))
            fail_msg("%s\n%d errors, wanted %s:\n%s", cases[i].line, p.count, cases[i].want,
                     p.errors);
        arena_free(a);
    }
}

// ---- the language reference --------------------------------------------------------------------

static const char *read_reference(Arena *a) {
    FILE *f = fopen(CNX_SOURCE_DIR "/ir/README.md", "rb");
    assert_non_null(f);
    Str text = {.arena = a};
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) str_addn(&text, part, n);
    fclose(f);
    return str_cstr(&text);
}

static void want_row(Arena *a, const char *text, const char *kind, const char *name) {
    if (!strstr(text, arena_printf(a, "\n| `%s` |", name)))
        fail_msg("ir/README.md has no row for %s %s", kind, name);
}

// The row of a table says exactly what the .def file says: its attributes, in order.
static void want_attrs(Arena *a, const char *text, const char *name, const AttrId *ids, int n) {
    const char *row = strstr(text, arena_printf(a, "\n| `%s` |", name));
    assert_non_null(row);
    size_t length = strcspn(row + 1, "\n");
    const char *line = arena_strndup(a, row + 1, length), *at = line;
    for (int i = 0; i < n; i++) {
        at = strstr(at, arena_printf(a, "`%s`", attr_info[ids[i]].name));
        if (!at) fail_msg("ir/README.md: the row of %s lacks %s", name, attr_info[ids[i]].name);
    }
}

// A part of the reference, from its heading to the next one.
static const char *section(Arena *a, const char *text, const char *heading) {
    const char *at = strstr(text, arena_printf(a, "\n## %s\n", heading));
    if (!at) fail_msg("ir/README.md has no section %s", heading);
    const char *end = strstr(at + 1, "\n## ");
    return end ? arena_strndup(a, at, (size_t)(end - at)) : at;
}

static void reference_is_complete(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *text = read_reference(a);
    const char *ops = section(a, text, "Ops"), *attrs = section(a, text, "Attributes");
    const char *kernels = section(a, text, "Kernels");
    for (int i = 0; i < OP_COUNT; i++) {
        want_row(a, ops, "op", op_info[i].name);
        want_attrs(a, ops, op_info[i].name, op_info[i].attrs, op_info[i].nattrs);
    }
    for (int i = 0; i < A_COUNT; i++) {
        want_row(a, attrs, "attribute", attr_info[i].name);
        for (int k = 0; attr_info[i].words && attr_word((AttrId)i, k); k++)
            if (!strstr(attrs, arena_printf(a, "`%s`", attr_word((AttrId)i, k))))
                fail_msg("ir/README.md: %s lacks %s", attr_info[i].name, attr_word((AttrId)i, k));
    }
    for (int i = 0; i < K_COUNT; i++) {
        want_row(a, kernels, "kernel", kernel_info[i].name);
        want_attrs(a, kernels, kernel_info[i].name, kernel_info[i].attrs, kernel_info[i].nattrs);
    }
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_round_trips),
        cmocka_unit_test(values_and_places),
        cmocka_unit_test(equal_statements_are_one_value),
        cmocka_unit_test(doubles_round_trip),
        cmocka_unit_test(strings_round_trip),
        cmocka_unit_test(large_constant),
        cmocka_unit_test(no_cascades),
        cmocka_unit_test(recovery_skips_bodies),
        cmocka_unit_test(floods_end),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(long_things),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(zero_bytes),
        cmocka_unit_test(type_rules_have_places),
        cmocka_unit_test(reference_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
