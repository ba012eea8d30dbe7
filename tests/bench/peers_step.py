"""Peers of training steps: forward, backward and AdamW of the classifier (tasks train, in float32, and
train-bf16) or of FCMAE in its masked dense form (task fcmae), on made-up data; compiled programs and
PyTorch, in bf16 under its autocast."""

import json
import os
import subprocess
import sys

from worker import Ready, timed

HERE = os.path.dirname(os.path.abspath(__file__))


def prepare_compiled(c):
    """A program's own `bench`; it warms up in each burst, which is a process of its own."""
    def bench(runs):
        out = subprocess.run(
            [c["program"], "bench", "--program", c["command"], "--batch", str(c["batch"]),
             "--threads", str(c["threads"]), "--runs", str(runs), "--json"],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out)

    facts = bench(1)
    said = {k: facts[k] for k in ("gflop", "micro", "planned_mb", "min_ms")}

    def answer(n):
        facts = bench(n)
        return {"ms": facts["run_ms"], "peak_rss_mb": facts["peak_rss_mb"]}

    return Ready({"version": "", "warm": True, **said}, None, answer=answer)


def network(c):
    """The module in the form of the official code, with as many parameters as ours."""
    sys.path.insert(0, os.path.join(HERE, "..", "parity"))
    from modules import FCMAE, ConvNeXtV2
    shape = c["depths"], c["dims"], c["strides"], c["channels"]
    if c["task"] == "fcmae":
        model = FCMAE(*shape)
        counted = {n: p for n, p in model.named_parameters() if not n.startswith("encoder.")}
    else:
        model = ConvNeXtV2(*shape, c["classes"])
        counted = dict(model.named_parameters())
    count = sum(p.numel() for p in counted.values())
    if count != c["parameters"]:
        raise RuntimeError(f"{count} parameters, {c['parameters']} expected")
    return model


def targets(c):
    """Labels, or masks of cells, 1 hidden."""
    import torch
    if c["task"] != "fcmae":
        return torch.randint(0, c["classes"], (c["batch"],))
    total = 1
    for s in c["strides"]:
        total *= s
    grid = c["height"] // total, c["width"] // total
    order = torch.rand(c["batch"], grid[0] * grid[1]).argsort(1)
    mask = torch.ones(c["batch"], grid[0] * grid[1]).scatter_(1, order[:, :c["keep"]], 0)
    return mask.reshape(-1, *grid)


def prepare_torch(c):
    import torch
    sys.path.insert(0, os.path.join(HERE, "..", "parity"))
    from modules import parameter_groups
    torch.manual_seed(0)
    torch.set_num_threads(c["threads"])
    model, target = network(c), targets(c)
    x = torch.rand(c["batch"], c["channels"], c["height"], c["width"]) * 4 - 2
    if c["peer"] != "torch-eager":
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    groups = parameter_groups(model, 0.05, c["task"] == "fcmae")
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)

    def loss_of(x, y):
        if c["task"] == "fcmae":
            return model(x, y)
        with torch.autocast("cpu", torch.bfloat16, enabled=c.get("precision") == "bf16"):
            return torch.nn.functional.cross_entropy(model(x), y)

    if c["peer"] == "torch-compile":
        loss_of = torch.compile(loss_of)

    def step():
        optimizer.zero_grad()
        loss_of(x, target).backward()
        optimizer.step()

    first, second = timed(step, 2)
    return Ready({"version": torch.__version__, "first_ms": first, "min_ms": second}, step)


PREPARE = {"cnxc": prepare_compiled, "cnxc-dense": prepare_compiled, "torch-eager": prepare_torch,
           "torch-channels_last": prepare_torch, "torch-compile": prepare_torch}
