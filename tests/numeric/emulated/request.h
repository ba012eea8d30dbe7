// What a test and its server agree on. The same on every 64-bit machine.
#ifndef CNX_TESTS_REQUEST_H
#define CNX_TESTS_REQUEST_H
#include <stdint.h>

// Memory that both have at the same address, where every emulator can map it.
#define SHARED_AT UINT64_C(0x2000000000)
#define SHARED_BYTES ((size_t)1 << 29)

typedef struct {
    char object[256]; // a shared object
    char symbol[64];
    uint64_t first; // address: operands of a kernel, frame of a program
    int64_t args[4];
} Request;

#endif
