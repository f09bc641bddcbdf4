"""What is known of data sets and models without loading them: enough to check a configuration in no time.

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
    shape: tuple[int, ...]
    """Of an input; of an image: channels, height, width."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel, of pixel values divided by 255."""
    std: tuple[float, ...]


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
