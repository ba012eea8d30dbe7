// What generated code and the runtime know of each other. A compiled artifact is one object file
// that exports a read-only CnxrtModel; everything else is reached from it. An artifact for several
// targets holds one for each, and a list of them.
#ifndef CNXRT_MODEL_H
#define CNXRT_MODEL_H
#include <stdint.h>

#define CNXRT_ABI 4

// One run of a program. Filled by the runtime, read by every thread of generated code.
typedef struct CnxrtFrame {
    char *arena;               // see CnxrtProgram; 64-byte aligned
    char *scratch;             // nthreads * scratch_bytes, 64-byte aligned
    char *weights;             // prepared weights (written by prepare, read by the others)
    const char *params;        // raw parameters, f32, official layout (prepare only)
    const void *const *inputs; // one per input port
    void *const *outputs;      // one per output port
    int64_t batch;
    void *team;                   // passed to cnxrt_barrier
    struct CnxrtProfile *profile; // NULL: no timing
    char *const *state;           // training: CNXRT_STATES blobs in the layout of the parameters
} CnxrtFrame;

// What a training run keeps per parameter; each is one blob of param_bytes.
enum {
    CNXRT_STATE_PARAM, // the parameters themselves; `prepare` reads them through params
    CNXRT_STATE_GRAD,  // train and pretrain add to it
    CNXRT_STATE_M,     // moments of AdamW
    CNXRT_STATE_V,
    CNXRT_STATE_EMA, // averaged parameters (update.ema only)
    CNXRT_STATES
};

// Provided by the runtime, called by generated code.
void cnxrt_barrier(void *team, int64_t thread, int64_t nthreads);
// After call number `call` of the program on this thread, when profile is not NULL; call -1 opens
// a step. Time since the previous tick of the thread is added to that call.
void cnxrt_tick(struct CnxrtProfile *profile, int64_t thread, int64_t call);

typedef struct {
    const char *name; // "image", "logits", "stage0", "pooled", ...
    int32_t rank;     // without the batch dimension
    int64_t dims[6];  // per image, channels-last
    int64_t bytes;    // per image
} CnxrtPort;

typedef struct {
    const char *kernel; // KernelSpec text
    const char *label;  // layer
    int64_t macs;       // per image; of convolutions and GEMMs
} CnxrtCall;

typedef struct {
    const char *name; // "prepare", "infer", "features"
    void (*run)(const CnxrtFrame *frame, int64_t thread, int64_t nthreads);
    // The arena of a run: fixed + batch * image + min(batch, threads) * slot bytes; scratch per
    // thread.
    int64_t fixed_bytes, image_bytes, slot_bytes, scratch_bytes;
    int32_t ninputs, noutputs, ncalls;
    const CnxrtPort *inputs, *outputs;
    const CnxrtCall *calls;
    int64_t macs; // per image
} CnxrtProgram;

typedef struct {
    const char *name; // official name, e.g. "stages.0.0.dwconv.weight"
    int32_t rank;
    int64_t dims[6];   // official shape
    int64_t offset;    // bytes into the raw parameter blob
    int32_t init;      // CNXRT_INIT_*: how a new one is drawn
    double init_value; // the constant, the standard deviation, or the bound
} CnxrtParam;

enum {
    CNXRT_INIT_CONSTANT, // every element is init_value
    CNXRT_INIT_NORMAL,   // normal of deviation init_value, cut at +-2 (absolute)
    CNXRT_INIT_UNIFORM,  // uniform in +-init_value
};

typedef struct {
    const char *name;  // "stages.0.0.dwconv"
    const char *op;    // "dwconv2d"
    const char *shape; // result per image: "56x56x40"
    int64_t params, macs;
} CnxrtLayer;

// How a run trains: a recipe of the spec. Rates are per optimiser step; epochs may be fractions.
typedef struct {
    const char *name;
    int32_t kind;       // CNXRT_PRETRAIN, CNXRT_FINETUNE, CNXRT_TRAIN
    int64_t batch;      // images per optimiser step
    double base_lr, lr; // per 256 images of the batch, or absolute; the other is 0
    double min_lr, weight_decay, beta1, beta2, eps;
    double clip; // bound of the gradient's norm, 0: none
    double epochs, warmup_epochs;
    double drop_path; // of the last block; the earlier ones grow linearly from 0
    double label_smoothing, mixup, cutmix, mix_switch;
    double ema; // decay of the averaged weights, 0: none
    double head_init_scale;
    double crop_scale[2], crop_ratio[2], flip, erase;
    const char *rand_augment;  // timm's notation, NULL: none
    const char *interpolation; // of crops
    const float *groups; // nparams x {lr scale, weight decay factor}, of the model's parameters
} CnxrtRecipe;

