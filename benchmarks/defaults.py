"""What all defaults together end at: four scenarios on the embedded and the full Fashion-MNIST, verdicts counted.

    python benchmarks/defaults.py [--data fashion-mnist-mini] [--scenarios class ...] [--seeds 200 ...] [--jobs 2]
                                  [--set unlearn.selection=critical ...]

Every cell is an ordinary run, kept under --out: finished ones are read, an interrupted one goes on. Cells are computed
here, each in a process of its own, --jobs at a time: that is faster on a few cores than one run on all of them, and
gives the same bits. Prints a line per cell and a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from fused_ray import RunConfig, load_run, resume, run

DATA = ("fashion-mnist-mini", "fashion-mnist")
SCENARIOS = ("class", "client", "sample", "exclusive")
SEEDS = (200, 201, 202, 203, 204)

Cell = tuple[str, str, int]
"""Data set, scenario, seed."""


def finished(cell: Cell, fields: Sequence[str], out: Path) -> dict[str, Any]:
    """The result of a cell's run, which is begun, goes on, or is read."""
    data, scenario, seed = cell
    path = out / f"{data}-{scenario}-{seed}"
    if path.exists():
        resume(path)
    else:
        own = [f"data.name={data}", f"forget.scenario={scenario}", f"seed={seed}", f"output.dir={path}"]
        run(RunConfig.from_dict({}, ["engine.backend=local", "output.plots=false", *own, *fields]))
    return load_run(path).result


def row(cells: Mapping[Cell, Mapping[str, Any]]) -> str:
    """A line of the table: means over seeds, the worst seed in brackets, and how often each word was said."""
    found = list(cells.values())
    metrics = [result["metrics"] for result in found]

    def pair(when: str) -> str:
        return " / ".join(f"{sum(m[when][name] for m in metrics) / len(metrics):.3f}" for name in ("ra", "fa"))

    ra, fa = ([m["after"][name] - m["retrained"][name] for m in metrics] for name in ("ra", "fa"))
    gaps = [f"{sum(gap) / len(gap):+.3f} ({worst:+.3f})" for gap, worst in ((ra, min(ra)), (fa, max(fa)))]
    findings = [finding["name"] for result in found for finding in result["findings"]]
    words = [counted(result["verdict"] for result in found), counted(findings) or "-"]
    return " | ".join([pair("before"), pair("after"), pair("retrained"), *gaps, *words])


def counted(words: Iterable[str]) -> str:
    """How often each word is there, the most frequent first."""
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=DATA)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="fields that are not the default")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/defaults"))
    given = parser.parse_args(arguments)
    cells: list[Cell] = list(itertools.product(given.data, given.scenarios, given.seeds))
    results: dict[Cell, dict[str, Any]] = {}
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(finished, cell, given.set, given.out): cell for cell in cells}
        for job in as_completed(jobs):
            cell, result = jobs[job], job.result()
            results[cell] = result
            print(*cell, row({cell: result}), sep=" | ", flush=True)
    print("\n| data | scenario | seeds | RA / FA before | after | retrained | RA - retrained's | FA - retrained's "
          "| verdicts | findings |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for data, scenario in itertools.product(given.data, given.scenarios):
        same = {cell: results[cell] for cell in cells if cell[:2] == (data, scenario)}
        print(f"| {data} | {scenario} | {len(same)} | {row(same)} |")


if __name__ == "__main__":
    main()
