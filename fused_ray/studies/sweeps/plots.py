"""Pictures of a sweep: accuracy against bytes with the front, K x sparsity as heat maps, curves over the rounds I."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fused_ray.config import RunConfig
from fused_ray.config.fields import Plots
from fused_ray.runs import figures
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.front import Case, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {"ra": "kept data (RA), higher is better", "fa": "forgotten data (FA), lower is better"}
_K, _SPARSITY = "unlearn.layers", "unlearn.sparsity"
_STANDARDS = {"retrained": ("retrained without the data", "--"), "before": ("before unlearning", ":")}
"""What settings are seen against: its name, and the line that stands for it."""


def draw(directory: SweepDirectory, cases: Sequence[Case], base: RunConfig, form: Plots) -> None:
    """Draw into plots/; a picture with nothing to show is left out."""
    if form == "none":
        return
    figures.load()
    pictures = {"front": _front(cases, base), "rounds": _rounds(cases, base)}
    pictures |= {f"layers-sparsity-{number}": _heat(case, base) for number, case in enumerate(cases)}
    figures.draw(directory, pictures, form)


def _panels(cases: Sequence[Case], base: RunConfig, x_label: str, draw: Callable[[Axes, Case, str], None]) -> Figure:
    """A column per case, RA above FA."""
    figure = figures.new(1.4 + 4.2 * len(cases), 6.8)
    panels = figure.subplots(2, len(cases), squeeze=False, sharex="col")
    for column, case in enumerate(cases):
        for axes, name in zip(panels[:, column], _LABELS, strict=True):
            draw(axes, case, name)
            shown = [setting[name] for setting in case.settings] + _standards(axes, case, name)
            axes.set_ylim(figures.accuracy_limits(shown))
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(_LABELS[name])
        panels[0, column].set_title(_title(case, base, 42), fontsize="medium")
        panels[1, column].set_xlabel(x_label, fontsize="small")
    figures.legend_below(figure, figures.entries_of(panels.flat))
    return figure


def _front(cases: Sequence[Case], base: RunConfig) -> Figure | None:
    """Every setting and round as a point, those on the front in colour, the recommended setting ringed.

    No line joins the front: it is one of three objectives, of which a panel shows two.
    """
    cases = [case for case in cases if _sending(case.settings)]

    def panel(axes: Axes, case: Case, name: str) -> None:
        points, front = _sending(case.settings), _sending(case.front)
        axes.plot(*_xy(points, name), ".", color=figures.GREY, markersize=4, label="settings, every round")
        axes.plot(
            *_xy(front, name), "o", color=figures.VERMILION, markersize=4, label="Pareto front of RA, FA and bytes"
        )
        if ringed := _sending([case.recommended] if case.recommended else []):
            axes.plot(
                *_xy(ringed, name), "o", color="none", markeredgecolor="black", markersize=11, label="recommended"
            )
        figures.bytes_axis(axes, [s["bytes_up_total"] for s in points])

    return _panels(cases, base, "bytes that all clients sent up for it", panel) if cases else None


def _sending(settings: Sequence[Setting]) -> list[Setting]:
    """Those that a logarithmic axis of bytes has a place for."""
    return [setting for setting in settings if setting["bytes_up_total"] > 0]


def _xy(settings: Sequence[Setting], name: str) -> tuple[list[float], list[float]]:
    return [s["bytes_up_total"] for s in settings], [s[name] for s in settings]


def _rounds(cases: Sequence[Case], base: RunConfig) -> Figure | None:
    """A line per setting over I, the recommended one's in colour."""
    from matplotlib.ticker import MaxNLocator

    if not cases or max(setting.round for case in cases for setting in case.settings) < 1:
        return None

    def panel(axes: Axes, case: Case, name: str) -> None:
        curves: dict[str, list[Setting]] = {}
        for setting in case.settings:
            curves.setdefault(json.dumps(setting.values), []).append(setting)
        for curve in curves.values():
            best = case.recommended is not None and curve[0].values == case.recommended.values
            axes.plot([s.round for s in curve], [s[name] for s in curve],
                      color=figures.BLUE if best else figures.GREY, linewidth=2 if best else 0.8,
                      zorder=3 if best else 1, alpha=1 if best else 0.6, marker="." if len(curve) == 1 else None,
                      label="recommended setting" if best else "settings")  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    return _panels(cases, base, "rounds I (0: as the adapter starts)", panel)


def _heat(case: Case, base: RunConfig) -> Figure | None:
    """RA and FA over K and sparsity, the mean over everything else that was swept; None unless both were swept."""
    last = [s for s in case.settings if s.last and _K in s.values and _SPARSITY in s.values]
    rows = list(dict.fromkeys(json.dumps(s.values[_K]) for s in last))
    columns = sorted({float(s.values[_SPARSITY]) for s in last})
    if len(rows) < 2 or not 2 <= len(columns) <= 30:
        return None
    figure = figures.new(2.4 + 1.1 * len(columns) * 2, 2.2 + 0.6 * len(rows))
    for axes, name in zip(figure.subplots(1, 2), _LABELS, strict=True):
        cells = [[[s[name] for s in last if json.dumps(s.values[_K]) == k and s.values[_SPARSITY] == c]
                  for c in columns] for k in rows]  # fmt: skip
        means = [[sum(values) / len(values) if values else float("nan") for values in line] for line in cells]
        _cells(axes, means)
        axes.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
        axes.set_yticks(range(len(rows)), [figures.text(row.strip('"')) for row in rows])
        axes.set(xlabel="sparsity", ylabel="K, adapted layers")
        axes.set_title(_LABELS[name].replace(", ", "\n"), fontsize="medium")
    others = [key.removeprefix("unlearn.") for key in last[0].values if key not in (_K, _SPARSITY)]
    over = f"; mean over {', '.join(others)}" if others else ""
    figure.suptitle(_title(case, base, 40 + 24 * len(columns), f", after the last round{over}"), fontsize="medium")
    return figure


def _cells(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    """Numbers on their colours, white where these are dark. What was not tried, NaN, stays empty."""
    known = [value for line in values for value in line if value == value]
    low, high = min(known), max(max(known), min(known) + 0.05)
    image = axes.imshow(values, cmap="cividis", aspect="auto", vmin=low, vmax=high)
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if value == value:
                red, green, blue, _ = image.cmap((value - low) / (high - low))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                axes.text(x, y, f"{value:.3f}", ha="center", va="center", color="white" if dark else "black")


def _standards(axes: Axes, case: Case, name: str) -> list[float]:
    """Lines where the retrained model and the one before are, and these values."""
    accuracies = {kind: case.settings[0].mean[f"{name}_{kind}"] for kind in _STANDARDS}
    known = {kind: value for kind, value in accuracies.items() if value is not None}
    for kind, value in known.items():
        label, style = _STANDARDS[kind]
        axes.axhline(value, color="black", linestyle=style, linewidth=1, label=label)
    return list(known.values())


def _title(case: Case, base: RunConfig, width: int, more: str = "") -> str:
    """What a case is called, in lines of so many letters."""
    lines = textwrap.wrap((case.name or f"scenario {base.forget.scenario}") + more, width)
    return "\n".join(map(figures.text, lines))
