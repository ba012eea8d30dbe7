// Commands on a model by hand: grad, reconstruct, bench, probe and knn, from argv to files.
#include "fake_training.h"
#include "runtime/cli.h"
#include "runtime/image.h"
#include "runtime/training.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/test_cli_training_XXXXXX", text[1 << 16];

static double peak_loop(int64_t iterations) {
    volatile float x = 0;
    for (int64_t i = 0; i < iterations; i++) x = x + 1;
    return (double)iterations;
}

// Runs a command line (words split at spaces) in `dir`; what it prints goes to `text`, errors
// behind it. Returns the exit status.
static int run_model(const CnxrtModel *m, const char *line) {
    char copy[1000], *argv[40];
    int argc = 0;
    snprintf(copy, sizeof copy, "net %s", line);
    for (char *p = copy, *word; (word = strsep(&p, " "));)
        if (*word) argv[argc++] = word;
    fflush(stdout);
    fflush(stderr);
    int out = dup(1), err = dup(2);
    FILE *f = fopen("out.txt", "w+");
    assert_non_null(f);
    dup2(fileno(f), 1);
    dup2(fileno(f), 2);
    int status = cnxrt_main((const CnxrtModel *const[]){m, NULL}, argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    rewind(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    fclose(f);
    return status;
}

static int run(const char *line) {
    CnxrtModel m = fake_model;
    m.peak_loop = peak_loop;
    return run_model(&m, line);
}

static void says(const char *part) {
    if (!strstr(text, part)) fail_msg("no \"%s\" in: %s", part, text);
}

static void refused(int status, const char *line, const char *part) {
    int have = run(line);
    if (have != status) fail_msg("%s: status %d, %s", line, have, text);
    says(part);
}

// ---- files --------------------------------------------------------------------------------------

static void put_npy(const char *path, const char *descr, int rank, int64_t rows, int64_t columns,
                    const void *data, size_t bytes) {
    char head[129], shape[64];
    if (rank == 1)
        snprintf(shape, sizeof shape, "(%lld,)", (long long)rows);
    else
        snprintf(shape, sizeof shape, "(%lld, %lld)", (long long)rows, (long long)columns);
    snprintf(head, sizeof head, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr,
             shape);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite("\x93NUMPY\x01\0\x76\0", 1, 10, f);
    fprintf(f, "%-118s", head);
    fwrite(data, 1, bytes, f);
    fclose(f);
}

enum { N = 5 };
static float pixels[N * FAKE_PIXELS];
static const int64_t labels[N] = {2, 0, 1, 1, 2};

static void put_files(void) {
    const int64_t shape[4] = {N, 1, FAKE_SIDE, FAKE_SIDE};
    const int32_t narrow[N] = {2, 0, 1, 1, 2}, wild[N] = {0, 1, 3, 0, 0};
    const unsigned char mask[N * 4] = {1, 1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0};
    float real[N * 4], bad[N * 4];
    CnxrtError err = {0};
    for (int i = 0; i < N * FAKE_PIXELS; i++) pixels[i] = (float)(i * 7919 % 256) / 64 - 2;
    for (int i = 0; i < N * 4; i++) real[i] = bad[i] = mask[i];
    bad[4 * 3 + 1] = 1;
    assert_int_equal(cnxrt_npy_write_f32("x.npy", 4, shape, pixels, &err), CNXRT_OK);
    put_npy("y8.npy", "<i8", 1, N, 0, labels, sizeof labels);
    put_npy("y4.npy", "<i4", 1, N, 0, narrow, sizeof narrow);
    put_npy("wild.npy", "<i4", 1, N, 0, wild, sizeof wild);
    put_npy("short.npy", "<i4", 1, N - 1, 0, narrow, sizeof narrow - 4);
    put_npy("float.npy", "<f4", 1, N, 0, real, N * sizeof *real);
    put_npy("m.npy", "|b1", 2, N, 4, mask, sizeof mask);
    put_npy("mf.npy", "<f4", 2, N, 4, real, sizeof real);
    put_npy("bad.npy", "<f4", 2, N, 4, bad, sizeof bad);
    bad[4 * 3 + 1] = 0.5f;
    put_npy("half.npy", "<f4", 2, N, 4, bad, sizeof bad);
    put_npy("wide.npy", "|b1", 2, 4, 5, mask, sizeof mask);
    float rows[N * 3] = {0};
    for (int i = 0; i < N; i++) rows[3 * i + labels[i]] = 1;
    put_npy("rows.npy", "<f4", 2, N, 3, rows, sizeof rows);
    put_npy("few.npy", "<f4", 2, N - 1, 3, rows, sizeof rows - 12);
    rows[3 * 2] = 0.25f;
    put_npy("sums.npy", "<f4", 2, N, 3, rows, sizeof rows);
    rows[3 * 2] = 1.5f;
    put_npy("range.npy", "<f4", 2, N, 3, rows, sizeof rows);
}

// Values of a tensor of grads.safetensors.
static void tensor_read(const char *file, const char *name, float *dst) {
    CnxrtWeights *w;
    CnxrtError err = {0};
    if (cnxrt_weights_open(file, &w, &err) != CNXRT_OK) fail_msg("%s", err.text);
    int i = 0;
    while (i < cnxrt_weights_count(w) && strcmp(cnxrt_weights_info(w, i)->name, name) != 0) i++;
    if (i == cnxrt_weights_count(w)) fail_msg("%s holds no %s", file, name);
    assert_int_equal(cnxrt_weights_read(w, i, dst, &err), CNXRT_OK);
    cnxrt_weights_close(w);
}

// ---- grad ---------------------------------------------------------------------------------------

// Loss and gradient of the head by their formulas.
static double head_by_hand(double *grad_w, double *grad_b) {
    float w[3 * FAKE_PIXELS], b[3];
    double loss = 0;
    cnxrt_seed_weights("head.weight", 2, fake_head[0].dims, 3, w);
    cnxrt_seed_weights("head.bias", 1, fake_head[1].dims, 3, b);
    memset(grad_w, 0, 3 * FAKE_PIXELS * sizeof *grad_w);
    memset(grad_b, 0, 3 * sizeof *grad_b);
    for (int i = 0; i < N; i++) {
        double z[3], sum = 0;
        const float *x = pixels + i * FAKE_PIXELS;
        for (int k = 0; k < 3; k++) {
            z[k] = (double)b[k];
            for (int c = 0; c < FAKE_PIXELS; c++)
                z[k] += (double)w[k * FAKE_PIXELS + c] * (double)x[c];
            sum += exp(z[k]);
        }
        loss += (log(sum) - z[labels[i]]) / N;
        for (int k = 0; k < 3; k++) {
            double d = (exp(z[k]) / sum - (k == labels[i])) / N;
            grad_b[k] += d;
            for (int c = 0; c < FAKE_PIXELS; c++) grad_w[k * FAKE_PIXELS + c] += d * (double)x[c];
        }
    }
    return loss;
}

static void check_head(void) {
    double want_w[3 * FAKE_PIXELS], want_b[3], loss = head_by_hand(want_w, want_b), have;
    float w[3 * FAKE_PIXELS], b[3];
    int end = 0;
    assert_int_equal(sscanf(text, "loss %lf\n%n", &have, &end), 1);
    assert_int_equal(end, (int)strlen(text)); // and nothing else
    assert_true(fabs(have - loss) < 1e-6);
    tensor_read("g.safetensors", "head.weight", w);
    tensor_read("g.safetensors", "head.bias", b);
    for (int i = 0; i < 3 * FAKE_PIXELS; i++) assert_true(fabs((double)w[i] - want_w[i]) < 1e-6);
    for (int i = 0; i < 3; i++) assert_true(fabs((double)b[i] - want_b[i]) < 1e-6);
}

static void grad_of_labels(void **state) {
    (void)state;
    static const char *const lines[] = {
        "grad --weights seed:3 --input x.npy --labels y8.npy --output g.safetensors",
        "grad --weights seed:3 --input x.npy --labels y4.npy --output g.safetensors --threads 3",
        "grad --weights seed:3 --input x.npy --labels y4.npy --output g.safetensors --micro 2",
        "grad --weights seed:3 --input x.npy --labels rows.npy --output g.safetensors --micro 3",
    };
    for (int i = 0; i < 4; i++) {
        if (run(lines[i]) != 0) fail_msg("%s", text);
        check_head();
    }
}

static void grad_of_masks(void **state) {
    (void)state;
    float first[16], second[16], token[16];
    if (run("grad --weights seed:1 --input x.npy --mask m.npy --output g.safetensors") != 0)
        fail_msg("%s", text);
    char loss[64];
    snprintf(loss, sizeof loss, "%.60s", text);
    says("loss ");
    tensor_read("g.safetensors", "pred.bias", first);
    tensor_read("g.safetensors", "mask_token", token);
    assert_memory_equal(first, token, sizeof token); // as the model has it
    assert_int_equal(
        run("grad --weights seed:1 --input x.npy --mask mf.npy --output h.safetensors"), 0);
    assert_string_equal(text, loss);
    tensor_read("h.safetensors", "pred.bias", second);
    assert_memory_equal(first, second, sizeof first);
}

static void grad_refuses(void **state) {
    (void)state;
#define GRAD "grad --weights seed:3 --input x.npy --output g.safetensors "
    refused(2, GRAD, "give --labels");
    refused(2, GRAD "--labels y4.npy --mask m.npy", "not both");
    refused(2, "grad --weights seed:3 --input x.npy --labels y4.npy", "--output");
    refused(2, "grad --input x.npy --labels y4.npy --output g.safetensors", "no weights");
    refused(1, GRAD "--labels wild.npy", "label 3 of row 2 is outside 0 .. 2");
    refused(1, GRAD "--labels short.npy", "expected 5 labels");
    refused(1, GRAD "--labels float.npy", "int32 or int64");
    refused(1, GRAD "--labels absent.npy", "absent.npy");
    refused(1, GRAD "--labels few.npy", "targets of shape (4, 3); expected (5, 3)");
    refused(1, GRAD "--labels sums.npy", "row 2 sums to 1.25");
    refused(1, GRAD "--labels range.npy", "target 1.5 of row 2, class 0 is outside 0 .. 1");
    refused(1, GRAD "--labels x.npy", "an array of 4 dimensions; expected 5 labels or targets of");
    refused(1, GRAD "--mask bad.npy",
            "row 3 has 1 zeros (visible patches); this program keeps 2 of 4");
    refused(1, GRAD "--mask half.npy", "row 3 holds 0.5");
    refused(1, GRAD "--mask wide.npy", "expected the shape (5, 4)");
    refused(1, GRAD "--labels y4.npy --layout nhwc", "--layout nchw");
    refused(1, "grad --weights seed:x --input x.npy --labels y4.npy --output g", "seed:N");
    CnxrtModel m = fake_model;
    m.train = m.pretrain = NULL;
    assert_int_equal(run_model(&m, GRAD "--labels y4.npy"), 1);
    says("built without the program train");
    assert_int_equal(run_model(&m, GRAD "--mask m.npy"), 1);
    says("built without the program pretrain");
    CnxrtModel sets = fake_train_model;
    sets.loss = CNXRT_LOSS_BCE;
    m.train = &sets;
    assert_int_equal(run_model(&m, GRAD "--labels sums.npy"), 0); // any rows
    assert_int_equal(run_model(&m, GRAD "--labels range.npy"), 1);
    says("is outside 0 .. 1");
}

// ---- pictures -----------------------------------------------------------------------------------

// Class folders a, b, c: bright left, bright top, dark; val/ like train/.
static void put_pictures(void) {
    for (int split = 0; split < 2; split++)
        for (int i = 0; i < 12; i++) {
            char path[100];
            uint8_t p[FAKE_PIXELS];
            for (int k = 0; k < FAKE_PIXELS; k++) {
                bool bright = i % 3 == 0 ? k % 8 < 4 : i % 3 == 1 ? k < 32 : false;
                p[k] = (uint8_t)(20 + 200 * bright + (i * 31 + k * 17 + split * 7) % 20);
            }
            Image image = {8, 8, 1, p};
            CnxrtError err = {0};
            snprintf(path, sizeof path, "%s", split ? "data/val" : "data/train");
            mkdir("data", 0700);
            mkdir(path, 0700);
            snprintf(path + strlen(path), 10, "/%c", 'a' + i % 3);
            mkdir(path, 0700);
            snprintf(path + strlen(path), 10, "/%d.png", i);
            if (image_png_write(path, &image, &err) != CNXRT_OK) fail_msg("%s", err.text);
        }
}

static Image picture(const char *path) {
    uint8_t *bytes;
    size_t size;
    Image image;
    ImageOptions o = {.channels = 1};
    CnxrtError err = {0};
    if (image_file_read(path, &bytes, &size, &err) != CNXRT_OK) fail_msg("%s", err.text);
    assert_int_equal(image_decode(bytes, size, &o, &image, &err), CNXRT_OK);
    free(bytes);
    return image;
}

static void reconstructs(void **state) {
    (void)state;
    if (run("reconstruct --weights seed:0 --output one.png --limit 1 data") != 0)
        fail_msg("%s", text);
    says("pictures 1 ");
    Image g = picture("one.png"); // 16-fold pictures of 8 x 8, gaps of 5
    enum { GAP = 5, WIDE = 128 };
    assert_int_equal(g.width, 3 * (WIDE + GAP) + GAP);
    assert_int_equal(g.height, WIDE + 2 * GAP);
    int hidden = 0;
    for (int cell = 0; cell < 4; cell++) {
        int x = GAP + cell % 2 * 64 + 8, y = GAP + cell / 2 * 64 + 8;
        const uint8_t *p = g.pixels + y * g.width + x;
        bool grey = p[WIDE + GAP] == 128;
        hidden += grey;
        if (!grey) assert_int_equal(p[0], p[2 * (WIDE + GAP)]);
    }
    assert_int_equal(hidden, 2);
    image_free(&g);
    assert_int_equal(run("reconstruct --weights seed:0 --output grids --json data"), 0);
    says("\"pictures\": 12");
    says("\"files\": 2");
    assert_int_equal(access("grids/grid001.png", F_OK), 0);
    assert_int_equal(run("reconstruct --weights seed:0 --output t.png --input x.npy"), 0);
    says("pictures 5 ");
    FILE *f = fopen("broken.png", "w");
    fclose(f);
    assert_int_equal(run("reconstruct --weights seed:0 --output p.png broken.png data/val/a/0.png"),
                     3);
    says("skipped broken.png");
    refused(2, "reconstruct --weights seed:0 data", "--output");
    refused(2, "reconstruct --weights seed:0 --output a.png", "give pictures");
    refused(1, "reconstruct --weights seed:0 --output a.png absent", "absent");
    refused(1, "reconstruct --weights seed:0 --output a.png broken.png", "no pictures");
}

// Seeds choose masks: the same one gives the same file.
static void reconstructs_by_seed(void **state) {
    (void)state;
    assert_int_equal(run("reconstruct --weights seed:0 --output a.png --limit 8 data"), 0);
    assert_int_equal(run("reconstruct --weights seed:0 --output b.png --limit 8 --micro 3 data"),
                     0);
    assert_int_equal(run("reconstruct --weights seed:0 --output c.png --limit 8 --seed 5 data"), 0);
    Image a = picture("a.png"), b = picture("b.png"), c = picture("c.png");
    size_t n = (size_t)a.width * (size_t)a.height;
    assert_int_equal(a.width, b.width);
    assert_memory_equal(a.pixels, b.pixels, n);
    assert_true(memcmp(a.pixels, c.pixels, n) != 0);
    image_free(&a);
    image_free(&b);
    image_free(&c);
}

// ---- features -----------------------------------------------------------------------------------

static void pooled(const CnxrtFrame *f, int64_t thread, int64_t nthreads) {
    (void)nthreads;
    if (thread == 0)
        memcpy(f->outputs[0], f->inputs[0], (size_t)f->batch * FAKE_PIXELS * sizeof(float));
}

static void probes(void **state) {
    (void)state;
    static const CnxrtPort port[] = {{"pooled", 1, {FAKE_PIXELS}, 256}};
    const CnxrtProgram programs[] = {fake_infer_programs[0],
                                     FAKE_PROGRAM("features", pooled, fake_image, 1, port, 1)};
    CnxrtModel m = fake_model;
    m.programs = programs;
    assert_int_equal(run_model(&m, "knn --weights seed:0 --data data --k 3"), 0);
    says("images 12   top-1 100.000 %   top-5 100.000 %");
    assert_int_equal(run_model(&m, "knn --weights seed:0 --data data --k 3 --json"), 0);
    says("\"train_images\": 12");
    says("\"k\": 3");
    assert_int_equal(run_model(&m, "probe --weights seed:0 --data data --json"), 0);
    says("\"top1\": 100.0");
    says("\"train_top1\": 100.0");
    assert_int_equal(
        run_model(&m, "probe --weights seed:0 --data data --label-fraction 0.25 --json"), 0);
    says("\"train_images\": 3");
    assert_int_equal(run_model(&m, "probe --weights seed:0 --data data/train --val data/val"), 0);
    says("images 12   top-1 100.000 %");
    assert_int_equal(run_model(&m, "probe --weights seed:0 --data data/train"), 1);
    says("give --val DATA");
    assert_int_equal(run_model(&m, "probe --weights seed:0"), 2);
    says("give --data DATA");
    assert_int_equal(run_model(&m, "knn --weights seed:0 --data data --temperature 0"), 2);
    says("--temperature 0");
    // An encoder without its head is enough.
    float x[FAKE_PIXELS] = {0};
    CnxrtTensor t = {"mask_token", 1, {FAKE_PIXELS}, x};
    CnxrtError err = {0};
    assert_int_equal(cnxrt_safetensors_write("enc.safetensors", &t, 1, NULL, &err), CNXRT_OK);
    assert_int_equal(run_model(&m, "knn --weights enc.safetensors --data data"), 0);
    says("note: an encoder without classifier");
}

// ---- bench --------------------------------------------------------------------------------------

static void benches_steps(void **state) {
    (void)state;
    static const char *const keys[] = {
        "program", "batch",  "micro",       "threads",         "min_ms",      "median_ms",
        "gflop",   "gflops", "peak_gflops", "percent_of_peak", "peak_rss_mb", "planned_mb"};
    assert_int_equal(run("bench --program train --batch 7 --micro 3 --threads 2 --runs 2 --json"),
                     0);
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_non_null(json_object_get(o, keys[i]));
    assert_int_equal(json_integer_value(json_object_get(o, "micro")), 3);
    assert_string_equal(json_string_value(json_object_get(o, "program")), "train");
    json_decref(o);
    assert_int_equal(run("bench --program=pretrain --runs 1 --profile"), 0);
    says("program          pretrain");
    refused(2, "bench --program update", "expected infer");
    refused(2, "bench --program infer --micro 2", "--micro is for");
}

static void info_of_training(void **state) {
    (void)state;
    assert_int_equal(run("info"), 0);
    says("--- train");
    says("parameters, gradients, moments, averages");
    says("2 x 2 patches of 4 x 4 pixels, 2 of 4 visible (mask ratio 0.5)");
    says("masked dense");
    assert_int_equal(run("info --json"), 0);
    json_t *o = json_loads(text, 0, NULL), *pretrain, *recipe;
    assert_non_null(o);
    json_t *train = json_object_get(json_object_get(o, "training"), "train");
    assert_int_equal(json_integer_value(json_object_get(train, "state_bytes")), 5 * FAKE_BYTES);
    TrainingOptions options = {
        .model = &fake_train_model, .programs = "train", .optimizer = true, .ema = true};
    for (int64_t n = 1; n < 100; n += 13) { // the plan that a run is held to
        int64_t bytes = json_integer_value(json_object_get(train, "fixed_bytes")) +
                        n * json_integer_value(json_object_get(train, "image_bytes"));
        assert_int_equal(bytes, training_plan_bytes(&options, n));
    }
    recipe = json_array_get(json_object_get(train, "recipes"), 0);
    assert_true(json_real_value(json_object_get(recipe, "lr")) == 0.02);
    pretrain = json_object_get(json_object_get(o, "training"), "pretrain");
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(pretrain, "fcmae"), "keep")), 2);
    json_decref(o);
    CnxrtModel m = fake_model;
    m.train = m.pretrain = NULL;
    assert_int_equal(run_model(&m, "info --json"), 0);
    assert_null(strstr(text, "training"));
}

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(dir) || chdir(dir) != 0) return -1;
    put_files();
    put_pictures();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return chdir("/") == 0 ? system(command) : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grad_of_labels),       cmocka_unit_test(grad_of_masks),
        cmocka_unit_test(grad_refuses),         cmocka_unit_test(reconstructs),
        cmocka_unit_test(reconstructs_by_seed), cmocka_unit_test(probes),
        cmocka_unit_test(benches_steps),        cmocka_unit_test(info_of_training),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
