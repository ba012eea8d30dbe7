// Schedules as text: identity of print and parse, kernel specs, every error with its place, and
// what the verifier refuses.
#include "ir/schedule.h"
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static const char *const sample =
    "schedule infer target=\"x86-64-v4\" fixed 64 image 1204224 scratch 43008 {\n"
    "  buffer b0 \"image\" input 0 : f32[B,224,224,3]\n"
    "  buffer b1 \"stem\" image +0 : f32[B,56,56,40] live 0..1\n"
    "  buffer b2 \"stem.cols\" scratch +0 bytes 43008 live 0..0\n"
    "  buffer b3 \"stem.weight\" weight : f32[1,48,40]\n"
    "  buffer b4 \"stem.bias\" weight : f32[40]\n"
    "  buffer b5 \"s\" fixed +0 : f32[] live 0..1\n"
    "  buffer b6 \"logits\" output 0 : f32[B,40]\n"
    "  buffer b7 \"partial\" image +501760 : f32[B,56,40] live 0..1\n"
    "  step \"stem\" image rows 3136/56 cols 40/40 {\n"
    "    gather {kernel=[4,4], stride=[4,4], h=224, w=224, c=3} (b0, b2 row 192)\n"
    "    gemm {nr=40, n=40, k=48, mr=8, ku=4, epilogue=[bias,gelu,stat_l2]} (b2 row 192, b3, b1, "
    "b4, b7 block 160) \"stem\" macs 6021120\n"
    "  }\n"
    "  step \"pool\" flat rows 1/1 cols 40/40 {\n"
    "    pool {m=3136, n=40} (b1+16, b6)\n"
    "  }\n"
    "}\n";

static const char *format(const char *text, Arena *a) {
    char *errors = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&errors, &size);
    Diag *d = diag_new(a, f);
    Schedule *s = schedule_parse(a, d, "s.ir", text, strlen(text));
    fclose(f);
    const char *result = arena_strdup(a, errors);
    free(errors);
    if (!s) return result;
    Str out = {.arena = a};
    schedule_print(&out, s);
    return str_cstr(&out);
}

static void identity(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *once = format(sample, a);
    assert_non_null(strstr(once, "schedule infer target=\"x86-64-v4\" fixed 64"));
    assert_string_equal(format(once, a), once);
    assert_non_null(strstr(once, "(b2 row 192, b3, b1, b4, b7 block 160) \"stem\" macs 6021120"));
    assert_non_null(strstr(once, "buffer b3 \"stem.weight\" weight : f32[1,48,40]\n"));
    assert_non_null(strstr(once, "live 0..1"));
    arena_free(a);
}

static void parsed_values(void **state) {
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new(a, NULL);
    Schedule *s = schedule_parse(a, d, "s.ir", sample, strlen(sample));
    assert_non_null(s);
    assert_int_equal(s->buffers.n, 8);
    assert_int_equal(s->steps.n, 2);
    assert_int_equal(s->fixed_bytes, 64);
    assert_int_equal(s->image_bytes, 1204224);
    assert_int_equal(s->buffers.v[0].bytes, 224 * 224 * 3 * 4);
    assert_int_equal(s->buffers.v[3].offset, -1);
    assert_int_equal(s->buffers.v[7].offset, 501760);
    const Call *c = &s->steps.v[0].calls.v[1];
    assert_int_equal(c->spec.kind, K_GEMM);
    assert_int_equal(spec_int(&c->spec, A_nr), 40);
    assert_int_equal(spec_int(&c->spec, A_order), 0);
    const int64_t *words;
    assert_int_equal(spec_epilogue(&c->spec, &words), 3);
    assert_int_equal(words[2], EPI_STAT_L2);
    assert_int_equal(spec_operands(&c->spec), 5);
    assert_int_equal(c->ops[4].block_bytes, 160);
    assert_int_equal(c->macs, 6021120);
    assert_int_equal(spec_ints(&s->steps.v[0].calls.v[0].spec, A_kernel, 1), 4);
    assert_int_equal(spec_ints(&s->steps.v[0].calls.v[0].spec, A_kernel, 7), 0);
    assert_int_equal(s->steps.v[1].over, OVER_FLAT);
    arena_free(a);
}

