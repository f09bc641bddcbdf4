"""A linear model at zero, whose gradients can be written down.

With two classes every probability is 1/2. An example x of class 0 has the gradient (-x, x) / 2 in the two rows of the
weight and (-1, 1) / 2 in the bias, one of class 1 the opposite.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fused_ray.audit.gradients import Opposition, gradients, opposition
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import RunConfig
from fused_ray.core.adapter import Mask, Masks
from fused_ray.core.state import read
from fused_ray.core.workspace import Workspace
from fused_ray.models import anatomy
from fused_ray.types import ImageData, Payload, Scenario

ETA = 0.01


@pytest.fixture
def space() -> Workspace:
    """D_u is the image (3, 4, 0, ...) of class 0, D_r (4, 3, 0, ...) of class 1."""
    images = np.zeros((2, 1, 28, 28), np.uint8)
    images[0, 0, 0, :2], images[1, 0, 0, :2] = (3, 4), (4, 3)
    labels = np.array([0, 1])
    data = ImageData("two", 2, (0.0,), (1 / 255,), images, labels, images, labels)
    held = (np.array([0, 1]),)
    scenario = Scenario(held, (np.array([1]),), labels, {}, "")
    result = Workspace(RunConfig(), data, scenario)
    result.model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    result.stages = anatomy.stages(result.model, (1, 28, 28))
    return result


def at_zero(space: Workspace, masks: Masks | None = None) -> Opposition:
    payload = Payload(np.zeros_like(read(space.model).values))
    return opposition(space, payload, gradients(space, payload), masks, ETA)


def test_by_hand(space: Workspace) -> None:
    found = at_zero(space)
    # x_u . x_r = 24, |x|^2 = 25, and 1 more for the bias; both rows count
    assert found.phi == pytest.approx(-25 / 26)
    assert found.g_u == pytest.approx(math.sqrt(2 * 26 / 4))
    assert found.g_r == pytest.approx(math.sqrt(2 * 26 / 4))
    assert found.predicted == pytest.approx(ETA * 2 * 25 / 4)
    # the step takes eta * 25 from the logit difference
    assert found.measured == pytest.approx(math.log1p(math.exp(ETA * 25)) - math.log(2), rel=1e-5)


def test_on_masked_entries(space: Workspace) -> None:
    """The first weight of row 0, and both biases."""
    masks = Masks((Mask("1", 2 * 784 + 2, np.array([0, 1568, 1569])),))
    found = at_zero(space, masks)
    u, r = np.array([-3, -1, 1]) / 2, np.array([4, 1, -1]) / 2
    assert found.phi == pytest.approx(u @ r / np.linalg.norm(u) / np.linalg.norm(r))
    assert found.g_u == pytest.approx(np.linalg.norm(u))
    assert found.g_r == pytest.approx(np.linalg.norm(r))
    assert found.predicted == pytest.approx(-ETA * u @ r)
    # row 0 gives eta * 2 * 3 for the weight and eta / 2 for the bias, row 1 another eta / 2
    assert found.measured == pytest.approx(math.log1p(math.exp(ETA * 7)) - math.log(2), rel=1e-5)


def test_an_entry_without_gradient(space: Workspace) -> None:
    masks = Masks((Mask("1", 2 * 784 + 2, np.array([100])),))  # its pixel is black
    found = at_zero(space, masks)
    assert (found.phi, found.g_u, found.predicted, found.measured) == (0.0, 0.0, 0.0, 0.0)


def test_parameters_that_are_not_used_have_no_gradient(space: Workspace) -> None:
    space.model.register_parameter("aside", nn.Parameter(torch.ones(3)))
    assert at_zero(space).g_u == pytest.approx(at_zero(space, Masks((Mask("1", 1570, np.arange(1570)),))).g_u)


def test_the_prediction_holds_on_a_network(yardstick: Yardstick) -> None:
    """Convolutions and channels-last weights: a wrong order of entries would not predict the change."""
    conv = Masks((Mask("conv2", 16 * 6 * 25 + 16, np.arange(0, 2416, 3)),))
    for masks in (None, conv):
        found = yardstick.opposition(masks)
        assert found.g_u > 0
        assert found.g_r > 0
        assert found.measured == pytest.approx(found.predicted, rel=0.1)
        assert found.predicted == pytest.approx(-0.01 * found.g_u * found.g_r * found.phi)
