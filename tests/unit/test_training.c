// The engine of training, the plan of a run, masks, and the files of a run.
#include "fake_training.h"
#include "runtime/checkpoint.h"
#include "runtime/trainer_plan.h"
#include "runtime/training.h"
#include "runtime/training_mask.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/cnx-training-XXXXXX";
static int folder_new(void **state) {
    (void)state;
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}
static int folder_remove(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static bool near(double a, double b, double tolerance) { return fabs(a - b) <= tolerance; }

static Training *open_training(const CnxrtModel *m, const char *programs, int threads,
                               int64_t micro) {
    TrainingOptions o = {.model = m,
                         .programs = programs,
                         .threads = threads,
                         .micro = micro,
                         .optimizer = true,
                         .ema = m == &fake_train_model};
    Training *t = NULL;
    CnxrtError err = {0};
    if (training_open(&o, &t, &err) != CNXRT_OK) fail_msg("%s", err.text);
    return t;
}

// ---- engine -------------------------------------------------------------------------------------

static void initial_values(void **state) {
    (void)state;
    Training *t = open_training(&fake_train_model, "train", 2, 4);
    training_init(t, 7, 1);
    float *w = training_param(t, CNXRT_STATE_PARAM, 0), first[192];
    memcpy(first, w, sizeof first);
    double sum = 0, squares = 0;
    for (int i = 0; i < 192; i++) sum += (double)w[i], squares += (double)w[i] * (double)w[i];
    assert_true(near(sum / 192, 0, 0.005) && near(sqrt(squares / 192), 0.02, 0.003));
    assert_true(training_param(t, CNXRT_STATE_PARAM, 1)[2] == 0);
    assert_memory_equal(training_state(t, CNXRT_STATE_EMA), training_state(t, CNXRT_STATE_PARAM),
                        FAKE_BYTES);
    training_init(t, 8, 1);
    assert_memory_not_equal(w, first, sizeof first);
    training_init(t, 7, 0.5);
    for (int i = 0; i < 192; i++) assert_true(near((double)(2 * w[i]), (double)first[i], 1e-8));
    training_close(t);
    training_close(NULL);
}

static void fill_batch(Training *t, int64_t n) {
    float *x = training_input(t, "train", "image"), *y = training_input(t, "train", "target");
    for (int64_t i = 0; i < n * FAKE_PIXELS; i++) x[i] = (float)((i * 37) % 101) / 50 - 1;
    for (int64_t i = 0; i < n * 3; i++) y[i] = i % 3 == i / 3 % 3;
    for (int64_t i = 0; i < n; i++) {
        training_input(t, "train", "loss_scale")[i] = 1.0f / (float)n;
        training_input(t, "train", "drop.0")[i] = 1;
    }
}

static void gradients_add_up(void **state) {
    (void)state;
    Training *t = open_training(&fake_train_model, "train", 1, 6);
    CnxrtError err = {0};
    training_init(t, 1, 1);
    training_prepare(t);
    fill_batch(t, 6);
    assert_int_equal(training_run(t, "train", 6, &err), CNXRT_OK);
    double once = training_grad_norm(t);
    assert_true(once > 0);
    assert_int_equal(training_run(t, "train", 6, &err), CNXRT_OK);
    assert_true(near(training_grad_norm(t) / once, 2, 1e-6));
    training_zero_grads(t);
    assert_true(training_grad_norm(t) == 0);
    training_param(t, CNXRT_STATE_GRAD, 1)[1] = NAN;
    assert_true(isnan(training_grad_norm(t)));
    assert_int_equal(training_run(t, "train", 7, &err), CNXRT_ERROR_ARGUMENT);
    assert_int_equal(training_run(t, "infer", 1, &err), CNXRT_ERROR_ARGUMENT);
    assert_null(training_input(t, "train", "mask"));
    assert_false(training_point(t, "pretrain", "image", NULL));
    cnxrt_error_free(&err);
    training_close(t);
}

static void updates(void **state) {
    (void)state;
    Training *t = open_training(&fake_train_model, "train", 1, 1);
    float hyper[CNXRT_HYPERS], groups[] = {1, 1, 2, 0};
    TrainPlan plan = {
        .images = 10, .batch = 1, .steps = 10, .epochs = 1, .peak_lr = 0.1, .ema = 0.5};
    CnxrtError err = {0};
    training_init(t, 1, 1);
    training_param(t, CNXRT_STATE_GRAD, 1)[0] = 3;
    plan_hyper(&plan, &fake_recipes[0], 0, 1, hyper);
    assert_int_equal(training_update(t, hyper, groups, &err), CNXRT_OK);
    // The first step of Adam is the rate times the sign.
    assert_true(near((double)training_param(t, CNXRT_STATE_PARAM, 1)[0], -0.2, 1e-6));
    assert_true(near((double)training_param(t, CNXRT_STATE_EMA, 1)[0], -0.1, 1e-6));
    training_close(t);
}

static void memory_limits(void **state) {
    (void)state;
    CnxrtProgram programs[4];
    CnxrtModel m = fake_train_model;
    memcpy(programs, fake_train_programs, sizeof programs);
    programs[1].image_bytes = INT64_C(1) << 30;
    m.programs = programs;
    TrainingOptions o = {.model = &m, .programs = "train", .threads = 1, .optimizer = true};
    int64_t one = training_plan_bytes(&o, 1), two = training_plan_bytes(&o, 2);
    assert_true(two - one >= INT64_C(1) << 30 && two - one < (INT64_C(1) << 30) + 4096);
    assert_int_equal(training_micro_fits(&o, two), 2);
    assert_int_equal(training_micro_fits(&o, two - 1), 1);
    assert_int_equal(training_micro_fits(&o, 1000), 0);
    o.reserve = 10;
    assert_int_equal(training_micro_fits(&o, two), 1);
    assert_int_equal(training_micro(&o, two), 1);
    assert_int_equal(training_plan_bytes(&o, INT64_MAX / 4), INT64_MAX);
    assert_true(training_memory_available() > 0);
    Training *t;
    CnxrtError err = {0};
    o.micro = 1 << 18;
    assert_int_equal(training_open(&o, &t, &err), CNXRT_ERROR_MEMORY);
    assert_non_null(strstr(err.text, "are available; --micro"));
    o.micro = 0;
    programs[1].image_bytes = INT64_C(1) << 50;
    assert_int_equal(training_open(&o, &t, &err), CNXRT_ERROR_MEMORY);
    assert_non_null(strstr(err.text, "not even one image"));
    o.programs = "pretrain";
    assert_int_equal(training_open(&o, &t, &err), CNXRT_ERROR_ARGUMENT);
    assert_non_null(strstr(err.text, "no program pretrain"));
    cnxrt_error_free(&err);
}

static void micro_choice(void **state) {
    (void)state;
    CnxrtProgram programs[4];
    CnxrtModel m = fake_train_model;
    memcpy(programs, fake_train_programs, sizeof programs);
    m.programs = programs;
    TrainingOptions o = {.model = &m, .programs = "train", .threads = 1};
    assert_int_equal(training_micro(&o, INT64_MAX), 64);
    o.batch = 50;
    assert_int_equal(training_micro(&o, INT64_MAX), 50);
    o.batch = 4096;
    programs[1].image_bytes = 700000; // 35 of them in 24 MiB
    assert_int_equal(training_micro(&o, INT64_MAX), 32);
    programs[1].image_bytes = 16 << 20;
    assert_int_equal(training_micro(&o, INT64_MAX), 16);
    o.batch = 5;
    assert_int_equal(training_micro(&o, INT64_MAX), 5);
}

// ---- plan ---------------------------------------------------------------------------------------

static const PlanAsked nothing = {0, 0, NAN, NAN, NAN, NAN};

static void schedule(void **state) {
    (void)state;
    TrainPlan p = {
        .images = 100, .batch = 10, .epochs = 12, .warmup_epochs = 2, .peak_lr = 1, .min_lr = 0.1};
    assert_true(plan_lr(&p, 0) == 0 && near(plan_lr(&p, 1), 0.5, 1e-15));
    assert_true(near(plan_lr(&p, 2), 1, 1e-15) && near(plan_lr(&p, 7), 0.55, 1e-15));
    assert_true(near(plan_lr(&p, 4.5), 0.1 + 0.9 * 0.5 * (1 + sqrt(0.5)), 1e-12));
    assert_true(near(plan_lr(&p, 12), 0.1, 1e-15) && near(plan_lr(&p, 13), 0.1, 1e-15));
    assert_true(near(plan_epoch(&p, 25), 2.5, 1e-15));
    float h[CNXRT_HYPERS];
    plan_hyper(&p, &fake_recipes[0], 1, 0.25, h);
    assert_true(near((double)h[CNXRT_HYPER_LR], 0.05, 1e-9));
    assert_true(near((double)h[CNXRT_HYPER_CORRECTION1], 1 / (1 - 0.81), 1e-6));
    assert_true(near((double)h[CNXRT_HYPER_CORRECTION2], 1 / sqrt(1 - 0.998001), 1e-4));
    assert_true(h[CNXRT_HYPER_GRAD_SCALE] == 0.25f && h[CNXRT_HYPER_ONE_MINUS_BETA2] == 0.001f);
}

static TrainPlan plan_of(CnxrtRecipe r, PlanAsked asked, int64_t images) {
    TrainPlan p;
    train_plan(&r, &asked, images, &p);
    cnxrt_error_free(&p.notes);
    return p;
}

static void plans(void **state) {
    (void)state;
    CnxrtRecipe r = {.batch = 4096, .base_lr = 1.5e-4, .epochs = 800, .warmup_epochs = 40};
    TrainPlan p = plan_of(r, nothing, 1281167);
    assert_int_equal(p.batch, 512); // 4096 is for machines with many processors
    assert_true(near(p.peak_lr, 3e-4, 1e-12) && p.warmup_epochs == 40);
    assert_int_equal(p.steps, (int64_t)ceil(800 * 1281167.0 / 512));
    assert_int_equal(plan_of(r, nothing, 2500).batch, 32);
    assert_int_equal(plan_of(r, nothing, 10).batch, 10);
    r.batch = 128;
    PlanAsked a = nothing;
    a.epochs = 10;
    p = plan_of(r, a, 50000);
    assert_int_equal(p.batch, 128);
    assert_int_equal(p.steps, 3907);
    assert_true(near(p.warmup_epochs, 0.5, 1e-12));
    a.steps = 100; // stops a run of 10 epochs
    p = plan_of(r, a, 50000);
    assert_true(p.steps == 100 && p.epochs == 10);
    a.epochs = NAN;
    a.warmup_epochs = 0.1;
    a.lr = 0.5;
    p = plan_of(r, a, 50000);
    assert_true(p.steps == 100 && near(p.epochs, 0.256, 1e-12) && p.warmup_epochs == 0.1);
    assert_true(p.peak_lr == 0.5);
    r.ema = 0.9999;
    assert_true(near(plan_of(r, a, 50000).ema, 0.9, 1e-12));
    a.ema = 0.9999;
    assert_true(plan_of(r, a, 50000).ema == 0.9999);
}

static void masks(void **state) {
    (void)state;
    CnxrtFcmae f = {{3, 5}, 2, {8, 8}, 15, 6, 0, 0, 0.6};
    float cells[60], other[60];
    int seen[15] = {0};
    assert_int_equal(mask_cells(&f), 60);
    for (uint64_t sample = 0; sample < 2000; sample++) {
        int visible = 0;
        mask_draw(&f, 3, 1, sample, cells);
        for (int row = 0; row < 6; row++)
            for (int col = 0; col < 10; col++) {
                float v = cells[row * 10 + col];
                assert_true(v == 0 || v == 1);
                assert_true(v == cells[row / 2 * 2 * 10 + col / 2 * 2]);
                visible += v == 0;
                if (row % 2 == 0 && col % 2 == 0) seen[row / 2 * 5 + col / 2] += v == 0;
            }
        assert_int_equal(visible, 24);
    }
    for (int i = 0; i < 15; i++) assert_in_range(seen[i], 700, 900); // 800 expected
    mask_draw(&f, 3, 1, 1999, other);
    assert_memory_equal(cells, other, sizeof cells);
    mask_draw(&f, 3, 2, 1999, other);
    assert_memory_not_equal(cells, other, sizeof cells);
}

// ---- files --------------------------------------------------------------------------------------

static const char *in_folder(const char *name) {
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void state_round_trip(void **state) {
    (void)state;
    Training *t = open_training(&fake_train_model, "train", 1, 1);
    training_init(t, 3, 1);
    for (int slot = 2; slot < CNXRT_STATES; slot++)
        for (int i = 0; i < 192; i++) training_param(t, slot, 0)[i] = (float)(slot * 1000 + i);
    CnxrtError err = {0}, note = {0};
    for (int64_t step = 1; step <= 5; step++) {
        RunState s = {step, 4, step == 5 ? 0.1 : NAN, {.step = step, .loss = 0.7}, true, "a=1\n"};
        training_param(t, CNXRT_STATE_PARAM, 1)[0] = (float)step;
        assert_int_equal(state_write(folder, t, &s, &err), CNXRT_OK);
    }
    assert_true(access(in_folder("state-00000002.safetensors"), F_OK) != 0);
    assert_true(access(in_folder("state-00000003.safetensors"), F_OK) == 0);
    char before[FAKE_BYTES];
    memcpy(before, training_state(t, CNXRT_STATE_PARAM), sizeof before);
    training_init(t, 4, 1);
    StateFile s;
    assert_int_equal(state_open(folder, &s, &note, &err), CNXRT_OK);
    assert_non_null(s.file);
    assert_true(s.state.step == 5 && s.state.micro == 4 && s.state.best == 0.1);
    assert_string_equal(s.state.config, "a=1\n");
    assert_true(s.state.pending && s.state.row.step == 5 && s.state.row.loss == 0.7);
    assert_true(isnan(s.state.row.val_loss));
    assert_null(note.text);
    assert_int_equal(state_load(&s, t, &err), CNXRT_OK);
    assert_memory_equal(before, training_state(t, CNXRT_STATE_PARAM), sizeof before);
    assert_true(training_param(t, CNXRT_STATE_EMA, 0)[191] == 4191);
    state_close(&s);
    Training *other = open_training(&fake_pretrain_model, "pretrain", 1, 1);
    assert_int_equal(state_open(folder, &s, &note, &err), CNXRT_OK);
    assert_int_equal(state_load(&s, other, &err), CNXRT_ERROR_MISMATCH);
    state_close(&s);
    cnxrt_error_free(&err);
    training_close(other);
    training_close(t);
}

static void flip_byte(const char *path, long from_end) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, -from_end, SEEK_END);
    int c = fgetc(f);
    fseek(f, -from_end, SEEK_END);
    fputc(c ^ 1, f);
    fclose(f);
}

