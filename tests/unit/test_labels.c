// Labels of data sets as they are written: numbers, names, sets, in shards and metadata files; what
// is wrong with them; subsets of sets; and how scores of sets are rated.
#include "data_case.h"
#include "runtime/cnxrt_model.h"
#include "runtime/set_scores.h"
#include <math.h>

// ---- shards ----------------------------------------------------------------------------------

// One sample a text: empty pictures x0.jpg, x1.jpg, ... with x0.cls or x0.json.
static void shard(const char *name, const char *ext, const char *const *texts, int n) {
    Bytes tar = {0};
    for (int i = 0; i < n; i++) {
        char member[32];
        snprintf(member, sizeof member, "x%d.jpg", i);
        tar_add(&tar, member, "", 0);
        snprintf(member, sizeof member, "x%d.%s", i, ext);
        tar_add(&tar, member, texts[i], strlen(texts[i]));
    }
    tar_end(&tar);
    put(name, tar.bytes, tar.size);
    free(tar.bytes);
}

// want: classes as text, "0,2"; "-": no label.
static void assert_labels(const Dataset *d, int64_t i, const char *want) {
    char text[256] = "";
    LabelSet s = dataset_labels(d, i);
    for (int32_t k = 0; k < s.count; k++) {
        assert_true(label_set_has(s, s.ids[k]));
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d", k ? "," : "", s.ids[k]);
    }
    assert_string_equal(s.count < 0 ? "-" : text, want);
    assert_int_equal(dataset_label(d, i), s.count == 1 ? s.ids[0] : -1);
}

static void test_numbers(void **state) {
    (void)state;
    static const char *const texts[] = {"3\n", "5, 1", "0 2\t4\n", "1\n2\n", "", " \n"};
    shard("numbers.tar", "cls", texts, 6);
    Dataset *d = open_split("numbers.tar", SPLIT_TRAIN);
    assert_int_equal(dataset_count(d), 6);
    assert_int_equal(dataset_classes(d), 6);
    assert_int_equal(dataset_labelled(d), 6);
    static const char *const want[] = {"3", "1,5", "0,2,4", "1,2", "", ""};
    for (int i = 0; i < 6; i++) assert_labels(d, i, want[i]);
    assert_true(dataset_sets(d));
    assert_int_equal(dataset_find_set(d), 1);
    dataset_close(d);
    d = open_with((DatasetOptions){.min_classes = 9}, "numbers.tar");
    assert_int_equal(dataset_classes(d), 9);
    assert_string_equal(dataset_class_name(d, 8), "8");
    dataset_close(d);
    shard("single.tar", "cls", texts, 1);
    d = open_split("single.tar", SPLIT_TRAIN);
    assert_false(dataset_sets(d));
    assert_int_equal(dataset_find_set(d), -1);
    dataset_close(d);
}

static void test_names(void **state) {
    (void)state;
    static const char *const texts[] = {"traffic light, dog\r\n", "dog\nant\n", "zebra", "7up,e"};
    shard("names.tar", "cls", texts, 4);
    Dataset *d = open_split("names.tar", SPLIT_TRAIN);
    static const char *const names[] = {"7up", "ant", "dog", "e", "traffic light", "zebra"};
    static const char *const want[] = {"2,4", "1,2", "5", "0,3"};
    assert_int_equal(dataset_classes(d), 6);
    for (int k = 0; k < 6; k++) assert_string_equal(dataset_class_name(d, k), names[k]);
    for (int i = 0; i < 4; i++) assert_labels(d, i, want[i]);
    dataset_close(d);
    // Known classes keep their order.
    static const char *const known[] = {"zebra", "e", "traffic light", "dog", "cow", "ant", "7up"};
    d = open_with((DatasetOptions){.classes = known, .nclasses = 7}, "names.tar");
    assert_int_equal(dataset_classes(d), 7);
    assert_labels(d, 0, "2,3");
    assert_labels(d, 3, "1,6");
    dataset_close(d);
}

