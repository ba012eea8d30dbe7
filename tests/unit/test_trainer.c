// Whole runs on a model by hand and pictures of three kinds of bars: they learn, and they give the
// same bytes for any number of threads and however they were interrupted.
#include "fake_training.h"
#include "runtime/trainer.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

enum { TRAIN_IMAGES = 30, TEST_IMAGES = 300 };

static char folder[] = "/tmp/cnx-trainer-XXXXXX";

static void be32(FILE *f, uint32_t v) {
    for (int i = 24; i >= 0; i -= 8) fputc((int)(v >> i & 255), f);
}

// MNIST's files: kind k has its bright bar at rows 2k and 2k + 1.
static void write_idx(const char *dir, const char *part, int n, int classes) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s-images-idx3-ubyte", dir, part);
    FILE *x = fopen(path, "wb");
    snprintf(path, sizeof path, "%s/%s-labels-idx1-ubyte", dir, part);
    FILE *y = fopen(path, "wb");
    be32(x, 0x803), be32(x, (uint32_t)n), be32(x, 8), be32(x, 8);
    be32(y, 0x801), be32(y, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        fputc(i % classes, y);
        for (int p = 0; p < 64; p++)
            fputc(p / 16 == i % classes ? 200 + i % 50 : (i * 7 + p) % 60, x);
    }
    fclose(x);
    fclose(y);
}

