"""Models: what is known of each without importing it, enough to check a configuration in no time.

A new one is an entry here and a module in `models/`; a test holds it to what is declared.
"""

from __future__ import annotations

from dataclasses import dataclass

from fused_ray.config.parts.door import Door


@dataclass(frozen=True)
class ModelInfo:
    """A model's layers that own a weight, from the input to the output, and where its module is built."""

    layers: tuple[str, ...]
    factory: str  # "package.module:function", called with (input shape, number of classes)
    norms: tuple[str, ...] = ()
    """Those of the layers that normalise; they are adapted only when named."""
    min_side: int = 1
    """Smallest height and width of images that it takes, pixels."""
    gated: tuple[str, ...] = ()
    """Those of the layers that feed a ReLU: wholly at zero, no gradient reaches them (models.anatomy.gated)."""

    @property
    def ranked(self) -> tuple[str, ...]:
        """The layers that may be critical."""
        return tuple(name for name in self.layers if name not in self.norms)


def _resnet18() -> tuple[str, ...]:
    names = ["conv1", "bn1"]
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            names += [f"layer{stage}.{block}.{name}" for name in ("conv1", "bn1", "conv2", "bn2")]
            names += [f"layer{stage}.0.downsample.{i}" for i in (0, 1) if stage > 1 and block == 0]
    return (*names, "fc")


def _transformer(first: str, block: str, parts: tuple[str, ...], last: tuple[str, ...], depth: int) -> tuple[str, ...]:
    return (first, *(f"{block}{i}.{part}" for i in range(depth) for part in parts), *last)


def _model(factory: str, layers: tuple[str, ...], *norms: str, gated: tuple[str, ...] = ()) -> ModelInfo:
    """`norms` and `gated` are the ends of the names of such layers."""
    named = (tuple(name for name in layers if name.endswith(ends)) for ends in (norms, gated))
    return ModelInfo(layers, factory, next(named), gated=next(named))


_SIMPLEVIT = ("norm1", "self_attn", "self_attn.out_proj", "norm2", "linear1", "linear2")
_VIT = ("ln_1", "self_attention", "self_attention.out_proj", "ln_2", "mlp.0", "mlp.3")

MODELS: dict[str, ModelInfo] = {
    "lenet": ModelInfo(
        ("conv1", "conv2", "fc1", "fc2", "fc3"),
        "fused_ray.models.lenet:LeNet",
        min_side=16,
        gated=("conv1", "conv2", "fc1", "fc2"),
    ),
    "resnet18": _model("fused_ray.models.resnet:resnet18", _resnet18(), "bn1", "bn2", "downsample.1", gated=("bn1",)),
    "resnet18-imagenet": _model(
        "fused_ray.models.resnet:resnet18_imagenet", _resnet18(), "bn1", "bn2", "downsample.1", gated=("bn1",)
    ),
    "simplevit": _model(
        "fused_ray.models.simplevit:SimpleViT",
        _transformer("patches", "blocks.", _SIMPLEVIT, ("norm", "head"), depth=6),
        *("norm1", "norm2", "norm"),
    ),
    "vit-small": _model(
        "fused_ray.models.vit:vit_small",
        _transformer("conv_proj", "encoder.layers.encoder_layer_", _VIT, ("encoder.ln", "heads.head"), depth=12),
        *("ln_1", "ln_2", "encoder.ln"),
    ),
}
MODEL = Door("model", "fused_ray.models", MODELS, ModelInfo, "a registered model", "set model.factory")
"""Of an installed package's models only the place is asked for: to import one takes PyTorch."""
