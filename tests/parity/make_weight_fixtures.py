"""Writes tests/unit/data/weights: small checkpoints in every scheme and container that the runtime
reads, by the libraries that write them (torch, safetensors, timm, transformers).

  python make_weight_fixtures.py        (torch, numpy, safetensors; timm and transformers)

All hold the seeded values of reference.py under the official name, so the tests know every number."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import re
import zipfile

import torch
from safetensors.torch import save_file

import libraries
from reference import seeded

DEPTHS, DIMS, CLASSES = (1, 1, 1, 1), (4, 6, 8, 10), 5
OUT = pathlib.Path(__file__).resolve().parent.parent / "unit" / "data" / "weights"


def official_shapes(v1=False, fcmae=False):
    shapes = {}

    def pair(name, weight, bias):
        shapes[name + ".weight"], shapes[name + ".bias"] = weight, bias

    def block(name, c):
        pair(name + ".dwconv", (c, 1, 7, 7), (c,))
        pair(name + ".norm", (c,), (c,))
        pair(name + ".pwconv1", (4 * c, c), (4 * c,))
        if not v1:
            shapes[name + ".grn.gamma"] = shapes[name + ".grn.beta"] = (1, 1, 1, 4 * c)
        pair(name + ".pwconv2", (c, 4 * c), (c,))
        if v1:
            shapes[name + ".gamma"] = (c,)

    pair("downsample_layers.0.0", (DIMS[0], 3, 4, 4), (DIMS[0],))
    pair("downsample_layers.0.1", (DIMS[0],), (DIMS[0],))
    for i in (1, 2, 3):
        pair(f"downsample_layers.{i}.0", (DIMS[i - 1],), (DIMS[i - 1],))
        pair(f"downsample_layers.{i}.1", (DIMS[i], DIMS[i - 1], 2, 2), (DIMS[i],))
    for i, (depth, c) in enumerate(zip(DEPTHS, DIMS)):
        for j in range(depth):
            block(f"stages.{i}.{j}", c)
    if not fcmae:
        pair("norm", (DIMS[3],), (DIMS[3],))
        pair("head", (CLASSES, DIMS[3]), (CLASSES,))
    return shapes


def state(v1=False, fcmae=False):
    return collections.OrderedDict(
        (n, seeded(n, s)) for n, s in official_shapes(v1, fcmae).items())


def renamed(official, rules):
    out = collections.OrderedDict()
    for name, t in official.items():
        for pattern, to in rules:
            new, hits = re.subn(pattern, to, name)
            if hits:
                name = new
                break
        out[name] = t
    return out


TIMM = [
    (r"^downsample_layers\.0\.(\d)", r"stem.\1"),
    (r"^downsample_layers\.(\d)\.(\d)", r"stages.\1.downsample.\2"),
    (r"^stages\.(\d)\.(\d)\.dwconv", r"stages.\1.blocks.\2.conv_dw"),
    (r"^stages\.(\d)\.(\d)\.pwconv(\d)", r"stages.\1.blocks.\2.mlp.fc\3"),
    (r"^stages\.(\d)\.(\d)\.grn\.gamma", r"stages.\1.blocks.\2.mlp.grn.weight"),
    (r"^stages\.(\d)\.(\d)\.grn\.beta", r"stages.\1.blocks.\2.mlp.grn.bias"),
    (r"^stages\.(\d)\.(\d)\.", r"stages.\1.blocks.\2."),
    (r"^norm\.", "head.norm."),
    (r"^head\.", "head.fc."),
]
HF = [
    (r"^downsample_layers\.0\.0", "P.embeddings.patch_embeddings"),
    (r"^downsample_layers\.0\.1", "P.embeddings.layernorm"),
    (r"^downsample_layers\.(\d)\.(\d)", r"P.encoder.stages.\1.downsampling_layer.\2"),
    (r"^stages\.(\d)\.(\d)\.norm", r"P.encoder.stages.\1.layers.\2.layernorm"),
    (r"^stages\.(\d)\.(\d)\.grn\.gamma", r"P.encoder.stages.\1.layers.\2.grn.weight"),
    (r"^stages\.(\d)\.(\d)\.grn\.beta", r"P.encoder.stages.\1.layers.\2.grn.bias"),
    (r"^stages\.(\d)\.(\d)\.gamma", r"P.encoder.stages.\1.layers.\2.layer_scale_parameter"),
    (r"^stages\.(\d)\.(\d)\.", r"P.encoder.stages.\1.layers.\2."),
    (r"^norm\.", "P.layernorm."),
    (r"^head\.", "classifier."),
]
MMPRETRAIN = [
    (r"^stages\.(\d)\.(\d)\.dwconv", r"backbone.stages.\1.\2.depthwise_conv"),
    (r"^stages\.(\d)\.(\d)\.pwconv(\d)", r"backbone.stages.\1.\2.pointwise_conv\3"),
    (r"^norm\.", "backbone.norm3."),
    (r"^head\.", "head.fc."),
    (r"^", "backbone."),
]


def hf(official, version):
    return renamed(official, [(a, b.replace("P.", f"convnext{version}.")) for a, b in HF])


def as_model(model, named):
    """The library's own state dict with our values: fails when a name or a shape is not its own."""
    own = model.state_dict()
    filled = collections.OrderedDict((k, named[k].reshape(v.shape)) for k, v in own.items())
    assert set(filled) == set(named), set(filled) ^ set(named)
    model.load_state_dict(filled)
    return model.state_dict()


