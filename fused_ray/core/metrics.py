"""Accuracy on the test views of a scenario and on their halves, from predicted classes.

Who tries many settings chooses by one half of the test set and reports on the other: figures that a choice was made by
flatter what was chosen.
"""

from __future__ import annotations

import numpy as np

from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Scenario, TestView

Metrics = dict[str, float]
HALVES = {
    "choose": "the half of the test set that a sweep chooses by",
    "report": "the other half, whose figures it reports",
}
"""What the names of the halves' metrics end with, and what they are for."""


def halves(scenario: Scenario, classes: IntVector, seed: int) -> dict[str, TestView]:
    """Two disjoint halves of each view, `ra_choose` and `ra_report` of `ra`, drawn from the seed.

    `classes` [m] are the test examples' true classes. An image is in the same half of all views that show it, with the
    trigger or without, so that one half tells nothing about the other. Images in the same views and of the same class
    are shared out evenly, to within one. A view of one image has it in both halves.
    """
    count = len(classes) // 2 if scenario.trigger else len(classes)  # behind the images are their triggered copies
    image = np.arange(len(classes)) % count
    shown = np.zeros(count, np.int64)
    for bit, view in enumerate(scenario.views.values()):
        shown[image[view.indices]] |= 1 << bit
    order = np.lexsort((permutation(count, seed, "halves"), classes[:count], shown))
    second = np.zeros(count, np.int64)
    second[order[1::2]] = 1
    parts = {}
    for name, view in scenario.views.items():
        for number, half in enumerate(HALVES):
            inside = second[image[view.indices]] == number
            part = TestView(view.indices[inside], view.labels[inside])
            parts[f"{name}_{half}"] = part if inside.any() else view
    return parts


def accuracies(views: dict[str, TestView], predictions: IntVector) -> Metrics:
    """Share of right predictions in each view, weighted by examples. `predictions` covers the whole test set [m]."""
    return {name: float(np.mean(predictions[view.indices] == view.labels)) for name, view in views.items()}


def mixed_accuracies(
    view: TestView, predictions: IntVector, classes: IntVector, counts: IntVector
) -> list[float | None]:
    """A view's accuracy reweighted to each client's own mix of classes; None where a client holds none of them.

    `classes` [m] are the test examples' true classes, `counts` [clients, classes] the clients' examples of each class.
    """
    true = classes[view.indices]
    size = np.bincount(true, minlength=counts.shape[1])
    right = np.bincount(true, predictions[view.indices] == view.labels, minlength=counts.shape[1])
    weight = np.where(size > 0, counts, 0)
    whole = weight.sum(axis=1)
    share = (weight * right / np.maximum(size, 1)).sum(axis=1) / np.maximum(whole, 1)
    return [one if there else None for one, there in zip(share.tolist(), whole.tolist(), strict=True)]
