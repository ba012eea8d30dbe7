// Parts of info: what inference and training models have in common, and what training adds.
#ifndef CLI_INFO_H
#define CLI_INFO_H
#include "cli_run.h"

json_t *info_programs_json(const CnxrtModel *m);
bool info_programs_print(const CnxrtModel *m); // false: no memory

// The training models of an artifact: memory, recipes, geometry of masks. NULL: there are none.
json_t *info_training_json(const CnxrtModel *m);
bool info_training_print(const CnxrtModel *m);

#endif
