"""Gradient opposition at M_r: does learning on D_r undo what D_u taught?

Overwriting, and so an adapter that starts at zero, relies on it: one step -eta * g_r changes the forgotten loss by
about -eta * |g_u| * |g_r| * Phi, where Phi is the cosine between the two mean gradients on the coordinates that are
free. Only where Phi is negative does training on what stays forget. Evaluation mode, index order, blocks of BLOCK.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.audit.outputs import Vector, forgotten, retained
from fused_ray.core.adapter import Masks
from fused_ray.core.layers import layer_parameters
from fused_ray.core.numerics import dot, norm
from fused_ray.core.state import asking
from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Payload

MOST = 10_000
"""Most examples of D_u, and of D_r, that the means are taken over; drawn from the seed."""
ETA = 0.01


@dataclass(frozen=True)
class Opposition:
    """The two gradients on some coordinates, and what a step along one of them does to the other's loss."""

    phi: float
    """Cosine between g_u and g_r; 0 where one of them vanishes."""
    g_u: float
    """Norm of the gradient of the mean loss on D_u."""
    g_r: float
    """Norm of the gradient of the mean loss on D_r."""
    predicted: float
    """Change of the mean loss on D_u by one step -eta * g_r, to first order."""
    measured: float
    """The change that the step makes."""


@dataclass(frozen=True)
class Gradients:
    """Mean gradients at a model over all parameters, in the model's order [P]."""

    sample: IntVector
    """The examples of D_u behind g_u."""
    loss: float
    """The mean loss on them."""
    g_u: Vector
    g_r: Vector


def gradients(space: Workspace, payload: Payload) -> Gradients:
    """Both mean gradients at a model."""
    gone, kept = (
        indices[np.sort(permutation(len(indices), space.config.seed, f"gradients/{name}")[:MOST])]
        for name, indices in (("forgotten", forgotten(space.scenario)), ("retained", retained(space.scenario)))
    )
    space.load(payload)
    loss, g_u = _mean_loss(space, gone)
    _, g_r = _mean_loss(space, kept)
    return Gradients(gone, loss, g_u, g_r)


def opposition(
    space: Workspace, payload: Payload, at: Gradients, masks: Masks | None = None, eta: float = ETA
) -> Opposition:
    """Gradient opposition at a model whose gradients are known, on the masks' entries or on all parameters."""
    space.load(payload)
    free = _positions(space.model, masks) if masks else np.arange(len(at.g_r))
    g_u, g_r = at.g_u[free], at.g_r[free]
    step = np.zeros_like(at.g_r)
    step[free] = -eta * g_r
    _add(space.model, step)
    after, _ = _mean_loss(space, at.sample, gradient=False)
    product, u, r = dot(g_u, g_r), norm(g_u), norm(g_r)
    return Opposition(product / (u * r) if u * r else 0.0, u, r, -eta * product, after - at.loss)


def _mean_loss(space: Workspace, indices: IntVector, gradient: bool = True) -> tuple[float, Vector]:
    """The mean loss on training examples, and its gradient over all parameters in the model's order (or zeros).

    Frozen ones have zeros, too: nothing that learns goes there.
    """
    space.model.eval()
    learned = [p for p in space.model.parameters() if p.requires_grad]
    sums = {p: torch.zeros_like(p, dtype=torch.float64) for p in space.model.parameters()}
    loss = 0.0
    with asking(space.model, learned if gradient else ()):
        for start in range(0, len(indices), BLOCK):
            rows = indices[start : start + BLOCK]
            part = F.cross_entropy(space.suffix(0, space.images("train", rows)), space.labels(rows), reduction="sum")
            if gradient:
                for p, slope in zip(learned, torch.autograd.grad(part, learned, materialize_grads=True), strict=True):
                    sums[p] += slope
            loss += part.item()
    return loss / len(indices), torch.cat([total.reshape(-1) for total in sums.values()]).cpu().numpy() / len(indices)


@torch.no_grad()
def _add(model: nn.Module, change: Vector) -> None:
    """Add a vector over all parameters, in the model's order, to the model."""
    at = 0
    for p in model.parameters():
        p.add_(torch.from_numpy(change[at : at + p.numel()]).to(p).reshape(p.shape))
        at += p.numel()


def _positions(model: nn.Module, masks: Masks) -> IntVector:
    """Where the masks' entries are among all parameters laid end to end in the model's order."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    return np.concatenate([_entries(sizes, starts, mask.layer)[mask.positions] for mask in masks.layers])


def _entries(sizes: Mapping[str, int], starts: Mapping[str, int], layer: str) -> IntVector:
    """Where a layer's entries are: its weight's, then its bias's."""
    names = layer_parameters(sizes, layer)
    return np.concatenate([np.arange(starts[name], starts[name] + sizes[name]) for name in names])