static void test_json(void **state) {
    (void)state;
    static const char *const texts[] = {"{\"label\": 2}",
                                        "{\"labels\": [1, 0]}",
                                        "{\"labels\": []}",
                                        "{\"caption\": \"x\"}",
                                        "{\"label\": \"3\"}",
                                        "{\"label\": 1, \"labels\": [4]}",
                                        "{\"labels\": null, \"cls\": 0}"};
    shard("json.tar", "json", texts, 7);
    Dataset *d = open_split("json.tar", SPLIT_TRAIN);
    static const char *const want[] = {"2", "0,1", "", "-", "3", "4", "0"};
    for (int i = 0; i < 7; i++) assert_labels(d, i, want[i]);
    assert_int_equal(dataset_labelled(d), 6);
    dataset_close(d);
    // A list of one is a set, though it is a label, too.
    static const char *const lists[] = {"{\"labels\": [\"a b\"]}", "{\"labels\": [\"c\"]}"};
    shard("lists.tar", "json", lists, 2);
    d = open_split("lists.tar", SPLIT_TRAIN);
    assert_string_equal(dataset_class_name(d, 0), "a b");
    assert_labels(d, 1, "1");
    assert_true(dataset_sets(d));
    assert_int_equal(dataset_find_set(d), -1);
    dataset_close(d);
}

static void test_label_errors(void **state) {
    (void)state;
    static const char *const known[] = {"ant", "bee"};
    static const struct {
        const char *ext, *text[2], *error;
        bool known;
    } cases[] = {
        {"cls", {"1", "3 3"}, "x1.jpg has class 3 twice", false},
        {"cls", {"a,b", "b , b"}, "x1.jpg has class b twice", false},
        {"cls", {"1", "bee"}, "some labels are numbers (1) and some names (bee)", false},
        {"cls", {"1", "1,2"}, "a label is 2; there are 2 known classes; it is one of x1.jpg", true},
        {"cls",
         {"bee", "ant,cat"},
         "class cat is none of the 2 known classes (ant, ...); it is one of x1.jpg",
         true},
        {"cls",
         {"1", "-2"},
         "x1.cls: expected the number (0 .. 16777215) or the name of a class",
         false},
        {"cls", {"1", "99999999"}, "got 99999999", false},
        {"json", {"{}", "{\"labels\": [1, 1]}"}, "x1.jpg has class 1 twice", false},
        {"json", {"{}", "{\"labels\": [0, 0, 1, 0]}"}, "x1.jpg has class 0 twice", false},
        {"json",
         {"{}", "{\"label\": 1.5}"},
         "x1.json: expected the number or the name of a class",
         false},
        {"json", {"{}", "{\"labels\": [[1]]}"}, "x1.json: expected the number or the name", false},
        {"json", {"{}", "{\"labels\": [\"\"]}"}, "x1.json: expected the number or the name", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        DatasetOptions o = {0};
        if (cases[i].known) o.classes = known, o.nclasses = 2;
        shard("bad.tar", cases[i].ext, cases[i].text, 2);
        assert_fails(o, "bad.tar", cases[i].error);
    }
}

// ---- metadata --------------------------------------------------------------------------------

static void test_metadata_jsonl(void **state) {
    (void)state;
    put_text("hf/train/a.jpg", "");
    put_text("hf/train/sub/b.jpg", "");
    put_text("hf/train/c.jpg", "");
    put_text("hf/test/a.jpg", "");
    put_text("hf/train/metadata.jsonl",
             "{\"file_name\": \"sub/b.jpg\", \"labels\": [\"cat\", \"dog\"]}\n"
             "\n{\"file_name\": \"./a.jpg\", \"labels\": [\"dog\"]}\n");
    put_text("hf/test/metadata.jsonl", "{\"file_name\": \"a.jpg\", \"labels\": [\"ant\"]}");
    Dataset *d = open_split("hf", SPLIT_TRAIN);
    assert_string_equal(dataset_split(d), "train");
    assert_int_equal(dataset_count(d), 3);
    assert_int_equal(dataset_classes(d), 3); // of all splits
    assert_labels(d, 0, "2");
    assert_labels(d, 1, "-"); // no row
    assert_labels(d, 2, "1,2");
    dataset_close(d);
    d = open_split("hf", SPLIT_VAL);
    assert_int_equal(dataset_count(d), 1);
    assert_labels(d, 0, "0");
    dataset_close(d);
}

static void test_metadata_csv(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "csv/%d.png", i);
        put_text(name, "");
    }
    put_text("csv/metadata.csv", "\xef\xbb\xbf"
                                 "text,file_name,labels\r\n"
                                 "\"a, \"\"b\"\"\nc\",0.png,\"1,3\"\r\n"
                                 "x,1.png,\r\n"
                                 "x,3.png,2 0\r\n"
                                 "x,2.png,1");
    Dataset *d = open_split("csv", SPLIT_TRAIN);
    static const char *const want[] = {"1,3", "", "1", "0,2"};
    assert_int_equal(dataset_classes(d), 4);
    for (int i = 0; i < 4; i++) assert_labels(d, i, want[i]);
    dataset_close(d);
    put_text("csv/metadata.csv", "file_name,labels\n\"0.png\",1\n\n9.png,1\n");
    assert_fails((DatasetOptions){0}, "csv", "metadata.csv: line 4: there is no file 9.png");
    put_text("csv/metadata.csv", "name,labels\n0.png,1\n");
    assert_fails((DatasetOptions){0}, "csv", "line 1: there is no column file_name");
    put_text("csv/metadata.csv", "labels,file_name\n1\n");
    assert_fails((DatasetOptions){0}, "csv", "line 2: there is no file_name");
    put_text("csv/metadata.csv", "file_name,labels\n0.png,1\n1.png,1 1\n");
    assert_fails((DatasetOptions){0}, "csv", "1.png has class 1 twice");
    remove(at("csv/metadata.csv"));
    put_text("csv/metadata.jsonl", "{\"file_name\": \"0.png\"\n");
    assert_fails((DatasetOptions){0}, "csv", "metadata.jsonl: line 1: ");
    put_text("csv/metadata.jsonl", "{\"label\": 1}\n");
    assert_fails((DatasetOptions){0}, "csv", "metadata.jsonl: line 1: there is no file_name");
}