// Steps of a span, slots for what they alone touch; the rest of their memory lives through the
// span.
static void spans(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *text = "schedule s target=\"aarch64\" image 64 slot 64 {\n"
                       "  buffer b0 \"x\" image +0 : f32[B,4] live 0..1\n"
                       "  buffer b1 \"t\" slot +0 : f32[B,4] live 0..1\n"
                       "  step \"a\" image rows 1/1 cols 4/4 then {\n"
                       "    copy {n=4} (b0, b1)\n"
                       "  }\n"
                       "  step \"b\" image rows 1/1 cols 4/4 {\n"
                       "    copy {n=4} (b1, b1)\n"
                       "  }\n"
                       "}\n";
    assert_string_equal(format(text, a), text);
    Schedule *s = schedule_parse(a, diag_new(a, NULL), "s.ir", text, strlen(text));
    int first, last;
    step_span(s, 1, &first, &last);
    assert_int_equal(first, 0);
    assert_int_equal(last, 1);
    assert_int_equal(s->slot_bytes, 64);
    s->buffers.v[0].last = 0;
    assert_non_null(strstr(schedule_verify(s), "b0 is used in step 0 but lives 0..0"));
    s->buffers.v[0].last = 1;
    s->steps.v[0].then = false;
    assert_non_null(strstr(schedule_verify(s), "b1, a slot, is used outside of its span"));
    s->steps.v[1].then = true;
    assert_non_null(schedule_verify(s));
    s->steps.v[0].then = true;
    assert_non_null(strstr(schedule_verify(s), "a span has steps over images only"));
    arena_free(a);
}

static void native_targets_keep_their_facts(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *text = "schedule infer target=\"x86-64-v3\" cpu=\"znver4\" features=\"+avx2\" "
                       "l2=2097152 {\n}\n";
    assert_string_equal(format(text, a), text);
    arena_free(a);
}

// Buffers of a training run's state have a blob and, once planned, the offset of their parameter.
static void states(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *text = "schedule train target=\"aarch64\" params 128 {\n"
                       "  buffer b0 \"x\" image : f32[B,4]\n"
                       "  buffer b1 \"grad.w\" state 1 +64 : f32[4]\n"
                       "  buffer b2 \"m.w\" state 2 : f32[4]\n"
                       "  step \"a\" flat rows 1/8 cols 4/4 {\n"
                       "    sum {n=4, accumulate=true} (b0, b1)\n"
                       "  }\n"
                       "}\n";
    assert_string_equal(format(text, a), text);
    Schedule *s = schedule_parse(a, diag_new(a, NULL), "s.ir", text, strlen(text));
    assert_int_equal(s->buffers.v[1].port, STATE_GRAD);
    assert_int_equal(s->buffers.v[1].offset, 64);
    assert_int_equal(s->buffers.v[2].offset, -1);
    assert_null(schedule_verify(s));
    s->buffers.v[1].port = STATE_COUNT;
    assert_non_null(strstr(schedule_verify(s), "there is no state 5"));
    s->buffers.v[1].port = STATE_GRAD;
    s->param_bytes = 64;
    assert_non_null(strstr(schedule_verify(s), "outside the 64 of region state"));
    const char *param = NULL;
    assert_int_equal(state_of_name("ema.head.weight", &param), STATE_EMA);
    assert_string_equal(param, "head.weight");
    assert_int_equal(state_of_name("image", &param), -1);
    assert_int_equal(state_of_name("grad.", &param), -1);
    arena_free(a);
}

// Before memory is planned there are no offsets, totals and live ranges.
static void unplanned(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *text = "schedule s target=\"aarch64\" {\n"
                       "  buffer b0 \"x\" image : f32[B,4]\n"
                       "  buffer b1 \"t\" scratch bytes 64\n"
                       "  step \"a\" image rows 1/1 cols 4/4 {\n"
                       "    copy {n=4} (b0, b1)\n"
                       "  }\n"
                       "}\n";
    assert_string_equal(format(text, a), text);
    Schedule *s = schedule_parse(a, diag_new(a, NULL), "s.ir", text, strlen(text));
    assert_int_equal(s->buffers.v[0].first, -1);
    assert_int_equal(s->buffers.v[0].last, -1);
    assert_int_equal(s->buffers.v[1].offset, -1);
    arena_free(a);
}

static void several_in_a_file(void **state) {
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new(a, NULL);
    const char *two = "schedule a target=\"aarch64\" {\n}\nschedule b target=\"aarch64\" {\n}\n";
    int n;
    assert_non_null(schedules_parse(a, d, "s.ir", two, strlen(two), &n));
    assert_int_equal(n, 2);
    assert_null(schedule_parse(a, d, "s.ir", two, strlen(two)));
    assert_int_equal(diag_count(d), 1);
    const char *same = "schedule a target=\"aarch64\" {\n}\nschedule a target=\"aarch64\" {\n}\n";
    assert_null(schedules_parse(a, d, "s.ir", same, strlen(same), &n));
    arena_free(a);
}

