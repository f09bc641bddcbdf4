"""The client that is served worst: by hand, and a model that leaves somebody behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fused_ray.audit.accuracy import client_accuracies
from fused_ray.audit.metrics.worst_client import fairness, most_lost
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.state import Arrays
from fused_ray.types import ImageData, Scenario
from fused_ray.types import TestView as View

WORST = METRICS["worst_client"]


def test_by_hand() -> None:
    """Class 0 is right, class 1 half; one client keeps class 0 alone, one has 1 and 3, one has neither."""
    images = np.zeros((6, 1, 2, 2), np.uint8)
    labels = np.array([0, 0, 1, 1, 1, 2])
    data = ImageData("own", 3, (0.5,), (0.5,), images, labels, images[:4], np.array([0, 0, 1, 1]))
    held = (np.array([0]), np.array([1, 2, 3, 4]), np.array([5]))
    views = {"ra": View(np.arange(4), np.array([0, 0, 1, 1]))}
    scenario = Scenario(held, held, labels, views, "")  # type: ignore[arg-type]
    assert client_accuracies(data, scenario, np.array([0, 0, 1, 0])) == {0: 1, 1: (1 * 1 + 3 * 0.5) / 4}


def test_fairness_and_who_lost_most_by_hand() -> None:
    assert fairness([0.1, -0.1, 0.3]) == pytest.approx(0.1333, abs=1e-4)  # the standard deviation would be .1633
    assert fairness([0.2, 0.2]) == 0
    assert most_lost({0: 0.9, 4: 0.5}, {0: 0.8, 4: 0.75}) == (4, 0.25)


def test_a_model_that_lost_a_class_fails_and_retraining_passes(yardstick: Yardstick, third: Arrays, ask: Any) -> None:
    silent = yardstick.before["fc3.bias"] - 100 * (np.arange(10) == 1)
    after = {**yardstick.before, "fc3.bias": silent.astype(np.float32)}
    found = ask(WORST, yardstick, after)
    assert found.passes is False
    assert found.figures["ra"] < found.figures["ra_retrained"] - 0.05
    assert found.said.startswith("a client pays for it: client ")
    control = ask(WORST, yardstick, yardstick.others[0])
    assert control.passes is True
    assert control.figures["lost"] == control.figures["lost_control"] or control.figures["lost_control"] == 0
    assert ask(WORST, yardstick, third).passes is True
    alone = ask(WORST, replace(yardstick, retrained=None, others=()), yardstick.before)
    assert (alone.passes, alone.figures["fairness"]) == (None, 0)
    uncontrolled = ask(WORST, replace(yardstick, others=()), after)
    assert (uncontrolled.passes, "lost_control" in uncontrolled.figures) == (None, False)
    assert uncontrolled.said.startswith("cannot tell without another retrained model: client ")
