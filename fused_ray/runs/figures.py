"""What all pictures share: size, colours, text, axes, legends, and files that are the same for the same figures.

Without pyplot a figure is drawn off screen, whatever backend is set. Text in pictures is the user's too: it is no
formula, and what the font has no sign for is written as a backslash escape.
"""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_ray.runs.screen import shown, size
from fused_ray.storage.folder import Folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#999999"

_NO_DATE: Mapping[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_SUBDIVISIONS = ((1,), (1, 3), (1, 2, 5), range(1, 10))
_COLUMNS = 6
"""Most entries of a legend side by side."""


def load() -> None:
    """Import matplotlib, whatever MPLBACKEND says: that names a way to open windows, which may not be there.

    It stays in force for the caller's own windows if matplotlib knows it.
    """
    wanted = os.environ.pop("MPLBACKEND", None)
    first = "matplotlib" not in sys.modules
    try:
        import matplotlib  # takes a while
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if first and wanted:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted


def new(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw(directory: Folder, pictures: Mapping[str, Figure | None], form: str) -> None:
    """Write pictures into plots/ of a folder that is locked; those with nothing to show are None."""
    for name, figure in pictures.items():
        if figure is not None:
            content = io.BytesIO()
            save(figure, content, form)
            directory.write(f"plots/{name}.{form}", content.getvalue())


def save(figure: Figure, target: Path | io.BytesIO, form: str) -> None:
    """Write a figure in a format that matplotlib knows. Raises OSError, or ValueError for another format."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "fused_ray"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(target, format=form, dpi=120, metadata=_NO_DATE.get(form))


def text(label: str) -> str:
    """Any text as matplotlib shows it: a dollar sign starts no formula, and every sign is one that the font has."""
    signs, plain = _signs(), shown(label, "utf-8").replace("\n", "\\n")
    plain = "".join(sign if ord(sign) in signs else shown(sign, "ascii") for sign in plain)
    # in a legend, a label with an underscore in front would be left out
    return (" " if plain.startswith("_") else "") + plain.replace("$", r"\$")


@cache
def _signs() -> frozenset[int]:
    """What the fonts that are set have, the ones to fall back on among them."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    codes: set[int] = set()
    for family in FontProperties().get_family():
        try:
            codes.update(get_font(findfont(FontProperties(family=[family]), fallback_to_default=False)).get_charmap())
        except ValueError:  # a font that is named, but not installed
            continue
    return frozenset(codes)


def legend_below(figure: Figure, entries: Mapping[str, Any]) -> None:
    """One legend below all panels, label to line, in as many columns as the figure is wide enough for."""
    for columns in range(min(_COLUMNS, len(entries)), 0, -1):
        legend = figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns, frameon=False
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def entries_of(panels: Iterable[Axes]) -> dict[str, Any]:
    """The legend of several panels, each label once."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries = dict(zip(labels, handles, strict=True)) | entries
    return entries


def accuracy_limits(values: Iterable[float]) -> tuple[float, float]:
    """Ends of an axis that shows these accuracies with some room, but nothing below 0 or above 1 where none can be."""
    values = list(values)
    low, high = max(0.0, min(values)), min(1.0, max(values))
    if high - low < 0.1:
        low, high = max(0.0, min(low, high - 0.1)), min(1.0, max(high, low + 0.1))
    span = high - low
    return max(low - 0.06 * span, -0.04 * span), min(high + 0.06 * span, 1 + 0.04 * span)


def bytes_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis of bytes, with at least two ticks that say how many."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values) / 1.5, max(values) * 1.5
    axes.set(xscale="log", xlim=(low, high))
    axes.xaxis.set_major_locator(FixedLocator(byte_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value).replace(".0 ", " ")))


def byte_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two others: powers of ten, and as many between them as it takes to have two."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for subdivision in _SUBDIVISIONS:
        ticks = [part * 10.0**decade for decade in decades for part in subdivision]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 2:
            return ticks[:: math.ceil(len(ticks) / 5)]
    return [low, high]
