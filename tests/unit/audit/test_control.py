from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fused_ray.audit.control import control, is_trivial, output_bias
from fused_ray.audit.yardstick import Yardstick
from fused_ray.core.state import arrays

LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")


def test_the_output_layer_is_the_last_with_a_bias() -> None:
    assert output_bias(["a.weight", "a.bias", "b.weight", "b.bias"], ["a", "b"]) == "b.bias"
    assert output_bias(["a.weight", "a.bias", "b.weight"], ["a", "b"]) == "a.bias"


@pytest.mark.parametrize(
    ("overrides", "change"),
    [
        (["forget.scenario=class", "forget.classes=[2,5]"], {2: -10, 5: -10}),
        (["forget.scenario=exclusive", "forget.classes=[4,7]"], {4: -10}),
        (["forget.scenario=sample", "forget.target=6"], {6: -10}),
    ],
)
def test_one_number_a_class(world: Any, overrides: list[str], change: dict[int, int]) -> None:
    space = world("data.limit=200", *overrides).space
    before = arrays(space.model)
    after = control(space, before, LAYERS)
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["fc3.bias"]
    expected = before["fc3.bias"].copy()
    for label, shift in change.items():
        expected[label] += shift
    assert after["fc3.bias"].tolist() == expected.tolist()


@pytest.mark.parametrize("scenario", ["client", "sample"])
def test_zeroed_where_no_class_is_forgotten(world: Any, scenario: str) -> None:
    poison = f"forget.poison={str(scenario == 'client').lower()}"
    space = world("data.limit=200", f"forget.scenario={scenario}", poison).space
    before = arrays(space.model)
    after = control(space, before, LAYERS)
    assert not after["fc3.bias"].any()
    assert all(np.array_equal(before[name], after[name]) for name in before if name != "fc3.bias")


def test_it_forgets_a_class(yardstick: Yardstick) -> None:
    before, after = yardstick.seen_before.accuracy, yardstick.seen_control.accuracy
    assert before["fa"].weighted > 0.6
    assert after["fa"].weighted == 0.0
    assert after["ra"].weighted >= before["ra"].weighted


@pytest.mark.parametrize(
    ("fa", "ra", "fa_control", "ra_control", "expected"),
    [
        (0.0, 0.8, 0.0, 0.8, True),
        (0.0, 0.81, 0.01, 0.8, True),
        (0.0, 0.8, 0.03, 0.8, False),  # the control forgets less
        (0.0, 0.83, 0.0, 0.8, False),  # the control costs more
        (0.76, 0.8, 0.0, 0.8, False),  # the method forgot nothing
    ],
)
def test_trivial(fa: float, ra: float, fa_control: float, ra_control: float, expected: bool) -> None:
    assert is_trivial(0.8, fa, ra, fa_control, ra_control) is expected
