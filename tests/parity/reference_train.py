"""Training of ConvNeXt V1/V2 and FCMAE in PyTorch, in float64 on seeded weights: the reference of
the training fixtures. FCMAE is the masked dense form, by its definition: depthwise convolutions see
zeros at hidden positions and GRN's statistics are those of visible ones.

Everything a case needs comes from its line in train_cases.txt and the hash of reference.uniform:
  image      step k reads image("CASE.k")
  mask       "CASE.k.mask": of each image the `keep` units with the smallest values stay visible
  labels     "CASE.k.labels": floor((u+1)/2 * classes)
  targets    soft: "CASE.k.targets": (u+1)/sum of an image's (u+1); sets: u > 0, none in the first row
  drop path  "CASE.k.drop.KEY": a branch is dropped where (u+1)/2 < its rate; keys count blocks from 1"""

import math
import os

import numpy as np
import torch
import torch.nn.functional as F

from reference import SIZES, Model, image, seeded, uniform

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL = ((1, 1, 2, 1), (12, 20, 28, 36))
# spec -> (depths, dims), strides, width of the decoder, rates of the recipe that is used
SPECS = {
    "train_small.yaml": (SMALL, (2, 2, 2, 2), 44),
    "train_small_v1.yaml": (SMALL, (2, 2, 2, 2), None),
    "train_group.yaml": (((3, 3, 27, 3), (8, 12, 12, 16)), (2, 2, 2, 2), 44),
    "convnextv2_atto": (SIZES["convnextv2_atto"], (4, 2, 2, 2), 512),
    "convnextv2_atto_64": (SIZES["convnextv2_atto"], (2, 2, 2, 2), 512),
    "convnextv2_atto_32": (SIZES["convnextv2_atto"], (1, 2, 2, 2), 512),
}
STEPS, LR = 10, 1e-3
DECAY = {"pretrain": 0.05, "train": 0.3}
BETAS = {"pretrain": (0.9, 0.95), "train": (0.9, 0.999)}


def parse_cases(path=os.path.join(HERE, "train_cases.txt")):
    cases = {}
    for line in open(path):
        f = line.split("#")[0].split()
        if f:
            cases[f[0]] = dict(kv.split("=", 1) for kv in f[1:])
    return cases


