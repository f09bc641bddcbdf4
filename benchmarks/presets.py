"""Whether the scenarios have something to forget: FA before against FA of a retrained model, seeds 100 to 102.

    python benchmarks/presets.py [--data fashion-mnist] [--scenarios sample ...] [--shares 0.2 0.4] [--seeds 100]

Pre-trains and retrains (LeNet, 50 clients, 20 rounds each) and prints a Markdown table. A scenario whose FA before is
not clearly above the retrained model's is vacuous: any method "forgets" it. The scenarios' defaults were chosen by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiment import ADAPTER, TRAINING

from fused_ray import RunConfig, load_run, resume, run

SEEDS = (100, 101, 102)


def figures(data: str, scenario: str, share: float | None, seed: int, out: Path) -> tuple[float, float, float, float]:
    """RA and FA before, RA and FA of the retrained model; the run is kept and taken up again."""
    path = out / f"{data}-{scenario}-{share}-{seed}"
    if not path.exists():
        fields = [
            *TRAINING,
            *ADAPTER,
            f"data.name={data}",
            f"forget.scenario={scenario}",
            f"seed={seed}",
            f"output.dir={path}",
        ]
        fields += ["unlearn.layers=[fc3]", "unlearn.rounds=0"]
        if data == "fashion-mnist-mini":
            fields += ["train.lr=0.05", "train.batch_size=32"]
        run(RunConfig.from_dict({}, fields + ([] if share is None else [f"forget.share={share}"])))
    else:
        resume(path)
    metrics = load_run(path).result["metrics"]
    return metrics["before"]["ra"], metrics["before"]["fa"], metrics["retrained"]["ra"], metrics["retrained"]["fa"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["fashion-mnist-mini", "fashion-mnist"])
    parser.add_argument("--scenarios", nargs="+", default=["class", "client", "sample", "exclusive"])
    parser.add_argument("--shares", nargs="+", type=float, default=[None], help="of clients; unset: the defaults")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=Path("runs/presets"))
    given = parser.parse_args(arguments)
    print("| data | scenario | share | seed | RA before | FA before | RA retrained | FA retrained | margin |")
    print("|---|---|---|---|---|---|---|---|---|")
    for data in given.data:
        for scenario in given.scenarios:
            for share in given.shares if scenario in ("client", "sample") else [None]:
                for seed in given.seeds:
                    found = figures(data, scenario, share, seed, given.out)
                    told = " | ".join(f"{value:.3f}" for value in (*found, found[1] - found[3]))
                    print(f"| {data} | {scenario} | {share or ''} | {seed} | {told} |", flush=True)


if __name__ == "__main__":
    main()
