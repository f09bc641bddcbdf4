"""What is known of data sets and models without loading them: enough to check a configuration in no time.

A new data set or model is one entry here and one loader or module; a test holds both to what they declare.
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


_FASHION = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

DATASETS: dict[str, DatasetInfo] = {
    "fashion-mnist-mini": DatasetInfo(10, 10_000, 2_000, (1, 28, 28), _FASHION),
    "fashion-mnist": DatasetInfo(10, 60_000, 10_000, (1, 28, 28), _FASHION),
}

MODELS: dict[str, ModelInfo] = {
    "lenet": ModelInfo(("conv1", "conv2", "fc1", "fc2", "fc3"), "fused_ray.models.lenet:LeNet"),
}
