// What the commands share: messages, the session, runs over pictures and tensors.
#ifndef CLI_RUN_H
#define CLI_RUN_H
#include "cli_args.h"
#include "image_source.h"
#include "report.h"

typedef struct {
    const CnxrtModel *model;
    const char *self; // the program's name
    const CliCommand *command;
    CliArgs args;
    CnxrtSession *session;
    CnxrtError err;
    char *names_text;   // class names, separated by 0 bytes
    const char **names; // NULL: unknown
} Cli;

// Prints "self command: message" to stderr; returns the exit status.
int cli_fail(const Cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_usage(const Cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The program and its output port, or NULL after a message.
const CnxrtProgram *cli_program(const Cli *c, const char *program, const char *output, int *port);
// Opens the session for one program; CLI_OK or the exit status after a message.
int cli_open(Cli *c, const CnxrtProgram *p, int64_t batch);
void cli_close(Cli *c);
// The name of class i; "class I" when there are no names.
const char *cli_class_name(const Cli *c, int i, char buf[32]);
int64_t port_values(const CnxrtPort *p); // floats per image
// The list of what the operands stand for; CLI_OK or the exit status after a message.
int cli_list(Cli *c, ImageList *list);

typedef struct {
    const CnxrtProgram *program;
    int port;
    // Called in order for every picture; values is NULL when it was skipped. False: stop, no
    // memory.
    bool (*each)(void *user, const ImageItem *item, const float *values, const char *reason);
    void *user;
} PictureRun;
// Runs all pictures in batches; those that cannot be read are reported to stderr and counted.
// Returns CLI_OK, CLI_SKIPPED or CLI_ERROR after a message. The session must be open.
int cli_pictures(Cli *c, const ImageList *list, int64_t batch, const PictureRun *run);
int64_t cli_picture_batch(const Cli *c, const ImageList *list);

// Result rows, gathered for a .npy file.
typedef struct {
    float *values;
    int64_t count, room, size; // size: floats per row
} Rows;
bool rows_add(Rows *r, const float *values);
// Writes rows of a port in the layout ("nchw": maps as [N,c,h,w]). CLI_OK or CLI_ERROR.
int rows_write(const Cli *c, const Rows *r, const CnxrtPort *port, const char *layout,
               const char *path);

// --input: opens the session, runs all tensors, appends their results.
int cli_tensors(Cli *c, const CnxrtProgram *p, int port, Rows *rows);

// The commands; each returns the exit status.
int cli_info(Cli *c);
int cli_infer(Cli *c);
int cli_features(Cli *c);
int cli_embed(Cli *c);
int cli_eval(Cli *c);
int cli_bench(Cli *c);

#endif
