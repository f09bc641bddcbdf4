"""Accuracies by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fused_ray.core.metrics import accuracies, mixed_accuracy
from fused_ray.types import TestView as View

CLASSES = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 2])
EVERYTHING = View(np.arange(7), CLASSES)


def test_a_metric_is_the_share_of_right_predictions_in_its_view():
    views = {
        "ra": View(np.array([4, 5, 6]), np.array([1, 1, 2])),
        "fa": View(np.array([0, 1, 2, 3]), np.array([0, 0, 0, 0])),
        "flipped": View(np.array([3, 6]), np.array([1, 0])),
    }
    assert accuracies(views, PREDICTED) == {"ra": pytest.approx(2 / 3), "fa": 0.75, "flipped": 0.5}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([10, 0, 0], 0.75),
        ([0, 10, 0], 0.5),
        ([0, 0, 5], 1.0),
        ([30, 10, 0], (30 * 0.75 + 10 * 0.5) / 40),
        ([1, 1, 2], (0.75 + 0.5 + 2) / 4),
        ([4, 2, 1], 5 / 7),
    ],
)
def test_a_clients_accuracy_weights_the_classes_as_the_client_holds_them(counts, expected):
    assert mixed_accuracy(EVERYTHING, PREDICTED, CLASSES, np.array(counts)) == pytest.approx(expected)


def test_classes_outside_the_view_do_not_count():
    view = View(np.array([0, 3, 4]), np.array([0, 0, 1]))
    assert mixed_accuracy(view, PREDICTED, CLASSES, np.array([1, 1, 98])) == pytest.approx((0.5 + 1) / 2)


def test_a_client_without_examples_of_the_views_classes_has_no_accuracy():
    view = View(np.array([0, 1]), np.array([0, 0]))
    assert mixed_accuracy(view, PREDICTED, CLASSES, np.array([0, 7, 7])) is None
    assert mixed_accuracy(EVERYTHING, PREDICTED, CLASSES, np.zeros(3, np.int64)) is None


def test_a_view_whose_right_labels_are_not_the_true_classes_groups_by_the_true_ones():
    view = View(np.array([3, 5]), np.array([1, 0]))  # flipped labels: both predictions are right
    assert mixed_accuracy(view, PREDICTED, CLASSES, np.array([1, 3, 0])) == 1.0
