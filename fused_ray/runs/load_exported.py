"""The model that forgot, with PyTorch alone: `load()(normalised(pixels))` are logits. Needs no fused_ray.

`fused-ray export` copies this file into what it writes, as load.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def about() -> dict[str, Any]:
    """What about.json holds: inputs and classes under "data", the verdict, the accuracies under "metrics"."""
    found: dict[str, Any] = json.loads((HERE / "about.json").read_text(encoding="utf-8"))
    return found


def load() -> torch.nn.Module:
    """Inputs float32 [batch, *shape] to logits [batch, classes], as in evaluation mode, on the CPU."""
    return torch.export.load(HERE / "model.pt2").module()


def normalised(inputs: torch.Tensor) -> torch.Tensor:
    """What the model takes: of pixels uint8 [batch, channels, height, width], or of other inputs [batch, *shape].

    Pixels are divided by 255 first.
    """
    data = about()["data"]
    channels = (1, -1, *(1 for _ in data["shape"][1:]))
    mean, std = (torch.tensor(data[name]).reshape(channels) for name in ("mean", "std"))
    values = inputs.float()
    if inputs.dtype == torch.uint8:
        values = values / 255
    return (values - mean) / std
