// The schedule IR: which kernel runs on which rows of which buffer, step by step. Pure data; text
// form beside that of graphs (schedule_print / schedule_parse).
//
//   schedule infer target="x86-64-v4" {
//     buffer b0 "image" input 0 : f32[B,224,224,3]
//     buffer b1 "stem"  image +0 : f32[B,56,56,40] live 0..3
//     buffer b2 "stem.cols" scratch +0 bytes 43008
//     step "stem" image rows 3136/56 cols 40/40 {
//       gather {h=224, w=224, c=3, kernel=[4,4], stride=[4,4]} (b0, b2 row 192)
//       gemm {n=40, k=48, mr=8, nr=40, ku=4, epilogue=[bias]} (b2 row 192, b3, b1, b4) "stem" macs
//       6021120
//     }
//   }
#ifndef CNX_IR_SCHEDULE_H
#define CNX_IR_SCHEDULE_H
#include "graph.h"
#include "target.h"

typedef enum {
#define KERNEL(name, NAME, operands, attrs, doc) K_##NAME,
#include "kernels.def"
    K_COUNT
} KernelKind;

typedef struct {
    const char *name;
    const char *operands; // names, space separated
    AttrId attrs[12];
    int nattrs;
    const char *doc;
} KernelInfo;
extern const KernelInfo kernel_info[K_COUNT];

enum { MAX_EPILOGUE = 12 }; // words of one
// Words of attribute `epilogue`, in the order of attrs.def.
typedef enum {
    EPI_BIAS,
    EPI_GELU,
    EPI_GELU_TANH,
    EPI_SCALE,
    EPI_ADD,
    EPI_MUL,
    EPI_STAT_L2,
    EPI_STAT_L1,
    EPI_STAT_MEAN,
    EPI_SCALE_ROWS,
    EPI_GELU_DX,
    EPI_GELU_TANH_DX,
    EPI_FMA_SCALE,
    EPI_STAT_DOT,
    EPI_SIGN,
    EPI_STORE,
    EPI_SCALE_IMAGE,
    EPI_OUT,
    EPI_STREAM,
} Epilogue;

typedef struct {
    KernelKind kind;
    const Attr *attrs; // sorted by id, only those set
    int nattrs;
} KernelSpec;
int64_t spec_int(const KernelSpec *s, AttrId id); // 0 when not set
double spec_f64(const KernelSpec *s, AttrId id);
int64_t spec_ints(const KernelSpec *s, AttrId id, int i);
int spec_epilogue(const KernelSpec *s, const int64_t **words); // count
int epilogue_operands(int64_t word);                           // of one word: 0 to 2
int spec_operands(const KernelSpec *s);                        // all, epilogue's included
const char *spec_print(Arena *a, const KernelSpec *s); // equal text <=> same kernel: the dedup key

// Where a buffer lives. Addresses at run time, B images:
//   INPUT, OUTPUT   caller's pointer of that port
//   PARAM           raw parameters in official layout, f32, one blob (prepare only), offset given
//   WEIGHT          results of prepare, one blob, offset given
//   FIXED           arena + offset
//   IMAGE           arena + fixed_bytes + B*offset + image*bytes   (so [B,...] is contiguous)
//   SLOT            arena + fixed_bytes + B*image_bytes + slot*slot_bytes + offset: of one image
//                   while a span of steps runs on it; at most min(B, threads) slots
//   STATE           blob `port` (STATE_*) of a training run + offset: that of parameter X in the
//   raw
//                   parameters for buffers named param.X grad.X m.X v.X ema.X
//   SCRATCH         per-thread block + offset
typedef enum {
    REGION_INPUT,
    REGION_OUTPUT,
    REGION_PARAM,
    REGION_WEIGHT,
    REGION_FIXED,
    REGION_IMAGE,
    REGION_SLOT,
    REGION_STATE,
    REGION_SCRATCH
} Region;
const char *region_name(Region r);
// What a training run keeps per parameter: the blobs of region STATE.
typedef enum { STATE_PARAM, STATE_GRAD, STATE_M, STATE_V, STATE_EMA, STATE_COUNT } State;
// The blob of a name such as grad.X, *param its X; -1: none.
int state_of_name(const char *name, const char **param);

typedef struct {
    const char *name;
    Region region;
    Type type;       // with its batch dimension, if any
    int64_t bytes;   // per image if the type carries the batch, else in all (SCRATCH: per thread)
    int port;        // INPUT, OUTPUT; STATE: the blob
    int64_t offset;  // -1 until planned (WEIGHT, PARAM, STATE too); multiples of 64
    int first, last; // steps in which it is live (those of memory); -1 until planned
} Buffer;

typedef struct {
    int buffer;
    int64_t offset;      // bytes into the buffer
    int64_t row_bytes;   // SCRATCH only: bytes per row, for the bias by r0
    int64_t block_bytes; // added times the index of the row block (partial statistics); else 0
} Operand;

typedef struct {
    KernelSpec spec;
    const Operand *ops;
    int nops;
    const char *label; // layer name for profiles
    int64_t macs;      // per image (per run in a once step); GEMM and convolution only
} Call;

// A step runs its calls in order on every unit, units split statically over threads, a barrier
// after it. Units: for each image (OVER_IMAGE), each row block [r0,r1) of `rows` by `row_block`,
// each column block of `cols` by `col_block`. In a step of one column block every call sees all
// columns of its own result, which may be more or fewer than `cols`. OVER_FLAT: rows*B rows of all
// images as one image. OVER_ONCE: rows only, no batch (prepare, batch-wide finalisers).
// OVER_LIST: `rows` parts of equally many calls, of the same kernels in each, end to end as one
// row: the columns of a part are the elements of its first operand's buffer, up to a multiple of
// LIST_QUANTUM, `cols` is their sum. Threads share the elements evenly, whatever the parts; calls
// of a part see the same columns, at most col_block at a time.
typedef enum { OVER_IMAGE, OVER_FLAT, OVER_ONCE, OVER_LIST } Over;
//
// A span is a run of steps over images that are joined by `then`. Each thread takes B/threads whole
// images and runs all steps of the span on one after the other, without a barrier; the images left
// are run step by step as above, units split over threads. So steps of a span read of an image only
// what is of that image, and values that live in the span alone need a slot, not memory per image.
enum { LIST_QUANTUM = 16 }; // a cache line of f32
typedef struct {
    const char *name;
    Over over;
    int64_t rows, row_block, cols, col_block;
    bool then; // the next step is of the same span
    VEC(Call) calls;
} Step;

typedef struct {
    Arena *arena;
    const char *name; // program
    const Target *target;
    VEC(Buffer) buffers;
    VEC(Step) steps;
    int64_t fixed_bytes, image_bytes, slot_bytes, scratch_bytes; // by plan_memory; multiples of 64
    int64_t weight_bytes, param_bytes;
} Schedule;

void schedule_print(Str *out, const Schedule *s);
Schedule *schedule_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n);
// A file of several schedules with different names; NULL after errors.
Schedule **schedules_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n,
                           int *count);
// The first and the last step of the span that a step is of: the step itself, outside of one.
void step_span(const Schedule *s, int step, int *first, int *last);
// The buffer has a place in memory that others use before and after it.
bool region_has_life(Region r);
// Steps that read blocks of weights which do not stay in L2 as a whole (gemm, order n) take all
// images for one block of columns before the next.
bool step_columns_first(const Step *st);
// Of a list step: calls per part, and the elements of a part.
int list_calls(const Step *st);
int64_t list_elems(const Schedule *s, const Step *st, int part);
const char *schedule_verify(const Schedule *s); // NULL or the reason

#endif
