// What is expanded from the tables: op and attribute identities and their static facts.
#ifndef CNX_IR_OP_H
#define CNX_IR_OP_H
#include "type.h"

typedef enum {
#define ATTR(name, KIND, doc) A_##name,
#define ATTR_ENUM(name, words, doc) A_##name,
#define ATTR_ENUMS(name, words, doc) A_##name,
#include "attrs.def"
#undef ATTR
#undef ATTR_ENUM
#undef ATTR_ENUMS
    A_COUNT
} AttrId;

typedef enum {
    AK_INT,
    AK_F64,
    AK_BOOL,
    AK_STR,
    AK_INTS,
    AK_DIMS,
    AK_DATA,
    AK_ENUM,
    AK_ENUMS,
} AttrKind;

typedef struct {
    const char *name;
    AttrKind kind;
    const char *words; // AK_ENUM, AK_ENUMS: each word NUL-terminated, an empty one ends the list
    const char *doc;
} AttrInfo;
extern const AttrInfo attr_info[A_COUNT];
bool attr_id_parse(const char *s, size_t n, AttrId *out);
const char *attr_word(AttrId id, int index);             // "erf" of approx 0; NULL beyond the last
const char *attr_words(Arena *a, AttrId id);             // "erf|tanh", for messages
int attr_word_index(AttrId id, const char *s, size_t n); // -1: no such word
// The words of `aggregate` and `normalise`, in their order.
typedef enum { AGG_L2, AGG_L1, AGG_MEAN, AGG_STD } Aggregate;
typedef enum { NORM_MEAN, NORM_SUM, NORM_STANDARDISE, NORM_NONE } Normalise;

typedef struct {
    AttrId id;
    union {
        int64_t i; // INT, BOOL, ENUM
        double f;
        const char *s;
        struct {
            const int64_t *v;
            int n;
        } ints; // INTS, ENUMS
        struct {
            const Dim *v;
            int n;
        } dims;
        struct {
            const double *v;
            int64_t n;
        } data;
    };
} Attr;

bool attr_eq(const Attr *x, const Attr *y);

typedef enum {
#define OP(name, NAME, lo, hi, results, attrs, traits, grad, doc) OP_##NAME,
#include "ops.def"
#undef OP
    OP_COUNT
} Op;

enum {
    T_NONE = 0,
    T_LEAF = 1,     // no operands
    T_EFFECT = 2,   // never removed or merged
    T_RANDOM = 4,   // never merged, drawn anew per step
    T_ELTWISE = 8,  // result element i depends on operand element i (after broadcast) only
    T_VIEW = 16,    // no data movement
    T_ROWWISE = 32, // result row depends on the same row of operand 0 only
    T_REGION = 64,  // has a body
};

enum { MAX_OP_ATTRS = 8 };
typedef struct {
    const char *name;
    int min_args, max_args, results;
    AttrId attrs[MAX_OP_ATTRS];
    int nattrs;
    unsigned traits;
    const char *doc;
} OpInfo;
extern const OpInfo op_info[OP_COUNT];
bool op_parse(const char *s, size_t n, Op *out);

#endif
