// One LLVM module under construction and what its parts (driver, model, wrappers, peak) share.
// Private to codegen/.
#ifndef CNX_CODEGEN_MODULE_H
#define CNX_CODEGEN_MODULE_H
#include "codegen.h"
#include "emit.h"
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

// A kernel shared by content: the text of its spec, the function and its name.
typedef struct {
    const char *key, *symbol;
    const KernelSpec *spec; // with a smaller tile than `key` says where that did not fit (fit.c)
    LLVMValueRef fn;        // NULL: not in the module yet
} Shared;

// What functions of one kind (a kernel, "run") come to.
typedef struct {
    const char *kind;
    int functions;
    uint64_t bytes;
} CodeSize;
typedef VEC(CodeSize) CodeSizes;

typedef struct Unit Unit;
// Writes a module: the same each time but for the tiles of kernels, which unit_kernel knows.
typedef void (*UnitFill)(Unit *u, const void *content);
struct Unit {
    Arena *arena;
    Diag *diag;
    const Target *target;
    const char *name; // prefix of exported symbols: a C identifier
    LLVMContextRef ctx;
    LLVMModuleRef mod;
    LLVMBuilderRef b; // emit.b
    LLVMTargetMachineRef machine;
    int opt_level;
    LLVMTypeRef ptr, i8, i32, i64, f32, f64, none;
    LLVMTypeRef frame;     // CnxrtFrame
    LLVMTypeRef kernel_fn; // void (ptr ops, i64 r0, i64 r1, i64 c0, i64 c1)
    LLVMTypeRef run_fn;    // void (ptr frame, i64 thread, i64 nthreads)
    Emit emit;             // what kernels are emitted with, into the same module
    UnitFill fill;         // what wrote the module, and from what
    const void *content;
    VEC(Shared) kernels;
    double kernel_seconds;
    VEC(const char *) spilled;      // functions LLVM gave stack slots for vectors
    struct LLVMOrcOpaqueLLJIT *jit; // what unit_load linked the module into
};

// ---- object.c ----------------------------------------------------------------------------------
// NULL with an error on d when LLVM does not know the target.
LLVMTargetMachineRef machine_new(const Target *t, int opt_level, Diag *d);
// The functions of an object file by kind, largest first; nothing when it cannot be read.
CodeSizes object_sizes(Arena *a, const char *path);

// ---- fit.c -------------------------------------------------------------------------------------
// The module as LLVM makes it, after which u->mod is spent. Kernels whose loops spilled have
// smaller tiles in it: the module was filled once more. NULL: *why.
LLVMMemoryBufferRef unit_emit(Unit *u, LLVMCodeGenFileType kind, const char **why);
bool unit_emit_object(Unit *u, const char *path); // false with an error on u->diag
bool unit_emit_text(Unit *u, Str *out);           // assembly with LLVM's comments
void unit_watch_frames(Unit *u);                  // once a unit has its context: fills u->spilled

// ---- module.c ---------------------------------------------------------------------------------
// A module for target t, with its machine; NULL with an error on d when LLVM lacks the target.
Unit *unit_new(Arena *a, const char *name, const Target *t, int opt_level, Diag *d);
void unit_free(Unit *u); // LLVM's objects only: the arena keeps the rest
// Has `fill` write the module, and verifies it; content is kept as long as the unit.
void unit_fill(Unit *u, UnitFill fill, const void *content);
void unit_refill(Unit *u); // an empty module in place of u->mod, filled like that
LLVMValueRef unit_i64(Unit *u, int64_t v);
LLVMValueRef unit_i32(Unit *u, int64_t v);
LLVMValueRef unit_add(Unit *u, LLVMValueRef x, LLVMValueRef y);
LLVMValueRef unit_mul_c(Unit *u, LLVMValueRef x, int64_t c);
// A private constant.
LLVMValueRef unit_constant(Unit *u, LLVMValueRef init, const char *symbol);
// A string as one, NUL-terminated; the null pointer for NULL.
LLVMValueRef unit_string(Unit *u, const char *s);
// A private constant array of n elements; the null pointer when n is 0.
LLVMValueRef unit_table(Unit *u, LLVMTypeRef elem, LLVMValueRef *v, int n, const char *symbol);
// A function under construction: u->b stands in its first block.
LLVMValueRef unit_function(Unit *u, const char *symbol, LLVMTypeRef type, LLVMLinkage linkage);
// Declares a function of the runtime.
LLVMValueRef unit_extern(Unit *u, const char *symbol, LLVMTypeRef type);
// The function of a kernel, emitted when its spec is new to the module.
LLVMValueRef unit_kernel(Unit *u, const KernelSpec *spec);

// ---- driver.c, model.c, peak.c, wrappers.c -----------------------------------------------------
// void <program>_run(frame, thread, nthreads): the whole schedule.
LLVMValueRef emit_program(Unit *u, const Schedule *s);
// The CnxrtModel with its programs, and the private ones of its training models.
LLVMValueRef emit_model(Unit *u, const CodegenModel *model, const char *symbol);
LLVMValueRef emit_peak_loop(Unit *u);
// int main(argc, argv) of executables. versions: the list for cnxrt_pick.
void emit_main(Unit *u, LLVMValueRef versions);
// NAME_create, NAME_infer, ... of libraries, whose versions are all like m.
void emit_wrappers(Unit *u, LLVMValueRef versions, const CodegenModel *m);

// ---- freestanding.c ----------------------------------------------------------------------------
// NAME_infer, NAME_embed and NAME_features of an object that needs no other code.
void emit_freestanding(Unit *u, const CodegenModel *m);
typedef struct {
    int64_t bytes, per_image; // for one image; for every further one
} FreestandingMemory;
FreestandingMemory freestanding_memory(const CodegenModel *m);

// ---- jit.c ------------------------------------------------------------------------------------
// Defines the calls to the runtime that a single thread without profile never makes.
void unit_close_externs(Unit *u);
// The address of an external function of the module, linked into this process; NULL: *why.
void *unit_load(Unit *u, const char *symbol, const char **why);

// ---- header.c ---------------------------------------------------------------------------------
// The C header of a library, documented for its users, or of a freestanding object.
void header_print(Str *out, const char *name, const CodegenModel *model, bool freestanding);

// ---- model.c ----------------------------------------------------------------------------------
// The buffer of an input or output port, by number or by name; NULL when there is none.
const Buffer *schedule_port(const Schedule *s, Region region, int port);
int schedule_ports(const Schedule *s, Region region);                       // how many
int schedule_port_find(const Schedule *s, Region region, const char *name); // -1: none
enum { MAX_PORTS = 60 };
// Output ports in the order of parameters of NAME_features: stages, pooled, logits. Their number.
int schedule_feature_ports(const Schedule *s, int ports[MAX_PORTS]);
Schedule *model_program(const CodegenModel *m, const char *name); // NULL: none

// ---- link.c -----------------------------------------------------------------------------------
// An artifact under construction.
typedef struct {
    Arena *arena;
    Diag *diag;
    const CodegenOptions *opt;
    const CodegenModel *model; // one version of it; all share weights and interface
    const Target *target;      // that version's
    const char *name;          // prefix of exported symbols
    const char *dir;           // where its parts are made
    VEC(char *) objects;       // one per target, in dir
} Artifact;
// Makes the artifact opt->out of kind opt->emit from its objects and the weights of the model, when
// it has any.
bool link_artifact(const Artifact *f);
bool file_write(const char *path, const void *data, size_t n, Diag *d);

#endif
