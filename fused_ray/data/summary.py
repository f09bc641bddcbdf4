"""Who holds what and must forget what, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from fused_ray.errors import DataError
from fused_ray.types import ImageData, IntVector, Scenario

_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Ten that colour-blind readers can tell apart (Petroff, arXiv 2107.02270)."""


class Row(TypedDict):
    """What one client holds."""

    client: int
    name: str
    """What its owner's partition calls it; else its number."""
    examples: int
    counts: list[int]
    """Examples of each class, by the labels that clients train on."""
    to_forget: int


def rows(scenario: Scenario, data: ImageData) -> list[Row]:
    """A row per client; the counts of all rows add up to the training set."""
    held, forgotten = _counts(scenario, data.classes)
    names = scenario.client_names or tuple(map(str, range(len(held))))
    return [
        Row(client=client, name=name, examples=int(own.sum()), counts=own.tolist(), to_forget=int(gone.sum()))
        for client, (name, own, gone) in enumerate(zip(names, held, forgotten, strict=True))
    ]


def picture(scenario: Scenario, data: ImageData, class_names: Sequence[str], path: Path) -> None:
    """Draw a bar per client, stacked by class, with what must be forgotten hatched; the suffix says the format.

    Raises DataError if that cannot be written.
    """
    from matplotlib import colormaps  # takes a while to import, and the table does without
    from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the whole process
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    held, forgotten = _counts(scenario, data.classes)
    clients = np.arange(len(held))
    figure = Figure(figsize=(min(4 + 0.2 * len(held), 40), 5), layout="constrained")
    axes = figure.add_subplot()
    many = colormaps["viridis"].resampled(data.classes)
    colours = _COLOURS if data.classes <= len(_COLOURS) else [many(c) for c in range(data.classes)]
    bottom = np.zeros(len(held))
    handles = []
    for c in range(data.classes):
        handles.append(Patch(facecolor=colours[c], label=class_names[c]))
        for counts, hatch in ((held[:, c] - forgotten[:, c], None), (forgotten[:, c], "////")):
            some = counts > 0
            axes.bar(
                clients[some], counts[some], 0.85, bottom[some], color=colours[c], hatch=hatch, edgecolor="white", lw=0
            )
            bottom += counts
    handles.append(Patch(facecolor="grey", edgecolor="white", hatch="////", label="to forget"))
    axes.set(xlabel="client", ylabel="training examples", xlim=(-0.6, len(held) - 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(handles=handles[::-1], loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # no such folder; no such format
        raise DataError(f"cannot draw {path}: {error}") from None


def _counts(scenario: Scenario, classes: int) -> tuple[IntVector, IntVector]:
    """Per client and class [clients, classes]: how many examples it holds, and must forget."""

    def count(parts: Sequence[IntVector]) -> IntVector:
        return np.array([np.bincount(scenario.train_labels[part], minlength=classes) for part in parts], np.int64)

    held = count(scenario.held)
    return held, held - count(scenario.retained)