// Equal kernels have equal text, whatever zero attributes were written out.
static void spec_text(void **state) {
    (void)state;
    Arena *a = arena_new();
    Attr with[] = {attr_f64(A_eps, 1e-6), attr_int(A_n, 40), attr_int(A_affine, 0)};
    Attr without[] = {attr_f64(A_eps, 1e-6), attr_int(A_n, 40)};
    KernelSpec x = {K_NORM, with, 3}, y = {K_NORM, without, 2};
    assert_string_equal(spec_print(a, &x), "norm {n=40, eps=1e-06}");
    assert_string_equal(spec_print(a, &x), spec_print(a, &y));
    assert_int_equal(spec_operands(&x), 2);
    with[2].i = 1;
    assert_int_equal(spec_operands(&x), 4);
    assert_string_not_equal(spec_print(a, &x), spec_print(a, &y));
    arena_free(a);
}

static void kernel_table(void **state) {
    (void)state;
    for (int k = 0; k < K_COUNT; k++) {
        KernelSpec s = {(KernelKind)k, NULL, 0};
        assert_non_null(strstr(kernel_info[k].operands, "out"));
        int words = 1;
        for (const char *c = kernel_info[k].operands; *c; c++) words += *c == ' ';
        assert_int_equal(spec_operands(&s), words);
    }
    for (int r = REGION_INPUT; r <= REGION_SCRATCH; r++) assert_non_null(region_name((Region)r));
}

static void targets(void **state) {
    (void)state;
    for (int i = 0; i < target_count; i++) {
        const Target *t = &target_table[i];
        assert_ptr_equal(target_find(t->name), t);
        assert_true(target_lanes(t) >= 1 && t->registers >= 16 && t->l1 > 0 && t->l2 > t->l1);
    }
    assert_null(target_find("z80"));
}

typedef struct {
    const char *from, *to; // edit of the sample
    const char *want;      // in the messages
} Case;

static const Case cases[] = {
    {"x86-64-v4", "x86-64-v9", "s.ir:1:23: error: unknown target \"x86-64-v9\""},
    {"x86-64-v4", "x86-64-v9", "hint: did you mean \"x86-64-v"},
    {"target=", "", "expected target=\"NAME\""},
    {"schedule", "schedul", "hint: did you mean \"schedule\"?"},
    {"buffer b1", "buffer b4", "s.ir:3:10: error: buffers are numbered in order: expected b1"},
    {" image +0", " imaeg +0", "hint: did you mean \"image\"?"},
    {"buffer b0", "bufer b0", "hint: did you mean \"buffer\"?"},
    {"f32[B,224,224,3]", "f33[B,224,224,3]", "unknown element type \"f33\""},
    {"f32[B,224,224,3]", "f32[B,224,224,B]", "2 batch dimensions"},
    {"f32[B,224,224,3]", "f32[B,0]", "a dimension must lie between 1 and"},
    {"f32[B,224,224,3]", "f32[B,1,1,1,1,1,1]", "at most 6 dimensions"},
    {"f32[B,224,224,3]", "f32[B,9999999,9999999]", "more than 70368744177664 elements"},
    {"bytes 43008", "", "expected a type or bytes"},
    {"live 0..1", "live 0.1", "expected the first step"},
    {"live 0..1", "live 0", "expected '..' between"},
    {"rows 3136/56", "rows 3136", "expected '/' before the block"},
    {"rows 3136/56", "rows 0/56", "rows must lie between 1 and"},
    {"step \"stem\" image", "step \"stem\" images", "hint: did you mean \"image\"?"},
    {"gemm {", "gem {", "hint: did you mean \"gemm\"?"},
    {"epilogue=[bias", "epilogue=[biass", "hint: did you mean \"bias\"?"},
    {"mr=8", "mr=8, mr=9", "attribute mr is given twice"},
    {"mr=8", "eps=8", "kernel gemm has no attribute \"eps\"; it takes n, k, mr, nr"},
    {"mr=8", "mr=[8]", "expected mr (an integer), found '['"},
    {"kernel=[4,4]", "kernel=4", "expected '[' for kernel (a list), found 4"},
    {"(b0, b2 row 192)", "(b0, b2 row 192, b1)", "gather takes 2 operands with these attributes"},
    {"(b0, b2 row 192)", "(b0, b99)", "unknown buffer b99; the schedule has 8"},
    {"(b0, b2 row 192)", "(b0, x)", "expected a buffer such as b0, found \"x\""},
    {"macs 6021120", "macs -1", "macs must lie between"},
    {"macs 6021120", "mcas 1", "expected the end of the line"},
    {"\"stem.cols\"", "\"stem.cols", "the string does not end on its line"},
    // the verifier
    {"image 1204224", "image 64", "buffer b1: bytes 0..501760 lie outside the 64 of region image"},
    {"image +501760", "image +1204224", "buffer b7: bytes 1204224..1213184 lie outside"},
    {"image +501760", "image +128", "buffers b1 and b7 overlap while both live"},
    {"image +501760", "image +501761", "is no multiple of 64"},
    {"f32[B,56,56,40] live 0..1", "f32[B,56,56,40] live 1..0", "lives backwards"},
    {"f32[B,56,56,40] live 0..1", "f32[B,56,56,40] live 0..0", "b1 is used in step 1 but lives"},
    {"f32[B,56,56,40]", "f32[56,56,40]", "region image needs a type with a batch"},
    {"weight : f32[40]", "weight : f32[B,40]", "region weight cannot hold a batch (f32[B,40])"},
    {"output 0", "input 0", "buffers b0 and b6 are both input port 0"},
    {"(b1+16, b6)", "(b1+16, b0)", "b0 (input) is written"},
    {"(b1+16, b6)", "(b1+501760, b6)", "operand b1+501760 lies outside its 501760 bytes"},
    {"(b1+16, b6)", "(b1+16, b6 row 4)", "operand b6 has a row bias but is not scratch"},
    {"{m=3136, n=40}", "{m=3136}", "pool needs n >= 1"},
    {"stride=[4,4]", "stride=[4]", "gather needs stride=[sh,sw]"},
    {"kernel=[4,4]", "kernel=[0,4]", "gather needs kernel=[kh,kw]"},
    {"h=224, w=224, c=3", "pad=[-1,0], h=224, w=224, c=3", "gather: bad pad"},
    {"c=3", "c=-3", "gather: c is negative"},
};

