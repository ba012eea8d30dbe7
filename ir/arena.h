// Bump allocation, growable arrays, string building and interning: the only memory the compiler
// uses. Everything lives in an Arena and dies with it; nothing is freed one by one.
#ifndef CNX_IR_ARENA_H
#define CNX_IR_ARENA_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *a); // NULL is allowed
// Zeroed memory, aligned to 64 bytes when size >= 64, else to 16. Never returns NULL (aborts when
// the system has none left).
void *arena_alloc(Arena *a, size_t size);
char *arena_strndup(Arena *a, const char *s, size_t n);
char *arena_strdup(Arena *a, const char *s);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(Arena *a, const char *fmt, va_list ap);
#define NEW(a, T) ((T *)arena_alloc((a), sizeof(T)))
#define NEWN(a, T, n) ((T *)arena_alloc((a), sizeof(T) * (size_t)(n)))

// A growable array of T, zero-initialised: VEC(int) xs = {0}; vec_push(arena, &xs, 3); xs.v[i].
#define VEC(T)                                                                                     \
    struct {                                                                                       \
        T *v;                                                                                      \
        int n, cap;                                                                                \
    }
#define vec_push(a, vec, x)                                                                        \
    ((vec)->n == (vec)->cap                                                                        \
         ? ((vec)->v = vec_grow_((a), (vec)->v, &(vec)->cap, sizeof *(vec)->v), (void)0)           \
         : (void)0,                                                                                \
     (vec)->v[(vec)->n++] = (x))
void *vec_grow_(Arena *a, void *v, int *cap, size_t elem);

// Text under construction; s is always NUL-terminated once something was appended.
typedef struct {
    Arena *arena;
    char *s;
    size_t n, cap;
} Str;
void str_add(Str *b, const char *s);
void str_addn(Str *b, const char *s, size_t n);
void str_printf(Str *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *str_cstr(Str *b); // "" when empty

#endif
