// reconstruct: what masked pre-training makes of pictures. Masks are drawn as in training, by seed
// and picture.
#include "cli_grid.h"
#include "cli_training.h"
#include "preprocess.h"
#include "training_mask.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEFAULT_LIMIT = 16, MICRO = 16, GROUPS_A_FILE = 8 };

typedef struct {
    Cli *cli;
    const CnxrtModel *model;
    Training *training;
    Pictures pictures;
    CnxrtNpy x;               // --input
    int64_t count, available; // pictures taken, of how many
    float *images;            // [count] that could be read, then two more to paint with
    int64_t *numbers;         // theirs among the available
    int64_t ready, skipped;
    int64_t values; // of an image
    double loss;    // sum
    Grid grid;
    int files;
} Reconstruct;

// All in one grid, or a folder of grids?
static bool one_file(const Cli *c) {
    size_t n = strlen(c->args.output);
    return n > 4 && strcmp(c->args.output + n - 4, ".png") == 0;
}

// One operand that is no picture stands for a data set, as does --data.
static int sources_open(Reconstruct *r) {
    Cli *c = r->cli;
    CliArgs *a = &c->args;
    if (a->input) {
        int status = cli_tensors_read(c, &r->x, &r->available);
        r->count = a->limit && a->limit < r->available ? a->limit : r->available;
        return status;
    }
    int64_t limit = a->limit ? a->limit : DEFAULT_LIMIT;
    bool data = a->data || (a->noperands == 1 && !image_name_supported(a->operands[0]));
    a->limit = 0; // the list is whole, so that pictures are taken from all over it
    int status = data ? cli_pictures_data(c, a->data ? a->data : a->operands[0], a->split, NULL,
                                          &r->pictures)
                      : cli_pictures_list(c, &r->pictures);
    r->available = r->pictures.count;
    r->count = limit < r->available ? limit : r->available;
    return status;
}

