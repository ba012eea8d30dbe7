// m: the model of pre-training, with its fcmae. Cells are stride[0] x stride[1] pixels.
#include "cli_grid.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VIEWABLE = 128, GROUP_GAPS = 3 };

typedef struct {
    int rows, columns, height, width, channels; // cells of an image; pixels of a cell
    int64_t stride;                             // floats of a row of the image
} Cells;

static Cells cells_of(const CnxrtModel *m) {
    const CnxrtFcmae *f = m->fcmae;
    return (Cells){f->grid[0] * f->mask_unit,
                   f->grid[1] * f->mask_unit,
                   f->stride[0],
                   f->stride[1],
                   m->channels,
                   (int64_t)m->width * m->channels};
}

// The first value of cell i.
static int64_t cell_start(const Cells *c, int i) {
    return (int64_t)(i / c->columns) * c->height * c->stride +
           (int64_t)(i % c->columns) * c->width * c->channels;
}

static size_t image_values(const CnxrtModel *m) {
    return (size_t)m->height * (size_t)m->width * (size_t)m->channels;
}

void reconstruct_hide(const CnxrtModel *m, const float *image, const float *cells, float *out) {
    Cells c = cells_of(m);
    memcpy(out, image, image_values(m) * sizeof *out);
    for (int i = 0; i < c.rows * c.columns; i++) {
        if (cells[i] == 0) continue;
        float *dst = out + cell_start(&c, i);
        for (int y = 0; y < c.height; y++)
            for (int x = 0; x < c.width * c.channels; x++) {
                int k = x % c.channels;
                dst[y * c.stride + x] = (0.5f - m->mean[k]) / m->std[k];
            }
    }
}

// Mean and deviation of the pixels of a cell, as its target was normalised; 0 and 1 when not.
static void cell_statistics(const CnxrtModel *m, const Cells *c, const float *src, double *mean,
                            double *deviation) {
    int n = c->height * c->width * c->channels;
    double sum = 0, squares = 0;
    *mean = 0, *deviation = 1;
    if (!m->fcmae->norm_pix) return;
    for (int y = 0; y < c->height; y++)
        for (int x = 0; x < c->width * c->channels; x++) sum += (double)src[y * c->stride + x];
    *mean = sum / n;
    for (int y = 0; y < c->height; y++)
        for (int x = 0; x < c->width * c->channels; x++) {
            double d = (double)src[y * c->stride + x] - *mean;
            squares += d * d;
        }
    *deviation = sqrt(squares / (n > 1 ? n - 1 : 1) + 1e-6);
}

void reconstruct_paste(const CnxrtModel *m, const float *image, const float *cells,
                       const float *pred, float *out) {
    Cells c = cells_of(m);
    int row = c.width * c.channels;
    memcpy(out, image, image_values(m) * sizeof *out);
    for (int i = 0; i < c.rows * c.columns; i++) {
        const float *p = pred + (int64_t)i * c.height * row;
        int64_t at = cell_start(&c, i);
        double mean, deviation;
        if (cells[i] == 0) continue;
        cell_statistics(m, &c, image + at, &mean, &deviation);
        for (int y = 0; y < c.height; y++)
            for (int x = 0; x < row; x++)
                out[at + y * c.stride + x] = (float)((double)p[y * row + x] * deviation + mean);
    }
}

// ---- grids --------------------------------------------------------------------------------------

bool grid_new(Grid *g, const CnxrtModel *m, int n) {
    int longest = m->height > m->width ? m->height : m->width;
    *g = (Grid){.scale = longest < VIEWABLE ? VIEWABLE / longest : 1};
    g->height = m->height * g->scale;
    g->width = m->width * g->scale;
    g->gap = longest * g->scale / 32 + 1;
    int64_t group = 3 * ((int64_t)g->width + g->gap) + (GROUP_GAPS - 1) * (int64_t)g->gap;
    int64_t row = g->height + (int64_t)g->gap;
    g->groups = 1;
    // Groups side by side as long as the grid is no wider than high.
    while (g->groups < n && group * (g->groups + 1) <= row * ((n + g->groups) / (g->groups + 1)))
        g->groups++;
    int64_t width = g->groups * group - (GROUP_GAPS - 1) * (int64_t)g->gap + g->gap;
    int64_t height = (n + g->groups - 1) / g->groups * row + g->gap;
    if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE || width * height > IMAGE_MAX_PIXELS)
        return false;
    int channels = m->channels < 3 ? 1 : 3;
    size_t bytes = (size_t)(width * height * channels);
    g->image = (Image){(int)width, (int)height, channels, malloc(bytes)};
    if (g->image.pixels) memset(g->image.pixels, 255, bytes);
    return g->image.pixels != NULL;
}

static uint8_t pixel(const CnxrtModel *m, const float *values, int k) {
    double v = ((double)values[k] * (double)m->std[k] + (double)m->mean[k]) * 255;
    return (uint8_t)(!(v > 0) ? 0 : v > 255 ? 255 : floor(v + 0.5));
}

void grid_put(Grid *g, const CnxrtModel *m, int group, int which, const float *values) {
    int left = g->gap + group % g->groups * (3 * (g->width + g->gap) + (GROUP_GAPS - 1) * g->gap) +
               which * (g->width + g->gap);
    int top = g->gap + group / g->groups * (g->height + g->gap);
    for (int y = 0; y < g->height; y++) {
        uint8_t *dst =
            g->image.pixels +
            ((size_t)(top + y) * (size_t)g->image.width + (size_t)left) * (size_t)g->image.channels;
        const float *row = values + (int64_t)(y / g->scale) * m->width * m->channels;
        for (int x = 0; x < g->width; x++)
            for (int k = 0; k < g->image.channels; k++)
                *dst++ = pixel(m, row + (int64_t)(x / g->scale) * m->channels, k);
    }
}
