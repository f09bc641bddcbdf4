"""Folders of results to make pages of, with few figures of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from fused_ray import CompareConfig, RunConfig, ScaleConfig, SweepConfig, run
from fused_ray.storage.table_folder import TableFolder
from fused_ray.studies.comparisons import rows as comparison_rows
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.scaling import rows as scaling_rows
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.sweeps import rows as sweep_rows
from fused_ray.studies.sweeps.directory import SweepDirectory


def small_run(place: Path, **output: Any) -> Path:
    """A run of two rounds a phase on 400 images, judged by little, inside too."""
    values = {
        "data": {"limit": 400}, "federation": {"clients": 4}, "pretrain": {"rounds": 2}, "unlearn": {"rounds": 2},
        "audit": {"relearn_steps": 2, "relearn_repeats": 1}, "engine": {"backend": "local"},
        "output": {"dir": str(place), "plots": "none", **output},
    }  # fmt: skip
    run(RunConfig.from_dict(values))
    return place


def _written(directory: TableFolder, table: pa.Table, **result: Any) -> Path:
    with directory.attempt():
        directory.lock(1.0)
        directory.write_table(directory.TABLE.removesuffix(".parquet"), table)
        if result:
            directory.write_json("result.json", result)
        directory.unlock()
    return directory.path


COMPARED = [
    {
        "method": method, "scenario": "class", "seed": seed, "status": "done", "algorithm": "fused", "ra": ra, "fa": fa,
        "ra_before": 0.8, "fa_before": 0.9, "ra_retrained": 0.75, "fa_retrained": 0.0, "vacuous": False,
        "trivial": False,
        "verdict": verdict, "verdict_sentence": f"because of {method}", "verdict_rules": 1, "rea": 0.5, "mia_auc": 0.5,
        "relearn_ratio": 0.9, "bytes_up": 600, "bytes_up_total": sent, "seconds_train": 2.0, "failures": 0,
        "directory": f"cells/class-{seed}-{method}",
    }
    for seed in (0, 1)
    for method, ra, fa, sent, verdict in (
        ("good", 0.7, 0.1, 60_000, "forgotten"),
        ("costly", 0.7, 0.1, 90_000, "shallow"),
        ("bad<b>&", 0.6, 0.2, 50_000, "not forgotten"),
    )
]  # fmt: skip
"""`costly` is beaten by `good`; the third sends least."""


def comparison(place: Path) -> Path:
    """Three methods, two seeds."""
    values = {"methods": ["fused", "finetune", "not"], "scenarios": ["class"], "seeds": [0, 1]}
    directory = ComparisonDirectory.create(place, CompareConfig.from_dict(values))
    took = {"pretrain": 1.0, "retrain": 1.0, "methods": 1.0, "shadows": 0.0, "total": 3.0}
    counts = {"cells": 6, "done": 6, "unsupported": 0, "failed": 0}
    return _written(directory, comparison_rows.table(COMPARED), equivalents=took, **counts)


def _swept(trial: int, round: int, values: dict[str, Any]) -> dict[str, Any]:
    figures = {"ra": 0.5 + 0.05 * trial, "fa": 0.1 * round, "ra_before": 0.7, "fa_before": 0.9, "ra_retrained": 0.65,
               "fa_retrained": 0.05}  # fmt: skip
    return {
        "trial": trial, "round": round, "last": round == 2, "bytes_up": 600, "bytes_up_total": 600 * round + 100,
        "seconds_total": 1.0, "status": "done", "seed": 0, "values": json.dumps(values), "layers": "fc3", "failures": 0,
        **{f"{name}{half}": figures.get(name) for name in sweep_rows.ACCURACIES for half in ("", "_choose", "_report")},
    }  # fmt: skip


def sweep(place: Path) -> Path:
    """Two layers by two sparsities, two rounds each, not finished."""
    layers, sparsities = (1, 2), (0.5, 0.9)
    space = {"unlearn.layers": {"grid": layers}, "unlearn.sparsity": {"grid": sparsities}}
    directory = SweepDirectory.create(place, SweepConfig.from_dict({"space": space}))
    points = [{"unlearn.layers": k, "unlearn.sparsity": s} for k in layers for s in sparsities]
    rows = [_swept(trial, round, values) for trial, values in enumerate(points) for round in (0, 1, 2)]
    return _written(directory, sweep_rows.table(rows))


def _timed(clients: int, actors: int, seconds: float) -> dict[str, Any]:
    return {
        "clients": clients, "actors": actors, "nodes": 1, "payload": "lenet", "repeat": 0, "status": "done", "round": 2,
        "seconds": seconds, "train": 0.5 * seconds, "transfer": 0.1 * seconds, "aggregate": 0.1 * seconds,
        "evaluate": 0.1 * seconds, "idle": 0.1 * seconds, "record": 0.1 * seconds, "busy": seconds, "steps": 1.0,
        "step_seconds": 0.1, "add_seconds": 0.1, "payload_bytes": 1000, "cluster_bytes": 1000, "memory_worker": 1_000,
        "memory_driver": 1_000, "tests": 100,
    }  # fmt: skip


def scaling(place: Path) -> Path:
    """Two numbers of clients on one and on two actors; without a cost model, as before the end."""
    values = {"points": [{"clients": [4, 8], "actors": [1, 2]}]}
    directory = ScalingDirectory.create(place, ScaleConfig.from_dict(values))
    measured = [_timed(4, 1, 2.0), _timed(8, 1, 4.0), _timed(4, 2, 1.25), _timed(8, 2, 2.5)]
    return _written(directory, scaling_rows.table(measured, scaling_rows.MEASURED))
