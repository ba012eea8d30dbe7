// Bump allocation in chunks, and what is built on it: growable arrays and text.
//
// Small requests are cut from the newest chunk; one that does not fit opens a new chunk, twice the
// size of the one before up to MAX_CHUNK. Big requests get a chunk of their own, so that the rest
// of the current one is not lost. Chunks come zeroed and memory is never given back within an
// arena, so every allocation is zero.
#include "arena.h"
#include <stdio.h>
#include <stdlib.h>

enum { MIN_CHUNK = 4 << 10, MAX_CHUNK = 1 << 20, WIDE_ALIGN = 64, ALIGN = 16 };

typedef struct Chunk {
    struct Chunk *next;
    size_t used, size; // of the bytes from the chunk's start, header included
} Chunk;

struct Arena {
    Chunk *head; // the chunk small requests are cut from
    size_t next_size;
};

static _Noreturn void out_of_memory(size_t size) {
    fprintf(stderr, "cnxc: out of memory (%zu bytes wanted)\n", size);
    abort();
}

static Chunk *chunk_new(size_t size) {
    Chunk *c = calloc(1, size);
    if (!c) out_of_memory(size);
    c->used = sizeof(Chunk);
    c->size = size;
    return c;
}

Arena *arena_new(void) {
    Arena *a = calloc(1, sizeof *a);
    if (!a) out_of_memory(sizeof *a);
    a->next_size = MIN_CHUNK;
    return a;
}

void arena_free(Arena *a) {
    if (!a) return;
    for (Chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(a);
}

// Cuts `size` bytes from c, or NULL when they do not fit.
static void *chunk_cut(Chunk *c, size_t size, size_t align) {
    uintptr_t base = (uintptr_t)c;
    uintptr_t at = (base + c->used + align - 1) & ~(uintptr_t)(align - 1);
    if (at - base > c->size || size > c->size - (at - base)) return NULL;
    c->used = at - base + size;
    return (void *)at;
}

void *arena_alloc(Arena *a, size_t size) {
    size_t align = size >= WIDE_ALIGN ? WIDE_ALIGN : ALIGN;
    if (size == 0) size = 1;
    void *p = a->head ? chunk_cut(a->head, size, align) : NULL;
    if (p) return p;
    if (size > SIZE_MAX / 2) out_of_memory(size);
    size_t need = sizeof(Chunk) + size + align;
    if (a->head && need > a->next_size / 2) { // its own chunk, behind the current one
        Chunk *c = chunk_new(need);
        c->next = a->head->next;
        a->head->next = c;
        return chunk_cut(c, size, align);
    }
    Chunk *c = chunk_new(need > a->next_size ? need : a->next_size);
    if (a->next_size < MAX_CHUNK) a->next_size *= 2;
    c->next = a->head;
    a->head = c;
    return chunk_cut(c, size, align);
}

char *arena_strndup(Arena *a, const char *s, size_t n) {
    char *p = arena_alloc(a, n + 1);
    if (n) memcpy(p, s, n);
    return p;
}

char *arena_strdup(Arena *a, const char *s) { return arena_strndup(a, s, strlen(s)); }

char *arena_vprintf(Arena *a, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0) n = 0;
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

char *arena_printf(Arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *p = arena_vprintf(a, fmt, ap);
    va_end(ap);
    return p;
}

void *vec_grow_(Arena *a, void *v, int *cap, size_t elem) {
    int old = *cap;
    if (old > INT32_MAX / 2) out_of_memory((size_t)old * elem);
    *cap = old ? old * 2 : 8;
    void *p = arena_alloc(a, (size_t)*cap * elem);
    if (old) memcpy(p, v, (size_t)old * elem);
    return p;
}

// Makes room for n more characters and the NUL.
static void str_reserve(Str *b, size_t n) {
    if (b->cap - b->n > n) return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap - b->n <= n) cap *= 2;
    char *s = arena_alloc(b->arena, cap);
    if (b->n) memcpy(s, b->s, b->n);
    b->s = s;
    b->cap = cap;
}

void str_addn(Str *b, const char *s, size_t n) {
    str_reserve(b, n);
    if (n) memcpy(b->s + b->n, s, n);
    b->n += n;
    b->s[b->n] = 0;
}

void str_add(Str *b, const char *s) { str_addn(b, s, strlen(s)); }

void str_printf(Str *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0) {
        str_reserve(b, (size_t)n);
        vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

const char *str_cstr(Str *b) { return b->s ? b->s : ""; }
