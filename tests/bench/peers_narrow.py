"""Peers of inference in bf16 and int8: PyTorch's autocast and its modules in bfloat16, OpenVINO with a
precision hint or quantised by NNCF, ONNX Runtime quantised statically (QDQ, weights by channel). What
is quantised is calibrated with the pictures that cnxc is calibrated with."""

import os
import time

import peers_infer
from peers_infer import fastest, form_of, onnx_files, prepare_cnxc, prepare_export
from worker import Ready


def calibration(c):
    """Batches of the pictures, as the exported networks take them: of a static size."""
    import numpy
    values = numpy.frombuffer(peers_infer.read_floats(c["calibration"]), numpy.float32)
    pictures = values.reshape(-1, *c["shape"][1:])
    batch = c["shape"][0]
    for i in range(0, len(pictures), batch):
        yield {"image": numpy.resize(pictures[i:i + batch], c["shape"])}


def torch_candidates(c):
    """Modules with f32 weights under autocast, and modules in bfloat16."""
    import torch
    image, start = peers_infer.torch_image(c).to(memory_format=torch.channels_last), time.monotonic()
    compiles = c["peer"] == "torch-compile"
    for number, (form, model) in enumerate(peers_infer.torch_models(c)):
        model = model.to(memory_format=torch.channels_last)
        for whole in (True, False):
            if compiles and (number or not whole) and time.monotonic() - start > c["timeout"] / 3:
                return
            if whole:
                import copy
                m, x = copy.deepcopy(model).bfloat16(), image.bfloat16()
            else:
                m, x = model, image
            if compiles:
                torch._inductor.config.freezing = True
                torch._dynamo.reset()
                m = torch.compile(m)

            def run(m=m, x=x, whole=whole):
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not whole):
                    return m(x)

            yield (f"{form}-{'bfloat16' if whole else 'autocast'}", run,
                   lambda run=run: run().float().numpy().tobytes())


def prepare_torch(c):
    import torch
    torch.set_num_threads(c["threads"])
    form, run, logits = fastest(torch_candidates(c))
    return Ready({"form": form, "version": torch.__version__}, run, logits)


def quantised(c):
    """Files of ONNX Runtime's static quantisation: of each form of the network one where all is
    quantised that can be, and one where only products are."""
    import onnx
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.batches = calibration(c)

        def get_next(self):
            return next(self.batches, None)

    folder, why = os.path.join(c["onnx"], "int8"), "no network was exported"
    os.makedirs(folder, exist_ok=True)
    whole, ready = os.path.join(folder, "whole"), os.path.join(folder, "ready")
    for path in onnx_files(c):
        for kind, ops in (("all", None), ("products", ["Conv", "MatMul", "Gemm"])):
            out = os.path.join(folder, f"{form_of(path)}-{kind}.onnx")
            if os.path.exists(out):
                continue
            try:
                onnx.save(onnx.load(path), whole)  # in one file
                q.shape_inference.quant_pre_process(whole, ready, skip_symbolic_shape=True)
                q.quantize_static(ready, out, Reader(), quant_format=q.QuantFormat.QDQ,
                                  per_channel=True, activation_type=q.QuantType.QUInt8,
                                  weight_type=q.QuantType.QInt8, op_types_to_quantize=ops)
            except Exception as e:  # one form that cannot be quantised leaves the others
                why = e
    made = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(".onnx")]
    if not made:
        raise RuntimeError(f"nothing could be quantised: {why}")
    return made


def prepare_onnxruntime(c):
    if c["precision"] == "bf16":
        raise RuntimeError("its CPU provider has no kernels for bfloat16")
    return peers_infer.prepare_onnxruntime(c, quantised(c))


def prepare_openvino(c):
    import openvino
    core, options = openvino.Core(), {}
    if c["precision"] == "bf16":
        options["INFERENCE_PRECISION_HINT"] = "bf16"

    def models():
        for path in onnx_files(c):
            model = core.read_model(path)
            if c["precision"] == "int8":
                import nncf
                model = nncf.quantize(model, nncf.Dataset(list(calibration(c))))
            yield form_of(path), model

    return peers_infer.openvino_ready(c, core, models(), options)


PREPARE = {"cnxc": prepare_cnxc, "torch-channels_last": prepare_torch, "torch-compile": prepare_torch,
           "onnxruntime": prepare_onnxruntime, "openvino": prepare_openvino,
           "export": prepare_export}
