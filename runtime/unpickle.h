// A restricted unpickler: builds plain values and descriptions of tensors, never runs anything.
// Names of classes and functions are only compared with a short list; what is not on it becomes an
// opaque value that swallows its arguments and state.
#ifndef CNXRT_UNPICKLE_H
#define CNXRT_UNPICKLE_H
#include "weights_file.h"

typedef enum {
    V_MARK,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_TUPLE,
    V_LIST,
    V_DICT,   // items: key, value, key, value, ...
    V_GLOBAL, // s: "module name"
    V_OPAQUE, // s: what it would have been, or NULL
    V_STORAGE,
    V_TENSOR,
} ValueKind;

typedef struct Value Value;
struct Value {
    ValueKind kind;
    int64_t i;     // V_INT, V_BOOL; V_STORAGE: number of elements
    const char *s; // V_STR, V_GLOBAL, V_OPAQUE; V_STORAGE: key
    Value **items; // V_TUPLE, V_LIST, V_DICT
    int64_t n, capacity;
    StDtype dtype;        // V_STORAGE, V_TENSOR; ST_COUNT: not one that is read
    bool untyped;         // V_STORAGE counted in bytes
    const Value *storage; // V_TENSOR
    int64_t offset;       // V_TENSOR: in elements; V_STORAGE: of a view of an older storage
    int rank;
    int64_t dims[8], strides[8];
};

typedef struct Chunk Chunk;
typedef struct {
    const unsigned char *begin, *at, *end;
    const char *path; // for messages
    CnxrtError *err;
    CnxrtStatus status;
    Chunk *chunks;
    Value **stack, **memo;
    int64_t nstack, stack_capacity, nmemo;
    Value **storages; // every persistent id met, in order
    int64_t nstorages, storages_capacity;
} Unpickler;

void unpickle_begin(Unpickler *u, const char *path, const unsigned char *bytes, size_t size,
                    CnxrtError *err);
// Runs one pickle from u->at to its STOP. NULL on error (u->status, u->err). Values live until
// unpickle_end; stack and memo are emptied.
Value *unpickle_next(Unpickler *u);
void unpickle_end(Unpickler *u);
// Value of a string key in a dict, NULL: none.
Value *value_get(const Value *dict, const char *key);

#endif
