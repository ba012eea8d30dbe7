// Lists of pictures: folders, archives, IDX files, what cannot be read; and what reports print.
#include "image_cases.h"
#include "runtime/image_source.h"
#include "runtime/report.h"
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define ARCHIVES CNX_SOURCE_DIR "/tests/fuzz/corpus/image/"

static ImageList list_of(const char *path, int64_t limit) {
    ImageList l = {0};
    CnxrtError err = {0};
    assert_int_equal(image_list_add(&l, path, limit, &err), CNXRT_OK);
    assert_null(err.text);
    return l;
}

static void expect_problem(const char *path, const char *text) {
    ImageList l = list_of(path, 0);
    assert_true(l.count >= 1);
    const ImageItem *item = &l.items[l.count - 1];
    if (!item->problem || !strstr(item->problem, text))
        fail_msg("%s: \"%s\" lacks \"%s\"", path, item->problem ? item->problem : "", text);
    ImageReader r = {0};
    uint8_t *bytes;
    size_t size;
    CnxrtError err = {0};
    assert_int_not_equal(image_reader_read(&r, item, &bytes, &size, &err), CNXRT_OK);
    assert_string_equal(err.text, item->problem);
    cnxrt_error_free(&err);
    image_list_free(&l);
}

static void put(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

// A fresh folder as the current one; removed by the next call and at the end.
static int enter_folder(void **state) {
    char *dir = strdup("/tmp/cnx-source-XXXXXX");
    *state = dir;
    return dir && mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int leave_folder(void **state) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    int status = chdir("/") == 0 ? system(command) : -1;
    free(*state);
    return status;
}

static void test_archives(void **state) {
    (void)state;
    static const char *const names[] = {"ustar.tar", "pax.tar", "gnu.tar"};
    for (int k = 0; k < 3; k++) {
        char path[512];
        snprintf(path, sizeof path, ARCHIVES "%s", names[k]);
        ImageList l = list_of(path, 0);
        assert_int_equal(l.count, 3); // no text, no hidden file, no link
        assert_string_equal(l.items[0].inside, "./cats/one.png");
        assert_int_equal(strlen(l.items[1].inside), 6 * 26 + strlen("picture.png"));
        assert_string_equal(l.items[2].inside, "dogs/broken.jpg");
        ImageReader r = {0};
        CnxrtError err = {0};
        Image image;
        uint8_t *bytes;
        size_t size;
        assert_int_equal(image_reader_read(&r, &l.items[1], &bytes, &size, &err), CNXRT_OK);
        assert_int_equal(image_item_decode(&l.items[1], bytes, size, 3, &image, &err), CNXRT_OK);
        assert_int_equal(image.width, 1);
        image_free(&image);
        free(bytes);
        assert_int_equal(image_reader_read(&r, &l.items[2], &bytes, &size, &err), CNXRT_OK);
        assert_int_equal(size, 3);
        free(bytes);
        image_reader_close(&r);
        image_list_free(&l);
    }
}

static void test_gzip_and_damage(void **state) {
    (void)state;
    uint8_t *tar;
    size_t n;
    assert_int_equal(image_file_read(ARCHIVES "ustar.tar", &tar, &n, NULL), CNXRT_OK);
    gzFile f = gzopen("a.tar.gz", "wb");
    assert_int_equal(gzwrite(f, tar, (unsigned)n), n);
    gzclose(f);
    ImageList l = list_of("a.tar.gz", 0);
    assert_int_equal(l.count, 3);
    assert_string_equal(l.items[0].name, "a.tar.gz/./cats/one.png");
    image_list_free(&l);
    l = list_of("a.tar.gz", 2);
    assert_int_equal(l.count, 2);
    image_list_free(&l);
    tar[700] ^= 1; // inside the first member's data: nothing to notice here
    tar[1024 + 5] ^= 1;
    put("bad.tar", tar, n);
    expect_problem("bad.tar", "corrupt archive: a bad header checksum at byte 1024");
    put("short.tar", tar, 100);
    expect_problem("short.tar", "corrupt archive: a truncated header");
    put("none.tar", "", 0);
    expect_problem("none.tar", "an archive without");
    free(tar);
}

static void test_folders(void **state) {
    (void)state;
    mkdir("pictures", 0700);
    mkdir("pictures/b", 0700);
    mkdir("pictures/.hidden", 0700);
    put("pictures/b/2.PNG", "x", 1);
    put("pictures/b/1.jpeg", "x", 1);
    put("pictures/a.jpg", "x", 1);
    put("pictures/notes.txt", "x", 1);
    put("pictures/.c.jpg", "x", 1);
    put("pictures/.hidden/d.jpg", "x", 1);
    assert_int_equal(symlink("..", "pictures/loop"), 0);
    ImageList l = list_of("pictures/", 0);
    assert_int_equal(l.count, 3);
    assert_string_equal(l.items[0].name, "pictures/a.jpg");
    assert_string_equal(l.items[1].inside, "b/1.jpeg");
    assert_string_equal(l.items[2].inside, "b/2.PNG");
    image_list_free(&l);
    l = list_of("pictures", 1);
    assert_int_equal(l.count, 1);
    image_list_free(&l);
    expect_problem("pictures/.hidden/d.jpg/x", "Not a directory");
    expect_problem("absent", "No such file");
    mkdir("empty", 0700);
    expect_problem("empty", "a folder without");
}

static void test_idx(void **state) {
    (void)state;
    uint8_t idx[16 + 12] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3};
    for (int i = 0; i < 12; i++) idx[16 + i] = (uint8_t)(20 * i);
    gzFile f = gzopen("pictures-idx3-ubyte.gz", "wb");
    assert_int_equal(gzwrite(f, idx, sizeof idx), sizeof idx);
    gzclose(f);
    ImageList l = list_of("pictures-idx3-ubyte.gz", 0);
    assert_int_equal(l.count, 2);
    assert_string_equal(l.items[1].name, "pictures-idx3-ubyte.gz#1");
    ImageReader r = {0};
    CnxrtError err = {0};
    Image image;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(image_reader_read(&r, &l.items[1], &bytes, &size, &err), CNXRT_OK);
    assert_int_equal(image_item_decode(&l.items[1], bytes, size, 3, &image, &err), CNXRT_OK);
    assert_int_equal(image.width, 3);
    assert_int_equal(image.height, 2);
    for (int i = 0; i < 18; i++) assert_int_equal(image.pixels[i], 20 * (6 + i / 3));
    image_free(&image);
    free(bytes);
    image_reader_close(&r);
    image_list_free(&l);
    put("short-idx3-ubyte", idx, sizeof idx - 1);
    l = list_of("short-idx3-ubyte", 0);
    assert_int_equal(image_reader_read(&r, &l.items[1], &bytes, &size, &err), CNXRT_ERROR_FORMAT);
    assert_non_null(strstr(err.text, "truncated"));
    cnxrt_error_free(&err);
    image_reader_close(&r);
    image_list_free(&l);
    idx[3] = 1;
    put("labels-idx1-ubyte", idx, sizeof idx);
    expect_problem("labels-idx1-ubyte", "not of pictures");
    idx[3] = 3, idx[4] = 255;
    put("many-idx3-ubyte", idx, sizeof idx);
    expect_problem("many-idx3-ubyte", "shorter than its header says");
    idx[4] = 0, idx[8] = 255;
    put("large-idx3-ubyte", idx, sizeof idx);
    expect_problem("large-idx3-ubyte", "impossible picture size");
}

static void test_reports(void **state) {
    (void)state;
    char buf[32];
    assert_string_equal(report_count(1234567, buf), "1,234,567");
    assert_string_equal(report_count(-123, buf), "-123");
    assert_string_equal(report_count(0, buf), "0");
    json_t *j = report_json_text("a\xff\xc3\xa9\xe2\x82\xed\xa0\x80z");
    assert_non_null(j);
    const char *text = json_string_value(j);
    assert_int_equal(strncmp(text, "a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd", 9), 0);
    assert_int_equal(text[strlen(text) - 1], 'z');
    json_decref(j);
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    report_csv_text(f, "plain");
    report_csv_text(f, "a \"b\", c");
    Table t = {.right = "lr"};
    assert_true(table_row(&t, "name\tn"));
    assert_true(table_row(&t, "x\t%d", 1234));
    table_print(&t, f);
    table_free(&t);
    fclose(f);
    assert_string_equal(out, "plain\"a \"\"b\"\", c\"name     n\nx     1234\n");
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_archives),
        cmocka_unit_test_setup_teardown(test_gzip_and_damage, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_folders, enter_folder, leave_folder),
        cmocka_unit_test_setup_teardown(test_idx, enter_folder, leave_folder),
        cmocka_unit_test(test_reports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
