"""Who holds what and must forget what, in numbers."""

from __future__ import annotations

from typing import TypedDict

from fused_ray.types import ImageData, IntVector, Scenario

MANY_CLIENTS = 1000
"""Of more clients, tables and pictures have the first ones."""


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
    held, forgotten = counts(scenario, data.classes)
    names = scenario.client_names or tuple(map(str, range(len(held))))
    return [
        Row(client=client, name=name, examples=int(own.sum()), counts=own.tolist(), to_forget=int(gone.sum()))
        for client, (name, own, gone) in enumerate(zip(names, held, forgotten, strict=True))
    ]


def counts(scenario: Scenario, classes: int) -> tuple[IntVector, IntVector]:
    """Per client and class [clients, classes]: how many examples it holds, and must forget."""

    labels = scenario.train_labels
    held = scenario.held.counts(labels, classes)
    return held, held - scenario.retained.counts(labels, classes)
