"""Who holds what, in numbers, on clients made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from fused_ray.data import summary
from fused_ray.types import ImageData, Scenario

LABELS = np.array([0, 1, 2, 0, 1, 2, 0], np.int64)


def indices(*values: int) -> Any:
    return np.array(values, np.int64)


# client 0 forgets its cats, client 1 everything, client 2 nothing
SCENARIO = Scenario(
    held=(indices(0, 1, 3), indices(2, 4), indices(5, 6)),
    retained=(indices(1), indices(), indices(5, 6)),
    train_labels=LABELS,
    views={},
    partition_sha256="",
)
PIXELS = np.zeros((7, 1, 2, 2), np.uint8)
DATA = ImageData("toy", 3, (0.0,), (1.0,), PIXELS, LABELS, PIXELS[:0], LABELS[:0])


def test_rows_by_hand() -> None:
    assert summary.rows(SCENARIO, DATA) == [
        {"client": 0, "name": "0", "examples": 3, "counts": [2, 1, 0], "to_forget": 2},
        {"client": 1, "name": "1", "examples": 2, "counts": [0, 1, 1], "to_forget": 2},
        {"client": 2, "name": "2", "examples": 2, "counts": [1, 0, 1], "to_forget": 0},
    ]


def test_rows_are_plain_numbers() -> None:
    for row in summary.rows(SCENARIO, DATA):
        assert {type(row[key]) for key in ("client", "examples", "to_forget")} == {int}
        assert {type(count) for count in row["counts"]} == {int}


def test_rows_count_the_labels_that_clients_train_on() -> None:
    poisoned = Scenario(SCENARIO.held, SCENARIO.retained, np.full(7, 2, np.int64), {}, "")
    assert [row["counts"] for row in summary.rows(poisoned, DATA)] == [[0, 0, 3], [0, 0, 2], [0, 0, 2]]
