// The driver and the engine together: a hand-written schedule is compiled into a shared library
// with embedded weights, loaded, and run by sessions over threads, batches, missing outputs and
// shared weights. Every region, every way to split a step and both kinds of table entries occur in
// it.
#include "codegen/codegen.h"
#include "runtime/cnxrt.h"
#include "runtime/cpu.h"
#include "runtime/memory.h"
#include <dlfcn.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

enum { H = 5, W = 3, C = 20, ROWS = H * W, WEIGHTS = 128 };

// y = x + bias through scratch, blocks of 4 of 15 rows and of 16 of 20 columns; z = y + x over all
// rows of the batch; pooled = mean of z; again = z + y.
static const char *const program =
    "schedule infer target=\"TARGET\" fixed 64 image 2496 scratch 1216 weights 128 {\n"
    "  buffer b0 \"image\" input 0 : f32[B,5,3,20]\n"
    "  buffer b1 \"bias\" weight +0 : f32[20]\n"
    "  buffer b2 \"tmp\" scratch +0 bytes 1216 live 0..0\n"
    "  buffer b3 \"y\" image +0 : f32[B,5,3,20] live 0..3\n"
    "  buffer b4 \"z\" image +1216 : f32[B,5,3,20] live 1..3\n"
    "  buffer b5 \"pooled\" output 0 : f32[B,20]\n"
    "  buffer b6 \"again\" output 1 : f32[B,5,3,20]\n"
    "  buffer b7 \"one\" fixed +0 : f32[16] live 0..0\n"
    "  step \"y\" image rows 15/4 cols 20/16 {\n"
    "    copy {n=20} (b0, b2 row 80)\n"
    "    eltwise {n=20, epilogue=[bias]} (b2 row 80, b3, b1) \"y\" macs 7\n"
    "  }\n"
    "  step \"z\" flat rows 15/7 cols 20/20 {\n"
    "    eltwise {n=20, epilogue=[add]} (b3, b4, b0) \"z\" macs 5\n"
    "  }\n"
    "  step \"pool\" image rows 1/1 cols 20/20 {\n"
    "    pool {m=15, n=20} (b4, b5)\n"
    "  }\n"
    "  step \"again\" flat rows 15/7 cols 20/20 {\n"
    "    eltwise {n=20, epilogue=[add]} (b4, b6, b3)\n"
    "  }\n"
    "}\n";

typedef struct {
    Arena *arena;
    void *library;
    const CnxrtModel *model;
    char dir[64];
    float bias[WEIGHTS / 4];
} Fixture;

static const char *with_target(Arena *a, const Target *t) {
    const char *at = strstr(program, "TARGET");
    return arena_printf(a, "%.*s%s%s", (int)(at - program), program, t->name, at + 6);
}

static Schedule *parse(Arena *a, Diag *d) {
    const Target *t = codegen_native_target(a);
    if (!t) return NULL;
    const char *text = with_target(a, t);
    Schedule *s = schedule_parse(a, d, "engine.ir", text, strlen(text));
    if (s) s->target = t;
    return s;
}

enum { PARAMS = 2 };
static const float groups[2 * PARAMS] = {0.5f, 1, 0.25f, 0};
static const CnxrtRecipe recipes[] = {
    {.name = "slow",
     .kind = CNXRT_TRAIN,
     .batch = 8,
     .base_lr = 1e-3,
     .lr = 2e-3,
     .min_lr = 3e-3,
     .weight_decay = 0.04,
     .beta1 = 0.5,
     .beta2 = 0.6,
     .eps = 0.7,
     .clip = 0.8,
     .epochs = 9.5,
     .warmup_epochs = 1.5,
     .drop_path = 0.11,
     .label_smoothing = 0.12,
     .mixup = 0.13,
     .cutmix = 0.14,
     .mix_switch = 0.15,
     .ema = 0.16,
     .head_init_scale = 0.17,
     .crop_scale = {0.18, 0.19},
     .crop_ratio = {0.2, 0.21},
     .flip = 0.22,
     .erase = 0.23,
     .rand_augment = "m9",
     .interpolation = "bilinear",
     .groups = groups},
    {.name = "plain", .kind = CNXRT_FINETUNE, .interpolation = "bicubic", .groups = groups}};