static void damaged_states(void **state) {
    (void)state;
    Training *t = open_training(&fake_train_model, "train", 1, 1);
    training_init(t, 3, 1);
    CnxrtError err = {0}, note = {0};
    StateFile s;
    assert_int_equal(state_open(folder, &s, &note, &err), CNXRT_OK);
    assert_null(s.file);
    assert_false(state_exists(folder));
    for (int64_t step = 1; step <= 3; step++) {
        RunState r = {step, 4, 1, {0}, false, "a=1\n"};
        assert_int_equal(state_write(folder, t, &r, &err), CNXRT_OK);
    }
    assert_true(state_exists(folder));
    assert_int_equal(truncate(in_folder("state-00000003.safetensors"), 2000), 0);
    flip_byte(in_folder("state-00000002.safetensors"), 100);
    assert_int_equal(state_open(folder, &s, &note, &err), CNXRT_OK);
    assert_int_equal(s.state.step, 1);
    assert_non_null(strstr(note.text, "state-00000003.safetensors is damaged"));
    assert_non_null(strstr(note.text, "its checksum is another"));
    state_close(&s);
    assert_int_equal(truncate(in_folder("state-00000001.safetensors"), 0), 0);
    assert_int_equal(state_open(folder, &s, &note, &err), CNXRT_ERROR_FORMAT);
    cnxrt_error_free(&note);
    cnxrt_error_free(&err);
    training_close(t);
}

