"""A model and images of your own: arrays in an .npz file, and a function that builds the model.

python examples/own_model_and_data.py     (one process, no Ray; results in runs/own)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from fused_ray import RunConfig, run


def draw(kind: int, random: np.random.Generator) -> np.ndarray:
    """A grey image, uint8 [16, 16], of a bar that lies (0), a bar that stands (1) or a square (2), on noise."""
    image = random.integers(0, 80, (16, 16), dtype=np.uint8)
    top, left = random.integers(1, 7, 2)
    height, width = ((3, 8), (8, 3), (6, 6))[kind]
    image[top : top + height, left : left + width] += 150
    return image


def net(shape: tuple[int, int, int], classes: int, width: int = 8) -> nn.Module:
    """Any PyTorch module that takes float32 images [batch, *shape] and returns logits [batch, classes]."""
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(16 * width, classes),
    )  # fmt: skip


def main() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(600) % 3
    images = np.stack([draw(kind, random) for kind in labels])
    train = {"train_images": images[:450], "train_labels": labels[:450]}
    Path("runs").mkdir(exist_ok=True)
    np.savez("runs/shapes.npz", **train, test_images=images[450:], test_labels=labels[450:])

    config = RunConfig.from_dict(
        {
            "data": {"name": "npz", "root": "runs/shapes.npz"},
            "model": {"factory": "own_model_and_data:net", "args": {"width": 16}},  # module:function
            "federation": {"clients": 4},
            "forget": {"classes": [1]},
            "unlearn": {"rounds": 15},  # this small model takes longer than five rounds to heal
            "engine": {"backend": "local"},
            "output": {"dir": "runs/own"},
        }
    )
    result = run(config, overwrite=True)
    print({when: result["metrics"][when] for when in ("before", "after", "retrained")})
    print(result["verdict"], "-", result["verdict_sentence"])


if __name__ == "__main__":
    main()
