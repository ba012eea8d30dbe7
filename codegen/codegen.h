// From planned schedules to native code through the LLVM C API. Knows ir/ and
// runtime/cnxrt_model.h.
#ifndef CNX_CODEGEN_CODEGEN_H
#define CNX_CODEGEN_CODEGEN_H
#include "../ir/schedule.h"
#include "../runtime/cnxrt_model.h"

// What goes into a CnxrtModel.
typedef struct CodegenModel CodegenModel;
struct CodegenModel {
    Schedule **schedules; // its programs, all of one target
    int nschedules;
    const char *name, *precision;
    int channels, height, width, classes;
    const float *mean, *std;
    double crop_pct;
    bool warp;
    const char *interpolation;
    const char *class_names; // may be NULL
    struct CodegenParam {
        const char *name;
        Type type;
        int64_t offset;
        int init; // CNXRT_INIT_*
        double init_value;
    } * params; // raw blob
    int nparams;
    struct CodegenLayer {
        const char *name, *op, *shape;
        int64_t params, macs;
    } * layers;
    int nlayers;
    int64_t param_bytes, weight_bytes;
    const void *embedded; // prepared weights to embed (weight_bytes), or NULL
    const void *raw;      // or raw parameters (raw_bytes), which several versions share
    int64_t raw_bytes;
    const char *raw_dtype; // of their elements: "F32", "F16" or "BF16"; NULL: no raw ones
    // Training.
    const CodegenModel *train, *pretrain; // models of their own, or NULL
    const CnxrtFcmae *fcmae;
    int loss;
    const CnxrtRecipe *recipes; // groups: nparams pairs
    int nrecipes;
    const CnxrtDrop *drops;
    int ndrops;
};

typedef enum { EMIT_EXE, EMIT_SHARED, EMIT_STATIC, EMIT_OBJ, EMIT_LLVM, EMIT_ASM } EmitKind;

typedef struct {
    const char *out; // output path (exe, .so, .a, .o, .ll, .s); libraries also get a header
    EmitKind emit;
    const char *cc;             // linker driver; NULL: cc, or TRIPLE-gcc for other architectures
    const char *runtime_dir;    // where libcnxrt*.a lie
    bool runtime_given;         // for this target, whatever its architecture
    const char *runtime_source; // folder of the runtime's sources, absolute
    bool freestanding; // EMIT_OBJ of one version with prepared weights: needs no other code
    bool time;
    int opt_level;
} CodegenOptions;

// Compiles n versions of a model and its training models, each for another target of one
// architecture, from the least demanding to the most, into opt->out (EMIT_LLVM, EMIT_ASM: the first
// alone). Libraries export inference only. Errors (no linker, unwritable file) on d.
bool codegen_build(Arena *a, const CodegenModel *const *models, int n, const CodegenOptions *opt,
                   Diag *d);
// LLVM IR or assembly as text (cnxc emit --stage=llvm|asm).
bool codegen_text(Arena *a, const CodegenModel *model, EmitKind emit, Str *out, Diag *d);
// Compiles a program for this process and returns it: for one thread (0 of 1) and frames without a
// profile. The schedule's target must be one this CPU can run. NULL with an error on d.
typedef void (*CodegenRunFn)(const CnxrtFrame *frame, int64_t thread, int64_t nthreads);
CodegenRunFn codegen_jit_program(Arena *a, const Schedule *s, Diag *d);
// The same as an object file of any target at `path`; the name of its function.
const char *codegen_program_object(Arena *a, const Schedule *s, const char *path, Diag *d);
// Runs the program `prepare` at build time: params (raw blob, param_bytes) -> weights
// (weight_bytes, 64-byte aligned), which CodegenModel.embedded takes.
bool codegen_prepare(Arena *a, const Schedule *prepare, const void *params, void *weights, Diag *d);
// The row of the target table that describes this machine's CPU, with cpu and features filled from
// the host (arena copy), named after the row; NULL when no row does.
const Target *codegen_native_target(Arena *a);
bool codegen_host_runs(Arena *a, const Target *t); // this CPU has what the row needs
// Compiles one kernel for the host and returns it, or NULL with the reason in *why: for numeric
// tests and tuning. The code lives until the process ends.
typedef void (*KernelFn)(void *const *ops, int64_t r0, int64_t r1, int64_t c0, int64_t c1);
KernelFn codegen_jit_kernel(Arena *a, const Target *t, const KernelSpec *spec, const char **why);
// The same as an object file of any target at `path`; the name of its function, or NULL: *why.
const char *codegen_kernel_object(Arena *a, const Target *t, const KernelSpec *spec,
                                  const char *path, const char **why);
// The FMA loop of a target (emit_peak_loop) in this process; NULL: *why.
typedef double (*PeakFn)(int64_t iterations);
PeakFn codegen_jit_peak(Arena *a, const Target *t, const char **why);
// The same kernel as an assembly listing (arena text), or NULL with the reason in *why.
const char *codegen_kernel_asm(Arena *a, const Target *t, const KernelSpec *spec, const char **why);
// Vector registers spilled and reloaded in the functions of a listing whose names start with
// `prefix` ("": all).
int codegen_spills(const char *assembly, const char *prefix);
// Those in loops; hot: also those anywhere in the functions loops of one kernel's listing call
// (KERNEL_0.WHAT).
int codegen_loop_spills(const char *assembly);
int codegen_hot_spills(const char *assembly);
// Other registers (addresses, counters) spilled and reloaded in innermost loops that call nothing.
int codegen_inner_spills(const char *assembly);

#endif
