"""The tables of docs/depth.md on the preset `deep`, from what examples/compare-deep.yaml came to.

fused-ray compare examples/compare-deep.yaml
python benchmarks/deep.py runs/compare-deep     # keep its rows in docs/deep.parquet, and write the tables anew
python benchmarks/deep.py                       # the tables alone, from the rows that are kept
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kept import DOCS, Rows, between, keep, listed, read

KEPT, PAGE = DOCS / "deep.parquet", DOCS / "depth.md"


def tables(rows: Rows) -> Iterator[str]:
    """A table a scenario: each figure by seed, the model before first."""
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        own = [row for row in rows if row["scenario"] == scenario]
        yield f"| {scenario} | sent up / down, B | RA | FA | index | head recovery | steps / retrained's | verdict |"
        yield "|---|---|---|---|---|---|---|---|"
        some = [row for row in own if row["method"] == "retrain"]
        yield f"| before | | {listed(some, 'ra_before')} | {listed(some, 'fa_before')} | 1 | | | |"
        for method in dict.fromkeys(row["method"] for row in own):
            some = [row for row in own if row["method"] == method]
            sent = f"{some[0]['bytes_up_client']:,} / {some[0]['bytes_down_client']:,}"
            figures = (listed(some, name) for name in ("ra", "fa", "index", "head_recovery", "relearn_ratio"))
            verdicts = ", ".join(f"{word} {count}" for word, count in Counter(r["verdict"] for r in some).most_common())
            yield f"| {method} | {sent} | {' | '.join(figures)} | {verdicts} |"
        yield ""


def page(text: str) -> str:
    """The page with its tables anew."""
    return between(text, "deep", tables(read(KEPT)[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="finished comparisons; none: the rows that are kept")
    if folders := parser.parse_args().folders:
        keep(KEPT, folders, "fused-ray compare examples/compare-deep.yaml")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
