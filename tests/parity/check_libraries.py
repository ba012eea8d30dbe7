"""Converted checkpoints load, strictly, in timm and transformers and compute there what the
reference computes; checkpoints those libraries write come back with the same values.

  python check_libraries.py CNXC [SIZE...]        (sizes: atto tiny)"""

import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import libraries
from reference import SIZES, Model, image


def convert(cnxc, source, target, scheme):
    subprocess.run([cnxc, "weights", "convert", source, target, "--names=" + scheme], check=True)
    return load_file(target)


def check(cnxc, size, folder):
    reference = Model("convnextv2_" + size)
    x = image("libraries", (1, 3, 64, 96))
    with torch.no_grad():
        expected = reference(x)[2]
    source, target = os.path.join(folder, "in.pt"), os.path.join(folder, "out.safetensors")
    official = {k: v.reshape(1, 1, 1, -1) if ".grn." in k else v
                for k, v in reference.params.items()}
    torch.save({"model": official, "epoch": 3}, source)

    depths, dims = SIZES["convnextv2_" + size]
    models = {"timm": libraries.timm().create_model("convnextv2_" + size),
              "hf": libraries.hf_model(depths, dims, 1000)}
    for scheme, model in models.items():
        model.load_state_dict(convert(cnxc, source, target, scheme))
        with torch.no_grad():
            out = model.eval()(x)
        out = getattr(out, "logits", out)
        error = ((out - expected).abs().max() / expected.abs().max()).item()
        print(f"{size} {scheme}: logits differ by {error:.1e}")
        assert error < 2e-5
        for written in ("back.safetensors", "back.pt"):
            path = os.path.join(folder, written)
            if written.endswith(".pt"):
                torch.save(model.state_dict(), path)
            else:
                save_file(model.state_dict(), path)
            back = convert(cnxc, path, target, "official")
            assert set(back) == set(official)
            assert all(torch.equal(back[k], official[k]) for k in official)


def main():
    with tempfile.TemporaryDirectory() as folder:
        for size in sys.argv[2:] or ["atto", "tiny"]:
            check(sys.argv[1], size, folder)


if __name__ == "__main__":
    main()
