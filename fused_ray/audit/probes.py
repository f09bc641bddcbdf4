"""Linear probes: what can be read off the inside of a model by one linear layer, and the head recovery.

A probe is logistic regression on standardised features, which are a stage's flattened output. It is convex, so that it
has no seed and needs no tuning: what it finds is in the features, and it finds the same each time.

Standardised features are clipped to LIMIT. A unit that two of eight thousand images rouse a little, and a test image
rouses more, is else off by hundreds of thousands of standard deviations there, and spoils a perfect probe.

n images, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fused_ray.audit.outputs import Vector, forgotten
from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.errors import NumericsError
from fused_ray.models import Stage, anatomy
from fused_ray.seeding import derive, permutation
from fused_ray.types import IntVector, Payload

Features = NDArray[np.float32]
Pixels = NDArray[Any]
"""Images uint8 [n, channels, height, width], or other inputs float32 [n, ...]."""

C = 0.1
"""Inverse strength of the L2 penalty, in scikit-learn's units."""
ITERATIONS = 1_000
"""Of L-BFGS, at most; a probe of LeNet takes about a hundred."""
LIMIT = 10.0
"""Standard deviations."""
WIDE, NARROW = 4_096, 1_024
"""Wider features, as those of a ResNet, are reduced to so many sparse random sums of them (Li et al. 2006)."""
HEAD_SHARE = 0.02
"""Of the training data: what a new head is fitted on."""


@dataclass(frozen=True)
class Recovery:
    """How well a new output layer finds what was forgotten in what the layers below it say."""

    accuracy: float
    """FA with the new layer, mean over the draws."""
    draws: tuple[float, ...]


@dataclass(frozen=True)
class Probe:
    """A fitted one: a StandardScaler and a LogisticRegression, or a DummyClassifier where y has one value."""

    scaler: Any
    layer: Any

    def log_odds(self, x: Features) -> Vector:
        """Of the second value of a binary y, [n]."""
        with _one_thread():
            return np.asarray(self.layer.decision_function(_standardised(self.scaler, x)), np.float64)

    def classes(self, x: Features) -> IntVector:
        """The likeliest values of y, [n]."""
        with _one_thread():
            return np.asarray(self.layer.predict(_standardised(self.scaler, x)))


def head_recovery(space: Workspace, payload: Payload, draws: int = 5) -> Recovery:
    """Fit a new logistic output layer on 2% of the training data, D_u included, and measure FA (arXiv 2405.17878).

    The features are the input of the output layer, and the labels those that clients train on. Each draw takes 2%,
    rounded up, of every label's examples in D_u and of those in D_r: every label that there is takes part, and what is
    forgotten has its share. To be held against the same figure of a retrained model, which learns something too.

    Raises NumericsError where the features are not finite.
    """
    data, scenario, view = space.data, space.scenario, space.scenario.views["fa"]
    space.load(payload)
    with penultimate(space) as features:
        x = features(data.test_images[view.indices])
        accuracies = []
        for draw in range(draws):
            rows = two_percent(space, draw)
            head = fitted(features(data.train_images[rows]), scenario.train_labels[rows])
            accuracies.append(float(np.mean(head.classes(x) == view.labels)))
    return Recovery(float(np.mean(accuracies)), tuple(accuracies))


def output_layer(space: Workspace) -> str:
    """The name of the last layer that the logits depend on."""
    return anatomy.anatomy(space.config.model, space.data.shape, space.data.classes).output


def below(space: Workspace) -> list[Stage]:
    """The model's stages below the one with the output layer; none if the model is not cut into stages."""
    return space.stages[: space.cut([output_layer(space)])]


def stage_outputs(space: Workspace, pixels: Pixels) -> list[Features]:
    """What every stage of the working model below its output layer says about images, [n, F] each.

    Raises NumericsError where it is not finite.
    """
    stages = below(space)

    def run(x: torch.Tensor) -> Iterator[torch.Tensor]:
        for stage in stages:
            x = stage.forward(x)
            yield x

    return _features(space, pixels, run)


