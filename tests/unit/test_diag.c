// Diagnostics: place, caret under the right column, hints, the limit, hostile lines.
#include "ir/diag.h"
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct {
    Arena *arena;
    Diag *d;
    FILE *f;
    char *text;
    size_t size;
} Capture;

static Capture *capture_new(void) {
    Arena *a = arena_new();
    Capture *c = NEW(a, Capture);
    c->arena = a;
    c->f = open_memstream(&c->text, &c->size);
    c->d = diag_new(a, c->f);
    return c;
}

static void capture_free(Capture *c) {
    fclose(c->f);
    free(c->text);
    arena_free(c->arena);
}

static void expect(Capture *c, const char *want) {
    fflush(c->f);
    assert_string_equal(c->text, want);
    capture_free(c);
}

static void source(Capture *c, const char *text) {
    diag_source(c->d, "m.yaml", text, strlen(text));
}

static void place_and_caret(void **state) {
    (void)state;
    Capture *c = capture_new();
    source(c, "first\n  second line\nthird");
    diag_error(c->d, (Loc){"m.yaml", 2, 10}, "expected %d, found %d", 3, 4);
    diag_hint(c->d, "try %s", "this");
    expect(c, "m.yaml:2:10: error: expected 3, found 4\n"
              "      second line\n"
              "             ^\n"
              "    hint: try this\n");
}

static void without_place(void **state) {
    (void)state;
    Capture *c = capture_new();
    diag_error(c->d, (Loc){0}, "no linker");
    diag_error(c->d, (Loc){"w.pth", 0, 0}, "truncated");
    assert_int_equal(diag_count(c->d), 2);
    expect(c, "cnxc: error: no linker\nw.pth: error: truncated\n");
}

static void tabs_and_control_bytes(void **state) {
    (void)state;
    Capture *c = capture_new();
    source(c, "\ta\x1b[31mb");
    diag_error(c->d, (Loc){"m.yaml", 1, 8}, "x");
    expect(c, "m.yaml:1:8: error: x\n     a?[31mb\n           ^\n");
}

static void caret_counts_characters_not_bytes(void **state) {
    (void)state;
    Capture *c = capture_new();
    source(c, "\xc3\xa4\xc3\xb6: x");
    diag_error(c->d, (Loc){"m.yaml", 1, 7}, "x");
    expect(c, "m.yaml:1:7: error: x\n    \xc3\xa4\xc3\xb6: x\n        ^\n");
}

static void places_outside_the_text(void **state) {
    (void)state;
    Capture *c = capture_new();
    source(c, "ab");
    diag_error(c->d, (Loc){"m.yaml", 9, 1}, "x");
    diag_error(c->d, (Loc){"m.yaml", 1, 99}, "y");
    diag_error(c->d, (Loc){"m.yaml", 1, -5}, "z");
    expect(c, "m.yaml:9:1: error: x\n"
              "m.yaml:1:99: error: y\n    ab\n      ^\n"
              "m.yaml:1:1: error: z\n    ab\n    ^\n");
}

static void long_lines_are_cut(void **state) {
    (void)state;
    Capture *c = capture_new();
    char *text = memset(arena_alloc(c->arena, 100001), 'x', 100000);
    source(c, text);
    diag_error(c->d, (Loc){"m.yaml", 1, 50000}, "x");
    fflush(c->f);
    assert_true(c->size < 400);
    assert_non_null(strstr(c->text, "..."));
    assert_non_null(strstr(c->text, "^"));
    capture_free(c);
}

static void at_most_twenty(void **state) {
    (void)state;
    Capture *c = capture_new();
    for (int i = 0; i < 50; i++) {
        diag_error(c->d, (Loc){0}, "number %d;", i);
        diag_hint(c->d, "hint %d;", i);
    }
    fflush(c->f);
    assert_int_equal(diag_count(c->d), 50);
    assert_non_null(strstr(c->text, "number 19;"));
    assert_null(strstr(c->text, "number 20;"));
    assert_null(strstr(c->text, "hint 20;"));
    assert_non_null(strstr(c->text, "more errors follow"));
    capture_free(c);
}

static void latest_source_of_a_name(void **state) {
    (void)state;
    Capture *c = capture_new();
    source(c, "old");
    source(c, "new");
    diag_error(c->d, (Loc){"m.yaml", 1, 1}, "x");
    expect(c, "m.yaml:1:1: error: x\n    new\n    ^\n");
}

static void nearest(void **state) {
    (void)state;
    static const char *const names[] = {"conv2d", "dwconv2d", "linear", "layernorm", "gelu", "grn"};
    const struct {
        const char *s, *want;
    } cases[] = {
        {"conv2", "conv2d"},
        {"GELU", "gelu"},
        {"geul", "gelu"},
        {"liner", "linear"},
        {"grm", "grn"},
        {"layer_norm", "layernorm"},
        {"dwconv", "dwconv2d"},
        {"softmax", NULL},
        {"", NULL},
        {"x", NULL},
        {"gelu", "gelu"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = nearest_name(cases[i].s, names, 6);
        if (cases[i].want)
            assert_string_equal(got ? got : "(none)", cases[i].want);
        else
            assert_null(got);
    }
    char huge[1000];
    memset(huge, 'g', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_null(nearest_name(huge, names, 6));
    assert_null(nearest_name("conv", names, 0));
}

static void say(void *user) {
    if (write(*(int *)user, "dump", 4) != 4) _exit(9);
    ice((Loc){0}, "again"); // must not come back here
}

static void ice_aborts_once(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], 2);
        ice_context = (IceContext){"fuse-residual", "infer", say, &fds[1]};
        ice((Loc){"m.yaml", 3, 4}, "value %d has no type", 7);
    }
    close(fds[1]);
    char text[1024];
    size_t n = 0;
    for (ssize_t k; n < sizeof text - 1 && (k = read(fds[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)k;
    text[n] = '\0';
    close(fds[0]);
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "internal error: value 7 has no type"));
    assert_non_null(strstr(text, "pass fuse-residual"));
    assert_non_null(strstr(text, "program infer"));
    assert_non_null(strstr(text, "m.yaml:3:4"));
    assert_non_null(strstr(text, "dump"));
    assert_null(strstr(strstr(text, "dump") + 4, "dump"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(place_and_caret),
        cmocka_unit_test(without_place),
        cmocka_unit_test(tabs_and_control_bytes),
        cmocka_unit_test(caret_counts_characters_not_bytes),
        cmocka_unit_test(places_outside_the_text),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(at_most_twenty),
        cmocka_unit_test(latest_source_of_a_name),
        cmocka_unit_test(nearest),
        cmocka_unit_test(ice_aborts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
