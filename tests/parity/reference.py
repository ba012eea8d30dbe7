"""ConvNeXt V1/V2 in PyTorch, in the official form, with seeded weights: the reference of the parity
fixtures. Needs torch and numpy; timm is used as a second opinion where it is installed.

seeded(name, shape, seed) is the same integer hash as runtime/seedweights.c."""

import math

import numpy as np
import torch
import torch.nn.functional as F

SIZES = {
    "convnextv2_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnextv2_femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "convnextv2_pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "convnextv2_nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "convnextv2_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnextv2_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnextv2_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnextv2_huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
}
GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def uniform(name, n, seed=0):
    """n values in [-1, 1), exact in float32, as float64."""
    h = 14695981039346656037
    for byte in name.encode():
        h = ((h ^ byte) * 1099511628211) & MASK
    z0 = h ^ ((seed * GOLDEN) & MASK)
    with np.errstate(over="ignore"):
        z = np.uint64(z0) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


def seeded(name, shape, seed=0):
    u = uniform(name, math.prod(shape), seed)
    if name.endswith("grn.gamma"):
        v = 0.5 * u
    elif name.endswith("grn.beta"):
        v = 0.1 * u
    elif name.endswith(".gamma"):
        v = 0.5 + 0.25 * u
    elif name == "mask_token":
        v = 0.02 * u
    elif len(shape) >= 2:
        v = u * math.sqrt(3.0 / math.prod(shape[1:]))
    elif name.endswith(".weight"):
        v = 1.0 + 0.2 * u
    else:
        v = 0.1 * u
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


class Model:
    """The network of `name` as a function; every parameter appears in self.params on first use."""

    def __init__(self, name, in_chans=3, classes=1000, seed=0, grn=None, approx="none",
                 strides=(4, 2, 2, 2), dtype=torch.float32, params=None):
        self.name, self.in_chans, self.classes, self.seed = name, in_chans, classes, seed
        self.depths, self.dims = SIZES[name]
        self.v2 = "v2" in name
        self.grn = {"aggregate": "l2", "normalise": "mean", "residual": True, "statistics": "image"}
        self.grn.update(grn or {})
        self.approx, self.strides, self.dtype = approx, strides, dtype
        self.params = {} if params is None else params

    def p(self, name, *shape):
        if name not in self.params:
            self.params[name] = seeded(name, shape, self.seed)
        return self.params[name].to(self.dtype)

    def ln(self, x, name):  # channels last
        c = x.shape[-1]
        return F.layer_norm(x, (c,), self.p(name + ".weight", c), self.p(name + ".bias", c), 1e-6)

    def conv(self, x, name, cout, k):  # channels last in and out
        cin = x.shape[-1]
        w = self.p(name + ".weight", cout, cin, k, k)
        y = F.conv2d(x.permute(0, 3, 1, 2), w, self.p(name + ".bias", cout), stride=k)
        return y.permute(0, 2, 3, 1)

    def linear(self, x, name, cout):
        return F.linear(x, self.p(name + ".weight", cout, x.shape[-1]), self.p(name + ".bias", cout))

    def grn_apply(self, x, name):
        k = x.shape[-1]
        over = (0, 1, 2) if self.grn["statistics"] == "batch" else (1, 2)
        a = self.grn["aggregate"]
        g = {"l2": lambda: x.square().sum(over, keepdim=True).sqrt(),
             "l1": lambda: x.abs().sum(over, keepdim=True),
             "mean": lambda: x.mean(over, keepdim=True),
             "std": lambda: x.std(over, keepdim=True, unbiased=False)}[a]()
        n = {"mean": lambda: g / (g.mean(-1, keepdim=True) + 1e-6),
             "sum": lambda: g / (g.sum(-1, keepdim=True) + 1e-6),
             "standardise": lambda: (g - g.mean(-1, keepdim=True))
             / (g.std(-1, keepdim=True, unbiased=False) + 1e-6),
             "none": lambda: g}[self.grn["normalise"]]()
        y = self.p(name + ".gamma", k) * (x * n) + self.p(name + ".beta", k)
        return y + x if self.grn["residual"] else y

    def block(self, x, name):
        c = x.shape[-1]
        w = self.p(name + ".dwconv.weight", c, 1, 7, 7)
        y = F.conv2d(x.permute(0, 3, 1, 2), w, self.p(name + ".dwconv.bias", c), padding=3, groups=c)
        y = self.ln(y.permute(0, 2, 3, 1), name + ".norm")
        y = F.gelu(self.linear(y, name + ".pwconv1", 4 * c), approximate=self.approx)
        if self.v2:
            y = self.grn_apply(y, name + ".grn")
        y = self.linear(y, name + ".pwconv2", c)
        if not self.v2:
            y = y * self.p(name + ".gamma", c)
        return x + y

    def features(self, image):
        """image (N,C,H,W) -> list of stage outputs, channels last."""
        x = image.to(self.dtype).permute(0, 2, 3, 1)
        stages = []
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            if i == 0:
                x = self.ln(self.conv(x, "downsample_layers.0.0", dim, self.strides[0]),
                            "downsample_layers.0.1")
            else:
                x = self.conv(self.ln(x, f"downsample_layers.{i}.0"), f"downsample_layers.{i}.1",
                              dim, self.strides[i])
            for j in range(depth):
                x = self.block(x, f"stages.{i}.{j}")
            stages.append(x)
        return stages

    def __call__(self, image):
        stages = self.features(image)
        pooled = self.ln(stages[-1].mean((1, 2)), "norm")
        logits = self.linear(pooled, "head", self.classes) if self.classes else None
        return stages, pooled, logits


def image(case, shape, seed=0):
    """A seeded input, (N,C,H,W), values in [-2, 2)."""
    return torch.from_numpy((2 * uniform(case, math.prod(shape), seed)).astype(np.float32)
                            .reshape(shape))
