"""IDI, how deep the forgetting goes: what the stages inside a model still say about what was forgotten.

The information difference index (arXiv 2405.17878) with linear probes. Y is what is forgotten: whether an image is of a
forgotten class (`class`; `exclusive`: of the class that the owner alone held), or has the trigger, on the same images
with and without it (`sample`). In `client`, and in `sample` without a trigger, nothing in an image says that it must be
forgotten, and the index does not apply.

The information that a stage has of Y is H(Y) - CE in nats: the entropy of Y on the images scored, less the
cross-entropy there of a probe of the stage's output. That is at most what the stage knows, and held out, so that a
probe that learned noise is below 0. Y has its natural share, nothing is weighed; with the trigger that is one half.

A good encoder tells any class apart, also one that it never saw. So retrained models are the zero (their mean, where
there are several), and the model before is the one: index = (after - retrained) / (before - retrained), differences of
information summed over the stages where the model before has more than retrained ones in the mean over the draws. The
same stages count for every model, and a stage where the model after has less counts with its negative difference.

Each draw fits on half of the training images, at most MOST_FITTED, and scores on half of the test images, at most
MOST_SCORED, both drawn from the seed with Y's share kept. So the draws differ as much as such estimates do: the
standard deviation over halves is about that of the mean over the whole. In the control Y is shuffled among the images,
and there is nothing to find. It is shown, not taken off: it is below 0, by what fitting noise costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from fused_ray.audit.outputs import Vector
from fused_ray.audit.probes import Pixels, below, fitted, stage_outputs
from fused_ray.core.workspace import Workspace
from fused_ray.data.scenarios import stamped
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Payload

MOST_FITTED = 8_000
MOST_SCORED = 4_000
DEVIATIONS = 4.0
"""The index is told if its denominator exceeds so many standard deviations over the draws."""
SEEDS, FLOORS = 3, 2.0
"""With so many retrained models or more, it must also exceed so many standard deviations over them."""

Truth = NDArray[np.bool_]
Sample = tuple[Pixels, Truth]
"""Images [n, channels, height, width] and Y [n]."""


@dataclass(frozen=True)
class Information:
    """What one model's stages say about Y."""

    names: tuple[str, ...]
    """Of the stages, from the input on: the last layer of each, or its number if it has none."""
    entropy: float
    """H(Y) on the images scored, nats."""
    stages: tuple[tuple[float, ...], ...]
    """H(Y) - held-out cross-entropy, nats [draws][stages]."""
    shuffled: tuple[tuple[float, ...], ...]
    """The same for a Y that is shuffled among the images."""


@dataclass(frozen=True)
class Index:
    """How much more than a retrained model's stages those of a model say, as a share of what was more before."""

    value: float | None
    """1: all is still there; 0: no more than in retrained models; below: less. None where it cannot be told."""
    told: bool
    why: str = ""
    """Why it is not told."""
    stages: tuple[str, ...] = ()
    """The names of those that count."""
    denominator: float | None = None
    """Information of the model before above the retrained one's, nats."""
    spread: float | None = None
    """Standard deviation of the denominator over the draws."""
    floor: float | None = None
    """Standard deviation of the retrained models' information; None with fewer than SEEDS of them."""
    draws: tuple[float, ...] = ()
    """The value's terms; it is their mean."""


def inapplicable(space: Workspace) -> str:
    """Why there is no index in the workspace's scenario or of its model; empty where there is one."""
    if not space.scenario.classes and not space.scenario.trigger:
        if space.config.kind == "client":
            return "does not apply: nothing in an image says whose it is"
        return "does not apply: nothing in an image says that it must be forgotten"
    if not below(space):
        return "does not apply: the model cannot be cut below its output layer"
    return ""


def information(space: Workspace, payload: Payload, draws: int = 5) -> Information | None:
    """What a model's stages say about Y; None where the index is inapplicable. The draws are the same for all models.

    Raises NumericsError where activations are not finite.
    """
    assert draws > 1, "one draw has no spread"
    if inapplicable(space):
        return None
    space.load(payload)
    gains: list[tuple[float, ...]] = []
    control: list[tuple[float, ...]] = []
    for draw in range(draws):
        (pixels, y), (tested, truth) = samples(space, draw)
        pairs = list(zip(stage_outputs(space, pixels), stage_outputs(space, tested), strict=True))
        gains.append(tuple(gain(fitted(x, y).log_odds(t), truth) for x, t in pairs))
        y, truth = (one[permutation(len(one), space.config.seed, f"information/shuffled/{draw}")] for one in (y, truth))
        control.append(tuple(gain(fitted(x, y).log_odds(t), truth) for x, t in pairs))
    names = tuple((stage.layers or (str(number),))[-1] for number, stage in enumerate(below(space)))
    return Information(names, entropy(truth), tuple(gains), tuple(control))


