#!/usr/bin/env python3
"""Writes tests/unit/eval_values.inc: what PyTorch computes, in f64, for one node per line.

    python tests/unit/eval_values.py > tests/unit/eval_values.inc

Operand a has elements ((i*m + 3+a) mod 11 - 5) / 4 in row-major order, m = 7, 9, 5, 3 for
a = 0, 1, 2, 3. A line is
    CASE(op, operand types, attributes, batch, first element, last element, checksum)
with checksum = sum_i y[i] * ((5i+1) mod 13 - 6). Layouts are those of the IR (channels last).
"""
import math
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def operand(a, shape):
    i = torch.arange(math.prod(shape), dtype=torch.int64)
    return (((i * (7, 9, 5, 3)[a] + 3 + a) % 11 - 5) / 4.0).to(torch.float64).reshape(shape)


def checksum(y):
    i = torch.arange(y.numel(), dtype=torch.int64)
    return float((y.reshape(-1) * ((5 * i + 1) % 13 - 6)).sum())


def dims(text, batch):
    out = []
    for d in text.split(","):
        d = d.strip()
        out.append(int(d[:-1] or 1) * batch if d.endswith("B") else int(d))
    return out


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def pair(attrs, name):
    return [int(v) for v in attrs.get(name, "0,0").split(",")]


def conv(attrs, x, w, b=None, groups=1):
    y = F.conv2d(nchw(x), w, b, pair(attrs, "stride"), pair(attrs, "pad"), groups=groups)
    return nhwc(y)


def patchify(attrs, x):
    kh, kw = pair(attrs, "kernel")
    (sh, sw), (ph, pw) = pair(attrs, "stride"), pair(attrs, "pad")
    n, h, w, c = x.shape
    x = F.pad(nchw(x), (pw, pw, ph, ph))
    u = x.unfold(2, kh, sh).unfold(3, kw, sw)  # n c ho wo kh kw
    return u.permute(0, 2, 3, 4, 5, 1).reshape(n, u.shape[2], u.shape[3], kh * kw * c)


def grn_stat(attrs, x):
    over = tuple(range(1, x.ndim - 1))
    if attrs.get("statistics") == "batch":
        over = (0,) + over
    keep = {"dim": over, "keepdim": True}
    how = attrs.get("aggregate", "l2")
    if how == "l2":
        return torch.linalg.vector_norm(x, 2, **keep)
    if how == "l1":
        return torch.linalg.vector_norm(x, 1, **keep)
    if how == "mean":
        return x.mean(**keep)
    return x.std(correction=0, **keep)


def grn_scale(attrs, g, gamma):
    eps = float(attrs.get("eps", 0))
    how = attrs.get("normalise", "mean")
    if how == "mean":
        s = g / (g.mean(-1, keepdim=True) + eps)
    elif how == "sum":
        s = g / (g.sum(-1, keepdim=True) + eps)
    elif how == "standardise":
        s = (g - g.mean(-1, keepdim=True)) / (g.std(-1, correction=0, keepdim=True) + eps)
    else:
        s = g
    return gamma * s + (1 if attrs.get("residual") == "1" else 0)


def flat_stat(attrs, x):
    return grn_stat(attrs, x).reshape(-1, x.shape[-1])


def scale(attrs, x, s):
    if s.ndim == 2:
        s = s.reshape([s.shape[0]] + [1] * (x.ndim - 2) + [s.shape[1]])
    return x * s


def pack(attrs, x):
    nr = int(attrs["nr"])
    x = F.pad(x, (0, 0, 0, -x.shape[0] % nr))
    return x.reshape(-1, nr, x.shape[1]).permute(0, 2, 1)


def grad(f, dy, *xs, of=0):
    """What autograd sends to xs[of] for the cotangent dy of f(*xs)."""
    xs = [x.clone().requires_grad_() for x in xs]
    return torch.autograd.grad(f(*xs), xs[of], dy)[0]


def unpatchify(attrs, y):
    shape = dims(attrs["shape"], y.shape[0])
    return grad(lambda x: patchify(attrs, x), y, torch.zeros(shape))


def dwconv_dx(attrs, dy, w):
    x = torch.zeros(dims(attrs["shape"], dy.shape[0]))
    return grad(lambda x: conv(attrs, x, w, None, x.shape[3]), dy, x)


