"""Writes tests/parity/fixtures/*.safetensors: logits, pooled features and 64 hashed samples of every
stage's output (with its norm), from PyTorch in float32 on seeded weights and a seeded input.

  python tests/parity/make_fixtures.py [CASE...]

Cases are listed in cases.txt; tests/parity/parity.c builds each with cnxc and compares."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from unittest.mock import MagicMock

import numpy as np
import torch
from safetensors.numpy import save_file

from reference import Model, image, uniform

HERE = os.path.dirname(os.path.abspath(__file__))


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision, which timm imports but does not need for its models."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__ = []
        module.__spec__ = spec
        return module

    def exec_module(self, module):
        pass


def timm_logits(m, x):
    """The same network by timm, or None where timm is absent or has no such form."""
    try:
        if importlib.util.find_spec("torchvision") is None:
            sys.meta_path.append(StubFinder())
        import timm
    except ImportError:
        return None
    if m.name == "convnextv2_huge" or m.strides != (4, 2, 2, 2):
        return None
    net = timm.create_model(m.name, in_chans=m.in_chans, num_classes=m.classes, pretrained=False).eval()
    own = net.state_dict()
    sd = {}
    for k, v in m.params.items():
        p = k.split(".")
        if p[0] == "downsample_layers":
            k = (f"stem.{p[2]}" if p[1] == "0" else f"stages.{p[1]}.downsample.{p[2]}") + "." + p[3]
        elif p[0] == "stages":
            q = {"dwconv": "conv_dw", "norm": "norm", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2",
                 "grn": "mlp.grn", "gamma": "gamma"}[p[3]]
            last = {"gamma": "weight", "beta": "bias"}.get(p[-1], p[-1]) if p[3] == "grn" else p[-1]
            k = f"stages.{p[1]}.blocks.{p[2]}.{q}" + ("" if p[3] == "gamma" else "." + last)
        else:
            k = {"norm": "head.norm", "head": "head.fc"}[p[0]] + "." + p[1]
        sd[k] = v.reshape(own[k].shape)
    net.load_state_dict(sd)
    with torch.no_grad():
        return net(x)


def parse_cases():
    cases = {}
    for line in open(os.path.join(HERE, "cases.txt")):
        f = line.split("#")[0].split()
        if f:
            cases[f[0]] = dict(kv.split("=", 1) for kv in f[1:])
    return cases


def make(name, c):
    n, ch, h, w = (int(v) for v in c["input"].split("x"))
    grn = {k[4:]: (v == "true" if k == "grn.residual" else v) for k, v in c.items() if k.startswith("grn.")}
    strides = tuple(int(v) for v in c.get("strides", "4,2,2,2").split(","))
    m = Model(c["model"], in_chans=ch, classes=int(c.get("classes", 1000)), grn=grn,
              approx=c.get("approx", "none"), strides=strides)
    x = image(name, (n, ch, h, w))
    with torch.no_grad():
        stages, pooled, logits = m(x)
        if not grn and "approx" not in c and logits is not None:
            t = timm_logits(m, x)
            if t is not None:
                err = ((t - logits).abs().max() / logits.abs().max()).item()
                print(f"{name}: timm differs by {err:.2e}")
                assert err < 1e-5, "timm disagrees"
    out = {"pooled": pooled.numpy()}
    if logits is not None:
        out["logits"] = logits.numpy()
    for i, s in enumerate(stages):  # 64 samples of the channels-last map, and its norm and maximum
        flat = s.contiguous().numpy().reshape(-1)
        idx = ((uniform(f"stage{i}", 64) + 1) * 0.5 * flat.size).astype(np.int64)
        out[f"stage{i}.samples"] = flat[idx]
        out[f"stage{i}.norm"] = np.array([np.linalg.norm(flat.astype(np.float64)),
                                          np.abs(flat).max()], dtype=np.float32)
    path = os.path.join(HERE, "fixtures", name + ".safetensors")
    save_file({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in out.items()}, path)
    print(f"{name}: logits max {float(np.abs(out.get('logits', pooled.numpy())).max()):.3f}",
          [tuple(s.shape) for s in stages])


def main():
    cases = parse_cases()
    for name in sys.argv[1:] or cases:
        make(name, cases[name])


if __name__ == "__main__":
    main()