static char *contents(const char *path) {
    char *text = calloc(1, 65536);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_in_range(fread(text, 1, 65535, f), 0, 65535);
    fclose(f);
    return text;
}

static void metrics_are_cut(void **state) {
    (void)state;
    Metrics m;
    CnxrtError err = {0};
    assert_int_equal(metrics_open(&m, folder, 0, &err), CNXRT_OK);
    for (int64_t i = 1; i <= 4; i++) {
        MetricsRow row = {i, 0.5 * (double)i, 0.1, 2, 3, i == 2 ? 1.5 : NAN, NAN, NAN, NAN};
        assert_int_equal(metrics_add(&m, &row, &err), CNXRT_OK);
    }
    fputs("{\"step\": 5, \"lo", m.json); // as a killed run leaves it
    metrics_close(&m);
    assert_int_equal(metrics_open(&m, folder, 2, &err), CNXRT_OK);
    metrics_close(&m);
    char *text = contents(in_folder("metrics.jsonl"));
    assert_string_equal(
        text, "{\"step\": 1, \"epoch\": 0.5, \"lr\": 0.1, \"loss\": 2, \"grad_norm\": 3}\n"
              "{\"step\": 2, \"epoch\": 1, \"lr\": 0.1, \"loss\": 2, \"grad_norm\": 3, "
              "\"val_loss\": 1.5}\n");
    free(text);
    text = contents(in_folder("metrics.csv"));
    assert_string_equal(text, "step,epoch,lr,loss,grad_norm,val_loss,val_top1,val_top5,val_map\n"
                              "1,0.5,0.1,2,3,,,,\n2,1,0.1,2,3,1.5,,,\n");
    free(text);
}

