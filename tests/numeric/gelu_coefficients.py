#!/usr/bin/env python3
"""Writes codegen/gelu.inc: the coefficients of GELU, with their errors.

gelu(x) = max(x,0) + g(|x|),  g(a) = -a Phi(-a), even and small.

Table: segment k = round(a S) of 32, g = cubic in a, near-minimax (Chebyshev nodes). It has no
constant term in segment 0, so that gelu(0) = 0, and is 0 in segment 31, so that values beyond the
clamp a <= 31/S are passed through.

Power form, for targets without a table look-up: g(a) = -a / q(a)^16, q of degree 6 fitted by
reweighted least squares to the absolute error of g.

Slope: gelu'(x) = 1/2 + sign(x) q(|x|), q(a) = 1/2 - Phi(-a) + a phi(a), by a second table of the same
form. Segment 31 ends at 1/2, so that the slope ends at 0 and 1.

Power form of the slope, for targets without a table look-up: 1/2 - q(a) = n(a) / d(a)^8, n of
degree 6 and d of degree 5 with d(0) = 1, by Gauss-Newton steps on reweighted least squares.

2^r, |r| <= 1/2, of the tanh forms: a polynomial with constant term 1, of least relative error.
"""
import math
import numpy as np

S = np.float32(31 / 5.35)
S_SLOPE = np.float32(31 / 5.45)
SLOPE_MOST = 10
erfc = np.vectorize(math.erfc)
f32 = np.float32


def g(a):
    return -a * 0.5 * erfc(a / math.sqrt(2))


def q(a):
    return 0.5 - 0.5 * erfc(a / math.sqrt(2)) + a * np.exp(-a * a / 2) / math.sqrt(2 * math.pi)


def near_minimax(u, y, basis):
    w = np.ones_like(u)
    for _ in range(60):
        c = np.linalg.lstsq(basis * w[:, None], y * w, rcond=None)[0]
        e = abs(basis @ c - y)
        w *= (e / e.max() + 0.05) ** 0.5
    return c


def segment(k, f, S):
    """Coefficients of f in segment k."""
    u = np.cos((np.arange(200) + 0.5) * np.pi / 200) / 2
    u = abs(u) if k == 0 else u
    y = f((k + u) / float(S))
    if k == 0 and f is g:
        c = [0, *near_minimax(u, y, np.stack([u, u**2, u**3], 1))]
    else:
        c = np.polynomial.chebyshev.Chebyshev.fit(u, y, 3, domain=[-0.5, 0.5]).convert(
            kind=np.polynomial.Polynomial).coef
    return np.polynomial.Polynomial(c)(np.polynomial.Polynomial([-k, float(S)])).coef


def last_segment(f, S):
    """A line from f to its limit at the clamp."""
    a, limit = 30.5 / float(S), f(20.0)
    slope = (limit - f(a)) / (31 / float(S) - a) if limit else 0.0
    return np.array([limit - slope * 31 / float(S), slope, 0, 0])


def table_of(f, S):
    return np.array([*(segment(k, f, S) for k in range(31)), last_segment(f, S)]).T.astype(f32)


def evaluate(table, S, x):
    a = np.minimum(abs(x), f32(31) / S)
    k = np.rint(a.astype(np.float64) * float(S)).astype(int)
    p = table[3][k]
    for d in (2, 1, 0):
        p = fma(p, a, table[d][k])
    return p


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


def exp2_poly():
    r = np.cos(np.linspace(0, np.pi, 2000)) / 2
    w = 1 / 2**r
    return [1, *near_minimax(r, (2**r - 1) * w, np.stack([w * r**i for i in range(1, 6)], 1))]


