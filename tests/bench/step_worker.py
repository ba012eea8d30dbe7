"""PyTorch's training step in a process of its own, for tests/bench/steps: forward, backward and AdamW
of FCMAE in its masked dense form (program pretrain) or of the classifier (train), float32.

  python step_worker.py CONFIG.json

Speaks the protocol of worker.py: `ready JSON`, then `run N` -> `ms JSON`, or `failed JSON`. The
configuration: peer torch-eager, torch-channels_last or torch-compile; program, model, size (pixels),
batch, keep (visible patches), threads."""

import json
import os
import sys

from worker import timed

HERE = os.path.dirname(os.path.abspath(__file__))


def build(c):
    import torch
    sys.path.insert(0, os.path.join(HERE, "..", "parity"))
    from modules import FCMAE, ConvNeXtV2, parameter_groups
    from reference import SIZES
    torch.manual_seed(0)
    torch.set_num_threads(c["threads"])
    depths, dims = SIZES[c["model"]]
    pretrain = c["program"] == "pretrain"
    model = FCMAE(depths, dims) if pretrain else ConvNeXtV2(depths, dims)
    x = torch.rand(c["batch"], 3, c["size"], c["size"]) * 4 - 2
    if c["peer"] != "torch-eager":
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    if pretrain:
        grid = c["size"] // 32
        order = torch.rand(c["batch"], grid * grid).argsort(1)
        mask = torch.ones(c["batch"], grid * grid).scatter_(1, order[:, :c["keep"]], 0)
        target = mask.reshape(-1, grid, grid)
    else:
        target = torch.randint(0, 1000, (c["batch"],))
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05, pretrain), lr=1e-4)
    if pretrain:
        loss_of = model
    else:
        def loss_of(x, y):
            return torch.nn.functional.cross_entropy(model(x), y)
    if c["peer"] == "torch-compile":
        loss_of = torch.compile(loss_of)

    def step():
        optimizer.zero_grad()
        loss_of(x, target).backward()
        optimizer.step()

    step()
    return step, torch.__version__


def main():
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(word, value):
        protocol.write(f"{word} {json.dumps(value)}\n")
        protocol.flush()

    with open(sys.argv[1]) as f:
        c = json.load(f)
    try:
        step, version = build(c)
        say("ready", {"version": version})
        for line in sys.stdin:
            say("ms", timed(step, int(line.split()[1])))
    except ModuleNotFoundError as e:
        say("failed", {"status": "not installed", "why": str(e)})
    except Exception as e:
        say("failed", {"status": "failed", "why": f"{type(e).__name__}: {e}"[:2000]})


if __name__ == "__main__":
    main()
