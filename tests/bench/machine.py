"""The machine: its description, CPUs to pin to, the FMA loop and the memory roof."""

import ctypes
import datetime
import glob
import json
import os
import platform
import subprocess
import threading
import time

from process import output

FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "asimd", "sve",
            "rvv")


def read(path, default=""):
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError:
        return default


def cores():
    """One CPU of each physical core that this process may use."""
    seen, chosen = set(), []
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", str(cpu))
        if siblings not in seen:
            seen.add(siblings)
            chosen.append(cpu)
    return chosen


def cpu_facts():
    facts = {}
    for line in read("/proc/cpuinfo").splitlines():
        key, _, value = (s.strip() for s in line.partition(":"))
        if key in ("model name", "flags", "Features", "cpu family", "model", "isa"):
            facts.setdefault(key, value)
    return facts


def cpu_flags():
    facts = cpu_facts()
    return set((facts.get("flags") or facts.get("Features") or "").split())


def caches():
    found = {}
    for folder in sorted(glob.glob("/sys/devices/system/cpu/cpu0/cache/index*")):
        kind = {"Data": "d", "Instruction": "i"}.get(read(folder + "/type"), "")
        found["L" + read(folder + "/level") + kind] = read(folder + "/size")
    return found


def describe(root):
    facts, flags = cpu_facts(), cpu_flags()
    commit = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"],
                            capture_output=True, text=True).stdout.strip()
    return {
        "cpu": facts.get("model name") or platform.machine(),
        "family": " ".join(facts.get(k, "") for k in ("cpu family", "model")).strip(),
        "features": [f for f in FEATURES if f in flags],
        "cores": len(cores()), "cpus": len(os.sched_getaffinity(0)), "caches": caches(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "kernel": ".".join(platform.release().split(".")[:2]), "load_at_start": os.getloadavg()[0],
        "virtual": "hypervisor" in flags, "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


class Probe:
    """The FMA loop of a compiled model, on one thread and on all `cpus`."""

    def __init__(self, program, cpus):
        self.program, self.cpus = program, cpus

    def loop(self, cpus):
        return json.loads(output([self.program, "bench", "--runs", "1", "--threads",
                                  str(len(cpus)), "--json"], cpus))["peak_gflops"]

    def __call__(self):
        """{"gflops", "ratio"}: of all threads, and that over one thread's, both measured now."""
        together = self.loop(self.cpus)
        ratio = together / self.loop(self.cpus[:1]) if len(self.cpus) > 1 else 1.0
        return {"gflops": together, "ratio": ratio}


def bandwidth(cpus, seconds=1.0, size=256 << 20):
    """GB/s read and written by copies of blocks beyond every cache, one thread per CPU."""
    size //= len(cpus)
    copied = [0] * len(cpus)
    buffers = [(ctypes.create_string_buffer(size), ctypes.create_string_buffer(size))
               for _ in cpus]
    for a, b in buffers:
        ctypes.memset(a, 1, size)
        ctypes.memset(b, 1, size)
    start = time.perf_counter()

    def copy(thread):
        os.sched_setaffinity(0, {cpus[thread]})
        while time.perf_counter() - start < seconds:
            ctypes.memmove(*buffers[thread], size)
            copied[thread] += 2 * size

    threads = [threading.Thread(target=copy, args=(i,)) for i in range(len(cpus))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(copied) / (time.perf_counter() - start) / 1e9
