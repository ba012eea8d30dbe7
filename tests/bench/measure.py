"""One configuration (task, model, batch, threads): peers prepared and checked, then measured in turns.

A repetition is one burst of runs of one peer, while all others are stopped. The FMA loop is probed
before and after it; with several threads the repetition is dropped where the loop of all threads
did less than `min_ratio` of as many single ones, since then the CPUs shared a core."""

import array
import datetime
import re
import statistics
import sys

from process import Failure, Worker

WARM_MS = 500     # longer runs are not warmed up in a burst of their own
ATTEMPTS = 3      # repetitions tried, over those wanted
MOST_RUNS = 5000  # of a burst


def plain(error):
    """Its text without folders, which mean nothing on another machine."""
    return re.sub(r"(?<![\w.])(/[\w.+-]+)+/", "", str(error))


def floats(path, count=None):
    values = array.array("f")
    with open(path, "rb") as f:
        values.frombytes(f.read())
    if count not in (None, len(values)):
        raise Failure("disagrees", f"{len(values)} values, {count} expected")
    return values


def difference(path, reference):
    """The largest of |a - b| over two files of floats."""
    b = floats(reference)
    a = floats(path, len(b))
    worst = max(abs(x - y) for x, y in zip(a, b))
    return worst if all(x == x for x in a) else float("inf")


def relative_error(path, reference):
    """|a - b| / |b| of two files of floats, as vectors."""
    b = floats(reference)
    a = floats(path, len(b))
    square = sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b)
    return square ** 0.5 if square == square else float("inf")


DIFFERENCES = {"max_difference": difference, "relative_error": relative_error}


class Configuration:
    """Prepared peers of one (subject, batch, threads) and what became of each."""

    def __init__(self, subject, batch, cpus, options, log):
        self.subject, self.batch, self.cpus = subject, batch, cpus
        self.options, self.log = options, log
        self.workers, self.results, self.reference = {}, {}, None

    def start(self, peer):
        """A worker that is ready, and what it says of itself."""
        command, output = self.subject.start(peer, self.batch, self.cpus)
        try:
            worker = Worker(command, self.cpus, self.subject.environment(peer, self.cpus), self.log)
        except FileNotFoundError as e:
            raise Failure("not installed", str(e)) from None
        try:
            return worker, worker.answer(self.options.timeout), output
        except BaseException:
            worker.close()
            raise

    def needed(self, peer, done):
        before = self.subject.needs(peer)
        if before and (before, self.batch) not in done:
            self.start(before)[0].close()
            done.add((before, self.batch))

    def check(self, output, said):
        """Outputs are those of the first peer, or what the subject says is right."""
        if self.subject.tolerance is None:
            return
        self.reference = self.reference or self.subject.reference(self.batch) or output
        name = self.subject.measure_of
        said[name] = DIFFERENCES[name](output, self.reference)
        if not said[name] <= self.subject.tolerance:
            raise Failure("disagrees", f"outputs differ by {said[name]:.2g}")

    def prepare(self, peer, done):
        """`done`: workers that others needed, of all configurations of the subject."""
        worker = None
        try:
            self.needed(peer, done)
            worker, said, output = self.start(peer)
            self.workers[peer] = worker
            worker.pause()
            self.check(output, said)
            self.results[peer] = {"status": "ok", **said}
        except Failure as e:
            if worker:
                self.workers.pop(peer).close()
            self.results[peer] = {"status": e.status, "why": plain(e)}

    def burst(self, peer, state):
        """A repetition of `peer`: times of its runs."""
        worker, said, limit = self.workers[peer], self.results[peer], self.options.timeout
        ms = state.get("ms", said.get("min_ms"))
        if ms is None:
            ms = min(worker.run(2, limit)["ms"])
        elif ms < WARM_MS and not said.get("warm"):
            worker.run(1, limit)
        runs = max(1, min(MOST_RUNS, int(self.options.burst * 1e3 / ms)))
        answer = worker.run(runs, limit)
        state["ms"] = min(answer["ms"])
        state["rss"] = max(state.get("rss", 0), answer.get("peak_rss_mb", 0))
        return answer["ms"]

    def repetition(self, peer, state):
        try:
            return self.burst(peer, state)
        except Failure as e:
            self.results[peer] = {"status": e.status, "why": plain(e)}
            self.workers.pop(peer).close()
            return None

    def measure(self, probe):
        """Repetitions in turns until each peer has enough that count."""
        wanted, states = self.options.repeats, {p: {"kept": [], "dropped": 0} for p in self.workers}
        before, probes = probe(), []
        for attempt in range(ATTEMPTS * wanted):
            order = [p for p in self.workers if len(states[p]["kept"]) < wanted]
            for peer in order[attempt % max(1, len(order)):] + order[:attempt % max(1, len(order))]:
                times = self.repetition(peer, states[peer])
                if times is None:
                    continue
                after = probe()
                if min(before["ratio"], after["ratio"]) >= self.options.min_ratio * len(self.cpus):
                    states[peer]["kept"].append(times)
                else:
                    states[peer]["dropped"] += 1
                probes.append(after)
                before = after
        for peer in self.workers:
            self.results[peer].update(summary(states[peer]))
        return probes

    def close(self):
        for worker in self.workers.values():
            worker.close()


def summary(state):
    kept = state["kept"]
    if not kept:
        return {"status": "no clean repetition", "dropped": state["dropped"], "why":
                "the CPUs shared a core around every repetition"}
    every = [t for times in kept for t in times]
    return {"min_ms": min(every), "median_ms": statistics.median(every), "runs": len(every),
            "repetitions": len(kept), "dropped": state["dropped"], "peak_rss_mb": state["rss"],
            "repetition_min_ms": [round(min(times), 4) for times in kept]}


def measure(subject, batch, cpus, probe, options, log, done):
    """The record of one configuration, as it goes to the JSON."""
    c = Configuration(subject, batch, cpus, options, log)
    ours = subject.peers[0]
    try:
        for peer in (p for p in subject.peers if p in options.peers):
            c.prepare(peer, done)
            said = c.results[peer]
            print(f"  {peer}: {said['status']} {said.get('form', '')}", file=sys.stderr, flush=True)
            if peer == ours and said["status"] != "ok":
                break  # there is nothing to check the others against
        probes = c.measure(probe) if c.workers else []
    finally:
        c.close()
    record = {
        "task": subject.name, "model": subject.model, "batch": batch, "threads": len(cpus),
        "date": datetime.date.today().isoformat(), "commit": options.commit,
        "peak_gflops": max((p["gflops"] for p in probes), default=None),
        "fma_ratio": statistics.median(p["ratio"] for p in probes) if probes else None,
        "peers": c.results, **subject.figures(batch, c.results),
    }
    if options.profile and c.results[ours]["status"] == "ok":
        runs = 2 if subject.steps else options.profile
        record["profile"] = subject.profile(batch, cpus, runs)
    return record