def sparse(dense):
    """The inverse of the official remap_checkpoint_keys, plus what pre-training keeps beside."""
    out = collections.OrderedDict()
    for name, t in dense.items():
        name = "encoder." + name
        depthwise, down = name.endswith("dwconv.weight"), re.search(r"ers\.[123]\.1\.weight", name)
        if depthwise or down:
            name = name.replace(".weight", ".kernel")
            o, i, k, _ = t.shape
            t = t.permute(3, 2, 1, 0).reshape(k * k, i, o)  # the row index runs fastest
            t = (t.squeeze(1) if depthwise else t).contiguous()
        elif re.search(r"(dwconv|ers\.[123]\.1)\.bias", name):
            t = t.reshape(1, -1)
        elif ".grn." in name:
            t = t.reshape(1, -1)
        elif re.search(r"stages\.\d\.\d\.norm|ers\.[123]\.0\.", name):
            name = re.sub(r"\.(\w+)$", r".ln.\1", name)
        elif "pwconv" in name:
            name = re.sub(r"\.(\w+)$", r".linear.\1", name)
        out[name] = t
    return out


def decoder(prefix=""):
    extra = {"mask_token": (1, 6, 1, 1), "proj.weight": (6, 10, 1, 1), "proj.bias": (6,),
             "decoder.0.norm.weight": (6,), "decoder.0.grn.gamma": (1, 1, 1, 24),
             "pred.weight": (12, 6, 1, 1), "pred.bias": (12,)}
    return {prefix + k: seeded(k, s) for k, s in extra.items()}


class Evil:
    """Unpickled by pickle.load it would run a command."""

    def __reduce__(self):
        return os.system, ("touch /tmp/cnxrt-unpickler-ran-this",)


def save(name, what, **options):
    torch.save(what, OUT / name, **options)


def deflate(name, to):
    with zipfile.ZipFile(OUT / name) as src, \
            zipfile.ZipFile(OUT / to, "w", zipfile.ZIP_DEFLATED) as dst:
        for info in src.infolist():
            dst.writestr(info.filename, src.read(info))


