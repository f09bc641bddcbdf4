"""Herding: few examples whose mean in feature space stays near that of all (Welling 2009; iCaRL, arXiv 1611.07725).

The features are what M_r gives its output layer. Each class has its share of the examples (largest remainders). Of a
class the next one is always that which brings the mean of the chosen nearest to the mean of all, so that a smaller
number begins a larger one. Ours: features are taken as they are, where iCaRL brings each to length 1.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fused_ray.core.workspace import BLOCK, Workspace
from fused_ray.errors import ConfigError
from fused_ray.models.anatomy import anatomy
from fused_ray.types import IntVector, Remaining, Scenario


def chosen(space: Workspace, some: Remaining, client: int) -> IntVector:
    """A client's examples, ascending: as many of D_r as the share says, and D_u where that is there as well.

    The model is left at its base.
    """
    return space.of_base((some, client), lambda: _chosen(space, some, client))


def _chosen(space: Workspace, some: Remaining, client: int) -> IntVector:
    scenario = space.scenario
    kept = scenario.examples("retained", client)
    layer = anatomy(space.config.model, space.data.shape, space.data.classes).output
    few = kept[:0]
    if len(kept):
        few = kept[herd(features(space, layer, kept), scenario.train_labels[kept], some.count(len(kept)))]
    return np.union1d(few, scenario.forgotten(client)) if some.forgotten else few


def counts(scenario: Scenario, some: Remaining, classes: int) -> IntVector:
    """Of how many examples of each class each client's choice is [clients, classes]: no features are asked for."""
    kept = scenario.retained.counts(scenario.train_labels, classes)
    few = np.array([apportioned(sizes, some.count(sizes.sum())) if sizes.any() else sizes for sizes in kept])
    return few + scenario.gone.counts(scenario.train_labels, classes) if some.forgotten else few


def features(space: Workspace, layer: str, rows: IntVector) -> NDArray[np.float64]:
    """What a layer is given for training examples, in evaluation mode [n, d]. The model is at its base.

    A few rows alone would have other bits, and an example must have the same features in whatever message it is. Raises
    ConfigError where the layer is not given a row for each example.
    """
    parts = [_given(space, layer, rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK)]
    return np.concatenate(parts)


def _given(space: Workspace, layer: str, rows: IntVector) -> NDArray[np.float64]:
    given: list[torch.Tensor] = []
    hook = space.model.get_submodule(layer).register_forward_pre_hook(lambda module, args: given.extend(args[:1]))
    x = space.padded(space.images("train", rows))
    try:
        with torch.no_grad():
            space.suffix(0, x)
    finally:
        hook.remove()
    if not given or len(given[-1]) != len(x):
        raise ConfigError(
            f"examples are known by what the layer {layer} is given, and {space.config.model.label} does not give it a "
            "row for each: take unlearn.retain_by=random, and another method than ridge"
        )
    return given[-1][: len(rows)].flatten(1).double().cpu().numpy()


def herd(features: NDArray[np.float64], labels: IntVector, count: int) -> IntVector:
    """The places, ascending [count], of examples with these features [n, d] and labels [n]."""
    classes, sizes = np.unique(labels, return_counts=True)
    places = [
        np.flatnonzero(labels == label)[herding_order(features[labels == label], int(number))]
        for label, number in zip(classes, apportioned(sizes, count), strict=True)
    ]
    return np.sort(np.concatenate(places))


def apportioned(sizes: IntVector, count: int) -> IntVector:
    """How many of each class, `count` in all: the whole parts of its share, then the largest remainders; of equal ones
    the first."""
    exact = count * sizes
    whole: IntVector = exact // sizes.sum()
    rest = exact % sizes.sum()
    whole[np.argsort(-rest, kind="stable")[: count - whole.sum()]] += 1
    return whole


def herding_order(features: NDArray[np.float64], count: int) -> IntVector:
    """The first `count` examples of one class in the order of herding; of equal ones the first."""
    mean, total = features.mean(0), np.zeros(features.shape[1])
    left, order = np.ones(len(features), bool), []
    for number in range(1, count + 1):
        distance = ((features - (number * mean - total)) ** 2).sum(1)
        distance[~left] = np.inf
        best = int(distance.argmin())
        order.append(best)
        left[best] = False
        total = total + features[best]
    return np.array(order, np.int64)
