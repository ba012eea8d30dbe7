"""Figures of records, and the tables of each task: (heading, header, rows of text)."""

from tasks import AHEAD, DENSE, OURS, TASKS, TORCH

TITLES = {"cnxc": "cnxc", "torch-eager": "PyTorch", "torch-channels_last": "channels_last",
          "torch-compile": "torch.compile", AHEAD: "AOTInductor", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO",
          "openblas": "OpenBLAS", "blis": "BLIS", "onednn": "oneDNN"}
NONE = "–"


def short_name(model):
    return model.replace("convnextv2_", "").replace("convnext_", "V1 ")


def milliseconds(ms):
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def shown(value, form, scale=1):
    return NONE if value is None else form.format(value * scale)


def plural(threads):
    return f"{threads} thread{'s' * (threads > 1)}"


def ok(result):
    return bool(result) and result["status"] == "ok"


def peer(record, name):
    """Its result where it was measured, or None."""
    result = record["peers"].get(name)
    return result if ok(result) else None


def others(record):
    return {p: r for p, r in record["peers"].items() if p not in (OURS, DENSE) and ok(r)}


def best_peer(record):
    """(peer, its result) of the fastest that is not ours, or None."""
    return min(others(record).items(), key=lambda o: o[1]["min_ms"], default=None)


def percent_of_peak(record, name=OURS):
    result, peak = peer(record, name), record["peak_gflops"]
    gflop = result and result.get("gflop", record["gflop"])
    return 100 * gflop / result["min_ms"] * 1e3 / peak if gflop and peak else None


def like(data, record, **other):
    """The record of the same configuration but for these keys, or None."""
    wanted = {k: record[k] for k in ("task", "model", "batch", "threads")} | other
    return next((r for r in data["results"] if all(r[k] == v for k, v in wanted.items())), None)


def scaling(data, record):
    """Our speed-up over one thread, over the FMA loop's own; None where one is not known."""
    single = like(data, record, threads=1)
    if record["threads"] == 1 or single is None or not record["fma_ratio"]:
        return None
    pair = peer(single, OURS), peer(record, OURS)
    return pair[0]["min_ms"] / pair[1]["min_ms"] / record["fma_ratio"] if all(pair) else None


def over_float32(data, record, task):
    """Our time in float32, measured as `task`, over that of the record; None where not known."""
    pair = [r and peer(r, OURS) for r in (like(data, record, task=task), record)]
    return pair[0]["min_ms"] / pair[1]["min_ms"] if all(pair) else None


def adamw_gbs(record):
    """GB/s of the optimiser: parameters and moments read and written, gradients read."""
    ms = sum(k["ms"] for k in record.get("profile", {}).get("kernels", ()) if k["kernel"] == "adamw")
    return 28e-6 * record["parameters"] / ms if ms else None


def packed_to_dense(record):
    """Times and FLOP of packed over those of masked dense, or two None."""
    packed, dense = peer(record, OURS), peer(record, DENSE)
    if not packed or not dense:
        return None, None
    return packed["min_ms"] / dense["min_ms"], packed["gflop"] / dense["gflop"]


def least_memory(record):
    """MB of the PyTorch peer that needs the least, or None."""
    return min((r["peak_rss_mb"] for p, r in others(record).items() if p in TORCH), default=None)


def cell(record, name):
    result, ours = record["peers"].get(name), peer(record, OURS)
    if not ok(result):
        return result["status"] if result else NONE
    ms = milliseconds(result["min_ms"])
    return ms if name == OURS or not ours else f"{ms} ({result['min_ms'] / ours['min_ms']:.2f}x)"


def advantage(record):
    best, ours = best_peer(record), peer(record, OURS)
    if not best or not ours:
        return NONE, NONE
    return tuple(f"{best[1][k] / ours[k]:.2f}x" for k in ("min_ms", "median_ms"))


def percent(record, name=OURS):
    return shown(percent_of_peak(record, name), "{:.0f}")


def memory(record):
    """[MB of ours, MB of PyTorch's least (ratio)]."""
    ours, least = peer(record, OURS), least_memory(record)
    mb = ours and ours.get("peak_rss_mb")
    ratio = f" ({least / mb:.1f}x)" if least and mb else ""
    return [shown(mb, "{:.0f}"), shown(least, "{:.0f}") + ratio]


def columns(records):
    """The peers that any of the records has, but ours."""
    return list(dict.fromkeys(p for r in records for p in r["peers"] if p not in (OURS, DENSE)))


def inference(data, records, batch, threads):
    peers = columns(records)
    header = ["model", "GFLOP", "cnxc", "% of FMA peak"]
    header += ["scaling / FMA loop's"] * (threads > 1)
    header += [TITLES[p] for p in peers] + ["best peer / cnxc", "by medians"] * bool(peers)
    rows = []
    for r in records:
        row = [short_name(r["model"]), f"{r['gflop']:.2f}", cell(r, OURS), percent(r)]
        row += [shown(scaling(data, r), "{:.2f}")] * (threads > 1)
        rows.append(row + [cell(r, p) for p in peers] + [*advantage(r)] * bool(peers))
    return f"{TASKS[records[0]['task']].title}, batch {batch}, {plural(threads)}", header, rows


