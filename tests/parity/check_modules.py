"""Compares modules.py (ordinary PyTorch modules, float32) with the float64 reference of the training
fixtures: loss and every gradient of the cases both can express; and timm's gradients where timm is
installed.

  python tests/parity/check_modules.py"""

import sys

import torch

from modules import FCMAE, ConvNeXtV2
from reference import image
from reference_train import SPECS, TrainModel, parse_cases, upsample


def compare(name, loss, named, m, want):
    worst = max(((p.grad.double() - m.params[k].grad.reshape(p.shape)).norm() / m.params[k].grad.norm()).item()
                for k, p in named)
    relative = abs(loss.item() - want.item()) / want.item()
    print(f"{name}: loss {relative:.1e}, gradients {worst:.1e}")
    return relative < 1e-5 and worst < 1e-4


def check(name, c):
    m = TrainModel(name, c)
    want, _ = m.run(0)
    want.backward()
    (depths, dims), strides, decoder = SPECS[c["spec"]]
    x = image(f"{name}.0", (m.batch, m.in_chans, m.h, m.w))
    if m.pretrain:
        net = FCMAE(depths, dims, strides, m.in_chans, decoder, m.norm_pix)
    else:
        net = ConvNeXtV2(depths, dims, strides, m.in_chans, m.classes)
    net.load_state_dict({k: v.detach().float() for k, v in m.params.items()})
    if m.pretrain:
        loss = net(x, upsample(m.mask(0), m.unit).float())
    else:
        loss = -(m.target(0).float() * net(x).log_softmax(-1)).sum(-1).mean()
    loss.backward()
    good = compare(name, loss, net.named_parameters(), m, want)
    if not m.pretrain and strides == (4, 2, 2, 2):
        good &= check_timm(name, m, x, want)
    return good


def check_timm(name, m, x, want):
    from libraries import timm_model
    net = timm_model(m.depths, m.dims, m.classes)
    named = {}
    for k, v in m.params.items():
        p = k.split(".")
        if p[0] == "downsample_layers":
            k = (f"stem.{p[2]}" if p[1] == "0" else f"stages.{p[1]}.downsample.{p[2]}") + "." + p[3]
        elif p[0] == "stages":
            q = {"dwconv": "conv_dw", "norm": "norm", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2",
                 "grn": "mlp.grn"}[p[3]]
            k = f"stages.{p[1]}.blocks.{p[2]}.{q}." + {"gamma": "weight", "beta": "bias"}.get(p[-1], p[-1])
        else:
            k = {"norm": "head.norm", "head": "head.fc"}[p[0]] + "." + p[1]
        named[k] = v
    own = net.state_dict()
    net.load_state_dict({k: v.detach().float().reshape(own[k].shape) for k, v in named.items()})
    loss = -(m.target(0).float() * net(x).log_softmax(-1)).sum(-1).mean()
    loss.backward()
    back = {k: next(o for o, v in m.params.items() if v is named[k]) for k in named}
    return compare(name + " (timm)", loss, [(back[k], p) for k, p in net.named_parameters()], m, want)


def main():
    torch.manual_seed(0)
    good = True
    for name, c in parse_cases().items():
        if c.get("statistics") or c.get("loss") or c.get("drop") or "v1" in c["spec"]:
            continue
        good &= check(name, c)
    sys.exit(not good)


if __name__ == "__main__":
    main()
