// Exported functions: main() of executables, NAME_create and friends of libraries. Each hands the
// list of versions, or the caller's pointers by output port, to the runtime (runtime/library.h).
#include "module.h"

enum { MAX_PARAMS = 64 };

static LLVMTypeRef function_type(Unit *u, LLVMTypeRef result, const char *params) {
    LLVMTypeRef t[MAX_PARAMS];
    unsigned n = 0;
    for (const char *p = params; *p; p++) t[n++] = *p == 'p' ? u->ptr : *p == 'i' ? u->i32 : u->i64;
    return LLVMFunctionType(result, t, n, 0);
}

static LLVMValueRef exported(Unit *u, const char *suffix, LLVMTypeRef type) {
    const char *symbol = arena_printf(u->arena, "%s_%s", u->name, suffix);
    return unit_function(u, symbol, type, LLVMExternalLinkage);
}

// NAME_suffix(params...) { return callee([first,] params...); }: params by letter, p i(32) l(64).
static void emit_forward(Unit *u, const char *suffix, const char *callee, LLVMTypeRef result,
                         LLVMValueRef first, const char *params) {
    LLVMValueRef fn = exported(u, suffix, function_type(u, result, params));
    LLVMValueRef args[MAX_PARAMS];
    unsigned n = 0;
    if (first) args[n++] = first;
    for (unsigned i = 0; i < LLVMCountParams(fn); i++) args[n++] = LLVMGetParam(fn, i);
    LLVMTypeRef type =
        function_type(u, result, arena_printf(u->arena, "%s%s", first ? "p" : "", params));
    LLVMValueRef r = LLVMBuildCall2(u->b, type, unit_extern(u, callee, type), args, n, "");
    if (result == u->none)
        LLVMBuildRetVoid(u->b);
    else
        LLVMBuildRet(u->b, r);
}

// int NAME_suffix(m, batch, images, float *x...): runs a program with x... as its outputs number
// ports[0..n), the other outputs NULL.
static void emit_runner(Unit *u, const char *suffix, const Schedule *s, const int *ports, int n) {
    char params[MAX_PARAMS] = "plp";
    for (int i = 0; i < n; i++) params[3 + i] = 'p';
    LLVMValueRef fn = exported(u, suffix, function_type(u, u->i32, params));
    int total = schedule_ports(s, REGION_OUTPUT);
    LLVMTypeRef array = LLVMArrayType2(u->ptr, (uint64_t)total);
    LLVMValueRef outputs = LLVMBuildAlloca(u->b, array, "outputs");
    for (int port = 0; port < total; port++) {
        LLVMValueRef value = LLVMConstPointerNull(u->ptr), index = unit_i64(u, port);
        for (int i = 0; i < n; i++)
            if (ports[i] == port) value = LLVMGetParam(fn, (unsigned)(3 + i));
        LLVMBuildStore(u->b, value, LLVMBuildInBoundsGEP2(u->b, u->ptr, outputs, &index, 1, ""));
    }
    LLVMTypeRef type = function_type(u, u->i32, "pplpp");
    LLVMValueRef args[5] = {LLVMGetParam(fn, 0), unit_string(u, s->name), LLVMGetParam(fn, 1),
                            LLVMGetParam(fn, 2), outputs};
    LLVMValueRef callee = unit_extern(u, "cnxrt_library_run", type);
    LLVMBuildRet(u->b, LLVMBuildCall2(u->b, type, callee, args, 5, ""));
}

static void emit_one_output(Unit *u, const char *suffix, const Schedule *s, const char *output) {
    int port = schedule_port_find(s, REGION_OUTPUT, output);
    if (port >= 0) emit_runner(u, suffix, s, &port, 1);
}

void emit_wrappers(Unit *u, LLVMValueRef versions, const CodegenModel *m) {
    emit_forward(u, "create", "cnxrt_library_create", u->i32, versions, "pilppl");
    emit_forward(u, "clone", "cnxrt_library_clone", u->i32, NULL, "pilppl");
    emit_forward(u, "error", "cnxrt_library_error", u->ptr, NULL, "p");
    emit_forward(u, "class_names", "cnxrt_library_class_names", u->ptr, NULL, "p");
    emit_forward(u, "destroy", "cnxrt_library_destroy", u->none, NULL, "p");
    const Schedule *infer = model_program(m, "infer");
    if (infer) {
        emit_one_output(u, "infer", infer, "logits");
        emit_one_output(u, "embed", infer, "pooled");
    }
    const Schedule *features = model_program(m, "features");
    if (!features) return;
    int ports[MAX_PORTS], count = schedule_feature_ports(features, ports);
    emit_runner(u, "features", features, ports, count);
}

void emit_main(Unit *u, LLVMValueRef versions) {
    LLVMValueRef fn = unit_function(u, "main", function_type(u, u->i32, "ip"), LLVMExternalLinkage);
    LLVMTypeRef type = function_type(u, u->i32, "pip");
    LLVMValueRef args[3] = {versions, LLVMGetParam(fn, 0), LLVMGetParam(fn, 1)};
    LLVMValueRef callee = unit_extern(u, "cnxrt_main", type);
    LLVMBuildRet(u->b, LLVMBuildCall2(u->b, type, callee, args, 3, ""));
}