def narrow(title):
    def table(data, records, batch, threads):
        """With the relative error of the logits against float32, in per cent."""
        peers = columns(records)
        header = ["model", "GFLOP", "cnxc", "its float32 / this"] + [TITLES[p] for p in peers]
        header += ["best peer / cnxc", "by medians"] + [f"error, {TITLES[p]}" for p in (OURS, *peers)]
        rows = [[short_name(r["model"]), f"{r['gflop']:.2f}", cell(r, OURS),
                 shown(over_float32(data, r, "infer"), "{:.2f}x")]
                + [cell(r, p) for p in peers] + [*advantage(r)]
                + [shown((peer(r, p) or {}).get("relative_error"), "{:.1f} %", 100)
                   for p in (OURS, *peers)] for r in records]
        return f"{title}, batch {batch}, {plural(threads)}", header, rows

    return table


def training(data, records, _batch, threads):
    peers = columns(records)
    header = ["model", "batch", "GFLOP", "cnxc", "% of FMA peak"]
    header += [TITLES[p] for p in peers] + ["best peer / cnxc", "by medians", "MB, cnxc",
                                            "MB, PyTorch's least", "GB/s of AdamW"]
    rows = [[short_name(r["model"]), str(r["batch"]), shown(r["gflop"], "{:.0f}"), cell(r, OURS),
             percent(r)] + [cell(r, p) for p in peers]
            + [*advantage(r), *memory(r), shown(adamw_gbs(r), "{:.0f}")] for r in records]
    return f"Training step, {plural(threads)}", header, rows


def narrow_training(data, records, _batch, threads):
    peers = columns(records)
    header = ["model", "batch", "cnxc", "its float32 / this"] + [TITLES[p] for p in peers]
    header += ["best peer / cnxc", "by medians", "MB, cnxc", "MB, PyTorch's least"]
    rows = [[short_name(r["model"]), str(r["batch"]), cell(r, OURS),
             shown(over_float32(data, r, "train"), "{:.2f}x")]
            + [cell(r, p) for p in peers] + [*advantage(r), *memory(r)] for r in records]
    return f"Training step in bf16, {plural(threads)}", header, rows


def pretraining(data, records, _batch, threads):
    peers = columns(records)
    header = ["model", "batch", "packed", "% of FMA peak", "masked dense", "% of FMA peak",
              "packed / dense", "of FLOP"] + [TITLES[p] for p in peers]
    header += ["best peer / packed", "by medians", "MB, packed", "MB, PyTorch's least"]
    rows = []
    for r in records:
        dense = peer(r, DENSE)
        rows.append([short_name(r["model"]), str(r["batch"]), cell(r, OURS), percent(r),
                     milliseconds(dense["min_ms"]) if dense else NONE, percent(r, DENSE),
                     *(shown(v, "{:.2f}") for v in packed_to_dense(r))]
                    + [cell(r, p) for p in peers] + [*advantage(r), *memory(r)])
    return f"FCMAE step, {plural(threads)}", header, rows


def kernels(data, records, _batch, threads):
    """Per cent of the peak: a kernel's time means little by itself."""
    peers = columns(records)
    header = ["kernel", "µs, cnxc", "cnxc"] + [TITLES[p] for p in peers] + ["best peer / cnxc"]

    def rate(r, p):
        return percent(r, p) if peer(r, p) else cell(r, p)

    rows = [[r["model"], shown(peer(r, OURS) and peer(r, OURS)["min_ms"], "{:.1f}", 1e3),
             percent(r)] + [rate(r, p) for p in peers] + [advantage(r)[0]] for r in records]
    return f"Kernels, % of the FMA peak, {plural(threads)}", header, rows


def builds(data, records):
    header = ["model", "s, infer", "s, slowest target", "s, all programs", "kB, infer",
              "kB, three targets", "kB, all programs", "cold start, ms", "weights built in, ms"]
    rows = []
    for r in records:
        f = r["figures"]
        slowest = max(f.get("target_seconds", {}).items(), key=lambda t: t[1], default=None)
        rows.append([short_name(r["model"]), f"{f['infer_seconds']:.2f}",
                     f"{slowest[1]:.2f} ({slowest[0]})" if slowest else NONE,
                     f"{f['all_seconds']:.2f}", f"{f['infer_bytes'] / 1e3:.0f}",
                     shown(f.get("fat_bytes"), "{:.0f}", 1e-3), f"{f['all_bytes'] / 1e3:.0f}"]
                    + [f"{f['start_ms']:.1f}", shown(f.get("packed_start_ms"), "{:.1f}")])
    return "Compilation on one CPU, size without weights and codecs, cold start", header, rows


TABLES = {"infer": inference, "avx2": inference, "bf16": narrow("Inference in bf16"),
          "int8": narrow("Inference in int8"), "train": training, "train-bf16": narrow_training,
          "fcmae": pretraining, "kernels": kernels}


BY_BATCH = ("infer", "avx2", "bf16", "int8")


def all_tables(data):
    """Those of every task that has results: of inference one a batch."""
    for task in TASKS:
        mine = [r for r in data["results"] if r["task"] == task]
        groups = {(r["threads"], r["batch"] if task in BY_BATCH else 0) for r in mine}
        for threads, batch in sorted(groups):
            chosen = [r for r in mine if r["threads"] == threads and batch in (0, r["batch"])]
            yield TABLES[task](data, ordered(chosen, task), batch, threads)
    made = [r for r in data["results"] if r["task"] == "build"]
    if made:
        yield builds(data, ordered(made, "infer"))


def ordered(records, task):
    """As the task lists its models, whatever order they were measured in."""
    place = {m: i for i, m in enumerate(TASKS[task].models)}
    return sorted(records, key=lambda r: (place.get(r["model"], len(place)), r["batch"]))
