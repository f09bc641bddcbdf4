"""trials.parquet of a sweep: a row per trial and round, with what each column means.

Round 0 is the adapter as it starts, or the model that a method's first round begins with. A trial that gave no
figures has one row without a round.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from fused_ray.core.metrics import HALVES
from fused_ray.runs import clock
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.schemas import METRICS, TIME
from fused_ray.studies.status import DONE, STOPPED
from fused_ray.studies.sweeps.trials import Trial

ACCURACIES = ("ra", "fa", "ca", "ra_before", "fa_before", "ra_retrained", "fa_retrained")
"""Columns that there are on the whole test set and on either half."""

_STRING, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "trial": (_INT, "number of the trial, from 0; its run is trials/<number, four digits>"),
    "round": (_INT, "unlearning round; 0: before the first; null: the trial gave no figures"),
    "last": (_BOOL, "whether it is the trial's last row"),
    "ra": (_FLOAT, "accuracy on the retained test view after the round"),
    "fa": (_FLOAT, "accuracy on the forgotten test view; in sample, the attack's success rate"),
    "ca": (_FLOAT, "accuracy on the overlapping class; null outside the exclusive scenario"),
    "loss": (_FLOAT, "mean training loss an example over the round"),
    "bytes_up": (_INT, "protocol bytes that a client sends up in the round"),
    "bytes_up_client": (_INT, "bytes_up by a name that says whose they are"),
    "bytes_up_total": (_INT, "protocol bytes that all clients sent up for it so far, ranking and gradients included"),
    "seconds": (_FLOAT, "wall seconds of the round: training, averaging, evaluation"),
    "seconds_total": (_FLOAT, "wall seconds of all unlearning rounds so far, without ranking and gradients"),
    "status": (_STRING, "done; stopped (early, by the scheduler); unsupported: or failed: and the reason"),
    "seed": (_INT, "the run's seed"),
    "values": (_STRING, "the swept fields and their values, JSON"),
    "config": (
        _STRING,
        "in the last row of a trial: its run's whole configuration, JSON; null where its values do not go together",
    ),
    "failures": (pa.int64(), "of the whole trial, how often a client failed and was left out; 0: bit-reproducible"),
    "started_at": (TIME, "when the trial's run was first started, by its driver's clock; null if it never was"),
    "ended_at": (TIME, "when it was finished; null where it was not: stopped early, failed"),
    "ra_before": (_FLOAT, "ra of the model that remembers"),
    "fa_before": (_FLOAT, "fa of the model that remembers"),
    "ra_retrained": (_FLOAT, "ra of the model retrained without the forgotten data; null if that was left out"),
    "fa_retrained": (_FLOAT, "fa of the retrained model"),
    **{f"{name}_{half}": (_FLOAT, f"{name} on {what}") for half, what in HALVES.items() for name in ACCURACIES},
    "layers": (_STRING, "adapted layers"),
    "adapter_values": (_INT, "values of the adapter; null for a method that changes the whole model"),
    "sha256": (_STRING, "in the last row of a trial that is done: hash of the model that forgot"),
}
_TIMES: dict[str, tuple[pa.DataType, str]] = {
    "deployment": (_STRING, "the profile of the devices that the next three are imagined on"),
    "simulated_seconds": (_FLOAT, "seconds there until the round's end, those of earlier phases included"),
    "rounds_to_forget": (_INT, "of the whole trial, as in results.parquet"),
    "seconds_to_forget": (_FLOAT, "likewise"),
}


def _schema(columns: Mapping[str, tuple[pa.DataType, str]]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"doc": doc}) for name, (kind, doc) in columns.items()])


SCHEMA, TIMES = _schema(_COLUMNS), _schema(_TIMES)
"""The columns of every sweep, and those that one with a deployment has besides; known of trials that are done."""

Row = dict[str, Any]
Report = dict[str, Any]
"""What Tune hears of a trial: round, ra, fa, ca, bytes_up_total, seconds, score, and in the end `status`.

