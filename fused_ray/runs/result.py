"""The content of a run's result.json, in plain values. Its fields only become more (docs/schemas.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from fused_ray.config import RunConfig, schedule
from fused_ray.core.simulation import Outcome
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.earlier import failures_of_model, left_out
from fused_ray.runs.rows import phase_bytes, phase_seconds, rows_of
from fused_ray.storage.environment import environment
from fused_ray.types import Identity, ImageData, Scenario

SCHEMA = 1
"""Version of the fields: what a later one adds leaves them as they are."""


def about_data(data: ImageData) -> dict[str, Any]:
    """What building M_f and feeding it takes."""
    return {
        "shape": list(data.shape),
        "classes": data.classes,
        "class_names": list(data.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
    }


def placement(identities: Sequence[Identity]) -> dict[str, Any]:
    """Who computed: workers that are alike, how many there were, and what each reserved on Ray."""
    alike = Counter((i.node, i.device, i.torch, i.cpus, i.gpus) for i in identities)
    names = ("node", "device", "torch", "cpus", "gpus")
    return {
        "actors": len(identities),
        "nodes": len({identity.node for identity in identities}),
        "devices": sorted({identity.device for identity in identities}),
        "workers": [dict(zip(names, kind, strict=True)) | {"actors": count} for kind, count in alike.items()],
    }


def content(
    directory: RunDirectory, data: ImageData, scenario: Scenario, outcome: Outcome, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """All of it before the audit; `extra` is what else is known of the run."""
    config, rounds = directory.config, directory.table("rounds").to_pylist()
    earlier = failures_of_model(config)
    phases = schedule.phases(config)
    return {
        "schema": SCHEMA,
        "version": environment()["packages"]["fused-ray"],
        "method": config.unlearn.method,
        "scenario": config.forget.scenario,
        "seed": config.seed,
        "data": about_data(data),
        **_of_outcome(config, outcome),
        "bytes": {phase: phase_bytes(rounds, phase) for phase in phases},
        "seconds": {phase: phase_seconds(rounds, phase) for phase in phases},
        "failures": left_out(config, rounds) + earlier,
        "failures_of_model": left_out(config, rows_of(rounds, "pretrain")) + earlier,
        "retries": sum(row.get("retries") or 0 for row in rounds),  # of rounds before this version, none is known
        "placement": placement(outcome.identities),
        "partition_sha256": scenario.partition_sha256,
        "pretrain_key": config.pretrain_key(),
        "verdict": None,  # until it is audited
        "verdict_sentence": None,
        "verdict_rules": None,
        "findings": [],
        "audit_metrics": [],
        "audit_metrics_failed": [],
        "audit_answers": [],
        **extra,
    }


def _of_outcome(config: RunConfig, outcome: Outcome) -> dict[str, Any]:
    unlearned, adapter = outcome.unlearned, outcome.unlearned.adapter
    fingerprints = sorted({identity.fingerprint for identity in outcome.identities})
    ranking = {item.layer: {k: v for k, v in asdict(item).items() if k != "layer"} for item in unlearned.ranking}
    return {
        "metrics": {
            "before": outcome.before,
            "start": unlearned.start_metrics,
            "after": unlearned.metrics,
            "retrained": outcome.retrained,
        },
        "vacuous": outcome.vacuous,
        "layers": {
            "chosen": list(adapter.names) if adapter else [],
            "by": config.unlearn.ranking if ranking else None,
            "ranking": [{"layer": layer, **figures} for layer, figures in ranking.items()],
        },
        "adapter": adapter
        and {
            "kind": config.unlearn.adapter,
            "values": adapter.size,
            "start": config.adapter_start,
            "sparsity": 1 - adapter.size / adapter.entries if config.masked else None,
            "heal": config.unlearn.heal,
            "heal_values": unlearned.healing,
            "mask": None if config.all_heal else config.adapter_mask,
            "mask_bytes": unlearned.mask_bytes,
            "lr": config.adapter_lr,
            "sha256": adapter.digest,
        },
        "storage_bytes": unlearned.storage_bytes,
        "figures": dict(unlearned.figures),
        "hash": {
            "base": outcome.base_hash,
            "unlearned": outcome.unlearned_hash,
            "restored": outcome.restored_hash,
        },
        "reversible": outcome.restored_hash == outcome.base_hash,
        "numerics": {
            "fingerprint": outcome.identities[0].fingerprint,
            "comparable": len(fingerprints) == 1,
            "fingerprints": fingerprints,
        },
    }


def now() -> str:
    """The time, UTC, as result.json and starts.json have it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
