// Batches made ahead: the same whatever the threads and wherever a run begins, every sample once an
// epoch, the pixels of the single functions; failures end in a message, never in a hang.
#include "runtime/dataset_loader.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { COUNT = 23, SIDE = 6, PIXELS = SIDE * SIDE, BATCH = 5 };

static char folder[64];
static const float mean[] = {0.5f}, std[] = {0.25f};
static const Augment plain = {.base = {1, SIDE, SIDE, 1, false, FILTER_BICUBIC, mean, std}};

static const char *at(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const void *bytes, size_t size) {
    FILE *f = fopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

// Picture i is a ramp from i; its label is i mod 4.
static int setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/cnxc-test-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    uint8_t images[16 + COUNT * PIXELS] = {0, 0, 8, 3,    0, 0, 0, COUNT,
                                           0, 0, 0, SIDE, 0, 0, 0, SIDE};
    uint8_t labels[8 + COUNT] = {0, 0, 8, 1, 0, 0, 0, COUNT};
    for (int i = 0; i < COUNT; i++) {
        labels[8 + i] = (uint8_t)(i % 4);
        for (int k = 0; k < PIXELS; k++) images[16 + i * PIXELS + k] = (uint8_t)(i + 5 * k);
    }
    put("train-images-idx3-ubyte", images, sizeof images);
    put("train-labels-idx1-ubyte", labels, sizeof labels);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove(at("train-images-idx3-ubyte"));
    remove(at("train-labels-idx1-ubyte"));
    return rmdir(folder);
}

static Dataset *data_open(const char *path) {
    DatasetOptions o = {.path = path};
    Dataset *d;
    CnxrtError err = {0};
    if (dataset_open(&o, &d, &err) != CNXRT_OK) fail_msg("%s", err.text);
    return d;
}

static Loader *loader_make(LoaderOptions o) {
    Loader *l;
    CnxrtError err = {0};
    if (loader_open(&o, &l, &err) != CNXRT_OK) fail_msg("%s", err.text);
    return l;
}

static LoaderBatch next(Loader *l) {
    LoaderBatch b;
    CnxrtError err = {0};
    if (loader_next(l, &b, &err) != CNXRT_OK) fail_msg("%s", err.text);
    return b;
}

static void test_in_order(void **state) {
    (void)state;
    Dataset *d = data_open(folder);
    Loader *l = loader_make(
        (LoaderOptions){.data = d, .augment = &plain, .batch = BATCH, .threads = 2, .ahead = 2});
    for (int step = 0; step < 12; step++) {
        LoaderBatch b = next(l);
        assert_int_equal(b.step, step);
        for (int i = 0; i < BATCH; i++) {
            int sample = (step * BATCH + i) % COUNT;
            assert_int_equal(b.samples[i], sample);
            assert_int_equal(b.used[i], sample);
            assert_int_equal(dataset_label(d, b.used[i]), sample % 4);
            for (int k = 0; k < PIXELS; k++) {
                float want = ((float)(uint8_t)(sample + 5 * k) / 255.0f - mean[0]) / std[0];
                assert_true(b.images[i * PIXELS + k] == want);
            }
        }
        memset(b.images, 0x7f, BATCH * PIXELS * sizeof *b.images); // the caller may write
    }
    loader_close(l);
    dataset_close(d);
}

// Shuffled and augmented steps with any threads, from any step, equal those of one thread.
static void test_reproducible(void **state) {
    (void)state;
    enum { STEPS = 20 };
    static float images[STEPS][BATCH * PIXELS];
    static int64_t samples[STEPS][BATCH];
    Augment a = plain;
    a.crop = true, a.flip = 0.5, a.erase = 0.25;
    a.scale[0] = 0.3, a.scale[1] = 1, a.ratio[0] = 0.75, a.ratio[1] = 4.0 / 3;
    CnxrtError err = {0};
    assert_int_equal(augment_parse("rand-m9-mstd0.5-inc1", &a.policy, &err), CNXRT_OK);
    Dataset *d = data_open(folder);
    for (int threads = 1; threads <= 4; threads++) {
        int first = threads == 1 ? 0 : 3 * threads;
        Loader *l = loader_make((LoaderOptions){.data = d,
                                                .augment = &a,
                                                .batch = BATCH,
                                                .seed = 9,
                                                .shuffle = true,
                                                .step = first,
                                                .threads = threads,
                                                .ahead = threads});
        for (int step = first; step < STEPS; step++) {
            LoaderBatch b = next(l);
            assert_int_equal(b.step, step);
            if (threads == 1) {
                memcpy(images[step], b.images, sizeof images[step]);
                memcpy(samples[step], b.samples, sizeof samples[step]);
            }
            assert_memory_equal(images[step], b.images, sizeof images[step]);
            assert_memory_equal(samples[step], b.samples, sizeof samples[step]);
        }
        loader_close(l);
    }
    int seen[4 * COUNT] = {0};
    for (int q = 0; q < 4 * COUNT; q++) // every epoch: each sample once
        seen[q / COUNT * COUNT + samples[q / BATCH][q % BATCH]]++;
    for (int q = 0; q < 4 * COUNT; q++) assert_int_equal(seen[q], 1);
    int same = 0;
    for (int q = 0; q < COUNT; q++)
        same += samples[q / BATCH][q % BATCH] == samples[(q + COUNT) / BATCH][(q + COUNT) % BATCH];
    assert_true(same < COUNT / 2); // another order
    dataset_close(d);
}

static void test_close_early(void **state) {
    (void)state;
    Dataset *d = data_open(folder);
    for (int used = 0; used < 3; used++) {
        Loader *l = loader_make(
            (LoaderOptions){.data = d, .augment = &plain, .batch = 64, .threads = 3, .ahead = 1});
        for (int i = 0; i < used; i++) next(l);
        loader_close(l);
    }
    loader_close(NULL);
    dataset_close(d);
}

static void test_failures(void **state) {
    (void)state;
    char path[128];
    CnxrtError err = {0};
    Loader *l;
    LoaderBatch b;
    snprintf(path, sizeof path, "%s", at("bad"));
    assert_int_equal(mkdir(path, 0777), 0);
    put("bad/1.jpg", "x", 1);
    Dataset *d = data_open(path);
    l = loader_make(
        (LoaderOptions){.data = d, .augment = &plain, .batch = 3, .threads = 2, .ahead = 1});
    for (int again = 0; again < 2; again++) {
        assert_int_equal(loader_next(l, &b, &err), CNXRT_ERROR_FORMAT);
        assert_non_null(strstr(err.text, "1.jpg and 32 samples drawn in its place are corrupt"));
    }
    loader_close(l);
    LoaderOptions o = {.data = d, .augment = &plain, .batch = 0, .threads = 1, .ahead = 1};
    assert_int_equal(loader_open(&o, &l, &err), CNXRT_ERROR_ARGUMENT);
    assert_null(l);
    cnxrt_error_free(&err);
    dataset_close(d);
    remove(at("bad/1.jpg"));
    rmdir(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_reproducible),
        cmocka_unit_test(test_close_early),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
