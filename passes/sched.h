// The state of one program while it is scheduled, and the small vocabulary the scheduler is written
// in. Private to passes/.
//
// Legend: R rows (positions) per image, n columns, k depth; a "row" is the last dimension.
#ifndef CNX_PASSES_SCHED_H
#define CNX_PASSES_SCHED_H
#include "group.h"

// The prepare program under construction: its values by name, shared by all programs.
typedef struct {
    Graph *g;
    VEC(Port) known;  // results hoist-prepare named
    VEC(Port) wanted; // what a schedule reads: becomes the outputs
} Prepare;
void prepare_begin(Prepare *pr, Pipeline *p);
Graph *prepare_end(Prepare *pr);
// Names of weight buffers: the parameter as it is, in GEMM panels, as [taps,c], a constant.
const char *prepare_plain(Prepare *pr, const Graph *g, const Node *param);
const char *prepare_panels(Prepare *pr, const Graph *g, const Node *param, int64_t nr);
const char *prepare_taps(Prepare *pr, const Graph *g, const Node *param);
const char *prepare_constant(Prepare *pr, int64_t n, double value); // n times value

// Partial statistics of a grn_stat result.
typedef struct {
    Value stat; // value of the program's graph
    int partial;
    int64_t rows, row_block, blocks;
    bool batch; // of every image, else of the one there is
    int64_t aggregate, statistics;
} Stat;

typedef struct {
    Pipeline *p;
    Arena *a;
    const Target *t;
    const Graph *g;
    Schedule *s;
    Prepare *prepare; // NULL while prepare itself is scheduled
    const int *uses;
    Value *root;   // of each value: the one whose memory it is (views)
    int *buffer;   // of each root, -1: none yet
    int *factors;  // of each value: buffer of what a mask multiplies the rows of an image by, or -1
    int *deferred; // of each value: node index of a depthwise group left to its reader, else -1
    bool trains;   // has a backward side
    VEC(Stat) stats;
    VEC(Value) done; // scheduled along with a node before theirs
} Sched;

// Rows and columns of a value as memory: rows per image (or in all, without a batch) of n elements.
typedef struct {
    int64_t rows, n;
    bool batch;
} Rows;
Rows rows_of(Type t);

// Attributes of a kernel spec under construction.
typedef struct {
    Attr v[12];
    int n;
    int64_t epilogue[MAX_GROUP];
    int nepilogue;
    bool quantizes;
    int grid; // of a spec that does: buffer of the call's last operand
} SpecAttrs;
void spec_set(SpecAttrs *s, AttrId id, int64_t i);
void spec_set_f64(SpecAttrs *s, AttrId id, double f);
void spec_set_pair(Sched *sc, SpecAttrs *s, AttrId id, int64_t x, int64_t y);
void spec_word(SpecAttrs *s, Epilogue word);
void spec_from(SpecAttrs *s, DType dt); // of the operands
// Of the result: that of a cast or quantize, an op of group n or n itself.
void spec_to(Sched *sc, SpecAttrs *s, const Node *n, const Node *cast);
void spec_set_shape(Sched *sc, SpecAttrs *s, const Dim *shape, const int64_t *perm, int rank);
void spec_set_value(Sched *sc, SpecAttrs *s, double x);

// Operands of a call under construction.
typedef struct {
    Operand v[MAX_GROUP + 8];
    int n;
} Operands;
void operand_add(Operands *o, int buffer);
void operand_value(Sched *sc, Operands *o, Value v);
void operand_blocks(Operands *o, int buffer, int64_t block_bytes); // partial statistics

// ---- reductions over rows of the batch ---------------------------------------------------------
// Never by thread ranges. One scheme for all: a first kernel writes the sums of a static row block
// of an image to its row of `partials` (operand_blocks), then kernel `sum` adds the rows of all
// images in a fixed order, split over columns. A kernel whose unit walks all rows of the batch in
// order needs no partials.

// The buffer a batch-reducing kernel writes v to. Where v is a gradient that nothing else reads it
// is the state itself, and *attrs (when not NULL) gets accumulate: the kernel must add.
int reduce_out(Sched *sc, Value v, SpecAttrs *attrs);
// Partial results [blocks, n] of each image (or in all, without a batch).
int partials_new(Sched *sc, const Node *like, int64_t blocks, int64_t n, bool batch);
// The step that sums them into v.
void reduce_partials(Sched *sc, const Node *like, int partial, int64_t blocks, int64_t n,
                     bool batch, Value out);