// Metadata without labels leave the class folders their meaning.
static void test_metadata_without_labels(void **state) {
    (void)state;
    put_text("plain/cat/a.jpg", "");
    put_text("plain/dog/a.jpg", "");
    put_text("plain/metadata.csv", "file_name,text\ncat/a.jpg,hello\n");
    Dataset *d = open_split("plain", SPLIT_TRAIN);
    assert_int_equal(dataset_classes(d), 2);
    assert_labels(d, 1, "1");
    assert_false(dataset_sets(d));
    dataset_close(d);
    // So do tables of something else.
    put_text("plain/metadata.csv", "id,camera\n1,Leica\n");
    put_text("plain/metadata.jsonl", "{\"licence\": \"CC0\"}\n[1]\n");
    d = open_split("plain", SPLIT_TRAIN);
    assert_int_equal(dataset_classes(d), 2);
    dataset_close(d);
}

// ---- subsets ---------------------------------------------------------------------------------

// 100 samples of class 0, of which 20 have class 1, too, and 4 of these class 2; 10 of no class.
static void test_fraction_of_sets(void **state) {
    (void)state;
    const char *texts[110];
    for (int i = 0; i < 110; i++)
        texts[i] = i >= 100 ? "" : i % 25 == 0 ? "0,1,2" : i % 5 == 0 ? "1,0" : "0";
    shard("fraction.tar", "cls", texts, 110);
    DatasetOptions o = {.label_fraction = 0.1, .seed = 3};
    Dataset *d = open_with(o, "fraction.tar");
    int of[4] = {0}, none = 0;
    for (int64_t i = 0; i < dataset_count(d); i++) {
        LabelSet s = dataset_labels(d, i);
        for (int k = 0; k < 3; k++) of[k] += label_set_has(s, k);
        none += s.count == 0;
    }
    assert_int_equal(of[2], 1);         // of 4: at least one
    assert_int_equal(of[1], 1 + 2);     // and a tenth of the 16 whose rarest class is 1
    assert_int_equal(of[0], 1 + 2 + 8); // and of the 80 of class 0 alone
    assert_int_equal(none, 1);
    dataset_close(d);
}

