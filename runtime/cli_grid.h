// Pictures of reconstructions: normalised values back to pixels, and grids of them.
#ifndef CLI_GRID_H
#define CLI_GRID_H
#include "image.h"

// out: the image [h,w,c] where cells (1: hidden, in raster order) are a middle grey.
void reconstruct_hide(const CnxrtModel *m, const float *image, const float *cells, float *out);
// out: the image where hidden cells hold their prediction pred [cells][sh*sw*c] (rows, columns,
// channels), brought back by the statistics of the cell's own pixels when targets were normalised:
//   pred * sqrt(var + 1e-6) + mean, var unbiased
void reconstruct_paste(const CnxrtModel *m, const float *image, const float *cells,
                       const float *pred, float *out);

// Rows of groups of three pictures, side by side: original, masked, reconstruction. Small pictures
// are enlarged by whole factors.
typedef struct {
    Image image;
    int scale, groups; // groups in a row
    int height, width; // of one picture, enlarged
    int gap;
} Grid;

// A white grid for n groups. False: no memory (or too large). Free grid.image.
bool grid_new(Grid *g, const CnxrtModel *m, int n);
// Paints values [h,w,c] as picture `which` (0, 1, 2) of a group; the first three channels, or one.
void grid_put(Grid *g, const CnxrtModel *m, int group, int which, const float *values);

#endif
