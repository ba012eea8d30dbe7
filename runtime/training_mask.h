// Masks of pre-training.
#ifndef TRAINING_MASK_H
#define TRAINING_MASK_H
#include "cnxrt_model.h"

int64_t mask_cells(const CnxrtFcmae *f); // cells of an image
// The mask of the stream (seed, RNG_MASK, epoch, sample) for an image: f->keep of its units, every
// choice equally likely, are visible. cells[rows * unit][columns * unit]: 1 hidden, 0 visible.
void mask_draw(const CnxrtFcmae *f, uint64_t seed, uint64_t epoch, uint64_t sample, float *cells);

#endif
