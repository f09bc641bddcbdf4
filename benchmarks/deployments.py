"""Seconds to forget of every method of a finished comparison, under three deployments, from its records alone.

    python benchmarks/deployments.py runs/comparison [seed ...]

Nothing is trained. A seed's figure is `-` where FA does not come to the retrained model's and stay so for three rounds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from fused_ray import load_comparison, load_run
from fused_ray.config.deployment import DeploymentConfig
from fused_ray.runs.clock import imagined, told

PROFILES = ("phones", "hospitals", "datacentre")


def main(folder: str, seeds: set[int]) -> None:
    """Print a line for each scenario, method and deployment: the median over seeds, and each seed's figure."""
    found: dict[tuple[str, str, str], list[float | None]] = {}
    for row in load_comparison(folder).rows:
        if row["fa"] is None or (seeds and row["seed"] not in seeds):
            continue
        run = load_run(Path(folder) / row["directory"])
        for profile in PROFILES:
            times = imagined(run, DeploymentConfig(profile=profile))
            seconds = told(times, run.config, run.result["bytes"], row["fa_retrained"])["seconds_to_forget"]
            found.setdefault((row["scenario"], row["method"], profile), []).append(seconds)
    for key, each in found.items():
        known = [seconds for seconds in each if seconds is not None]
        median = f"{statistics.median(known):.3g} s" if len(known) == len(each) else "-"
        print(*key, median, *("-" if seconds is None else f"{seconds:.3g}" for seconds in each), sep="\t")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("comparison", help="a finished comparison's folder")
    parser.add_argument("seeds", nargs="*", type=int, help="of these seeds alone; unset: all")
    given = parser.parse_args()
    main(given.comparison, {*given.seeds})
