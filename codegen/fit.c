// Tiles that fit into registers. The scheduler chooses them by a model of the register file
// (passes/sched_tile.c); what LLVM's allocator makes of them is looked at here, in every module:
//
//   emit -> has a kernel with a tile a stack slot for a vector? -> that kernel alone, as assembly:
//   do its loops spill? -> the largest smaller tile whose loops do not -> fill and emit once more
//
// Slots are remarks of LLVM's pass stack-frame-layout, which cost next to nothing, so a module
// whose tiles fit is emitted once. Tiles lie inside kernels: a smaller one has the same operands
// and takes the same rows and columns. Where none of them helps, the scheduled one stays.
#include "kernel.h"
#include "module.h"
#include <limits.h>
#include <llvm-c/Support.h>
#include <stdlib.h>

enum { TRIES = 5 }; // an eighth less each time: below half a tile, spills cost less

// ---- stack frames ------------------------------------------------------------------------------
// A slot is "Type: Spill, Align: 64, Size: 64", of a scalable vector "Size: vscale x 16". Addresses
// take eight bytes, single numbers of f32 four.
static bool has_vector_slot(const char *frame) {
    static const char scalable[] = "vscale x ";
    for (const char *at = frame; (at = strstr(at, "Type: Spill,")) != NULL;) {
        at = strstr(at, "Size: ");
        if (!at) return false;
        at += strlen("Size: ");
        bool scales = strncmp(at, scalable, strlen(scalable)) == 0;
        long bytes = strtol(scales ? at + strlen(scalable) : at, NULL, 10);
        if (scales ? bytes >= 8 : bytes == 4 || bytes > 8) return true;
    }
    return false;
}

static void note_frame(Unit *u, const char *frame) {
    static const char title[] = "Function: ";
    const char *name = strstr(frame, title);
    if (!name || !has_vector_slot(frame)) return;
    name += strlen(title);
    vec_push(u->arena, &u->spilled, arena_strndup(u->arena, name, strcspn(name, "\n")));
}

static void on_message(LLVMDiagnosticInfoRef info, void *unit) {
    LLVMDiagnosticSeverity severity = LLVMGetDiagInfoSeverity(info);
    char *text = LLVMGetDiagInfoDescription(info);
    if (severity == LLVMDSError) ice((Loc){0}, "LLVM: %s", text);
    if (severity == LLVMDSRemark)
        note_frame(unit, text);
    else
        fprintf(stderr, "LLVM: %s\n", text);
    LLVMDisposeMessage(text);
}

void unit_watch_frames(Unit *u) {
    static bool asked; // on purpose: LLVM takes this from its command line alone, once a process
    static const char *const args[] = {"cnxc", "-pass-remarks-analysis=^stack-frame-layout$"};
    if (!asked) LLVMParseCommandLineOptions(2, args, "");
    asked = true;
    LLVMContextSetDiagnosticHandler(u->ctx, on_message, u);
}

// Functions of a kernel are SYMBOL and SYMBOL.PART, or KIND.PART where kernels share them.
static bool is_part(const char *function, const char *name) {
    size_t n = strlen(name);
    return strncmp(function, name, n) == 0 && (!function[n] || function[n] == '.');
}

static bool is_suspect(const Unit *u, const Shared *k) {
    for (int i = 0; i < u->spilled.n; i++)
        if (is_part(u->spilled.v[i], k->symbol) ||
            is_part(u->spilled.v[i], kernel_info[k->spec->kind].name))
            return true;
    return false;
}

// ---- tiles -------------------------------------------------------------------------------------
// The attribute that says how large the tile is; false: no smaller one would do the same.
static bool tile_attr(const KernelSpec *s, AttrId *id) {
    switch (s->kind) {
    case K_GEMM:
    case K_GEMM_DW: *id = A_mr; return !spec_int(s, A_tiles);
    case K_DWCONV:
    case K_DWCONV_DW:
    case K_DWCONV_PACKED:
    case K_DWCONV_PACKED_DW: *id = A_tile; return true;
    default: return false;
    }
}

// 0: nothing is smaller. Units of gemm_dw and its packed operands are cut by multiples of its tile,
// which are multiples of a divisor, too.
static int64_t smaller(KernelKind kind, int64_t size) {
    if (kind != K_GEMM_DW) return size - (size + 7) / 8;
    int64_t divisor = size / 2;
    while (divisor > 1 && size % divisor) divisor--;
    return divisor;
}

