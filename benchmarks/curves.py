"""The curves of docs/depth.md, from what examples/depth-curves.yaml and examples/client-curve.yaml came to.

fused-ray compare examples/depth-curves.yaml --set scenarios=[sample] --set output.dir=runs/curves-sample
python benchmarks/curves.py grid runs/curves-sample      # keep its rows, then write tables and pictures anew
fused-ray compare examples/client-curve.yaml
python benchmarks/curves.py client runs/client-curve
python benchmarks/curves.py                              # from the rows that are kept
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kept import DOCS, Rows, between, by_scenario, keep, listed, made_by, picture, pictured, piped, read

from fused_ray.runs import figures

PAGE = DOCS / "depth.md"
FILES = {"grid": DOCS / "curves.parquet", "client": DOCS / "curve-client.parquet"}
EXAMPLES = {"grid": "examples/depth-curves.yaml", "client": "examples/client-curve.yaml"}
HEAD = ("adapter", "values", "up, B", "training, s", "RA - retrained's", "FA", "index", "head recovery - retrained's")
HEAD += ("steps / retrained's", "verdict")


def tables(name: str) -> Iterator[str]:
    """A table a scenario: a figure a seed."""
    rows, made = read(FILES[name])
    for scenario, own in by_scenario(rows):
        seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in own}))
        yield from (f"#### {scenario}", "", piped(HEAD), piped(["---"] * len(HEAD)))
        yield from (piped(cells([row for row in own if row["method"] == method])) for method in methods(own))
        yield from ("", f"Seeds {seeds}. {made_by(made[scenario])}", "")
        if pictured(own):
            yield from (f"![{scenario}: index against bytes](images/curve-{scenario}.svg)", "")


def methods(rows: Rows) -> list[str]:
    """In the order of the rows."""
    return list(dict.fromkeys(str(row["method"]) for row in rows))


def cells(rows: Rows) -> Iterator[str]:
    """A method's row of a table, each figure by seed."""
    more = [{**row, "ra_over": over(row, "ra"), "head_over": over(row, "head_recovery")} for row in rows]
    yield from (rows[0]["method"], str(rows[0]["values"] or "all"), f"{rows[0]['bytes_up']:,}")
    yield ", ".join(f"{row['seconds_train']:.0f}" for row in rows)
    yield from (listed(more, name) for name in ("ra_over", "fa", "index", "head_over", "relearn_ratio"))
    yield ", ".join(row["verdict"] for row in rows)


def over(row: Mapping[str, Any], name: str) -> float | None:
    """A figure minus the retrained model's."""
    return None if row[name] is None else row[name] - row[f"{name}_retrained"]


def family(method: str) -> str:
    """The layers and the way, without how many values and rounds."""
    return method.split("-")[0]


def page(text: str) -> str:
    """The page with its tables anew."""
    for name in FILES:
        text = between(text, f"curves {name}", tables(name))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", choices=list(FILES), help="what the comparisons are of")
    parser.add_argument("folders", nargs="*", type=Path, help="finished comparisons; none: the rows that are kept")
    given = parser.parse_args()
    if given.folders:
        keep(FILES[given.which], given.folders, f"fused-ray compare {EXAMPLES[given.which]}")
    for scenario, rows in by_scenario(read(FILES["grid"])[0]):
        if pictured(rows):
            figures.save(picture(rows, family), DOCS / f"images/curve-{scenario}.svg", "svg")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
