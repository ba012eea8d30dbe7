// Tensor files from any bytes: an error or a set of tensors that can be read. The first byte says
// what the rest is: w a checkpoint, p a pickle, n a .npy file.
#include "runtime/names.h"
#include "runtime/unpickle.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const CnxrtWeights *w) {
    float *dst = malloc(sizeof *dst << 16);
    for (int i = 0; dst && i < cnxrt_weights_count(w); i++) {
        const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
        int64_t n;
        if (dims_count(t->rank, t->dims, &n) && n <= 1 << 16)
            (void)cnxrt_weights_read(w, i, dst, NULL);
        free(names_from_official(cnxrt_weights_official_name(w, i), "hf", 2));
    }
    free(dst);
}

static void open_bytes(const uint8_t *data, size_t size, CnxrtError *err) {
    CnxrtWeights *w;
    if (cnxrt_weights_open_memory(data, size, &w, err) != CNXRT_OK) {
        if (!err->text) abort(); // every failure says why
        return;
    }
    read_all(w);
    const CnxrtParam params[] = {{"b", 2, {2, 3}, 0, 0, 0},
                                 {"stages.0.0.dwconv.weight", 4, {2, 1, 7, 7}, 24, 0, 0}};
    float blob[6 + 98];
    (void)cnxrt_weights_load(w, params, 2, blob, err);
    cnxrt_weights_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    CnxrtError err = {0};
    uint8_t *copy = malloc(size > 1 ? size - 1 : 1); // exact, so that overreads are seen
    if (!copy) return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] == 'n') {
        CnxrtNpy t;
        (void)npy_parse(copy, size - 1, "x", &t, &err);
        cnxrt_npy_free(&t);
    } else if (data[0] == 'p') {
        Unpickler u;
        unpickle_begin(&u, "x", copy, size - 1, &err);
        (void)unpickle_next(&u);
        unpickle_end(&u);
    } else {
        open_bytes(copy, size - 1, &err);
    }
    cnxrt_error_free(&err);
    free(copy);
    return 0;
}
