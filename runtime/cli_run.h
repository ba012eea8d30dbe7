// What the commands share: messages, the session, runs over pictures and tensors.
#ifndef CLI_RUN_H
#define CLI_RUN_H
#include "cli_args.h"
#include "dataset.h"
#include "image_source.h"
#include "preprocess.h"
#include "report.h"

typedef struct {
    const CnxrtModel *const *versions; // what the program holds, ends with NULL
    const CnxrtModel *model;           // the version that runs here
    const char *self;                  // the program's name
    const CliCommand *command;
    CliArgs args;
    CnxrtSession *session;
    CnxrtError err;
    char *names_text;   // class names, separated by 0 bytes
    const char **names; // NULL: unknown
} Cli;

// Commands that take features alone: their checkpoints need no head and no final norm.
#define CLI_ENCODER_COMMANDS "fmlk"

// Prints "self command: message" to stderr; returns the exit status.
int cli_fail(const Cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_usage(const Cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The later of two exit statuses unless it is success.
int cli_worse(int status, int next);
// Pictures, a data set or tensors, one of them, and layouts. CLI_OK or CLI_USAGE after a message.
int cli_inputs_check(Cli *c);
// The program and its output port, or NULL after a message.
const CnxrtProgram *cli_program(const Cli *c, const char *program, const char *output, int *port);
// The program and port of the pooled features, or NULL after a message.
const CnxrtProgram *cli_pooled(const Cli *c, int *port);
// Opens the session for one program; CLI_OK or the exit status after a message.
int cli_open(Cli *c, const CnxrtProgram *p, int64_t batch);
void cli_close(Cli *c);
// The name of class i; "class I" when there are no names.
const char *cli_class_name(const Cli *c, int i, char buf[32]);
int64_t port_values(const CnxrtPort *p); // floats per image

// Pictures to run: a list, or the samples of a data set. The first `count` are taken.
typedef struct {
    ImageList list;
    Dataset *data; // NULL: the list
    int64_t count;
} Pictures;

// What the operands stand for, up to --limit. CLI_OK or the exit status after a message.
int cli_pictures_list(Cli *c, Pictures *p);
// A data set, up to --limit. split: a name, or NULL for val, else test, else what there is. known:
// NULL, or the data set whose classes are the only ones (val then may be test).
int cli_pictures_data(Cli *c, const char *path, const char *split, const Dataset *known,
                      Pictures *p);
// The training part of a data set, or of it --label-fraction by --seed.
int cli_pictures_train(Cli *c, const char *path, Pictures *p);
void cli_pictures_close(Pictures *p);
// The name of picture i, in buf when need be.
const char *cli_picture_name(const Pictures *p, int64_t i, char *buf, size_t size);

// Picture i as the model's input: height * width * channels floats.
CnxrtStatus cli_picture_read(const Pictures *p, ImageReader *reader, int64_t i,
                             const Preprocess *preprocess, float *dst, CnxrtError *err);

typedef struct {
    const CnxrtProgram *program;
    int port;
    // Called in order for every picture; values is NULL when it was skipped. False: stop, no
    // memory.
    bool (*each)(void *user, int64_t i, const char *name, const float *values, const char *reason);
    void *user;
} PictureRun;
// Runs all pictures in batches; those that cannot be read are reported to stderr and counted.
// Returns CLI_OK, CLI_SKIPPED or CLI_ERROR after a message. The session must be open.
int cli_pictures(Cli *c, const Pictures *p, int64_t batch, const PictureRun *run);
int64_t cli_picture_batch(const Cli *c, const Pictures *p);

// How well scores rank the true classes.
typedef struct {
    int64_t images, top1, top5;
} Ranks;
void ranks_add(Ranks *r, const float *scores, int classes, int label); // of equals the first counts
double ranks_percent(const Ranks *r, int64_t hits);

// Result rows, gathered for a .npy file.
typedef struct {
    float *values;
    int64_t count, room, size; // size: floats per row
} Rows;
bool rows_add(Rows *r, const float *values);
// Writes rows of a port in the layout ("nchw": maps as [N,c,h,w]). CLI_OK or CLI_ERROR.
int rows_write(const Cli *c, const Rows *r, const CnxrtPort *port, const char *layout,
               const char *path);

// Sets *layout (--layout) to a default and checks it; CLI_OK or CLI_USAGE after a message.
int cli_layout(const Cli *c, const char **layout, const char *otherwise);
// --input as f32 in --layout; *n tensors of the model's shape. CLI_OK or CLI_ERROR after a message.
int cli_tensors_read(Cli *c, CnxrtNpy *x, int64_t *n);
// n of them, channels last.
void cli_tensors_fill(const Cli *c, const float *x, int64_t n, float *dst);
// --input: opens the session, runs all tensors, appends their results.
int cli_tensors(Cli *c, const CnxrtProgram *p, int port, Rows *rows);

// The commands; each returns the exit status.
int cli_info(Cli *c);
int cli_infer(Cli *c);
int cli_features(Cli *c);
int cli_embed(Cli *c);
int cli_eval(Cli *c);
int cli_grad(Cli *c);
int cli_reconstruct(Cli *c);
int cli_probe(Cli *c);
int cli_knn(Cli *c);
int cli_bench(Cli *c);
int cli_train(Cli *c); // pretrain, finetune and train

#endif
