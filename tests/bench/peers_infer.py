"""Peers of inference: a compiled library, PyTorch, ONNX Runtime, OpenVINO. Weights and image are given
as files. Where a network can be written in several ways, the peer keeps the fastest."""

import array
import ctypes
import os
import sys
import time

from worker import Ready, timed

HERE = os.path.dirname(os.path.abspath(__file__))
TRIALS = 4  # runs that decide between the forms of a network


def read_floats(path):
    values = array.array("f")
    with open(path, "rb") as f:
        values.frombytes(f.read())
    return values


def fastest(candidates):
    """Of (form, run, logits) the one with the least time."""
    best = None
    for form, run, logits in candidates:
        timed(run, 2)
        ms = min(timed(run, TRIALS))
        if best is None or ms < best[0]:
            best = ms, form, run, logits
    if best is None:
        raise RuntimeError("no form of the network could be prepared")
    return best[1:]


def prepare_cnxc(c):
    library = ctypes.CDLL(c["library"])
    create, infer = (getattr(library, c["prefix"] + s) for s in ("_create", "_infer"))
    model, message = ctypes.c_void_p(), ctypes.create_string_buffer(4096)
    status = create(c["weights"].encode(), c["threads"], ctypes.c_int64(c["batch"]),
                    ctypes.byref(model), message, ctypes.c_size_t(4096))
    if status:
        raise RuntimeError(message.value.decode())
    image = read_floats(c["image_nhwc"])
    logits = (ctypes.c_float * (c["batch"] * c["classes"]))()
    pixels = (ctypes.c_float * len(image)).from_buffer(image)

    def run():
        if infer(model, ctypes.c_int64(c["batch"]), pixels, logits):
            raise RuntimeError("infer failed")

    run()
    return Ready({"form": "library", "version": ""}, run, lambda: bytes(logits),
                 kept=(library, model, image))


def torch_models(c):
    """(form, module): pointwise layers as linear, as published, and as 1x1 convolutions, as timm
    has some of them; with the seeded weights, in evaluation mode."""
    sys.path.insert(0, os.path.join(HERE, "..", "parity"))
    import libraries
    from reference import SIZES
    from safetensors.torch import load_file
    depths, dims = SIZES[c["model"]]
    v1 = "v2" not in c["model"]
    for form in ("linear", "conv"):
        model = libraries.timm_model(depths, dims, c["classes"], conv_mlp=form == "conv", v1=v1)
        state, weights = model.state_dict(), load_file(c["weights_timm"])
        model.load_state_dict({k: weights[k].reshape(state[k].shape) for k in state})
        yield form, model.eval()


def torch_image(c):
    import torch
    return torch.frombuffer(read_floats(c["image_nchw"]), dtype=torch.float32).reshape(c["shape"])


def ahead_of_time(model, image, package):
    """The module compiled by AOTInductor into a library, loaded again."""
    import torch
    torch._inductor.config.freezing = True
    exported = torch.export.export(model, (image,))
    path = torch._inductor.aoti_compile_and_package(exported, package_path=package)
    return torch._inductor.aoti_load_package(path)


def torch_candidates(c, kind):
    import torch
    image, start = torch_image(c), time.monotonic()
    if kind != "eager":
        image = image.to(memory_format=torch.channels_last)
    for number, (form, model) in enumerate(torch_models(c)):
        # A second compilation has to fit well into the time that is left.
        if kind in ("compile", "aot") and number and time.monotonic() - start > c["timeout"] / 3:
            return
        if kind != "eager":
            model = model.to(memory_format=torch.channels_last)
        if kind == "compile":
            torch._inductor.config.freezing = True
            model = torch.compile(model)
        if kind == "aot":
            model = ahead_of_time(model, image, os.path.join(c["onnx"], f"{form}.pt2"))
        yield form, lambda m=model: m(image), lambda m=model: m(image).numpy().tobytes()


