#!/usr/bin/env python3
"""Writes codegen/gelu.inc: the coefficients of GELU, with their errors.

gelu(x) = max(x,0) + g(|x|),  g(a) = -a Phi(-a), even and small.

Table: segment k = round(a S) of 32, u = a S - k in [-1/2,1/2], g = cubic in u, near-minimax
(Chebyshev nodes). Segments 0 and 31 are exact at u = 0 (g = 0 there), so gelu(0) = 0 and values
beyond the clamp a <= 31/S are passed through.

Power form, for targets without a table look-up: g(a) = -a / q(a)^16, q of degree 6 fitted by
reweighted least squares to the absolute error of g.

Slope: gelu'(x) = h(|x|) for x < 0, else 1 - h(|x|), h(a) = Phi(-a) - a phi(a), by a second table of
the same form. Segment 31 is exact at u = 0 (h = 0 there), so that the slope ends at 0 and 1.
"""
import math
import numpy as np

A = 5.3
S = np.float32(31 / A)
S_SLOPE = np.float32(31 / 5.45)
erfc = np.vectorize(math.erfc)
f32 = np.float32


def g(a):
    return -a * 0.5 * erfc(a / math.sqrt(2))


def h(a):
    return 0.5 * erfc(a / math.sqrt(2)) - a * np.exp(-a * a / 2) / math.sqrt(2 * math.pi)


def segment(k, g=g, S=S, exact=(0, 31)):
    u = np.cos((np.arange(200) + 0.5) * np.pi / 200) / 2
    if k == 0:
        u = abs(u)
    if k == 31:
        u = -abs(u)
    y = g((k + u) / float(S))
    if k in exact:  # no constant term
        basis = np.stack([u, u**2, u**3], 1)
        w = np.ones_like(u)
        for _ in range(60):
            c = np.linalg.lstsq(basis * w[:, None], y * w, rcond=None)[0]
            e = abs(basis @ c - y)
            w *= (e / e.max() + 0.05) ** 0.5
        return np.concatenate([[0.0], c])
    return np.polynomial.chebyshev.Chebyshev.fit(u, y, 3, domain=[-0.5, 0.5]).convert(
        kind=np.polynomial.Polynomial).coef


def power_form():
    top = 6.0
    a = (np.cos(np.linspace(0, np.pi, 4000)) / 2 + 0.5) * top
    phi = 0.5 * erfc(a / math.sqrt(2))
    q = phi ** (-1 / 16)
    w = np.maximum(a, 0.02) * phi * 16 / q
    r = np.ones_like(a)
    basis = np.stack([(a / top) ** i for i in range(7)], 1)
    for _ in range(80):
        c = np.linalg.lstsq(basis * (w * r)[:, None], q * w * r, rcond=None)[0]
        e = abs(basis @ c - q) * w
        r *= (e / e.max() + 0.02) ** 0.5
        r /= r.max()
    return c / top ** np.arange(7.0)


def slope_error(table):
    a = np.linspace(0, 10, 1000001).astype(f32)
    clamped = np.minimum(a, f32(31) / S_SLOPE)
    k = np.rint(clamped.astype(np.float64) * float(S_SLOPE)).astype(int)
    u = (clamped.astype(np.float64) * float(S_SLOPE) - k).astype(f32)
    p = table[3][k]
    for d in (2, 1, 0):
        p = fma(p, u, table[d][k])
    return abs(p - h(a.astype(np.float64))).max()


def print_table(name, table):
    print(f"static const double {name}[4][32] = {{")
    for row in table:
        v = [f"{float(c):.9g}" for c in row]
        print("    {" + ",\n     ".join(", ".join(v[i:i + 6]) for i in range(0, 32, 6)) + "},")
    print("};")


def fma(x, y, z):
    return (x.astype(np.float64) * np.float64(y) + np.float64(z)).astype(f32)


def main():
    table = np.array([segment(k) for k in range(32)]).T.astype(f32)
    power = power_form().astype(f32)
    x = np.linspace(-10, 10, 2000001).astype(f32)
    exact = x.astype(np.float64) * 0.5 * erfc(-x.astype(np.float64) / math.sqrt(2))
    relu = np.maximum(x, f32(0))
    a = np.minimum(abs(x), f32(31) / S)
    k = np.rint(a.astype(np.float64) * float(S)).astype(int)
    u = (a.astype(np.float64) * float(S) - k).astype(f32)
    p = table[3][k]
    for d in (2, 1, 0):
        p = (p.astype(np.float64) * u + table[d][k]).astype(f32)
    error_table = abs((relu + p) - exact).max()
    a = np.minimum(abs(x), f32(12))
    q = np.full_like(a, power[6])
    for d in range(5, -1, -1):
        q = fma(q, a, power[d])
    for _ in range(4):
        q = q * q
    error_power = abs((relu - a / q) - exact).max()
    print("// Written by tests/numeric/gelu_coefficients.py; see there for the method.")
    print(f"// Largest absolute error on [-10,10] in f32: table {error_table:.1e}, "
          f"power form {error_power:.1e}.")
    print(f"#define GELU_TABLE_SCALE {float(S)!r}")
    print(f"#define GELU_TABLE_CLAMP {float(f32(31) / S)!r}")
    print_table("gelu_table", table)
    print("static const double gelu_power[7] = {")
    print("    " + ", ".join(f"{float(c):.9g}" for c in power[:4]) + ",")
    print("    " + ", ".join(f"{float(c):.9g}" for c in power[4:]) + "};")
    slope = np.array([segment(k, h, S_SLOPE, (31,)) for k in range(32)]).T.astype(f32)
    print(f"// Slope: largest absolute error {slope_error(slope):.1e}.")
    print(f"#define GELU_SLOPE_SCALE {float(S_SLOPE)!r}")
    print(f"#define GELU_SLOPE_CLAMP {float(f32(31) / S_SLOPE)!r}")
    print_table("gelu_slope_table", slope)


if __name__ == "__main__":
    main()
