"""What is known of data sets, models and methods without loading them: enough to check a configuration in no time.

A new one is an entry here and a loader or module; a test holds both to what they declare.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """A data set's shape: images are uint8 [n, channels, height, width], labels 0..classes-1."""

    classes: int
    train_examples: int
    test_examples: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ModelInfo:
    """A model's layers that own a weight, from the input to the output, and where its module is built."""

    layers: tuple[str, ...]
    factory: str  # "package.module:function", called with (input shape, number of classes)


@dataclass(frozen=True)
class MethodInfo:
    """An unlearning method: where it is, and what it can forget."""

    entry: str  # "package.module:function", called with (Federation, M_r)
    scenarios: tuple[str, ...]
    needs_history: bool = False
    """Whether it reads the global models of pre-training, round by round."""


_FASHION = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

DATASETS: dict[str, DatasetInfo] = {
    "fashion-mnist-mini": DatasetInfo(10, 10_000, 2_000, (1, 28, 28), _FASHION),
    "fashion-mnist": DatasetInfo(10, 60_000, 10_000, (1, 28, 28), _FASHION),
}

MODELS: dict[str, ModelInfo] = {
    "lenet": ModelInfo(("conv1", "conv2", "fc1", "fc2", "fc3"), "fused_ray.models.lenet:LeNet"),
}

_ALL = ("class", "client", "sample", "exclusive")
_WHOLE_CLIENTS = ("client", "exclusive")

METHODS: dict[str, MethodInfo] = {
    "fused": MethodInfo("fused_ray.core.methods.fused:unlearn", _ALL),
    "retrain": MethodInfo("fused_ray.core.methods.fedavg:unlearn_by_retraining", _ALL),
    "finetune": MethodInfo("fused_ray.core.methods.fedavg:unlearn_by_finetuning", _ALL),
    "federaser": MethodInfo("fused_ray.core.methods.federaser:unlearn", _WHOLE_CLIENTS, needs_history=True),
    "eraseclient": MethodInfo("fused_ray.core.methods.eraseclient:unlearn", _WHOLE_CLIENTS, needs_history=True),
    "exactfun": MethodInfo("fused_ray.core.methods.exactfun:unlearn", _ALL),
    "not": MethodInfo("fused_ray.core.methods.negation:unlearn", _ALL),
    "puf": MethodInfo("fused_ray.core.methods.puf:unlearn", _WHOLE_CLIENTS),
}