def dwconv_dw(attrs, dy, x):
    w = torch.zeros([x.shape[3], 1] + pair(attrs, "kernel"))
    return grad(lambda w: conv(attrs, x, w, None, x.shape[3]), dy, w)


def layernorm_dx(attrs, dy, x, g=None):
    return grad(lambda x: F.layer_norm(x, x.shape[-1:], g, None, float(attrs["eps"])), dy, x)


def layernorm_dgamma(attrs, dy, x):
    g = torch.ones(x.shape[-1])
    return grad(lambda g: F.layer_norm(x, x.shape[-1:], g, None, float(attrs["eps"])), dy, g)


def grn_stat_dx(attrs, dG, x, G):
    """By formula: G is an operand of its own."""
    batch = attrs.get("statistics") == "batch"
    shape = [1 if batch else x.shape[0]] + [1] * (x.ndim - 2) + [x.shape[-1]]
    dG, G = dG.reshape(shape), G.reshape(shape)
    over = tuple(range(0 if batch else 1, x.ndim - 1))
    count = math.prod(x.shape[i] for i in over)
    how = attrs.get("aggregate", "l2")
    if how == "l2":
        dx = dG * x / G
    elif how == "l1":
        dx = dG * x.sign()
    elif how == "mean":
        return dG / count * torch.ones_like(x)
    else:
        dx = dG * (x - x.mean(over, keepdim=True)) / (count * G)
    return torch.where((G == 0) & (how != "l1"), torch.zeros_like(dx), dx)


def expand(attrs, x):
    shape = dims(attrs["shape"], x.shape[0])
    if x.ndim == 2:
        x = x.reshape([x.shape[0]] + [1] * (len(shape) - 2) + [x.shape[1]])
    return x.expand(shape)


def bce(attrs, z, t):
    return F.binary_cross_entropy_with_logits(z, t, reduction="none").mean(-1)


def cross_entropy(attrs, z, t):
    return F.cross_entropy(z, t, reduction="none")


