// Opening training models for one run, with parameters from a checkpoint or a seed.
#include "cli_training.h"
#include <stdlib.h>
#include <string.h>

const CnxrtModel *cli_training_model(const Cli *c, const char *program) {
    const CnxrtModel *m = strcmp(program, "train") == 0 ? c->model->train : c->model->pretrain;
    if (m && cnxrt_program(m, program)) return m;
    cli_fail(c, "model %s was built without the program %s (cnxc build --programs)", c->model->name,
             program);
    return NULL;
}

static int weights_file(Cli *c, Training *t) {
    const CnxrtModel *m = training_model(t);
    CnxrtWeights *w = NULL;
    CnxrtStatus s = cnxrt_weights_open(c->args.weights, &w, &c->err);
    if (s == CNXRT_OK)
        s = cnxrt_weights_load(w, m->params, m->nparams, training_state(t, CNXRT_STATE_PARAM),
                               &c->err);
    cnxrt_weights_close(w);
    return s == CNXRT_OK ? CLI_OK : cli_fail(c, "%s", c->err.text);
}

static int weights_set(Cli *c, Training *t) {
    const CnxrtModel *m = training_model(t);
    const char *text = c->args.weights ? c->args.weights : "seed:0";
    if (strncmp(text, "seed:", 5) != 0) return weights_file(c, t);
    char *end;
    unsigned long long seed = strtoull(text + 5, &end, 10);
    if (text[5] < '0' || text[5] > '9' || *end)
        return cli_fail(c, "%s: expected seed:N with a decimal number", text);
    for (int i = 0; i < m->nparams; i++)
        cnxrt_seed_weights(m->params[i].name, m->params[i].rank, m->params[i].dims, seed,
                           training_param(t, CNXRT_STATE_PARAM, i));
    return CLI_OK;
}

int64_t cli_training_micro(const Cli *c, const TrainingOptions *o, int64_t n) {
    if (c->args.micro) return c->args.micro < n ? c->args.micro : n;
    int64_t fits = training_micro_fits(o, training_memory_available());
    return fits > 0 && fits < n ? fits : n;
}

int cli_training_open(Cli *c, TrainingOptions o, bool seeded, Training **out) {
    if (!c->args.weights && !seeded)
        return cli_usage(c, "no weights: give a checkpoint: --weights FILE (safetensors, .pt or "
                            ".pth), or --weights seed:N");
    o.threads = (int)c->args.threads;
    if (training_open(&o, out, &c->err) != CNXRT_OK)
        return cli_fail(c, "%s", c->err.text ? c->err.text : "cannot start");
    int status = weights_set(c, *out);
    if (status == CLI_OK) training_prepare(*out);
    return status;
}

void fcmae_cells(const CnxrtFcmae *f, const unsigned char *units, float *cells) {
    int rows = f->grid[0] * f->mask_unit, columns = f->grid[1] * f->mask_unit;
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < columns; k++)
            cells[r * columns + k] = units[r / f->mask_unit * f->grid[1] + k / f->mask_unit];
}
