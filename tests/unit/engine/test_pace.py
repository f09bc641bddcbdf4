"""Seconds of clients, fitted to earlier rounds, with hand-computed lines."""

from __future__ import annotations

import pytest

from fused_ray.engine.pace import Pace


def test_before_anything_is_known_examples_decide() -> None:
    pace = Pace()
    pace.learn([], [])
    pace.learn([3, 4], [0.0, 0.0])  # such as work that takes no time
    assert pace.seconds(20) == 2 * pace.seconds(10) > 0


@pytest.mark.parametrize(
    ("examples", "seconds", "of_ten"),
    [
        ([1, 2, 3], [3.0, 5.0, 7.0], 21.0),  # 1 + 2 n
        ([0, 2, 2], [1.0, 2.0, 4.0], 11.0),  # the means 1 and 3 at 0 and 2: 1 + n
        ([4, 4, 4], [1.0, 2.0, 3.0], 2.0),  # nothing tells the two parts apart: the mean
        ([1, 2], [4.0, 2.0], 3.0),  # more examples do not take less: the mean
        ([1, 2], [1.0, 3.0], 14.0),  # no client takes less than nothing: 7/5 n
    ],
)
def test_a_line_through_what_clients_took(examples: list[int], seconds: list[float], of_ten: float) -> None:
    pace = Pace()
    pace.learn([1, 5], [100.0, 900.0])  # forgotten at the next round
    pace.learn(examples, seconds)
    assert pace.seconds(10) == pytest.approx(of_ten)
