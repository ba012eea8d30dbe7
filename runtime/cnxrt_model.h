// What generated code and the runtime know of each other. A compiled artifact is one object file
// that exports a read-only CnxrtModel; everything else is reached from it.
#ifndef CNXRT_MODEL_H
#define CNXRT_MODEL_H
#include <stdint.h>

#define CNXRT_ABI 1

// One run of a program. Filled by the runtime, read by every thread of generated code.
typedef struct CnxrtFrame {
    char *arena;            // fixed_bytes + batch * image_bytes, 64-byte aligned
    char *scratch;          // nthreads * scratch_bytes, 64-byte aligned
    char *weights;          // prepared weights (written by prepare, read by the others)
    const char *params;     // raw parameters, f32, official layout (prepare only)
    const void *const *inputs; // one per input port
    void *const *outputs;      // one per output port
    int64_t batch;
    void *team;             // passed to cnxrt_barrier
    struct CnxrtProfile *profile; // NULL: no timing
} CnxrtFrame;

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
    int64_t fixed_bytes, image_bytes, scratch_bytes; // scratch per thread
    int32_t ninputs, noutputs, ncalls;
    const CnxrtPort *inputs, *outputs;
    const CnxrtCall *calls;
    int64_t macs; // per image
} CnxrtProgram;

typedef struct {
    const char *name;   // official name, e.g. "stages.0.0.dwconv.weight"
    int32_t rank;
    int64_t dims[6];    // official shape
    int64_t offset;     // bytes into the raw parameter blob
} CnxrtParam;

typedef struct {
    const char *name;  // "stages.0.0.dwconv"
    const char *op;    // "dwconv2d"
    const char *shape; // result per image: "56x56x40"
    int64_t params, macs;
} CnxrtLayer;

typedef struct CnxrtModel {
    uint32_t abi; // CNXRT_ABI
    const char *name, *target, *precision;
    const char *target_features; // what the CPU must have: comma-separated LLVM feature names
    int32_t channels, height, width, classes; // classes 0: no head
    const float *mean, *std;     // channels values each
    double crop_pct;             // evaluation: resize the short side to floor(size/crop_pct); 1 with
    int32_t warp;                // warp != 0: resize both sides, aspect ignored
    const char *interpolation;   // "bicubic" | "bilinear"
    const char *class_names;     // newline-separated, NULL: unknown
    int32_t nprograms, nparams, nlayers;
    const CnxrtProgram *programs;
    const CnxrtParam *params;
    const CnxrtLayer *layers;
    int64_t param_bytes, weight_bytes; // raw blob, prepared blob
    const void *embedded;              // prepared weights inside the artifact, or NULL
    // The best FMA loop of this target: runs `iterations` rounds of independent vector FMAs in
    // registers and returns the FLOPs done.
    double (*peak_loop)(int64_t iterations);
} CnxrtModel;

#endif
