#!/usr/bin/env python3
"""Writes tests/unit/data/augment: what Pillow and timm make of small pictures.

    python3 tests/parity/make_augment_fixtures.py

cases.txt lists the cases, one a line; offsets are into pixels.npy, where all pictures lie:
    op NAME VALUE PICTURE OFFSET           one operation; PICTURE is "WIDTH HEIGHT CHANNELS OFFSET"
    sample INDEX PICTURE SIZE OFFSET       crop, flip and RandAugment of a sample, drawn from the
                                           streams of runtime/rng.h (written again here, in Python)
Needs Pillow, numpy and timm's sources (only timm/data/auto_augment.py is loaded).
"""
import importlib.util, math, os
from statistics import NormalDist
import numpy as np
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unit", "data", "augment")
timm = importlib.util.find_spec("timm").submodule_search_locations[0]
spec = importlib.util.spec_from_file_location("aa", os.path.join(timm, "data", "auto_augment.py"))
aa = importlib.util.module_from_spec(spec)
spec.loader.exec_module(aa)

posterize = aa.posterize  # newer versions of Pillow refuse 0 bits, older ones give black
aa.posterize = lambda im, bits, **k: im.point(lambda v: 0) if bits == 0 else posterize(im, bits, **k)
aa.NAME_TO_OP["PosterizeIncreasing"] = aa.posterize

MEAN = (0.485, 0.456, 0.406)
FILL = tuple(min(255, round(255 * x)) for x in MEAN)
OPS = ["autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add",
       "color", "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x",
       "translate_y"]
FUNCTIONS = [aa.auto_contrast, aa.equalize, aa.invert, aa.rotate, aa.posterize, aa.solarize,
             aa.solarize_add, aa.color, aa.contrast, aa.brightness, aa.sharpness, aa.shear_x,
             aa.shear_y, aa.translate_x_rel, aa.translate_y_rel]
VALUES = {"rotate": [27.3, -27.3, 0.4, 180, 90, 360], "posterize": [0, 1, 2, 4, 8],
          "solarize": [0, 26, 128, 256], "solarize_add": [0, 60, 110],
          "color": [0.1, 0.19, 1, 1.81, 1.9], "contrast": [0.1, 0.19, 1, 1.81],
          "brightness": [0.1, 0.19, 1, 1.81], "sharpness": [0.1, 0.19, 1, 1.81],
          "shear_x": [0.27, -0.27, 0], "shear_y": [0.27, -0.27],
          "translate_x": [0.41, -0.41, 0.1], "translate_y": [0.41, -0.41, 0.1]}

pixels, cases = [], []


def store(a):
    a = np.ascontiguousarray(a, dtype=np.uint8).reshape(-1)
    offset = sum(len(p) for p in pixels)
    pixels.append(a)
    return offset


def picture(w, h, channels, seed, low=0, high=255):
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / max(w, h)
    out = np.zeros((h, w, channels))
    for k in range(channels):
        a, b, c = r.uniform(1, 6, 3)
        out[:, :, k] = 0.5 + 0.4 * np.sin(a * 3 * x + b * 2 * y + c) + 0.3 * (x * (k + 1) > y + 0.1)
    out = np.clip(out + r.normal(0, 0.05, out.shape), 0, 1)
    return (low + out * (high - low)).astype(np.uint8)


def image(a):
    return Image.fromarray(a[:, :, 0] if a.shape[2] == 1 else a)


def run(name, value, im):
    fill = FILL if im.mode == "RGB" else FILL[0]
    args = () if name in ("autocontrast", "equalize", "invert") else (value,)
    return FUNCTIONS[OPS.index(name)](im, *args, fillcolor=fill, resample=Image.BICUBIC)


def op_cases():
    pictures = [picture(29, 23, 3, 1), picture(20, 15, 1, 2), picture(9, 31, 3, 3, 60, 140),
                picture(2, 3, 3, 4), np.full((5, 4, 3), 77, np.uint8)]
    for n, a in enumerate(pictures):
        h, w, c = a.shape
        at = store(a)
        for name in OPS:
            values = VALUES.get(name, [0])
            for value in values if n < 2 else values[:2]:
                offset = store(np.asarray(run(name, value, image(a))))
                cases.append(f"op {name} {value!r} {w} {h} {c} {at} {offset}")


