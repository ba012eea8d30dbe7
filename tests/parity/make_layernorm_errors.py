"""Writes tests/numeric/layernorm_errors.inc: the largest errors of PyTorch's eager layer normalisation in
float32, forward and backward, against float64 on the data of tests/numeric/test_layernorm.c.

  python tests/parity/make_layernorm_errors.py"""

import os

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "numeric", "layernorm_errors.inc")
ROWS, EPS = 49, 1e-6
CASES = [(c, offset) for offset in (0, 1, 30) for c in (40, 96, 160, 384, 768, 1536)]


class Draw:
    """The numbers of kernel_case.h, `reals`, from a state."""

    def __init__(self, state):
        self.state = state

    def reals(self, n, bound):
        out = np.empty(n)
        for i in range(n):
            self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
            out[i] = bound * ((self.state >> 33) / 1073741824.0 - 1)
        return out.astype(np.float32)


def case(c, offset):
    """x, dy, gamma, beta in float32."""
    draw = Draw(c + offset)
    x, dy = draw.reals(ROWS * c, 2) + np.float32(offset), draw.reals(ROWS * c, 1)
    return x.reshape(ROWS, c), dy.reshape(ROWS, c), draw.reals(c, 1), draw.reals(c, 1)


def layer(values, dtype):
    """y, dx, dgamma."""
    x, dy, gamma, beta = (torch.from_numpy(v).to(dtype) for v in values)
    x.requires_grad_(), gamma.requires_grad_()
    y = torch.nn.functional.layer_norm(x, x.shape[1:], gamma, beta, EPS)
    y.backward(dy)
    return [v.detach().double() for v in (y, x.grad, gamma.grad)]


def main():
    torch.set_num_threads(1)
    with open(OUT, "w") as out:
        print("// PyTorch", torch.__version__, "eager, CPU capability",
              torch.backends.cpu.get_cpu_capability() + "; written by make_layernorm_errors.py.\n"
              "// {channels, offset of x, {largest errors of y, dx, dgamma}}", file=out)
        for c, offset in CASES:
            values = case(c, offset)
            pairs = zip(layer(values, torch.float32), layer(values, torch.float64))
            errors = ", ".join(f"{(a - b).abs().max().item():.3g}" for a, b in pairs)
            print(f"{{{c}, {offset}, {{{errors}}}}},", file=out)


if __name__ == "__main__":
    main()
