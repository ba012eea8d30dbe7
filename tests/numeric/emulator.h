// Runs generated code on another machine: CNX_EMULATE="ROW COMMAND..." names a row of the target
// table and how to start emulated/server.c for it. Kernels and programs are then written as shared
// objects and called there; the memory they work on is shared with the server at one address.
#ifndef CNX_TESTS_EMULATOR_H
#define CNX_TESTS_EMULATOR_H
#include "../../codegen/codegen.h"
#include "emulated/request.h"
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

static struct {
    const Target *target; // NULL: code runs in this process
    char *memory;
    size_t used;
    int to, from; // pipes
    char dir[64];
    int objects;
} emulator;

static inline bool emulated(void) { return emulator.target != NULL; }

// ---- set-up ------------------------------------------------------------------------------------
static inline void emulator_memory(int *fd) {
    *fd = memfd_create("operands", 0);
    if (*fd < 0 || ftruncate(*fd, (off_t)SHARED_BYTES)) fail_msg("no shared memory");
    void *want = (void *)(uintptr_t)SHARED_AT;
    emulator.memory =
        mmap(want, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, *fd, 0);
    if (emulator.memory != want) fail_msg("address %p is taken", want);
}

// Starts the server if CNX_EMULATE asks for one; its row is then emulator.target.
static inline void emulator_start(Arena *a) {
    const char *text = getenv("CNX_EMULATE");
    if (!text || emulated()) return;
    char *words[32], *copy = arena_strdup(a, text);
    int n = 0, fd = -1, in[2], out[2];
    for (char *w = strtok(copy, " "); w && n < 30; w = strtok(NULL, " ")) words[n++] = w;
    if (n < 2) fail_msg("CNX_EMULATE is \"%s\"", text);
    emulator_memory(&fd);
    words[n++] = arena_printf(a, "%d", fd);
    words[n] = NULL;
    if (pipe(in) || pipe(out)) fail_msg("no pipes");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addclose(&actions, in[1]);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    pid_t pid;
    if (posix_spawnp(&pid, words[1], &actions, NULL, words + 1, environ))
        fail_msg("cannot start %s", words[1]);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    emulator.to = in[1];
    emulator.from = out[0];
    strcpy(emulator.dir, "/tmp/cnx-emulated-XXXXXX");
    if (!mkdtemp(emulator.dir)) fail_msg("no directory for objects");
    emulator.target = target_find(words[0]);
    if (!emulated()) fail_msg("no target %s", words[0]);
}

static inline void emulator_stop(void) {
    if (!emulated()) return;
    close(emulator.to); // the server ends
    rmdir(emulator.dir);
}

// ---- memory ------------------------------------------------------------------------------------
// n bytes, 64-byte aligned, zero at first; shared when there is a server, else of the arena.
static inline void *operand_bytes(Arena *a, size_t n) {
    if (!emulated()) return arena_alloc(a, n);
    size_t at = emulator.used;
    emulator.used += (n + 63) / 64 * 64;
    if (emulator.used > SHARED_BYTES) fail_msg("%zu bytes of operands", emulator.used);
    return emulator.memory + at;
}

// Between cases: all operand_bytes are given back and zero again.
static inline void operands_reset(void) {
    if (emulated()) memset(emulator.memory, 0, emulator.used);
    emulator.used = 0;
}

// n bytes of NaNs, so that what is read before it is written shows; block_free gives them back.
static inline char *block_new(int64_t n) {
    size_t size = ((size_t)n + 64 + 63) / 64 * 64;
    char *p = emulated() ? operand_bytes(NULL, size) : aligned_alloc(64, size);
    assert_non_null(p);
    memset(p, 0xff, size);
    return p;
}

static inline void block_free(void *p) {
    if (!emulated()) free(p);
}

// ---- calls -------------------------------------------------------------------------------------
static inline void emulator_tool(const char *const *argv) {
    pid_t pid;
    int status = 1;
    if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ) ||
        waitpid(pid, &status, 0) < 0 || status != 0)
        fail_msg("%s failed", argv[0]);
}

static inline const char *emulator_path(Arena *a, const char *extension) {
    return arena_printf(a, "%s/%d.%s", emulator.dir, emulator.objects, extension);
}

// The path of the next object file to write.
static inline const char *emulator_object(Arena *a) {
    emulator.objects++;
    return emulator_path(a, "o");
}

// Links the object written last to a shared one and returns its path.
static inline const char *emulator_link(Arena *a) {
    const char *object = emulator_path(a, "o"), *shared = emulator_path(a, "so");
    size_t arch = strcspn(emulator.target->triple, "-");
    const char *ld = arena_printf(a, "%.*s-linux-gnu-ld", (int)arch, emulator.target->triple);
    emulator_tool((const char *const[]){ld, "-shared", "-o", shared, object, NULL});
    unlink(object);
    return shared;
}

static inline void emulator_call(const char *shared, const char *symbol, void *first, int64_t a,
                                 int64_t b, int64_t c, int64_t d) {
    Request r = {.first = (uint64_t)(uintptr_t)first, .args = {a, b, c, d}};
    snprintf(r.object, sizeof r.object, "%s", shared);
    snprintf(r.symbol, sizeof r.symbol, "%s", symbol);
    char done = 0;
    if (write(emulator.to, &r, sizeof r) != (ssize_t)sizeof r || read(emulator.from, &done, 1) != 1)
        fail_msg("the server of %s died in %s", emulator.target->name, symbol);
}

// Runs a program there. Blocks of the frame and of its ports are operand_bytes.
static inline void emulator_run(Arena *a, const Schedule *s, const CnxrtFrame *frame, Diag *d) {
    const char *why = codegen_program_object(a, s, emulator_object(a), d);
    if (!why) fail_msg("no object of program %s", s->name);
    const char *shared = emulator_link(a);
    enum { PORTS = 16 };
    struct {
        CnxrtFrame frame;
        const void *in[PORTS], *out[PORTS];
    } *there = operand_bytes(a, sizeof *there);
    there->frame = *frame;
    int nin = 0, nout = 0;
    for (int i = 0; i < s->buffers.n; i++) {
        Region region = s->buffers.v[i].region;
        int port = s->buffers.v[i].port;
        if (region == REGION_INPUT) there->in[port] = frame->inputs[port], nin++;
        if (region == REGION_OUTPUT) there->out[port] = frame->outputs[port], nout++;
    }
    if (nin > PORTS || nout > PORTS) fail_msg("%d inputs, %d outputs", nin, nout);
    there->frame.inputs = there->in;
    there->frame.outputs = (void *const *)there->out;
    emulator_call(shared, why, there, 0, 1, 0, 0);
    unlink(shared);
}
#endif
