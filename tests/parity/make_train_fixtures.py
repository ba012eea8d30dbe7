"""Writes tests/parity/train_fixtures/*.safetensors from PyTorch in float64 on seeded weights and data:

  loss      f64 [1]     of the first step
  losses    f64 [10]    of ten steps of AdamW, each before its update
  logits    f32 [N,classes] (train), pred f32 [64]: hashed samples (pretrain)
  grad.X    f32 [69]    of parameter X: its norm, 4 projections and 64 samples, see summary()

  python tests/parity/make_train_fixtures.py [CASE...]

Cases are listed in train_cases.txt; parity_train.c builds each with cnxc and compares."""

import os
import sys

import numpy as np
from safetensors.numpy import save_file

from reference import uniform
from reference_train import TrainModel, parse_cases

HERE = os.path.dirname(os.path.abspath(__file__))


def indices(name, size, n=64):
    return ((uniform(name, n) + 1) * 0.5 * size).astype(np.int64)


def summary(name, g):
    """Norm, the products with 4 seeded vectors of values in [-1,1), 64 seeded samples."""
    flat = g.reshape(-1).astype(np.float64)
    projections = [flat @ uniform(f"{name}.{k}", flat.size) for k in range(4)]
    return np.concatenate([[np.linalg.norm(flat)], projections, flat[indices(name, flat.size)]])


def make(name, c):
    m = TrainModel(name, c)
    loss, out = m.run(0)
    loss.backward()
    fixture = {"loss": np.array([loss.item()])}
    value = out.detach().numpy()
    if m.pretrain:
        fixture["pred"] = value.reshape(-1)[indices("pred", value.size)].astype(np.float32)
    else:
        fixture["logits"] = value.astype(np.float32)
    for k, p in m.params.items():
        fixture["grad." + k] = summary(k, p.grad.numpy()).astype(np.float32)
    losses = TrainModel(name, c).train()
    fixture["losses"] = np.array(losses)
    save_file(fixture, os.path.join(HERE, "train_fixtures", name + ".safetensors"))
    norms = [float(np.linalg.norm(p.grad.numpy())) for p in m.params.values()]
    print(f"{name}: loss {losses[0]:.6g} .. {losses[-1]:.6g}, {len(norms)} gradients, norms "
          f"{min(norms):.2e} .. {max(norms):.2e}", flush=True)


def main():
    cases = parse_cases()
    os.makedirs(os.path.join(HERE, "train_fixtures"), exist_ok=True)
    for name in sys.argv[1:] or cases:
        make(name, cases[name])


if __name__ == "__main__":
    main()
