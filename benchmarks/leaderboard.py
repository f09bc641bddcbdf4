"""The tables and pictures of docs/comparison.md, from what `fused-ray compare --preset paper-fashion-mnist` came to.

fused-ray compare --preset paper-fashion-mnist --set scenarios=[class] --set output.dir=runs/class
python benchmarks/leaderboard.py runs/class     # keep its rows in docs/comparison.parquet, then write the page anew
python benchmarks/leaderboard.py                # the page alone, from the rows that are kept

A scenario that is measured again replaces its rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kept import DOCS, Rows, between, by_scenario, keep, made_by, picture, pictured, read

from fused_ray.runs import figures
from fused_ray.studies.comparisons import tables
from fused_ray.studies.comparisons.config import CompareConfig

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


def page(text: str) -> str:
    """The page with its tables anew."""
    return between(text, "tables", lines(*read(KEPT)))


def family(method: str) -> str:
    """FUSED, or another."""
    return "FUSED" if method.startswith("fused") else "rival"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="finished comparisons; none: the rows that are kept")
    if folders := parser.parse_args().folders:
        keep(KEPT, folders, f"fused-ray compare --preset {PRESET}")
    for scenario, rows in by_scenario(read(KEPT)[0]):
        if pictured(rows):
            figures.save(picture(rows, family), DOCS / f"images/depth-{scenario}.svg", "svg")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