static const char *edit(Arena *a, const Case *c) {
    const char *at = strstr(sample, c->from);
    assert_non_null(at);
    return arena_printf(a, "%.*s%s%s", (int)(at - sample), sample, c->to, at + strlen(c->from));
}

static void errors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Arena *a = arena_new();
        const char *got = format(edit(a, &cases[i]), a);
        if (!strstr(got, cases[i].want) || !strstr(got, "error: "))
            fail_msg("case %zu: wanted \"%s\" in:\n%s", i, cases[i].want, got);
        arena_free(a);
    }
}

// Several mistakes are reported together, each once.
static void all_errors_at_once(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *got = format("schedule s target=\"aarch64\" {\n"
                             "  buffer b0 \"x\" inptu 0 : f32[B,4]\n"
                             "  stpe \"y\" image rows 1/1 cols 1/1 {\n"
                             "    fill {n=4} (b0)\n"
                             "  }\n"
                             "  step \"z\" image rows 1/1 cols 1/1 {\n"
                             "    fil {n=4} (b0)\n"
                             "  }\n"
                             "}\n",
                             a);
    assert_non_null(strstr(got, "s.ir:2:17: error: expected a region"));
    assert_non_null(strstr(got, "s.ir:3:3: error: expected buffer, step or '}'"));
    assert_non_null(strstr(got, "s.ir:7:5: error: expected a kernel call"));
    assert_null(strstr(got, "s.ir:4:"));
    arena_free(a);
}

static void cut_anywhere(void **state) {
    (void)state;
    for (size_t n = 0; n + 2 < strlen(sample); n++) {
        Arena *a = arena_new();
        Diag *d = diag_new(a, NULL);
        char *part = malloc(n + 1); // exact size, so that reading on is caught
        memcpy(part, sample, n);
        assert_null(schedule_parse(a, d, "s.ir", part, n));
        assert_true(diag_count(d) > 0);
        free(part);
        arena_free(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity),
        cmocka_unit_test(parsed_values),
        cmocka_unit_test(spans),
        cmocka_unit_test(native_targets_keep_their_facts),
        cmocka_unit_test(states),
        cmocka_unit_test(unplanned),
        cmocka_unit_test(several_in_a_file),
        cmocka_unit_test(spec_text),
        cmocka_unit_test(kernel_table),
        cmocka_unit_test(targets),
        cmocka_unit_test(errors),
        cmocka_unit_test(all_errors_at_once),
        cmocka_unit_test(cut_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
