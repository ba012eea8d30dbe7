// Tensor types: names of element types, equality, element counts, printing.
//
// Counts saturate at INT64_MAX, so a type that was never checked cannot overflow them.
#include "type.h"

static const struct {
    const char *name;
    int bytes;
} dtype_info[DT_COUNT] = {
#define DTYPE(name, NAME, bytes) {#name, bytes},
#include "dtypes.def"
#undef DTYPE
};

const char *dtype_name(DType dt) { return dtype_info[dt].name; }
int dtype_bytes(DType dt) { return dtype_info[dt].bytes; }

bool dtype_parse(const char *s, size_t n, DType *out) {
    for (int i = 0; i < DT_COUNT; i++)
        if (strlen(dtype_info[i].name) == n && memcmp(dtype_info[i].name, s, n) == 0) {
            *out = (DType)i;
            return true;
        }
    return false;
}

static const DType dtype_words[] = {DT_F32, DT_BF16, DT_U8, DT_I8};

DType dtype_of_word(int64_t word) { return dtype_words[word & 3]; }

int64_t dtype_word(DType dt) {
    int64_t i = 0;
    while (dtype_words[i] != dt) i++;
    return i;
}

Type type_make(DType dt, int rank, const Dim *d) {
    Type t = {.dt = dt, .rank = (uint8_t)rank};
    for (int i = 0; i < rank; i++) t.d[i] = d[i];
    return t;
}

bool type_eq(Type x, Type y) {
    if (x.dt != y.dt || x.rank != y.rank) return false;
    for (int i = 0; i < x.rank; i++)
        if (!dim_eq(x.d[i], y.d[i])) return false;
    return true;
}

static int64_t mul_saturated(int64_t x, int64_t y) {
    int64_t r;
    return __builtin_mul_overflow(x, y, &r) ? INT64_MAX : r;
}

bool type_has_batch(Type t) {
    for (int i = 0; i < t.rank; i++)
        if (t.d[i].b) return true;
    return false;
}

void type_elems(Type t, int64_t *fixed, int64_t *per_image) {
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++) n = mul_saturated(n, t.d[i].c);
    bool batch = type_has_batch(t);
    *fixed = batch ? 0 : n;
    *per_image = batch ? n : 0;
}

int64_t type_elems_at(Type t, int64_t batch) {
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++) {
        n = mul_saturated(n, t.d[i].c);
        if (t.d[i].b) n = mul_saturated(n, batch);
    }
    return n;
}

int64_t type_last(Type t) { return t.rank ? t.d[t.rank - 1].c : 1; }

const char *type_print(Arena *a, Type t) {
    Str s = {.arena = a};
    str_add(&s, dtype_name(t.dt));
    str_add(&s, "[");
    for (int i = 0; i < t.rank; i++) {
        if (i) str_add(&s, ",");
        if (!t.d[i].b || t.d[i].c != 1) str_printf(&s, "%lld", (long long)t.d[i].c);
        if (t.d[i].b) str_add(&s, "B");
    }
    str_add(&s, "]");
    return str_cstr(&s);
}
