"""ReA, how deep the forgetting is: how fast a model learns again what it was made to forget.

Every parameter is free, whatever the method froze. SGD at a small rate with momentum and without weight decay, batches
of 64, half of them from D_u and half from D_r with the labels that clients train on; normalisation layers work as in
training. A model that forgot in its last layer alone has everything back after a few steps, one that never knew takes
its time. FA is measured after each step on at most 500 examples; the curve is the mean of a few repeats, whose
batches are the same for every model.

Two readings: FA after a fixed number of steps (the paper's), and the steps to half of the FA before unlearning, which
may be a fraction, against those of a retrained model. The control trains the same way with D_u's labels shuffled:
what comes back there comes back by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fused_ray.audit.outputs import forgotten, retained
from fused_ray.core.sgd import SGD
from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.models import seeded
from fused_ray.seeding import derive, permutation
from fused_ray.types import IntVector, Payload

LR = 0.005
MOMENTUM = 0.9
HALF = 32
"""Examples of D_u, and as many of D_r, in a batch."""
STEPS = 40
REPEATS = 3
FIXED = 10
"""The step whose FA is the ReA."""
MEASURED = 500
"""Most examples that FA is measured on."""


@dataclass(frozen=True)
class Relearning:
    """How a model learns D_u again."""

    curve: tuple[float, ...]
    """FA before the first step and after each, mean over the repeats [steps + 1]."""
    accuracy: float
    """ReA: FA after FIXED steps, or after the last if there are fewer."""
    steps: float | None
    """Steps until FA is half of what it was before unlearning, between two steps by interpolation; None: not within
    those made."""

    @property
    def in_words(self) -> str:
        """The steps for people."""
        return f"more than {len(self.curve) - 1}" if self.steps is None else f"{self.steps:.1f}"


@dataclass(frozen=True)
class Ratio:
    """A ratio that is known, or lies between bounds."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.2f}"
        if self.low == 0:
            return "not known" if math.isinf(self.high) else f"at most {self.high:.2f}"
        return f"at least {self.low:.2f}"


def relearn(
    space: Workspace,
    payload: Payload,
    fa_before: float,
    steps: int = STEPS,
    repeats: int = REPEATS,
    shuffled: bool = False,
) -> Relearning:
    """Train a model on D_u again; `shuffled` is the control. `fa_before` is the FA of the model before unlearning."""
    labels = _shuffled(space) if shuffled else space.scenario.train_labels
    curve = np.mean([_curve(space, payload, labels, steps, repeat) for repeat in range(repeats)], axis=0).tolist()
    return Relearning(tuple(curve), curve[min(FIXED, steps)], steps_to(curve, fa_before / 2))


def ratio(unlearned: Relearning, retrained: Relearning) -> Ratio | None:
    """Steps to half of the old FA over the retrained model's, as bounds where one of them did not get there.

    Less than 1: knowledge was left behind. None where the retrained model is there from the start: that says nothing.
    """
    made = len(unlearned.curve) - 1
    if retrained.steps == 0:
        return None
    if unlearned.steps is None:
        return Ratio(0.0 if retrained.steps is None else made / retrained.steps, math.inf)
    if retrained.steps is None:
        return Ratio(0.0, unlearned.steps / made)
    return Ratio(unlearned.steps / retrained.steps, unlearned.steps / retrained.steps)


def steps_to(curve: Sequence[float], target: float) -> float | None:
    """Where a curve first reaches a value, linear between its points; None if it never does."""
    for step, value in enumerate(curve):
        if value >= target:
            return step - (value - target) / (value - curve[step - 1]) if step else 0.0
    return None


def _curve(space: Workspace, payload: Payload, labels: IntVector, steps: int, repeat: int) -> list[float]:
    x, y = _measured(space)
    old = _batches(space, forgotten(space.scenario), steps, f"relearn/forgotten/{repeat}")
    kept = _batches(space, retained(space.scenario), steps, f"relearn/retained/{repeat}")
    space.load(payload)
    optimiser = SGD([p for p in space.model.parameters() if p.requires_grad], lr=LR, momentum=MOMENTUM)
    curve = [_accuracy(space, x, y)]
    with seeded(derive(space.config.seed, f"relearn/dropout/{repeat}"), space.device):
        for rows in np.concatenate([old, kept], axis=1):
            space.model.train()
            target = torch.from_numpy(labels[rows]).to(space.device)
            loss = F.cross_entropy(space.suffix(0, space.images("train", rows)), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            curve.append(_accuracy(space, x, y))
    return curve


def _batches(space: Workspace, indices: IntVector, steps: int, purpose: str) -> IntVector:
    """Half batches [steps, HALF], drawn without repetition for as long as there are examples, then from anew."""
    passes = -(-steps * HALF // len(indices))
    orders = [indices[permutation(len(indices), space.config.seed, purpose, number)] for number in range(passes)]
    return np.concatenate(orders)[: steps * HALF].reshape(steps, HALF)


def _measured(space: Workspace) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and right labels of the examples of the view `fa` that the curve is measured on."""
    view = space.scenario.views["fa"]
    chosen = np.sort(permutation(len(view.indices), space.config.seed, "relearn/measured")[:MEASURED])
    return space.images("test", view.indices[chosen]), torch.from_numpy(view.labels[chosen]).to(space.device)


def _accuracy(space: Workspace, x: torch.Tensor, y: torch.Tensor) -> float:
    """The working model's accuracy in evaluation mode. Outputs that are not finite are never right."""
    space.model.eval()
    with torch.inference_mode():
        scores = torch.cat([space.suffix(0, part) for part in x.split(BLOCK)])
        return ((scores.argmax(1) == y) & scores.isfinite().all(1)).double().mean().item()


def _shuffled(space: Workspace) -> IntVector:
    """Training labels [n] in which D_u has those of as many random examples of all that clients hold.

    Shuffled among themselves they would often stay as they are: all of D_u may be one class.
    """
    scenario = space.scenario
    labels, old, everything = scenario.train_labels.copy(), forgotten(scenario), scenario.held.indices
    drawn = permutation(len(everything), space.config.seed, "relearn/shuffled")[: len(old)]
    labels[old] = scenario.train_labels[everything[drawn]]
    return labels