class Rng:
    """runtime/rng.h."""

    def __init__(self, seed, purpose, epoch, sample):
        self.key = [seed & 0xFFFFFFFF, seed >> 32]
        self.counter = [0, epoch, sample & 0xFFFFFFFF, purpose << 24 | sample >> 32]
        self.block = []

    def u32(self):
        if not self.block:
            c, k = self.counter, list(self.key)
            for _ in range(10):
                p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
                c = [(q >> 32) ^ c[1] ^ k[0], q & 0xFFFFFFFF, (p >> 32) ^ c[3] ^ k[1], p & 0xFFFFFFFF]
                k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
            self.block = c
            self.counter = [self.counter[0] + 1] + self.counter[1:]
        return self.block.pop(0)

    def u64(self):
        low = self.u32()
        return low | self.u32() << 32

    def uniform(self, lo=0.0, hi=1.0):
        return lo + (hi - lo) * ((self.u64() >> 11) * 2.0**-53)

    def below(self, n):
        while True:
            v = self.u64()
            if v >= 2**64 % n:
                return v % n

    def normal(self):
        return NormalDist().inv_cdf(((self.u64() >> 12) + 0.5) * 2.0**-52)


def crop_box(w, h, r):
    """torchvision's RandomResizedCrop.get_params with scale 0.08-1 and ratio 3/4-4/3."""
    for _ in range(10):
        target = w * h * r.uniform(0.08, 1)
        aspect = math.exp(r.uniform(math.log(3 / 4), math.log(4 / 3)))
        cw, ch = int(round(math.sqrt(target * aspect))), int(round(math.sqrt(target / aspect)))
        if 0 < cw <= w and 0 < ch <= h:
            top = r.below(h - ch + 1)
            return r.below(w - cw + 1), top, cw, ch
    if w / h < 3 / 4:
        cw, ch = w, int(round(w / (3 / 4)))
    elif w / h > 4 / 3:
        cw, ch = int(round(h * (4 / 3))), h
    else:
        cw, ch = w, h
    return (w - cw) // 2, (h - ch) // 2, cw, ch


def sample_case(index, a, size):
    h, w, c = a.shape
    r = Rng(7, 2, 3, index)
    left, top, cw, ch = crop_box(w, h, r)
    im = image(a).crop((left, top, left + cw, top + ch))
    # Two calls: versions of Pillow differ in which pass they do first on tall pictures.
    im = im.resize((size, ch), Image.BICUBIC).resize((size, size), Image.BICUBIC)
    if r.uniform() < 0.5:
        im = im.transpose(Image.FLIP_LEFT_RIGHT)
    names = [aa._RAND_INCREASING_TRANSFORMS[r.below(15)] for _ in range(2)]
    for name in names:
        if r.uniform() > 0.5:
            continue
        level = max(0.0, min(9 + 0.5 * r.normal(), 10.0))
        sign = r.uniform()
        aa.random.random = lambda: sign
        levels = aa.LEVEL_TO_ARG[name]
        args = levels(level, {}) if levels else ()
        fill = FILL if c == 3 else FILL[0]
        im = aa.NAME_TO_OP[name](im, *args, fillcolor=fill, resample=Image.BICUBIC)
    return im


def sample_cases():
    pictures = [picture(40, 33, 3, 5), picture(60, 12, 3, 6), picture(9, 40, 1, 7)]
    for n, a in enumerate(pictures):
        h, w, c = a.shape
        at = store(a)
        for index in range(40 if n == 0 else 12):
            size = 16 + n
            offset = store(np.asarray(sample_case(index, a, size)))
            cases.append(f"sample {index} {w} {h} {c} {at} {size} {offset}")


os.makedirs(OUT, exist_ok=True)
op_cases()
sample_cases()
np.save(os.path.join(OUT, "pixels.npy"), np.concatenate(pixels))
with open(os.path.join(OUT, "cases.txt"), "w") as f:
    f.write("\n".join(cases) + "\n")
