// YAML trees: places, kinds, merging, overrides, and text that is not a spec at all.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "diag_case.h"
#include "frontend/yaml.h"

static Yaml *parse(World *w, const char *text) {
    return yaml_parse(w->a, w->d, "t.yaml", text, strlen(text));
}

static void assert_error(World *w, const char *text) {
    fflush(w->out);
    if (!strstr(w->errors, text)) fail_msg("no '%s' in:\n%s", text, w->errors);
}

static void assert_place(const Yaml *y, int line, int col) {
    assert_non_null(y);
    assert_int_equal(y->loc.line, line);
    assert_int_equal(y->loc.col, col);
}

static void places_and_kinds(void **state) {
    (void)state;
    World w;
    world_init(&w);
    Yaml *y = parse(&w, "a: 1\nb:\n  - x\n  - {c: \"2\"}\nd:\n");
    assert_non_null(y);
    assert_place(yaml_get(y, "a"), 1, 4);
    const Yaml *b = yaml_get(y, "b");
    assert_int_equal(b->kind, YAML_LIST);
    assert_int_equal(b->entries.n, 2);
    const Yaml *c = yaml_get(b->entries.v[1].value, "c");
    assert_place(c, 4, 9);
    assert_true(c->quoted);
    assert_false(yaml_get(y, "a")->quoted);
    assert_true(yaml_is_none(yaml_get(y, "d")));
    assert_null(yaml_get(y, "e"));
    assert_null(yaml_get(c, "e"));
    world_free(&w);
}

static void rejects(void **state) {
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"a: 1\na: 2\n", "t.yaml:2:1: error: key 'a' is given twice"},
        {"a: &x 1\nb: *x\n", "t.yaml:2:4: error: YAML aliases"},
        {"a: !!int 1\n", "t.yaml:1:4: error: YAML tags"},
        {"a: 1\n---\nb: 2\n", "t.yaml:2:1: error: a second YAML document"},
        {"[a, b]: 1\n", "a key must be a word, not a list"},
        {"a: [1\n", "did not find expected ',' or ']'"},
        {"a: \"x\\0y\"\n", "a NUL character"},
        {"a: \xff\xfe\n", "error: invalid"},
        {"\x01\n", "error: control characters are not allowed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        World w;
        world_init(&w);
        assert_null(parse(&w, cases[i].text));
        assert_error(&w, cases[i].error);
        world_free(&w);
    }
}

static void empty_is_text(void **state) {
    (void)state;
    static const char *const texts[] = {"", "\n\n", "# only a comment\n", "---\n"};
    for (int i = 0; i < 4; i++) {
        World w;
        world_init(&w);
        Yaml *y = parse(&w, texts[i]);
        assert_non_null(y);
        assert_int_equal(y->kind, YAML_TEXT);
        assert_true(yaml_is_none(y));
        world_free(&w);
    }
}

static void merges_maps_and_replaces_the_rest(void **state) {
    (void)state;
    World w;
    world_init(&w);
    Yaml *base = parse(&w, "a: {x: 1, y: 2}\nl: [1, 2, 3]\nk: 1\n");
    Yaml *over = parse(&w, "a: {y: 3, z: 4}\nl: [9]\nk: {deep: 1}\n");
    Yaml *y = yaml_merge(w.a, base, over);
    assert_string_equal(yaml_get(yaml_get(y, "a"), "x")->text, "1");
    assert_string_equal(yaml_get(yaml_get(y, "a"), "y")->text, "3");
    assert_string_equal(yaml_get(yaml_get(y, "a"), "z")->text, "4");
    assert_int_equal(yaml_get(y, "l")->entries.n, 1);
    assert_int_equal(yaml_get(y, "k")->kind, YAML_MAP);
    assert_string_equal(yaml_get(yaml_get(base, "a"), "y")->text, "2");
    world_free(&w);
}

static void overrides(void **state) {
    (void)state;
    World w;
    world_init(&w);
    Yaml *y = parse(&w, "a: {x: 1}\nl: [{d: 1}, {d: 2}]\nn: none\n");
    static const char *const sets[] = {"a.x=7", "a.new.deep=[1, 2]", "l.1.d=5", "n.k=true", "a.e="};
    yaml_override(w.a, w.d, y, sets, 5);
    assert_int_equal(diag_count(w.d), 0);
    const Yaml *x = yaml_get(yaml_get(y, "a"), "x");
    assert_string_equal(x->text, "7");
    assert_string_equal(x->loc.file, "--set");
    assert_place(x, 1, 5);
    assert_int_equal(yaml_get(yaml_get(yaml_get(y, "a"), "new"), "deep")->entries.n, 2);
    assert_place(yaml_get(yaml_get(y, "l")->entries.v[1].value, "d"), 3, 7);
    assert_string_equal(yaml_get(yaml_get(y, "n"), "k")->text, "true");
    assert_true(yaml_is_none(yaml_get(yaml_get(y, "a"), "e")));
    world_free(&w);
}

