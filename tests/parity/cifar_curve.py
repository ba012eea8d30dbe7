"""The loss curve of a shortened CIFAR-10 training by PyTorch, and its comparison with that of a compiled
model: the same network (models/convnextv2_cifar.yaml), schedule, batch, optimiser and augmentation
(horizontal flips), other random numbers.

  OUT train --data cifar10.tar.gz --out RUN --epochs 3 --crop-scale none --mixup 0 --cutmix 0 \\
      --drop-path 0 --seed 1
  python tests/parity/cifar_curve.py train cifar10.tar.gz --out torch1.csv --epochs 3 --seed 1
  python tests/parity/cifar_curve.py compare --ours RUN/metrics.csv... --torch torch1.csv... [--svg F]

`compare` averages the loss over windows of 50 steps and sets the difference of the two sides' means
against the spread between the seeds of a side."""

import argparse
import csv
import io
import math
import os
import sys
import tarfile
import time

import numpy as np

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
DEPTHS, DIMS, STRIDES = (2, 3, 1), (48, 96, 192), (2, 2, 2)
BATCH, LR, MIN_LR, DECAY, SMOOTHING, WARMUP, EPOCHS = 128, 2e-3, 1e-6, 0.05, 0.1, 3, 40
WINDOW = 50


def load(path, split):
    """-> uint8 [N,3,32,32] and labels of split/<class>/*.jpg."""
    from PIL import Image
    files = []
    with tarfile.open(path) as tar:
        for member in tar:
            part = member.name.split("/")
            if member.isfile() and split in part:
                at = part.index(split)
                files.append((part[at + 1], member.name, tar.extractfile(member).read()))
    files.sort()
    classes = sorted({f[0] for f in files})
    x = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, _, data in files])
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), np.array([classes.index(f[0]) for f in files])


def lr_at(e, epochs):
    warmup = WARMUP * epochs / EPOCHS if epochs < EPOCHS else WARMUP
    if e < warmup:
        return LR * e / warmup
    return MIN_LR + (LR - MIN_LR) * 0.5 * (1 + math.cos(math.pi * min(1, (e - warmup) / (epochs - warmup))))


def normalise(x):
    import torch
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((x.float() / 255 - mean) / std).to(memory_format=torch.channels_last)


def accuracy(net, x, y):
    import torch
    net.eval()
    with torch.no_grad():
        hits = sum((net(normalise(x[i:i + 500])).argmax(1) == y[i:i + 500]).sum().item()
                   for i in range(0, len(x), 500))
    net.train()
    return 100 * hits / len(x)


def train(o):
    import torch
    from modules import ConvNeXtV2, parameter_groups
    torch.manual_seed(o.seed)
    if o.threads:
        torch.set_num_threads(o.threads)
    x, y = (torch.from_numpy(v) for v in load(o.data, "train"))
    net = ConvNeXtV2(DEPTHS, DIMS, STRIDES, 3, 10).to(memory_format=torch.channels_last)
    groups = parameter_groups(net, DECAY, pretrain=False)
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    steps, order, began = math.ceil(o.epochs * len(x) / BATCH), torch.empty(0, dtype=torch.long), time.time()
    with open(o.out, "w") as f:
        f.write("step,lr,loss\n")
        for step in range(steps):
            if len(order) < BATCH:
                order = torch.cat([order, torch.randperm(len(x))])
            index, order = order[:BATCH], order[BATCH:]
            batch = x[index]
            flip = torch.rand(BATCH) < 0.5
            batch[flip] = batch[flip].flip(3)
            lr = lr_at(step * BATCH / len(x), o.epochs)
            for g in optimizer.param_groups:
                g["lr"] = lr
            loss = torch.nn.functional.cross_entropy(net(normalise(batch)), y[index],
                                                     label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            f.write(f"{step + 1},{lr:.9g},{loss.item():.9g}\n")
            f.flush()
            if step % 100 == 99 or step + 1 == steps:
                rate = BATCH * (step + 1) / (time.time() - began)
                print(f"step {step + 1}/{steps} loss {loss.item():.4f} {rate:.0f} images/s", flush=True)
    test, labels = (torch.from_numpy(v) for v in load(o.data, "test"))
    print(f"test top-1 {accuracy(net, test, labels):.2f} %")


def curve(path):
    """Means over windows of the loss of a CSV file."""
    with open(path) as f:
        losses = [float(row["loss"]) for row in csv.DictReader(f)]
    return np.array([np.mean(losses[i:i + WINDOW]) for i in range(0, len(losses) - WINDOW + 1, WINDOW)])


def svg(path, ours, theirs):
    top, low = max(c.max() for c in ours + theirs), min(c.min() for c in ours + theirs)
    n, width, height = len(ours[0]), 720, 360

    def line(c, colour):
        points = " ".join(f"{50 + i * (width - 70) / (n - 1):.1f},{20 + (top - v) / (top - low) * (height - 60):.1f}"
                          for i, v in enumerate(c))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3"/>'

    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n')
        for v in np.linspace(low, top, 5):
            y = 20 + (top - v) / (top - low) * (height - 60)
            f.write(f'<path d="M50 {y:.1f}H{width - 20}" stroke="#ddd"/><text x="8" y="{y + 4:.1f}">{v:.2f}</text>\n')
        f.write("\n".join([line(c, "#d62728") for c in ours] + [line(c, "#1f77b4") for c in theirs]))
        f.write(f'\n<text x="60" y="{height - 12}">steps 1 to {n * WINDOW}; mean loss of {WINDOW} steps; '
                '<tspan fill="#d62728">cnxc</tspan>, <tspan fill="#1f77b4">PyTorch</tspan>, '
                'a line a seed</text>\n</svg>\n')


def compare(o):
    ours, theirs = [curve(p) for p in o.ours], [curve(p) for p in o.torch]
    n = min(len(c) for c in ours + theirs)
    ours, theirs = [c[:n] for c in ours], [c[:n] for c in theirs]
    a, b = np.mean(ours, 0), np.mean(theirs, 0)
    spread = [np.std(side, 0, ddof=1) for side in (ours, theirs) if len(side) > 1]
    noise = np.mean(spread, 0) if spread else np.full(n, np.nan)
    print("steps        cnxc   PyTorch  difference  spread of seeds")
    for i in range(n):
        print(f"{i * WINDOW + 1:5d}-{(i + 1) * WINDOW:<5d} {a[i]:7.4f}  {b[i]:7.4f}  {a[i] - b[i]:+10.4f}  {noise[i]:10.4f}")
    later = slice(n // 5, None)
    difference, sd = float(np.mean((a - b)[later])), float(np.mean(noise[later]))
    print(f"after the first fifth: mean difference {difference:+.4f}, spread of a window between seeds {sd:.4f}")
    if o.svg:
        svg(o.svg, ours, theirs)
    sys.exit(0 if not spread or abs(difference) < 2 * sd else 1)


def main():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    sub = p.add_subparsers(required=True)
    t = sub.add_parser("train")
    t.add_argument("data")
    t.add_argument("--out", required=True)
    t.add_argument("--epochs", type=float, default=3)
    t.add_argument("--seed", type=int, default=1)
    t.add_argument("--threads", type=int, default=0)
    t.set_defaults(run=train)
    c = sub.add_parser("compare")
    c.add_argument("--ours", nargs="+", required=True)
    c.add_argument("--torch", nargs="+", required=True)
    c.add_argument("--svg")
    c.set_defaults(run=compare)
    o = p.parse_args()
    o.run(o)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main()
