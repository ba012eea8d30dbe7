"""Results as text and as markdown, and their place between markers of a document."""

import re

from measure import OURS
from roofline import short_name

TITLES = {"cnxc": "cnxc", "torch-eager": "PyTorch", "torch-channels_last": "channels_last",
          "torch-compile": "torch.compile", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
MARKERS = re.compile(r"(<!-- bench:begin(?P<what>[ \w]*)-->\n).*?(<!-- bench:end -->)", re.S)


def milliseconds(ms):
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def ok(result):
    return bool(result) and result["status"] == "ok"


def best_peer(record):
    """(peer, its result) of the fastest that is not ours, or None."""
    others = [(p, r) for p, r in record["peers"].items() if p != OURS and ok(r)]
    return min(others, key=lambda o: o[1]["min_ms"], default=None)


def percent_of_peak(record):
    ours = record["peers"][OURS]
    if not ok(ours) or not record["peak_gflops"]:
        return None
    return 100 * record["gflop"] / ours["min_ms"] * 1e3 / record["peak_gflops"]


def scaling(data, record):
    """Our speed-up over one thread, over the FMA loop's own; None where one is not known."""
    single = next((r for r in data["results"] if r["threads"] == 1 and all(
        r[k] == record[k] for k in ("task", "model", "batch"))), None)
    if record["threads"] == 1 or single is None or not record["fma_ratio"]:
        return None
    pair = single["peers"].get(OURS), record["peers"].get(OURS)
    if not all(ok(p) for p in pair):
        return None
    return pair[0]["min_ms"] / pair[1]["min_ms"] / record["fma_ratio"]


def cell(record, peer):
    result = record["peers"].get(peer)
    if not ok(result):
        return result["status"] if result else "–"
    ours = record["peers"][OURS]
    if peer == OURS or not ok(ours):
        return milliseconds(result["min_ms"])
    return f"{milliseconds(result['min_ms'])} ({result['min_ms'] / ours['min_ms']:.2f}x)"


def advantage(record):
    best, ours = best_peer(record), record["peers"][OURS]
    if not best or not ok(ours):
        return "–", "–"
    return tuple(f"{best[1][k] / ours[k]:.2f}x" if ours.get(k) else "–"
                 for k in ("min_ms", "median_ms"))


def table(data, batch, threads):
    """(header, rows) of the models at one batch and number of threads."""
    records = [r for r in data["results"] if (r["batch"], r["threads"]) == (batch, threads)]
    peers = list(dict.fromkeys(p for r in records for p in r["peers"] if p != OURS))
    header = ["model", "GFLOP", "cnxc", "% of FMA peak"]
    header += ["scaling / FMA loop's"] * (threads > 1)
    header += [TITLES.get(p, p) for p in peers] + ["best peer / cnxc", "by medians"]
    rows = []
    for r in records:
        percent, scale = percent_of_peak(r), scaling(data, r)
        row = [short_name(r["model"]), f"{r['gflop']:.2f}", cell(r, OURS),
               f"{percent:.0f}" if percent else "–"]
        row += [f"{scale:.2f}" if scale else "–"] * (threads > 1)
        rows.append(row + [cell(r, p) for p in peers] + [*advantage(r)])
    return header, rows


def groups(data):
    return sorted({(r["threads"], r["batch"]) for r in data["results"]})


def heading(batch, threads):
    return f"Batch {batch}, {threads} thread{'s' * (threads > 1)}"


def text_table(header, rows):
    widths = [max(len(r[i]) for r in [header] + rows) for i in range(len(header))]
    return "\n".join("  ".join(c.rjust(w) if i else c.ljust(w)
                               for i, (c, w) in enumerate(zip(row, widths))).rstrip()
                     for row in [header] + rows) + "\n"


def markdown_table(header, rows):
    lines = ["| " + " | ".join(r) + " |" for r in [header] + rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(header) - 1) + "|"] + lines[1:]) + "\n"


