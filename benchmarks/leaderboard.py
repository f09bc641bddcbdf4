"""The tables and pictures of docs/comparison.md, from what `fused-ray compare --preset paper-fashion-mnist` came to.

fused-ray compare --preset paper-fashion-mnist --set scenarios=[class] --set output.dir=runs/class
python benchmarks/leaderboard.py runs/class     # keep its rows in docs/comparison.parquet, then write the page anew
python benchmarks/leaderboard.py                # the page alone, from the rows that are kept

A scenario that is measured again replaces its rows.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kept import DOCS, Rows, between, keep, made_by, read

from fused_ray.runs import figures
from fused_ray.studies.comparisons import tables
from fused_ray.studies.comparisons.config import CompareConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRESET = "paper-fashion-mnist"
KEPT, PAGE = DOCS / "comparison.parquet", DOCS / "comparison.md"


def lines(rows: Rows, made: Mapping[str, Any]) -> Iterator[str]:
    """A table a scenario, how it was made, and its picture."""
    config = CompareConfig.from_yaml(None, preset=PRESET)
    for scenario, own in by_scenario(rows):
        (layout,) = tables.layouts(own, config)
        yield from (f"### {layout.title}", "", *tables.piped(layout), "")
        yield from (*(f"- {note}" for note in layout.notes), f"- {made_by(made[scenario])}", "")
        if pictured(own):
            yield from (f"![{scenario}: index against bytes](images/depth-{scenario}.svg)", "")


def by_scenario(rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Scenarios in the order of the file, with their rows."""
    return ((name, list(own)) for name, own in groupby(rows, key=lambda row: str(row["scenario"])))


def page(text: str) -> str:
    """The page with its tables anew."""
    return between(text, "tables", lines(*read(KEPT)))


def pictured(rows: Rows) -> Rows:
    """Those with an index, of a method that sends something."""
    return [row for row in rows if row.get("index") is not None and row["bytes_up"]]


def picture(rows: Rows) -> Figure:
    """Depth against bytes: the index, and what a client sends up in a round; small: each seed, large: their mean."""
    figures.load()
    figure = figures.new(7.0, 4.4)
    axes = figure.subplots()
    told = pictured(rows)
    for method in dict.fromkeys(row["method"] for row in told):
        own = [row for row in told if row["method"] == method]
        sent, indices = own[0]["bytes_up"], [row["index"] for row in own]
        colour, mark = (figures.VERMILION, "o") if method.startswith("fused") else (figures.BLUE, "s")
        axes.plot([sent] * len(indices), indices, ".", color=colour, markersize=3)
        axes.plot(sent, statistics.fmean(indices), mark, color=colour, markersize=7)
        axes.annotate(
            method, (sent, statistics.fmean(indices)), xytext=(6, 3), textcoords="offset points", fontsize="small"
        )
    axes.axhline(0.0, color="black", linestyle="--", linewidth=1, label="the retrained model")
    axes.axhline(1.0, color="black", linestyle=":", linewidth=1, label="the model before")
    figures.bytes_axis(axes, [row["bytes_up"] for row in told])
    axes.set_xlabel("bytes that a client sends up in a round")
    axes.set_ylabel("information difference index")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="finished comparisons; none: the rows that are kept")
    if folders := parser.parse_args().folders:
        keep(KEPT, folders, f"fused-ray compare --preset {PRESET}")
    for scenario, rows in by_scenario(read(KEPT)[0]):
        if pictured(rows):
            figures.save(picture(rows), DOCS / f"images/depth-{scenario}.svg", "svg")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
