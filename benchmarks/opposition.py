"""Gradient-direction validation: does learning on what stays undo what the forgotten data taught, in each scenario?

    python benchmarks/opposition.py runs/paper

Reads the audits of a finished comparison and prints, per scenario, Phi (the cosine between the mean gradients on D_u
and D_r at M_r) and the change of the forgotten loss by one step -0.01 g_r: as Phi predicts it to first order, and as
measured. On all parameters, and on the entries of every sparse adapter.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiment import spread

from fused_ray import load_comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    found = load_comparison(parser.parse_args().comparison)
    rows: dict[tuple[str, str], dict[int, Any]] = {}
    for row in found.rows:
        path = found.path / str(row["directory"]) / "audit.json"
        if row["status"] == "done" and path.exists():
            opposition = found.read_json(str(path.relative_to(found.path)))["opposition"]
            rows.setdefault((row["scenario"], "all parameters"), {})[row["seed"]] = opposition["everywhere"]
            if opposition["adapter"]:
                rows.setdefault((row["scenario"], f"entries of {row['method']}"), {})[row["seed"]] = opposition[
                    "adapter"
                ]
    print("| scenario | on | Phi | predicted change of the forgotten loss | measured | seeds |")
    print("|---|---|---|---|---|---|")
    for (scenario, on), by_seed in sorted(rows.items()):
        told = [
            spread([item[name] for item in by_seed.values()], digits)
            for name, digits in (("phi", 2), ("predicted", 5), ("measured", 5))
        ]
        print(f"| {scenario} | {on} | {' | '.join(told)} | {len(by_seed)} |")


if __name__ == "__main__":
    main()
