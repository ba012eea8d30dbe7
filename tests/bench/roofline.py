"""The roofline plot: GFLOP/s over arithmetic intensity, both logarithmic, as SVG; a panel a task.

Intensity counts the bytes that must move at least (`bytes` of a record): of inference parameters and
images once, of steps parameters, gradients and moments in and out too, of kernels their operands."""

import math
from xml.sax.saxutils import escape

from tables import ok, plural, short_name
from tasks import TASKS

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 560, 70, 50, 210, 60
COLOURS = {"cnxc": "#c0392b", "cnxc-dense": "#e6a59d", "torch-eager": "#7f8c8d", "torch-channels_last": "#95a5a6",
           "torch-compile": "#e67e22", "torch-aot": "#f1c40f", "onnxruntime": "#2980b9", "openvino": "#27ae60",
           "openblas": "#8e44ad", "blis": "#16a085", "onednn": "#2980b9"}


def points(records, threads):
    """(peer, record, FLOP per byte, GFLOP/s)"""
    for record in records:
        for peer, result in record["peers"].items():
            gflop = result.get("gflop", record["gflop"])
            if record["threads"] == threads and ok(result) and gflop:
                yield peer, record, gflop * 1e9 / record["bytes"], gflop / result["min_ms"] * 1e3


class Axes:
    def __init__(self, x, y):
        self.x = [math.floor(math.log10(min(x))), math.ceil(math.log10(max(x)))]
        self.y = [math.floor(math.log10(min(y))), math.ceil(math.log10(max(y)))]

    def at(self, x, y):
        u = (math.log10(x) - self.x[0]) / (self.x[1] - self.x[0])
        v = (math.log10(y) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + u * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM)

    def grid(self):
        for power in range(self.x[0], self.x[1] + 1):
            x, low = self.at(10.0 ** power, 10.0 ** self.y[0])
            yield line(x, low, x, TOP, "#eee")
            yield text(x, low + 18, f"{10.0 ** power:g}", "middle")
        for power in range(self.y[0], self.y[1] + 1):
            left, y = self.at(10.0 ** self.x[0], 10.0 ** power)
            yield line(left, y, WIDTH - RIGHT, y, "#eee")
            yield text(left - 8, y + 4, f"{10.0 ** power:g}", "end")


def line(x0, y0, x1, y1, colour, dash=""):
    return (f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"'
            f' stroke-width="1.5"{dash}/>')


def text(x, y, words, anchor="start", size=12):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
            f'{escape(words)}</text>')


def roofs(peak, slope, axes, threads, dash):
    ridge, low, end = peak / slope, 10.0 ** axes.y[0], 10.0 ** axes.x[1]
    start = max(10.0 ** axes.x[0], low / slope)
    yield line(*axes.at(start, start * slope), *axes.at(ridge, peak), "#333", dash)
    yield line(*axes.at(ridge, peak), *axes.at(end, peak), "#333", dash)
    x, y = axes.at(end, peak)
    yield text(x + 6, y + 4, f"FMA, {plural(threads)}: {peak:.0f}")


def circle(axes, point, threads, hollow):
    peer, record, x, y = point
    px, py = axes.at(x, y)
    colour, radius = COLOURS.get(peer, "#000"), 5 if peer == "cnxc" else 3.5
    name = (f"{peer}, {short_name(record['model'])}, batch {record['batch']}, {plural(threads)}: "
            f"{y:.0f} GFLOP/s")
    return (f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}" fill="{"none" if hollow else colour}"'
            f' stroke="{colour}"><title>{escape(name)}</title></circle>')


def legend(peers, threads):
    for i, peer in enumerate(peers):
        y = HEIGHT - BOTTOM - 20 * (i + 1)
        yield (f'<circle cx="{WIDTH - RIGHT + 20}" cy="{y - 4}" r="5"'
               f' fill="{COLOURS.get(peer, "#000")}"/>')
        yield text(WIDTH - RIGHT + 32, y, peer)
    if len(threads) > 1:
        yield text(WIDTH - RIGHT + 12, HEIGHT - BOTTOM - 20 * (len(peers) + 1.5),
                   f"filled: {threads[0]} thread, hollow: {threads[-1]}")


def panel(data, task):
    """Lines of SVG of a task's configurations; none where nothing was measured."""
    records = [r for r in data["results"] if r["task"] == task.name and r["peak_gflops"]]
    threads = sorted({r["threads"] for r in records})
    found = {t: list(points(records, t)) for t in threads}
    flat = [p for t in threads for p in found[t]]
    if not flat:
        return []
    peaks = {t: max(r["peak_gflops"] for r in records if r["threads"] == t) for t in threads}
    axes = Axes([1] + [p[2] for p in flat], [p[3] for p in flat] + list(peaks.values()))
    out = [text(LEFT, 28, f"{task.title}, float32: {data['machine']['cpu']}", size=16),
           *axes.grid(), text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16,
                              "FLOP per byte that must move", "middle"),
           f'<g transform="translate(18 {HEIGHT / 2}) rotate(-90)">',
           text(0, 0, "GFLOP/s", "middle"), "</g>"]
    for i, t in enumerate(threads):
        dash = ' stroke-dasharray="6 4"' if i else ""
        out += roofs(peaks[t], data["bandwidth_gbs"][str(t)], axes, t, dash)
        out += [circle(axes, point, t, i > 0) for point in found[t]]
    return out + list(legend(dict.fromkeys(p[0] for p in flat), threads))


def plot(data):
    """SVG of every configuration; None where nothing was measured."""
    panels = [p for p in (panel(data, task) for task in TASKS.values()
                         if not hasattr(task, "precision")) if p]
    if not panels:
        return None
    height = HEIGHT * len(panels)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
           f' font-family="sans-serif" fill="#222">',
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>']
    for i, lines in enumerate(panels):
        out += [f'<g transform="translate(0 {i * HEIGHT})">', *lines, "</g>"]
    return "\n".join(out + ["</svg>"]) + "\n"
