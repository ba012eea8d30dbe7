// The stand-in for jansson (runtime/json.h): what it reads, refuses and prints.
#undef CNXRT_JANSSON
#include "runtime/json.c"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static json_t *load(const char *text, size_t flags, json_error_t *e) {
    return json_loadb(text, strlen(text), flags, e);
}

static void printed_back(void **state) {
    (void)state;
    const char *text =
        "{\"a\": [1, -2.5, true, false, null, {}], \"b\\n\": \"\\u00e4 \\ud83d\\ude00 \\\"\"}";
    json_t *j = load(text, 0, NULL);
    assert_non_null(j);
    char *compact = json_dumps(j, JSON_COMPACT), *plain = json_dumps(j, JSON_REAL_PRECISION(8));
    char *lines = json_dumps(j, JSON_INDENT(1));
    assert_string_equal(compact, "{\"a\":[1,-2.5,true,false,null,{}],\"b\\u000a\":\"ä 😀 \\\"\"}");
    assert_string_equal(plain,
                        "{\"a\": [1, -2.5, true, false, null, {}], \"b\\u000a\": \"ä 😀 \\\"\"}");
    assert_non_null(strstr(lines, "{\n \"a\": [\n  1,\n  -2.5,\n"));
    assert_non_null(strstr(lines, "\n  {}\n ],\n"));
    free(compact), free(plain), free(lines);
    json_decref(j);
}

static void values(void **state) {
    (void)state;
    json_t *o = json_object(), *a = json_array(), *v = NULL;
    assert_int_equal(json_array_append_new(a, json_integer(9223372036854775807)), 0);
    assert_int_equal(json_array_append_new(a, NULL), -1);
    assert_int_equal(json_object_set_new(o, "k", json_real(0.1)), 0);
    assert_int_equal(json_object_set_new(o, "k", a), 0); // the old value goes
    assert_int_equal(json_object_set_new(o, "\xff", json_null()), -1);
    assert_null(json_string("\xc0\x80"));
    assert_null(json_real(NAN));
    assert_string_equal(json_member(o, 0, &v), "k");
    assert_ptr_equal(v, a);
    assert_null(json_member(o, 1, &v));
    assert_true(json_integer_value(json_array_get(a, 0)) == 9223372036854775807);
    assert_null(json_array_get(a, 1));
    assert_int_equal(json_array_size(o), 0);
    assert_null(json_string_value(a));
    assert_null(json_object_get(a, "k"));
    json_decref(o);
    o = json_object();
    for (int i = 0; i < 100; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(json_object_set_new(o, key, json_integer(i)), 0);
    }
    assert_int_equal(json_integer_value(json_object_get(o, "k73")), 73);
    json_decref(o);
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
        int position;
    } cases[] = {
        {"", "expected", 0},
        {"1", "expected", 0},
        {"{\"a\": 1", "premature end", 7},
        {"{\"a\": 1} x", "end of file", 9},
        {"{\"a\" 1}", "unexpected character", 5},
        {"{a: 1}", "unexpected character", 1},
        {"[1, ]", "invalid token", 4},
        {"[01]", "invalid token", 1},
        {"[nul]", "invalid token", 1},
        {"[99999999999999999999]", "too big", 1},
        {"[\"\\u12\"]", "string", -1},
        {"[\"\\ud800\"]", "string", -1},
        {"[\"\xff\"]", "string", -1},
        {"[\"a\nb\"]", "string", -1},
        {"[\"a", "premature end", 2},
        {"[\"\\", "premature end", 2},
        {"{\"a\": 1, \"a\": 2}", "duplicate", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_error_t e = {0};
        json_t *j = load(cases[i].text, JSON_REJECT_DUPLICATES, &e);
        if (j) fail_msg("read: %s", cases[i].text);
        if (!strstr(e.text, cases[i].why)) fail_msg("%s: %s", cases[i].text, e.text);
        if (cases[i].position >= 0) assert_int_equal(e.position, cases[i].position);
    }
    char deep[201] = "";
    memset(deep, '[', 200);
    assert_null(load(deep, 0, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(printed_back), cmocka_unit_test(values),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