static const KernelSpec *with_tile(Arena *a, const KernelSpec *s, AttrId id, int64_t size) {
    Attr *attrs = NEWN(a, Attr, s->nattrs);
    for (int i = 0; i < s->nattrs; i++) {
        attrs[i] = s->attrs[i];
        if (attrs[i].id == id) attrs[i].i = size;
    }
    KernelSpec *copy = NEW(a, KernelSpec);
    *copy = (KernelSpec){s->kind, attrs, s->nattrs};
    return copy;
}

// The module as LLVM makes it; u->spilled becomes the functions with slots for vectors.
static LLVMMemoryBufferRef emit_once(Unit *u, LLVMCodeGenFileType kind, const char **why) {
    char *message = NULL;
    LLVMMemoryBufferRef out = NULL;
    u->spilled.n = 0;
    if (!LLVMTargetMachineEmitToMemoryBuffer(u->machine, u->mod, kind, &message, &out)) return out;
    *why = arena_strdup(u->arena, message);
    LLVMDisposeMessage(message);
    return NULL;
}

// Spills in the loops of a kernel.
static int kernel_spills(const Unit *u, const KernelSpec *spec) {
    Arena *own = arena_new();
    Unit *alone = unit_new(own, "fit", u->target, u->opt_level, u->diag);
    const char *why = "no machine";
    LLVMMemoryBufferRef text = NULL;
    if (alone) {
        LLVMSetLinkage(unit_kernel(alone, spec), LLVMExternalLinkage);
        LLVMSetTargetMachineAsmVerbosity(alone->machine, 1);
        text = emit_once(alone, LLVMAssemblyFile, &why);
    }
    if (!text) ice((Loc){0}, "%s cannot be listed: %s", spec_print(own, spec), why);
    int spills = codegen_loop_spills(LLVMGetBufferStart(text));
    LLVMDisposeMemoryBuffer(text);
    unit_free(alone);
    arena_free(own);
    return spills;
}

// The largest smaller tile whose loops do not spill. NULL: those of the kernel do not, or the tile
// is not why.
static const KernelSpec *fitting(const Unit *u, const KernelSpec *spec) {
    AttrId id;
    if (!tile_attr(spec, &id)) return NULL;
    int spills = kernel_spills(u, spec), before = INT_MAX;
    int64_t size = spec_int(spec, id);
    for (int i = 0; i < TRIES && spills && spills < before; i++) {
        size = smaller(spec->kind, size);
        if (size == 0) break;
        const KernelSpec *s = with_tile(u->arena, spec, id, size);
        before = spills;
        spills = kernel_spills(u, s);
        if (spills == 0) return s;
    }
    return NULL;
}

// ---- modules -----------------------------------------------------------------------------------
// True when a kernel shall have a smaller tile than before.
static bool unit_fit(Unit *u) {
    bool any = false;
    for (int i = 0; i < u->kernels.n; i++) {
        Shared *k = &u->kernels.v[i];
        const KernelSpec *spec = is_suspect(u, k) ? fitting(u, k->spec) : NULL;
        if (!spec) continue;
        k->spec = spec;
        any = true;
    }
    return any;
}

LLVMMemoryBufferRef unit_emit(Unit *u, LLVMCodeGenFileType kind, const char **why) {
    LLVMMemoryBufferRef out = emit_once(u, kind, why);
    if (!out || !unit_fit(u)) return out;
    LLVMDisposeMemoryBuffer(out);
    unit_refill(u);
    return emit_once(u, kind, why);
}

bool unit_emit_object(Unit *u, const char *path) {
    const char *why = "";
    LLVMMemoryBufferRef object = unit_emit(u, LLVMObjectFile, &why);
    if (!object) {
        diag_error(u->diag, (Loc){0}, "cannot write %s: %s", path, why);
        return false;
    }
    bool ok = file_write(path, LLVMGetBufferStart(object), LLVMGetBufferSize(object), u->diag);
    LLVMDisposeMemoryBuffer(object);
    return ok;
}

bool unit_emit_text(Unit *u, Str *out) {
    const char *why = "";
    LLVMSetTargetMachineAsmVerbosity(u->machine, 1);
    LLVMMemoryBufferRef text = unit_emit(u, LLVMAssemblyFile, &why);
    if (!text) {
        diag_error(u->diag, (Loc){0}, "cannot print assembly: %s", why);
        return false;
    }
    str_addn(out, LLVMGetBufferStart(text), LLVMGetBufferSize(text));
    LLVMDisposeMemoryBuffer(text);
    return true;
}
