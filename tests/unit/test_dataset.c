// Data sets of every kind, written to a temporary folder by the tests themselves: the same pictures
// as folder, archive, shards; IDX and CIFAR files of known bytes; damage of all sorts. With
// CNX_DATA set, the archives there.
#include "data_case.h"
#include <zlib.h>

#define IMAGES CNX_SOURCE_DIR "/tests/unit/data/images/"

// ---- writing ---------------------------------------------------------------------------------

static Bytes bytes_of(const char *fixture) {
    char path[512];
    Bytes b;
    CnxrtError err = {0};
    snprintf(path, sizeof path, IMAGES "%s", fixture);
    assert_int_equal(image_file_read(path, &b.bytes, &b.size, &err), CNXRT_OK);
    return b;
}

static void put_gz(const char *name, const void *bytes, size_t size) {
    gzFile f = gzopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, bytes, (unsigned)size), size);
    gzclose(f);
}

// ---- reading ---------------------------------------------------------------------------------

static void assert_split(const char *name, Split split, const char *found) {
    Dataset *d = open_with((DatasetOptions){.split = split, .whole = true}, name);
    if (found)
        assert_string_equal(dataset_split(d), found);
    else
        assert_null(dataset_split(d));
    dataset_close(d);
}

static void assert_sample(const Dataset *d, int64_t i, const char *name, int label) {
    char buf[300];
    assert_string_equal(dataset_sample_name(d, i, buf, sizeof buf), name);
    assert_int_equal(dataset_label(d, i), label);
}

static unsigned pixels_crc(const Dataset *d, int64_t i, int channels) {
    Image m;
    ImageOptions o = {.channels = channels};
    CnxrtError err = {0};
    if (dataset_decode(d, i, &o, &m, &err) != CNXRT_OK) fail_msg("sample: %s", err.text);
    unsigned crc = (unsigned)crc32(0, m.pixels, (uInt)(m.width * m.height * channels));
    image_free(&m);
    return crc;
}

static void assert_same(const Dataset *a, const Dataset *b) {
    assert_int_equal(dataset_count(a), dataset_count(b));
    assert_int_equal(dataset_classes(a), dataset_classes(b));
    for (int k = 0; k < dataset_classes(a); k++)
        assert_string_equal(dataset_class_name(a, k), dataset_class_name(b, k));
    for (int64_t i = 0; i < dataset_count(a); i++) {
        char name[300];
        assert_sample(b, i, dataset_sample_name(a, i, name, sizeof name), dataset_label(a, i));
        assert_int_equal(pixels_crc(a, i, 3), pixels_crc(b, i, 3));
    }
}

// ---- folders and archives --------------------------------------------------------------------

static const char *const tree[][2] = {
    {"train/dog/2.jpg", "exif1.jpg"},  {"train/cat/1.png", "grey.png"},
    {"train/cat/0.jpg", "grey.jpg"},   {"val/dog/x.jpg", "exif2.jpg"},
    {"train/emu/a/b.jpg", "cmyk.jpg"}, {"test/cat/y.jpg", "grey.jpg"},
    {"stray.jpg", "grey.jpg"},         {"train/README.txt", "cases.txt"},
};

static void tree_write(const char *name, const char *prefix) {
    Bytes tar = {0};
    char path[300];
    for (size_t i = 0; i < sizeof tree / sizeof *tree; i++) {
        Bytes b = bytes_of(tree[i][1]);
        snprintf(path, sizeof path, "%s/%s", name, tree[i][0]);
        put(path, b.bytes, b.size);
        snprintf(path, sizeof path, "%s%s", prefix, tree[i][0]);
        tar_add(&tar, path, b.bytes, b.size);
        free(b.bytes);
    }
    snprintf(path, sizeof path, "%s/.hidden.jpg", name);
    put_text(path, "x");
    tar_add(&tar, "train/cat/._0.jpg", "x", 1);
    tar_end(&tar);
    snprintf(path, sizeof path, "%s.tar", name);
    put(path, tar.bytes, tar.size);
    snprintf(path, sizeof path, "%s.tar.gz", name);
    put_gz(path, tar.bytes, tar.size);
    free(tar.bytes);
}

