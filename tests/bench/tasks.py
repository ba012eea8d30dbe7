"""What is measured. A task has peers, the first of them ours and the reference; its subject is one model
(or shape of a kernel), prepared in a folder, which says how a worker of each peer is started."""

import array
import json
import os
import random
import subprocess
import sys

import pictures
from artifact import read_npy, write_npy
from machine import cpu_flags
from process import output, thread_environment

HERE = os.path.dirname(os.path.abspath(__file__))
OURS, DENSE = "cnxc", "cnxc-dense"
TORCH = ("torch-eager", "torch-channels_last", "torch-compile")
AHEAD = "torch-aot"
SIZES = tuple(f"convnextv2_{s}" for s in ("atto", "femto", "pico", "nano", "tiny", "base"))
STEPS = ("convnextv2_atto", "convnextv2_tiny", "convnextv2_atto_32", "convnextv2_atto_64",
         "convnextv2_tiny_32", "convnextv2_tiny_64")
SMALL = 128  # pixels: below, a step takes the larger batch
SHAPES = ("gemm 3136 40 160", "gemm 3136 160 40", "gemm 784 80 320", "gemm 196 160 640",
          "gemm 49 320 1280", "gemm 3136 96 384", "gemm 3136 384 96", "gemm 784 192 768",
          "gemm 196 384 1536", "gemm 49 768 3072", "gemm 49 3072 768",
          "dwconv 56 56 40", "dwconv 56 56 96", "dwconv 28 28 192", "dwconv 14 14 384",
          "dwconv 7 7 768")


class Subject:
    """What every task has: `name`, `peers`, defaults; the row of `cnxc targets` it is compiled for;
    `tolerance` of outputs, None where peers have none to compare, and the name of what must be below
    it (measure.py, DIFFERENCES)."""
    measure_of, target = "max_difference", "native"
    tolerance, models, steps, one_thread = None, SIZES, False, False

    def __init__(self, options, model, folder):
        self.options, self.model, self.folder = options, model, folder

    def prepare(self):
        """Fills the folder, which is there and empty."""

    @classmethod
    def chosen(cls, options):
        if options.models:
            return [m for m in options.models if (" " in m) == cls.one_thread]
        return cls.models[:1] if options.quick else cls.models

    def path(self, name):
        return os.path.join(self.folder, name)

    def cnxc(self, *arguments):
        return subprocess.run([self.options.cnxc, *arguments], check=True, stdout=subprocess.PIPE,
                              text=True).stdout

    def start(self, peer, batch, cpus):
        """(command, output file) of a worker."""
        config = {"task": self.name, "peer": peer, "model": self.model, "batch": batch,
                  "cpus": cpus, "threads": len(cpus), "timeout": self.options.timeout,
                  "output": self.path(f"output-{peer}.bin"), **self.config(peer, batch)}
        path = self.path(f"{peer}.json")
        with open(path, "w") as f:
            json.dump(config, f)
        python = sys.executable if peer.startswith(OURS) else self.options.python
        return [python, os.path.join(HERE, "worker.py"), path], config["output"]

    def environment(self, peer, cpus):
        return thread_environment(cpus, openmp=peer.startswith((OURS, "torch")))

    def batches(self):
        return [1]

    def reference(self, batch):
        """A file of the outputs that are right; None: those of the first peer."""
        return None

    def needs(self, peer):
        """A peer whose worker has to have run before, as `export` of those that read its files."""
        return None

    def profile(self, batch, cpus, runs):
        return None

    def bench(self, program, batch, cpus, runs, *more):
        """A compiled program's own profile."""
        said = json.loads(output(
            [program, "bench", "--batch", str(batch), "--threads", str(len(cpus)), "--runs",
             str(runs), "--profile", "--json", *more], cpus))
        del said["run_ms"]
        return said


