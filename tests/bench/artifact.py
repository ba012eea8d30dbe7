"""What a compiled model costs before it runs: time of compilation, size, cold start.

All of the compiler's processes run on one CPU. Sizes are those of the object files: code, tables and
read-only data, no weights, no image codecs. The cold start is a whole process on one thread, from its
start to its end: reading weights from the page cache, packing them (or mapping those built in), logits
of one image, written. For other targets objects of the inference programs are compiled, too."""

import datetime
import json
import os
import platform
import subprocess
import time

from process import output

FAT = "x86-64-v2,x86-64-v3,x86-64-v4"
PROGRAMS = {"infer": "infer", "all": "infer,train,pretrain"}


def seconds(command, cpus):
    start = time.perf_counter()
    output(command, cpus)
    return time.perf_counter() - start


def object_bytes(path):
    """Of the sections that are loaded, by binutils' size."""
    out = subprocess.run(["size", "-d", path], check=True, capture_output=True, text=True).stdout
    return int(out.splitlines()[1].split()[3])


def write_npy(path, shape, data):
    """A .npy file of float32 values, row-major."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data)


def read_npy(path):
    """The bytes of its values."""
    with open(path, "rb") as f:
        data = f.read()
    return data[10 + int.from_bytes(data[8:10], "little"):]


def image_file(facts, path):
    """A float32 .npy of one image [1,C,H,W], each value 0.5."""
    shape = (1, facts["channels"], facts["height"], facts["width"])
    write_npy(path, shape, b"\x00\x00\x00\x3f" * (shape[1] * shape[2] * shape[3]))
    return path


def targets(cnxc, cpus):
    """The rows of `cnxc targets`."""
    lines = output([cnxc, "targets"], cpus).splitlines()
    return [line[2:].split()[0] for line in lines[1:lines.index("")]]


def other_targets(options, model, path, cpus):
    """Seconds of each row, and the bytes of an object that holds three of x86-64."""
    build = [options.cnxc, "build", model, "--programs=infer", "--emit=obj", "-o", path]
    figures = {"target_seconds": {
        t: min(seconds([*build, f"--target={t}"], cpus) for _ in range(options.builds))
        for t in targets(options.cnxc, cpus)}}
    if platform.machine() == "x86_64":
        output([*build, f"--target={FAT}"], cpus)
        figures["fat_bytes"] = object_bytes(path)
    return figures


def measure(options, model, folder, cpus):
    """The record of one model."""
    cpus = cpus[:1]
    facts = json.loads(output([options.cnxc, "check", model, "--json"], cpus))
    program, weights = os.path.join(folder, "program"), os.path.join(folder, "w.safetensors")
    figures = {}
    for name, programs in PROGRAMS.items():
        build = [options.cnxc, "build", model, f"--programs={programs}", "-o"]
        figures[f"{name}_seconds"] = min(seconds([*build, program + "-" + name], cpus)
                                         for _ in range(options.builds))
        output([*build, program + ".o", "--emit=obj"], cpus)
        figures[f"{name}_bytes"] = object_bytes(program + ".o")
    figures.update(other_targets(options, model, program + ".o", cpus))
    output([options.cnxc, "weights", "init", model, weights, "--seed", "0"], cpus)
    output([options.cnxc, "build", model, "--programs=infer", "--weights", weights, "-o",
            program + "-packed"], cpus)
    tensors = ["--threads", "1", "--input", image_file(facts, os.path.join(folder, "image.npy")),
               "--output", os.path.join(folder, "logits.npy")]
    starts = {"start_ms": [program + "-infer", "infer", "--weights", weights, *tensors],
              "packed_start_ms": [program + "-packed", "infer", *tensors]}
    for name, start in starts.items():
        seconds(start, cpus)
        figures[name] = 1e3 * min(seconds(start, cpus) for _ in range(options.starts))
    return {"task": "build", "model": model, "batch": 1, "threads": 1,
            "date": datetime.date.today().isoformat(), "commit": options.commit,
            "parameters": facts["parameters"], "peers": {}, "figures": figures}
