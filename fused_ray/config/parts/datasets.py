"""Data sets: what is known of each without loading it, and the record of one that another package brings.

A new one is an entry here and a loader in `data/`; a test holds it to what is declared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fused_ray.config.parts.door import Door


@dataclass(frozen=True)
class DatasetInfo:
    """A data set's shape: images are uint8 [n, channels, height, width], labels 0..classes-1."""

    classes: int
    train_examples: int
    test_examples: int
    shape: tuple[int, ...]
    """Of an input; of an image: channels, height, width."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel, of pixel values divided by 255."""
    std: tuple[float, ...]


@dataclass(frozen=True)
class DataSet:
    """A data set of another package; its settings stand in data.args."""

    load: str | Callable[..., Any]
    """A function of (seed, **settings) that returns Loaded, or where it is: package.module:function. Constants that it
    normalises by must be fixed ones: those of the training examples know what is to be forgotten."""
    images: bool = True
    """Whether inputs are images: uint8 [n, channels, height, width]. Else they are float32 [n, ...], taken as they are:
    without data.augment, a trigger, or the registered models."""
    section: type[BaseModel] | None = None
    """The settings of its own, a subclass of `fused_ray.config.Section`."""


_FASHION = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_DIGITS = tuple(str(digit) for digit in range(10))
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle"),
    *("bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle"),
    *("chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur"),
    *("dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard"),
    *("lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain"),
    *("mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree"),
    *("plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket"),
    *("rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider"),
    *("squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger"),
    *("tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm"),
)

# Mean and deviation are the ones in common use: those of the published training set (mnist: as in PyTorch's example
# for MNIST), to four digits. They are constants and not taken from the images that are read: what must be forgotten is
# among these, and would reach the retrained model through them.
_FASHION_MOMENTS = ((0.2860,), (0.3530,))
_MNIST_MOMENTS = ((0.1307,), (0.3081,))
_CIFAR10_MOMENTS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100_MOMENTS = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
OWN_MOMENTS = ((0.5,), (0.5,))
"""Mean and deviation for the user's own data, where nothing is known: black becomes -1 and white 1."""
NO_MOMENTS = ((0.0,), (1.0,))
"""The same for what is no image: it is taken as it is."""

DATASETS: dict[str, DatasetInfo | None] = {
    "fashion-mnist-mini": DatasetInfo(10, 10_000, 2_000, (1, 28, 28), _FASHION, *_FASHION_MOMENTS),
    "fashion-mnist": DatasetInfo(10, 60_000, 10_000, (1, 28, 28), _FASHION, *_FASHION_MOMENTS),
    "mnist": DatasetInfo(10, 60_000, 10_000, (1, 28, 28), _DIGITS, *_MNIST_MOMENTS),
    "cifar10": DatasetInfo(10, 50_000, 10_000, (3, 32, 32), _CIFAR10, *_CIFAR10_MOMENTS),
    "cifar100": DatasetInfo(100, 50_000, 10_000, (3, 32, 32), _CIFAR100, *_CIFAR100_MOMENTS),
    # the user's own: nothing is known before they are read
    "parquet": None,
    "npz": None,
}
DATASET: Door[DataSet | None] = Door(
    "data set", "fused_ray.datasets", dict.fromkeys(DATASETS), DataSet, "a fused_ray.api.DataSet"
)
"""This package's own are None: data/datasets.py reads them, and DATASETS says what is known of them."""