static const CnxrtDrop drops[] = {{2, 0.5}, {3, 1}};
static const CnxrtFcmae fcmae = {.grid = {3, 4},
                                 .mask_unit = 2,
                                 .stride = {5, 6},
                                 .units = 12,
                                 .keep = 7,
                                 .norm_pix = 1,
                                 .packed = 1,
                                 .mask_ratio = 0.4};

// Training models around the same program: only their tables matter.
static void add_training(Fixture *f, CodegenModel *m) {
    CodegenModel *train = NEWN(f->arena, CodegenModel, 2), *pretrain = train + 1;
    struct CodegenParam *params = NEWN(f->arena, struct CodegenParam, PARAMS);
    Dim d[] = {dim_c(3), dim_c(2)};
    params[0] = (struct CodegenParam){"w", type_make(DT_F32, 2, d), 0, CNXRT_INIT_NORMAL, 0.02};
    params[1] = (struct CodegenParam){"b", type_make(DT_F32, 1, d), 64, CNXRT_INIT_CONSTANT, 1};
    *train = *m;
    train->embedded = NULL;
    train->params = params;
    train->nparams = PARAMS;
    *pretrain = *train;
    train->recipes = recipes;
    train->nrecipes = 2;
    train->drops = drops;
    train->ndrops = 2;
    train->loss = 1;
    pretrain->fcmae = &fcmae;
    m->train = train;
    m->pretrain = pretrain;
}

static CodegenModel describe(Fixture *f) {
    static const float mean[] = {0.5f}, std[] = {0.25f};
    for (int i = 0; i < C; i++) f->bias[i] = (float)(100 * i);
    return (CodegenModel){.name = "engine",
                          .precision = "fp32",
                          .channels = 1,
                          .height = H,
                          .width = W,
                          .mean = mean,
                          .std = std,
                          .crop_pct = 0.875,
                          .interpolation = "bicubic",
                          .class_names = "a\nb",
                          .weight_bytes = WEIGHTS,
                          .embedded = f->bias};
}

static int setup(void **state) {
    Fixture *f = calloc(1, sizeof *f);
    *state = f;
    f->arena = arena_new();
    strcpy(f->dir, "/tmp/cnx-engine-XXXXXX");
    Diag *d = diag_new(f->arena, stderr);
    Schedule *s = parse(f->arena, d);
    if (!s || !mkdtemp(f->dir)) return -1;
    const char *why = schedule_verify(s);
    if (why) fprintf(stderr, "%s\n", why);
    CodegenModel model = describe(f);
    model.schedules = &s;
    model.nschedules = 1;
    add_training(f, &model);
    CodegenOptions o = {.out = arena_printf(f->arena, "%s/libengine.so", f->dir),
                        .emit = EMIT_SHARED,
                        .cc = "cc",
                        .runtime_dir = CNX_BINARY_DIR,
                        .opt_level = 2};
    if (why || !codegen_build(f->arena, (const CodegenModel *[]){&model}, 1, &o, d)) return -1;
    f->library = dlopen(o.out, RTLD_NOW);
    const CnxrtModel *const *versions = f->library ? dlsym(f->library, "engine_versions") : NULL;
    if (versions && !versions[1]) f->model = versions[0];
    return f->model ? 0 : -1;
}

static int teardown(void **state) {
    Fixture *f = *state;
    if (f->library) dlclose(f->library);
    unlink(arena_printf(f->arena, "%s/libengine.so", f->dir));
    unlink(arena_printf(f->arena, "%s/engine.h", f->dir));
    int left = rmdir(f->dir); // fails when a temporary file was left behind
    arena_free(f->arena);
    free(f);
    return left;
}

// ---- running -----------------------------------------------------------------------------------
static float pixel(int64_t i) { return (float)((i * 7 + 3) % 1000); }

static CnxrtSession *open_session(const Fixture *f, CnxrtOptions o) {
    CnxrtSession *s = NULL;
    CnxrtError err = {0};
    CnxrtStatus status = cnxrt_create(f->model, &o, &s, &err);
    if (err.text) fail_msg("%s", err.text);
    assert_int_equal(status, CNXRT_OK);
    return s;
}

