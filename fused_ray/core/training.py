"""One client's local training. The same functions run in the plain loop and in Ray actors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fused_ray.config import TrainConfig
from fused_ray.core.adapter import Attached
from fused_ray.core.augment import Draws
from fused_ray.core.state import asking
from fused_ray.core.workspace import Workspace
from fused_ray.seeding import permutation
from fused_ray.types import IntVector


@dataclass(frozen=True)
class AdapterStep:
    """The hyper-parameters of a step on an adapter's values."""

    lr: float
    momentum: float
    weight_decay: float


def batches(examples: int, train: TrainConfig, seed: int, phase: str, round: int, client: int) -> Iterator[IntVector]:
    """Positions among a client's examples, batch after batch, shuffled anew each epoch; the last may be short."""
    each = -(-examples // train.batch_size)
    for step in range(train.steps(examples)):
        if step % each == 0:
            order = permutation(examples, seed, f"shuffle/{phase}/{step // each}", round, client)
        start = step % each * train.batch_size
        yield order[start : start + train.batch_size]


def train_model(
    space: Workspace, train: TrainConfig, indices: IntVector, order: Iterator[IntVector], draws: Draws | None = None
) -> float:
    """Steps on the working model's free parameters, in place, by a fresh `train.optimiser`. Returns the mean loss an
    example.

    With `train.proximal` mu, mu (w - w_0) is added to the gradient, w_0 being the model as it was: FedProx (Li et al.
    2020, arXiv 1812.06127). The loss that is returned is that of the data alone.

    `draws` has a number for each time that an example is shown, if `data.augment` is to make a random view of it.

    A batch of one example is run in evaluation mode: it has no statistics that BatchNorm could normalise by.
    """
    model = space.model
    free = [parameter for parameter in model.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in free] if train.proximal else []
    part, settings = train.optimiser_part
    optimiser = part.function(free, train, settings)
    total, seen = torch.zeros((), device=space.device), 0
    for positions in order:
        rows = indices[positions]
        model.train(len(rows) > 1)
        shown = None if draws is None else draws[seen : seen + len(rows)]
        loss = F.cross_entropy(space.suffix(0, space.images("train", rows, shown)), space.labels(rows))
        optimiser.zero_grad()
        loss.backward()
        for parameter, anchor in zip(free, start, strict=False):  # none without a proximal term
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=train.proximal)
        optimiser.step()
        total += loss.detach() * len(rows)
        seen += len(rows)
    return total.item() / seen


def train_adapter(
    space: Workspace,
    step: AdapterStep,
    adapter: Attached,
    theta: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    cut: int,
    order: Iterator[IntVector],
) -> tuple[torch.Tensor, float]:
    """SGD with momentum on the adapter's values alone, over activations `x` of the frozen prefix; theta [V] in place.

    The model stays in evaluation mode, so that running statistics do not move. Weight decay pulls the values, not the
    weights, towards zero. Returns the values [V] and the mean loss an example.
    """
    velocity = torch.zeros_like(theta)
    total, seen = torch.zeros((), device=space.device), 0
    with asking(space.model, adapter.parameters):
        for positions in order:
            rows = torch.from_numpy(positions).to(space.device)
            loss = F.cross_entropy(space.suffix(cut, x.index_select(0, rows)), y.index_select(0, rows))
            gradient = adapter.gradient(theta, torch.autograd.grad(loss, adapter.parameters, materialize_grads=True))
            if step.weight_decay:
                gradient += step.weight_decay * adapter.values(theta)
            velocity.mul_(step.momentum).add_(gradient)
            theta.sub_(velocity, alpha=step.lr)
            adapter.write(theta)
            total += loss.detach() * len(rows)
            seen += len(rows)
    return adapter.values(theta), total.item() / seen
