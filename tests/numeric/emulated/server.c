// Calls generated code for tests, on the machine it is for: usually under an emulator. Maps the
// memory of the test at the test's addresses, then serves requests (request.h) from stdin.
#include "request.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void (*Function)(void *first, int64_t a, int64_t b, int64_t c, int64_t d);

static void serve(const Request *r) {
    void *object = dlopen(r->object, RTLD_NOW | RTLD_LOCAL);
    Function fn = object ? (Function)(uintptr_t)dlsym(object, r->symbol) : NULL;
    if (!fn) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    fn((void *)(uintptr_t)r->first, r->args[0], r->args[1], r->args[2], r->args[3]);
    dlclose(object);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    void *want = (void *)(uintptr_t)SHARED_AT; // NOLINT: an address both sides agree on
    void *got =
        mmap(want, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, atoi(argv[1]), 0);
    if (got != want) {
        perror("mmap");
        return 1;
    }
    Request r;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, &r, sizeof r);
        if (n == 0) return 0;
        if (n != (ssize_t)sizeof r) return 1;
        serve(&r);
        if (write(STDOUT_FILENO, "", 1) != 1) return 1;
    }
}
