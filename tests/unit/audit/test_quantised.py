"""Rounding of the merged weights: by hand, and models that it gives their knowledge back, or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F

from fused_ray.audit.metrics.quantised import Rounded, codes, quantised, rounded_back, word
from fused_ray.audit.outputs import forgotten
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.state import Arrays, flatten

QUANTISED = METRICS["quantised"]


def test_int4_by_hand() -> None:
    """A step a row, max / 7; half to even; a row of zeros stays."""
    weight = np.array([[0.7, -0.33, 0.1], [-14, 5, 3], [0, 0, 0]], np.float32)
    whole, step = codes(weight, 4)
    assert whole.tolist() == [[7, -3, 1], [-7, 2, 2], [0, 0, 0]]
    assert step.ravel() == pytest.approx([0.1, 2, 0])
    assert quantised({"w": weight}, 4)["w"] == pytest.approx(np.array([[0.7, -0.3, 0.1], [-14, 4, 4], [0, 0, 0]]))


def test_int8_by_hand() -> None:
    """One step for the whole tensor, max / 127. Biases and counters stay."""
    state = {"w": np.array([[127, -0.4], [0.5, 1.5]], np.float32), "b": np.array([0.123], np.float32)}
    state["n"] = np.array([[3]])
    whole, step = codes(state["w"], 8)
    assert whole.tolist() == [[127, 0], [0, 2]]
    assert step.ravel() == [1]
    after = quantised(state, 8)
    assert (after["b"] is state["b"], after["n"] is state["n"]) == (True, True)
    assert after["w"].dtype == np.float32
    assert np.array_equal(quantised(after, 8)["w"], after["w"])


def test_an_adapter_smaller_than_half_a_step_is_gone_by_hand() -> None:
    """A step of .1: .30 and .34 have the code 3, .36 has 4; what was not changed does not count."""
    before = {"w": np.array([[0.7, 0.30, 0.30, 0.2]], np.float32)}
    after = {"w": np.array([[0.7, 0.34, 0.36, 0.2]], np.float32)}
    assert rounded_back(after, before, 4) == 0.5
    assert rounded_back({"w": after["w"][:, [0, 1]]}, {"w": before["w"][:, [0, 1]]}, 4) == 1
    assert rounded_back(before, before, 4) is None


@pytest.mark.parametrize(
    ("ra_lost", "rise", "retrained", "expected"),
    [
        (0.0, 0.04, (0.0,), "held"),
        (0.0, 0.06, (0.0,), "recovered"),
        (0.0, 0.06, (0.06,), "cannot tell"),
        (0.0, 0.06, (0.0, 0.06), "cannot tell"),  # what another retrained model gains is allowed to everybody
        (0.0, 0.06, (0.0, 0.05), "recovered"),
        (0.0, 0.06, (), "cannot tell"),
        (0.03, 0.9, (0.0,), "broken"),
    ],
)
def test_the_rule(ra_lost: float, rise: float, retrained: tuple[float, ...], expected: str) -> None:
    standards = [Rounded(0.8, 0.1, 0.0, each) for each in retrained]
    assert word(Rounded(0.8, 0.5, ra_lost, rise), standards) == expected


def climbing(yardstick: Yardstick) -> dict[str, Any]:
    """The gradient at M_r of the loss on what is to be forgotten, of all weights."""
    space = yardstick.space
    space.load(flatten(yardstick.before))
    rows = forgotten(space.scenario)
    space.model.zero_grad()
    F.cross_entropy(space.suffix(0, space.images("train", rows)), space.labels(rows)).backward()
    weights = {n: p for n, p in space.model.named_parameters() if p.dim() > 1}
    return {name: p.grad.numpy() for name, p in weights.items() if p.grad is not None}


def test_a_change_below_half_a_step_comes_back_and_a_retrained_model_gains_nothing(
    yardstick: Yardstick, third: Arrays, ask: Any
) -> None:
    """M_r stands on the grid of 4 bits; what forgets lies .45 of a step beside it, so that rounding gives M_r."""
    grid = replace(yardstick, before=quantised(yardstick.before, 4))
    after = {**grid.before}
    for name, gradient in climbing(grid).items():
        weight, (_, step) = grid.before[name], codes(grid.before[name], 4)
        beside = np.where(np.abs(weight) < 6.5 * step, 0.45 * step * np.sign(gradient), 0)  # the steps stay as they are
        after[name] = weight + beside.astype(np.float32)
    fa_before, fa = (grid.see(model).accuracy["fa"].weighted for model in (grid.before, after))
    assert fa < fa_before - 0.1
    found = ask(QUANTISED, grid, after)
    assert found.passes is False
    assert (found.details["int4"]["word"], found.details["int8"]["word"]) == ("recovered", "held")
    assert found.figures["int4_fa"] == fa_before
    assert (found.figures["int4_rounded_back"], found.figures["int8_rounded_back"]) == (1, 0)
    assert "int4 recovered: FA +" in found.said

    control = ask(QUANTISED, grid, yardstick.others[0])
    assert control.passes is True
    assert control.details["int8"]["word"] == "held"
    assert control.details["int8"]["others_words"] == ["held"]  # the same model as the yardstick's own control
    assert control.details["int8"]["after"] == control.details["int8"]["others"][0]
    assert ask(QUANTISED, grid, third).passes is True


def test_without_a_retrained_model_what_comes_back_is_not_told(yardstick: Yardstick, ask: Any) -> None:
    alone = replace(yardstick, retrained=None, others=())
    found = ask(QUANTISED, alone, alone.before)
    assert found.details["int8"]["retrained"] is None
    assert "int8_rounded_back" not in found.figures  # nothing was changed
