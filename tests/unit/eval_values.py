#!/usr/bin/env python3
"""Writes tests/unit/eval_values.inc: what PyTorch computes, in f64, for one node per line.

    python tests/unit/eval_values.py > tests/unit/eval_values.inc

Operand a has elements ((i*(7+2a) + 3+a) mod 11 - 5) / 4 in row-major order. A line is
    CASE(op, operand types, attributes, batch, first element, last element, checksum)
with checksum = sum_i y[i] * ((5i+1) mod 13 - 6). Layouts are those of the IR (channels last).
"""
import math
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def operand(a, shape):
    i = torch.arange(math.prod(shape), dtype=torch.int64)
    return (((i * (7 + 2 * a) + 3 + a) % 11 - 5) / 4.0).to(torch.float64).reshape(shape)


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