static char data[64];
static int setup(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(data, sizeof data, "%s/data", folder);
    CnxrtError err = {0};
    if (run_folder(data, &err) != CNXRT_OK) return -1;
    write_idx(data, "train", TRAIN_IMAGES, 3);
    write_idx(data, "t10k", TEST_IMAGES, 3);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

typedef struct {
    char said[16384];
    int64_t stop_at; // 0: never
    TrainerNews last;
    int validations, stop_validation; // the latter: 0: never, else which
    bool stop_now;
    int validating;
} Listener;

static void say(void *user, const char *text) {
    Listener *l = user;
    size_t n = strlen(l->said);
    snprintf(l->said + n, sizeof l->said - n, "%s\n", text);
}
static void news(void *user, const TrainerNews *n) {
    Listener *l = user;
    l->last = *n;
    l->validations += n->validated;
}
static void wait_for(void *user, int64_t done, int64_t all) {
    Listener *l = user;
    (void)all;
    if (done == 128 && ++l->validating == l->stop_validation) l->stop_now = true;
}
static bool stop(void *user) {
    const Listener *l = user;
    return l->stop_now || (l->stop_at && l->last.step >= l->stop_at);
}

static const char *run_path(const char *name) {
    static char paths[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

static TrainerOptions options(Listener *l, int recipe, const char *out) {
    *l = (Listener){0};
    return (TrainerOptions){
        .model = &fake_model,
        .recipe = fake_recipes[recipe],
        .asked = {.epochs = NAN, .warmup_epochs = NAN, .lr = NAN, .ema = NAN, .batch = 12},
        .data = data,
        .out = run_path(out),
        .micro = 5,
        .seed = 11,
        .threads = 1,
        .save_every = 3,
        .eval_every = 4,
        .say = say,
        .news = news,
        .wait = wait_for,
        .stop = stop,
        .user = l};
}

static TrainerEnd run(const TrainerOptions *o) {
    CnxrtError err = {0};
    TrainerEnd end;
    if (trainer_run(o, &end, &err) != CNXRT_OK) fail_msg("%s", err.text);
    return end;
}

static void refused(const TrainerOptions *o, CnxrtStatus want, const char *text) {
    CnxrtError err = {0};
    TrainerEnd end;
    assert_int_equal(trainer_run(o, &end, &err), want);
    if (!strstr(err.text, text)) fail_msg("'%s' does not say '%s'", err.text, text);
    cnxrt_error_free(&err);
}

static void same_file(const char *a, const char *b, const char *name) {
    char pa[300], pb[300];
    snprintf(pa, sizeof pa, "%s/%s", run_path(a), name);
    snprintf(pb, sizeof pb, "%s/%s", run_path(b), name);
    FILE *x = fopen(pa, "rb"), *y = fopen(pb, "rb");
    if (!x || !y) fail_msg("no %s or no %s", pa, pb);
    int c, d;
    long at = 0;
    do {
        c = fgetc(x), d = fgetc(y), at++;
        if (c != d) fail_msg("%s and %s differ at byte %ld", pa, pb, at);
    } while (c != EOF);
    fclose(x);
    fclose(y);
}

static void same_runs(const char *a, const char *b) {
    same_file(a, b, "metrics.jsonl");
    same_file(a, b, "metrics.csv");
    same_file(a, b, "last.safetensors");
    same_file(a, b, "best.safetensors");
    same_file(a, b, "state-00000010.safetensors");
}

static void learns(void **state) {
    (void)state;
    Listener l;
    TrainerOptions o = options(&l, 0, "learns");
    assert_int_equal(run(&o), TRAINER_DONE);
    assert_int_equal(l.last.step, 10); // 4 epochs of 30 images in batches of 12
    assert_int_equal(l.validations, 3);
    assert_true(l.last.row.val_top1 == 100 && l.last.row.val_top5 == 100);
    assert_true(l.last.row.epoch == 4 && l.last.row.val_loss < 1);
    assert_non_null(strstr(l.said, "30 images and validation, batch 12, 10 steps (4 epochs)"));
    o.resume = true;
    assert_int_equal(run(&o), TRAINER_DONE);
    assert_non_null(strstr(l.said, "all 10 steps are done already"));
}

static void pretrains(void **state) {
    (void)state;
    Listener l;
    TrainerOptions o = options(&l, 1, "pretrains");
    o.eval_every = 1;
    assert_int_equal(run(&o), TRAINER_DONE);
    assert_int_equal(l.validations, 10);
    assert_true(isnan(l.last.row.val_top1) && l.last.row.val_loss > 0);
    assert_true(l.last.best);
    o = options(&l, 1, "pretrains2");
    o.init = "no-such-file.safetensors";
    refused(&o, CNXRT_ERROR_IO, "no-such-file");
}

static void any_threads(void **state) {
    (void)state;
    for (int recipe = 0; recipe < 2; recipe++) {
        Listener l;
        char name[3][32];
        for (int threads = 1; threads <= 3; threads++) {
            snprintf(name[threads - 1], 32, "threads%d-%d", recipe, threads);
            TrainerOptions o = options(&l, recipe, name[threads - 1]);
            o.threads = threads;
            run(&o);
        }
        same_runs(name[0], name[1]);
        same_runs(name[0], name[2]);
    }
}

// Stopped after every possible step, and resumed.
static void interrupted(void **state) {
    (void)state;
    Listener l;
    char name[32];
    TrainerOptions o = options(&l, 0, "whole");
    run(&o);
    for (int64_t at = 1; at < 10; at++) {
        snprintf(name, sizeof name, "stopped%d", (int)at);
        o = options(&l, 0, name);
        l.stop_at = at;
        assert_int_equal(run(&o), TRAINER_STOPPED);
        o.resume = true;
        o.threads = 2;
        o.micro = 0; // that of the state
        l.stop_at = 0;
        assert_int_equal(run(&o), TRAINER_DONE);
        assert_non_null(strstr(l.said, "resumed at step"));
        same_runs("whole", name);
    }
}

// Stopped in the middle of a validation, which is made up for.
static void validation_interrupted(void **state) {
    (void)state;
    Listener l;
    char name[32];
    TrainerOptions o = options(&l, 0, "val-whole");
    run(&o);
    assert_int_equal(l.validating, 3);
    for (int k = 1; k <= 3; k++) {
        snprintf(name, sizeof name, "val-stopped%d", k);
        o = options(&l, 0, name);
        l.stop_validation = k;
        assert_int_equal(run(&o), TRAINER_STOPPED);
        o = options(&l, 0, name);
        o.resume = true;
        assert_int_equal(run(&o), TRAINER_DONE);
        same_runs("val-whole", name);
    }
}

// The newest state is lost: the one before it leads to the same end, its rows are not there twice.
static void states_lost(void **state) {
    (void)state;
    Listener l;
    TrainerOptions o = options(&l, 0, "lost-whole");
    run(&o);
    o = options(&l, 0, "lost");
    l.stop_at = 8;
    run(&o);
    char path[300];
    snprintf(path, sizeof path, "%s/state-00000008.safetensors", o.out);
    assert_int_equal(truncate(path, 1000), 0);
    o.resume = true;
    l.stop_at = 0;
    assert_int_equal(run(&o), TRAINER_DONE);
    assert_non_null(strstr(l.said, "is damaged"));
    assert_non_null(strstr(l.said, "resumed at step 6"));
    same_runs("lost-whole", "lost");
}

static void resume_rules(void **state) {
    (void)state;
    Listener l;
    TrainerOptions o = options(&l, 0, "rules");
    o.resume = true; // nothing there yet
    l.stop_at = 2;
    run(&o);
    assert_non_null(strstr(l.said, "starting from the beginning"));
    o.resume = false;
    refused(&o, CNXRT_ERROR_ARGUMENT, "holds a run already");
    o.resume = true;
    o.recipe.weight_decay = 0.5;
    refused(&o, CNXRT_ERROR_ARGUMENT, "the state was made with weight_decay=0.01");
    o = options(&l, 0, "rules");
    o.resume = true;
    o.seed = 12;
    refused(&o, CNXRT_ERROR_ARGUMENT, "seed=11, this run has seed=12");
}

static void wrong_data(void **state) {
    (void)state;
    Listener l;
    CnxrtError err = {0};
    const char *four = run_path("four");
    assert_int_equal(run_folder(four, &err), CNXRT_OK);
    write_idx(four, "train", 8, 4);
    TrainerOptions o = options(&l, 0, "wrong");
    o.data = four;
    refused(&o, CNXRT_ERROR_MISMATCH, "--set head.classes=4");
    o = options(&l, 0, "wrong");
    o.data = "/nonexistent";
    refused(&o, CNXRT_ERROR_IO, "/nonexistent");
    o = options(&l, 0, "wrong");
    o.recipe.kind = CNXRT_FINETUNE;
    refused(&o, CNXRT_ERROR_ARGUMENT, "--init CKPT");
    CnxrtModel m = fake_model;
    m.train = NULL;
    o = options(&l, 0, "wrong");
    o.model = &m;
    refused(&o, CNXRT_ERROR_ARGUMENT, "built without the program train");
}

// A rate beyond all measure: the run stops, names samples, and keeps the state before the step.
static void not_finite(void **state) {
    (void)state;
    Listener l;
    TrainerOptions o = options(&l, 0, "nan");
    o.asked.lr = 1e38;
    o.asked.warmup_epochs = 0;
    o.save_every = 100;
    refused(&o, CNXRT_ERROR_FORMAT, "is not finite");
    refused(&o, CNXRT_ERROR_ARGUMENT, "holds a run already");
    assert_true(access(run_path("nan/last.safetensors"), F_OK) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns),
        cmocka_unit_test(pretrains),
        cmocka_unit_test(any_threads),
        cmocka_unit_test(interrupted),
        cmocka_unit_test(validation_interrupted),
        cmocka_unit_test(states_lost),
        cmocka_unit_test(resume_rules),
        cmocka_unit_test(wrong_data),
        cmocka_unit_test(not_finite),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
