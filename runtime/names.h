// Names of checkpoints in other schemes and in the official one; the tables are in names.def.
#ifndef CNXRT_NAMES_H
#define CNXRT_NAMES_H
#include "weights_file.h"

// Sets the scheme of the file and every tensor's official name. False: out of memory.
bool names_translate(CnxrtWeights *w);
// The name in another scheme ("timm", "hf") of an official name, malloc'ed. Names without a row
// stay as they are. version: 1 or 2, part of the prefix in "hf". NULL: out of memory.
char *names_from_official(const char *official, const char *scheme, int version);
bool name_is_spare(const char *official);
// Does the name follow the pattern (see names.def)?
bool name_matches(const char *pattern, const char *name);

#endif