static int pictures_read(Reconstruct *r) {
    Cli *c = r->cli;
    ImageReader reader = {0};
    Preprocess p;
    if (preprocess_of_model(c->model, &p, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text);
    for (int64_t i = 0; i < r->count; i++) {
        int64_t number = i * r->available / r->count;
        float *dst = r->images + r->ready * r->values;
        char name[4200];
        r->numbers[r->ready] = number;
        if (cli_picture_read(&r->pictures, &reader, number, &p, dst, &c->err) == CNXRT_OK) {
            r->ready++;
            continue;
        }
        r->skipped++;
        fprintf(stderr, "%s: skipped %s: %s\n", c->self,
                cli_picture_name(&r->pictures, number, name, sizeof name), c->err.text);
        cnxrt_error_free(&c->err);
    }
    image_reader_close(&reader);
    return r->ready ? CLI_OK : cli_fail(c, "there are no pictures that can be read");
}

static int images_read(Reconstruct *r) {
    r->values = (int64_t)r->model->channels * r->model->height * r->model->width;
    r->images = calloc((size_t)r->count + 2, (size_t)r->values * sizeof *r->images);
    r->numbers = calloc((size_t)r->count + 1, sizeof *r->numbers);
    if (!r->images || !r->numbers) return cli_fail(r->cli, "out of memory for the pictures");
    if (!r->x.data) return pictures_read(r);
    cli_tensors_fill(r->cli, r->x.data, r->count, r->images);
    for (; r->ready < r->count; r->ready++) r->numbers[r->ready] = r->ready;
    return CLI_OK;
}

static int grid_save(Reconstruct *r) {
    Cli *c = r->cli;
    char path[4200];
    if (one_file(c))
        snprintf(path, sizeof path, "%s", c->args.output);
    else
        snprintf(path, sizeof path, "%s/grid%03d.png", c->args.output, r->files);
    CnxrtStatus s = image_png_write(path, &r->grid.image, &c->err);
    image_free(&r->grid.image);
    r->files++;
    return s == CNXRT_OK ? CLI_OK : cli_fail(c, "%s", c->err.text);
}

// Paints the n images from `at` on, which have just run; files hold `groups` of them.
static int paint(Reconstruct *r, int64_t at, int64_t n, int groups) {
    const CnxrtModel *m = r->model;
    const float *pred = training_output(r->training, "reconstruct", "pred");
    const float *cells = training_input(r->training, "reconstruct", "mask");
    int64_t size = mask_cells(m->fcmae);
    float *tmp = r->images + r->count * r->values;
    int status = CLI_OK;
    for (int64_t i = 0; status == CLI_OK && i < n; i++) {
        int group = (int)((at + i) % groups);
        int64_t left = r->ready - (at + i);
        const float *image = r->images + (at + i) * r->values;
        if (!group && !grid_new(&r->grid, m, left < groups ? (int)left : groups))
            return cli_fail(r->cli, "out of memory for a grid of %d pictures; see --limit", groups);
        grid_put(&r->grid, m, group, 0, image);
        reconstruct_hide(m, image, cells + i * size, tmp);
        grid_put(&r->grid, m, group, 1, tmp);
        reconstruct_paste(m, image, cells + i * size, pred + i * r->values, tmp);
        grid_put(&r->grid, m, group, 2, tmp);
        if (group == groups - 1 || left == 1) status = grid_save(r);
    }
    return status;
}

static int run_all(Reconstruct *r) {
    Cli *c = r->cli;
    int64_t micro = training_micro_batch(r->training), size = mask_cells(r->model->fcmae);
    float *image = training_input(r->training, "reconstruct", "image");
    float *cells = training_input(r->training, "reconstruct", "mask");
    int status = CLI_OK, groups = one_file(c) ? (int)r->ready : GROUPS_A_FILE;
    for (int64_t at = 0; status == CLI_OK && at < r->ready; at += micro) {
        int64_t n = r->ready - at < micro ? r->ready - at : micro;
        memcpy(image, r->images + at * r->values, (size_t)(n * r->values) * sizeof *image);
        for (int64_t i = 0; i < n; i++)
            mask_draw(r->model->fcmae, (uint64_t)c->args.seed, 0, (uint64_t)r->numbers[at + i],
                      cells + i * size);
        if (training_run(r->training, "reconstruct", n, &c->err) != CNXRT_OK)
            return cli_fail(c, "%s", c->err.text);
        const float *loss = training_output(r->training, "reconstruct", "loss");
        for (int64_t i = 0; i < n; i++) r->loss += (double)loss[i];
        status = paint(r, at, n, groups);
    }
    return status;
}

static int report(const Reconstruct *r) {
    const Cli *c = r->cli;
    double loss = r->loss / (double)r->ready;
    if (!c->args.json) {
        printf("pictures %lld   loss %.6g   written to %s\n", (long long)r->ready, loss,
               c->args.output);
        return CLI_OK;
    }
    json_t *o = json_object();
    json_object_set_new(o, "model", report_json_text(c->model->name));
    json_object_set_new(o, "output", report_json_text(c->args.output));
    json_object_set_new(o, "files", json_integer(r->files));
    json_object_set_new(o, "pictures", json_integer(r->ready));
    json_object_set_new(o, "skipped", json_integer(r->skipped));
    json_object_set_new(o, "loss", json_real(loss));
    bool ok = report_json_print(o, stdout, true);
    json_decref(o);
    return ok ? CLI_OK : cli_fail(c, "cannot write to standard output");
}

static int check(Cli *c) {
    CliArgs *a = &c->args;
    if (!a->output) return cli_usage(c, "where to? give --output GRID.png, or a folder");
    if ((a->input != NULL) + (a->data != NULL) + (a->noperands > 0) != 1)
        return cli_usage(c, "give pictures or a data set, or --data, or --input, one of them");
    return cli_layout(c, &a->layout, "nchw");
}

int cli_reconstruct(Cli *c) {
    int status = check(c);
    if (status != CLI_OK) return status;
    Reconstruct r = {.cli = c, .model = cli_training_model(c, "reconstruct")};
    if (!r.model) return CLI_ERROR;
    if (!one_file(c) && mkdir(c->args.output, 0777) != 0 && errno != EEXIST)
        return cli_fail(c, "%s: %s", c->args.output, strerror(errno));
    status = sources_open(&r);
    if (status == CLI_OK) status = images_read(&r);
    TrainingOptions o = {.model = r.model, .programs = "reconstruct"};
    o.micro = cli_training_micro(c, &o, r.ready < MICRO ? r.ready : MICRO);
    if (status == CLI_OK) status = cli_training_open(c, o, false, &r.training);
    if (status == CLI_OK) status = run_all(&r);
    if (status == CLI_OK) status = report(&r);
    if (status == CLI_OK && r.skipped) status = CLI_SKIPPED;
    training_close(r.training);
    cli_pictures_close(&r.pictures);
    image_free(&r.grid.image);
    cnxrt_npy_free(&r.x);
    free(r.images);
    free(r.numbers);
    return status;
}
