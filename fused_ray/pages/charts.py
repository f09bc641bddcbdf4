"""Charts of a page: lines and points, bars, heat maps, shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from fused_ray.pages.parts import Chart
from fused_ray.pages.svg import (
    LETTER,
    WIDTH,
    Scale,
    Show,
    below,
    beside,
    dashed,
    element,
    marker,
    picture,
    plain,
    room_for,
    shortened,
    sign,
    swatch,
    words,
)

MOST_POINTS = 400
"""Points of a line; of more, every so many-th is drawn."""
_TOP, _FOOT = 24.0, 36.0
"""Room for the name of the axis on the left, and for the axis below."""


@dataclass(frozen=True)
class Point:
    """One figure, and what is said of it on request."""

    x: float
    y: float
    tip: str
    low: float | None = None
    """Ends of its range, if it has one."""
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points that belong together."""

    name: str
    points: Sequence[Point]
    joined: bool = True
    hollow: bool = False
    style: int | None = None
    """Colour and shape; unset: its place among the others."""
    rule: float | None = None
    """Where a dashed line of its colour lies, which its points are held against."""


@dataclass(frozen=True)
class Axis:
    """Of figures."""

    label: str
    log: bool = False
    show: Show = plain
    limits: tuple[float, float] | None = None
    """Its ends; unset: the figures with some room."""
    whole: bool = False
    """Whether there is nothing between two whole numbers."""

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        """Where figures are on it."""
        if self.limits is not None:
            return Scale(*self.limits, start, end, self.log, self.whole)
        return replace(Scale.over(values, start, end, self.log), whole=self.whole)


def points(
    title: str, description: str, series: Sequence[Series], x: Axis, y: Axis, *, against: str = "", height: float = 250
) -> Chart | None:
    """Points over two axes, joined or not; `against` names the dashed lines. None without any point."""
    shown = [one for one in series if one.points]
    if not shown:
        return None
    everything = [point for one in shown for point in one.points]
    rules = [one.rule for one in shown if one.rule is not None]
    ends = [end for point in everything for end in (point.low, point.high) if end is not None]
    left, right, bottom = 46.0, WIDTH - 10, height - _FOOT
    across = x.scale([point.x for point in everything], left, right)
    up = y.scale([*(point.y for point in everything), *rules, *ends], bottom, _TOP)
    drawn = [*beside(up, left, right, y.label, y.show), *below(across, _TOP, bottom, x.label, x.show)]
    for place, one in enumerate(shown):
        drawn += _drawn(one, place if one.style is None else one.style, across, up)
    legend: dict[str, Markup] = {}
    for place, one in enumerate(shown):
        legend.setdefault(one.name, sign(_style(one, place), one.joined, one.hollow))
    if rules and against:
        legend[against] = dashed()
    return Chart(picture(title, description, height, drawn), title, tuple(legend.items()))


def _style(one: Series, place: int) -> int:
    return place if one.style is None else one.style


def _drawn(one: Series, style: int, across: Scale, up: Scale) -> list[str]:
    drawn = []
    every = math.ceil(len(one.points) / MOST_POINTS)
    kept = [point for number, point in enumerate(one.points) if number % every == 0 or number == len(one.points) - 1]
    if one.rule is not None:
        drawn.append(
            element("path", d=f"M{across.start:.1f} {up(one.rule):.1f}H{across.end:.1f}", class_=f"rule s{style % 8}")
        )
    if one.joined and len(kept) > 1:
        way = "L".join(f"{across(point.x):.1f} {up(point.y):.1f}" for point in kept)
        drawn.append(element("path", d=f"M{way}", class_=f"l s{style % 8}"))
    for point in kept:
        if point.low is not None and point.high is not None:
            drawn.append(
                element(
                    "path",
                    d=f"M{across(point.x):.1f} {up(point.low):.1f}V{up(point.high):.1f}",
                    class_=f"l s{style % 8}",
                )
            )
    radius = 3.6 if len(kept) <= 60 else 2.2
    drawn += [marker(style, across(point.x), up(point.y), radius, point.tip, one.hollow) for point in kept]
    return drawn


@dataclass(frozen=True)
class Bar:
    """One figure with its name."""

    name: str
    value: float
    shown: str
    marked: bool = False
    tip: str = ""


def bars(
    title: str, description: str, given: Sequence[Bar], *, log: bool = False, legend: Sequence[str] = ()
) -> Chart | None:
    """A bar a figure, its value beside it; `legend` names the plain and the marked ones. None without any."""
    given = [bar for bar in given if bar.value > 0 or not log]
    if not given:
        return None
    left = room_for([bar.name for bar in given], 130)
    values = [bar.value for bar in given]
    right = WIDTH - room_for([bar.shown for bar in given], 90)
    low = min(values) / 4 if log else min(0.0, *values)
    scale = Scale(low, max(*values, low + 1e-12) if len(values) > 1 else max(values[0], low + 1e-12), left, right, log)
    drawn = []
    for number, bar in enumerate(given):
        y = 6 + 22.0 * number
        ends = sorted((scale(bar.value), scale(low if log else 0.0)))
        tip = bar.tip or f"{bar.name}: {bar.shown}"
        drawn += [
            words(shortened(bar.name, int((left - 6) / LETTER)), left - 6, y + 12, "end"),
            element("rect", x=ends[0], y=y, width=max(1.0, ends[1] - ends[0]), height=16.0, rx=2,
                    class_=f"b s{1 if bar.marked else 0}", data_tip=tip),
            words(bar.shown, ends[1] + 5, y + 12),
        ]  # fmt: skip
    signs = [(name, swatch(number)) for number, name in enumerate(legend)]
    return Chart(picture(title, description, 10 + 22.0 * len(given), drawn), title, signs)