def machine_block(data):
    m = data["machine"]
    caches = ", ".join(f"{k} {v}" for k, v in m["caches"].items())
    rows = [("CPU", f"{m['cpu']} (family/model {m['family']}), {m['cores']} cores used"
             + (", virtual machine" if m["virtual"] else "")),
            ("features", ", ".join(m["features"])), ("caches", caches),
            ("memory", f"{m['memory_gb']} GB; copy of large blocks " + ", ".join(
                f"{v:.1f} GB/s ({k} thread{'s' * (k != '1')})"
                for k, v in data["bandwidth_gbs"].items())),
            ("FMA loop, float32", ", ".join(
                f"{v:.0f} GFLOP/s ({k} thread{'s' * (k != 1)})" for k, v in peaks(data).items())),
            ("versions", ", ".join(f"{k} {v}" for k, v in versions(data).items())),
            ("system", f"Linux {m['kernel']}, load {m['load_at_start']:.1f} at the start"),
            ("measured", f"{m['date']}, commit {m['commit']}"),
            ("command", f"`{data['command']}`")]
    return markdown_table(["", "machine"], [[a, b] for a, b in rows]).replace("|---:|", "|---|")


def peaks(data):
    best = {}
    for r in data["results"]:
        if r["peak_gflops"]:
            best[r["threads"]] = max(best.get(r["threads"], 0), r["peak_gflops"])
    return dict(sorted(best.items()))


def versions(data):
    found = {"cnxc": data["cnxc"]}
    for r in data["results"]:
        for peer, result in r["peers"].items():
            if peer != OURS and result.get("version"):
                found["PyTorch" if peer.startswith("torch") else TITLES.get(peer, peer)] = \
                    result["version"]
    return found


def excuses(data):
    """Why peers have no time, each reason once."""
    seen = {}
    for r in data["results"]:
        for peer, result in r["peers"].items():
            if not ok(result):
                what = f"{TITLES.get(peer, peer)}, {result['status']}: {result.get('why', '')}"
                where = f"{short_name(r['model'])} b{r['batch']} t{r['threads']}"
                seen.setdefault(" ".join(what.split())[:300], []).append(where)
    return "".join(f"- {what} ({', '.join(where)})\n" for what, where in seen.items())


def markdown(data):
    parts = [machine_block(data)]
    for threads, batch in groups(data):
        parts.append(f"### {heading(batch, threads)}\n\n"
                     + markdown_table(*table(data, batch, threads)))
    if excuses(data):
        parts.append("Not measured:\n\n" + excuses(data))
    return "\n".join(parts)


def markdown_short(data):
    """One row a model: ours, and the fastest peer of each configuration."""
    header = ["model"] + [f"{heading(b, t).lower()}: cnxc, best peer" for t, b in groups(data)]
    rows = []
    for model in dict.fromkeys(r["model"] for r in data["results"]):
        row = [short_name(model)]
        for t, b in groups(data):
            r = next((r for r in data["results"]
                      if (r["model"], r["threads"], r["batch"]) == (model, t, b)), None)
            best = best_peer(r) if r else None
            if not r or not ok(r["peers"][OURS]):
                row.append("–")
            elif not best:
                row.append(cell(r, OURS) + ", –")
            else:
                row.append(f"{cell(r, OURS)}, {cell(r, best[0])} {TITLES.get(best[0], best[0])}")
        rows.append(row)
    m = data["machine"]
    return (markdown_table(header, rows) + f"\nMilliseconds a batch, float32, on {m['cpu']} "
            f"(family/model {m['family']}), {m['date']}.\n")


def text(data):
    return "\n".join(f"{heading(b, t)}, milliseconds\n{text_table(*table(data, b, t))}"
                     for t, b in groups(data))


def insert(document, data):
    """The document with what lies between its markers replaced; ValueError without markers."""
    def replaced(match):
        what = match["what"].strip()
        body = {"": markdown, "short": markdown_short}[what](data)
        return match[1] + body + match[3]

    result, count = MARKERS.subn(replaced, document)
    if not count:
        raise ValueError("no <!-- bench:begin --> ... <!-- bench:end --> in it")
    return result