class TrainModel(Model):
    """The network of a case; parameters are leaves of `dtype` under their official names."""

    def __init__(self, case, c, dtype=torch.float64):
        (self.depths, self.dims), self.strides, self.decoder = SPECS[c["spec"]]
        self.case, self.c, self.dtype, self.seed = case, c, dtype, 0
        self.v2 = "v1" not in c["spec"]
        self.approx, self.params = "none", {}
        self.pretrain = c["program"] == "pretrain"
        self.batch, self.in_chans, self.h, self.w = (int(v) for v in c["input"].split("x"))
        self.classes = int(c.get("classes", 7))
        self.grn = {"statistics": c.get("statistics", "image")}
        self.unit, self.norm_pix = int(c.get("unit", 1)), c.get("norm_pix", "true") == "true"
        self.cell = math.prod(self.strides)
        self.grid = self.h // (self.cell * self.unit), self.w // (self.cell * self.unit)
        self.units = self.grid[0] * self.grid[1]
        self.keep = int(self.units * (1 - float(c.get("ratio", 0.6))))
        self.drops, self.rate, self.visible = {}, float(c.get("drop", 0)), None

    def p(self, name, *shape):
        if name not in self.params:
            value = seeded(name, shape, self.seed).to(self.dtype)
            self.params[name] = value.requires_grad_()
        return self.params[name]

    # ---- the network --------------------------------------------------------------------------
    def grn_apply(self, x, name):
        """GRN whose statistic is that of visible positions, where there is a mask."""
        k = x.shape[-1]
        seen = x if self.visible is None else x * self.visible
        over = (0, 1, 2) if self.grn["statistics"] == "batch" else (1, 2)
        square = seen.square().sum(over, keepdim=True)
        zero = square == 0  # the subgradient of the norm is 0 there
        g = torch.where(zero, 0, torch.where(zero, 1, square).sqrt())
        n = g / (g.mean(-1, keepdim=True) + 1e-6)
        return self.p(name + ".gamma", 1, 1, 1, k) * (x * n) + self.p(name + ".beta", 1, 1, 1, k) + x

    def block(self, x, name, key=None):
        c = x.shape[-1]
        seen = x if self.visible is None else x * self.visible
        w = self.p(name + ".dwconv.weight", c, 1, 7, 7)
        y = F.conv2d(seen.permute(0, 3, 1, 2), w, self.p(name + ".dwconv.bias", c), padding=3, groups=c)
        y = self.ln(y.permute(0, 2, 3, 1), name + ".norm")
        y = F.gelu(self.linear(y, name + ".pwconv1", 4 * c))
        if self.v2:
            y = self.grn_apply(y, name + ".grn")
        y = self.linear(y, name + ".pwconv2", c)
        if not self.v2:
            y = y * self.p(name + ".gamma", c)
        if key in self.drops:
            y = y * self.drops[key].view(-1, 1, 1, 1)
        return x + y

    def encoder(self, image, mask=None, prefix=""):
        """image (N,C,H,W), mask (N,gh,gw) of units, 1 hidden -> the last stage, channels last."""
        x, key, side = image.to(self.dtype).permute(0, 2, 3, 1), 1, self.cell * self.unit
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            layer = f"{prefix}downsample_layers.{i}."
            if i == 0:
                x = self.ln(self.conv(x, layer + "0", dim, self.strides[0]), layer + "1")
            else:
                x = self.conv(self.ln(x, layer + "0"), layer + "1", dim, self.strides[i])
            side //= self.strides[i]
            if mask is not None:
                self.visible = (1 - upsample(mask, side)).unsqueeze(-1)
                x = x * self.visible
            for j in range(depth):
                x = self.block(x, f"{prefix}stages.{i}.{j}", key)
                key += 1
        if mask is not None:
            x = x * self.visible
            self.visible = None
        return x

    def logits(self, image):
        x = self.encoder(image).mean((1, 2))
        return self.linear(self.ln(x, "norm"), "head", self.classes)

    def pixels(self, x, name, cout):  # a 1x1 convolution with its official shape
        w = self.p(name + ".weight", cout, x.shape[-1], 1, 1)
        return F.linear(x, w[:, :, 0, 0], self.p(name + ".bias", cout))

    def predict(self, image, mask):
        x = self.pixels(self.encoder(image, mask, "encoder."), "proj", self.decoder)
        token = self.p("mask_token", 1, self.decoder, 1, 1)[:, :, 0, 0]
        m = upsample(mask, self.unit).unsqueeze(-1)
        x = self.block(x * (1 - m) + token * m, "decoder.0")
        return self.pixels(x, "pred", self.cell**2 * self.in_chans)

    def patches(self, image):
        """(N,C,H,W) -> (N,rows,cols,p*p*C), inside a patch row, column, channel."""
        n, c, h, w = image.shape
        p = self.cell
        x = image.to(self.dtype).reshape(n, c, h // p, p, w // p, p)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(n, h // p, w // p, p * p * c)

    # ---- losses -------------------------------------------------------------------------------
    def fcmae(self, image, mask):
        """-> loss [N] and the prediction; mask (N,gh,gw) of units."""
        pred, target = self.predict(image, mask), self.patches(image)
        if self.norm_pix:
            var = target.var(-1, keepdim=True, unbiased=True)
            target = (target - target.mean(-1, keepdim=True)) / (var + 1e-6).sqrt()
        m = upsample(mask, self.unit)
        each = (pred - target).square().mean(-1) * m
        return each.sum((1, 2)) / m.sum((1, 2)), pred

    def supervised(self, image, target):
        """-> loss [N] and logits; target (N,classes)."""
        z = self.logits(image)
        if self.c.get("loss") == "bce":
            each = F.binary_cross_entropy_with_logits(z, target, reduction="none").mean(-1)
        else:
            each = -(target * F.log_softmax(z, -1)).sum(-1)
        return each, z

    # ---- the data of a step -------------------------------------------------------------------
    def mask(self, step):
        u = uniform(f"{self.case}.{step}.mask", self.batch * self.units).reshape(self.batch, -1)
        m = np.ones_like(u)
        np.put_along_axis(m, np.argsort(u, axis=1, kind="stable")[:, : self.keep], 0, axis=1)
        return torch.from_numpy(m).to(self.dtype).reshape(self.batch, *self.grid)

    def labels(self, step):
        u = uniform(f"{self.case}.{step}.labels", self.batch)
        return torch.from_numpy(((u + 1) * 0.5 * self.classes).astype(np.int64))

    def target(self, step):
        kind = self.c.get("targets")
        if kind is None:
            return F.one_hot(self.labels(step), self.classes).to(self.dtype)
        u = uniform(f"{self.case}.{step}.targets", self.batch * self.classes)
        if kind == "sets":  # no class in the first row
            t = (u > 0).reshape(self.batch, -1)
            t[0] = False
            return torch.from_numpy(t).to(self.dtype)
        t = u.reshape(self.batch, -1) + 1
        t = (t / t.sum(1, keepdims=True)).astype(np.float32)  # as the compiled program reads them
        return torch.from_numpy(t).to(self.dtype)

    def draw_drops(self, step):
        blocks, self.drops = sum(self.depths), {}
        for key in range(1, blocks + 1 if self.rate else 0):
            rate = self.rate * (key - 1) / (blocks - 1)
            u = (uniform(f"{self.case}.{step}.drop.{key}", self.batch) + 1) * 0.5
            keep = np.where(u < rate, 0, 1 / (1 - rate)).astype(np.float32)
            self.drops[key] = torch.from_numpy(keep).to(self.dtype)

    def run(self, step):
        """-> mean loss and logits or prediction on the data of a step."""
        x = image(f"{self.case}.{step}", (self.batch, self.in_chans, self.h, self.w))
        self.draw_drops(step)
        loss, out = (self.fcmae(x, self.mask(step)) if self.pretrain
                     else self.supervised(x, self.target(step)))
        return loss.mean(), out

    # ---- the optimiser ------------------------------------------------------------------------
    def layer(self, name):
        """(id, number of ids) of a parameter for layer decay."""
        total, part = sum(self.depths), name.split(".")
        grouped = self.c["spec"] == "train_group.yaml"
        last = 13 if grouped else total + 1
        if part[0] in ("norm", "head"):
            return last, last
        stage = int(part[1])
        if not grouped:
            block = int(part[2]) if part[0] == "stages" else 0
            return (1 if name.startswith("downsample_layers.0") else sum(self.depths[:stage]) + block + 1), last
        if part[0] == "downsample_layers":
            return (0, 2, 3, 12)[stage], last
        return (1, 2, 3 + int(part[2]) // 3, 12)[stage], last

    def groups(self):
        """Parameter groups of AdamW by the rules of the recipes."""
        out = []
        for name, p in self.params.items():
            bias = name.endswith(".bias")
            if self.pretrain:
                decays, scale = p.ndim > 1 and not bias, 1.0
            else:
                decays = p.ndim > 1 and not bias and not name.endswith((".gamma", ".beta"))
                index, last = self.layer(name)
                rate = {"train_group.yaml": 0.6, "train_small_v1.yaml": 1.0}.get(self.c["spec"], 0.9)
                scale = rate ** (last - index)
            wd = DECAY[self.c["program"]] if decays else 0.0
            out.append({"params": [p], "lr": LR * scale, "weight_decay": wd})
        return out

    def train(self):
        """-> losses of STEPS steps of AdamW, each taken before its update."""
        optimizer, losses = None, []
        for step in range(STEPS):
            loss, _ = self.run(step)
            if optimizer is None:  # parameters exist from the first run on
                optimizer = torch.optim.AdamW(self.groups(), betas=BETAS[self.c["program"]], eps=1e-8)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses


def upsample(mask, factor):
    """Nearest: (N,gh,gw) -> (N,gh*factor,gw*factor)."""
    return mask.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
