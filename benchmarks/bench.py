"""fused_ray beside its peers, side by side on this machine: rounds, starts, memory, and what FUSED's rounds cost.

    python benchmarks/bench.py [--only full,empty] [--pairs 5] [--cifar10 FOLDER] [--released FOLDER]
    python benchmarks/bench.py --only full,empty --pairs 1 --quick    # does it work at all?

Every system runs in processes of its own, one system at a time, in turns: A B C A B C ... Peers have environments of
their own, which are made when they are first wanted (peers/*.txt; variable PIP_ARGS: further arguments for pip). A part
that was measured replaces its rows in docs/benchmarks.parquet, and docs/benchmarks.md and its plot are written anew.
`published` needs CIFAR-10 as Parquet, `released` a checkout of the code that was released with the FUSED paper: both
are left out unless their folders are named. It takes nearly two hours on two idle cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from beside import page
from beside.measure import PARTS, Setting, versions
from beside.systems import BenchError

import fused_ray
from fused_ray.errors import FusedRayError
from fused_ray.storage.environment import environment

ROOT = Path(__file__).parents[1]
NEEDS = {"published": "cifar10", "released": "released"}
"""The options without which a part cannot be measured."""


def machine() -> str:
    """This machine in words."""
    about = environment()
    system = f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.1f} before"
    return f"{system}, Python {about['python']}, fused_ray {fused_ray.__version__} {(about['revision'] or '')[:10]}"


def wanted(given: argparse.Namespace) -> list[str]:
    """The parts to measure. Raises BenchError for one that lacks what it needs, if it was asked for by name."""
    asked = given.only.split(",") if given.only else list(PARTS)
    for name in asked:
        if name not in PARTS:
            raise BenchError(f"--only: there is no part {name!r}; there are {', '.join(PARTS)}")
    lacking = [name for name in asked if name in NEEDS and getattr(given, NEEDS[name]) is None]
    for name in lacking:
        reason = f"{name} needs --{NEEDS[name]} FOLDER"
        if given.only:
            raise BenchError(reason)
        print(f"left out: {reason}", flush=True)
    for option in NEEDS.values():
        folder = getattr(given, option)
        if folder is not None and not folder.is_dir():
            raise BenchError(f"--{option}: there is no folder {folder}")
    return [name for name in asked if name not in lacking]


def measure(given: argparse.Namespace) -> None:
    """Part by part; what is measured is on the page before the next one begins."""
    intros = {part: str(function.__doc__) for part, function in PARTS.items()}
    out = given.out or (given.cache / "trial" if given.quick else ROOT / "docs")
    for name in wanted(given):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            setting = Setting(
                pairs=given.pairs,
                cache=given.cache.resolve(),
                folder=Path(folder),
                quick=given.quick,
                cifar10=given.cifar10 and str(given.cifar10.resolve()),
                released=given.released and given.released.resolve(),
            )
            here, when = machine(), f"{datetime.now(timezone.utc):%Y-%m-%d}"
            print(f"{name}: {PARTS[name].__doc__}", flush=True)
            rows = PARTS[name](setting)
            page.merge(out / "benchmarks.parquet", name, rows, here, versions(setting, rows), when)
        kept = page.in_order(page.read(out / "benchmarks.parquet"), list(PARTS))
        page.write(out / "benchmarks.md", page.markdown(kept, intros))
        page.draw(kept, out / page.PLOT)
    print(f"written: {out / 'benchmarks.md'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"parts, with commas between them: {','.join(PARTS)}; all by default")
    parser.add_argument("--pairs", type=int, default=5, help="repeats; every system once in each")
    parser.add_argument("--quick", action="store_true", help="a trial with few images; its figures say nothing")
    parser.add_argument("--cifar10", type=Path, help="folder with CIFAR-10 as Parquet, for the published tasks")
    parser.add_argument("--released", type=Path, help="a checkout of the code released with the FUSED paper")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "bench", help="where environments are made")
    parser.add_argument("--out", type=Path, help="where the page goes (default: docs; --quick: CACHE/trial)")
    given = parser.parse_args()
    try:
        if given.pairs < 1:
            raise BenchError("--pairs: at least 1")
        measure(given)
    except (BenchError, FusedRayError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
