"""Results as text and as markdown, and their place between markers of a document."""

import re

from tables import (NONE, TITLES, all_tables, best_peer, cell, milliseconds, ok, ordered, peer,
                    plural, short_name)
from tasks import OURS, TASKS

MARKERS = re.compile(r"^(<!-- bench:begin(?P<what>[ \w]*)-->\n).*?^(<!-- bench:end -->)$",
                     re.S | re.M)
SHORT = {"infer": "inference", "train": "training step", "fcmae": "FCMAE step"}


def text_table(header, rows):
    widths = [max(len(r[i]) for r in [header] + rows) for i in range(len(header))]
    return "\n".join("  ".join(c.rjust(w) if i else c.ljust(w)
                               for i, (c, w) in enumerate(zip(row, widths))).rstrip()
                     for row in [header] + rows) + "\n"


def markdown_table(header, rows):
    lines = ["| " + " | ".join(r) + " |" for r in [header] + rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(header) - 1) + "|"] + lines[1:]) + "\n"


def peaks(data):
    best = {}
    for r in data["results"]:
        if r.get("peak_gflops"):
            best[r["threads"]] = max(best.get(r["threads"], 0), r["peak_gflops"])
    return dict(sorted(best.items()))


def versions(data):
    found = {"cnxc": data["cnxc"]}
    for r in data["results"]:
        for name, result in r["peers"].items():
            number = re.search(r"\d[\w.+]*", result.get("version", ""))
            if number and not name.startswith(OURS):
                found["PyTorch" if name.startswith("torch") else TITLES[name]] = number[0]
    return found


def measured(data):
    """Dates, each with the commits measured on it."""
    days = {}
    for r in data["results"]:
        days.setdefault(r["date"], {})[r["commit"]] = True
    return "; ".join(f"{day}, commit {', '.join(commits)}" for day, commits in sorted(days.items()))


def machine_block(data):
    m = data["machine"]
    caches = ", ".join(f"{k} {v}" for k, v in m["caches"].items())
    rows = [("CPU", f"{m['cpu']} (family/model {m['family']}), {m['cores']} cores used"
             + (", virtual machine" if m["virtual"] else "")),
            ("features", ", ".join(m["features"])), ("caches", caches),
            ("memory", f"{m['memory_gb']} GB; copy of large blocks " + ", ".join(
                f"{v:.1f} GB/s ({plural(int(k))})" for k, v in data["bandwidth_gbs"].items())),
            ("FMA loop, float32", ", ".join(
                f"{v:.0f} GFLOP/s ({plural(k)})" for k, v in peaks(data).items())),
            ("versions", ", ".join(f"{k} {v}" for k, v in versions(data).items())),
            ("system", f"Linux {m['kernel']}"), ("measured", measured(data))]
    rows += [("command", f"`{c}`") for c in data["commands"]]
    return markdown_table(["", "machine"], [[a, b] for a, b in rows]).replace("|---:|", "|---|")


def excuses(data):
    """Why peers have no time, each reason once."""
    seen = {}
    for r in data["results"]:
        for name, result in r["peers"].items():
            if not ok(result):
                what = f"{TITLES.get(name, name)}, {result['status']}: {result.get('why', '')}"
                where = f"{r['task']} {short_name(r['model'])} b{r['batch']} t{r['threads']}"
                seen.setdefault(" ".join(what.split())[:300], []).append(where)
    return "".join(f"- {what} ({', '.join(where)})\n" for what, where in seen.items())


def markdown(data):
    parts = [machine_block(data)]
    parts += [f"### {heading}\n\n" + markdown_table(header, rows)
              for heading, header, rows in all_tables(data)]
    if excuses(data):
        parts.append("Not measured:\n\n" + excuses(data))
    return "\n".join(parts)


def short_cell(record):
    best = best_peer(record) if record else None
    if not record or not peer(record, OURS):
        return NONE
    ours = milliseconds(record["peers"][OURS]["min_ms"])
    return f"{ours}, {cell(record, best[0])} {TITLES[best[0]]}" if best else f"{ours}, {NONE}"


def short_rows(data, task, threads):
    """(what, cells): a row a model and batch, a column a number of threads."""
    mine = [r for r in data["results"] if r["task"] == task]
    for model, batch in dict.fromkeys((r["model"], r["batch"]) for r in ordered(mine, task)):
        found = {r["threads"]: r for r in mine if (r["model"], r["batch"]) == (model, batch)}
        yield (f"{SHORT[task]}, {short_name(model)}, batch {batch}",
               [short_cell(found.get(t)) for t in threads])


def markdown_short(data):
    """Ours beside the fastest peer, of inference and of steps."""
    threads = sorted({r["threads"] for r in data["results"] if r["task"] in SHORT})
    header = [""] + [f"{plural(t)}: cnxc, best peer" for t in threads]
    rows = [[what, *cells] for task in TASKS if task in SHORT
            for what, cells in short_rows(data, task, threads)]
    m = data["machine"]
    return (markdown_table(header, rows) + f"\nMilliseconds, float32, on {m['cpu']} (family/model {m['family']}), "
            f"{max(r['date'] for r in data['results'])}.\n")


def text(data):
    tables = "\n".join(f"{heading}\n{text_table(header, rows)}"
                       for heading, header, rows in all_tables(data))
    return tables + "\n" + excuses(data)


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
