from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fused_ray.audit.control import control, is_trivial, output_bias
from fused_ray.audit.yardstick import Yardstick


def test_the_bias_is_the_output_layers() -> None:
    state = {"a.weight": np.ones(4), "a.bias": np.ones(2), "b.weight": np.ones(4), "b.bias": np.array([1.0, 2.0])}
    assert output_bias(state, "b").tolist() == [1.0, 2.0]
    del state["b.bias"]
    assert output_bias(state, "b") is None  # another layer's is no output bias


@pytest.mark.parametrize(
    ("overrides", "change"),
    [
        (["forget.scenario=class", "forget.classes=[2,5]"], {2: -10, 5: -10}),
        (["forget.scenario=exclusive", "forget.classes=[4,7]"], {4: -10}),
        (["forget.scenario=sample", "forget.target=6"], {6: -10}),
    ],
)
@pytest.mark.parametrize("bias", [None, np.ones(10, np.float32)])
def test_one_number_a_class(world: Any, overrides: list[str], change: dict[int, int], bias: Any) -> None:
    space = world("data.limit=200", *overrides).space
    outputs = np.zeros((3, 10), np.float32)
    expected = [change.get(label, 0) for label in range(10)]
    assert control(space, outputs, bias).tolist() == [expected] * 3
    assert not outputs.any()


@pytest.mark.parametrize("scenario", ["client", "sample"])
def test_taken_away_where_no_class_is_forgotten(world: Any, scenario: str) -> None:
    poison = f"forget.poison={str(scenario == 'client').lower()}"
    space = world("data.limit=200", f"forget.scenario={scenario}", poison).space
    outputs, bias = np.ones((2, 10), np.float32), np.arange(10, dtype=np.float32)
    assert control(space, outputs, bias).tolist() == [[1.0 - label for label in range(10)]] * 2
    assert control(space, outputs, None).tolist() == outputs.tolist()


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
