// From a picture to a model's input, exactly as Pillow and torchvision do it: antialiased resize in
// 8-bit fixed point, centre crop, /255, mean and std.
//
//   square models        Resize(int(size / crop_pct)) of the short side, long side int(size * l /
//   s);
//                        CenterCrop (zero padding where the picture is smaller)
//   other shapes         the smallest size with the picture's aspect that covers
//                        floor(h / crop_pct) x floor(w / crop_pct), sides rounded; CenterCrop
//   warp                 both sides resized to the model's, aspect ignored, no crop
#ifndef PREPROCESS_H
#define PREPROCESS_H
#include "image.h"

typedef enum { FILTER_BILINEAR, FILTER_BICUBIC } ResizeFilter;

typedef struct {
    int channels, height, width; // of the model
    double crop_pct;
    bool warp;
    ResizeFilter filter;
    const float *mean, *std; // channels values each
} Preprocess;

// CNXRT_ERROR_ARGUMENT for models that take no pictures (channels other than 1, 3 and 4).
CnxrtStatus preprocess_of_model(const CnxrtModel *m, Preprocess *p, CnxrtError *err);
// Resize and crop: dst holds height * width * channels bytes. image->channels == p->channels.
CnxrtStatus preprocess_pixels(const Preprocess *p, const Image *image, uint8_t *dst,
                              CnxrtError *err);
// The same, then (v / 255 - mean) / std in f32, channels last.
CnxrtStatus preprocess_image(const Preprocess *p, const Image *image, float *dst, CnxrtError *err);

// A window of Image.resize((full_width, full_height)): dst holds height * width * channels bytes.
typedef struct {
    int64_t full_width, full_height;
    int64_t left, top; // of the window, inside the full result
    int width, height;
} ResizeWindow;
// Bit-identical with Pillow. RGBA is resized premultiplied, as Pillow does.
CnxrtStatus image_resize(const Image *image, const ResizeWindow *window, ResizeFilter filter,
                         uint8_t *dst, CnxrtError *err);

#endif
