"""Accuracy on the test views of a scenario, from predicted classes."""

from __future__ import annotations

import numpy as np

from fused_ray.types import IntVector, TestView

Metrics = dict[str, float]


def accuracies(views: dict[str, TestView], predictions: IntVector) -> Metrics:
    """Share of right predictions in each view, weighted by examples. `predictions` covers the whole test set [m]."""
    return {name: float(np.mean(predictions[view.indices] == view.labels)) for name, view in views.items()}


def mixed_accuracy(view: TestView, predictions: IntVector, classes: IntVector, counts: IntVector) -> float | None:
    """A view's accuracy reweighted to a client's own mix of classes; None where the client holds none of them.

    `classes` [m] are the test examples' true classes, `counts` [classes] the client's examples of each class.
    """
    true = classes[view.indices]
    size = np.bincount(true, minlength=len(counts))
    right = np.bincount(true, predictions[view.indices] == view.labels, minlength=len(counts))
    weight = np.where(size > 0, counts, 0)
    if not weight.sum():
        return None
    return float((weight * right / np.maximum(size, 1)).sum() / weight.sum())