def heat(
    title: str,
    description: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    shown: Sequence[Sequence[str]],
    across: str,
    down: str,
    limits: tuple[float, float] | None = None,
    outlined: Sequence[tuple[int, int]] = (),
) -> Chart | None:
    """A field of cells, the darker the more; None is empty. `shown` is each cell's text, there where it has room."""
    known = [value for line in values for value in line if value is not None]
    if not known:
        return None
    low, high = limits or (min(known), max(max(known), min(known) + 1e-9))
    left = room_for(rows, 96) + 14
    wide = (WIDTH - left - 4) / len(columns)
    tall = min(26.0, max(9.0, wide)) if len(rows) > 12 else 24.0
    upright = wide < LETTER * max(map(len, columns)) + 4
    top = 20 + (min(90.0, 8 + LETTER * max(map(len, columns))) if upright else 14)
    drawn = [words(across, (left + WIDTH) / 2, 12, "middle", "axis"), words(down, 2, 12, "start", "axis")]
    fits = all(LETTER * len(text) <= wide - 2 for line in shown for text in line) and tall >= 12
    edge = set(outlined)
    for number, name in enumerate(columns):
        drawn.append(_column(name, left + wide * (number + 0.5), top - 5, upright))
    for y, (row, line) in enumerate(zip(rows, values, strict=True)):
        if tall >= 9:
            drawn.append(
                words(shortened(row, int((left - 18) / LETTER)), left - 6, top + tall * (y + 0.5) + 3.8, "end")
            )
        for x, value in enumerate(line):
            if value is not None:
                share = (value - low) / (high - low)
                tip = f"{down} {row}, {across} {columns[x]}: {shown[y][x]}"
                place = (left + wide * x, top + tall * y, wide, tall)
                drawn.append(_cell(place, share, shown[y][x] if fits else "", tip, (y, x) in edge))
    return Chart(picture(title, description, top + tall * len(rows) + 6, drawn), title)


def _column(name: str, x: float, y: float, upright: bool) -> str:
    if not upright:
        return words(name, x, y, "middle")
    text = words(shortened(name, 15), 0, 0)
    return element("g", text, transform=f"translate({x + 4:.1f} {y:.1f}) rotate(-90)")


_LIGHT, _DARK = 0.55, 0.42
"""From these shares on a cell's text has the other colour, in a light and in a dark page."""


def _cell(place: tuple[float, float, float, float], share: float, text: str, tip: str, outlined: bool) -> str:
    x, y, wide, tall = place
    box = element(
        "rect", x=x + 0.5, y=y + 0.5, width=wide - 1, height=tall - 1, class_="c", fill_opacity=f"{share:.3f}"
    )
    if outlined:
        box += element("rect", x=x + 1.5, y=y + 1.5, width=wide - 3, height=tall - 3, class_="o")
    if text:
        kind = " ".join(name for name, limit in (("li", _LIGHT), ("di", _DARK)) if share >= limit)
        box += words(text, x + wide / 2, y + tall / 2 + 3.8, "middle", f"v {kind}".strip())
    return element("g", box, data_tip=tip)


def shares(
    title: str, description: str, rows: Sequence[str], names: Sequence[str], values: Sequence[Sequence[float]]
) -> Chart:
    """A bar a row, cut into named shares that add up to at most 1."""
    left, drawn = room_for(rows, 170), []
    scale = Scale(0.0, 1.0, left, WIDTH - 6)
    for number, (row, line) in enumerate(zip(rows, values, strict=True)):
        y, so_far = 6 + 22.0 * number, 0.0
        drawn.append(words(shortened(row, int((left - 6) / LETTER)), left - 6, y + 12, "end"))
        for part, (name, value) in enumerate(zip(names, line, strict=True)):
            box = {"x": scale(so_far), "y": y, "width": max(0.0, scale(so_far + value) - scale(so_far)), "height": 16.0}
            drawn.append(element("rect", **box, class_=f"b s{part % 8}", data_tip=f"{row}: {name} {value:.1%}"))
            so_far += value
    legend = [(name, swatch(part)) for part, name in enumerate(names)]
    return Chart(picture(title, description, 10 + 22.0 * len(rows), drawn), title, legend)


def only(*charts: Chart | None) -> list[Chart]:
    """Those that there is something to show in."""
    return [chart for chart in charts if chart is not None]