static void test_folder(void **state) {
    (void)state;
    Dataset *d = open_split("tree/", SPLIT_TRAIN);
    assert_int_equal(dataset_count(d), 4);
    assert_int_equal(dataset_labelled(d), 4);
    assert_int_equal(dataset_classes(d), 3);
    assert_string_equal(dataset_class_name(d, 2), "emu");
    assert_sample(d, 0, "train/cat/0.jpg", 0);
    assert_sample(d, 1, "train/cat/1.png", 0);
    assert_sample(d, 2, "train/dog/2.jpg", 1);
    assert_sample(d, 3, "train/emu/a/b.jpg", 2);
    Dataset *tar = open_split("tree.tar", SPLIT_TRAIN),
            *gz = open_split("tree.tar.gz", SPLIT_TRAIN);
    assert_same(d, tar);
    assert_same(d, gz);
    dataset_close(tar);
    dataset_close(gz);
    dataset_close(d);
    d = open_split("tree", SPLIT_VAL); // classes are those of all splits
    assert_int_equal(dataset_classes(d), 3);
    assert_int_equal(dataset_count(d), 1);
    assert_sample(d, 0, "val/dog/x.jpg", 1);
    dataset_close(d);
    d = open_split("tree", SPLIT_TEST);
    assert_sample(d, 0, "test/cat/y.jpg", 0);
    dataset_close(d);
    dataset_close(NULL);
    assert_split("tree", SPLIT_VAL, "val");
    assert_split("tree.tar", SPLIT_TEST, "test");
}

static void test_known_classes(void **state) {
    (void)state;
    static const char *const names[] = {"emu", "cat", "ant", "dog"};
    DatasetOptions o = {.split = SPLIT_TRAIN, .classes = names, .nclasses = 4};
    Dataset *d = open_with(o, "tree");
    assert_int_equal(dataset_classes(d), 4);
    assert_sample(d, 0, "train/cat/0.jpg", 1);
    assert_sample(d, 2, "train/dog/2.jpg", 3);
    dataset_close(d);
    o.nclasses = 3;
    assert_int_equal(assert_fails(o, "tree", "class dog is none of the 3 known classes"),
                     CNXRT_ERROR_MISMATCH);
}

static void test_plain_classes(void **state) {
    (void)state;
    Bytes b = bytes_of("grey.jpg");
    put("plain/data/b/1.jpg", b.bytes, b.size);
    put("plain/data/a/2.jpg", b.bytes, b.size);
    put("flat/2.jpg", b.bytes, b.size);
    free(b.bytes);
    Dataset *d = open_split("plain", SPLIT_TRAIN);
    assert_sample(d, 0, "data/a/2.jpg", 0);
    assert_sample(d, 1, "data/b/1.jpg", 1);
    dataset_close(d);
    DatasetOptions o = {.split = SPLIT_VAL};
    assert_int_equal(assert_fails(o, "plain", "there is no val split and no test"),
                     CNXRT_ERROR_MISMATCH);
    o.whole = true;
    d = open_with(o, "plain");
    assert_int_equal(dataset_count(d), 2);
    dataset_close(d);
    assert_split("plain", SPLIT_VAL, NULL);
    d = open_split("flat", SPLIT_TRAIN);
    assert_sample(d, 0, "2.jpg", -1);
    assert_int_equal(dataset_classes(d), 0);
    assert_int_equal(dataset_labelled(d), 0);
    dataset_close(d);
    o = (DatasetOptions){.label_fraction = 0.5};
    assert_fails(o, "flat", "samples without labels");
}