def prepare_torch(c):
    import torch
    torch.set_num_threads(c["threads"])
    with torch.no_grad():
        form, run, logits = fastest(torch_candidates(c, c["peer"].removeprefix("torch-")))

    def run_without_gradients():
        with torch.no_grad():
            run()

    def logits_without_gradients():
        with torch.no_grad():
            return logits()

    return Ready({"form": form, "version": torch.__version__}, run_without_gradients,
                 logits_without_gradients)


def onnx_files(c):
    return [os.path.join(c["onnx"], f) for f in sorted(os.listdir(c["onnx"]))
            if f.endswith(".onnx")]


def form_of(path):
    return os.path.basename(path).removesuffix(".onnx")


def prepare_onnxruntime(c, files=None):
    """files: those of the network's forms, by default as exported."""
    import numpy
    import onnxruntime
    image = numpy.frombuffer(read_floats(c["image_nchw"]), numpy.float32).reshape(c["shape"])

    def candidates():
        for path in files or onnx_files(c):
            os.sched_setaffinity(0, c["cpus"])
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = c["threads"]
            options.inter_op_num_threads = 1
            if c["threads"] > 1:  # of the threads it adds to the caller's, counted from 1
                options.add_session_config_entry(
                    "session.intra_op_thread_affinities",
                    ";".join(str(cpu + 1) for cpu in c["cpus"][1:]))
            session = onnxruntime.InferenceSession(path, options,
                                                   providers=["CPUExecutionProvider"])
            os.sched_setaffinity(0, c["cpus"][:1])
            yield (form_of(path), lambda s=session: s.run(None, {"image": image}),
                   lambda s=session: s.run(None, {"image": image})[0].tobytes())

    form, run, logits = fastest(candidates())
    return Ready({"form": form, "version": onnxruntime.__version__}, run, logits)


def openvino_ready(c, core, models, options):
    """The fastest of models (form, model or its file) compiled with those options."""
    import numpy
    import openvino
    image = numpy.frombuffer(read_floats(c["image_nchw"]), numpy.float32).reshape(c["shape"])
    options = {"INFERENCE_NUM_THREADS": c["threads"], "PERFORMANCE_HINT": "LATENCY",
               "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": True, **options}

    def candidates():
        for form, model in models:
            request = core.compile_model(model, "CPU", options).create_infer_request()
            yield (form, lambda r=request: r.infer({"image": image}),
                   lambda r=request: next(iter(r.infer({"image": image}).values())).tobytes())

    form, run, logits = fastest(candidates())
    return Ready({"form": form, "version": openvino.__version__.split("-")[0]}, run, logits)


def prepare_openvino(c):
    import openvino
    return openvino_ready(c, openvino.Core(), [(form_of(p), p) for p in onnx_files(c)],
                          {"INFERENCE_PRECISION_HINT": "f32"})


def prepare_export(c):
    """Writes FORM-EXPORTER.onnx for the peers that read them; has nothing to run."""
    import torch
    image, failures = torch_image(c), []
    for form, model in torch_models(c):
        for exporter in ("dynamo", "torchscript"):
            path = os.path.join(c["onnx"], f"{form}-{exporter}.onnx")
            try:
                with torch.no_grad():
                    torch.onnx.export(model, (image,), path, input_names=["image"],
                                      output_names=["logits"], opset_version=20,
                                      dynamo=exporter == "dynamo")
            except Exception as e:  # an exporter that gives up leaves the other's file
                failures.append(f"{exporter}: {e}")
                if os.path.exists(path):
                    os.remove(path)
    if not onnx_files(c):
        raise RuntimeError("; ".join(failures))
    return Ready({"version": torch.__version__}, lambda: None)


PREPARE = {"cnxc": prepare_cnxc, "torch-eager": prepare_torch, "torch-channels_last": prepare_torch,
           "torch-compile": prepare_torch, "torch-aot": prepare_torch,
           "onnxruntime": prepare_onnxruntime,
           "openvino": prepare_openvino, "export": prepare_export}
