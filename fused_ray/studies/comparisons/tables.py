"""A comparison as tables in the layout of the paper: methods down, RA, FA, ReA, MIA, Comm, Comp across.

One table per scenario, means and standard deviations over seeds, for the terminal, as Markdown and as LaTeX. The
Markdown one shows the paper's figure beside ours where it has one, and says why they differ.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table

from fused_ray.audit.relearning import FIXED
from fused_ray.audit.verdict import WORDS
from fused_ray.config import RunConfig
from fused_ray.config.parts.metrics import Metric
from fused_ray.config.yaml_text import read_yaml
from fused_ray.runs.report import what
from fused_ray.runs.screen import Screen, fits, make_table, size
from fused_ray.studies import further
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.status import DONE, UNSUPPORTED

Rows = Sequence[Mapping[str, Any]]

TRIVIAL = "†"
BEFORE, CONTROL = "before: it remembers", "control: one output bias"
_MEANINGS = {
    "RA": "accuracy on the data that stay (higher is better)",
    "FA": "accuracy on what is forgotten (lower is better)",
    "FA (ASR)": "how often the trigger works (lower is better)",
    "CA": "accuracy on the class that both sides have (higher is better)",
    "ReA": "relearning accuracy: FA after {steps} steps of relearning (lower is better)",
    "IDI": "information difference index: what probes find inside (0: as in the retrained model; 1: as before)",
    "MIA (AUC)": "membership inference attack: how well it tells members (best: the retrained model's; 0.5: guessing)",
    "Comm": "communication: bytes that a client sends up in a round (lower is better)",
    "Comp": "computation: seconds of local training (lower is better)",
    "simulated": "seconds of all its rounds on the devices of the deployment (lower is better)",
    "rounds to forget": "rounds until FA is as low as the retrained model's and stays so for three (lower is better)",
    "time to forget": "simulated seconds until then (lower is better); -: never, or not for three rounds",
}
"""What the columns mean, and which direction is better."""


@dataclass(frozen=True)
class Layout:
    """A table in plain text, ready for any format."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    paper: tuple[tuple[str, ...], ...]
    """The paper's figure beside each cell of the body; empty where it has none."""
    notes: tuple[str, ...]
    why: tuple[str, ...]
    """Why the paper's figures differ; empty where none is shown."""


@dataclass(frozen=True)
class _Column:
    name: str
    key: str
    published: str
    show: Callable[[Sequence[Any]], str]


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def _index(rows: Rows) -> str:
    """The mean where it is told, on how many seeds if not on all; else why there is none."""
    values = [row["index"] for row in rows if row.get("index") is not None]
    if not values:
        whys = [row["index_why"] for row in rows if row.get("index_why")]
        return whys[0].split(":")[0] if whys else "-"
    return spread(values) + (f" ({len(values)} of {len(rows)} seeds)" if len(values) < len(rows) else "")


def _size(values: Sequence[float]) -> str:
    return size(statistics.fmean(values))


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.1f} s"


def _simulated(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.3g} s" if mean < 100 else f"{mean:.0f} s"


def _rounds(values: Sequence[int]) -> str:
    return f"{statistics.fmean(values):.1f}"


def words(values: Sequence[str]) -> str:
    """The verdict, and on how many seeds where it is not the same on all; worst first."""
    counts = {word: values.count(word) for word in WORDS if word in values}
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{word} {count}" for word, count in counts.items())


_LEFT = ("method", "verdict")
_RA, _FA = _Column("RA", "ra", "ra", spread), _Column("FA", "fa", "fa", spread)
_IDI = _Column("IDI", "index", "", spread)
_CA = _Column("CA", "ca", "ca", spread)
_REST = (
    _Column("verdict", "verdict", "", words),
    _Column("ReA", "rea", "rea", spread),
    _IDI,
    _Column("MIA (AUC)", "mia_auc", "mia", spread),
    _Column("Comm", "bytes_up", "comm", _size),
    _Column("Comp", "seconds_train", "comp", _seconds),
)
_TIMES = (
    _Column("simulated", "simulated_seconds", "", _simulated),
    _Column("rounds to forget", "rounds_to_forget", "", _rounds),
    _Column("time to forget", "seconds_to_forget", "", _simulated),
)
"""Where a deployment's clock was set."""


def layouts(rows: Rows, config: CompareConfig) -> list[Layout]:
    """A table for each scenario that has rows, in the order of the rows."""
    bases = {cell.scenario: cell.base for cell in config.cells}
    grouped = groupby(rows, key=lambda row: str(row["scenario"]))
    return [_layout(scenario, list(group), bases[scenario], config.audit.further) for scenario, group in grouped]


