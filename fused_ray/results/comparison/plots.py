"""Pictures of a comparison: what is forgotten against what stays, what it costs, and how deep the forgetting is.

A colour and a marker per method, the same in all pictures; points are means over seeds, bars standard deviations.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fused_ray.results.comparison.directory import ComparisonDirectory
from fused_ray.results.display import size
from fused_ray.results.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
Spread = tuple[float, float]
"""Mean and standard deviation over seeds."""

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers differ as well
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*Xhd<>"


def draw(directory: ComparisonDirectory, rows: Rows) -> None:
    """Draw a comparison's rows into plots/; a picture with nothing to show is left out."""
    rows = [row for row in rows if row.get("ra") is not None]
    pictures = {
        "forgetting": _scatter(rows, "fa", "ra", "forgotten data (FA), lower is better", "kept data (RA)"),
        "bytes": _bytes(rows),
        "depth": _scatter(
            rows,
            "bytes_up_total",
            "relearn_ratio",
            "bytes that all clients sent up for it",
            "steps to relearn / retrained model's",
        ),
    }
    for name, figure in pictures.items():
        if figure is not None:
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=120)
            directory.write(f"plots/{name}.png", content.getvalue())


def _scatter(rows: Rows, x: str, y: str, x_label: str, y_label: str) -> Figure | None:
    """A panel per scenario, a point per method; a logarithmic x axis for bytes."""
    rows = [row for row in rows if row.get(x) is not None and row.get(y) is not None]
    if not rows:
        return None
    scenarios, styles = _in_order(rows, "scenario"), _styles(rows)
    figure = new_figure(1.2 + 3.6 * len(scenarios), 4.8)
    panels: Sequence[Axes] = figure.subplots(1, len(scenarios), squeeze=False)[0]
    for axes, scenario in zip(panels, scenarios, strict=True):
        for method, (xs, xerr), (ys, yerr) in _points(rows, scenario, x, y):
            axes.errorbar(xs, ys, xerr=xerr, yerr=yerr, linestyle="", elinewidth=0.8, markersize=7, **styles[method])
        axes.set_title(scenario, fontsize="medium")
        axes.set_xlabel(x_label, fontsize="small")
        axes.grid(alpha=0.3)
        if x.startswith("bytes"):
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(lambda value, _: size(value))
        else:
            axes.margins(0.1)
    panels[0].set_ylabel(y_label)
    _legend(figure, panels)
    return figure


def _points(rows: Rows, scenario: str, x: str, y: str) -> Iterator[tuple[str, Spread, Spread]]:
    """Method, x and y."""
    here = [row for row in rows if row["scenario"] == scenario]
    for method in _in_order(here, "method"):
        of_method = [row for row in here if row["method"] == method]
        yield method, _mean([row[x] for row in of_method]), _mean([row[y] for row in of_method])


def _bytes(rows: Rows) -> Figure | None:
    """A bar per method on a log scale: the largest over the scenarios, which differ little."""
    sent = {m: max(row["bytes_up"] for row in rows if row["method"] == m) for m in _in_order(rows, "method")}
    sent = {method: count for method, count in sent.items() if count > 0}
    if not sent:
        return None
    figure = new_figure(8.0, 1.3 + 0.34 * len(sent))
    axes = figure.subplots()
    bars = axes.barh(list(sent), list(sent.values()), color=_COLOURS[0])
    axes.bar_label(bars, [size(count) for count in sent.values()], padding=4)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlim(min(sent.values()) / 4, max(sent.values()) * 6)  # room for the labels
    axes.xaxis.set_major_formatter(lambda value, _: size(value))
    axes.invert_yaxis()
    axes.set_title("Bytes that a client sends up in a round (log scale)", fontsize="medium")
    return figure


def _mean(values: Sequence[float]) -> Spread:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _in_order(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _styles(rows: Rows) -> dict[str, dict[str, Any]]:
    return {
        method: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)], "label": method}
        for i, method in enumerate(_in_order(rows, "method"))
    }


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, each method once."""
    found: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found = dict(zip(labels, handles, strict=True)) | found
    figure.legend(handles=list(found.values()), loc="outside lower center", ncols=4, frameon=False)
