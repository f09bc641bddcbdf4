"""Accuracies by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fused_ray.config import DataConfig, RunConfig
from fused_ray.core.metrics import accuracies, halves, mixed_accuracies
from fused_ray.data import datasets, scenarios
from fused_ray.types import Scenario
from fused_ray.types import TestView as View


def mixed_accuracy(view, predictions, classes, counts):
    [one] = mixed_accuracies(view, predictions, classes, counts[np.newaxis])
    return one


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


@pytest.mark.parametrize("classes", [3, 7, 8, 9, 100, 1001])
def test_each_clients_accuracy_is_the_same_bits_as_if_it_were_alone(classes):
    random = np.random.default_rng(classes)
    true, predicted = random.integers(0, classes, (2, 5 * classes))
    predicted = np.where(random.random(len(true)) < 0.7, true, predicted)
    counts = random.integers(0, 30, (20, classes)) * (random.random((20, classes)) < 0.5)
    counts[4] = 0
    view = View(np.arange(len(true)), true)
    size = np.bincount(true, minlength=classes)
    right = np.bincount(true, predicted == true, minlength=classes)
    expected = [
        float((own * right / np.maximum(size, 1)).sum() / own.sum()) if own.sum() else None
        for own in np.where(size > 0, counts, 0)
    ]
    assert mixed_accuracies(view, predicted, true, counts) == expected
    assert None in expected


# -- halves


def scenario(trigger=0, **views):
    none = (np.arange(0),)
    return Scenario(none, none, np.arange(0), views, "", trigger=trigger)


def test_halves_are_shared_out_class_by_class():
    """Nine images of three classes: two, three and four; the odd one goes to the half that chooses."""
    classes = np.array([2, 0, 1, 2, 0, 1, 2, 1, 2])
    found = halves(scenario(ra=View(np.arange(9), classes)), classes, 0)
    choose, report = (found[f"ra_{half}"] for half in ("choose", "report"))
    assert sorted([*choose.indices, *report.indices]) == list(range(9))
    assert np.bincount(choose.labels).tolist() == [1, 2, 2]
    assert np.bincount(report.labels).tolist() == [1, 1, 2]
    assert np.array_equal(choose.labels, classes[choose.indices])


def test_halves_depend_on_the_seed_alone():
    classes = np.arange(40) % 4
    made = scenario(ra=View(np.arange(40), classes))
    first, again, other = (halves(made, classes, seed)["ra_choose"].indices.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_a_view_of_one_image_has_it_in_both_halves():
    found = halves(scenario(ra=View(np.array([0, 1]), np.array([0, 0])), fa=View(np.array([2]), np.array([1]))),
                   np.array([0, 0, 1]), 0)  # fmt: skip
    assert [found[f"fa_{half}"].indices.tolist() for half in ("choose", "report")] == [[2], [2]]
    assert sorted(found[f"ra_{half}"].indices.tolist() for half in ("choose", "report")) == [[0], [1]]


@pytest.mark.parametrize(
    "overrides",
    [
        ["forget.scenario=class"],
        ["forget.scenario=exclusive"],
        ["forget.scenario=client", "forget.clients=[1]"],
        ["forget.scenario=client", "forget.clients=[1]", "forget.poison=false"],
        ["forget.scenario=sample"],
        ["forget.scenario=sample", "forget.poison=false"],
    ],
    ids=" ".join,
)
def test_no_image_is_in_both_halves_of_whatever_views(overrides):
    config = RunConfig.from_dict({"data": {"limit": 300}, "federation": {"clients": 3}, "seed": 5}, overrides)
    data = datasets.load(DataConfig(limit=300), seed=5)
    made = scenarios.build(config, data)
    data = scenarios.extended(config, data, made)
    found = halves(made, data.test_labels, config.seed)
    image = np.arange(len(data.test_labels))
    if made.trigger:
        image %= len(image) // 2
    seen = {half: set() for half in ("choose", "report")}
    for name, view in made.views.items():
        parts = [found[f"{name}_{half}"] for half in seen]
        assert sorted([*parts[0].indices, *parts[1].indices]) == view.indices.tolist()
        for half, part in zip(seen, parts, strict=True):
            seen[half] |= set(image[part.indices].tolist())
        assert np.array_equal(np.sort([*parts[0].labels, *parts[1].labels]), np.sort(view.labels))
        counts = [np.bincount(data.test_labels[part.indices], minlength=10) for part in parts]
        assert abs(counts[0] - counts[1]).max() <= 1
        assert abs(len(parts[0].indices) - len(parts[1].indices)) <= 1
    assert not seen["choose"] & seen["report"]