static void test_folder_errors(void **state) {
    (void)state;
    DatasetOptions o = {0};
    assert_fails(o, "nowhere", "No such file");
    put_text("text.jpg", "hello");
    assert_fails(o, "text.jpg", "expected a folder, a .tar");
    put_text("empty/README", "no pictures here");
    assert_fails(o, "empty", "1 files, but no .jpg or .png");
    put_text("python/data_batch_1", "pickle");
    assert_fails(o, "python", "take the binary version");
    Bytes b = bytes_of("grey.jpg");
    put("onlyval/val/a/1.jpg", b.bytes, b.size);
    free(b.bytes);
    assert_fails(o, "onlyval", "there is no train split");
    o.label_fraction = 1.5;
    assert_fails(o, "tree", "label fraction of 1.5");
    o.label_fraction = -1;
    assert_fails(o, "tree", "label fraction of -1");
}

static void test_archive_errors(void **state) {
    (void)state;
    DatasetOptions o = {.unpack_limit = 4096};
    assert_fails(o, "tree.tar.gz", "holds more than 0 MB");
    o.unpack_limit = 0;
    CnxrtError err = {0};
    Bytes b;
    assert_int_equal(image_file_read(at("tree.tar.gz"), &b.bytes, &b.size, &err), CNXRT_OK);
    put("cut.tar.gz", b.bytes, b.size / 2);
    assert_fails(o, "cut.tar.gz", "truncated gzip file after");
    b.bytes[b.size / 2] ^= 0x55;
    b.bytes[b.size / 2 + 1] ^= 0x55;
    put("bad.tar.gz", b.bytes, b.size);
    assert_fails(o, "bad.tar.gz", "bad.tar.gz: corrupt");
    free(b.bytes);
    assert_int_equal(image_file_read(at("tree.tar"), &b.bytes, &b.size, &err), CNXRT_OK);
    put("cut.tar", b.bytes, 700);
    assert_fails(o, "cut.tar", "it ends inside train/dog/2.jpg");
    b.bytes[3] ^= 1;
    put("sum.tar", b.bytes, b.size);
    assert_fails(o, "sum.tar", "bad header checksum at byte 0");
    free(b.bytes);
    setenv("TMPDIR", "/nonexistent/folder", 1);
    assert_fails(o, "tree.tar.gz", "cannot make a temporary file in TMPDIR");
    unsetenv("TMPDIR");
}

// ---- corrupt samples -------------------------------------------------------------------------

typedef struct {
    int calls;
    char names[300], reasons[300];
} Reports;

static void on_report(void *user, const char *sample, const char *reason) {
    Reports *r = user;
    r->calls++;
    snprintf(r->names, sizeof r->names, "%s", sample);
    snprintf(r->reasons, sizeof r->reasons, "%s", reason);
}

static void test_corrupt(void **state) {
    (void)state;
    Bytes b = bytes_of("grey.jpg");
    for (int i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "corrupt/c%d/%d.jpg", i % 2, i);
        if (i == 3)
            put_text(name, "no picture");
        else
            put(name, b.bytes, b.size);
    }
    free(b.bytes);
    Reports r = {0};
    DatasetOptions o = {.seed = 5, .report = on_report, .user = &r};
    ImageOptions rgb = {.channels = 3};
    int64_t first = -1;
    for (int round = 0; round < 2; round++) {
        Dataset *d = open_with(o, "corrupt");
        for (int again = 0; again < 3; again++) {
            Image m;
            int64_t used;
            CnxrtError err = {0};
            int64_t bad = 4; // c1/3.jpg
            assert_sample(d, bad, "c1/3.jpg", 1);
            assert_int_equal(dataset_take(d, bad, &rgb, &m, &used, &err), CNXRT_OK);
            assert_true(used != bad && used >= 0 && used < 6);
            if (first < 0) first = used;
            assert_int_equal(used, first);
            assert_int_equal(m.channels, 3);
            image_free(&m);
            assert_int_equal(dataset_take(d, 0, &rgb, &m, &used, &err), CNXRT_OK);
            assert_int_equal(used, 0);
            image_free(&m);
        }
        assert_int_equal(dataset_corrupt(d), 1);
        dataset_close(d);
    }
    assert_int_equal(r.calls, 2);
    assert_string_equal(r.names, "c1/3.jpg");
    assert_string_equal(r.reasons, "neither a JPEG nor a PNG file");
}

