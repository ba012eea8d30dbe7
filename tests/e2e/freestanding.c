// A program without a C library: runs the object small.o on the picture of npy.c and writes the
// logits as a .npy file to standard output. Every call of the kernel is in system().
#include "small.h"

#if defined(__x86_64__)
enum { WRITE = 1, EXIT = 60 };
__asm__(".globl _start\n_start: and $-16, %rsp\n call run\n");
static long system(long n, long a, const void *b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
#elif defined(__aarch64__)
enum { WRITE = 64, EXIT = 93 };
__asm__(".globl _start\n_start: bl run\n");
static long system(long n, long a, const void *b, long c) {
    register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x2 __asm__("x2") = c;
    register const void *x1 __asm__("x1") = b;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#else
enum { WRITE = 64, EXIT = 93 };
__asm__(".globl _start\n_start: .option push\n .option norelax\n la gp, __global_pointer$\n"
        " .option pop\n call run\n");
static long system(long n, long a, const void *b, long c) {
    register long a7 __asm__("a7") = n, a0 __asm__("a0") = a, a2 __asm__("a2") = c;
    register const void *a1 __asm__("a1") = b;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
    return a0;
}
#endif

enum { BATCH = 2, PIXELS = SMALL_HEIGHT * SMALL_WIDTH * SMALL_CHANNELS, SPACE = 0x20 };

// At an odd address, and full of ones, which are NaN.
static unsigned char memory[1 + SMALL_MEMORY_BYTES + (BATCH - 1) * SMALL_MEMORY_PER_IMAGE + 4];
static float images[BATCH * PIXELS], logits[BATCH * SMALL_CLASSES], again[BATCH * SMALL_CLASSES];
static char head[128] =
    "\x93NUMPY\x01\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (1, 7), }";

static void fail(const char *what) {
    long n = 0;
    while (what[n]) n++;
    system(WRITE, 2, what, n);
    system(EXIT, 1, 0, 0);
}

// As npy.c, channels last; the second picture is another.
static void fill(void) {
    for (int i = 0; i < PIXELS; i++) {
        int nchw = i % SMALL_CHANNELS * SMALL_HEIGHT * SMALL_WIDTH + i / SMALL_CHANNELS;
        images[i] = (float)((nchw * 37 + 11) % 255) / 127 - 1;
        images[PIXELS + i] = -images[i];
    }
    for (unsigned i = 0; i < sizeof memory; i++) memory[i] = 0xff;
}

__attribute__((used)) void run(void) {
    fill();
    small_infer(memory + 1, BATCH, images, logits);
    if (memory[0] != 0xff || memory[sizeof memory - 4] != 0xff) fail("writes beyond its memory\n");
    small_features(memory + 1, 1, images, 0, 0, 0, 0, 0, again);
    for (int i = 0; i < SMALL_CLASSES; i++) {
        float off = logits[i] - again[i];
        if (!(off < 1e-4f && off > -1e-4f)) fail("features has other logits\n");
        if (logits[i] == logits[SMALL_CLASSES + i]) fail("two pictures are alike\n");
    }
    for (int i = 10; i < 128; i++)
        if (!head[i]) head[i] = i < 127 ? SPACE : '\n';
    system(WRITE, 1, head, sizeof head);
    system(WRITE, 1, logits, SMALL_CLASSES * sizeof *logits);
    system(EXIT, 0, 0, 0);
}