def _layout(label: str, rows: Rows, base: RunConfig, metrics: Sequence[Metric]) -> Layout:
    scenario = base.forget.scenario
    known = base.data.known
    about = f"{base.data.name}, {base.model.label}, {base.federation.clients} clients"
    times = _TIMES if any("deployment" in row for row in rows) else ()
    told = further.shown(further.names(rows), metrics)
    own = [_Column(further.heading(name), name, "", spread) for name in told]
    columns = [_RA, _FA, *([_CA] if base.kind == "exclusive" else []), *_REST, *times, *own]
    published = _published(base)
    body, paper = [], []
    for name, suffix in ((BEFORE, "_before"), (CONTROL, "_control")):
        once = list({row["seed"]: row for row in rows if row.get(f"ra{suffix}") is not None}.values())
        if once:
            renamed = [{key: row.get(f"{key}{suffix}") for key in ("ra", "fa", "ca")} for row in once]
            body.append((name, *(_cell(renamed, column) for column in columns)))
            paper.append(("",) * (len(columns) + 1))
    by_method = {method: [row for row in rows if row["method"] == method] for method in _methods(rows)}
    for method, runs in by_method.items():
        mark = f" {TRIVIAL}" if any(row.get("trivial") for row in runs) else ""
        body.append((method + mark, *(_cell(runs, column) for column in columns)))
        theirs = published.get(runs[0]["algorithm"], {})
        paper.append(("", *(_theirs(theirs.get(column.published)) for column in columns)))
    shown = any(text for line in paper for text in line)
    return Layout(
        title=f"{label}: forgetting {what(base, known.class_names if known else ())}; {about}",
        head=("method", *(f"{c.name} (ASR)" if (c, scenario) == (_FA, "sample") else c.name for c in columns)),
        body=tuple(body),
        paper=tuple(paper),
        notes=tuple(_notes(by_method)),
        why=tuple(_why(base)) if shown else (),
    )


def _methods(rows: Rows) -> list[str]:
    return list(dict.fromkeys(str(row["method"]) for row in rows))


def _cell(rows: Rows, column: _Column) -> str:
    if column is _IDI:
        return _index(rows)
    values = [row[column.key] for row in rows if row.get(column.key) is not None]
    some = column in _TIMES or column.key.startswith(further.PREFIX)  # what a seed may have no figure of
    partly = some and values and len(values) < len(rows)
    return (column.show(values) if values else "-") + (f" ({len(values)} of {len(rows)} seeds)" if partly else "")


def _notes(by_method: Mapping[str, Rows]) -> Iterable[str]:
    rows = [row for own in by_method.values() for row in own]
    vacuous = sorted({row["seed"] for row in rows if row.get("vacuous")})
    if vacuous:
        seeds = ", ".join(map(str, vacuous))
        yield f"VACUOUS with seed {seeds}: before unlearning, the model knew no more of it than a retrained one."
    if any(row.get("trivial") for row in rows):
        yield f"{TRIVIAL} trivial: changing one output bias does as well on RA and FA; ReA and MIA decide."
    for method, own in by_method.items():
        if all(row["status"] == UNSUPPORTED for row in own):
            yield f"{method} cannot do this scenario."
        for row in own:
            if row["status"] not in (DONE, UNSUPPORTED):
                yield f"{method}, seed {row['seed']}: {row['status']}"
            if row.get("metrics_failed"):
                yield f"{method}, seed {row['seed']}: {row['metrics_failed']}"


# -- the paper's figures


@cache
def _paper() -> dict[str, Any]:
    return read_yaml(Path(__file__).parent / "published.yaml")


def _entry(base: RunConfig) -> Mapping[str, Any]:
    for entry in _paper()["tables"]:
        alike = entry["scenario"] == base.forget.scenario and entry["model"] == base.model.label
        if alike and base.data.name in entry["data"]:
            return dict(entry)
    return {}


def _theirs(value: float | int | str | None) -> str:
    """A figure as the paper prints it: accuracies with two digits, seconds whole, sizes with their unit."""
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else f"{value} s" if isinstance(value, int) else value


def _published(base: RunConfig) -> Mapping[str, Mapping[str, Any]]:
    """The paper's figures for a scenario's data and model, by unlearning method."""
    methods: Mapping[str, Mapping[str, Any]] = _entry(base).get("methods", {})
    return methods


