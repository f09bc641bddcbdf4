"""Three pictures of a finished run: how sensitive each layer is, how accuracies went, how much each phase sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fused_ray.config import schedule
from fused_ray.config.fields import Plots
from fused_ray.runs import figures
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.screen import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRICS = {
    "ra": ("kept data (RA)", figures.BLUE, "o"),
    "fa": ("forgotten data (FA)", figures.VERMILION, "s"),
    "ca": ("overlap (CA)", figures.GREEN, "^"),
}
_READINGS = {
    "mean": "mean: change per parameter",
    "sum": "sum: change in all",
    "relative": "relative: change / own size",
}
_FEW_NAMES = 6
"""So many layers are named in a title; of more, their number is told."""

Rows = Sequence[Mapping[str, Any]]


def draw(directory: RunDirectory, result: Mapping[str, Any], form: Plots) -> None:
    """Draw `result`, the content of result.json, into plots/; a picture with nothing to show is left out."""
    if form == "none":
        return
    figures.load()
    rounds = directory.table("rounds").to_pylist()
    pictures = {
        "sensitivity": _sensitivity(result["layers"]),
        "accuracy": _accuracy(rounds, result["metrics"]),
        "bytes": _bytes(result["bytes"]),
    }
    figures.draw(directory, pictures, form)


def _sensitivity(layers: Mapping[str, Any]) -> Figure | None:
    """A panel per reading, a bar per layer, the most sensitive on top; None if nothing was ranked."""
    ranking = layers["ranking"]
    if not ranking:
        return None
    figure = figures.new(10.0, 1.7 + 0.28 * len(ranking))
    names = [figures.text(item["layer"]) for item in ranking]
    chosen = [item["layer"] in layers["chosen"] for item in ranking]
    panels: Sequence[Axes] = figure.subplots(1, 3, sharey=True)
    for axes, (reading, title) in zip(panels, _READINGS.items(), strict=True):
        bars = axes.barh(names, [item[reading] for item in ranking], color=figures.GREY)
        for bar, marked in zip(bars, chosen, strict=True):
            if marked:
                bar.set(facecolor=figures.VERMILION, hatch="//", edgecolor="white")
        axes.set_title(title + ("\n(ranked by this)" if reading == layers["by"] else ""), fontsize="medium")
        axes.margins(y=0.02)
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.locator_params(axis="x", nbins=4)
    panels[0].invert_yaxis()  # shared by all three
    panels[0].set_ylabel("layer")
    adapted = [figures.text(name) for name in layers["chosen"]]
    told = ", ".join(adapted) if len(adapted) <= _FEW_NAMES else f"{len(adapted)} of {len(ranking)} layers"
    figure.suptitle(f"How much each layer moves when clients train (hatched: adapted, {told})", wrap=True)
    return figure


def _accuracy(rounds: Rows, metrics: Mapping[str, Any]) -> Figure | None:
    """A panel per phase on one scale; in unlearning, dashed lines say where retraining ends.

    Unlearning goes on from the model before. Where the first round begins with another one, as an adapter that starts
    with resets does, that is a hollow point.
    """
    from matplotlib.ticker import MaxNLocator

    by_phase = {phase: [row for row in rounds if row["phase"] == phase] for phase in ("pretrain", "unlearn", "retrain")}
    by_phase = {phase: rows for phase, rows in by_phase.items() if rows}
    if not by_phase:
        return None
    shown = [name for name in _METRICS if metrics["before"].get(name) is not None]
    # width by rounds, but every panel wide enough for its title
    widths = [max(len(rows), max(map(len, by_phase.values())) / 2) for rows in by_phase.values()]
    figure = figures.new(2.0 + 3.2 * len(by_phase), 4.2)
    grid = figure.subplots(1, len(by_phase), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths})
    panels: Sequence[Axes] = grid[0]
    for axes, (phase, rows) in zip(panels, by_phase.items(), strict=True):
        for name in shown:
            _curve(axes, phase, rows, name, metrics)
        axes.set_title(schedule.title(phase), fontsize="medium")
        axes.set_xlabel("round (0: before)" if phase == "unlearn" else "round")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y", alpha=0.3)
    panels[0].set(ylabel="accuracy on the test set", ylim=(-0.03, 1.03))
    figures.legend_below(figure, figures.entries_of(panels))
    return figure


def _curve(axes: Axes, phase: str, rows: Rows, name: str, metrics: Mapping[str, Any]) -> None:
    """One accuracy over the rounds of a phase."""
    label, colour, marker = _METRICS[name]
    numbers, values = [row["round"] for row in rows], [row[name] for row in rows]
    before, start = metrics["before"], metrics["start"]
    if phase == "unlearn":
        numbers, values = [0, *numbers], [before[name], *values]
        if metrics["retrained"]:
            _named(axes, "where retraining ends", color="black", linestyle="--", linewidth=1)
            axes.axhline(metrics["retrained"][name], color=colour, linestyle="--", linewidth=1)
        if start[name] != before[name]:
            _named(axes, "as unlearning starts", color="black", marker="o", markerfacecolor="none", linestyle="")
            axes.plot([0], [start[name]], color=colour, marker=marker, markersize=6, markerfacecolor="none")
    few = len(values) <= 40
    axes.plot(numbers, values, color=colour, marker=marker if few else None, markersize=4, label=label)


def _named(axes: Axes, label: str, **style: Any) -> None:
    """A line of the legend that stands for lines of several colours."""
    axes.plot([], [], label=label, **style)


def _bytes(phases: Mapping[str, Mapping[str, int]]) -> Figure | None:
    """A bar per phase on a log scale, labelled in words."""
    sent = {phase: sums["up_per_client_per_round"] for phase, sums in phases.items()}
    sent = {phase: count for phase, count in sent.items() if count > 0}
    if not sent:
        return None
    figure = figures.new(7.5, 1.5 + 0.45 * len(sent))
    colours = [figures.VERMILION if phase == "unlearn" else figures.BLUE for phase in sent]
    byte_bars(figure, {schedule.title(phase): count for phase, count in sent.items()}, colours)
    return figure


def byte_bars(figure: Figure, sent: Mapping[str, int], colours: Sequence[str]) -> None:
    """Bytes a client and round as bars on a log scale, each with its size beside it."""
    axes = figure.subplots()
    counts = list(sent.values())
    bars = axes.barh([figures.text(name) for name in sent], counts, color=colours)
    axes.bar_label(bars, [size(count) for count in counts], padding=4)
    figures.bytes_axis(axes, [min(counts) / 3, max(counts) * 5])  # room for the labels
    axes.invert_yaxis()
    axes.set_xlabel("bytes (log scale)")
    axes.set_title("Bytes that a client sends up in a round", fontsize="medium")
