"""Pictures of a comparison, by what is in them."""

from __future__ import annotations

from typing import Any

import pytest

from fused_ray.studies.comparisons import plots


def row(method: str, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "scenario": "class", "method": method, "seed": seed, "ra": 0.7, "fa": 0.0, "ra_before": 0.8, "fa_before": 0.9,
        "ra_retrained": 0.75, "fa_retrained": 0.1, "relearn_ratio": 0.5, "bytes_up": 6_600, "bytes_up_total": 60_000,
        **more,
    }  # fmt: skip


ROWS = [row("fused", 0), row("fused", 1, fa=0.3), row("not", 0, ra=0.2), row("not", 1, ra=0.2)]


def points(axes: Any) -> dict[str, tuple[float, float]]:
    return {
        bars.get_label(): (float(bars[0].get_xdata()[0]), float(bars[0].get_ydata()[0])) for bars in axes.containers
    }


def test_forgetting_shows_the_model_before_and_the_retrained_one() -> None:
    figure = plots._forgetting(ROWS)
    assert figure is not None
    (axes,) = figure.axes
    assert points(axes) == {
        "fused": (pytest.approx(0.15), 0.7),
        "not": (0.0, 0.2),
        "before: it remembers": (0.9, 0.8),
    }
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(dashed[0].get_xdata()), list(dashed[1].get_ydata())] == [[0.1, 0.1], [0.75, 0.75]]
    (legend,) = figure.legends
    labels = {text.get_text() for text in legend.get_texts()}
    assert labels == {"fused", "not", "before: it remembers", "retrained without the data"}
    assert axes.get_xlabel() == "forgotten data (FA), lower is better"
    assert axes.get_ylabel() == "kept data (RA), higher is better"


def test_no_axis_of_accuracies_goes_below_zero() -> None:
    """FA 0 and 0.3: the mean .15 and a deviation of .21 reach below 0, where no accuracy is."""
    figure = plots._forgetting(ROWS)
    assert figure is not None
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert -0.05 < low < 0 < 0.9 < high
    assert all(tick >= 0 for tick in axes.get_xticks() if low <= tick <= high)
    bars = [segment for bar in axes.containers for part in bar[2] for segment in part.get_segments()]
    assert min(float(point) for segment in bars for point in segment[:, 0]) >= 0


def test_rows_without_a_retrained_model_or_the_one_before() -> None:
    bare = [one | dict.fromkeys(("ra_before", "fa_before", "ra_retrained", "fa_retrained")) for one in ROWS]
    figure = plots._forgetting(bare)
    assert figure is not None
    assert set(points(figure.axes[0])) == {"fused", "not"}
    assert plots._forgetting([]) is None


def test_depth_says_where_the_retrained_model_is() -> None:
    figure = plots._depth([*ROWS, row("late", 0, relearn_ratio=None), row("free", 0, bytes_up_total=0)])
    assert figure is not None
    (axes,) = figure.axes
    assert set(points(axes)) == {"fused", "not"}
    assert [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "--"] == [[1.0, 1.0]]
    assert all(tick >= 0 for tick in axes.get_yticks() if tick >= axes.get_ylim()[0])
    assert len([tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]) >= 2
    assert plots._depth([row("late", 0, relearn_ratio=None)]) is None


def test_bytes_have_a_bar_and_a_size_for_each_method() -> None:
    figure = plots._bytes([*ROWS, row("_dear", 0, bytes_up=177_784)])
    assert figure is not None
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["6.6 KB", "6.6 KB", "177.8 KB"]
    assert axes.get_xlabel() == "bytes (log scale)"
    assert plots._bytes([row("free", 0, bytes_up=0)]) is None
