// Training's random changes of pictures, as torchvision and timm do them on Pillow images:
// RandomResizedCrop, horizontal flip, RandAugment, normalisation, random erasing, then mixup and
// cutmix over a batch. All draws come from streams named by (seed, epoch, sample) or (seed, epoch,
// batch), so a sample of an epoch looks the same whoever makes it, and when.
#ifndef AUGMENT_H
#define AUGMENT_H
#include "preprocess.h"
#include "rng.h"

// ---- single operations, bit-identical with Pillow -----------------------------------------------

// In the order of timm's table. `value` is: degrees (counter-clockwise), bits kept, threshold,
// summand, enhancement factor (1: unchanged), shear factor, or part of the side.
typedef enum {
    AUGMENT_AUTOCONTRAST,
    AUGMENT_EQUALIZE,
    AUGMENT_INVERT,
    AUGMENT_ROTATE,
    AUGMENT_POSTERIZE,
    AUGMENT_SOLARIZE,
    AUGMENT_SOLARIZE_ADD,
    AUGMENT_COLOR,
    AUGMENT_CONTRAST,
    AUGMENT_BRIGHTNESS,
    AUGMENT_SHARPNESS,
    AUGMENT_SHEAR_X,
    AUGMENT_SHEAR_Y,
    AUGMENT_TRANSLATE_X,
    AUGMENT_TRANSLATE_Y,
    AUGMENT_OPS,
} AugmentOp;

// Applies op to a grey or RGB picture in place. fill: the colour of what comes from outside.
CnxrtStatus augment_apply(AugmentOp op, double value, const uint8_t *fill, Image *image,
                          CnxrtError *err);

// ---- policies -----------------------------------------------------------------------------------

typedef struct {
    int ops;               // drawn for a picture, with replacement; 0: no RandAugment
    double probability;    // of each drawn operation to happen
    double magnitude, std; // level ~ N(magnitude, std), clamped to 0 .. most; std INFINITY:
    double most;           // uniform in 0 .. magnitude
    bool increasing;       // all operations grow stronger with the level
} RandAugment;

// timm's text form: "rand-m9-mstd0.5-inc1", sections m n p mstd mmax inc in any order.
CnxrtStatus augment_parse(const char *text, RandAugment *out, CnxrtError *err);
// The value of an operation at a level (0 .. 10 and beyond); `negative` for those with a sign.
double augment_value(const RandAugment *a, AugmentOp op, double level, bool negative);

typedef struct {
    Preprocess base; // size, filter, normalisation; its crop, when there is no random crop
    bool crop;       // RandomResizedCrop
    double scale[2], ratio[2]; // area and aspect of the crop
    double flip;               // probability
    RandAugment policy;
    double erase; // probability of random erasing (timm's pixel mode, one box)
} Augment;

typedef struct {
    int left, top, width, height;
} Box;

// RandomResizedCrop.get_params for a width x height picture.
Box augment_crop_box(const double scale[2], const double ratio[2], int width, int height, Rng *r);

// What the draws for one sample depend on.
typedef struct {
    const Augment *augment;
    uint64_t seed, epoch, sample;
    int width, height; // of the picture before shrinking, where augment_shrink was asked; else 0
} AugmentDraw;

// From a picture (of base.channels) to base.height * base.width * channels floats, channels last.
CnxrtStatus augment_image(const AugmentDraw *d, const Image *image, float *dst, CnxrtError *err);
// For ImageOptions.shrink, with the AugmentDraw as user: by how much the picture may be shrunk
// while it is decoded so that the crop which augment_image will draw keeps the pixels it needs. The
// crop is the same place as without.
int augment_shrink(void *draw, int width, int height);

// ---- batches ------------------------------------------------------------------------------------

typedef struct {
    double mixup, cutmix; // the a of Beta(a, a); 0: off
    double probability;   // of a batch to be mixed at all
    double switching;     // of cutmix, where both are on
} MixOptions;

// What is done to a batch: sample i and its partner n-1-i are blended (cutmix: the box is swapped).
typedef struct {
    bool cutmix;
    Box box;
    double lambda; // part of the sample itself; cutmix: its real area
} MixPlan;

MixPlan mix_draw(const MixOptions *o, int height, int width, uint64_t seed, uint64_t epoch,
                 uint64_t batch);
// n samples of height x width x channels floats, in place. Any n; the middle of an odd batch stays.
void mix_images(const MixPlan *p, int64_t n, int height, int width, int channels, float *x);
// One row of targets: 1 - s + s / classes for each of the labels, s / classes for the other
// classes, whether one label or several are right (timm's smoothing of cross-entropy and binary
// cross-entropy).
void target_row(const int32_t *labels, int count, double s, int classes, float *row);
// targets[n][classes], blended as the images are.
void mix_targets(const MixPlan *p, int64_t n, int classes, float *targets);

#endif
