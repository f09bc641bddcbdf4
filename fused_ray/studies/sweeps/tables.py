"""A sweep as tables: a setting per row, the front, and what is recommended; for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from fused_ray.config import RunConfig
from fused_ray.runs.screen import Screen, fits, make_table, size
from fused_ray.studies import further
from fused_ray.studies.status import DONE
from fused_ray.studies.sweeps.front import Audited, Case, Setting, rounded, short

_LEFT = ("setting", "adapted", "front")
_DROPPED = ("adapted", "up / client / round", "seconds")
"""Columns that a narrow terminal has no room for; they are in table.md."""
_MEANINGS = (
    "I: rounds of unlearning. RA: accuracy on the data that stay (higher is better). FA: accuracy on what is forgotten "
    "(lower is better). Bytes: what clients send up. Simulated: seconds until then on the devices of a deployment."
)


@dataclass(frozen=True)
class Layout:
    """A table in plain text, ready for any format."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    swept: int
    """How many columns, from the left, are swept fields."""


def layouts(cases: Sequence[Case], base: RunConfig) -> Iterator[Layout]:
    """Per case the settings with their last round, those of the front marked, and the front over all rounds."""
    for case in cases:
        about = f"{base.data.name}, {base.model.label}, {base.federation.clients} clients"
        title = f"{case.name or base.forget.scenario}: {about}"
        keys = list(case.settings[0].values)
        head = (*map(short, keys), "adapted", "I", "RA", "FA", "up / client / round", "up in all", "seconds")
        # a sweep may lead over deployments, so that its base says nothing of a case's
        clocked = any(setting.mean["simulated_seconds"] is not None for setting in case.settings)
        head = (*head, "simulated") if clocked else head
        last = [setting for setting in case.settings if setting.last]
        front = {id(setting) for setting in case.front}
        body = [(*_row(setting, keys, clocked), "*" if id(setting) in front else "") for setting in last]
        yield Layout(
            f"{title}: every setting after its last round",
            (*head, "front"),
            tuple(body),
            tuple(_notes(case)),
            len(keys),
        )
        found = further.names(further.columns(audited.metrics) for audited in case.audited)
        own = further.shown(found, base.audit.further)
        yield Layout(
            f"{title}: Pareto front of RA, FA and bytes over all rounds I",
            (*head, *map(further.heading, own)),
            tuple((*_row(setting, keys, clocked), *_further(case.verdict(setting), own)) for setting in case.front),
            (recommendation(case), *(_audited(each, base) for each in case.audited), *_meanings(case, base)),
            len(keys),
        )


def _row(setting: Setting, keys: Sequence[str], clocked: bool) -> tuple[str, ...]:
    values = [setting.values[key] for key in keys]
    there = setting.mean["simulated_seconds"]
    return (
        *map(rounded, values),
        setting.layers or "-",
        str(setting.round),
        spread(setting, "ra"),
        spread(setting, "fa"),
        size(setting["bytes_up"]),
        size(setting["bytes_up_total"]),
        f"{setting['seconds_total']:.2f}",
        *(["-" if there is None else f"{there:.3g} s"] if clocked else []),
    )  # fmt: skip


def spread(setting: Setting, name: str) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    text = f"{setting[name]:.3f}"
    return f"{text} ± {setting.spread[name]:.3f}" if name in setting.spread else text


def _notes(case: Case) -> Iterator[str]:
    first = max(case.settings, key=lambda setting: len(setting.seeds))
    seeds = sorted({seed for setting in case.settings for seed in setting.seeds})
    if len(seeds) > 1:
        yield f"Mean and standard deviation over the seeds {', '.join(map(str, seeds))}."
    if short := [setting for setting in case.settings if len(setting.seeds) < len(first.seeds)]:
        yield f"{len(short)} of the settings have figures of some seeds only; they take no part in the front."
    yield "One half of the test set has chosen the front and the recommended setting; the RA and FA are the other's."
    if first.mean["ra_retrained"] is not None:
        yield f"Retrained without the data: RA {first['ra_retrained']:.3f}, FA {first['fa_retrained']:.3f}."


def recommendation(case: Case) -> str:
    """What a case recommends, or why nothing."""
    best = case.recommended
    if best is None:
        return case.reason
    figures = f"RA {spread(best, 'ra')}, FA {spread(best, 'fa')}"
    return f"Recommended: {best.title} ({figures}): {case.reason}."


def _audited(audited: Audited, base: RunConfig) -> str:
    shown = {further.heading(name) for name in further.shown(further.columns(audited.metrics), base.audit.further)}
    figures = "".join(f"; {f['name']} {f['value']:.3f}" for f in audited.metrics if f["name"] in shown)
    return f"- {audited.setting.title} is {audited.verdict}: {audited.sentence}{figures}"


def _further(audited: Audited | None, columns: Sequence[str]) -> Iterator[str]:
    """Cells of further metrics; empty for what was not audited."""
    figures = further.columns(audited.metrics) if audited else {}
    yield from (f"{figures[column]:.3f}" if column in figures else "-" for column in columns)


def _meanings(case: Case, base: RunConfig) -> Iterator[str]:
    """What further metrics mean, and which could not be taken."""
    figures = [figure["name"] for audited in case.audited for figure in audited.metrics]
    for metric in base.audit.further:
        if any(map(metric.gives, figures)):
            yield f"{metric.name}: {metric.legend}"
    yield from dict.fromkeys(line for audited in case.audited for line in audited.metrics_failed)


def failures(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What became of the trials that gave no figures."""
    for row in rows:
        if row["round"] is None and row["status"] != DONE:
            yield f"trial {row['trial']} ({row['values']}): {row['status']}"


def show(screen: Screen, cases: Sequence[Case], base: RunConfig) -> None:
    """The tables in a terminal, those that are too wide for it with less in them."""
    for layout in layouts(cases, base):
        screen.tell(layout.title)
        whole = make_table(layout.head, layout.body, _LEFT)
        screen.print(whole if fits(screen, whole) else _narrow(layout))
        for note in layout.notes:
            screen.tell(note)
        screen.say("")
    if cases:
        screen.tell(_MEANINGS)


def _narrow(layout: Layout) -> Table:
    """The swept fields of a setting in one column, and of the figures those that a setting is chosen by."""
    kept = [i for i, name in enumerate(layout.head) if i >= layout.swept and name not in _DROPPED]
    body = []
    for line in layout.body:
        fields = zip(layout.head[: layout.swept], line, strict=False)
        setting = ", ".join(f"{name} {value}" for name, value in fields)
        body.append((setting, *(line[i].replace(" ± ", "±") for i in kept)))
    return make_table(("setting", *(layout.head[i] for i in kept)), body, _LEFT)


def markdown(cases: Sequence[Case], base: RunConfig, rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables for a document."""
    parts = []
    for layout in layouts(cases, base):
        lines = [f"## {layout.title}", "", _pipes(layout.head), _pipes(["---"] * len(layout.head))]
        parts.append("\n".join([*lines, *map(_pipes, layout.body), "", *layout.notes]))
    parts += ["\n".join(f"- {line}" for line in failures(rows))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
