"""A run's page: the verdict first, then what was measured, what it cost, and what the run was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fused_ray.pages.parts import Part, Section, Subject, Words
from fused_ray.pages.render import render
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.pages import accuracy, advice, inside, price, setting
from fused_ray.runs.pages.known import Known
from fused_ray.runs.report import verdict_lines, what
from fused_ray.storage.mirror import in_words

NAME = "report.html"
"""Of the file in a folder of results."""


def subject(directory: RunDirectory, result: Mapping[str, Any] | None = None) -> Subject:
    """Everything that is told of a finished run; `result` is what its result.json has, or will have."""
    known = Known(directory, directory.result if result is None else result)
    config, found = known.config, known.result
    leading: list[Part] = [Words(list(verdict_lines(found))), accuracy.tiles(known)]
    took = accuracy.took(known)
    about = (
        f"{config.data.name}, {config.model.label}, {config.federation.clients:,} clients, seed {config.seed}, method "
        f"{found['method']}{f', took {took}' if took else ''}; {in_words(str(directory.path))}"
    )
    return Subject(
        title=f"Forgetting {what(config, found['data']['class_names'])}",
        kind="run",
        about=about,
        verdict=found.get("verdict") or "not audited",
        leading=leading,
        sections=_sections(known),
    )


def _sections(known: Known) -> list[Section]:
    return [
        advice.diagnosis(known.result, in_words(str(known.directory.path))),
        accuracy.models(known),
        price.price(known),
        accuracy.rounds(known),
        accuracy.by_class(known),
        accuracy.confusion(known),
        accuracy.by_client(known),
        inside.layers(known),
        inside.depth(known),
        setting.holdings(known),
        setting.configuration(known),
    ]


def write(directory: RunDirectory, result: Mapping[str, Any]) -> None:
    """Write report.html into a run's directory. Only for the holder of its lock."""
    made = subject(directory, result)
    directory.write(NAME, render(made.title, [made]).encode())
