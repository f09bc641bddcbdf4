"""Seconds to forget under three deployments, which methods wait for a target that is away, and what a server adds up.

    python benchmarks/deployments.py forget [--seeds 0 1 2] [--data fashion-mnist-mini] [--out runs/deployments]
    python benchmarks/deployments.py away
    python benchmarks/deployments.py server

`forget` trains a comparison once, with everybody, and works out its seconds on the devices of each profile; a finished
one is read, an interrupted one goes on. `away` runs every method on phones of which the target's is off for a minute at
the request. Both write their table into docs/deployment.md. `server` prints how fast one core adds up updates, by the
processor's clock: the default of deployment.server_mb_s.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fused_ray import CompareConfig, RunConfig, compare, load_comparison, load_run, resume_comparison, run
from fused_ray.config.deployment import DeploymentConfig
from fused_ray.core.aggregate import ExactSum, scale_of
from fused_ray.runs.clock import imagined, told

PAGE = Path(__file__).resolve().parents[1] / "docs" / "deployment.md"
PROFILES = ("phones", "hospitals", "datacentre")
PAPER = {"unlearn.sparsity": 0.9, "unlearn.mask": "random", "unlearn.start": "zero", "unlearn.lr": 0.2}
METHODS: tuple[Any, ...] = (
    *("retrain", "finetune", "not", "fused", {"label": "fused-paper", "set": {"unlearn.method": "fused", **PAPER}}),
    *("exactfun", "federaser", "eraseclient", "fedquit", "fedmemprune", "hessian-reset", "ridge", "fedosd"),
    {"label": "puf", "set": {"unlearn.method": "puf", "puf.eta": 2}},  # its usual factor, 20, diverges with these data
)
PLACE = {"model.factory": "fused_ray.models.bottleneck:build", "model.args": "{name: lenet}"}
ALONE: tuple[Any, ...] = ({"label": "fedup", "set": {"unlearn.method": "fedup", **PLACE}}, "fedsgt")
"""Only of `away`: the one needs a model of its own, the other serves no request of as many clients as `forget` has."""
AWAY_S, THERE_S, ROUNDS = 60.0, 30.0, 15
"""The target's device is off and on so long, in turn, from the start on; rounds of pre-training."""


def forget(data: str, seeds: Sequence[int], out: Path) -> str:
    """A table: scenario and method down, deployments across."""
    if out.exists():
        resume_comparison(out)
    else:
        settings = {
            "base": {"data": {"name": data}, "engine": {"backend": "local"}},
            "methods": list(METHODS), "scenarios": ["class", "client"], "seeds": list(seeds),
            "audit": {"enabled": False}, "output": {"dir": str(out)},
        }  # fmt: skip
        compare(CompareConfig.from_dict(settings))
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    failed = []
    for row in load_comparison(out).rows:
        if row["status"].startswith("failed"):
            failed.append(f"`{row['method']}`, {row['scenario']}, seed {row['seed']}: {row['status']}")
        elif row["status"] == "done":
            found.setdefault((row["scenario"], row["method"]), []).append(elsewhere(out / row["directory"], row))
    head = ("scenario", "method", "RA", "rounds", *(f"{name}: to forget" for name in PROFILES))
    lines = [pipes((*head, *(f"{name}: in all" for name in PROFILES))), pipes(["---"] * (len(head) + len(PROFILES)))]
    for (scenario, method), seeds_of in found.items():
        cells = [median([each["ra"] for each in seeds_of], "{:.3f}"), median([e["rounds"] for e in seeds_of], "{:.0f}")]
        cells += [median([each["to forget", name] for each in seeds_of]) for name in PROFILES]
        cells += [median([each["in all", name] for each in seeds_of]) for name in PROFILES]
        lines.append(pipes((scenario, f"`{method}`", *cells)))
    which = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    about = f"{data}, LeNet, 20 clients, {which}; seconds, medians over seeds and in brackets the least and the most."
    return "\n".join([about, "", *lines, *(f"\n{line}" for line in failed)])