static void run_folders(void **state) {
    (void)state;
    CnxrtError err = {0};
    char path[256], file[300];
    snprintf(path, sizeof path, "%s/a/b", folder);
    assert_int_equal(run_folder(path, &err), CNXRT_OK);
    snprintf(file, sizeof file, "%s/last.safetensors.12-0.tmp", path);
    fclose(fopen(file, "w"));
    assert_int_equal(run_folder(path, &err), CNXRT_OK);
    assert_true(access(file, F_OK) != 0);
    assert_int_equal(run_folder("/dev/null/x", &err), CNXRT_ERROR_IO);
    cnxrt_error_free(&err);
}

// A pre-training checkpoint has official names and shapes, and loads again, whole or in part.
static void checkpoints(void **state) {
    (void)state;
    Training *t = open_training(&fake_pretrain_model, "pretrain", 1, 1);
    CnxrtError err = {0}, note = {0};
    const char *meta[] = {"format", "pt", "classes", "a\nb", NULL};
    training_init(t, 3, 1);
    const char *path = in_folder("w.safetensors");
    assert_int_equal(checkpoint_write(path, t, CNXRT_STATE_PARAM, meta, &err), CNXRT_OK);
    CnxrtWeights *w;
    assert_int_equal(cnxrt_weights_open(path, &w, &err), CNXRT_OK);
    assert_string_equal(cnxrt_weights_info(w, 0)->name, "encoder.downsample_layers.0.0.weight");
    assert_string_equal(cnxrt_weights_info(w, 1)->name, "mask_token");
    assert_int_equal(cnxrt_weights_info(w, 1)->rank, 4);
    assert_int_equal(cnxrt_weights_info(w, 1)->dims[1], 16);
    assert_string_equal(cnxrt_weights_metadata(w, "classes"), "a\nb");
    cnxrt_weights_close(w);
    char before[FAKE_PRE_BYTES];
    memcpy(before, training_state(t, CNXRT_STATE_PARAM), sizeof before);
    training_init(t, 4, 1);
    assert_int_equal(checkpoint_load(t, path, &note, &err), CNXRT_OK);
    assert_null(note.text);
    assert_memory_equal(before, training_state(t, CNXRT_STATE_PARAM), sizeof before);
    float token = training_param(t, CNXRT_STATE_PARAM, 1)[0];
    CnxrtTensor encoder = {"downsample_layers.0.0.weight", 4, {16, 1, 1, 1}, (float[16]){5}};
    path = in_folder("e.safetensors");
    assert_int_equal(cnxrt_safetensors_write(path, &encoder, 1, NULL, &err), CNXRT_OK);
    assert_int_equal(checkpoint_load(t, path, &note, &err), CNXRT_OK);
    assert_non_null(strstr(note.text, "decoder starts fresh"));
    assert_true(training_param(t, CNXRT_STATE_PARAM, 0)[0] == 5);
    assert_true(training_param(t, CNXRT_STATE_PARAM, 1)[0] == token);
    cnxrt_error_free(&note);
    assert_int_equal(checkpoint_load(t, "/nonexistent", &note, &err), CNXRT_ERROR_IO);
    cnxrt_error_free(&err);
    training_close(t);
}

