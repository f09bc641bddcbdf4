"""What a model says about examples: its logits, which every other part of the audit reads.

n examples, C classes. Evaluation mode, blocks of BLOCK rows, the last one filled up with rows once more. A run's own
evaluation fills it with zeros: its figures are the same up to rounding.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.errors import NumericsError
from fused_ray.types import IntVector, Payload, Scenario

Logits = NDArray[np.float32]
Vector = NDArray[np.float64]


def logits(space: Workspace, payload: Payload, source: Literal["train", "test"], indices: IntVector) -> Logits:
    """Logits [n, C] of a whole model on training or test images; the workspace's model is then this model.

    Raises NumericsError where they are not finite.
    """
    space.load(payload)
    space.model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(indices), BLOCK):
            rows = indices[start : start + BLOCK]
            filled = np.resize(rows, BLOCK)  # rows once more: a short block could have other bits
            parts.append(space.suffix(0, space.images(source, filled))[: len(rows)].cpu().numpy())
    result = np.concatenate(parts)
    if not np.isfinite(result).all():
        raise NumericsError("the model to audit gives outputs that are not finite; its training diverged")
    return result


def log_probabilities(scores: Logits) -> Vector:
    """log p [n, C] in float64 from logits [n, C]."""
    return torch.log_softmax(torch.from_numpy(scores).double(), 1).numpy()


def forgotten(scenario: Scenario) -> IntVector:
    """D_u, all clients' together, ascending indices."""
    return np.sort(scenario.gone.indices)


def retained(scenario: Scenario) -> IntVector:
    """D_r, all clients' together, ascending indices."""
    return np.sort(scenario.retained.indices)