static void test_all_corrupt(void **state) {
    (void)state;
    put_text("bad/a/1.jpg", "x");
    put_text("bad/a/2.jpg", "");
    Dataset *d = open_split("bad", SPLIT_TRAIN);
    ImageOptions rgb = {.channels = 3};
    Image m;
    int64_t used;
    CnxrtError err = {0};
    assert_int_equal(dataset_take(d, 1, &rgb, &m, &used, &err), CNXRT_ERROR_FORMAT);
    assert_non_null(strstr(err.text, "a/2.jpg and 32 samples drawn in its place are corrupt"));
    assert_int_equal(dataset_corrupt(d), 2);
    cnxrt_error_free(&err);
    dataset_close(d);
}

// ---- subsets ---------------------------------------------------------------------------------

static void test_label_fraction(void **state) {
    (void)state;
    for (int i = 0; i < 230; i++) {
        char name[64]; // 200 of class a, 29 of b, 1 of c
        snprintf(name, sizeof name, "many/%c/%03d.jpg", i < 200 ? 'a' : i < 229 ? 'b' : 'c', i);
        put_text(name, "");
    }
    DatasetOptions o = {.label_fraction = 0.05, .seed = 1};
    int64_t kept[2][3] = {{0}}, same = 0;
    char names[10][64], name[64];
    for (int round = 0; round < 2; round++) {
        o.seed = (uint64_t)round;
        Dataset *d = open_with(o, "many"), *again = open_with(o, "many");
        assert_int_equal(dataset_count(d), dataset_count(again));
        assert_int_equal(dataset_classes(d), 3);
        for (int64_t i = 0; i < dataset_count(d); i++) {
            char other[64];
            assert_string_equal(dataset_sample_name(d, i, name, sizeof name),
                                dataset_sample_name(again, i, other, sizeof other));
            kept[round][dataset_label(d, i)]++;
            if (i < 10 && round == 0) memcpy(names[i], name, sizeof name);
            if (i < 10 && round == 1) same += strcmp(names[i], name) == 0;
        }
        assert_int_equal(kept[round][0], 10);
        assert_int_equal(kept[round][1], 1);
        assert_int_equal(kept[round][2], 1);
        dataset_close(d);
        dataset_close(again);
    }
    assert_true(same < 5); // another seed, another subset
    o.label_fraction = 1;
    Dataset *d = open_with(o, "many");
    assert_int_equal(dataset_count(d), 230);
    dataset_close(d);
}

// ---- webdataset ------------------------------------------------------------------------------

static void shard_write(const char *path, int first, int n, const char *label, bool json) {
    Bytes b = bytes_of("grey.jpg"), tar = {0};
    for (int i = first; i < first + n; i++) {
        char name[64], text[160];
        snprintf(name, sizeof name, "%04d.jpg", i);
        tar_add(&tar, name, b.bytes, b.size);
        snprintf(name, sizeof name, "%04d.%s", i, json ? "json" : "cls");
        if (label)
            snprintf(text, sizeof text, "%s", label);
        else
            snprintf(text, sizeof text, json ? "{\"a\": 1, \"label\": %d}" : "%d\n", i % 3);
        tar_add(&tar, name, text, strlen(text));
        snprintf(name, sizeof name, "%04d.seg.png", i);
        tar_add(&tar, name, "mask", 4);
    }
    tar_end(&tar);
    put(path, tar.bytes, tar.size);
    free(tar.bytes);
    free(b.bytes);
}