def training_state():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": model.parameters(), "lr_scale": 0.9}])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def views():
    """Every way in which a tensor is not the whole of its storage."""
    base = seeded("base", (6, 8))
    w = torch.nn.Parameter(seeded("parameter", (3, 2)))
    return {"base": base, "transposed": base.t(), "columns": base[:, 1:7:2], "rows": base[2:4],
            "expanded": seeded("row", (1, 4)).expand(3, 4), "scalar": base[1, 2],
            "empty": torch.zeros(0, 3), "permuted": seeded("cube", (2, 3, 4)).permute(2, 0, 1),
            "parameter": w, "half": base.half()[1:, ::2], "counter": torch.tensor(7),
            "flags": torch.tensor([True, False]), "wide": base.double()[::2]}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    full, v1, encoder = state(), state(v1=True), state(fcmae=True)
    names = "\n".join(f"class {i}" for i in range(CLASSES))
    save_file(full, OUT / "official.safetensors", {"classes": names})
    save_file({k: t.half() for k, t in full.items()}, OUT / "official_f16.safetensors")
    save_file({k: t.bfloat16() for k, t in full.items()}, OUT / "official_bf16.safetensors")
    ints = {"counter": torch.arange(3)}
    save_file({k: t.double() for k, t in full.items()} | ints, OUT / "official_f64.safetensors")
    ema = collections.OrderedDict((k, torch.zeros_like(t)) for k, t in full.items())
    save("official.pt", {"model": full, "optimizer": training_state(), "epoch": "best",
                         "scaler": {"scale": 65536.0}, "args": argparse.Namespace(lr=1e-3, x=[1]),
                         "model_ema": {k: t[:0] for k, t in ema.items()}})
    deflate("official.pt", "deflated.pt")
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pt", {"state_dict": v1 if protocol == 3 else encoder},
             pickle_protocol=protocol)
    save("legacy.pt", {"model": full, "args": argparse.Namespace(a=1)},
         _use_new_zipfile_serialization=False)
    save("views.pt", views())
    save("views_legacy.pt", views(), _use_new_zipfile_serialization=False)
    save("evil.pt", {"evil": Evil(), "model": {"a": seeded("a", (2, 3)), "b": Evil()}})
    save("object.pt", torch.nn.Linear(2, 2))
    with open(OUT / "plain.pkl", "wb") as f:
        pickle.dump({"a": [1, 2, 3]}, f, protocol=2)
    save_file(as_model(libraries.timm_model(DEPTHS, DIMS, CLASSES, conv_mlp=False),
                       renamed(full, TIMM)), OUT / "timm.safetensors")
    save("timm_conv.pt", as_model(libraries.timm_model(DEPTHS, DIMS, CLASSES, conv_mlp=True),
                                  renamed(full, TIMM)))
    save("timm_v1.pt", as_model(libraries.timm_model(DEPTHS, DIMS, CLASSES, v1=True),
                                renamed(v1, TIMM)))
    save_file(as_model(libraries.hf_model(DEPTHS, DIMS, CLASSES), hf(full, "v2")),
              OUT / "hf.safetensors")
    save_file(as_model(libraries.hf_model(DEPTHS, DIMS, CLASSES, v1=True), hf(v1, "")),
              OUT / "hf_v1.safetensors")
    old = {re.sub(r"grn\.bias", "grn.beta", re.sub(r"grn\.weight", "grn.gamma", k)): t
           for k, t in hf(full, "v2").items()}
    save("hf_old.pt", old)
    save("mmpretrain.pt", {"meta": {"epoch": 1},
                           "state_dict": {k: t.half() for k, t in renamed(full, MMPRETRAIN).items()}})
    save("fcmae.pt", {"model": {"encoder." + k: t for k, t in encoder.items()} | decoder()})
    save("fcmae_only.pt", {"model": encoder})
    save("fcmae_sparse.pt", {"model": sparse(encoder) | decoder()})
    save("ddp.pt", {"state_dict": {"module." + k: t for k, t in full.items()}})
    corpus()


def corpus():
    """Seeds of the fuzzer: one byte says what the rest is."""
    out = OUT.parent.parent.parent / "fuzz" / "corpus" / "weights"
    out.mkdir(parents=True, exist_ok=True)
    small = {"stages.0.0.dwconv.kernel": seeded("a", (49, 2)), "b": seeded("b", (2, 3)).half(),
             "c": seeded("base", (3, 4)).t()}
    extra = {"model": small, "args": argparse.Namespace(x=[1, (2.5, None)]), "o": Evil()}
    for name, options in {"zip": {}, "zip4": {"pickle_protocol": 4},
                          "legacy": {"_use_new_zipfile_serialization": False}}.items():
        buffer = io.BytesIO()
        torch.save(extra, buffer, **options)
        (out / f"{name}.bin").write_bytes(b"w" + buffer.getvalue())
    buffer = io.BytesIO()
    torch.save(extra, buffer)
    packed = io.BytesIO()
    with zipfile.ZipFile(buffer) as src, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as dst:
        for info in src.infolist():
            dst.writestr(info.filename, src.read(info))
            if info.filename.endswith("data.pkl"):
                (out / "pickle.bin").write_bytes(b"p" + src.read(info))
    (out / "deflated.bin").write_bytes(b"w" + packed.getvalue())
    path = out / "safetensors.bin"
    save_file({k: t.contiguous() for k, t in small.items()}, path, {"classes": "x\ny"})
    path.write_bytes(b"w" + path.read_bytes())
    import numpy as np
    buffer = io.BytesIO()
    np.save(buffer, np.arange(6, dtype=np.float32).reshape(2, 3))
    (out / "npy.bin").write_bytes(b"n" + buffer.getvalue())


if __name__ == "__main__":
    main()
