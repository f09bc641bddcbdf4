"""SVG: elements whose text is escaped, scales, and axes. Colours are classes of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH = 400.0
"""Of every chart, in its own units; a letter is at most some 6.4 wide at the size that text has there."""
LETTER = 6.4
SERIES = 8
"""Colours and markers that the style sheet has."""


def element(name: str, content: str = "", /, **attributes: object) -> str:
    """An element; `class_` is the attribute class, and - is _ . Attributes that are None are left out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}>{content}</{name}>" if content else f"<{name}{said}/>"


def words(text: str, x: float, y: float, anchor: str = "start", class_: str | None = None) -> str:
    """Text at a place."""
    return element("text", escape(text), x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def picture(title: str, description: str, height: float, content: Iterable[str]) -> Markup:
    """A whole chart, with a name and a description for who does not see it."""
    named = element("title", escape(title)) + element("desc", escape(description))
    about = {"viewBox": f"0 0 {WIDTH:g} {height:g}", "role": "img", "tabindex": "0", "class_": "chart"}
    return Markup(element("svg", named + "".join(content), **about))


def marker(series: int, x: float, y: float, radius: float = 3.6, tip: str | None = None, hollow: bool = False) -> str:
    """A point of a series: each has a shape of its own, too. `tip` is what is said of it on request."""
    shape = _SHAPES[series % len(_SHAPES)]
    path = "M" + "L".join(f"{x + radius * a:.1f} {y + radius * b:.1f}" for a, b in shape) + "Z"
    kind = f"m s{series % SERIES}" + (" hollow" if hollow else "")
    return element("path", d=path, class_=kind, data_tip=tip)


def sign(series: int, joined: bool = False, hollow: bool = False) -> Markup:
    """The sign of a series for a legend."""
    line = element("path", d="M1 7H25", class_=f"l s{series % SERIES}") if joined else ""
    return Markup(
        element("svg", line + marker(series, 13, 7, 4.5, hollow=hollow), viewBox="0 0 26 14", aria_hidden="true")
    )


def swatch(series: int) -> Markup:
    """The sign of a filled area for a legend."""
    box = element("rect", x=4, y=2, width=18, height=10, class_=f"b s{series % SERIES}")
    return Markup(element("svg", box, viewBox="0 0 26 14", aria_hidden="true"))


def dashed() -> Markup:
    """The sign of a line that a chart is held against."""
    return Markup(element("svg", element("path", d="M1 7H25", class_="rule"), viewBox="0 0 26 14", aria_hidden="true"))


@dataclass(frozen=True)
class Scale:
    """From figures to places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, log: bool = False, room: float = 0.05) -> Scale:
        """One that these values fit on, with some room at both ends."""
        known = list(values)
        low, high = min(known), max(known)
        if log:
            spread = max(math.log10(high / low), 0.2) * room
            return cls(low / 10 ** (spread + 0.02), high * 10 ** (spread + 0.02), start, end, log)
        wide = (high - low) or abs(high) or 1.0
        return cls(low - room * wide, high + room * wide, start, end)

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round figures on it."""
        return self._decades(most) if self.log else self._steps(most)

    def _steps(self, most: int) -> list[float]:
        whole = (self.high - self.low) / most
        size = 10.0 ** math.floor(math.log10(whole))
        step = next(size * part for part in (1, 2, 2.5, 5, 10) if size * part >= whole)
        step = max(1.0, math.ceil(step)) if self.whole else step
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _decades(self, most: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for parts in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
            found = [part * 10.0**decade for decade in decades for part in parts]
            found = [tick for tick in found if self.low <= tick <= self.high]
            if len(found) >= 2:
                break
        return found[:: math.ceil(len(found) / most)] if found else [self.low, self.high]


Show = Callable[[float], str]


def plain(value: float) -> str:
    """A figure at a tick."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def below(scale: Scale, top: float, bottom: float, label: str, show: Show = plain, most: int = 6) -> Iterable[str]:
    """The axis below a chart, with lines up to its top."""
    for tick in scale.ticks(most):
        x = scale(tick)
        yield element("path", d=f"M{x:.1f} {top:.1f}V{bottom:.1f}", class_="grid")
        yield words(show(tick), x, bottom + 13, "middle")
    yield words(label, (scale.start + scale.end) / 2, bottom + 28, "middle", "axis")


def beside(scale: Scale, left: float, right: float, label: str, show: Show = plain) -> Iterable[str]:
    """The axis on the left of a chart, with its name above it."""
    for tick in scale.ticks(5):
        y = scale(tick)
        yield element("path", d=f"M{left:.1f} {y:.1f}H{right:.1f}", class_="grid")
        yield words(show(tick), left - 5, y + 3.5, "end")
    yield words(label, 2, min(scale.start, scale.end) - 8, class_="axis")


def shortened(label: str, letters: int) -> str:
    """A label that has room for so many letters."""
    return label if len(label) <= letters else f"{label[: letters - 1]}…"


def room_for(labels: Sequence[str], most: float) -> float:
    """How wide a column of labels is."""
    return min(most, 8 + LETTER * max(map(len, labels), default=0))


def _text(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else escape(str(value))


_CIRCLE = tuple((math.cos(a * math.pi / 6), math.sin(a * math.pi / 6)) for a in range(12))
_SHAPES: tuple[Sequence[tuple[float, float]], ...] = (
    _CIRCLE,
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
    ((-1.2, -0.4), (-0.4, -0.4), (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4),
     (1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4)),
    ((1.2, 0), (-0.8, -1.1), (-0.8, 1.1)),
)  # fmt: skip
"""Of a point, by series: a circle, a square, triangles, a diamond, a cross."""