// Small integers, so every sum is exact (a mean of 15 is not).
static void check_run(CnxrtSession *s, int64_t batch, bool pooled, bool again) {
    size_t n = (size_t)batch * ROWS * C;
    float *x = malloc(n * sizeof *x), *out = malloc(n * sizeof *x);
    float *mean = malloc((size_t)batch * C * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = pixel((int64_t)i);
    CnxrtError err = {0};
    const CnxrtProgram *p = cnxrt_program(cnxrt_model(s), "infer");
    assert_int_equal(cnxrt_run(s, p, batch, (const void *[]){x},
                               (void *[]){pooled ? mean : NULL, again ? out : NULL}, &err),
                     CNXRT_OK);
    for (size_t i = 0; again && i < n; i++)
        if (out[i] != 3 * x[i] + 200 * (float)(i % C)) fail_msg("again[%zu] is %g", i, out[i]);
    for (int64_t i = 0; pooled && i < batch * C; i++) {
        double sum = 0;
        for (int64_t r = 0; r < ROWS; r++) sum += (double)x[(i / C * ROWS + r) * C + i % C];
        double want = 2 * sum / ROWS + 100.0 * (double)(i % C);
        if ((double)mean[i] < want - 1e-3 || (double)mean[i] > want + 1e-3)
            fail_msg("pooled[%lld] is %g, not %g", (long long)i, (double)mean[i], want);
    }
    free(x), free(out), free(mean);
}

static void batches_and_threads(void **state) {
    for (int threads = 1; threads <= 5; threads++)
        for (int64_t max_batch = 1; max_batch <= 4; max_batch++) {
            CnxrtSession *s =
                open_session(*state, (CnxrtOptions){.threads = threads, .max_batch = max_batch});
            for (int64_t batch = 1; batch <= 9; batch++) check_run(s, batch, true, true);
            cnxrt_destroy(s);
        }
}

static void outputs_left_out(void **state) {
    CnxrtSession *s = open_session(*state, (CnxrtOptions){.threads = 2, .max_batch = 3});
    for (int i = 0; i < 4; i++) check_run(s, 5, i & 1, i & 2);
    cnxrt_destroy(s);
}

// Every field of the tables of training arrives, whatever its place in the structs.
static void training_tables(void **state) {
    const CnxrtModel *m = ((Fixture *)*state)->model, *t = m->train, *p = m->pretrain;
    assert_non_null(t);
    assert_non_null(p);
    assert_true(!t->train && !t->pretrain && !t->embedded && t->abi == CNXRT_ABI);
    assert_true(!m->fcmae && !t->fcmae && m->nrecipes == 0 && m->ndrops == 0 && p->nrecipes == 0);
    assert_ptr_equal(t->peak_loop, m->peak_loop);
    assert_int_equal(t->nprograms, 1);
    assert_int_equal(t->loss, 1);
    assert_int_equal(t->nparams, PARAMS);
    assert_true(t->params[0].init == CNXRT_INIT_NORMAL && t->params[0].init_value == 0.02);
    assert_true(t->params[1].init == CNXRT_INIT_CONSTANT && t->params[1].init_value == 1);
    assert_int_equal(t->ndrops, 2);
    assert_memory_equal(t->drops, drops, sizeof drops);
    assert_memory_equal(p->fcmae, &fcmae, sizeof fcmae);
    assert_int_equal(t->nrecipes, 2);
    for (int i = 0; i < 2; i++) {
        CnxrtRecipe got = t->recipes[i], want = recipes[i];
        assert_string_equal(got.name, want.name);
        assert_string_equal(got.interpolation, want.interpolation);
        if (want.rand_augment) assert_string_equal(got.rand_augment, want.rand_augment);
        assert_int_equal(got.rand_augment != NULL, want.rand_augment != NULL);
        assert_memory_equal(got.groups, groups, sizeof groups);
        assert_int_equal(got.kind, want.kind);
        size_t from = offsetof(CnxrtRecipe, batch), to = offsetof(CnxrtRecipe, rand_augment);
        assert_memory_equal((char *)&got + from, (char *)&want + from, to - from);
    }
}

static void nothing_to_do(void **state) {
    CnxrtSession *s = open_session(*state, (CnxrtOptions){.threads = 2});
    CnxrtError err = {0};
    const CnxrtProgram *p = cnxrt_program(cnxrt_model(s), "infer");
    const void *in[] = {NULL};
    void *out[] = {NULL, NULL};
    assert_int_equal(cnxrt_run(s, p, 0, in, out, &err), CNXRT_OK);
    cnxrt_destroy(s);
}

static void shared_weights(void **state) {
    CnxrtSession *first = open_session(*state, (CnxrtOptions){.threads = 1});
    CnxrtSession *second = open_session(*state, (CnxrtOptions){.threads = 2, .share = first});
    cnxrt_destroy(first);
    check_run(second, 3, true, true);
    assert_string_equal(cnxrt_class_names(second), "a\nb");
    cnxrt_destroy(second);
}

static void profile(void **state) {
    CnxrtSession *s = open_session(*state, (CnxrtOptions){.threads = 2, .max_batch = 2});
    const CnxrtProgram *p = cnxrt_program(cnxrt_model(s), "infer");
    assert_int_equal(p->ncalls, 5);
    assert_int_equal(p->macs, 12);
    assert_string_equal(p->calls[1].label, "y");
    assert_int_equal(p->calls[1].macs, 7);
    assert_string_equal(p->calls[3].label, "pool");
    float x[2 * ROWS * C] = {0};
    double seconds[5] = {0};
    CnxrtError err = {0};
    const void *in[] = {x};
    void *out[] = {NULL, NULL};
    assert_int_equal(cnxrt_run_profiled(s, p, 2, in, out, seconds, &err), CNXRT_OK);
    for (int i = 0; i < 5; i++) assert_true(seconds[i] > 0 && seconds[i] < 1);
    assert_int_equal(cnxrt_run_profiled(s, p, 3, in, out, seconds, &err), CNXRT_ERROR_ARGUMENT);
    assert_non_null(strstr(err.text, "a batch of 3 with a session for 2"));
    cnxrt_error_free(&err);
    cnxrt_destroy(s);
}

static void description(void **state) {
    const Fixture *f = *state;
    const CnxrtModel *m = f->model;
    assert_int_equal(m->abi, CNXRT_ABI);
    assert_string_equal(m->name, "engine");
    assert_int_equal(m->height, H);
    assert_true(m->mean[0] == 0.5f && m->std[0] == 0.25f && m->crop_pct == 0.875);
    const CnxrtProgram *p = cnxrt_program(m, "infer");
    assert_int_equal(p->noutputs, 2);
    assert_string_equal(p->outputs[1].name, "again");
    assert_int_equal(p->outputs[1].rank, 3);
    assert_int_equal(p->outputs[1].dims[2], C);
    assert_int_equal(p->outputs[1].bytes, ROWS * C * 4);
    assert_null(cnxrt_program(m, "pretrain"));
    // arena + scratch of 2 threads + spare outputs (80 -> 128 and 1200 -> 1216) + weights
    assert_int_equal(cnxrt_planned_bytes(m, NULL, 3, 2),
                     64 + 3 * 2496 + 2 * 1216 + 3 * (128 + 1216) + WEIGHTS);
    assert_int_equal(cnxrt_planned_bytes(m, NULL, INT64_MAX / 8, 1), INT64_MAX);
    assert_true(cnxrt_peak_flops(m, 1, 0.01) > 1e8);
}

// ---- errors ------------------------------------------------------------------------------------
static void refused(const CnxrtModel *m, CnxrtOptions o, CnxrtStatus want, const char *text) {
    CnxrtSession *s = NULL;
    CnxrtError err = {0};
    assert_int_equal(cnxrt_create(m, &o, &s, &err), want);
    assert_null(s);
    if (!strstr(err.text, text)) fail_msg("'%s' does not say '%s'", err.text, text);
    cnxrt_error_free(&err);
}

static void creation_errors(void **state) {
    const CnxrtModel *m = ((Fixture *)*state)->model;
    refused(m, (CnxrtOptions){.threads = -1}, CNXRT_ERROR_ARGUMENT, "-1 threads");
    refused(m, (CnxrtOptions){.max_batch = -5}, CNXRT_ERROR_ARGUMENT, "batches of -5");
    refused(m, (CnxrtOptions){.programs = "infer,features"}, CNXRT_ERROR_ARGUMENT,
            "no program features");
    refused(m, (CnxrtOptions){.weights = "/nonexistent.pt"}, CNXRT_ERROR_IO, "/nonexistent.pt");
    refused(m, (CnxrtOptions){.max_batch = INT64_MAX / 100}, CNXRT_ERROR_MEMORY, "memory");
    CnxrtModel other = *m;
    other.abi = 99;
    refused(&other, (CnxrtOptions){0}, CNXRT_ERROR_ARGUMENT, "ABI 99");
    other = *m;
    other.embedded = NULL;
    refused(&other, (CnxrtOptions){0}, CNXRT_ERROR_ARGUMENT, "no embedded weights");
    other = *m;
    other.target_features = "avx2,no-such-feature";
    other.target = "x86-64-v9";
    refused(&other, (CnxrtOptions){0}, CNXRT_ERROR_CPU, "compiled for x86-64-v9 CPUs");
    refused(&other, (CnxrtOptions){0}, CNXRT_ERROR_CPU, "no-such-feature");
    assert_true(cnxrt_peak_flops(&other, 1, 0.01) == 0);
    CnxrtSession *s = open_session(*state, (CnxrtOptions){0});
    refused(&other, (CnxrtOptions){.share = s}, CNXRT_ERROR_CPU, "lacks");
    other.target_features = "";
    refused(&other, (CnxrtOptions){.share = s}, CNXRT_ERROR_ARGUMENT, "cannot be shared");
    cnxrt_destroy(s);
}

static void run_errors(void **state) {
    CnxrtSession *s = open_session(*state, (CnxrtOptions){0});
    const CnxrtProgram *p = cnxrt_program(cnxrt_model(s), "infer");
    const void *in[] = {NULL};
    void *out[] = {NULL, NULL};
    CnxrtError err = {0};
    assert_int_equal(cnxrt_run(s, p, 1, in, out, &err), CNXRT_ERROR_ARGUMENT);
    assert_non_null(strstr(err.text, "input image of program infer is NULL"));
    assert_int_equal(cnxrt_run(s, p, -1, in, out, &err), CNXRT_ERROR_ARGUMENT);
    assert_int_equal(cnxrt_run(s, NULL, 1, in, out, &err), CNXRT_ERROR_ARGUMENT);
    cnxrt_error_free(&err);
    cnxrt_destroy(s);
    cnxrt_destroy(NULL);
}

// Builds that fail say why and leave nothing behind.
static void build_fails(Fixture *f, CodegenOptions o, const char *text) {
    char *errors = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&errors, &size);
    Diag *d = diag_new(f->arena, stream);
    Schedule *s = parse(f->arena, d);
    CodegenModel model = describe(f);
    model.schedules = &s;
    model.nschedules = 1;
    assert_false(codegen_build(f->arena, (const CodegenModel *[]){&model}, 1, &o, d));
    fclose(stream);
    if (!strstr(errors, text)) fail_msg("'%s' does not say '%s'", errors, text);
    free(errors);
}

