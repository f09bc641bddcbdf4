"""A page as one HTML file that loads nothing: style, script and charts are in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from fused_ray.pages.parts import Part, Subject, worth

GENERATOR = "fused_ray report"
"""What a page says that it is; a file that says so may be replaced by another report."""
_HERE = Path(__file__).parent
_GOOD, _BAD, _NONE = ("forgotten",), ("not forgotten", "damaged"), ("vacuous", "unjudged")
_TONES = dict.fromkeys(_GOOD, "good") | {"shallow": "fair"} | dict.fromkeys(_BAD, "bad") | dict.fromkeys(_NONE, "none")
"""How a verdict is coloured: a class of the style sheet."""


def render(title: str, subjects: Sequence[Subject], overview: Sequence[Part] = ()) -> str:
    """The page of one result, or of several with an overview in front. All text is escaped."""
    assert subjects
    return _template().render(
        title=title,
        generator=GENERATOR,
        subjects=subjects,
        overview=overview,
        level=2 if len(subjects) == 1 else 3,
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
    )


@cache
def _template() -> Template:
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    environment.globals |= {"worth": worth, "grouped": _grouped, "tones": _TONES}
    return environment.get_template("page.html")


def _grouped(parts: Sequence[Part]) -> Iterator[tuple[bool, list[Part]]]:
    """Charts that follow each other stand side by side."""
    for charts, group in groupby(parts, key=lambda part: part.KIND == "chart"):
        yield charts, list(group)
