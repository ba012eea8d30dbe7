// Tensor types by value. A dimension is a constant c or a multiple of the batch c*B; everything
// else about a shape is static. Activations are channels-last: [B, h, w, c].
#ifndef CNX_IR_TYPE_H
#define CNX_IR_TYPE_H
#include "arena.h"

typedef enum {
#define DTYPE(name, NAME, bytes) DT_##NAME,
#include "dtypes.def"
#undef DTYPE
    DT_COUNT
} DType;

enum { MAX_RANK = 6 };

typedef struct {
    int64_t c; // >= 1
    bool b;    // true: c times the batch
} Dim;

typedef struct {
    DType dt;
    uint8_t rank; // 0..MAX_RANK
    Dim d[MAX_RANK];
} Type;

const char *dtype_name(DType dt);
int dtype_bytes(DType dt);
bool dtype_parse(const char *s, size_t n, DType *out);
// Words of the attributes dtype and from, in the order of attrs.def.
DType dtype_of_word(int64_t word);
int64_t dtype_word(DType dt);

static inline Dim dim_c(int64_t c) { return (Dim){c, false}; }
static inline Dim dim_b(int64_t c) { return (Dim){c, true}; }
static inline bool dim_eq(Dim x, Dim y) { return x.c == y.c && x.b == y.b; }
static inline int64_t dim_at(Dim x, int64_t batch) { return x.b ? x.c * batch : x.c; }

// type_make(DT_F32, 2, (Dim[]){dim_b(1), dim_c(1000)})
Type type_make(DType dt, int rank, const Dim *d);
bool type_eq(Type x, Type y);
// Elements: *fixed for types without a batch dimension, *per_image for types with one (the other
// is 0). At most one dimension may carry the batch.
void type_elems(Type t, int64_t *fixed, int64_t *per_image);
bool type_has_batch(Type t);
int64_t type_elems_at(Type t, int64_t batch);
int64_t type_last(Type t);                // size of the last dimension (the channels); 1 for rank 0
const char *type_print(Arena *a, Type t); // "f32[B,56,56,40]", "f32[19B,40]"

#endif
