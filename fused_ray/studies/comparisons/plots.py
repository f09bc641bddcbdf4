"""Pictures of a comparison: what is forgotten against what stays, what it costs, and how deep the forgetting is.

A colour and a marker per method, the same in all pictures; points are means over seeds, bars standard deviations.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fused_ray.config.fields import Plots
from fused_ray.runs import figures
from fused_ray.runs.plots import byte_bars
from fused_ray.studies.comparisons.directory import ComparisonDirectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
Spread = tuple[float, float]
"""Mean and standard deviation over seeds."""
Styles = Mapping[str, Mapping[str, Any]]

_COLOURS = (
    *(figures.BLUE, figures.VERMILION, figures.GREEN, figures.PURPLE),
    *(figures.ORANGE, figures.SKY, figures.BLACK),
)
_MARKERS = "osD^vP*Xhd<>"


def draw(directory: ComparisonDirectory, rows: Rows, form: Plots) -> None:
    """Draw a comparison's rows into plots/; a picture with nothing to show is left out."""
    if form == "none":
        return
    figures.load()
    rows = [row for row in rows if row.get("ra") is not None]
    pictures = {"forgetting": _forgetting(rows), "bytes": _bytes(rows), "depth": _depth(rows)}
    figures.draw(directory, pictures, form)


def _forgetting(rows: Rows) -> Figure | None:
    """RA over FA, with the model before, and lines where the retrained model is."""

    def panel(axes: Axes, here: Rows, styles: Styles) -> None:
        _points(axes, here, "fa", "ra", styles)
        fa, ra = _once(here, "fa_before"), _once(here, "ra_before")
        if fa and ra:
            before = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "color": "black"}
            _point(axes, _mean(fa), _mean(ra), {"label": "before: it remembers", **before})
        for line, name in ((axes.axvline, "fa"), (axes.axhline, "ra")):
            if values := _once(here, f"{name}_retrained"):
                line(_mean(values)[0], color="black", linestyle="--", linewidth=1, label="retrained without the data")
        for name, limit in (("fa", axes.set_xlim), ("ra", axes.set_ylim)):
            spreads = [x if name == "fa" else y for _, x, y in _means(here, "fa", "ra")]
            spreads += [_mean(values) for kind in ("before", "retrained") if (values := _once(here, f"{name}_{kind}"))]
            limit(figures.accuracy_limits(mean + side for mean, dev in spreads for side in (-dev, dev)))

    return _panels(rows, "forgotten data (FA), lower is better", "kept data (RA), higher is better", panel)


def _depth(rows: Rows) -> Figure | None:
    """Steps to relearn against the retrained model's, over what was sent for it."""
    rows = [row for row in rows if row.get("relearn_ratio") is not None and row["bytes_up_total"] > 0]

    def panel(axes: Axes, here: Rows, styles: Styles) -> None:
        _points(axes, here, "bytes_up_total", "relearn_ratio", styles)
        axes.axhline(1.0, color="black", linestyle="--", linewidth=1, label="as the retrained model")
        figures.bytes_axis(axes, [row["bytes_up_total"] for row in here])
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])

    return _panels(rows, "bytes that all clients sent up for it", "steps to relearn / retrained model's", panel)


def _panels(rows: Rows, x_label: str, y_label: str, draw: Callable[[Axes, Rows, Styles], None]) -> Figure | None:
    """A panel per scenario; None without rows."""
    if not rows:
        return None
    scenarios, styles = _in_order(rows, "scenario"), _styles(rows)
    figure = figures.new(1.2 + 3.6 * len(scenarios), 4.8)
    panels: Sequence[Axes] = figure.subplots(1, len(scenarios), squeeze=False)[0]
    for axes, scenario in zip(panels, scenarios, strict=True):
        draw(axes, [row for row in rows if row["scenario"] == scenario], styles)
        axes.set_title(scenario, fontsize="medium")
        axes.set_xlabel(x_label, fontsize="small")
        axes.tick_params(axis="x", labelsize="small")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(y_label)
    figures.legend_below(figure, figures.entries_of(panels))
    return figure


def _points(axes: Axes, rows: Rows, x: str, y: str, styles: Styles) -> None:
    """A point per method."""
    for method, xs, ys in _means(rows, x, y):
        _point(axes, xs, ys, styles[method])


def _point(axes: Axes, x: Spread, y: Spread, style: Mapping[str, Any]) -> None:
    drawn: dict[str, Any] = {"linestyle": "", "elinewidth": 0.8, "markersize": 7, **style}
    axes.errorbar(x[0], y[0], xerr=_bar(*x), yerr=_bar(*y), **drawn)


def _bar(mean: float, deviation: float) -> list[list[float]]:
    """Down and up from a mean, not below 0: none of these figures can be."""
    return [[min(deviation, mean)], [deviation]]


def _means(rows: Rows, x: str, y: str) -> Iterator[tuple[str, Spread, Spread]]:
    """Method, x and y."""
    for method in _in_order(rows, "method"):
        of_method = [row for row in rows if row["method"] == method]
        yield method, _mean([row[x] for row in of_method]), _mean([row[y] for row in of_method])


def _once(rows: Rows, name: str) -> list[float]:
    """What all methods share, one value a seed."""
    return list({row["seed"]: float(row[name]) for row in rows if row.get(name) is not None}.values())


def _bytes(rows: Rows) -> Figure | None:
    """A bar per method on a log scale: the largest over the scenarios, which differ little."""
    sent = {m: max(row["bytes_up"] for row in rows if row["method"] == m) for m in _in_order(rows, "method")}
    sent = {method: count for method, count in sent.items() if count > 0}
    if not sent:
        return None
    figure = figures.new(8.0, 1.5 + 0.34 * len(sent))
    byte_bars(figure, sent, [figures.BLUE] * len(sent))
    return figure


def _mean(values: Sequence[float]) -> Spread:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _in_order(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _styles(rows: Rows) -> Styles:
    return {
        method: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)], "label": method}
        for i, method in enumerate(_in_order(rows, "method"))
    }