static void test_shards(void **state) {
    (void)state;
    shard_write("wds/x-train-000000.tar", 0, 4, NULL, false);
    shard_write("wds/x-train-000001.tar", 4, 3, NULL, true);
    shard_write("wds/x-val-000000.tar", 7, 2, NULL, false);
    Dataset *d = open_split("wds", SPLIT_TRAIN);
    assert_int_equal(dataset_count(d), 7);
    assert_int_equal(dataset_classes(d), 3);
    for (int i = 0; i < 7; i++) {
        char name[16];
        snprintf(name, sizeof name, "%04d.jpg", i);
        assert_sample(d, i, name, i % 3);
        assert_int_equal(pixels_crc(d, i, 1), pixels_crc(d, 0, 1));
    }
    dataset_close(d);
    d = open_split("wds", SPLIT_VAL);
    assert_int_equal(dataset_count(d), 2);
    assert_sample(d, 1, "0008.jpg", 2);
    dataset_close(d);
    d = open_split("wds/x-train-{000000..000001}.tar", SPLIT_TRAIN);
    assert_int_equal(dataset_count(d), 7);
    dataset_close(d);
    d = open_split("wds/x-train-000001.tar", SPLIT_TRAIN);
    assert_int_equal(dataset_count(d), 3);
    assert_sample(d, 0, "0004.jpg", 1);
    dataset_close(d);
}

static void test_shard_errors(void **state) {
    (void)state;
    DatasetOptions o = {0};
    shard_write("cls.tar", 0, 1, "1.5", false);
    assert_fails(o, "cls.tar",
                 "cls.tar: 0000.cls: expected the number (0 .. 16777215) or the name");
    shard_write("neg.tar", 0, 1, "{\"label\": -1}", true);
    assert_fails(o, "neg.tar",
                 "0000.json: expected the number (0 .. 16777215) or the name of a "
                 "class, got -1");
    shard_write("json.tar", 0, 1, "{\"label\":\n 1,}", true);
    assert_fails(o, "json.tar", "at byte 14");
    assert_fails(o, "wds/x-train-{000000..000002}.tar", "x-train-000002.tar: cannot open");
    assert_fails(o, "wds/x-train-{000002..000001}.tar", "No such file");
    static const char *const two[] = {"a", "b"};
    o.classes = two, o.nclasses = 2;
    assert_fails(o, "wds", "a label is 2; there are 2 known classes; it is one of 0002.jpg");
    shard_write("none.tar", 0, 2, "{\"caption\": \"x\"}", true);
    Dataset *d = open_split("none.tar", SPLIT_TRAIN);
    assert_sample(d, 1, "0001.jpg", -1);
    dataset_close(d);
}

// ---- IDX and CIFAR ---------------------------------------------------------------------------

static Bytes idx_images(int n, int h, int w) {
    Bytes b = {calloc(1, 16 + (size_t)(n * h * w)), 16 + (size_t)(n * h * w)};
    assert_non_null(b.bytes);
    memcpy(b.bytes,
           (uint8_t[]){0, 0, 8, 3, 0, 0, 0, (uint8_t)n, 0, 0, 0, (uint8_t)h, 0, 0, 0, (uint8_t)w},
           16);
    for (int i = 0; i < n * h * w; i++) b.bytes[16 + i] = (uint8_t)(i * 7);
    return b;
}