enum { CNXRT_PRETRAIN, CNXRT_FINETUNE, CNXRT_TRAIN };

// Geometry of masked pre-training. A cell is a position of the last stage.
typedef struct {
    int32_t grid[2];     // mask units: rows, columns
    int32_t mask_unit;   // side of a mask unit in cells
    int32_t stride[2];   // side of a cell in pixels
    int32_t units, keep; // per image: all, visible
    int32_t norm_pix;    // targets are normalised by their patch's statistics
    int32_t packed;      // the encoder runs on packed visible rows
    double mask_ratio;
} CnxrtFcmae;

// The drop-path inputs of program train: input "drop.<key>" [B] is 0 or 1/(1-rate) per sample.
typedef struct {
    int32_t key;
    double share; // rate = share * the run's drop_path
} CnxrtDrop;

typedef struct CnxrtModel {
    uint32_t abi; // CNXRT_ABI
    const char *name, *target, *precision;
    const char *target_features; // what the CPU must have: comma-separated LLVM feature names
    int32_t channels, height, width, classes; // classes 0: no head
    const float *mean, *std;                  // channels values each
    double crop_pct;           // evaluation: resize the short side to floor(size/crop_pct); 1 with
    int32_t warp;              // warp != 0: resize both sides, aspect ignored
    const char *interpolation; // "bicubic" | "bilinear"
    const char *class_names;   // newline-separated, NULL: unknown
    int32_t nprograms, nparams, nlayers;
    const CnxrtProgram *programs;
    const CnxrtParam *params;
    const CnxrtLayer *layers;
    int64_t param_bytes, weight_bytes; // raw blob, prepared blob
    const void *embedded;              // prepared weights inside the artifact, or NULL
    const void *raw;       // raw parameters inside the artifact, which its targets share; or NULL
    const char *raw_dtype; // of their elements: "F32", "F16" or "BF16"
    // The best FMA loop of this target: runs `iterations` rounds of independent vector FMAs in
    // registers and returns the FLOPs done.
    double (*peak_loop)(int64_t iterations);
    // Training. The model of inference points at those of its training programs, or NULL where they
    // were not built; each has parameters, prepared weights and programs of its own:
    //   train     train [image, target, loss_scale, drop.<key>...] -> [loss, logits]
    //   pretrain  pretrain [image, mask, loss_scale] -> [loss]; reconstruct [image, mask] -> [loss,
    //             pred]; mask is per cell, 1: hidden
    //   both      prepare; update, update.ema [hyper, groups]
    // train and pretrain add the gradient of sum(loss_scale * loss) to CNXRT_STATE_GRAD. update
    // takes CnxrtHyper and the recipe's groups and writes parameters and moments (and averages).
    const struct CnxrtModel *train, *pretrain;
    const CnxrtFcmae *fcmae; // of pretrain
    int32_t loss;            // of the classifier: CNXRT_LOSS_*
    int32_t nrecipes, ndrops;
    const CnxrtRecipe *recipes; // of the training models
    const CnxrtDrop *drops;     // of train
} CnxrtModel;

enum {
    CNXRT_LOSS_SOFTMAX, // cross-entropy: one class is right
    CNXRT_LOSS_BCE,     // binary cross-entropy of each class: any number of them
};

static inline int cnxrt_has_weights(const CnxrtModel *m) { return m->embedded || m->raw; }

// Input `hyper` of the update programs: f32[12].
enum {
    CNXRT_HYPER_LR,
    CNXRT_HYPER_BETA1,
    CNXRT_HYPER_BETA2,
    CNXRT_HYPER_EPS,
    CNXRT_HYPER_DECAY,           // weight decay
    CNXRT_HYPER_CORRECTION1,     // 1/(1 - beta1^t)
    CNXRT_HYPER_CORRECTION2,     // 1/sqrt(1 - beta2^t)
    CNXRT_HYPER_GRAD_SCALE,      // every gradient is multiplied by it first (clipping)
    CNXRT_HYPER_EMA,             // decay of the averages
    CNXRT_HYPER_ONE_MINUS_BETA1, // computed in f64, then rounded
    CNXRT_HYPER_ONE_MINUS_BETA2,
    CNXRT_HYPER_ONE_MINUS_EMA,
    CNXRT_HYPERS
};

#endif