def index(before: Information, retrained: Sequence[Information], after: Information) -> Index:
    """The index of a model. Zero is the mean of the retrained ones, who also say how far such models differ."""
    zero = np.mean([model.stages for model in retrained], axis=0)
    above = np.array(before.stages) - zero
    counted = above.mean(0) > 0
    names = tuple(compress(before.names, counted))
    denominators = above[:, counted].sum(1)
    denominator, spread = float(denominators.mean()), float(denominators.std(ddof=1))
    floor = None
    if len(retrained) >= SEEDS:
        floor = float(np.std([np.mean(r.stages, axis=0)[counted].sum() for r in retrained], ddof=1))
    why = ""
    if not names:
        why = "no stage of the model before says more than the retrained model's"
    elif denominator <= DEVIATIONS * spread:
        why = (
            f"the denominator, {denominator:.4f} nats, does not exceed {DEVIATIONS:g} standard deviations over the "
            f"draws, {DEVIATIONS * spread:.4f}"
        )
    elif floor is not None and denominator <= FLOORS * floor:
        why = (
            f"the denominator, {denominator:.4f} nats, does not exceed {FLOORS:g} standard deviations over "
            f"{len(retrained)} retrained models, {FLOORS * floor:.4f}"
        )
    if why:
        return Index(None, False, f"cannot be told: {why}", names, denominator, spread, floor)
    left = (np.array(after.stages) - zero)[:, counted].sum(1)
    value, terms = float(left.mean()) / denominator, tuple((left / denominator).tolist())
    return Index(value, True, "", names, denominator, spread, floor, terms)


def gain(scores: Vector, y: Truth) -> float:
    """H(Y) - cross-entropy of log odds [n] on the truth [n], nats.

    For a binary Y this is InfoNCE with critics s_1, s_0 too: the log odds are s_1 - s_0 + log(share / (1 - share)).
    """
    return entropy(y) - float(np.logaddexp(0.0, np.where(y, -scores, scores)).mean())


def entropy(y: Truth) -> float:
    """H(Y) of a truth [n] that has both values, nats."""
    share = float(y.mean())
    return -share * float(np.log(share)) - (1 - share) * float(np.log(1 - share))


def samples(space: Workspace, draw: int) -> tuple[Sample, Sample]:
    """What a draw's probes are fitted on, training images, and what they are scored on, test images."""
    data, scenario = space.data, space.scenario
    # the pixels under a poisoned image's trigger are lost; behind the test set stand its images with the trigger
    train = np.setdiff1d(scenario.held.indices, scenario.poisoned)
    test = scenario.views["ra"].indices if scenario.trigger else np.arange(len(data.test_labels))
    return (
        _sample(space, f"fitted/{draw}", data.train_images, data.train_labels, train, MOST_FITTED),
        _sample(space, f"scored/{draw}", data.test_images, data.test_labels, test, MOST_SCORED),
    )


def _sample(space: Workspace, purpose: str, images: Pixels, labels: IntVector, indices: IntVector, most: int) -> Sample:
    seed, trigger = space.config.seed, space.scenario.trigger
    if trigger:
        plain = images[_half(indices, np.zeros(len(indices), bool), most // 2, seed, purpose)]
        return np.concatenate([plain, stamped(plain, trigger)]), np.arange(2 * len(plain)) >= len(plain)
    y = np.isin(labels, space.scenario.classes)
    chosen = _half(indices, y[indices], most, seed, purpose)
    return images[chosen], y[chosen]


def _half(indices: IntVector, y: Truth, most: int, seed: int, purpose: str) -> IntVector:
    """Half of the indices, at most `most`, with Y's share and at least one of each value; ascending."""
    most, parts = min(most, len(indices) // 2), []
    for value in (False, True):
        side = indices[y == value]
        order = permutation(len(side), seed, f"information/{purpose}/{value:d}")
        parts.append(side[order[: max(1, len(side) * most // len(indices))]])
    return np.sort(np.concatenate(parts))