def elsewhere(folder: Path, row: Mapping[str, Any]) -> dict[Any, Any]:
    """A run's seconds under each profile, by ("to forget" or "in all", profile); its RA and its rounds to forget."""
    directory, times = load_run(folder), {}
    for profile in PROFILES:
        seconds = imagined(directory, DeploymentConfig(profile=profile))
        about = told(seconds, directory.config, directory.result["bytes"], row["fa_retrained"])
        times |= {("to forget", profile): about["seconds_to_forget"], ("in all", profile): about["simulated_seconds"]}
    return {"ra": row["ra"], "rounds": about["rounds_to_forget"], **times}


def median(values: Sequence[float | None], form: str = "{:.3g}") -> str:
    """Median, least and most; a dash where it is not known of every seed."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-" if not known else f"- ({len(known)} of {len(values)} seeds)"
    middle = form.format(statistics.median(known))
    return middle if len(known) == 1 else f"{middle} ({form.format(min(known))}-{form.format(max(known))})"


def away() -> str:
    """A table: how long each method waited for the target's device."""
    lines = [pipes(("method", "waits for the target", "of all its seconds")), pipes(["---"] * 3)]
    with tempfile.TemporaryDirectory() as folder:
        for name, fields in methods_away():
            result = run(RunConfig.from_dict(phones(Path(folder)), [*fields, f"output.dir={folder}/{name}"]))
            deployment = result["deployment"]
            waited, seconds = deployment["waited_seconds"], deployment["simulated_seconds"]
            lines.append(pipes((f"`{name}`", f"{waited:.1f} s" if waited else "no", f"{seconds:.0f} s")))
    return "\n".join(lines)


def methods_away() -> Iterator[tuple[str, list[str]]]:
    """Every method with the fields that it takes."""
    for method in (*METHODS, *ALONE):
        if isinstance(method, str):
            yield method, [f"unlearn.method={method}"]
        else:
            yield method["label"], [f"{field}={value}" for field, value in method["set"].items()]


def phones(folder: Path) -> dict[str, Any]:
    """Ten phones, all alike, of which that of client 0, which wants to be forgotten, comes and goes."""
    others = 9
    table = {"client": range(10), "on_s": [THERE_S] + [1e9] * others, "off_s": [AWAY_S] + [1.0] * others}
    pq.write_table(pa.table({**table, "phase_s": [THERE_S] + [0.0] * others}), folder / "phones.parquet")
    deployment = {
        "profile": "phones", "participation": "available", "availability": "cycle", "over_selection": 1, "dropout": 0,
        "ms_per_sample": 55, "up_mbps": 6.1, "down_mbps": 6.1, "trace": str(folder / "phones.parquet"),
    }  # fmt: skip
    return {
        "data": {"limit": 1000, "partition": "iid"},
        "federation": {"clients": 10},
        "pretrain": {"rounds": ROUNDS},
        "retrain": {"rounds": 5},
        "forget": {"scenario": "client", "clients": [0]},
        "deployment": deployment,
        "engine": {"backend": "local"},
        "audit": {"enabled": False},
        "output": {"plots": "none"},
    }


def server(values: int, repeats: int = 5) -> list[float]:
    """Megabytes a second, each time anew, that one core adds up of updates of so many values."""
    update = np.random.default_rng(0).normal(0, 0.05, values).astype(np.float32)
    found = []
    for _ in range(repeats):
        exact, clients = ExactSum(values, *scale_of(60_000)), max(1, 4_000_000 // values)
        started = time.process_time()
        for _ in range(clients):
            exact.add(update, 1000)
        found.append(clients * update.nbytes / 1e6 / (time.process_time() - started))
    return found


def pipes(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def write(name: str, text: str) -> None:
    """Put a table between its marks in the page."""
    before, start, rest = PAGE.read_text(encoding="utf-8").partition(f"<!-- {name}: written by the script -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->\n")
    assert start, f"{PAGE} has no place for {name}"
    assert end, f"{PAGE} has no place for {name}"
    PAGE.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["forget", "away", "server"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of forget")
    parser.add_argument("--data", default="fashion-mnist-mini", help="of forget")
    parser.add_argument("--out", type=Path, default=Path("runs/deployments"), help="of forget: the comparison's folder")
    given = parser.parse_args()
    if given.what == "forget":
        write("forget", forget(given.data, given.seeds, given.out))
    elif given.what == "away":
        write("away", away())
    else:
        for size in (44_426, 1_000_000):
            rates = server(size)
            print(f"{size:,} values: {statistics.median(rates):,.0f} MB/s ({min(rates):,.0f}-{max(rates):,.0f})")
