// AMX tiles in C, for kernels compiled to call them (TileCalls): what each instruction does (Intel
// SDM vol. 2), and what it refuses.
#ifndef CNX_TESTS_TILE_MODEL_H
#define CNX_TESTS_TILE_MODEL_H
#include "emulator.h"

static struct {
    int rows[8], row_bytes[8];
    unsigned char data[8][16][64];
    int dots; // since the last look
} tiles;

static inline void tile_model_configure(const void *config) {
    const unsigned char *c = config;
    if (c[0] != 1 || c[1] != 0) fail_msg("tiles: palette %d, start %d", c[0], c[1]);
    for (int i = 2; i < 64; i++)
        if ((i < 16 || (i >= 32 && i < 48) || i >= 56) && c[i]) fail_msg("tiles: byte %d set", i);
    for (int t = 0; t < 8; t++) {
        tiles.row_bytes[t] = c[16 + 2 * t] + 256 * c[17 + 2 * t];
        tiles.rows[t] = c[48 + t];
        if (tiles.rows[t] > 16 || tiles.row_bytes[t] > 64 || !tiles.rows[t] != !tiles.row_bytes[t])
            fail_msg("tile %d: %d rows of %d bytes", t, tiles.rows[t], tiles.row_bytes[t]);
    }
    memset(tiles.data, 0, sizeof tiles.data);
}

static inline void tile_model_used(int64_t t) {
    if (t < 0 || t > 7 || !tiles.rows[t]) fail_msg("tile %d has no size", (int)t);
}

static inline void tile_model_zero(int64_t t) {
    tile_model_used(t);
    memset(tiles.data[t], 0, sizeof tiles.data[t]);
}

// What lies beyond the rows and bytes of a tile becomes zero.
static inline void tile_model_load(int64_t t, const void *at, int64_t stride) {
    tile_model_zero(t);
    for (int r = 0; r < tiles.rows[t]; r++)
        memcpy(tiles.data[t][r], (const char *)at + r * stride, (size_t)tiles.row_bytes[t]);
}

static inline void tile_model_store(int64_t t, void *at, int64_t stride) {
    tile_model_used(t);
    for (int r = 0; r < tiles.rows[t]; r++)
        memcpy((char *)at + r * stride, tiles.data[t][r], (size_t)tiles.row_bytes[t]);
}

static inline float tile_model_half(const unsigned char *p) {
    uint32_t bits = (uint32_t)p[1] << 24 | (uint32_t)p[0] << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline void tile_model_dot(int64_t sum, int64_t a, int64_t b, bool halves) {
    tile_model_used(sum), tile_model_used(a), tile_model_used(b);
    if (tiles.rows[sum] != tiles.rows[a] || tiles.row_bytes[sum] != tiles.row_bytes[b] ||
        tiles.row_bytes[a] != 4 * tiles.rows[b] || sum == a || sum == b || a == b)
        fail_msg("tiles %d %d %d do not fit", (int)sum, (int)a, (int)b);
    tiles.dots++;
    for (int r = 0; r < tiles.rows[sum]; r++)
        for (int c = 0; c < tiles.row_bytes[sum] / 4; c++)
            for (int k = 0; k < tiles.rows[b]; k++) {
                const unsigned char *x = tiles.data[a][r] + 4 * k, *y = tiles.data[b][k] + 4 * c;
                unsigned char *at = tiles.data[sum][r] + 4 * c;
                float f;
                int32_t i;
                memcpy(&f, at, sizeof f);
                memcpy(&i, at, sizeof i);
                for (int q = 0; q < 2; q++)
                    f += tile_model_half(x + 2 * q) * tile_model_half(y + 2 * q);
                for (int q = 0; q < 4; q++) i += x[q] * (signed char)y[q];
                memcpy(at, halves ? (void *)&f : (void *)&i, 4);
            }
}

static inline void tile_model_dot_bf16(int64_t sum, int64_t a, int64_t b) {
    tile_model_dot(sum, a, b, true);
}

static inline void tile_model_dot_bytes(int64_t sum, int64_t a, int64_t b) {
    tile_model_dot(sum, a, b, false);
}

static const TileCalls tile_model = {tile_model_configure, tile_model_zero,
                                     tile_model_load,      tile_model_store,
                                     tile_model_dot_bf16,  tile_model_dot_bytes};

// The target with these tiles added, for code of this process.
static inline const Target *tile_model_target(Arena *a, const Target *t) {
    Target *copy = NEW(a, Target);
    *copy = *t;
    copy->amx = true;
    copy->tile_calls = &tile_model;
    return copy;
}
#endif
