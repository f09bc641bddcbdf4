"""Accuracy on the views of a scenario, weighted by examples or by what the clients hold.

`fa` is the accuracy on what was to be forgotten. In the `sample` scenario with a trigger its view is the triggered
test images of all other classes, and the label that counts as right is the trigger's target, so that there `fa` *is*
the attack success rate (ASR).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fused_ray.core import metrics
from fused_ray.types import ImageData, IntVector, Scenario, TestView


@dataclass(frozen=True)
class Accuracy:
    """One view's accuracy, between 0 and 1."""

    weighted: float
    """Over the view's examples, each counting once."""
    macro: float | None
    """Over cells (client, class): the class's accuracy in the view, once for each client that holds the class."""


def accuracies(scenario: Scenario, predictions: IntVector) -> dict[str, Accuracy]:
    """Every view's accuracy from predicted classes [m]."""
    weighted = metrics.accuracies(scenario.views, predictions)
    return {name: Accuracy(weighted[name], _macro(scenario, name, predictions)) for name in scenario.views}


def client_accuracies(data: ImageData, scenario: Scenario, predictions: IntVector) -> dict[int, float]:
    """RA by client: the view's accuracy, each class weighing what it weighs among what the client keeps.

    Of clients that keep something of a class in the view. `predictions` are of all test images [m].
    """
    counts = scenario.retained.counts(data.train_labels, data.classes)
    found = metrics.mixed_accuracies(scenario.views["ra"], predictions, data.test_labels, counts)
    return {client: accuracy for client, accuracy in enumerate(found) if accuracy is not None}


def _macro(scenario: Scenario, name: str, predictions: IntVector) -> float | None:
    """The mean over the cells whose class the view has; None if there is no such cell.

    A client holds a class if it trains on an example with that label: one of D_u for `fa`, of D_r for every other view.
    """
    view = scenario.views[name]
    right = _per_class(view, predictions)
    labels = scenario.train_labels
    own = scenario.parts("forgotten" if name == "fa" else "retained")
    span = 1 + max(labels.max(initial=0), max(right, default=0))
    held = np.unique(own.owners * span + labels[own.indices]) % span
    share = np.full(span, np.nan)
    share[list(right)] = list(right.values())
    cells = share[held]
    cells = cells[~np.isnan(cells)]
    return float(np.mean(cells)) if len(cells) else None


def _per_class(view: TestView, predictions: IntVector) -> dict[int, float]:
    """For each label that counts as right somewhere in the view, the share of right predictions there."""
    hits = predictions[view.indices] == view.labels
    return {label: float(hits[view.labels == label].mean()) for label in np.unique(view.labels).tolist()}
