// The command line of a compiled model: info, infer, features, embed, eval, bench (docs/binary.md).
#ifndef CLI_H
#define CLI_H
#include "cnxrt.h"

// Exit statuses.
enum { CLI_OK = 0, CLI_ERROR = 1, CLI_USAGE = 2, CLI_SKIPPED = 3 };

// main() of an executable: runs the command argv[1] on the version cnxrt_pick picks and returns the
// exit status.
int cnxrt_main(const CnxrtModel *const *versions, int argc, char **argv);

#endif