class Inference(Subject):
    name, title = "infer", "Inference"
    peers = (OURS, *TORCH, AHEAD, "onnxruntime", "openvino")
    models, tolerance = (*SIZES, "convnext_tiny"), 1e-3

    def __init__(self, options, model, folder):
        super().__init__(options, model, folder)
        self.facts = json.loads(self.cnxc("check", model, "--json"))

    def prepare(self):
        model = self.model
        build = "build", model, "--programs=infer", f"--target={self.target}", "-o"
        self.cnxc(*build, self.path("libmodel.so"), "--emit=shared")
        self.cnxc(*build, self.path("program"))
        self.cnxc("weights", "init", model, self.path("w.safetensors"), "--seed", "0")
        self.cnxc("weights", "convert", self.path("w.safetensors"), self.path("timm.safetensors"),
                  "--names=timm")

    def batches(self):
        return [1] if self.options.quick else [1, 8]

    def values(self, batch):
        """Those of a batch, [N,C,H,W]: within [-2, 2)."""
        draw = random.Random(batch)
        count = batch * self.facts["channels"] * self.facts["height"] * self.facts["width"]
        return array.array("f", (draw.uniform(-2, 2) for _ in range(count)))

    def images(self, batch):
        """Files of a batch, as [N,C,H,W] and [N,H,W,C]."""
        files = [self.path(f"{order}{batch}.bin") for order in ("nchw", "nhwc")]
        if os.path.exists(files[1]):
            return files
        c, pixels = self.facts["channels"], self.facts["height"] * self.facts["width"]
        nchw = self.values(batch)
        nhwc = array.array("f", bytes(4 * len(nchw)))
        for image in range(batch):
            first, end = image * c * pixels, (image + 1) * c * pixels
            for channel in range(c):
                at = first + channel * pixels
                nhwc[first + channel:end:c] = nchw[at:at + pixels]
        for path, values in zip(files, (nchw, nhwc)):
            with open(path, "wb") as f:
                values.tofile(f)
        return files

    def config(self, peer, batch):
        f, (nchw, nhwc) = self.facts, self.images(batch)
        onnx = self.path(f"onnx{batch}")
        os.makedirs(onnx, exist_ok=True)
        return {"classes": f["classes"], "shape": [batch, f["channels"], f["height"], f["width"]],
                "onnx": onnx, "library": self.path("libmodel.so"), "prefix": "model",
                "weights": self.path("w.safetensors"), "image_nchw": nchw, "image_nhwc": nhwc,
                "weights_timm": self.path("timm.safetensors")}

    def needs(self, peer):
        return "export" if peer in ("onnxruntime", "openvino") else None

    def figures(self, batch, results):
        f = self.facts
        pixels = f["channels"] * f["height"] * f["width"]
        return {"gflop": 2e-9 * f["macs"] * batch, "parameters": f["parameters"],
                "bytes": 4 * (f["parameters"] + batch * pixels)}

    def profile(self, batch, cpus, runs):
        return self.bench(self.path("program"), batch, cpus, runs, "--weights", "seed:0")


class Avx2(Inference):
    """What a CPU without AVX-512 runs, beside the FMA loop of that code."""
    name, title, peers, target = "avx2", "Inference by code for AVX2", (OURS,), "x86-64-v3"
    models = ("convnextv2_atto", "convnextv2_tiny")

    @classmethod
    def chosen(cls, options):
        return super().chosen(options) if {"avx2", "fma"} <= cpu_flags() else []


class Narrow(Inference):
    """Inference where linears compute in another precision, checked against float32: speed is what
    counts here, since weights are seeded and pictures made up."""
    measure_of, calibration = "relative_error", 16
    models = ("convnextv2_atto", "convnextv2_tiny", "convnextv2_base")

    def prepare(self):
        super().prepare()
        f, model, shown = self.facts, self.model, self.path("pictures")
        whole = (model, "--programs=infer", "--set", "input.crop_pct=1")
        narrow = [f"--precision={self.precision}"]
        os.replace(self.path("program"), self.path("float32"))
        if self.precision == "int8":
            os.makedirs(os.path.join(shown, "a"))
            for i in range(2 * self.calibration):
                pictures.write_png(os.path.join(shown, "a", f"{i:03}.png"), i, f["height"],
                                   f["width"])
            ranges = self.path("ranges.txt")
            self.cnxc("build", *whole, *narrow, "-o", self.path("program"), "--weights",
                      self.path("w.safetensors"), "--calibrate", shown, "--calibrate-pictures",
                      str(self.calibration), "--save-ranges", ranges)
            narrow += ["--ranges", ranges]
        self.cnxc("build", *whole, *narrow, "-o", self.path("program"))
        self.cnxc("build", *whole, *narrow, "--emit=shared", "-o", self.path("libmodel.so"))
        with open(self.path("calibration.bin"), "wb") as out:
            for i in range(0, 2 * self.calibration, 2):
                pictures.tensor(i, f["height"], f["width"]).tofile(out)

    def values(self, batch):
        f = self.facts
        out = array.array("f")
        for i in range(batch):
            out.extend(pictures.tensor(1000 + i, f["height"], f["width"]))
        return out

    def config(self, peer, batch):
        return {**super().config(peer, batch), "precision": self.precision,
                "calibration": self.path("calibration.bin")}

    def reference(self, batch):
        f, path = self.facts, self.path(f"float32-{batch}")
        with open(self.images(batch)[0], "rb") as nchw:
            write_npy(path + ".x.npy", (batch, f["channels"], f["height"], f["width"]), nchw.read())
        output([self.path("float32"), "infer", "--weights", self.path("w.safetensors"), "--input",
                path + ".x.npy", "--output", path + ".npy"], sorted(os.sched_getaffinity(0))[:1])
        with open(path, "wb") as out:
            out.write(read_npy(path + ".npy"))
        return path