static void test_idx(void **state) {
    (void)state;
    uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 4, 0, 2},
            test_labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 5, 1};
    Bytes b = idx_images(3, 2, 3), t = idx_images(2, 2, 3);
    put("idx/train-images-idx3-ubyte", b.bytes, b.size);
    put("idx/train-labels-idx1-ubyte", labels, sizeof labels);
    put_gz("idx/t10k-images-idx3-ubyte.gz", t.bytes, t.size);
    put_gz("idx/t10k-labels-idx1-ubyte.gz", test_labels, sizeof test_labels);
    Dataset *d = open_split("idx", SPLIT_TRAIN);
    assert_int_equal(dataset_count(d), 3);
    assert_int_equal(dataset_classes(d), 6); // over both splits
    assert_string_equal(dataset_class_name(d, 5), "5");
    assert_sample(d, 0, "train-images-idx3-ubyte#0", 4);
    assert_sample(d, 2, "train-images-idx3-ubyte#2", 2);
    Image m;
    ImageOptions grey = {.channels = 1};
    CnxrtError err = {0};
    assert_int_equal(dataset_decode(d, 1, &grey, &m, &err), CNXRT_OK);
    assert_int_equal(m.width, 3);
    assert_int_equal(m.height, 2);
    assert_memory_equal(m.pixels, b.bytes + 16 + 6, 6);
    image_free(&m);
    dataset_close(d);
    d = open_split("idx", SPLIT_VAL);
    assert_int_equal(dataset_count(d), 2);
    assert_sample(d, 0, "t10k-images-idx3-ubyte.gz#0", 5);
    dataset_close(d);
    d = open_split("idx/t10k-images-idx3-ubyte.gz", SPLIT_TRAIN); // one file is taken whole
    assert_int_equal(dataset_count(d), 2);
    assert_sample(d, 1, "t10k-images-idx3-ubyte.gz#1", 1);
    assert_int_equal(dataset_classes(d), 6);
    dataset_close(d);
    free(b.bytes);
    free(t.bytes);
}

static void test_idx_errors(void **state) {
    (void)state;
    DatasetOptions o = {0};
    Bytes b = idx_images(3, 2, 3);
    put("idx2/train-images-idx3-ubyte", b.bytes, b.size - 1);
    assert_fails(o, "idx2", "shorter than its header says (3 pictures of 3x2 in 33 bytes");
    uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 4, 0};
    put("idx2/train-images-idx3-ubyte", b.bytes, b.size);
    put("idx2/train-labels-idx1-ubyte", labels, sizeof labels);
    assert_fails(o, "idx2", "another number of labels than pictures");
    put("idx2/train-labels-idx1-ubyte", labels, sizeof labels - 1);
    assert_fails(o, "idx2", "no IDX file of labels: 9 bytes, 2 labels");
    put("idx2/other-train-images-idx3-ubyte", b.bytes, b.size);
    assert_fails(o, "idx2", "both pictures of the split");
    b.bytes[2] = 13;
    put("idx3/train-images-idx3-ubyte", b.bytes, b.size);
    assert_fails(o, "idx3", "no IDX file of 8-bit pictures");
    b.bytes[2] = 8, b.bytes[11] = 0;
    put("idx3/train-images-idx3-ubyte", b.bytes, b.size);
    assert_fails(o, "idx3", "impossible picture size");
    memset(b.bytes + 4, 0xff, 12);
    put("idx3/train-images-idx3-ubyte", b.bytes, b.size);
    assert_fails(o, "idx3", "impossible picture size");
    memset(b.bytes + 8, 0, 8);
    b.bytes[11] = b.bytes[15] = 1;
    put("idx3/train-images-idx3-ubyte", b.bytes, b.size);
    assert_fails(o, "idx3", "shorter than its header says");
    o.split = SPLIT_VAL;
    assert_fails(o, "idx3", "there is no val split and no test");
    free(b.bytes);
}

static Bytes cifar_records(int n, int labels, int first) {
    size_t record = (size_t)labels + 3072;
    Bytes b = {calloc((size_t)n, record), (size_t)n * record};
    assert_non_null(b.bytes);
    for (int i = 0; i < n; i++) {
        uint8_t *r = b.bytes + (size_t)i * record;
        r[labels - 1] = (uint8_t)(first + i);
        for (int k = 0; k < 3072; k++) r[labels + k] = (uint8_t)(k / 1024 * 50 + k % 32 + i);
    }
    return b;
}

