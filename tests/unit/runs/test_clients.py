"""Who holds what, as a table that fits and as a picture, on clients made by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray.config.parts.datasets import DATASETS
from fused_ray.data.summary import Row
from fused_ray.errors import DataError
from fused_ray.runs import clients
from fused_ray.runs.clients import MANY_CLASSES, show_clients
from fused_ray.types import Scenario

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


def rows(classes: int, each: int = 0) -> list[Row]:
    first, second = [each] * classes, [each] * classes
    first[3], first[7], second[7] = 40, 2, 60
    return [
        Row(client=client, name=str(client), examples=sum(counts), counts=counts, to_forget=gone)
        for client, counts, gone in ((0, first, 5), (1, second, 0))
    ]


def cells(lines: list[str]) -> list[list[str]]:
    """What stands below the head."""
    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    return [line.split() for line in lines[rule + 1 :] if line and line.split()[0] in ("0", "1", "3", "all")]


@pytest.mark.parametrize("classes", [MANY_CLASSES, MANY_CLASSES + 1])
def test_a_column_for_each_class_or_a_summary(classes: int, shown: Any) -> None:
    lines = shown(lambda: show_clients(rows(classes), [f"c{c}" for c in range(classes)], "abc"), 160)
    if classes > MANY_CLASSES:
        assert cells(lines) == [
            ["0", "42", "2", "c3", "(40)", "5"],
            ["1", "60", "1", "c7", "(60)", "0"],
            ["all", "102", "2", "c7", "(62)", "5"],
        ]
    else:
        first = ["0"] * classes
        first[3], first[7] = "40", "2"
        assert cells(lines)[0] == ["0", "42", *first, "5"]
        assert len(cells(lines)[2]) == classes + 3
        assert "classes: 0 c0, 1 c1, 2 c2" in "\n".join(lines)
    assert lines[-1] == "partition sha256 abc"


def test_in_80_columns_classes_have_numbers_where_their_names_are_too_long(shown: Any) -> None:
    known = DATASETS["fashion-mnist"]
    assert known is not None
    lines = shown(lambda: show_clients(rows(10, each=600), known.class_names, "abc"), 80)
    table = lines[: lines.index(next(line for line in lines if line.startswith("classes: ")))]
    assert max(map(len, table)) <= 80
    assert table[2].split() == ["client", "examples", *map(str, range(10)), "forget"]
    assert cells(lines)[2] == ["all", "10302", *["1200"] * 3, "640", *["1200"] * 3, "62", *["1200"] * 2, "5"]
    assert "9 Ankle boot" in lines[-2]
    wide = shown(lambda: show_clients(rows(10, each=600), known.class_names, "abc"), 160)
    assert "Ankle boot" in wide[1]
    narrow = shown(lambda: show_clients(rows(10, each=600), known.class_names, "abc"), 60)
    assert max(map(len, narrow)) <= 60
    assert cells(narrow)[0] == ["0", "4842", "10", "T-shirt", "(600)", "5"]


def test_names_that_look_like_markup_are_shown_as_they_are(shown: Any) -> None:
    names = ["[bold]cat", "[/dog]", "猫", "c3", "c4", "c5", "c6", "c7"]
    lines = shown(lambda: show_clients(rows(8), names, "abc"), 160)
    assert all(name in lines[1] for name in names)
    assert r"\u732b" in shown(lambda: show_clients(rows(8), names, "abc"), 160, "ascii")[1]


def test_of_very_many_clients_the_first_are_shown_and_the_others_summed_up(
    shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: list[Any]
) -> None:
    monkeypatch.setattr(clients, "MANY_CLIENTS", 2)
    many = [Row(client=n, name=str(n), examples=n, counts=[n, 0], to_forget=n % 2) for n in range(5)]
    lines = cells(shown(lambda: show_clients(many, ["cat", "dog"], "abc"), 80))
    assert lines == [
        *(["0", "0", "0", "0", "0"], ["1", "1", "1", "0", "1"]),
        *(["3", "others", "9", "9", "0", "1"], ["all", "10", "10", "0", "2"]),
    ]
    clients.picture(SCENARIO, NAMES, tmp_path / "who.png")
    assert figures[0].axes[0].get_xlabel() == "client, the first 2 of 3"


# -- the picture


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, for a look inside."""
    from matplotlib.figure import Figure

    saved: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
    return saved


def test_the_picture_shows_what_the_rows_say(tmp_path: Path, figures: list[Any]) -> None:
    clients.picture(SCENARIO, NAMES, tmp_path / "who.png")
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
    scenario = Scenario((labels,), (labels[1:],), labels, {}, "")
    clients.picture(scenario, [str(c) for c in range(30)], tmp_path / "who.png")
    assert len({bar.get_facecolor() for bar in figures[0].axes[0].patches}) == 30


@pytest.mark.parametrize("name", ["missing/who.png", "who.nonsense"])
def test_what_cannot_be_written_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"cannot draw .*{name}"):
        clients.picture(SCENARIO, NAMES, tmp_path / name)


def test_names_in_the_picture_are_no_formulas_and_need_no_glyphs(tmp_path: Path, figures: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clients.picture(SCENARIO, ("$x$", "猫", "_fox"), tmp_path / "who.svg")
    legend = figures[0].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["to forget", " _fox", r"\u732b", r"\$x\$"]
    assert (tmp_path / "who.svg").read_bytes().startswith(b"<?xml")


def test_a_legend_of_very_many_classes_is_left_out(tmp_path: Path, figures: list[Any]) -> None:
    labels = np.arange(101)
    scenario = Scenario((labels,), (labels[1:],), labels, {}, "")
    clients.picture(scenario, [str(c) for c in range(101)], tmp_path / "who.png")
    assert [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()] == ["to forget"]
