// Registers that LLVM's allocator kept on the stack, read off a listing with LLVM's comments: an
// instruction that does so ends with "32-byte Spill", "8-byte Folded Reload", of a scalable
// register "vscale x 16-byte Spill" or, LLVM 19, "Unknown-size Folded Spill"; the head of a block
// says which loop it lies in.
#include "codegen.h"
#include <ctype.h>

static const char *find(const char *line, size_t n, const char *what) {
    return memmem(line, n, what, strlen(what));
}

// The label of a function.
static bool is_function(const char *line, size_t n) {
    return (isalpha((unsigned char)line[0]) || line[0] == '_') && memchr(line, ':', n);
}

// ---- instructions ------------------------------------------------------------------------------
typedef enum {
    NO_SPILL,
    OF_VECTOR,
    OF_FLOAT, // eight bytes of a vector register: what a prologue saves, or a spill
    OF_OTHER
} Spill;

static Spill x86_spill(const char *line, size_t n) {
    static const char *const names[] = {"%xmm", "%ymm", "%zmm", "%k"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (find(line, n, names[i])) return OF_VECTOR;
    return OF_OTHER;
}

// A register is named by the letter of its width.
static Spill arm_spill(char letter) {
    return letter == 'd' ? OF_FLOAT : strchr("qszvp", letter) ? OF_VECTOR : OF_OTHER;
}

static Spill riscv_spill(const char *name) {
    if (*name == 'v') return OF_VECTOR;
    if (*name != 'f') return OF_OTHER;
    return name[2] == 'd' ? OF_FLOAT : OF_VECTOR; // fsd, fld; fsw, flw
}

static bool is_spill(const char *line, size_t n) {
    static const char *const marks[] = {"-byte Spill", "-byte Reload", "-byte Folded ",
                                        "Unknown-size Folded "};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (find(line, n, marks[i])) return true;
    return false;
}

static Spill spill_of(const char *line, size_t n) {
    if (!is_spill(line, n)) return NO_SPILL;
    const char *name = line + strspn(line, " \t"), *operand = name + strcspn(name, " \t");
    operand += strspn(operand, " \t");
    if (memchr(line, '%', n)) return x86_spill(line, n);
    return memchr(line, '[', n) ? arm_spill(*operand) : riscv_spill(name);
}

static bool is_call(const char *line) {
    static const char *const names[] = {"call", "bl\t", "blr\t", "jalr\t"};
    const char *name = line + strspn(line, " \t");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0) return true;
    return false;
}

int codegen_spills(const char *assembly, const char *prefix) {
    size_t n = strlen(prefix);
    bool inside = false;
    int count = 0;
    for (const char *line = assembly; *line;) {
        size_t length = strcspn(line, "\n");
        if (is_function(line, length)) inside = strncmp(line, prefix, n) == 0;
        count += inside && spill_of(line, length) == OF_VECTOR;
        line += length + (line[length] == '\n');
    }
    return count;
}

// ---- loops -------------------------------------------------------------------------------------
typedef struct {
    const char *head; // "BB0_3" of its first block, up to another character
    bool inner, calls;
    int vectors, others;
} AsmLoop;

typedef struct {
    Arena *arena;
    VEC(AsmLoop) loops;
    int parts; // vectors outside loops, of functions KERNEL_0.WHAT
} Survey;

static bool same_head(const char *a, const char *b) {
    size_t n = strspn(a, "BB_0123456789");
    return n == strspn(b, "BB_0123456789") && strncmp(a, b, n) == 0;
}

static int loop_at(Survey *s, const char *head) {
    for (int i = s->loops.n - 1; i >= 0; i--)
        if (same_head(s->loops.v[i].head, head)) return i;
    vec_push(s->arena, &s->loops, ((AsmLoop){.head = head}));
    return s->loops.n - 1;
}

// The loop that a line of a block's head names, or `loop`; `label` is that of the block.
static int loop_named(Survey *s, const char *line, size_t n, const char *label, int loop) {
    static const char in[] = "in Loop: Header=";
    const char *at = find(line, n, in);
    if (at) return loop_at(s, at + strlen(in));
    if (!find(line, n, "Loop Header: Depth=")) return loop;
    loop = loop_at(s, label);
    s->loops.v[loop].inner = find(line, n, "Inner Loop Header") != NULL;
    return loop;
}

static void survey(Survey *s, const char *assembly) {
    bool part = false;
    int loop = -1;
    const char *label = "";
    for (const char *line = assembly; *line;) {
        size_t n = strcspn(line, "\n");
        if (is_function(line, n)) part = memchr(line, '.', strcspn(line, ":")) != NULL;
        bool block = strncmp(line, ".LBB", 4) == 0;
        if (block || is_function(line, n) || find(line, n, "%bb.")) loop = -1;
        if (block) label = line + 2;
        loop = loop_named(s, line, n, label, loop);
        Spill spill = spill_of(line, n);
        if (loop >= 0) {
            AsmLoop *l = &s->loops.v[loop];
            l->calls |= is_call(line);
            l->vectors += spill == OF_VECTOR || spill == OF_FLOAT;
            l->others += spill == OF_OTHER;
        } else {
            s->parts += part && spill == OF_VECTOR;
        }
        line += n + (line[n] == '\n');
    }
}

typedef struct {
    int loops, parts, inner;
} Count;

static Count count_of(const char *assembly) {
    Arena *own = arena_new();
    Survey s = {.arena = own};
    survey(&s, assembly);
    Count c = {.parts = s.parts};
    for (int i = 0; i < s.loops.n; i++) {
        c.loops += s.loops.v[i].vectors;
        if (s.loops.v[i].inner && !s.loops.v[i].calls) c.inner += s.loops.v[i].others;
    }
    arena_free(own);
    return c;
}

int codegen_loop_spills(const char *assembly) { return count_of(assembly).loops; }

int codegen_hot_spills(const char *assembly) {
    Count c = count_of(assembly);
    return c.loops + c.parts;
}

int codegen_inner_spills(const char *assembly) { return count_of(assembly).inner; }
