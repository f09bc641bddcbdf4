"""The gradient of a mean loss over some examples, in evaluation mode and index order, like the frozen prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.core import state
from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.types import FloatVector, IntVector

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits [batch, classes] and labels [batch] to the sum of the examples' losses."""


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The usual loss, summed over examples."""
    return F.cross_entropy(logits, labels, reduction="sum")


def log_odds(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What speaks against the labels: minus the log-odds of each against all other classes, summed over examples.

    Its gradient does not fade where a model is sure of an example, as that of cross-entropy does.
    """
    rows = labels[:, None]
    others = logits.scatter(1, rows, float("-inf")).logsumexp(1)
    return (others - logits.gather(1, rows)[:, 0]).sum()


def mean_gradient(
    space: Workspace, wanted: Sequence[nn.Parameter], indices: IntVector, loss: Loss = cross_entropy
) -> tuple[list[torch.Tensor], float]:
    """The gradient of the mean loss of training examples for some parameters of the working model, and that loss."""
    space.model.eval()
    sums = [torch.zeros_like(parameter) for parameter in wanted]
    total = 0.0
    with state.asking(space.model, wanted):
        for start in range(0, len(indices), BLOCK):
            rows = indices[start : start + BLOCK]
            part = loss(space.suffix(0, space.images("train", rows)), space.labels(rows))
            gradients = torch.autograd.grad(part, wanted, materialize_grads=True)  # it may use some of them only
            for summed, gradient in zip(sums, gradients, strict=True):
                summed += gradient
            total += part.item()
    return [summed / len(indices) for summed in sums], total / len(indices)


def model_gradient(space: Workspace, indices: IntVector, loss: Loss = cross_entropy) -> tuple[FloatVector, float]:
    """The same for all that learns, laid out like a payload's values [P], where buffers and frozen values read zero."""
    named = {name: parameter for name, parameter in space.model.named_parameters() if parameter.requires_grad}
    gradients, mean = mean_gradient(space, list(named.values()), indices, loss)
    by_name = dict(zip(named, gradients, strict=True))
    parts = [
        by_name.get(name, torch.zeros_like(tensor)).contiguous().reshape(-1).cpu().numpy()
        for name, tensor in sorted(space.model.state_dict().items())
        if tensor.is_floating_point()
    ]
    return np.concatenate(parts), mean
