"""Compares training with PyTorch in full, every element of every gradient, where PyTorch is installed:

  python tests/parity/compare_train.py CNXC [--evaluator] [--sparse packed|dense] [CASE...]

CASE is a line of train_cases.txt; default: those that the command grad can express. A case is built
and run by its command grad; with --evaluator the program's graph, differentiated by `cnxc opt` and
(with --sparse packed) rewritten to packed rows, is run in float64 by `cnxc eval`. Prints the relative
error of the loss and the largest of the gradients' errors relative to their norms; exit status 1
where one is above 1e-5 or 1e-4 (evaluator: 1e-6, for its results are written as float32)."""

import argparse
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

from reference import image
from reference_train import TrainModel, parse_cases, upsample

HERE = os.path.dirname(os.path.abspath(__file__))
SETTINGS = {"ratio": "fcmae.mask_ratio", "unit": "fcmae.mask_unit", "norm_pix": "fcmae.norm_pix_loss",
            "statistics": "grn.statistics", "classes": "head.classes",
            "loss": "recipes.train.loss,recipes.finetune.loss"}


def run(*command, output=None):
    done = subprocess.run(command, stdout=output or subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return done.stdout


def spec_arguments(c):
    spec = os.path.join(HERE, c["spec"])
    out = [spec if os.path.exists(spec) else c["spec"]]
    _, channels, h, w = c["input"].split("x")
    for key, value in (("channels", channels), ("height", h), ("width", w)):
        out += ["--set", f"input.{key}={value}"]
    for key, name in SETTINGS.items():
        if key in c:
            for one in name.split(","):
                out += ["--set", f"{one}={c[key]}"]
    return out


def by_grad(o, name, c, m, folder):
    """-> loss and gradients of the compiled program."""
    path = lambda f: os.path.join(folder, f)  # noqa: E731
    sparse = [f"--sparse={o.sparse}"] if o.sparse and m.pretrain else []
    run(o.cnxc, "build", *spec_arguments(c), *sparse, f"--programs=infer,{c['program']}", "-o", path("net"))
    np.save(path("x.npy"), image(f"{name}.0", (m.batch, m.in_chans, m.h, m.w)).numpy())
    if m.pretrain:
        np.save(path("y.npy"), m.mask(0).numpy().reshape(m.batch, -1).astype(bool))
    else:
        rows = "targets" in c
        np.save(path("y.npy"), m.target(0).numpy() if rows else m.labels(0).numpy().astype(np.int32))
    said = run(path("net"), "grad", "--weights", "seed:0", "--input", path("x.npy"),
               "--mask" if m.pretrain else "--labels", path("y.npy"), "--output", path("g.safetensors"))
    match = re.fullmatch(r"loss (\S+)\n", said)
    if not match:
        sys.exit(f"{name}: not 'loss VALUE': {said!r}")
    return float(match[1]), load_file(path("g.safetensors"))


def by_evaluator(o, name, c, m, folder):
    path = lambda f: os.path.join(folder, f)  # noqa: E731
    program = c["program"]
    run(o.cnxc, "emit", *spec_arguments(c), "--program", program, "-o", path("g.ir"))
    rewrite = "simplify,fold-constants,lower-conv,lower-grn"
    if o.sparse == "packed" and m.pretrain:
        rewrite += ",specialize-rulebook,drop-dead-rows"
    run(o.cnxc, "opt", path("g.ir"), f"--passes={rewrite},autodiff", "-o", path("d.ir"))
    text = open(path("d.ir")).read()
    inputs = {"image": image(f"{name}.0", (m.batch, m.in_chans, m.h, m.w)).permute(0, 2, 3, 1),
              "loss_scale": np.full(m.batch, 1 / m.batch), "mask": None, "target": None}
    if m.pretrain:
        inputs["mask"] = upsample(m.mask(0), m.unit)
    else:
        inputs["target"] = m.target(0)
        m.draw_drops(0)
        for key, value in re.findall(r'name="(drop\.(\d+))"', text):
            inputs[key] = m.drops.get(int(value), np.ones(m.batch))
    files = []
    for key, value in inputs.items():
        if f'input {{name="{key}"}}' in text:
            np.save(path(f"{key}.npy"), np.ascontiguousarray(np.asarray(value, dtype=np.float64)))
            files += ["--input", f"{key}={path(key + '.npy')}"]
    names = re.findall(r'grad\.[\w.]+(?==)', text.split("return ")[1])
    for key in ["loss", *names]:
        files += ["--output", f"{key}={path(key + '.out.npy')}"]
    run(o.cnxc, "eval", path("d.ir"), "--program", program, "--seed", "0", "--precision", "f64", *files)
    loss = np.load(path("loss.out.npy")).astype(np.float64).mean()
    return loss, {key[5:]: np.load(path(key + ".out.npy")) for key in names}


def compare(o, name, c):
    m = TrainModel(name, c)
    want, _ = m.run(0)
    want.backward()
    with tempfile.TemporaryDirectory() as folder:
        loss, grads = (by_evaluator if o.evaluator else by_grad)(o, name, c, m, folder)
    if set(grads) != set(m.params):
        print(f"{name}: gradients missing or extra: {sorted(set(grads) ^ set(m.params))}")
        return False
    errors = {}
    for key, p in m.params.items():
        g = p.grad.numpy()
        errors[key] = np.linalg.norm(grads[key].reshape(-1).astype(np.float64) - g.reshape(-1)) / np.linalg.norm(g)
        if not o.evaluator and list(grads[key].shape) != list(g.shape):
            print(f"{name}: {key} has shape {grads[key].shape}, expected {g.shape}")
            return False
    relative, worst = abs(loss - want.item()) / want.item(), max(errors, key=errors.get)
    print(f"{name}: loss {loss:.9g} off by {relative:.1e}, gradients by {errors[worst]:.1e} ({worst})", flush=True)
    limits = (1e-6, 1e-6) if o.evaluator else (1e-5, 1e-4)
    return relative <= limits[0] and errors[worst] <= limits[1]


def main():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("cnxc")
    p.add_argument("cases", nargs="*", metavar="CASE")
    p.add_argument("--evaluator", action="store_true")
    p.add_argument("--sparse", choices=("packed", "dense"))
    o = p.parse_intermixed_args()
    cases, good = parse_cases(), True
    plain = [k for k, c in cases.items() if o.evaluator or not ("targets" in c or "drop" in c)]
    for name in o.cases or plain:
        good &= compare(o, name, cases[name])
    sys.exit(not good)


if __name__ == "__main__":
    main()