def slope_power():
    """n and d."""
    top = 6.5
    t = np.cos(np.linspace(0, np.pi, 1500)) / 2 + 0.5
    a = t * top
    basis = np.stack([t**i for i in range(7)], 1)
    d = np.linalg.lstsq(basis[:, :6] * np.exp(-a * a / 4)[:, None], np.exp(-3 * a * a / 16),
                        rcond=None)[0]
    d /= d[0]
    n = np.linalg.lstsq(basis / ((basis[:, :6] @ d) ** 8)[:, None], 0.5 - q(a), rcond=None)[0]
    weight, best = np.ones_like(a), (1, None)
    for step in range(400):
        D = basis[:, :6] @ d
        h = basis @ n / D**8
        error = 0.5 - q(a) - h
        best = min(best, (abs(error).max(), (n, d)), key=lambda b: b[0])
        J = np.concatenate([basis / (D**8)[:, None], (-8 * h / D)[:, None] * basis[:, 1:6]], 1)
        J, scale = J * weight[:, None], abs(J).max(0)
        c = np.linalg.lstsq(J / scale, error * weight, rcond=None)[0] / scale / 2
        n, d = n + c[:7], d + np.array([0, *c[7:]])
        weight *= (abs(error) / abs(error).max() + 0.03) ** 0.1
        weight /= weight.max()
    n, d = best[1]
    return n / top ** np.arange(7.0), d / top ** np.arange(6.0)


def horner(c, x, fused):
    p = np.full_like(x, c[-1])
    for d in range(len(c) - 2, -1, -1):
        p = fma(p, x, c[d]) if fused else p * x + c[d]
    return p


def by_power(n, d, x, fused):
    a = np.minimum(abs(x), f32(SLOPE_MOST))
    p = horner(d, a, fused)
    for _ in range(3):
        p = p * p
    return f32(0.5) - horner(n, a, fused) / p


def slope_error(odd):
    x = np.linspace(-10, 10, 2000001).astype(f32)
    got = f32(0.5) + np.copysign(f32(1), x) * odd(x)
    assert got[0] == 0 and got[-1] == 1
    return abs(got - (0.5 + np.copysign(1, x) * q(abs(x.astype(np.float64))))).max()


def print_table(name, table):
    print(f"static const double {name}[4][32] = {{")
    for row in table:
        v = [f"{float(c):.9g}" for c in row]
        print("    {" + ",\n     ".join(", ".join(v[i:i + 6]) for i in range(0, 32, 6)) + "},")
    print("};")


def print_row(name, row):
    v = [f"{float(c):.9g}" for c in row]
    print(f"static const double {name}[{len(v)}] = {{")
    print("    " + ",\n    ".join(", ".join(v[i:i + 4]) for i in range(0, len(v), 4)) + "};")


def fma(x, y, z):
    return (x.astype(np.float64) * np.float64(y) + np.float64(z)).astype(f32)


def main():
    table = table_of(g, S)
    power = power_form().astype(f32)
    x = np.linspace(-10, 10, 2000001).astype(f32)
    exact = x.astype(np.float64) * 0.5 * erfc(-x.astype(np.float64) / math.sqrt(2))
    relu = np.maximum(x, f32(0))
    error_table = abs((relu + evaluate(table, S, x)) - exact).max()
    a = np.minimum(abs(x), f32(12))
    p = np.full_like(a, power[6])
    for d in range(5, -1, -1):
        p = fma(p, a, power[d])
    for _ in range(4):
        p = p * p
    error_power = abs((relu - a / p) - exact).max()
    print("// Written by tests/numeric/gelu_coefficients.py; see there for the method.")
    print(f"// Largest absolute error on [-10,10] in f32: table {error_table:.1e}, "
          f"power form {error_power:.1e}.")
    print(f"#define GELU_TABLE_SCALE {float(S)!r}")
    print(f"#define GELU_TABLE_CLAMP {float(f32(31) / S)!r}")
    print_table("gelu_table", table)
    print_row("gelu_power", power)
    slope = table_of(q, S_SLOPE)
    n, d = (c.astype(f32) for c in slope_power())
    error_table = slope_error(lambda x: evaluate(slope, S_SLOPE, x))
    error_power = max(slope_error(lambda x: by_power(n, d, x, fused)) for fused in (0, 1))
    print(f"// Slope: largest absolute error of the table {error_table:.1e}, "
          f"power form {error_power:.1e}.")
    print(f"#define GELU_SLOPE_SCALE {float(S_SLOPE)!r}")
    print(f"#define GELU_SLOPE_CLAMP {float(f32(31) / S_SLOPE)!r}")
    print_table("gelu_slope_table", slope)
    print_row("gelu_slope_n", n)
    print_row("gelu_slope_d", d)
    print_row("gelu_exp2", np.array(exp2_poly()).astype(f32))


if __name__ == "__main__":
    main()