static void overrides_that_fail(void **state) {
    (void)state;
    static const struct {
        const char *set, *error;
    } cases[] = {
        {"a", "--set:1:1: error: 'a' is not of the form"},
        {"=3", "is not of the form"},
        {"a..x=3", "--set:1:3: error: an empty name"},
        {".a=3", "an empty name"},
        {"l.2.d=3", "--set:1:3: error: '2' is not an index into a list of 1"},
        {"l.x=3", "'x' is not an index"},
        {"a.x.y=3", "--set:1:5: error: 'y' cannot be set inside the value '1'"},
        {"a.x=[1", "--set:1:5: error: did not find expected"},
        {"a.x=*q", "YAML aliases"},
        {"a.x=1\nb: 2", "a line break in --set"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        World w;
        world_init(&w);
        Yaml *y = parse(&w, "a: {x: 1}\nl: [{d: 1}]\n");
        yaml_override(w.a, w.d, y, &cases[i].set, 1);
        assert_int_equal(diag_count(w.d), 1);
        assert_error(&w, cases[i].error);
        world_free(&w);
    }
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void remove_text(const char *dir, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void extends_files(void **state) {
    (void)state;
    char dir[] = "/tmp/cnx-yaml-XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_text(dir, "base.yaml", "a: {x: 1, y: 2}\n");
    write_text(dir, "other.yaml", "b: 1\na: {y: 3}\n");
    write_text(dir, "top.yaml", "extends: [base.yaml, other]\na: {z: 4}\n");
    write_text(dir, "one.yaml", "extends: two.yaml\n");
    write_text(dir, "two.yaml", "k: 1\nextends: one.yaml\n");
    World w;
    world_init(&w);
    const char *dirs[] = {dir};
    const char *path = yaml_find(w.a, "top", (YamlDirs){dirs, 1});
    assert_non_null(path);
    Yaml *y = yaml_load(w.a, w.d, path, (YamlDirs){0});
    assert_non_null(y);
    assert_null(yaml_get(y, "extends"));
    assert_string_equal(yaml_get(yaml_get(y, "a"), "x")->text, "1");
    assert_string_equal(yaml_get(yaml_get(y, "a"), "y")->text, "3");
    assert_string_equal(yaml_get(yaml_get(y, "a"), "z")->text, "4");
    assert_non_null(strstr(yaml_get(yaml_get(y, "a"), "x")->loc.file, "base.yaml"));
    assert_null(yaml_load(w.a, w.d, yaml_find(w.a, "one", (YamlDirs){dirs, 1}), (YamlDirs){0}));
    assert_error(&w, "two.yaml:2:10: error:");
    assert_error(&w, "extends itself");
    assert_null(yaml_find(w.a, "nothing", (YamlDirs){dirs, 1}));
    assert_string_equal(yaml_nearest(w.a, "othr", (YamlDirs){dirs, 1}), "other");
    world_free(&w);
    static const char *const names[] = {"base.yaml", "other.yaml", "top.yaml", "one.yaml",
                                        "two.yaml"};
    for (int i = 0; i < 5; i++) remove_text(dir, names[i]);
    rmdir(dir);
}

// Every cut and every changed byte of a real spec: errors, never a crash.
static void damaged_text(void **state) {
    (void)state;
    static const char text[] =
        "a: {x: [1, \"2\\n\", 'q'], y: &z {k: |\n  block\n}}\nb:\n- - 1\n  - !t 2\n";
    for (size_t cut = 0; cut < sizeof text; cut++)
        for (int byte = 0; byte < 256; byte += 7) {
            World w;
            world_init(&w);
            char copy[sizeof text];
            memcpy(copy, text, sizeof text);
            copy[cut] = (char)byte;
            Yaml *y = yaml_parse(w.a, w.d, "t.yaml", copy, byte % 2 ? cut + 1 : sizeof text - 1);
            assert_true((y != NULL) == (diag_count(w.d) == 0));
            world_free(&w);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_and_kinds), cmocka_unit_test(rejects),
        cmocka_unit_test(empty_is_text),    cmocka_unit_test(merges_maps_and_replaces_the_rest),
        cmocka_unit_test(overrides),        cmocka_unit_test(overrides_that_fail),
        cmocka_unit_test(extends_files),    cmocka_unit_test(damaged_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
