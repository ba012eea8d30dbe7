"""timm and transformers, for the scripts that need them; torchvision is not needed."""

import sys
import types


def _stub_torchvision():
    try:
        import torchvision  # noqa: F401
        return
    except ImportError:
        pass
    import importlib.machinery

    class Meta(type):
        def __getattr__(cls, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return name

    class Anything(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Meta(name, (), {})

    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms",
                 "torchvision.transforms.functional", "torchvision.models",
                 "torchvision.models.feature_extraction", "torchvision.datasets",
                 "torchvision.utils", "torchvision.datasets.folder"):
        module = Anything(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def timm():
    _stub_torchvision()
    import timm
    return timm


def timm_model(depths, dims, classes, conv_mlp=False, v1=False):
    timm()
    from timm.models.convnext import ConvNeXt
    kind = {"ls_init_value": 1e-6} if v1 else {"use_grn": True, "ls_init_value": None}
    return ConvNeXt(num_classes=classes, depths=depths, dims=dims, conv_mlp=conv_mlp, **kind)


def hf_model(depths, dims, classes, v1=False):
    # transformers looks for torchvision by itself: import it before any stub is there.
    stubs = {k: sys.modules.pop(k) for k in list(sys.modules) if k.split(".")[0] == "torchvision"}
    import transformers
    options = {"depths": list(depths), "hidden_sizes": list(dims), "num_labels": classes}
    if v1:
        model = transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**options))
    else:
        model = transformers.ConvNextV2ForImageClassification(
            transformers.ConvNextV2Config(**options))
    sys.modules.update(stubs)
    return model