static void test_cifar(void **state) {
    (void)state;
    Bytes b = cifar_records(2, 1, 3), t = cifar_records(1, 1, 9), tar = {0};
    static const char names[] = "a\nb\nc\ncat\ne\nf\ng\nh\ni\ntruck\n\n";
    tar_add(&tar, "cifar-10-batches-bin/data_batch_2.bin", b.bytes, b.size);
    tar_add(&tar, "cifar-10-batches-bin/data_batch_1.bin", b.bytes, b.size);
    tar_add(&tar, "cifar-10-batches-bin/test_batch.bin", t.bytes, t.size);
    tar_add(&tar, "cifar-10-batches-bin/batches.meta.txt", names, strlen(names));
    tar_end(&tar);
    put_gz("cifar-10-binary.tar.gz", tar.bytes, tar.size);
    Dataset *d = open_split("cifar-10-binary.tar.gz", SPLIT_TRAIN);
    assert_int_equal(dataset_count(d), 4);
    assert_int_equal(dataset_classes(d), 10);
    assert_string_equal(dataset_class_name(d, 3), "cat");
    assert_sample(d, 0, "cifar-10-batches-bin/data_batch_1.bin#0", 3);
    assert_sample(d, 3, "cifar-10-batches-bin/data_batch_2.bin#1", 4);
    Image m;
    ImageOptions rgb = {.channels = 3};
    CnxrtError err = {0};
    assert_int_equal(dataset_decode(d, 1, &rgb, &m, &err), CNXRT_OK);
    assert_int_equal(m.width, 32);
    assert_memory_equal(m.pixels + 3 * 37, ((uint8_t[]){6, 56, 106}), 3);
    image_free(&m);
    dataset_close(d);
    d = open_split("cifar-10-binary.tar.gz", SPLIT_VAL);
    assert_sample(d, 0, "cifar-10-batches-bin/test_batch.bin#0", 9);
    dataset_close(d);
    free(tar.bytes);
    Bytes h = cifar_records(3, 2, 97);
    put("cifar100/train.bin", h.bytes, h.size);
    d = open_split("cifar100", SPLIT_TRAIN);
    assert_int_equal(dataset_classes(d), 100);
    assert_sample(d, 2, "train.bin#2", 99);
    dataset_close(d);
    DatasetOptions o = {0};
    h.bytes[1] = 100;
    put("cifar100/train.bin", h.bytes, h.size);
    assert_fails(o, "cifar100", "record 0 has label 100; CIFAR-100 ends at 99");
    put("cifar100/train.bin", h.bytes, h.size - 1);
    assert_fails(o, "cifar100", "no multiple of CIFAR-100's 3074 a record");
    put("mixed/train.bin", h.bytes, h.size);
    put("mixed/data_batch_1.bin", b.bytes, b.size);
    assert_fails(o, "mixed", "files of CIFAR-10 and of CIFAR-100");
    put("names/data_batch_1.bin", b.bytes, b.size);
    put_text("names/batches.meta.txt", "a\nb\n");
    assert_fails(o, "names", "batches.meta.txt has 2 names; CIFAR-10 has 10");
    static const char *const two[] = {"a", "b"};
    o.classes = two, o.nclasses = 2;
    assert_fails(o, "names", "a label is 9; there are 2 known");
    free(b.bytes);
    free(t.bytes);
    free(h.bytes);
}