static void build_errors(void **state) {
    Fixture *f = *state;
    const char *out = arena_printf(f->arena, "%s/bad.so", f->dir);
    CodegenOptions o = {
        .out = out, .emit = EMIT_SHARED, .runtime_dir = CNX_BINARY_DIR, .opt_level = 2};
    o.cc = "no-such-compiler";
    build_fails(f, o, "cannot run the compiler no-such-compiler: No such file");
    o.cc = "false";
    build_fails(f, o, "cannot run the compiler false");
    o.cc = "cc";
    o.runtime_dir = "/nonexistent";
    build_fails(f, o, "/nonexistent/libcnxrt.a");
    o.runtime_dir = CNX_BINARY_DIR;
    o.out = "/nonexistent/dir/bad.so";
    build_fails(f, o, "cannot write /nonexistent/dir/bad.so: No such file or directory");
    o.emit = EMIT_ASM;
    build_fails(f, o, "cannot write /nonexistent/dir/bad.so");
    assert_int_not_equal(access(out, F_OK), 0);
}

static void lists(void **state) {
    (void)state;
    assert_true(cnxrt_program_listed(NULL, "infer"));
    assert_false(cnxrt_program_listed(NULL, "prepare"));
    assert_true(cnxrt_program_listed("a,infer,b", "infer"));
    assert_false(cnxrt_program_listed("a,inferx", "infer"));
    assert_false(cnxrt_program_listed("", "infer"));
    CnxrtError err = {0};
    assert_int_equal(cnxrt_cpu_check("t", "", &err), CNXRT_OK);
    assert_null(err.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_and_threads),
        cmocka_unit_test(outputs_left_out),
        cmocka_unit_test(nothing_to_do),
        cmocka_unit_test(training_tables),
        cmocka_unit_test(shared_weights),
        cmocka_unit_test(profile),
        cmocka_unit_test(description),
        cmocka_unit_test(creation_errors),
        cmocka_unit_test(run_errors),
        cmocka_unit_test(build_errors),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
