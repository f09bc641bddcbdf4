"""Three pictures of a finished run: how sensitive each layer is, how accuracies went, how much each phase sends.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart; shapes differ as well.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fused_ray.results.directory import RunDirectory
from fused_ray.results.display import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _VERMILION, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_TITLES = {
    "pretrain": "pre-train",
    "rank": "rank layers",
    "saliency": "gradients",
    "replay": "replay",
    "unlearn": "unlearn",
    "retrain": "retrain without the data",
}
_METRICS = {
    "ra": ("kept data (RA)", _BLUE, "o"),
    "fa": ("forgotten data (FA)", _VERMILION, "s"),
    "ca": ("overlap (CA)", _GREEN, "^"),
}
_READINGS = {
    "mean": "mean: change per parameter",
    "sum": "sum: change in all",
    "relative": "relative: change / own size",
}

Rows = Sequence[Mapping[str, Any]]


def draw(directory: RunDirectory, result: Mapping[str, Any]) -> None:
    """Draw `result`, the content of result.json, into plots/; a picture with nothing to show is left out."""
    rounds = directory.table("rounds").to_pylist()
    pictures = {
        "sensitivity": _sensitivity(result["layers"]),
        "accuracy": _accuracy(rounds, result["metrics"]),
        "bytes": _bytes(result["bytes"]),
    }
    for name, figure in pictures.items():
        if figure is not None:
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=120)
            directory.write(f"plots/{name}.png", content.getvalue())


def _sensitivity(layers: Mapping[str, Any]) -> Figure | None:
    """A panel per reading, a bar per layer, the most sensitive on top; None if nothing was ranked."""
    ranking = layers["ranking"]
    if not ranking:
        return None
    figure = new_figure(10.0, 1.7 + 0.28 * len(ranking))
    names = [item["layer"] for item in ranking]
    chosen = [name in layers["chosen"] for name in names]
    panels: Sequence[Axes] = figure.subplots(1, 3, sharey=True)
    for axes, (reading, title) in zip(panels, _READINGS.items(), strict=True):
        bars = axes.barh(names, [item[reading] for item in ranking], color=_GREY)
        for bar, marked in zip(bars, chosen, strict=True):
            if marked:
                bar.set(facecolor=_VERMILION, hatch="//", edgecolor="white")
        axes.set_title(title + ("\n(ranked by this)" if reading == layers["by"] else ""), fontsize="medium")
        axes.margins(y=0.02)
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.locator_params(axis="x", nbins=4)
    panels[0].invert_yaxis()  # shared by all three
    figure.suptitle(f"How much each layer moves when clients train (hatched: adapted, {', '.join(layers['chosen'])})")
    return figure


def _accuracy(rounds: Rows, metrics: Mapping[str, Any]) -> Figure | None:
    """A panel per phase on one scale; the dashed lines in unlearning are where retraining ends."""
    from matplotlib.ticker import MaxNLocator

    by_phase = {phase: [row for row in rounds if row["phase"] == phase] for phase in ("pretrain", "unlearn", "retrain")}
    by_phase = {phase: rows for phase, rows in by_phase.items() if rows}
    if not by_phase:
        return None
    shown = [name for name in _METRICS if metrics["before"].get(name) is not None]
    # width by rounds, but every panel wide enough for its title
    widths = [max(len(rows), max(map(len, by_phase.values())) / 2) for rows in by_phase.values()]
    figure = new_figure(2.0 + 3.2 * len(by_phase), 4.2)
    grid = figure.subplots(1, len(by_phase), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths})
    panels: Sequence[Axes] = grid[0]
    for axes, (phase, rows) in zip(panels, by_phase.items(), strict=True):
        numbers, start = [row["round"] for row in rows], None
        if phase == "unlearn":
            numbers, start = [0, *numbers], metrics["before"]
        for name in shown:
            label, colour, marker = _METRICS[name]
            values = [row[name] for row in rows]
            values = values if start is None else [start[name], *values]
            few = len(values) <= 40
            axes.plot(numbers, values, color=colour, marker=marker if few else None, markersize=4, label=label)
            if phase == "unlearn" and metrics["retrained"]:
                axes.axhline(metrics["retrained"][name], color=colour, linestyle="--", linewidth=1)
        axes.set_title(_TITLES[phase], fontsize="medium")
        axes.set_xlabel("round (0: before)" if phase == "unlearn" else "round")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y", alpha=0.3)
    panels[0].set(ylabel="accuracy on the test set", ylim=(-0.03, 1.03))
    handles, labels = panels[0].get_legend_handles_labels()
    if "unlearn" in by_phase and metrics["retrained"]:
        handles.append(_dashed())
        labels.append("where retraining ends")
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _bytes(phases: Mapping[str, Mapping[str, int]]) -> Figure | None:
    """A bar per phase on a log scale, labelled in words."""
    sent = {phase: found["up_per_client_per_round"] for phase, found in phases.items()}
    sent = {phase: count for phase, count in sent.items() if count > 0}
    if not sent:
        return None
    figure = new_figure(7.5, 1.3 + 0.45 * len(sent))
    axes = figure.subplots()
    colours = [_VERMILION if phase == "unlearn" else _BLUE for phase in sent]
    bars = axes.barh([_TITLES[phase] for phase in sent], list(sent.values()), color=colours)
    axes.bar_label(bars, [size(count) for count in sent.values()], padding=4)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlim(min(sent.values()) / 4, max(sent.values()) * 6)  # room for the labels
    axes.xaxis.set_major_formatter(lambda value, _: size(value))
    axes.invert_yaxis()
    axes.set_title("Bytes that a client sends up in a round (log scale)", fontsize="medium")
    return figure


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # takes a while, and without pyplot it draws with Agg and needs no screen

    return Figure(figsize=(width, height), layout="constrained")


def _dashed() -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color="black", linestyle="--", linewidth=1)