// Damaged archives and files of every kind: whatever happens, nothing is read out of bounds.
static void test_damage(void **state) {
    (void)state;
    static const char *const files[] = {"tree.tar", "wds/x-train-000001.tar", "cifar100/train.bin",
                                        "idx/train-images-idx3-ubyte", "tree.tar.gz"};
    static const char *const outs[] = {"d.tar", "d.tar", "dd/train.bin",
                                       "de/train-images-idx3-ubyte", "d.tar.gz"};
    uint32_t random = 12345;
    for (int i = 0; i < 400; i++) {
        Bytes b;
        CnxrtError err = {0};
        assert_int_equal(image_file_read(at(files[i % 5]), &b.bytes, &b.size, &err), CNXRT_OK);
        for (int k = 0; k < 1 + i % 7; k++) {
            random = random * 1664525u + 1013904223u;
            size_t limit = i % 2 ? b.size : b.size < 1200 ? b.size : 1200;
            b.bytes[(random >> 8) % limit] = (uint8_t)(random >> 3);
        }
        put(outs[i % 5], b.bytes, i % 11 ? b.size : b.size * (random >> 16) >> 16);
        char path[600];
        snprintf(path, sizeof path, "%s", at(outs[i % 5]));
        if (i % 5 == 2 || i % 5 == 3) *strrchr(path, '/') = 0;
        DatasetOptions o = {.path = path, .unpack_limit = 1 << 24};
        Dataset *d;
        if (dataset_open(&o, &d, &err) == CNXRT_OK) {
            ImageOptions rgb = {.channels = 3, .max_pixels = 1 << 22};
            for (int64_t k = 0; k < dataset_count(d) && k < 8; k++) {
                Image m;
                if (dataset_decode(d, k, &rgb, &m, &err) == CNXRT_OK) image_free(&m);
            }
            dataset_close(d);
        } else {
            assert_non_null(err.text);
        }
        cnxrt_error_free(&err);
        free(b.bytes);
    }
}

// ---- real data -------------------------------------------------------------------------------

static void test_archives(void **state) {
    (void)state;
    const char *data = getenv("CNX_DATA");
    if (!data) {
        print_message("CNX_DATA is not set: the archives there are not checked\n");
        skip();
    }
    static const struct {
        const char *file;
        Split split;
        int count, classes;
    } cases[] = {{"cifar10.tar.gz", SPLIT_TRAIN, 50000, 10},
                 {"cifar10.tar.gz", SPLIT_VAL, 10000, 10},
                 {"tiny-imagenet-200c.tar.gz", SPLIT_TRAIN, 16000, 200},
                 {"tiny-imagenet-200c.tar.gz", SPLIT_VAL, 4000, 200}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[1024];
        Dataset *d;
        CnxrtError err = {0};
        snprintf(path, sizeof path, "%s/%s", data, cases[i].file);
        DatasetOptions o = {.path = path, .split = cases[i].split};
        if (dataset_open(&o, &d, &err) != CNXRT_OK) fail_msg("%s", err.text);
        assert_int_equal(dataset_count(d), cases[i].count);
        assert_int_equal(dataset_labelled(d), cases[i].count);
        assert_int_equal(dataset_classes(d), cases[i].classes);
        for (int64_t k = 0; k < cases[i].count; k += 997) pixels_crc(d, k, 3);
        dataset_close(d);
    }
}

static void test_fashion(void **state) {
    (void)state;
    const char *path = "/usr/share/datasets/fashion-mnist";
    if (access(path, R_OK) != 0) {
        print_message("dataset-fashion-mnist is not installed: not checked\n");
        skip();
    }
    for (int split = 0; split < 2; split++) {
        Dataset *d;
        CnxrtError err = {0};
        DatasetOptions o = {.path = path, .split = (Split)split};
        if (dataset_open(&o, &d, &err) != CNXRT_OK) fail_msg("%s", err.text);
        assert_int_equal(dataset_count(d), split ? 10000 : 60000);
        assert_int_equal(dataset_classes(d), 10);
        assert_int_equal(dataset_label(d, 0), 9);
        dataset_close(d);
    }
}

static int setup(void **state) {
    if (data_setup(state) != 0) return -1;
    tree_write("tree", "");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_known_classes),
        cmocka_unit_test(test_plain_classes),
        cmocka_unit_test(test_folder_errors),
        cmocka_unit_test(test_archive_errors),
        cmocka_unit_test(test_corrupt),
        cmocka_unit_test(test_all_corrupt),
        cmocka_unit_test(test_label_fraction),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_shard_errors),
        cmocka_unit_test(test_idx),
        cmocka_unit_test(test_idx_errors),
        cmocka_unit_test(test_cifar),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_archives),
        cmocka_unit_test(test_fashion),
    };
    return cmocka_run_group_tests(tests, setup, data_teardown);
}