The accuracies are those on the half that a sweep chooses by.
"""


def table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table with every column; what a row lacks is null."""
    rows = list(rows)
    schema = pa.schema([*SCHEMA, *(TIMES if any("deployment" in row for row in rows) else ())])
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def of_trial(trial: Trial, status: str, run: RunDirectory | None, retrained: Mapping[str, float] | None) -> list[Row]:
    """All rows of a trial; `run` as far as it has come, `retrained` its retrained model's figures."""
    config = trial.config
    started, ended = run.times if run is not None else (None, None)
    common: Row = {
        **dict.fromkeys(SCHEMA.names),
        "trial": trial.number,
        "status": status,
        "seed": config.seed if config else trial.values.get("seed"),
        "values": trial.text,
        "started_at": started,
        "ended_at": ended,
        **(_of_model("retrained", retrained) if retrained else {}),
    }
    rows = [common | own for own in _rounds(run)] if run is not None and status in (DONE, STOPPED) else []
    if rows and run is not None and run.finished and run.config.deployment.profile != "none":
        rows = _with_times(rows, run, retrained)
    rows = rows or [common]
    rows = [row | {"last": False} for row in rows]
    rows[-1] |= {"last": True, "config": config and json.dumps(config.model_dump(mode="json", by_alias=True))}
    return rows


def _rounds(run: RunDirectory) -> list[Row]:
    """Per round of unlearning what its run recorded; the start and the hash are known once the run is finished."""
    phase = "retrain" if run.config.retrains else "unlearn"
    rows: list[Row] = []
    sent, seconds, start = 0, 0.0, None
    result = run.result if run.finished else None
    for row in run.table("rounds").to_pylist():
        if row["phase"] == "pretrain":
            continue
        sent += row["bytes_up"]
        if row["phase"] != phase:
            start = sent
            continue
        start = sent - row["bytes_up"] if start is None else start
        took = sum(row[f"{part}_seconds"] for part in ("train", "aggregate", "evaluate"))
        seconds += took
        rows.append(
            {
                **{name: row[name] for name in ("round", "loss", *METRICS)},
                "bytes_up": (each := row["bytes_up"] // max(1, row["clients_received"])),
                "bytes_up_client": each,
                "bytes_up_total": sent,
                "seconds": took,
                "seconds_total": seconds,
            }
        )
    if result is None:
        return rows
    metrics, adapter = result["metrics"], result["adapter"]
    began = {
        "round": 0,
        "bytes_up": 0,
        "bytes_up_client": 0,
        "bytes_up_total": start or 0,
        "seconds": 0.0,
        "seconds_total": 0.0,
    }
    rows.insert(0, began | {name: metrics["start"].get(name) for name in METRICS})
    about = {
        **_of_model("before", metrics["before"]),
        "layers": " ".join(result["layers"]["chosen"]) or None,
        "adapter_values": adapter["values"] if adapter else None,
        "failures": result.get("failures", 0),
    }
    rows = [row | about for row in rows]
    rows[-1]["sha256"] = result["hash"]["unlearned"]
    return rows


def _with_times(rows: list[Row], run: RunDirectory, retrained: Mapping[str, float] | None) -> list[Row]:
    """A finished trial's rows with its simulated seconds."""
    found = clock.recorded(run)
    told = clock.told(found, run.config, run.result["bytes"], None if retrained is None else retrained["fa"])
    about = {name: told[name] for name in ("rounds_to_forget", "seconds_to_forget")}
    main = "retrain" if run.config.retrains else "unlearn"
    ends: dict[int, float | None] = {}
    passed: float | None = 0.0
    for row, seconds in zip(found.rows, found.seconds, strict=True):
        if row["phase"] not in clock.method_phases(run.config):
            continue
        if row["phase"] == main:
            ends.setdefault(0, passed)  # round 0 ends when the first one begins
        passed = None if passed is None or seconds is None else passed + seconds
        if row["phase"] == main:
            ends[row["round"]] = passed
    profile = run.config.deployment.profile
    return [row | {"deployment": profile, "simulated_seconds": ends.get(row["round"]), **about} for row in rows]


def _of_model(kind: str, metrics: Mapping[str, float]) -> Row:
    """Columns of the model before, or of the retrained one, from its metrics."""
    return {
        f"{view}_{kind}{half}": metrics[f"{view}{half}"]
        for view in ("ra", "fa")
        for half in ("", *(f"_{name}" for name in HALVES))
    }


def report(row: Mapping[str, Any]) -> Report:
    """Tune's view of a row of trials.parquet; what is not known is NaN, which no scheduler or searcher prefers."""
    ra, fa = row.get("ra_choose"), row.get("fa_choose")
    figures = {
        "ra": ra,
        "fa": fa,
        "ca": row.get("ca_choose"),
        "bytes_up_total": row.get("bytes_up_total"),
        "seconds": row.get("seconds_total"),
        "round": row.get("round") or 0,
        "score": None if ra is None or fa is None else ra - fa,
    }
    return {name: math.nan if value is None else value for name, value in figures.items()}