static void heads(void **state) {
    (void)state;
    Training *t = open_training(&fake_train_model, "train", 1, 1);
    CnxrtError err = {0}, note = {0};
    training_init(t, 3, 1);
    float values[192] = {9}, own = training_param(t, CNXRT_STATE_PARAM, 0)[0];
    CnxrtTensor head[] = {{"head.weight", 2, {3, 64}, values}, {"head.bias", 1, {3}, values}};
    const char *path = in_folder("h.safetensors");
    head[0].dims[0] = head[1].dims[0] = 2;
    assert_int_equal(cnxrt_safetensors_write(path, head, 2, NULL, &err), CNXRT_OK);
    assert_int_equal(checkpoint_load(t, path, &note, &err), CNXRT_OK);
    assert_non_null(strstr(note.text, "the checkpoint's has 2 classes"));
    assert_true(training_param(t, CNXRT_STATE_PARAM, 0)[0] == own);
    head[0].dims[0] = head[1].dims[0] = 3;
    assert_int_equal(cnxrt_safetensors_write(path, head, 2, NULL, &err), CNXRT_OK);
    cnxrt_error_free(&note);
    assert_int_equal(checkpoint_load(t, path, &note, &err), CNXRT_OK);
    assert_true(training_param(t, CNXRT_STATE_PARAM, 0)[0] == 9);
    cnxrt_error_free(&note);
    training_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initial_values),
        cmocka_unit_test(gradients_add_up),
        cmocka_unit_test(updates),
        cmocka_unit_test(memory_limits),
        cmocka_unit_test(micro_choice),
        cmocka_unit_test(schedule),
        cmocka_unit_test(plans),
        cmocka_unit_test(masks),
        cmocka_unit_test_setup_teardown(state_round_trip, folder_new, folder_remove),
        cmocka_unit_test_setup_teardown(damaged_states, folder_new, folder_remove),
        cmocka_unit_test_setup_teardown(metrics_are_cut, folder_new, folder_remove),
        cmocka_unit_test_setup_teardown(run_folders, folder_new, folder_remove),
        cmocka_unit_test_setup_teardown(checkpoints, folder_new, folder_remove),
        cmocka_unit_test_setup_teardown(heads, folder_new, folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
