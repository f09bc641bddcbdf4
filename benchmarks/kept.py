"""Pages whose tables come from comparisons: the rows that are kept beside them, and the part of the page they make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray.runs.directory import RunDirectory
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.rows import SCHEMA, TIMES

DOCS = Path(__file__).parents[1] / "docs"
Rows = Sequence[Mapping[str, Any]]
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
