"""One configuration (model, batch, threads): peers prepared and checked, then measured in turns.

A repetition is one burst of runs of one peer, while all others are stopped. The FMA loop is probed
before and after it; with several threads the repetition is dropped where the loop of all threads
did less than `min_ratio` of as many single ones, since then the CPUs shared a core."""

import array
import json
import os
import random
import re
import statistics
import subprocess
import sys

from process import Failure, Worker, thread_environment

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = "cnxc"
PEERS = (OURS, "torch-eager", "torch-channels_last", "torch-compile", "onnxruntime", "openvino")
TOLERANCE = 1e-3  # of logits, absolute
WARM_MS = 500     # longer runs are not warmed up in a burst of their own
ATTEMPTS = 3      # repetitions tried, over those wanted


class Model:
    """A model's compiled library and program and its seeded weights, in a folder."""

    def __init__(self, cnxc, name, folder):
        self.name, self.folder = name, folder
        self.library, self.program = self.path("libmodel.so"), self.path("program")
        self.weights, self.weights_timm = self.path("w.safetensors"), self.path("timm.safetensors")

        def call(*arguments):
            return subprocess.run([cnxc, *arguments], check=True, stdout=subprocess.PIPE, text=True)

        self.facts = json.loads(call("check", name, "--json").stdout)
        call("build", name, "--programs", "infer", "--emit=shared", "-o", self.library)
        call("build", name, "--programs", "infer", "-o", self.program)
        call("weights", "init", name, self.weights, "--seed", "0")
        call("weights", "convert", self.weights, self.weights_timm, "--names=timm")

    def path(self, name):
        return os.path.join(self.folder, name)

    def images(self, batch):
        """Files of a batch with values in [-2, 2), as [N,C,H,W] and [N,H,W,C]."""
        c, pixels = self.facts["channels"], self.facts["height"] * self.facts["width"]
        draw = random.Random(batch)
        nchw = array.array("f", (draw.uniform(-2, 2) for _ in range(batch * c * pixels)))
        nhwc = array.array("f", bytes(4 * len(nchw)))
        for image in range(batch):
            first, end = image * c * pixels, (image + 1) * c * pixels
            for channel in range(c):
                at = first + channel * pixels
                nhwc[first + channel:end:c] = nchw[at:at + pixels]
        for name, values in (("nchw", nchw), ("nhwc", nhwc)):
            with open(self.path(f"{name}{batch}.bin"), "wb") as f:
                values.tofile(f)
        return self.path(f"nchw{batch}.bin"), self.path(f"nhwc{batch}.bin")

    def profile(self, batch, cpus, runs):
        """Time of each kernel, by the program's own bench."""
        out = subprocess.run(
            [self.program, "bench", "--batch", str(batch), "--threads", str(len(cpus)), "--runs",
             str(runs), "--weights", "seed:0", "--profile", "--json"], check=True,
            capture_output=True, text=True, env=thread_environment(cpus),
            preexec_fn=lambda: os.sched_setaffinity(0, cpus)).stdout
        return json.loads(out)


def plain(error):
    """Its text without folders, which mean nothing on another machine."""
    return re.sub(r"(?<![\w.])(/[\w.+-]+)+/", "", str(error))


def difference(path, reference):
    """The largest of |a - b| over two files of floats."""
    a, b = array.array("f"), array.array("f")
    for values, name in ((a, path), (b, reference)):
        with open(name, "rb") as f:
            values.frombytes(f.read())
    if len(a) != len(b):
        raise Failure("disagrees", f"{len(a)} logits, {len(b)} expected")
    worst = max(abs(x - y) for x, y in zip(a, b))
    return worst if all(x == x for x in a) else float("inf")


