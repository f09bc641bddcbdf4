"""Pictures of a scaling study: seconds and efficiency, what seconds go to, and predicted against measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from fused_ray.config.fields import Plots
from fused_ray.runs import figures
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.scaling.measure import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
_COLOURS = (figures.BLUE, figures.VERMILION, figures.GREEN, figures.PURPLE, figures.ORANGE, figures.SKY, figures.BLACK)
_MARKERS = "osD^vP*Xhd<>"


def draw(directory: ScalingDirectory, points: Rows, form: Plots) -> None:
    """Draw into plots/; a picture with nothing to show is left out."""
    if form == "none":
        return
    figures.load()
    pictures = {
        "seconds": _seconds(points),
        "efficiency": _efficiency(points),
        "split": _split(points),
        "predicted": _predicted(points),
    }
    figures.draw(directory, pictures, form)


def lines(points: Rows, names: Sequence[str]) -> list[tuple[str, Rows]]:
    """The points that have the same of these columns, by what they have."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in points:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    titles = {key: ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True)) for key in groups}
    return [(titles[key], group) for key, group in groups.items()]


def _seconds(points: Rows) -> Figure:
    """Seconds of a round over clients, with their range: a line per payload, actors and nodes."""
    figure = figures.new(7.0, 5.0)
    axes = figure.subplots()
    for number, (title, group) in enumerate(lines(points, ("payload", "actors", "nodes"))):
        group = sorted(group, key=lambda row: row["clients"])
        middle = [row["seconds"] for row in group]
        below = [row["seconds"] - row["least"] for row in group]
        above = [row["most"] - row["seconds"] for row in group]
        axes.errorbar(
            [row["clients"] for row in group], middle, [below, above], label=figures.text(title), **_style(number)
        )
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel="seconds of a round, median and range")
    return _with_legend(figure, axes)


def _efficiency(points: Rows) -> Figure | None:
    """Strong and weak, over actors."""
    kinds = {"strong": "clients", "weak": "clients an actor"}
    rows = [{**row, "clients an actor": round(row["clients"] / row["actors"], 1)} for row in points]
    if not any(row[kind] is not None for kind in kinds for row in rows):
        return None
    figure = figures.new(9.0, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    numbers = count()  # all lines are in one legend
    for axes, (kind, fixed) in zip(panels, kinds.items(), strict=True):
        compared = [row for row in rows if row[kind] is not None]
        for title, group in lines(compared, (fixed, "payload")):
            group = sorted(group, key=lambda row: (row["actors"], row["nodes"]))
            axes.plot(
                [row["actors"] for row in group],
                [row[kind] for row in group],
                label=figures.text(title),
                **_style(next(numbers)),
            )
        axes.axhline(1.0, color="black", linestyle=":", linewidth=1)
        axes.set(xlabel="actors", title=f"{kind} scaling")
        axes.set_xticks(sorted({row["actors"] for row in compared}))
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="efficiency", ylim=(0, None))
    figures.legend_below(figure, figures.entries_of(panels))
    return figure


def _split(points: Rows) -> Figure:
    """A bar per point: what its seconds go to."""
    figure = figures.new(8.0, 1.6 + 0.3 * len(points))
    axes = figure.subplots()
    names = [f"{row['clients']:,} clients, {row['actors']} actors, {row['payload']}" for row in points]
    if max(row["nodes"] for row in points) > 1:
        names = [f"{name}, {row['nodes']} nodes" for name, row in zip(names, points, strict=True)]
    left = [0.0] * len(points)
    for colour, part in zip(_COLOURS, PARTS, strict=False):
        shares = [row[part] for row in points]
        axes.barh(range(len(points)), shares, left=left, color=colour, label=part)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(points)), list(map(figures.text, names)))
    axes.invert_yaxis()
    axes.set(xlabel="share of a round's seconds", xlim=(0, 1))
    figures.legend_below(figure, figures.entries_of([axes]))
    return figure


def _predicted(points: Rows) -> Figure | None:
    """The cost model's seconds over the measured ones."""
    known = [row for row in points if row["predicted"] is not None]
    if not known:
        return None
    figure = figures.new(5.6, 5.2)
    axes = figure.subplots()
    for held_out, title in ((False, "fitted"), (True, "held out")):
        rows = [row for row in known if row["held_out"] == held_out]
        axes.plot([row["seconds"] for row in rows], [row["predicted"] for row in rows], label=title,
                  **{**_style(int(held_out)), "linestyle": "none"})  # fmt: skip
    ends = [limit(row["seconds"] for row in known) for limit in (min, max)]
    axes.plot(ends, ends, color="black", linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="measured seconds of a round", ylabel="predicted")
    return _with_legend(figure, axes)


def _style(number: int) -> dict[str, Any]:
    return {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)], "linewidth": 1.2}


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    axes.grid(alpha=0.3)
    figures.legend_below(figure, figures.entries_of([axes]))
    return figure
