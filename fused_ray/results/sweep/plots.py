"""Pictures of a sweep: accuracy against bytes with the front, K x sparsity as heat maps, curves over the rounds I."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fused_ray.results.display import size
from fused_ray.results.plots import new_figure
from fused_ray.results.sweep.directory import SweepDirectory
from fused_ray.results.sweep.front import Case, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart
_BLUE, _VERMILION, _GREY = "#0072B2", "#D55E00", "#999999"
_LABELS = {"ra": "kept data (RA)", "fa": "forgotten data (FA)"}
_K, _SPARSITY = "unlearn.layers", "unlearn.sparsity"


def draw(directory: SweepDirectory, cases: Sequence[Case]) -> None:
    """Draw into plots/; a picture with nothing to show is left out."""
    pictures = {"front": _front(cases), "rounds": _rounds(cases)}
    pictures |= {f"layers-sparsity-{number}": _heat(case) for number, case in enumerate(cases)}
    for name, figure in pictures.items():
        if figure is not None:
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=120)
            directory.write(f"plots/{name}.png", content.getvalue())


def _grid(cases: Sequence[Case]) -> tuple[Figure, Any]:
    """A column per case, RA above FA."""
    figure = new_figure(1.0 + 4.2 * len(cases), 6.6)
    return figure, figure.subplots(2, len(cases), squeeze=False, sharex="col")


def _front(cases: Sequence[Case]) -> Figure | None:
    """Every setting and round as a point, those on the front in colour, the recommended setting ringed.

    No line joins the front: it is one of three objectives, of which a panel shows two.
    """
    if not cases:
        return None
    figure, panels = _grid(cases)
    for column, case in enumerate(cases):
        for axes, name in zip(panels[:, column], _LABELS, strict=True):
            points = [s for s in case.settings if s["bytes_up_total"] > 0]
            axes.plot(*_xy(points, name), ".", color=_GREY, markersize=4, label="settings, every round")
            front = [s for s in case.front if s["bytes_up_total"] > 0]
            axes.plot(*_xy(front, name), "o", color=_VERMILION, markersize=4, label="Pareto front of RA, FA and bytes")
            if case.recommended is not None and case.recommended["bytes_up_total"] > 0:
                axes.plot(*_xy([case.recommended], name), "o", color="none", markeredgecolor="black", markersize=11,
                          label="recommended")  # fmt: skip
            _retrained(axes, case, name)
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(lambda value, _: size(value))
        _dress(panels, column, case, "bytes that all clients sent up for it")
    _legend(figure, panels)
    return figure


def _xy(settings: Sequence[Setting], name: str) -> tuple[list[float], list[float]]:
    return [s["bytes_up_total"] for s in settings], [s[name] for s in settings]


def _rounds(cases: Sequence[Case]) -> Figure | None:
    """A line per setting over I, the recommended one's in colour."""
    from matplotlib.ticker import MaxNLocator

    if not cases or max(setting.round for case in cases for setting in case.settings) < 1:
        return None
    figure, panels = _grid(cases)
    for column, case in enumerate(cases):
        curves: dict[str, list[Setting]] = {}
        for setting in case.settings:
            curves.setdefault(json.dumps(setting.values), []).append(setting)
        for axes, name in zip(panels[:, column], _LABELS, strict=True):
            for curve in curves.values():
                best = case.recommended is not None and curve[0].values == case.recommended.values
                axes.plot([s.round for s in curve], [s[name] for s in curve], color=_BLUE if best else _GREY,
                          linewidth=2 if best else 0.8, zorder=3 if best else 1, alpha=1 if best else 0.6,
                          label="recommended setting" if best else "settings")  # fmt: skip
            _retrained(axes, case, name)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _dress(panels, column, case, "rounds I (0: as the adapter starts)")
    _legend(figure, panels)
    return figure


def _heat(case: Case) -> Figure | None:
    """RA and FA over K and sparsity, the mean over everything else that was swept; None unless both were swept."""
    last = [s for s in case.settings if s.last and _K in s.values and _SPARSITY in s.values]
    rows = list(dict.fromkeys(json.dumps(s.values[_K]) for s in last))
    columns = sorted({float(s.values[_SPARSITY]) for s in last})
    if len(rows) < 2 or not 2 <= len(columns) <= 30:
        return None
    figure = new_figure(2.0 + 1.1 * len(columns) * 2, 1.8 + 0.6 * len(rows))
    for axes, name in zip(figure.subplots(1, 2), _LABELS, strict=True):
        cells = [[[s[name] for s in last if json.dumps(s.values[_K]) == k and s.values[_SPARSITY] == c]
                  for c in columns] for k in rows]  # fmt: skip
        means = [[sum(found) / len(found) if found else float("nan") for found in line] for line in cells]
        axes.imshow(means, cmap="cividis", aspect="auto")
        low, high = (f(v for line in means for v in line if v == v) for f in (min, max))
        for y, line in enumerate(means):
            for x, value in enumerate(line):
                dark = value < (low + high) / 2
                axes.text(x, y, f"{value:.3f}", ha="center", va="center", color="white" if dark else "black")
        axes.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
        axes.set_yticks(range(len(rows)), [row.strip('"') for row in rows])
        axes.set(xlabel="sparsity", ylabel="K, adapted layers")
        axes.set_title(_LABELS[name], fontsize="medium")
    others = [key.removeprefix("unlearn.") for key in last[0].values if key not in (_K, _SPARSITY)]
    over = f"; mean over {', '.join(others)}" if others else ""
    figure.suptitle((case.name or "K x sparsity") + f", after the last round{over}", fontsize="medium")
    return figure


def _retrained(axes: Axes, case: Case, name: str) -> None:
    value = case.settings[0].mean[f"{name}_retrained"]
    if value is not None:
        axes.axhline(value, color="black", linestyle="--", linewidth=1, label="retrained")


def _dress(panels: Any, column: int, case: Case, x_label: str) -> None:
    panels[0, column].set_title(case.name, fontsize="medium")
    panels[1, column].set_xlabel(x_label, fontsize="small")
    for axes, label in zip(panels[:, column], _LABELS.values(), strict=True):
        axes.grid(alpha=0.3)
        if column == 0:
            axes.set_ylabel(label)


def _legend(figure: Figure, panels: Any) -> None:
    """One legend for all panels, each kind once."""
    found: dict[str, Any] = {}
    for axes in panels.flat:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=4, frameon=False)
