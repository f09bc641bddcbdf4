"""What all pictures share: any text, axes without impossible values, legends inside, the same bytes each time."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest

from fused_ray.config import RunConfig
from fused_ray.runs import figures
from fused_ray.runs.directory import RunDirectory

HEADS = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("cat", "cat"),
        ("$x$", r"\$x\$"),
        (r"\$", r"\\$"),
        ("猫", r"\u732b"),
        ("_hidden", " _hidden"),
        ("a\nb", r"a\nb"),
        ("[bold]±é", "[bold]±é"),
        ("a\x1bb", r"a\x1bb"),
    ],
)
def test_text_is_shown_as_it_is(label: str, expected: str) -> None:
    """matplotlib shows an escaped dollar sign as a dollar sign, and two bare ones as a formula between them."""
    assert figures.text(label) == expected
    figure = figures.new(2.0, 1.0)
    drawn = figure.text(0.5, 0.5, figures.text(label))
    shown, formula = drawn._preprocess_math(drawn.get_text())
    assert not formula
    assert shown == expected.replace(r"\$", "$")


def picture(title: str = "") -> object:
    figure = figures.new(3.0, 2.0)
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], label="line")
    axes.set_title(title)
    return figure


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_format_is_written_and_always_the_same(tmp_path: Path, form: str) -> None:
    directory = RunDirectory.create(tmp_path / "run", RunConfig())
    directory.lock(1.0)
    found = []
    for _ in range(2):
        figures.draw(directory, {"one": picture(), "none": None}, form)
        (path,) = (directory.path / "plots").iterdir()
        assert path.name == f"one.{form}"
        found.append(path.read_bytes())
    directory.unlock()
    assert found[0] == found[1]
    assert found[0].startswith(HEADS[form])


def test_a_missing_glyph_is_no_news_for_the_screen() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(picture("猫"), io.BytesIO(), "png")


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.0, 1.0], -0.04, 1.04),
        ([0.0, 0.5], -0.02, 0.53),
        ([0.3, 0.8], 0.27, 0.83),
        ([0.0, 0.0], -0.004, 0.106),  # all alike: at least a tenth is shown
        ([1.0, 1.0], 0.894, 1.004),
        ([-0.2, 0.5], -0.02, 0.53),  # what a deviation would make negative
        ([0.5, 0.5], 0.388, 0.612),
    ],
)
def test_axes_of_accuracies_have_no_negative_part_to_speak_of(values: list[float], low: float, high: float) -> None:
    found = figures.accuracy_limits(iter(values))
    assert found == (pytest.approx(low), pytest.approx(high))
    axes = figures.new(4.0, 3.0).subplots()
    axes.set_ylim(found)
    assert all(-1e-9 <= tick <= 1 + 1e-9 for tick in axes.get_yticks() if found[0] <= tick <= found[1])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (50, 2e6, [100, 1e3, 1e4, 1e5, 1e6]),
        (300, 2e3, [300, 1e3]),
        (40e3, 90e3, [5e4]),
        (50e3, 120e3, [5e4, 1e5]),
        (6.1e3, 6.9e3, [6.1e3, 6.9e3]),
        (1, 1e9, [1, 100, 1e4, 1e6, 1e8]),
    ],
)
def test_ticks_of_bytes_by_hand(low: float, high: float, ticks: list[float]) -> None:
    found = figures.byte_ticks(low, high)
    assert len(found) >= 2
    if len(ticks) >= 2:
        assert found == pytest.approx(ticks)
    else:  # finer than 1, 2, 5
        assert found == pytest.approx([4e4, 5e4, 6e4, 7e4, 8e4, 9e4][::2])


@pytest.mark.parametrize("width", [2.5, 5.0, 12.0])
def test_a_legend_stays_inside_the_figure(width: float) -> None:
    figure = figures.new(width, 5.0)
    axes = figure.subplots()
    entries = {f"a line with a longer name {n}": axes.plot([0, n])[0] for n in range(5)}
    figures.legend_below(figure, entries)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 5
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= 0
    assert axes.get_window_extent().y0 > box.y1