class Configuration:
    """Prepared peers of one (model, batch, threads) and what became of each."""

    def __init__(self, model, batch, cpus, options, log):
        self.model, self.batch, self.cpus, self.options, self.log = model, batch, cpus, options, log
        self.workers, self.results = {}, {}
        self.image_nchw, self.image_nhwc = model.images(batch)
        self.onnx = model.path(f"onnx{batch}")

    def start(self, peer):
        """A worker that is ready, and what it says of itself."""
        f, o = self.model.facts, self.options
        config = {
            "peer": peer, "model": self.model.name, "batch": self.batch, "cpus": self.cpus,
            "threads": len(self.cpus), "classes": f["classes"], "timeout": o.timeout,
            "shape": [self.batch, f["channels"], f["height"], f["width"]], "onnx": self.onnx,
            "library": self.model.library, "prefix": "model", "weights": self.model.weights,
            "weights_timm": self.model.weights_timm, "image_nchw": self.image_nchw,
            "image_nhwc": self.image_nhwc, "logits": self.model.path(f"logits-{peer}.bin"),
        }
        path = self.model.path(f"{peer}.json")
        with open(path, "w") as file:
            json.dump(config, file)
        openmp = peer == OURS or peer.startswith("torch")
        worker = Worker([sys.executable if peer == OURS else o.python,
                         os.path.join(HERE, "worker.py"), path], self.cpus,
                        thread_environment(self.cpus, openmp), self.log)
        try:
            return worker, worker.answer(o.timeout), config["logits"]
        except Failure:
            worker.close()
            raise

    def export(self):
        """The ONNX files of this model and batch, once."""
        if os.path.isdir(self.onnx):
            return
        os.mkdir(self.onnx)
        self.start("export")[0].close()

    def prepare(self, peer):
        worker = None
        try:
            if peer in ("onnxruntime", "openvino"):
                self.export()
            worker, said, logits = self.start(peer)
            worker.pause()
            said["max_difference"] = difference(logits, self.model.path(f"logits-{OURS}.bin"))
            if not said["max_difference"] <= TOLERANCE:
                raise Failure("disagrees", f"logits differ by {said['max_difference']:.2g}")
            self.workers[peer] = worker
            self.results[peer] = {"status": "ok", **said}
        except Failure as e:
            if worker:
                worker.close()
            self.results[peer] = {"status": e.status, "why": plain(e)}

    def burst(self, peer, state):
        """A repetition of `peer`: times of its runs."""
        worker, limit = self.workers[peer], self.options.timeout
        ms = state.get("ms")
        if ms is None:
            ms = min(worker.run(2, limit))
        elif ms < WARM_MS:
            worker.run(1, limit)
        times = worker.run(max(1, min(200, int(self.options.burst * 1e3 / ms))), limit)
        state["ms"] = min(times)
        return times

    def measure(self, probe):
        """Repetitions in turns until each peer has enough that count."""
        wanted, states = self.options.repeats, {p: {"kept": [], "dropped": 0} for p in self.workers}
        before, probes = probe(), []
        for attempt in range(ATTEMPTS * wanted):
            order = [p for p in self.workers if len(states[p]["kept"]) < wanted]
            for peer in order[attempt % max(1, len(order)):] + order[:attempt % max(1, len(order))]:
                try:
                    times = self.burst(peer, states[peer])
                except Failure as e:
                    self.results[peer] = {"status": e.status, "why": plain(e)}
                    self.workers.pop(peer).close()
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
            "repetitions": len(kept), "dropped": state["dropped"],
            "repetition_min_ms": [round(min(times), 4) for times in kept]}


def measure(model, batch, cpus, probe, options, log):
    """The record of one configuration, as it goes to the JSON."""
    c = Configuration(model, batch, cpus, options, log)
    try:
        for peer in options.peers:
            c.prepare(peer)
            print(f"  {peer}: {c.results[peer].get('form') or c.results[peer]['status']}",
                  file=sys.stderr, flush=True)
            if peer == OURS and c.results[peer]["status"] != "ok":
                break  # there is nothing to check the others against
        probes = c.measure(probe) if c.workers else []
    finally:
        c.close()
    record = {
        "task": "infer", "model": model.name, "batch": batch, "threads": len(cpus),
        "gflop": 2e-9 * model.facts["macs"] * batch, "parameters": model.facts["parameters"],
        "image_floats": model.facts["channels"] * model.facts["height"] * model.facts["width"],
        "peak_gflops": max((p["gflops"] for p in probes), default=None),
        "fma_ratio": statistics.median(p["ratio"] for p in probes) if probes else None,
        "peers": c.results,
    }
    if options.profile and c.results.get(OURS, {}).get("status") == "ok":
        record["profile"] = model.profile(batch, cpus, options.profile)
    return record