def fitted(x: Features, y: NDArray[Any]) -> Probe:
    """A probe that tells y [n] from x [n, F]."""
    # scikit-learn takes longer to import than PyTorch; a run that audits nothing does without
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    layer = LogisticRegression(C=C, max_iter=ITERATIONS) if len(np.unique(y)) > 1 else DummyClassifier()
    with _one_thread():
        return Probe(scaler, layer.fit(_standardised(scaler, x), y))


def _standardised(scaler: Any, x: Features) -> Features:
    standardised: Features = scaler.transform(x)
    return standardised.clip(-LIMIT, LIMIT)


def _one_thread() -> AbstractContextManager[Any]:
    """BLAS adds up in another order with another number of threads."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


@contextmanager
def penultimate(space: Workspace) -> Iterator[Callable[[Pixels], Features]]:
    """Inside, a function from images to what the working model's output layer is given, [n, F].

    Where that layer has no row for each image, or is never called because its parent reads its weights, it is what the
    parent is given, and so on outwards; the model itself is given the images.
    """
    parts = output_layer(space).split(".")
    given: dict[int, torch.Tensor] = {}

    def hook(depth: int) -> Callable[..., None]:
        def see(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for x in (*args, *kwargs.values()):
                if isinstance(x, torch.Tensor) and x.shape[:1] == (BLOCK,):
                    given[depth] = x

        return see

    def run(x: torch.Tensor) -> Iterator[torch.Tensor]:
        space.model(x)
        yield given[max(given)]

    modules = [space.model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts) + 1)]
    hooks = [m.register_forward_pre_hook(hook(depth), with_kwargs=True) for depth, m in enumerate(modules)]
    try:
        yield lambda pixels: _features(space, pixels, run)[0]
    finally:
        for handle in hooks:
            handle.remove()


def _features(
    space: Workspace, pixels: Pixels, run: Callable[[torch.Tensor], Iterator[torch.Tensor]]
) -> list[Features]:
    """What `run` yields on images, each flattened and, where it is WIDE, reduced."""
    space.model.eval()
    blocks: list[list[Features]] = []
    with torch.inference_mode():
        for start in range(0, len(pixels), BLOCK):
            part = pixels[start : start + BLOCK]
            filled = np.resize(part, (BLOCK, *part.shape[1:]))  # rows once more: a short block could have other bits
            features = (x.flatten(1)[: len(part)].cpu().numpy() for x in run(space.normalised(filled)))
            blocks.append([_reduced(x, space.config.seed) for x in features])
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def _reduced(x: Features, seed: int) -> Features:
    if not np.isfinite(x).all():
        raise NumericsError("the model to audit has activations that are not finite; its training diverged")
    if x.shape[1] <= WIDE:
        return x
    reduced: Features = _projection(x.shape[1], seed).transform(x)
    return reduced


@lru_cache(maxsize=16)
def _projection(width: int, seed: int) -> Any:
    """The same for every model, so that equal stages stay equal."""
    from sklearn.random_projection import SparseRandomProjection

    state = derive(seed, f"probes/projection/{width}") % 2**32
    return SparseRandomProjection(NARROW, random_state=state).fit(np.zeros((1, width), np.float32))


def two_percent(space: Workspace, draw: int) -> IntVector:
    """The training examples that a draw's new head is fitted on, ascending."""
    scenario = space.scenario
    everything = scenario.held.indices
    kinds = 2 * scenario.train_labels[everything] + np.isin(everything, forgotten(scenario))
    parts = []
    for kind in np.unique(kinds).tolist():
        some = everything[kinds == kind]
        order = permutation(len(some), space.config.seed, f"probes/head/{kind}", client=draw)
        parts.append(some[order[: math.ceil(HEAD_SHARE * len(some))]])
    return np.sort(np.concatenate(parts))