int buffer_new(Sched *sc, const char *name, Region region, Type t);
int buffer_of(Sched *sc, Value v);                      // made at first use
int weight_buffer(Sched *sc, const char *name, Type t); // the one of that name
int scratch_new(Sched *sc, const char *name, DType dt, int64_t rows, int64_t n);

Step *step_new(Sched *sc, const Node *like, Over over, int64_t rows, int64_t row_block,
               int64_t cols, int64_t col_block);
void call_new(Sched *sc, Step *st, KernelKind kind, SpecAttrs *attrs, const Operands *ops,
              const Node *like, int64_t macs);

// ---- choices from the target (sched_tile.c) ----------------------------------------------------
typedef struct {
    int64_t mr, nr, ku, order; // order: 0 m, 1 n
    bool tiles;                // AMX
} GemmTile;
// Operands are of type `from`; k in groups of 4 bytes; gelu: the epilogue evaluates it.
GemmTile gemm_tile(const Target *t, DType from, int64_t rows, int64_t n, int64_t k, bool gelu);
// Rows and columns of the result a micro-kernel of gemm_dw computes at once.
typedef struct {
    int64_t mr, nr;
} DwTile;
DwTile gemm_dw_tile(const Target *t, DType from, int64_t n, int64_t k);
// How out[n,k] = dy^T x over `rows` rows (per image, of a batch) is cut: each image into `shards`
// of shard_rows, whose sums are added afterwards, or (shards 0) the columns of dy, or of x, into
// units of `cols` that walk all rows. m, packed: attributes of gemm_dw.
typedef struct {
    DwTile tile;
    int64_t m, cols, shards, shard_rows;
    bool of_x, packed;
} DwPlan;
DwPlan gemm_dw_plan(const Target *t, DType from, int64_t rows, bool batch, int64_t n, int64_t k);
int64_t dwconv_tile(const Target *t, int64_t width, int64_t kw);
int64_t dwconv_dw_tile(const Target *t, int64_t kw);
// Vectors of channels a packed depthwise kernel takes at once for sub-blocks of this side.
int64_t packed_vectors(const Target *t, int64_t side, bool dw);
// Rows of a block of at most about `bytes` of cache, a multiple of `quantum`, preferring multiples
// of mr and an even number of at least eight blocks.
int64_t row_block(int64_t rows, int64_t quantum, int64_t mr, int64_t row_bytes, int64_t bytes);
// Columns of a block: whole vectors or panels of `width`, so many that at most eight blocks are n.
int64_t col_block(int64_t n, int64_t width);

// Rows of an image that take less time in a linear than its weights take from memory.
enum { FEW_ROWS = 64 };

// ---- one kind of node each (schedule_linear.c, schedule_op.c) ----------------------------------
void schedule_linear(Sched *sc, const Node *n);
void schedule_dwconv(Sched *sc, const Node *n);
// True when n may be left to the linear that reads it.
bool dwconv_defers(const Sched *sc, const Node *n);
void schedule_op(Sched *sc, const Node *n);
// Appends the words and operands of the epilogue ops of a group; makes partial statistics.
void epilogue_words(Sched *sc, const Node *n, const GroupForm *f, int64_t row_block, SpecAttrs *s,
                    Operands *o);
// Partial statistics of a grn_stat result over rows r, in row blocks of `block`.
Stat *stat_new(Sched *sc, const Node *like, const Node *op, Value stat, Rows r, int64_t block);
// Writes the statistic itself where something other than grn_scale reads it.
void materialise_stat(Sched *sc, const Node *n, Value stat_value);
// A statistic that is there as it is: one block of one row.
Stat stat_given(Sched *sc, Value stat);
// Merges partial statistics into gamma * N (+ 1): the scale, or with N alone the statistic itself.
// gamma and out are buffers.
void merge_stat(Sched *sc, const Node *n, const Stat *stat, int gamma, int out, int64_t normalise,
                int64_t residual, double eps, int64_t channels);
