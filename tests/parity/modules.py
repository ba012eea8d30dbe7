"""ConvNeXt V2 and FCMAE as ordinary PyTorch modules, in the form of the official code (NCHW maps,
linear layers channels-last, masked dense encoder) and with its names: what the benchmark of training
steps and the comparison of loss curves train. check_modules.py compares them with the reference."""

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.LayerNorm):
    """Over the channels of an NCHW map."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GRN(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, k))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, k))

    def forward(self, x, visible=None):  # channels last
        g = torch.norm(x if visible is None else x * visible, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (g / (g.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


class Block(nn.Module):
    def __init__(self, c, rate=0.0):
        super().__init__()
        self.dwconv = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.norm = nn.LayerNorm(c, 1e-6)
        self.pwconv1 = nn.Linear(c, 4 * c)
        self.grn = GRN(4 * c)
        self.pwconv2 = nn.Linear(4 * c, c)
        self.rate = rate

    def forward(self, x, visible=None):  # visible: (N,1,h,w)
        y = self.dwconv(x if visible is None else x * visible).permute(0, 2, 3, 1)
        y = F.gelu(self.pwconv1(self.norm(y)))
        y = self.grn(y, None if visible is None else visible.permute(0, 2, 3, 1))
        y = self.pwconv2(y).permute(0, 3, 1, 2)
        if self.training and self.rate > 0:
            keep = (torch.rand(len(x), 1, 1, 1) >= self.rate) / (1 - self.rate)
            y = y * keep
        return x + y


class ConvNeXtV2(nn.Module):
    """classes 0: the encoder, without final norm and head."""

    def __init__(self, depths, dims, strides=(4, 2, 2, 2), in_chans=3, classes=1000, drop_path=0.0):
        super().__init__()
        self.strides, total = strides, sum(depths)
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(in_chans, dims[0], strides[0], strides[0]), Norm(dims[0], 1e-6))])
        for i in range(1, len(dims)):
            self.downsample_layers.append(nn.Sequential(
                Norm(dims[i - 1], 1e-6), nn.Conv2d(dims[i - 1], dims[i], strides[i], strides[i])))
        rates = [drop_path * k / max(1, total - 1) for k in range(total)]
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(c, rates[sum(depths[:i]) + j]) for j in range(depths[i]))
            for i, c in enumerate(dims))
        if classes:
            self.norm = nn.LayerNorm(dims[-1], 1e-6)
            self.head = nn.Linear(dims[-1], classes)
        for m in self.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)

    def features(self, x, mask=None):  # mask: (N,gh,gw), 1 hidden
        for i, (down, stage) in enumerate(zip(self.downsample_layers, self.stages)):
            x, visible = down(x), None
            if mask is not None:
                side = x.shape[-1] // mask.shape[-1]
                visible = 1 - mask.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
                x = x * visible
            for block in stage:
                x = block(x, visible)
        return x if mask is None else x * visible

    def forward(self, x):
        return self.head(self.norm(self.features(x).mean((2, 3))))


class FCMAE(nn.Module):
    def __init__(self, depths, dims, strides=(4, 2, 2, 2), in_chans=3, decoder_dim=512,
                 norm_pix=True):
        super().__init__()
        self.encoder = ConvNeXtV2(depths, dims, strides, in_chans, 0)
        self.proj = nn.Conv2d(dims[-1], decoder_dim, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, decoder_dim, 1, 1))
        self.decoder = nn.Sequential(Block(decoder_dim))
        self.patch, self.norm_pix = 1, norm_pix
        for s in strides:
            self.patch *= s
        self.pred = nn.Conv2d(decoder_dim, self.patch**2 * in_chans, 1)
        for m in [self.proj, self.pred, *self.decoder.modules()]:
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def target(self, x):
        n, c, h, w = x.shape
        p = self.patch
        t = x.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(n, -1, p * p * c)
        if self.norm_pix:
            t = (t - t.mean(-1, keepdim=True)) / (t.var(-1, keepdim=True) + 1e-6).sqrt()
        return t

    def forward(self, x, mask):
        """mask (N,gh,gw) of cells, 1 hidden -> the mean loss over hidden cells."""
        y, m = self.proj(self.encoder.features(x, mask)), mask[:, None]
        y = self.decoder(y * (1 - m) + self.mask_token * m)
        pred = self.pred(y).flatten(2).transpose(1, 2)
        loss = (pred - self.target(x)).square().mean(-1)
        return (loss * mask.flatten(1)).sum() / mask.sum()


def parameter_groups(model, weight_decay, pretrain):
    """By the rules of the official recipes, without layer decay."""
    decayed, plain = [], []
    for name, p in model.named_parameters():
        scale = not pretrain and name.endswith((".gamma", ".beta"))
        (plain if p.ndim == 1 or name.endswith(".bias") or scale else decayed).append(p)
    return [{"params": decayed, "weight_decay": weight_decay},
            {"params": plain, "weight_decay": 0.0}]
