"""The tables and pictures of docs/comparison.md, from what `fused-ray compare --preset paper-fashion-mnist` came to.

fused-ray compare --preset paper-fashion-mnist --set scenarios=[class] --set output.dir=runs/class
python benchmarks/leaderboard.py runs/class     # keep its rows in docs/comparison.parquet, then write the page anew
python benchmarks/leaderboard.py                # the page alone, from the rows that are kept

A scenario that is measured again replaces its rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from kept import DOCS, Rows, between, without

from fused_ray.runs import figures
from fused_ray.runs.directory import RunDirectory
from fused_ray.studies.comparisons import tables
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.rows import SCHEMA, TIMES

PRESET = "paper-fashion-mnist"
KEPT, PAGE = DOCS / "comparison.parquet", DOCS / "comparison.md"
LEFT_OUT = {"config", "directory", "started_at", "ended_at", "verdict_sentence"}
"""Columns that are long, or mean something in the comparison's own folder alone."""
KEPT_SCHEMA = pa.schema([field.remove_metadata() for field in (*SCHEMA, *TIMES) if field.name not in LEFT_OUT])
MADE = b"made"
"""Where the file says how each scenario was measured."""


def read() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that are kept, and how each scenario's were made."""
    if not KEPT.exists():
        return [], {}
    table = pq.read_table(KEPT)
    return table.to_pylist(), json.loads(table.schema.metadata[MADE])


def keep(folders: Sequence[Path]) -> None:
    """Put the rows of finished comparisons, one scenario each or several, into the file."""
    rows, made = read()
    for folder in folders:
        directory = ComparisonDirectory.open(folder)
        assert directory.finished, f"{folder} is not finished"
        new = directory.rows
        scenarios = list(dict.fromkeys(str(row["scenario"]) for row in new))
        rows = [*without(rows, scenarios), *new]
        made |= {scenario: how(directory, new, scenarios) for scenario in scenarios}
    order = [entry.label for entry in preset().scenarios]
    rows.sort(key=lambda row: order.index(row["scenario"]))
    told = {name: [row.get(name) for row in rows] for name in KEPT_SCHEMA.names}
    schema = KEPT_SCHEMA.with_metadata({MADE: json.dumps(made)})
    pq.write_table(pa.table(told, schema=schema), KEPT)


def how(directory: ComparisonDirectory, rows: Rows, scenarios: Sequence[str]) -> dict[str, Any]:
    """The command, the wall seconds of all of it, the machine and the versions."""
    about = directory.read_json("environment.json")
    starts = [RunDirectory.open(path).times[0] for path in sorted((directory.path / "bases").iterdir())]
    ends = [row["ended_at"] for row in rows if row.get("ended_at")]
    return {
        "command": f"fused-ray compare --preset {PRESET} --set scenarios=[{','.join(scenarios)}]",
        "minutes": round((max(ends) - min(filter(None, starts), default=datetime.min)).total_seconds() / 60),
        "machine": f"{about['processor']}, {about['cores']} cores",
        "versions": {name: about["packages"][name] for name in ("torch", "ray", "numpy")},
        "revision": about["revision"][:10],
        "date": f"{max(ends):%Y-%m-%d}",
    }


def preset() -> CompareConfig:
    """The comparison that the page is about."""
    return CompareConfig.from_yaml(None, preset=PRESET)


def lines(rows: Rows, made: Mapping[str, Any]) -> Iterator[str]:
    """A table a scenario with its picture, and how it was made."""
    for layout, scenario in zip(
        tables.layouts(rows, preset()), dict.fromkeys(row["scenario"] for row in rows), strict=True
    ):
        yield f"### {layout.title}"
        yield ""
        yield from tables.piped(layout)
        yield ""
        for note in layout.notes:
            yield f"- {note}"
        told = made[scenario]
        versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
        yield f"- `{told['command']}`: {told['minutes']} minutes on {told['machine']}, {versions}, {told['date']}."
        yield ""
        yield f"![{scenario}: index against bytes](images/depth-{scenario}.svg)"
        yield ""


def page(text: str) -> str:
    """The page with its tables anew."""
    return between(text, "tables", lines(*read()))


def picture(rows: Rows) -> Any:
    """Depth against bytes: the index, and what a client sends up in a round; a point a method, a mean over seeds."""
    figures.load()
    figure = figures.new(7.0, 4.4)
    axes = figure.subplots()
    shown = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method and row.get("index") is not None]
        if own and own[0]["bytes_up"]:
            points = [(row["bytes_up"], row["index"]) for row in own]
            shown += [size for size, _ in points]
            mean = statistics.fmean(index for _, index in points)
            ours = method.startswith("fused")
            colour = figures.VERMILION if ours else figures.BLUE
            axes.plot(*zip(*points, strict=True), ".", color=colour, markersize=3)
            axes.plot(points[0][0], mean, "o" if ours else "s", color=colour, markersize=7)
            axes.annotate(method, (points[0][0], mean), xytext=(6, 3), textcoords="offset points", fontsize="small")
    axes.axhline(0.0, color="black", linestyle="--", linewidth=1, label="the retrained model")
    axes.axhline(1.0, color="black", linestyle=":", linewidth=1, label="the model before")
    figures.bytes_axis(axes, shown)
    axes.set_xlabel("bytes that a client sends up in a round")
    axes.set_ylabel("information difference index")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="finished comparisons; none: the rows that are kept")
    if folders := parser.parse_args().folders:
        keep(folders)
    rows, _ = read()
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        own = [row for row in rows if row["scenario"] == scenario]
        figures.save(picture(own), DOCS / f"images/depth-{scenario}.svg", "svg")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
