"""One peer of the benchmark in a process of its own.

  python worker.py CONFIG.json

Prepares what the configuration says (inference: peers_infer.py, in bf16 and int8: peers_narrow.py,
steps: peers_step.py) and
prints `ready JSON`; then answers each line `run N` with `ms JSON`: {"ms": times of N runs,
"peak_rss_mb": of the process while it was running}. A failure is `failed JSON` ({"status", "why"}). The
protocol has the original stdout to itself; what libraries print goes to stderr. The workers of single
kernels (kernel_worker.h) speak it too.

The peers `cnxc` and `cnxc-dense` need the standard library alone, others what requirements.txt lists."""

import json
import os
import re
import resource
import sys
import time


def timed(run, n):
    """Milliseconds of each of n calls."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


class Ready:
    """A prepared peer: what it says of itself, and how it answers `run N` (by default the times of
    calling `run`). `output`, if any, gives the bytes to compare with those of the first peer."""

    def __init__(self, said, run, output=None, answer=None, kept=None):
        self.said, self.output, self.kept = said, output, kept
        self.answer = answer or (lambda n: {"ms": timed(run, n)})


def forget_peak():
    """Starts the peak of resident memory anew, so that compilation does not count."""
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass


def peak_rss_mb():
    try:
        with open("/proc/self/status") as f:
            return int(re.search(r"VmHWM:\s*(\d+)", f.read())[1]) * 1024 / 1e6
    except (OSError, TypeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def prepare(c):
    if c["task"] in ("infer", "avx2"):
        import peers_infer as peers
    elif c["task"] in ("bf16", "int8"):
        import peers_narrow as peers
    else:
        import peers_step as peers
    return peers.PREPARE[c["peer"]](c)


def serve(c, say):
    peer = prepare(c)
    if peer.output:
        with open(c["output"], "wb") as f:
            f.write(peer.output())
    say("ready", peer.said)
    forget_peak()
    for line in sys.stdin:
        answer = peer.answer(int(line.split()[1]))
        say("ms", {"peak_rss_mb": peak_rss_mb(), **answer})


def main():
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(word, value):
        protocol.write(f"{word} {json.dumps(value)}\n")
        protocol.flush()

    with open(sys.argv[1]) as f:
        c = json.load(f)
    try:
        serve(c, say)
    except ModuleNotFoundError as e:
        say("failed", {"status": "not installed", "why": str(e)})
    except Exception as e:
        say("failed", {"status": "failed", "why": f"{type(e).__name__}: {e}"[:2000]})


if __name__ == "__main__":
    main()