// [c] times value: a weight, or made here when this is prepare.
int constant_buffer(Sched *sc, const Node *like, int64_t c, double value);
// A step over the rows of t; images when a kernel needs an image's own operands.
Step *rows_step(Sched *sc, const Node *n, Type t, bool images);
// One word on operand 0 of n, with operand 1 or none.
void op_eltwise(Sched *sc, const Node *n, Epilogue word, bool has_operand);

// ---- weights (schedule_prepare.c) --------------------------------------------------------------
// Panels of a matrix, and its product with a vector. What goes over blocks of rows of the same
// weight is one step.
void schedule_pack(Sched *sc, const Node *n);
void schedule_matvec(Sched *sc, const Node *n);
// True when n is left to the packs that read it: a matrix transposed, scaled or rounded.
bool pack_takes(const Sched *sc, const Node *n);

// ---- depthwise convolution (schedule_linear.c, schedule_dwconv.c) ------------------------------
// Taps [kh*kw,c] of weight w: made by prepare, or permuted from it in a step of their own.
int taps_buffer(Sched *sc, Value w, const Node *like);
// Of the backward side and on packed rows; false when n is something else.
bool schedule_depthwise(Sched *sc, const Node *n);

// ---- steps that become one (schedule_merge.c) --------------------------------------------------
void merge_steps(Sched *sc);
// Step u, which comes later, touches what st writes.
bool step_depends(const Step *u, const Step *st);
// Rows of a block of the backward side's steps over `rows` rows of at most `width` columns: the
// same for all that pass rows on to each other, the gradients of small weights included.
int64_t shared_block(const Sched *sc, int64_t rows, int64_t width);

// ---- steps that run image by image (schedule_span.c) ------------------------------------------
void form_spans(Sched *sc);
// Bytes per image that a step touches.
int64_t touched_bytes(const Schedule *s, const Step *st);

// ---- stores past the caches (schedule_stream.c) ------------------------------------------------
void stream_stores(Sched *sc);

// ---- the backward side and the losses (schedule_grad.c) ----------------------------------------
void schedule_grad(Sched *sc, const Node *n);
// Scheduled along with a node before it.
bool is_done(const Sched *sc, Value v);
// v lies in memory when node n is scheduled.
bool is_there(const Sched *sc, const Node *n, Value v);
// True when layer normalisation n comes along with the step of a layernorm_dx of the same rows.
bool norm_again(Sched *sc, const Node *n);
// The buffer of dG/G and its kin, the factor of each channel in grn_stat_dx n, made here.
int grn_stat_factor(Sched *sc, const Node *n);
// out = sum over the blocks of partial sums of each image
void sum_image_partials(Sched *sc, const Node *n, int partial, int64_t blocks);
// Sums of a value that ride along: words and operands are appended, the steps that finish the sums
// follow the kernel's.
typedef struct {
    Rows r;
    int64_t blocks;
    const Node *node[2], *stat;
    int partial[2], n;
} Riders;
typedef struct {
    Riders first, last;
} Follow;
// What the kernel that makes v, the result of node n over rows r in blocks, computes besides in its
// epilogue: elementwise ops, each the only reader of the one before, with operands that are there;
// sums of their result; where a mask or a factor for each image of it is wanted as well, that and
// sums of that. Returns the value the kernel writes. follow_end makes the steps after the kernel's.
Value follow_begin(Sched *sc, const Node *n, Value v, Rows r, int64_t block, SpecAttrs *s,
                   Operands *o, Follow *f);
void follow_end(Sched *sc, const Follow *f);
// The optimiser (schedule_optim.c).
void schedule_adamw(Sched *sc, const Node *n);
void schedule_ema(Sched *sc, const Node *n);
// True when n is scheduled as an elementwise chain or is left to the end of one (schedule_chain.c).
bool schedule_chain(Sched *sc, const Node *n);
// True when the cast n is left to the gradients of weights that read it, which round by themselves.
bool cast_defers(const Sched *sc, const Node *n);
// The factors of the rows of an image for every mask that is an input: made first, once for a size.
void mask_factors(Sched *sc);
// True when the product n is left to the image_sum that reads it.
bool mul_defers(const Sched *sc, const Node *n);

// Window and input shape of a patchify over images x.
void gather_spec(Sched *sc, SpecAttrs *s, const Node *patchify, Type x);
// The value of the program a body's input stands for.
Value body_operand(const Node *n, Value body_value);
#endif
