"""The roofline plot: GFLOP/s over arithmetic intensity, both logarithmic, as SVG.

Intensity counts the bytes that must move at least: parameters and images once."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 560, 70, 50, 210, 60
COLOURS = {"cnxc": "#c0392b", "torch-eager": "#7f8c8d", "torch-channels_last": "#95a5a6",
           "torch-compile": "#e67e22", "onnxruntime": "#2980b9", "openvino": "#27ae60"}


def intensity(record):
    bytes_moved = 4 * (record["parameters"] + record["batch"] * record["image_floats"])
    return record["gflop"] * 1e9 / bytes_moved


def short_name(model):
    return model.replace("convnextv2_", "").replace("convnext_", "V1 ")


def points(data, threads):
    for record in data["results"]:
        if record["threads"] != threads:
            continue
        for peer, result in record["peers"].items():
            if result["status"] == "ok":
                rate = record["gflop"] / result["min_ms"] * 1e3
                yield peer, record, intensity(record), rate


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


def roofs(data, axes, threads, dash):
    peak = max(r["peak_gflops"] for r in data["results"]
               if r["threads"] == threads and r["peak_gflops"])
    slope = data["bandwidth_gbs"][str(threads)]
    ridge, low, end = peak / slope, 10.0 ** axes.y[0], 10.0 ** axes.x[1]
    start = max(10.0 ** axes.x[0], low / slope)
    yield line(*axes.at(start, start * slope), *axes.at(ridge, peak), "#333", dash)
    yield line(*axes.at(ridge, peak), *axes.at(end, peak), "#333", dash)
    x, y = axes.at(end, peak)
    yield text(x + 6, y + 4, f"FMA, {threads} thread{'s' * (threads > 1)}: {peak:.0f}")


def plot(data):
    """SVG of every configuration; None where nothing was measured."""
    threads = sorted({r["threads"] for r in data["results"] if r["peak_gflops"]})
    all_points = {t: list(points(data, t)) for t in threads}
    flat = [p for t in threads for p in all_points[t]]
    if not flat:
        return None
    peaks = [r["peak_gflops"] for r in data["results"] if r["peak_gflops"]]
    axes = Axes([1] + [p[2] for p in flat], [p[3] for p in flat] + peaks)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
           f' font-family="sans-serif" fill="#222">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           text(LEFT, 28, f"Inference, float32: {data['machine']['cpu']}", size=16), *axes.grid(),
           text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16,
                "FLOP per byte of parameters and images", "middle"),
           f'<g transform="translate(18 {HEIGHT / 2}) rotate(-90)">',
           text(0, 0, "GFLOP/s", "middle"), "</g>"]
    for i, t in enumerate(threads):
        out += roofs(data, axes, t, ' stroke-dasharray="6 4"' if i else "")
        for peer, record, x, y in all_points[t]:
            px, py = axes.at(x, y)
            fill = COLOURS.get(peer, "#000") if i == 0 else "none"
            name = (f"{peer}, {short_name(record['model'])}, batch {record['batch']}, "
                    f"{t} thread{'s' * (t > 1)}: {y:.0f} GFLOP/s")
            out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{5 if peer == "cnxc" else 3.5}"'
                       f' fill="{fill}" stroke="{COLOURS.get(peer, "#000")}">'
                       f'<title>{escape(name)}</title></circle>')
    for i, peer in enumerate(dict.fromkeys(p[0] for p in flat)):
        y = HEIGHT - BOTTOM - 20 * (i + 1)
        out.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{y - 4}" r="5"'
                   f' fill="{COLOURS.get(peer, "#000")}"/>')
        out.append(text(WIDTH - RIGHT + 32, y, peer))
    if len(threads) > 1:
        out.append(text(WIDTH - RIGHT + 12, HEIGHT - BOTTOM - 20 * (len(COLOURS) + 1.5),
                        f"filled: {threads[0]} thread, hollow: {threads[-1]}"))
    return "\n".join(out + ["</svg>"]) + "\n"
