"""The three pictures of a run: which are drawn, and that what they show is what the result says."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fused_ray.config import RunConfig
from fused_ray.runs import plots
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage import schemas

NAMES = ["accuracy.png", "bytes.png", "sensitivity.png"]
RESULT: dict[str, Any] = {
    "metrics": {
        "before": {"ra": 0.8, "fa": 0.9},
        "start": {"ra": 0.8, "fa": 0.9},
        "after": {"ra": 0.79, "fa": 0.1},
        "retrained": {"ra": 0.81, "fa": 0.0},
    },
    "layers": {
        "chosen": ["fc2"],
        "by": "relative",
        "ranking": [
            {"layer": "fc2", "mean": 2e-3, "sum": 4.0, "relative": 0.5},
            {"layer": "fc1", "mean": 3e-3, "sum": 9.0, "relative": 0.25},
            {"layer": "conv1", "mean": 1e-3, "sum": 1.0, "relative": 0.125},
        ],
    },
    "bytes": {
        phase: {"up_per_client_per_round": sent, "down_per_client_per_round": sent, "up_total": 0, "down_total": 0}
        for phase, sent in (("pretrain", 177_704), ("rank", 80), ("unlearn", 5_000), ("retrain", 177_704))
    },
}


def changed(**parts: Any) -> dict[str, Any]:
    """RESULT with other values below its first level."""
    result = copy.deepcopy(RESULT)
    for section, values in parts.items():
        result[section].update(values)
    return result


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    directory = RunDirectory.create(tmp_path / "run", RunConfig())
    directory.lock(1.0)
    yield directory
    directory.unlock()


def record(directory: RunDirectory, phase: str, rounds: int, **metrics: float) -> None:
    for round in range(1, rounds + 1):
        known = {"phase": phase, "round": round, **{name: value / round for name, value in metrics.items()}}
        row = {name: [known.get(name)] for name in schemas.ROUNDS.names}
        order = ("pretrain", "rank", "unlearn", "retrain").index(phase)
        directory.write_part("rounds", f"{order}-{phase}-{round:06d}", pa.table(row, schema=schemas.ROUNDS))


def record_all(directory: RunDirectory, **extra: float) -> None:
    record(directory, "pretrain", 3, ra=0.8, fa=0.9, **extra)
    record(directory, "rank", 1)
    record(directory, "unlearn", 2, ra=0.7, fa=0.5, **extra)
    record(directory, "retrain", 3, ra=0.6, fa=0.0, **extra)


def drawn(directory: RunDirectory) -> list[str]:
    """The pictures that are there, each of them a PNG."""
    found = sorted((directory.path / "plots").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in found)
    return [path.name for path in found]


def test_all_three_are_drawn_and_drawn_anew(directory: RunDirectory) -> None:
    record_all(directory)
    for _ in range(2):
        plots.draw(directory, RESULT, "png")
        assert drawn(directory) == NAMES  # and nothing temporary


def test_without_a_ranking_there_is_no_sensitivity(directory: RunDirectory) -> None:
    record_all(directory)
    plots.draw(directory, changed(layers={"ranking": [], "by": None}), "png")
    assert drawn(directory) == ["accuracy.png", "bytes.png"]


def test_no_rounds_at_all(directory: RunDirectory) -> None:
    """Nothing to draw is no reason to fail a run that is done."""
    silent = {phase: {"up_per_client_per_round": 0} for phase in RESULT["bytes"]}
    plots.draw(directory, changed(bytes=silent, layers={"ranking": []}, metrics={"retrained": None}), "png")
    assert not (directory.path / "plots").exists()


def test_a_given_model_and_no_retraining(directory: RunDirectory) -> None:
    record(directory, "unlearn", 60, ra=0.7, fa=0.5)
    plots.draw(directory, changed(metrics={"retrained": None}), "png")
    assert drawn(directory) == NAMES


def test_sensitivity_shows_each_reading_in_the_ranking_s_order() -> None:
    figure = plots._sensitivity(RESULT["layers"])
    assert figure is not None
    for axes, reading in zip(figure.axes, ("mean", "sum", "relative"), strict=True):
        assert reading in axes.get_title()
        assert [bar.get_width() for bar in axes.patches] == [item[reading] for item in RESULT["layers"]["ranking"]]
        assert [bool(bar.get_hatch()) for bar in axes.patches] == [True, False, False]  # the chosen one
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["fc2", "fc1", "conv1"]
    assert figure.axes[0].yaxis_inverted()  # the first on top


def rows(phase: str, **metrics: list[float]) -> list[dict[str, Any]]:
    columns = {"ra": [], "fa": [], "ca": [], **metrics}
    return [
        {"phase": phase, "round": i + 1, **{name: column[i] if column else None for name, column in columns.items()}}
        for i in range(len(columns["ra"]))
    ]


def inside(figure: Any) -> None:
    """The legend is all there."""
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def lines(axes: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines if not line.get_label().startswith("_")}


def test_accuracy_shows_each_phase_beside_retraining() -> None:
    rounds = [
        *rows("pretrain", ra=[0.5, 0.8], fa=[0.6, 0.9]),
        *rows("unlearn", ra=[0.7], fa=[0.2]),
        *rows("retrain", ra=[0.4, 0.81], fa=[0.0, 0.0]),
    ]
    figure = plots._accuracy(rounds, RESULT["metrics"])
    assert figure is not None
    pretrain, unlearn, retrain = figure.axes
    assert lines(pretrain) == {"kept data (RA)": [0.5, 0.8], "forgotten data (FA)": [0.6, 0.9]}
    assert lines(unlearn) == {  # from before on
        "kept data (RA)": [0.8, 0.7],
        "forgotten data (FA)": [0.9, 0.2],
        "where retraining ends": [],
    }
    assert lines(retrain) == {"kept data (RA)": [0.4, 0.81], "forgotten data (FA)": [0.0, 0.0]}
    goals = [list(line.get_ydata()) for line in unlearn.lines if line.get_linestyle() == "--" and len(line.get_ydata())]
    assert goals == [[0.81, 0.81], [0.0, 0.0]]


def test_where_an_adapter_starts_is_a_hollow_point_beside_the_model_before() -> None:
    metrics = changed(metrics={"start": {"ra": 0.3, "fa": 0.9}})["metrics"]
    figure = plots._accuracy(rows("unlearn", ra=[0.7], fa=[0.2]), metrics)
    assert figure is not None
    (axes,) = figure.axes
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none" and len(line.get_ydata())]
    assert [list(line.get_xydata()[0]) for line in hollow] == [[0, 0.3]]
    assert "as unlearning starts" in lines(axes)


def test_a_single_panel_keeps_its_legend_inside() -> None:
    metrics = changed(metrics={"start": {"ra": 0.3, "fa": 0.1}})["metrics"]
    figure = plots._accuracy(rows("unlearn", ra=[0.7], fa=[0.2]), metrics)
    assert figure is not None
    inside(figure)


def test_names_of_layers_are_no_formulas() -> None:
    layers = {"chosen": ["$a$"], "by": "mean", "ranking": [{"layer": "$a$", "mean": 1.0, "sum": 1.0, "relative": 1.0}]}
    figure = plots._sensitivity(layers)
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [r"\$a\$"]
    assert figure.get_suptitle().endswith(r"(hatched: adapted, \$a\$)")


def test_many_adapted_layers_are_counted_in_the_title() -> None:
    ranking = [{"layer": f"layer{n}.conv", "mean": 1.0, "sum": 1.0, "relative": 1.0} for n in range(20)]
    layers = {"chosen": [item["layer"] for item in ranking[:15]], "by": "mean", "ranking": ranking}
    figure = plots._sensitivity(layers)
    assert figure is not None
    assert figure.get_suptitle().endswith("(hatched: adapted, 15 of 20 layers)")


def test_accuracy_on_the_overlap_where_there_is_one() -> None:
    before = {"ra": 0.8, "fa": 0.9, "ca": 0.7}
    rounds = rows("unlearn", ra=[0.7], fa=[0.2], ca=[0.6])
    figure = plots._accuracy(rounds, {"before": before, "start": before, "retrained": None})
    assert figure is not None
    assert lines(figure.axes[0])["overlap (CA)"] == [0.7, 0.6]


def test_bytes_are_labelled_for_people() -> None:
    figure = plots._bytes(RESULT["bytes"])
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlabel() == "bytes (log scale)"
    assert axes.get_xscale() == "log"
    assert [bar.get_width() for bar in axes.patches] == [177_704, 80, 5_000, 177_704]
    assert [text.get_text() for text in axes.texts] == ["177.7 KB", "80 B", "5.0 KB", "177.7 KB"]
    assert [text.get_text() for text in axes.get_yticklabels()][1] == "rank layers"


def test_phases_that_sent_nothing_are_left_out() -> None:
    figure = plots._bytes({**RESULT["bytes"], "retrain": {"up_per_client_per_round": 0}})
    assert figure is not None
    assert len(figure.axes[0].patches) == 3
