"""Pictures of a sweep, by what is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fused_ray.config import RunConfig
from fused_ray.studies.sweeps import plots
from fused_ray.studies.sweeps.front import Case, cases
from fused_ray.studies.sweeps.rows import ACCURACIES

BASE = RunConfig()


def row(trial: int, round: int, values: dict[str, Any], ra: float = 0.6, fa: float = 0.0) -> dict[str, Any]:
    figures = {"ra": ra, "fa": fa, "ra_before": 0.7, "fa_before": 0.9, "ra_retrained": 0.65, "fa_retrained": 0.05}
    return {
        "trial": trial, "round": round, "last": round == 2, "bytes_up": 600, "bytes_up_total": 600 * round + 100,
        "seconds_total": 1.0, "status": "done", "seed": 0, "values": json.dumps(values), "layers": "fc3",
        **{f"{name}{half}": figures.get(name) for name in ACCURACIES for half in ("", "_choose", "_report")},
    }  # fmt: skip


def found(fa: float = 0.0, name: str = "") -> list[Case]:
    space = [{"unlearn.layers": k, "unlearn.sparsity": s} for k in (1, 2) for s in (0.5, 0.9)]
    shaping = {"data.partition": name} if name else {}
    trials = list(enumerate(value | shaping for value in space))
    rows = [row(trial, round, values, 0.1 * trial + 0.3, fa) for trial, values in trials for round in (0, 1, 2)]
    return cases(rows, 0.01, 0.02)


@pytest.mark.parametrize("draw", [plots._front, plots._rounds])
def test_a_single_case_shows_its_standards_with_a_legend_inside(draw: Any) -> None:
    figure = draw(found(), BASE)
    assert figure is not None
    above, below = figure.axes
    for axes, retrained, before in ((above, 0.65, 0.7), (below, 0.05, 0.9)):
        level = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
        assert level["retrained without the data"] == retrained
        assert level["before unlearning"] == before
        low, high = axes.get_ylim()
        assert all(tick >= 0 for tick in axes.get_yticks() if low <= tick <= high)
        assert low < retrained < high
        assert low < before < high
    assert above.get_ylabel() == "kept data (RA), higher is better"
    assert below.get_ylabel() == "forgotten data (FA), lower is better"
    assert above.get_title() == "scenario class"
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().x0 >= 0
    assert legend.get_window_extent().x1 <= figure.bbox.width


def test_long_names_of_cases_are_broken_and_are_no_formulas() -> None:
    name = "$long$ " * 12
    figure = plots._front(found(name=name.strip()), BASE)
    assert figure is not None
    title = figure.axes[0].get_title()
    assert title.startswith(r"partition \$long\$ \$long\$")
    assert all(len(line.replace("\\", "")) <= 42 for line in title.split("\n"))
    assert len(title.split("\n")) > 1


@pytest.mark.parametrize("fa", [0.0, 0.4])
def test_numbers_can_be_read_on_their_colours(fa: float) -> None:
    """All FA alike are one colour, the darkest; there the numbers are white."""
    figure = plots._heat(found(fa)[0], BASE)
    assert figure is not None
    for axes in figure.axes:
        (image,) = axes.images
        for text in axes.texts:
            value = image.get_array()[int(text.get_position()[1]), int(text.get_position()[0])]
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            assert text.get_color() == ("white" if dark else "black")
    assert {text.get_color() for text in figure.axes[1].texts} == {"white"}
    assert [text.get_text() for text in figure.axes[1].texts] == [f"{fa:.3f}"] * 4


def test_what_was_not_tried_stays_empty() -> None:
    tried = [{"unlearn.layers": k, "unlearn.sparsity": s} for k, s in ((1, 0.5), (2, 0.9))]
    rows = [row(trial, 2, values) for trial, values in enumerate(tried)]
    figure = plots._heat(cases(rows, 0.01, 0.02)[0], BASE)
    assert figure is not None
    assert len(figure.axes[0].texts) == 2
