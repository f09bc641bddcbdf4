"""What a sweep came to, in plain values: settings and verdicts for result.json, and front.parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from fused_ray.audit import rules
from fused_ray.config.parts.metrics import Metric
from fused_ray.studies import further
from fused_ray.studies.sweeps.front import NOT_AUDITED, Audited, Case, Setting


def plain(setting: Setting) -> dict[str, Any]:
    """A setting for result.json and front.parquet: what is reported, and beside it the accuracies that chose it."""
    figures = dict(setting.mean) | {f"{name}_choose": setting.choosing[name] for name in ("ra", "fa", "ca")}
    spreads = {f"{name}_std": setting.spread.get(name) for name in ("ra", "fa")}
    return {
        "values": dict(setting.values),
        "rounds": setting.round,
        "trials": list(setting.trials),
        **figures,
        **spreads,
    }


def front_table(cases: Sequence[Case], metrics: Sequence[Metric]) -> pa.Table:
    """front.parquet: the settings of every case's front; what was not audited has no verdict and no metrics."""
    listed = [(case, setting, case.verdict(setting)) for case in cases for setting in case.front]
    front = pa.Table.from_pylist(
        [{"case": case.name} | plain(s) | {"values": json.dumps(s.values)} for case, s, _ in listed]
    )
    front = front.append_column("verdict", pa.array([judged and judged.verdict for *_, judged in listed], pa.string()))
    rows = [further.columns(audited.metrics) if audited else {} for *_, audited in listed]
    for field_ in further.fields(rows, metrics):
        front = front.append_column(field_, pa.array([row.get(field_.name) for row in rows], pa.float64()))
    return front


def verdict_of(case: Case, setting: Setting) -> dict[str, Any]:
    """What the audit said of a setting, for result.json."""
    judged = case.verdict(setting)
    audited = judged or Audited(setting, NOT_AUDITED, "base.audit.enabled is false")
    return {
        "verdict": audited.verdict,
        "verdict_sentence": audited.sentence,
        "verdict_rules": rules.RULES if judged else None,
        "findings": list(audited.findings),
        "audit_metrics": list(audited.metrics),
        "audit_metrics_failed": list(audited.metrics_failed),
    }
