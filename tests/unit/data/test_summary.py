"""Who holds what, as rows and as a picture, on clients made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray.data import summary
from fused_ray.errors import DataError
from fused_ray.types import ImageData, Scenario

NAMES = ("cat", "dog", "fox")
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


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, for a look inside."""
    from matplotlib.figure import Figure

    saved: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
    return saved


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


def test_the_picture_shows_what_the_rows_say(tmp_path: Path, figures: list[Any]) -> None:
    summary.picture(SCENARIO, DATA, NAMES, tmp_path / "who.png")
    assert (tmp_path / "who.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    heights, hatched = np.zeros(3), np.zeros(3)
    for bar in axes.patches:
        client = round(bar.get_x() + bar.get_width() / 2)
        assert bar.get_y() == heights[client]  # stacked without gap or overlap
        heights[client] += bar.get_height()
        hatched[client] += bar.get_height() * bool(bar.get_hatch())
    assert heights.tolist() == [3, 2, 2]
    assert hatched.tolist() == [2, 2, 0]
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["to forget", "fox", "dog", "cat"]  # in the order of the stack


def test_each_class_has_a_colour_of_its_own_however_many(tmp_path: Path, figures: list[Any]) -> None:
    labels = np.arange(30)
    data = ImageData("toy", 30, (0.0,), (1.0,), PIXELS, labels, PIXELS[:0], LABELS[:0])
    scenario = Scenario((labels,), (labels[1:],), labels, {}, "")
    summary.picture(scenario, data, [str(c) for c in range(30)], tmp_path / "who.png")
    assert len({bar.get_facecolor() for bar in figures[0].axes[0].patches}) == 30


@pytest.mark.parametrize("name", ["missing/who.png", "who.nonsense"])
def test_what_cannot_be_written_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"cannot draw .*{name}"):
        summary.picture(SCENARIO, DATA, NAMES, tmp_path / name)
