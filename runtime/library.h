// What the functions of generated libraries (NAME_create, NAME_infer, ...) call: sessions with the
// text of their last error. The generated header documents the functions for their users.
#ifndef CNXRT_LIBRARY_H
#define CNXRT_LIBRARY_H
#include "cnxrt.h"

typedef struct CnxrtLibrary CnxrtLibrary;

// versions: as of cnxrt_pick. weights: a checkpoint, NULL for the embedded ones. On failure *out is
// NULL and err, when not NULL, holds the message, cut to errlen bytes. Returns a CnxrtStatus.
int cnxrt_library_create(const CnxrtModel *const *versions, const char *weights, int threads,
                         int64_t max_batch, CnxrtLibrary **out, char *err, size_t errlen);
// Another session on the same prepared weights.
int cnxrt_library_clone(const CnxrtLibrary *from, int threads, int64_t max_batch,
                        CnxrtLibrary **out, char *err, size_t errlen);
// outputs: one pointer per output port of the program, NULL for those not wanted.
int cnxrt_library_run(CnxrtLibrary *l, const char *program, int64_t batch, const float *images,
                      float *const *outputs);
const char *cnxrt_library_error(const CnxrtLibrary *l); // of the last run; "" when it succeeded
const char *cnxrt_library_class_names(const CnxrtLibrary *l);
void cnxrt_library_destroy(CnxrtLibrary *l); // NULL is allowed

#endif
