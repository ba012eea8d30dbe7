// Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S): a unit is
// visible with the chance (still to keep) / (units left), which makes every set equally likely.
#include "training_mask.h"
#include "rng.h"
#include <stdbool.h>

int64_t mask_cells(const CnxrtFcmae *f) {
    return (int64_t)f->grid[0] * f->grid[1] * f->mask_unit * f->mask_unit;
}

void mask_draw(const CnxrtFcmae *f, uint64_t seed, uint64_t epoch, uint64_t sample, float *cells) {
    Rng r = rng_stream(seed, RNG_MASK, epoch, sample);
    int32_t columns = f->grid[1], u = f->mask_unit, keep = f->keep;
    for (int32_t unit = 0; unit < f->units; unit++) {
        bool visible = rng_below(&r, f->units - unit) < keep;
        keep -= visible;
        float *corner = cells + ((int64_t)(unit / columns) * columns * u + unit % columns) * u;
        for (int32_t y = 0; y < u; y++)
            for (int32_t x = 0; x < u; x++) corner[(int64_t)y * columns * u + x] = !visible;
    }
}
