"""What a sweep costs beside its trials' own rounds: 40 trials on the embedded data, shared models, warm actors.

    python benchmarks/sweep_overhead.py [--trials 40] [--concurrent 1]

A trial's own seconds are those of its unlearning rounds (training, averaging, evaluation). Overhead is what its run
took beyond them on its worker, times the trials that ran at once: begin, data, model, tables, hashes, Tune. Shared
models are made beforehand, by a sweep of one trial; the start of Ray and of the actors is told apart, as it is paid
once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from fused_ray import SweepConfig, load_sweep, sweep
from fused_ray.storage.environment import environment

BASE = {
    "federation": {"clients": 20},
    "train": {"lr": 0.02, "batch_size": 32},
    "pretrain": {"rounds": 3},
    "unlearn": {"rounds": 5, "layers": 1, "selection": "critical", "mask": "random", "start": "zero", "lr": 0.2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--concurrent", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), given.trials, given.concurrent), indent=2))


def measured(folder: Path, trials: int, concurrent: int) -> dict[str, Any]:
    """Seconds of a sweep whose shared models are there already."""

    def run(name: str, count: int, ends: list[float]) -> None:
        def hear(progress: Any) -> None:
            while len(ends) < progress.done:
                ends.append(time.perf_counter())

        space = {"unlearn.sparsity": {"grid": [round(0.5 + 0.49 * i / trials, 6) for i in range(count)]}}
        settings = {"base": BASE, "space": space, "max_concurrent": min(concurrent, count)}
        output = {"dir": str(folder / name), "store": str(folder / "store"), "plots": False}
        sweep(SweepConfig.from_dict({**settings, "output": output}), listener=hear)

    run("models", 1, [])
    began, ends = time.perf_counter(), list[float]()
    run("sweep", trials, ends)
    whole = time.perf_counter() - began
    last = [row for row in load_sweep(folder / "sweep").rows if row["last"]]
    assert {row["status"] for row in last} == {"done"}
    own = [row["seconds_total"] for row in last]
    # from the first trial's end to the last one's: what comes before is the start
    steady = (ends[-1] - ends[concurrent - 1]) / (trials - concurrent)
    return {
        "trials": trials,
        "concurrent": concurrent,
        "seconds_whole": round(whole, 1),
        "seconds_until_first_trial_ended": round(ends[0] - began, 1),
        "seconds_a_trial": round(steady * concurrent, 3),
        "own_seconds_a_trial": round(statistics.fmean(own[concurrent:]), 3),
        "overhead_seconds_a_trial": round(steady * concurrent - statistics.fmean(own[concurrent:]), 3),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