def _why(base: RunConfig) -> Iterable[str]:
    why, entry = _paper()["why"], _entry(base)
    concerned = base.forget_count if base.forget.clients is None else len(base.forget.clients)
    for name in (entry.get("why"), entry["scenario"]):
        if name in why:
            yield why[name].format(concerned=concerned, clients=base.federation.clients)
    yield from why["all"]


# -- formats


def show(screen: Screen, rows: Rows, config: CompareConfig) -> None:
    """The tables in a terminal, each in two halves where it is too narrow, and what their columns mean."""
    tables = layouts(rows, config)
    for layout in tables:
        screen.tell(layout.title)
        whole = make_table(layout.head, layout.body, _LEFT)
        for number, table in enumerate([whole] if fits(screen, whole) else _halves(layout)):
            if number:
                screen.say("")
            screen.print(table)
        for note in layout.notes:
            screen.tell(note)
        screen.say("")
    for meaning in meanings(tables, config):
        screen.tell(meaning)


def _halves(layout: Layout) -> Iterator[Table]:
    """What became of the data, what that cost and is worth, and how long it would take, with the methods' names."""
    middle, last = layout.head.index(_REST[0].name) + 1, len(layout.head)
    times = layout.head.index(_TIMES[0].name) if _TIMES[0].name in layout.head else last
    for kept in (range(middle), (0, *range(middle, times)), *([(0, *range(times, last))] if times < last else [])):
        body = [[line[i].replace(" ± ", "±") for i in kept] for line in layout.body]
        yield make_table([layout.head[i] for i in kept], body, _LEFT)


def meanings(tables: Sequence[Layout], config: CompareConfig) -> Iterator[str]:
    """A line for each column of the tables."""
    heads = dict.fromkeys(name for layout in tables for name in layout.head)
    for name in heads:
        if name in _MEANINGS:
            yield f"{name}: {_MEANINGS[name].format(steps=min(FIXED, config.audit.relearn_steps))}"
    for metric in config.audit.further:
        if any(map(metric.gives, heads)):
            yield f"{metric.name}: {metric.legend}"


def markdown(rows: Rows, config: CompareConfig) -> str:
    """The tables with the paper's figures in brackets, and the reasons for differences."""
    parts, tables = [], layouts(rows, config)
    for layout in tables:
        lines = [f"## {layout.title}", "", *piped(layout), "", *(f"- {note}" for note in layout.notes)]
        if layout.why:
            lines += ["", "In square brackets: the paper's figure. Why ours may differ:", ""]
            lines += [f"- {reason}" for reason in layout.why]
        parts.append("\n".join(lines).rstrip())
    seeds = ", ".join(map(str, config.seeds))
    about = f"Mean and standard deviation over the seeds {seeds}." if len(config.seeds) > 1 else f"Seed {seeds}."
    told = "\n".join(f"- {meaning}" for meaning in meanings(tables, config))
    return "\n\n".join([about, *([told] if told else []), *parts]) + "\n"


def piped(layout: Layout) -> Iterator[str]:
    """A table's lines in Markdown, the paper's figures in brackets."""
    yield _pipes(layout.head)
    yield _pipes(["---"] * len(layout.head))
    for ours, theirs in zip(layout.body, layout.paper, strict=True):
        yield _pipes(f"{a} [{b}]" if b else a for a, b in zip(ours, theirs, strict=True))


def latex(rows: Rows, config: CompareConfig) -> str:
    """The tables for LaTeX with the package booktabs."""
    parts, tables = [], layouts(rows, config)
    for layout in tables:
        lines = [r"\begin{table}", rf"\caption{{{_tex(layout.title)}}}", r"\centering"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(layout.head) - 1)}}}", r"\toprule"]
        lines += [_ampersands(layout.head), r"\midrule", *map(_ampersands, layout.body)]
        lines += [r"\bottomrule", r"\end{tabular}"]
        told = (*layout.notes, *(meanings(tables, config) if layout is tables[0] else ()))
        lines += [rf"\par {_tex(line)}" for line in told]
        parts.append("\n".join([*lines, r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def export(directory: ComparisonDirectory, rows: Rows, config: CompareConfig) -> None:
    """table.md and table.tex."""
    directory.write("table.md", markdown(rows, config).encode())
    directory.write("table.tex", latex(rows, config).encode())


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _ampersands(cells: Iterable[str]) -> str:
    return " & ".join(map(_tex, cells)) + r" \\"


_TEX = {character: rf"\{character}" for character in "&%#_${}"} | {
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
