"""Pages whose tables come from comparisons: the rows that are kept beside them, and the part of the page they make."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.runs import figures
from fused_ray.runs.directory import RunDirectory
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.rows import SCHEMA, TIMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
Rows = Sequence[Mapping[str, Any]]
COLOURS = (figures.VERMILION, figures.BLUE, figures.GREEN, figures.PURPLE, figures.ORANGE, figures.BLACK)
_LEFT_OUT = {"config", "directory", "started_at", "ended_at", "verdict_sentence"}
"""Columns that are long, or mean something in the comparison's own folder alone."""
_SCHEMA = pa.schema([field.remove_metadata() for field in (*SCHEMA, *TIMES) if field.name not in _LEFT_OUT])
_MADE = b"made"
"""Where a file says how each scenario was measured."""


def read(path: Path) -> tuple[Rows, Mapping[str, Any]]:
    """The rows that are kept, and how each scenario's were made; nothing of a file that is not there."""
    if not path.exists():
        return [], {}
    table = pq.read_table(path)
    return table.to_pylist(), json.loads((table.schema.metadata or {}).get(_MADE, b"{}"))


def by_scenario(rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Scenarios in the order of the rows, with theirs."""
    return ((name, list(own)) for name, own in groupby(rows, key=lambda row: str(row["scenario"])))


def keep(path: Path, folders: Iterable[Path], command: str) -> None:
    """Put the rows of finished comparisons, of one scenario each or several, into the file, instead of older ones.

    `command` is what was run, without the scenarios. Scenarios stand in the order of their names.
    """
    rows, made = read(path)
    for folder in folders:
        directory = ComparisonDirectory.open(folder)
        assert directory.finished, f"{folder} is not finished"
        new = directory.rows
        scenarios = list(dict.fromkeys(str(row["scenario"]) for row in new))
        rows = [*(row for row in rows if row["scenario"] not in scenarios), *new]
        told = _how(directory, new, f"{command} --set scenarios=[{','.join(scenarios)}]")
        made = {**made, **dict.fromkeys(scenarios, told)}
    rows = sorted(rows, key=lambda row: str(row["scenario"]))
    columns = {name: [row.get(name) for row in rows] for name in _SCHEMA.names}
    pq.write_table(pa.table(columns, schema=_SCHEMA.with_metadata({_MADE: json.dumps(made)})), path)


def _how(directory: ComparisonDirectory, rows: Rows, command: str) -> dict[str, Any]:
    """The command, the minutes from its first start to its last end, the machine and the versions."""
    about = directory.read_json("environment.json")
    starts = [RunDirectory.open(path).times[0] for path in sorted((directory.path / "bases").iterdir())]
    ends = [row["ended_at"] for row in rows if row.get("ended_at")]
    return {
        "command": command,
        "minutes": round((max(ends) - min(filter(None, starts))).total_seconds() / 60),
        "machine": f"{about['processor']}, {about['cores']} cores",
        "versions": {name: about["packages"][name] for name in ("torch", "ray", "numpy")},
        "date": f"{max(ends):%Y-%m-%d}",
    }


def made_by(told: Mapping[str, Any]) -> str:
    """How rows were made, in a line of a page."""
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return f"`{told['command']}`: {told['minutes']} minutes on {told['machine']}, {versions}, {told['date']}."


def between(text: str, name: str, lines: Iterable[str]) -> str:
    """A page with these lines between its marks `<!-- name: begin -->` and `<!-- name: end -->`, which it must have."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{begin} ... {end} is not there"
    return "\n".join([f"{before}{begin}", "", *lines, f"{end}{after}"])


def listed(rows: Rows, name: str) -> str:
    """A figure by seed; `-` where it cannot be told."""
    return ", ".join("-" if row[name] is None else f"{row[name]:.3f}".replace("0.", ".", 1) for row in rows)


def piped(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def pictured(rows: Rows) -> Rows:
    """Those with an index, of a method that sends something."""
    return [row for row in rows if row.get("index") is not None and row["bytes_up"]]


def picture(rows: Rows, family: Callable[[str], str]) -> Figure:
    """Depth against bytes: the index, and what a client sends up in a round.

    A colour a family of methods; small marks are seeds, large ones a method's mean.
    """
    figures.load()
    figure = figures.new(7.0, 4.4)
    axes = figure.subplots()
    told = pictured(rows)
    families = list(dict.fromkeys(family(row["method"]) for row in told))
    for method in dict.fromkeys(row["method"] for row in told):
        own = [row for row in told if row["method"] == method]
        sent, indices = own[0]["bytes_up"], [row["index"] for row in own]
        place, colour = (sent, statistics.fmean(indices)), COLOURS[families.index(family(method)) % len(COLOURS)]
        axes.plot([sent] * len(indices), indices, ".", color=colour, markersize=3)
        axes.plot(*place, "o", color=colour, markersize=7, label=family(method))
        axes.annotate(method, place, xytext=(6, 3), textcoords="offset points", fontsize="x-small")
    axes.axhline(0.0, color="black", linestyle="--", linewidth=1, label="the retrained model")
    axes.axhline(1.0, color="black", linestyle=":", linewidth=1, label="the model before")
    figures.bytes_axis(axes, [row["bytes_up"] for row in told])
    axes.set_xlabel("bytes that a client sends up in a round")
    axes.set_ylabel("information difference index")
    axes.grid(alpha=0.3)
    figures.legend_below(figure, figures.entries_of([axes]))
    return figure
