"""Who holds what and must forget what: as a table in the terminal, and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from fused_ray.data.summary import MANY_CLIENTS, Row, counts
from fused_ray.errors import DataError
from fused_ray.runs import figures
from fused_ray.runs.screen import fits, make_screen, make_table
from fused_ray.types import Scenario

MANY_CLASSES = 20
"""With more of them, a table of clients has no column for each."""
MANY_NAMES = 100
"""With more classes, the picture names none of them."""

_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Ten that colour-blind readers can tell apart (Petroff, arXiv 2107.02270)."""


def show_clients(rows: Sequence[Row], class_names: Sequence[str], sha256: str, *, to_error: bool = False) -> None:
    """Who holds how many examples of which class, and how many of them must be forgotten.

    Where the terminal has no room for a column a class, columns have the classes' numbers; where there are too many for
    that, the table says how many of them a client holds, and most of which. Below the others are the classes' numbers,
    which `forget.classes` takes.
    """
    screen = make_screen(to_error)
    names = [name.replace("\n", "\\n") for name in class_names]
    screen.say("Who holds what (training examples)")
    tables = list(_tables(rows, names))
    chosen = next((table for table in tables if fits(screen, table)), tables[-1])
    screen.print(chosen)
    if chosen is not tables[-1] and names != [str(number) for number in range(len(names))]:
        screen.say(f"classes: {', '.join(f'{number} {name}' for number, name in enumerate(names))}")
    screen.say(f"partition sha256 {sha256}")


def _tables(rows: Sequence[Row], names: Sequence[str]) -> Iterator[Table]:
    """The table with classes by name, by number, and summed up; the widest first."""
    lines = [(row["name"], row["counts"], row["to_forget"]) for row in rows[:MANY_CLIENTS]]
    if others := rows[MANY_CLIENTS:]:
        lines.append(_summed(f"{len(others)} others", others))
    lines.append(_summed("all", rows))
    if len(names) <= MANY_CLASSES:
        each = [(who, str(sum(held)), *map(str, held), str(gone)) for who, held, gone in lines]
        yield make_table(("client", "examples", *names, "to forget"), each)
        yield make_table(("client", "examples", *map(str, range(len(names))), "to\nforget"), each, tight=True)
    summed = [(who, str(sum(held)), *_summary(held, names), str(gone)) for who, held, gone in lines]
    yield make_table(("client", "examples", "classes", "most of", "to forget"), summed)


def _summed(name: str, rows: Sequence[Row]) -> tuple[str, list[int], int]:
    """A line over several clients."""
    counts: list[int] = np.sum([row["counts"] for row in rows], axis=0).tolist()
    return name, counts, sum(row["to_forget"] for row in rows)


def _summary(held: Sequence[int], names: Sequence[str]) -> tuple[str, str]:
    largest = max(range(len(held)), key=held.__getitem__)
    return str(sum(count > 0 for count in held)), f"{names[largest]} ({held[largest]})"


def picture(scenario: Scenario, class_names: Sequence[str], path: Path) -> None:
    """Draw a bar per client, stacked by class, with what must be forgotten hatched; the suffix says the format.

    Raises DataError if that cannot be written.
    """
    figures.load()  # takes a while, and the table does without
    from matplotlib import colormaps
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    classes = len(class_names)
    held, forgotten = (count[:MANY_CLIENTS] for count in counts(scenario, classes))
    clients = np.arange(len(held))
    named = classes <= MANY_NAMES
    figure = figures.new(min(4 + 0.2 * len(held), 40), max(5.0, 1.5 + 0.24 * classes) if named else 5.0)
    axes = figure.add_subplot()
    many = colormaps["viridis"].resampled(classes)
    colours = _COLOURS if classes <= len(_COLOURS) else [many(c) for c in range(classes)]
    bottom = np.zeros(len(held))
    handles = []
    for c in range(classes):
        if named:
            handles.append(Patch(facecolor=colours[c], label=figures.text(class_names[c])))
        for part, hatch in ((held[:, c] - forgotten[:, c], None), (forgotten[:, c], "////")):
            some = part > 0
            axes.bar(
                clients[some], part[some], 0.85, bottom[some], color=colours[c], hatch=hatch, edgecolor="white", lw=0
            )
            bottom += part
    handles.append(Patch(facecolor="grey", edgecolor="white", hatch="////", label="to forget"))
    there, shown = len(scenario.held), len(held)
    which = "client" if shown == there else f"client, the first {shown:,} of {there:,}"
    axes.set(xlabel=which, ylabel="training examples", xlim=(-0.6, len(held) - 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(handles=handles[::-1], loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    try:
        figures.save(figure, path, path.suffix[1:].lower() or "png")
    except (OSError, ValueError) as error:  # no such folder; no such format
        raise DataError(f"cannot draw {path}: {error}") from None