class Bf16(Narrow):
    name, title, precision, tolerance = "bf16", "Inference in bf16", "bf16", 0.1
    peers = (OURS, "torch-channels_last", "torch-compile", "onnxruntime", "openvino")


class Int8(Narrow):
    name, title, precision, tolerance = "int8", "Inference in int8", "int8", 0.5
    peers = (OURS, "onnxruntime", "openvino")


class Training(Subject):
    """The supervised step; compiled programs are timed by their own `bench`."""
    name, title, command, peers = "train", "Training step", "train", (OURS, *TORCH)
    models, steps, flags = STEPS, True, ()

    def __init__(self, options, model, folder):
        super().__init__(options, model, folder)
        self.facts, self.programs = json.loads(self.cnxc("check", model, "--json")), {}

    def prepare(self):
        self.programs[OURS] = self.build("program")

    def build(self, name, *more):
        self.cnxc("build", self.model, "-o", self.path(name), "--programs",
                  f"infer,{self.command}", *self.flags, *more)
        return self.path(name)

    def batches(self):
        return [16 if self.facts["height"] >= SMALL else 128]

    def config(self, peer, batch):
        f, stages = self.facts, self.facts["stages"]
        shapes = [[int(v) for v in s["shape"].split("x")] for s in stages]
        heights = [f["height"]] + [s[0] for s in shapes]
        return {"program": self.programs.get(peer), "command": self.command,
                "channels": f["channels"], "height": f["height"], "width": f["width"],
                "classes": f["classes"], "depths": [s["blocks"] for s in stages],
                "dims": [s[2] for s in shapes], "parameters": self.parameters(),
                "strides": [a // b for a, b in zip(heights, heights[1:])],
                "keep": f.get("fcmae", {}).get("keep")}

    def parameters(self):
        return self.facts["parameters"]

    def figures(self, batch, results):
        """Bytes that must move: images; parameters, gradient and moments read and written."""
        f, p = self.facts, self.facts["parameters"]
        pixels = f["channels"] * f["height"] * f["width"]
        for peer, result in results.items():
            if peer in TORCH and result["status"] == "ok":
                result["gflop"] = results.get(DENSE, results[OURS]).get("gflop")
        return {"gflop": results[OURS].get("gflop"), "parameters": p,
                "bytes": 4 * (8 * p + batch * pixels)}

    def profile(self, batch, cpus, runs):
        return self.bench(self.programs[OURS], batch, cpus, runs, "--program", self.command)


class NarrowTraining(Training):
    """The supervised step with linears in bf16; of PyTorch under autocast."""
    name, title, precision = "train-bf16", "Training step in bf16", "bf16"
    models, flags = STEPS[:2], ("--precision=bf16",)

    def config(self, peer, batch):
        return {**super().config(peer, batch), "precision": self.precision}


class Pretraining(Training):
    """The FCMAE step: packed, and masked dense as PyTorch's."""
    name, title, command = "fcmae", "FCMAE step", "pretrain"
    peers = (OURS, DENSE, *TORCH)

    def prepare(self):
        super().prepare()
        if DENSE in self.options.peers:
            self.programs[DENSE] = self.build("dense", "--sparse=dense")

    def parameters(self):
        return self.facts["fcmae"]["parameters"]  # of the decoder: the encoder's are `train`'s


# BLIS knows its CPUs by name alone and takes the slowest kernels for others: its number of skx.
BLIS_AVX512 = {"BLIS_ARCH_TYPE": "0"}


class Kernels(Subject):
    """One kernel on one thread: weights packed beforehand where the library can."""
    name, title = "kernels", "Kernels"
    peers, models, tolerance = (OURS, "openblas", "blis", "onednn"), SHAPES, 1e-3
    one_thread = True

    def start(self, peer, batch, cpus):
        program = os.path.join(self.options.kernels, f"kernel_{peer}")
        return [program, self.model, self.path(f"output-{peer}.bin")], \
            self.path(f"output-{peer}.bin")

    def environment(self, peer, cpus):
        chosen = {k: v for k, v in super().environment(peer, cpus).items()
                  if not k.startswith("OPENBLAS_")}  # which may ask for another CPU's kernels
        return {**chosen, **(BLIS_AVX512 if "avx512f" in cpu_flags() else {})}

    def figures(self, batch, results):
        kind, *sizes = self.model.split()
        a, b, c = (int(v) for v in sizes)
        if kind == "gemm":
            return {"gflop": 2e-9 * a * b * c, "bytes": 4 * (a * b + b * c + a * c)}
        return {"gflop": 2e-9 * a * b * c * 49, "bytes": 4 * (2 * a * b + 49) * c}


TASKS = {t.name: t for t in (Inference, Avx2, Bf16, Int8, Training, NarrowTraining, Pretraining,
                             Kernels)}