def norm_pix(attrs, x):
    var = x.var(-1, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (var + float(attrs["eps"])) ** 0.5


def masked_mse(attrs, p, t, m):
    m = m.reshape(p.shape[:-1])
    over = tuple(range(1, m.ndim))
    return (((p - t) ** 2).mean(-1) * m).sum(over) / m.sum(over)


OPS = {
    "reshape": lambda at, x: x,
    "transpose": lambda at, x: x.permute([int(v) for v in at["perm"].split(",")]),
    "tile": lambda at, x: x.repeat(int(at["times"])),
    "patchify": patchify,
    "pack": pack,
    "conv2d": conv,
    "dwconv2d": lambda at, x, w, b=None: conv(at, x, w, b, x.shape[3]),
    "linear": lambda at, x, w, b=None: F.linear(x, w, b),
    "layernorm": lambda at, x, g, b: F.layer_norm(x, x.shape[-1:], g, b, float(at["eps"])),
    "normalize": lambda at, x: F.layer_norm(x, x.shape[-1:], None, None, float(at["eps"])),
    "gelu": lambda at, x: F.gelu(x, approximate=at.get("approx", "erf").replace("erf", "none")),
    "grn": lambda at, x, g, b: x * grn_scale(at, grn_stat(at, x), g) + b,
    "grn_stat": flat_stat,
    "grn_scale": grn_scale,
    "add": lambda at, x, y: x + y,
    "mul": lambda at, x, y: x * y,
    "scale": scale,
    "scale_rows": lambda at, x, s: x * s.reshape([-1] + [1] * (x.ndim - 1)),
    "drop_path": lambda at, x: x,
    "global_avg_pool": lambda at, x: x.mean(dim=tuple(range(1, x.ndim - 1))),
    "unpatchify": unpatchify,
    "expand": expand,
    "image_sum": lambda at, x: x.reshape(x.shape[0], -1, x.shape[-1]).sum(1),
    "sum_rows": lambda at, x: x.reshape(-1, x.shape[-1]).sum(0),
    "softmax_cross_entropy": cross_entropy,
    "bce_with_logits": bce,
    "norm_pix": norm_pix,
    "masked_mse": masked_mse,
    "linear_dw": lambda at, dy, x: grad(
        lambda w: F.linear(x, w), dy, torch.zeros(dy.shape[-1], x.shape[-1])),
    "dwconv2d_dx": dwconv_dx,
    "dwconv2d_dw": dwconv_dw,
    "layernorm_dx": layernorm_dx,
    "layernorm_dgamma": layernorm_dgamma,
    "normalize_dx": layernorm_dx,
    "gelu_dx": lambda at, dy, x: grad(lambda x: OPS["gelu"](at, x), dy, x),
    "grn_stat_dx": grn_stat_dx,
    "grn_scale_dstat": lambda at, ds, G, g: grad(lambda G: grn_scale(at, G, g), ds, G),
    "grn_scale_dgamma": lambda at, ds, G: grad(
        lambda g: grn_scale(at, G, g), ds, torch.ones(G.shape[-1])),
    "softmax_cross_entropy_dx": lambda at, dl, z, t: grad(
        lambda z: cross_entropy(at, z, t), dl, z),
    "bce_with_logits_dx": lambda at, dl, z, t: grad(lambda z: bce(at, z, t), dl, z),
    "masked_mse_dx": lambda at, dl, p, t, m: grad(lambda p: masked_mse(at, p, t, m), dl, p),
}

CASES = [
    ("reshape", "B,4,6", "shape=4B,3,2", 2),
    ("transpose", "B,4,5", "perm=2,0,1", 3),
    ("transpose", "2,3,4,5", "perm=3,1,0,2", 1),
    ("tile", "5", "times=3", 1),
    ("patchify", "B,9,7,3", "kernel=4,2 stride=4,2", 2),
    ("patchify", "B,5,6,3", "kernel=3,4 stride=2,1 pad=1,2", 2),
    ("pack", "10,7", "nr=4", 1),
    ("pack", "8,3", "nr=4", 1),
    ("conv2d", "B,9,7,3; 5,3,4,2; 5", "stride=4,2", 2),
    ("conv2d", "B,5,6,3; 7,3,3,4", "stride=2,1 pad=1,2", 2),
    ("dwconv2d", "B,5,9,6; 6,1,7,7; 6", "stride=1,1 pad=3,3", 2),
    ("dwconv2d", "B,8,5,3; 3,1,3,5", "stride=2,1 pad=0,2", 1),
    ("linear", "B,3,7; 10,7; 10", "", 2),
    ("linear", "7; 5,7", "", 1),
    ("layernorm", "B,3,7; 7; 7", "eps=0.001", 2),
    ("normalize", "B,3,7", "eps=1e-6", 2),
    ("gelu", "B,3,7", "approx=erf", 2),
    ("gelu", "B,3,7", "approx=tanh", 2),
    ("grn", "B,3,5,6; 6; 6", "eps=1e-6 residual=1", 2),
    ("grn", "B,3,5,6; 6; 6", "eps=0.01 aggregate=l1 normalise=sum statistics=batch", 3),
    ("grn", "B,3,5,6; 6; 6", "eps=0.01 aggregate=std normalise=standardise residual=1", 2),
    ("grn", "B,3,5,6; 6; 6", "aggregate=mean normalise=none", 2),
    ("grn_stat", "B,3,5,6", "aggregate=l2", 2),
    ("grn_stat", "B,3,5,6", "aggregate=l1", 2),
    ("grn_stat", "B,3,5,6", "aggregate=mean", 2),
    ("grn_stat", "B,3,5,6", "aggregate=std", 2),
    ("grn_stat", "B,3,5,6", "aggregate=l2 statistics=batch", 2),
    ("grn_scale", "B,6; 6", "eps=0.5 normalise=mean residual=1", 3),
    ("grn_scale", "B,6; 6", "eps=0.5 normalise=sum", 3),
    ("grn_scale", "B,6; 6", "eps=0.5 normalise=standardise", 3),
    ("grn_scale", "B,6; 6", "eps=0.5 normalise=none residual=1", 3),
    ("add", "B,3,5; B,3,5", "", 2),
    ("add", "B,3,5; 5", "", 2),
    ("mul", "B,3,5; B,3,5", "", 2),
    ("scale", "B,3,5; 5", "", 2),
    ("scale", "B,3,5; B,5", "", 2),
    ("scale", "B,3,5; 1,5", "", 2),
    ("scale_rows", "4,3,5; 4", "", 1),
    ("drop_path", "B,3,5", "rate=0.5 key=1", 2),
    ("global_avg_pool", "B,3,5,4", "", 2),
    ("unpatchify", "B,2,3,24", "kernel=4,2 stride=4,2 shape=B,9,7,3", 2),
    ("unpatchify", "B,3,7,36", "kernel=3,4 stride=2,1 pad=1,2 shape=B,5,6,3", 2),
    ("expand", "5", "shape=4,2,3,5", 1),
    ("expand", "B,5", "shape=B,2,3,5", 2),
    ("image_sum", "B,3,2,5", "", 2),
    ("sum_rows", "B,3,2,5", "", 2),
    ("softmax_cross_entropy", "B,5; B,5", "", 3),
    ("bce_with_logits", "B,5; B,5", "", 3),
    ("norm_pix", "B,3,7", "eps=1e-6", 2),
    ("masked_mse", "B,2,3,5; B,2,3,5; B,6", "", 2),
    ("linear_dw", "B,3,7; B,3,4", "", 2),
    ("linear_dw", "5; 7", "", 1),
    ("dwconv2d_dx", "B,5,9,6; 6,1,7,7", "stride=1,1 pad=3,3 shape=B,5,9,6", 2),
    ("dwconv2d_dx", "B,3,5,3; 3,1,3,5", "stride=2,1 pad=0,2 shape=B,8,5,3", 2),
    ("dwconv2d_dw", "B,5,9,6; B,5,9,6", "kernel=7,7 stride=1,1 pad=3,3", 2),
    ("dwconv2d_dw", "B,3,5,3; B,8,5,3", "kernel=3,5 stride=2,1 pad=0,2", 2),
    ("layernorm_dx", "B,3,7; B,3,7; 7", "eps=0.001", 2),
    ("layernorm_dgamma", "B,3,7; B,3,7", "eps=0.001", 2),
    ("normalize_dx", "B,3,7; B,3,7", "eps=1e-6", 2),
    ("gelu_dx", "B,3,7; B,3,7", "approx=erf", 2),
    ("gelu_dx", "B,3,7; B,3,7", "approx=tanh", 2),
    ("grn_stat_dx", "B,6; B,3,5,6; B,6", "aggregate=l2", 2),
    ("grn_stat_dx", "1,6; B,3,5,6; 1,6", "aggregate=l2 statistics=batch", 2),
    ("grn_stat_dx", "B,6; B,3,5,6; B,6", "aggregate=l1", 2),
    ("grn_stat_dx", "B,6; B,3,5,6; B,6", "aggregate=mean", 2),
    ("grn_stat_dx", "B,6; B,3,5,6; B,6", "aggregate=std", 2),
    ("grn_scale_dstat", "B,6; B,6; 6", "eps=0.5 normalise=mean", 3),
    ("grn_scale_dstat", "B,6; B,6; 6", "eps=0.5 normalise=sum", 3),
    ("grn_scale_dstat", "B,6; B,6; 6", "eps=0.5 normalise=standardise", 3),
    ("grn_scale_dstat", "B,6; B,6; 6", "eps=0.5 normalise=none", 3),
    ("grn_scale_dgamma", "B,6; B,6", "eps=0.5 normalise=mean", 3),
    ("grn_scale_dgamma", "B,6; B,6", "eps=0.5 normalise=standardise", 3),
    ("softmax_cross_entropy_dx", "B; B,5; B,5", "", 3),
    ("bce_with_logits_dx", "B; B,5; B,5", "", 3),
    ("masked_mse_dx", "B; B,2,3,5; B,2,3,5; B,6", "", 2),
]


def main():
    print("// Written by tests/unit/eval_values.py with PyTorch; do not edit.")
    for op, types, attrs, batch in CASES:
        xs = [operand(a, dims(t, batch)) for a, t in enumerate(types.split(";"))]
        at = dict(p.split("=") for p in attrs.split())
        y = OPS[op](at, *xs).contiguous().reshape(-1)
        print(f'CASE({op.upper()}, "{types}", "{attrs}", {batch}, {float(y[0]):.17g}, '
              f"{float(y[-1]):.17g},\n     {checksum(y):.17g})")


if __name__ == "__main__":
    main()