// ---- scores ----------------------------------------------------------------------------------

// Values of scikit-learn's average_precision_score and f1_score.
static void test_set_scores(void **state) {
    (void)state;
    static const float logits[5][3] = {
        {2, -1, 0.5f}, {1, 0.25f, 0.5f}, {-1, 3, 0.5f}, {0.5f, -2, 0.5f}, {1, 0, -4}};
    static const int32_t zero[] = {0}, both[] = {0, 1}, one[] = {1};
    const LabelSet sets[5] = {{zero, 1}, {one, 1}, {both, 2}, {NULL, 0}, {zero, 1}};
    SetScores s;
    assert_true(set_scores_open(&s, 6, 3));
    assert_true(isnan(set_scores_map(&s)));
    for (int i = 0; i < 5; i++) set_scores_add(&s, logits[i], sets[i]);
    set_scores_add(&s, logits[0], (LabelSet){NULL, -1}); // unlabelled
    assert_int_equal(s.n, 5);
    // class 0: 1 * 1/3 + 2/3 * 1/3 + 3/5 * 1/3; class 1: 1; class 2 does not occur
    assert_true(fabs(set_scores_map(&s) - (1.0 / 3 * (1 + 2.0 / 3 + 3.0 / 5) + 1) / 2) < 1e-12);
    SetRates r = set_scores_rates(&s, 0.5); // 11 found, 5 right, 4 of these found
    assert_true(fabs(r.precision - 4.0 / 11) < 1e-12 && fabs(r.recall - 0.8) < 1e-12);
    assert_true(fabs(r.f1 - 0.5) < 1e-12);
    r = set_scores_rates(&s, 0.9);
    assert_true(r.precision == 1 && fabs(r.recall - 0.2) < 1e-12);
    set_scores_close(&s);
    double want = (log1p(exp(2)) - 2 + log1p(exp(-1)) + log1p(exp(0.5))) / 3;
    assert_true(fabs(set_loss(logits[0], 3, sets[0]) - want) < 1e-12);
}

static void test_check(void **state) {
    (void)state;
    static const char *const texts[] = {"1", "0 1"};
    shard("check.tar", "cls", texts, 2);
    Dataset *d = open_split("check.tar", SPLIT_TRAIN);
    static const CnxrtRecipe recipes[] = {{.name = "train"}, {.name = "short"}};
    CnxrtModel m = {.loss = CNXRT_LOSS_SOFTMAX, .recipes = recipes, .nrecipes = 2};
    CnxrtError err = {0};
    assert_int_equal(sets_check(&m, d, &err), CNXRT_ERROR_MISMATCH);
    assert_non_null(strstr(err.text, "x1.jpg has 2 labels"));
    assert_non_null(strstr(err.text, "--set recipes.train.loss=bce --set recipes.short.loss=bce"));
    cnxrt_error_free(&err);
    m.loss = CNXRT_LOSS_BCE;
    assert_int_equal(sets_check(&m, d, &err), CNXRT_OK);
    dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_label_errors),
        cmocka_unit_test(test_metadata_jsonl),
        cmocka_unit_test(test_metadata_csv),
        cmocka_unit_test(test_metadata_without_labels),
        cmocka_unit_test(test_fraction_of_sets),
        cmocka_unit_test(test_set_scores),
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, data_setup, data_teardown);
}
