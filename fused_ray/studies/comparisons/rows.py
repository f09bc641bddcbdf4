"""results.parquet of a comparison: one row per method, scenario and seed, with what each column means."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from fused_ray.audit.margins import FA_MARGIN
from fused_ray.config import schedule
from fused_ray.config.parts.metrics import Metric
from fused_ray.core.deployment import HELD
from fused_ray.core.simulation import VACUOUS_MARGIN, vacuous
from fused_ray.runs import clock
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.schemas import TIME
from fused_ray.studies import further
from fused_ray.studies.comparisons.config import Cell
from fused_ray.studies.status import DONE

_STRING, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "method": (_STRING, "label of the method"),
    "scenario": (_STRING, "label of the scenario"),
    "seed": (_INT, "seed"),
    "status": (_STRING, "done; unsupported (the method cannot do the scenario); failed: and the reason"),
    "algorithm": (_STRING, "unlearn.method"),
    "ra": (_FLOAT, "accuracy on the retained test view after unlearning"),
    "fa": (_FLOAT, "accuracy on the forgotten test view after unlearning; in sample, the attack's success rate"),
    "ca": (_FLOAT, "accuracy on the overlapping class; null outside the exclusive scenario"),
    "ra_start": (_FLOAT, "ra before the first round: of the adapter as it starts, or of the model it begins with"),
    "fa_start": (_FLOAT, "fa before the first round"),
    "ra_before": (_FLOAT, "ra of the model that remembers (the method's own where it trains one: exactfun)"),
    "fa_before": (_FLOAT, "fa of the model that remembers"),
    "ca_before": (_FLOAT, "ca of the model that remembers"),
    "ra_retrained": (_FLOAT, "ra of the model retrained without the forgotten data"),
    "fa_retrained": (_FLOAT, "fa of the retrained model"),
    "ca_retrained": (_FLOAT, "ca of the retrained model"),
    "vacuous": (_BOOL, f"nothing to forget: fa_before is not more than {VACUOUS_MARGIN} above fa_retrained"),
    "trivial": (_BOOL, "changing one output bias does as well on ra and fa; null without an audit, as all below here"),
    "ra_control": (_FLOAT, "ra of that control"),
    "fa_control": (_FLOAT, "fa of that control"),
    "ca_control": (_FLOAT, "ca of that control"),
    "ra_macro": (_FLOAT, "ra as a mean over cells (client, class)"),
    "fa_macro": (_FLOAT, "fa as a mean over cells (client, class)"),
    "rea": (_FLOAT, "relearning: fa after a fixed number of steps on the forgotten data"),
    "rea_retrained": (_FLOAT, "the retrained model's"),
    "relearn_steps": (_FLOAT, "steps until fa is half of fa_before again; null: never within those made"),
    "relearn_ratio": (
        _FLOAT,
        "relearn_steps over the retrained model's; below 1: knowledge was left behind; null: bounds",
    ),
    "relearn_text": (_STRING, "the same as it is known: a number, at least, at most, or not known"),
    "mia_auc": (_FLOAT, "membership attack: AUC, with shadow models if there are any, else by the loss"),
    "mia_tpr": (_FLOAT, "its true positives at 1% false positives; null with fewer than 99 examples a side"),
    "mia_auc_retrained": (_FLOAT, "the retrained model's AUC: what an unlearned model should have"),
    "js_forget": (_FLOAT, "Jensen-Shannon divergence to the retrained model on the forgotten view, nats"),
    "js_floor": (_FLOAT, "that between retrained models of two seeds; null with one seed"),
    "phi": (_FLOAT, "gradient opposition on the adapter's entries, else on all parameters"),
    "index": (
        _FLOAT,
        "information difference index by linear probes: 0 as retrained, 1 as before; null: cannot be told",
    ),
    "index_why": (_STRING, "why the index cannot be told, or does not apply"),
    "head_recovery": (_FLOAT, "fa of a new output layer on the model's features"),
    "head_recovery_retrained": (_FLOAT, "the retrained model's"),
    "verdict": (_STRING, "unjudged, vacuous, damaged, not forgotten, shallow or forgotten: the worst that holds"),
    "verdict_sentence": (_STRING, "why, with the figures"),
    "verdict_rules": (_INT, "which rules the verdict is by: they are counted"),
    "findings": (_STRING, "names of the audit's other findings, gravest first; empty: none"),
    "bytes_up": (_INT, "protocol bytes that a client sends up in a round of the method's main phase"),
    "bytes_down": (_INT, "protocol bytes that a client receives in such a round"),
    "bytes_up_client": (_INT, "bytes_up by a name that says whose they are"),
    "bytes_down_client": (_INT, "bytes_down likewise"),
    "bytes_up_total": (_INT, "sent up by all clients in all of the method's rounds, ranking and gradients included"),
    "bytes_down_total": (_INT, "received by all clients in all of the method's rounds, M_r and masks included"),
    "mask_bytes": (_INT, "protocol bytes that say which entries an adapter changes, once"),
    "storage_bytes": (_INT, "what the server must have stored during training, beside the model"),
    "rounds": (_INT, "rounds of the method: ranking, gradients, replay, unlearning or retraining"),
    "seconds_train": (_FLOAT, "wall seconds of local training, all rounds of the method but replay"),
    "seconds_aggregate": (_FLOAT, "wall seconds of averaging"),
    "seconds_evaluate": (_FLOAT, "wall seconds of evaluation"),
    "equivalents": (
        _FLOAT,
        "full-round equivalents, without replay: examples trained on, over the size of the training set",
    ),
    "layers": (_STRING, "adapted layers"),
    "values": (_INT, "values of the adapter; null for a method that changes the whole model"),
    "reversible": (_BOOL, "whether taking the adapter off gives the earlier model back, bit for bit"),
    "sha256": (_STRING, "hash of the model that forgot"),
    "failures": (_INT, "how often a client failed and was left out; unless it is 0, the run is not bit-reproducible"),
    "started_at": (TIME, "when the run was first started, by its driver's clock"),
    "ended_at": (TIME, "when it was finished, but for the audit"),
    "config": (_STRING, "the run's whole configuration, JSON"),
    "directory": (_STRING, "the run's directory, from the comparison's"),
    "metrics_failed": (_STRING, "further metrics that could not be taken, and why; empty: none"),
}
_TIMES: dict[str, tuple[pa.DataType, str]] = {
    "deployment": (_STRING, "the profile of the devices that the next four are imagined on"),
    "simulated_seconds": (_FLOAT, "seconds of all of the method's rounds there, but replay; null: not known"),
    "waited_seconds": (_FLOAT, "those of them until somebody was there, or everybody whom the method asks by name"),
    "rounds_to_forget": (
        _INT,
        f"the first round, of the method's main phase, from which fa is at most {FA_MARGIN} above fa_retrained for "
        f"{HELD} rounds; null: never, or in fewer rounds",
    ),
    "seconds_to_forget": (_FLOAT, "simulated seconds until that round's end, earlier phases and waiting included"),
}


def _schema(columns: Mapping[str, tuple[pa.DataType, str]]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"doc": doc}) for name, (kind, doc) in columns.items()])


SCHEMA, TIMES = _schema(_COLUMNS), _schema(_TIMES)
"""The columns of every comparison, and those that one with a deployment has besides."""


def table(rows: Iterable[Mapping[str, Any]], metrics: Sequence[Metric] = ()) -> pa.Table:
    """Rows as a table with every column, and one for every figure of further metrics; what a row lacks is null."""
    rows = list(rows)
    times = TIMES if any("deployment" in row for row in rows) else ()
    schema = pa.schema([*SCHEMA, *times, *further.fields(rows, metrics)])
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def bare(cell: Cell, status: str) -> dict[str, Any]:
    """The row of a cell that gave no figures."""
    return {
        "method": cell.method,
        "scenario": cell.scenario,
        "seed": cell.seed,
        "status": status,
        "algorithm": cell.algorithm,
    }


def finished(cell: Cell, run: RunDirectory, base: RunDirectory, audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """The row of a finished run; `base` is its base run, `audit` what was found out about its model."""
    result, retrained = run.result, base.result["metrics"]["retrained"]
    metrics, adapter = result["metrics"], result["adapter"]
    phases = [phase for phase in result["bytes"] if phase != "pretrain"]
    sent = {phase: result["bytes"][phase] for phase in phases}
    main = sent[schedule.main_phase(sent)]
    rounds, (started, ended) = trained(run), run.times
    return {
        **bare(cell, DONE),
        **_figures(metrics["after"], ""),
        "ra_start": metrics["start"]["ra"],
        "fa_start": metrics["start"]["fa"],
        **_figures(metrics["before"], "_before"),
        **_figures(retrained, "_retrained"),
        "vacuous": vacuous(metrics["before"]["fa"], retrained["fa"]),
        **({} if audit is None else _audited(audit)),
        "bytes_up": main["up_per_client_per_round"],
        "bytes_down": main["down_per_client_per_round"],
        "bytes_up_client": main["up_per_client_per_round"],
        "bytes_down_client": main["down_per_client_per_round"],
        "bytes_up_total": sum(phase["up_total"] for phase in sent.values()),
        "bytes_down_total": sum(phase["down_total"] for phase in sent.values()),
        "mask_bytes": adapter["mask_bytes"] if adapter else 0,
        "storage_bytes": result["storage_bytes"],
        "rounds": sum(phase != "pretrain" for phase, _ in rounds),
        **{f"seconds_{part}": sum(result["seconds"][p][part] for p in phases if p != "replay") for part in _PARTS},
        "equivalents": sum(part for (phase, _), part in rounds.items() if phase not in ("pretrain", "replay")),
        "layers": " ".join(result["layers"]["chosen"]) or None,
        "values": adapter["values"] if adapter else None,
        "reversible": result["reversible"],
        "sha256": result["hash"]["unlearned"],
        "failures": result.get("failures", 0),
        "started_at": started,
        "ended_at": ended,
        "config": json.dumps(run.config.model_dump(mode="json", by_alias=True)),
        **_times(cell, run, retrained["fa"]),
    }


def _times(cell: Cell, run: RunDirectory, fa_retrained: float) -> dict[str, Any]:
    """A method's simulated seconds on the comparison's deployment; nothing without one."""
    assert cell.config is not None
    deployment = cell.config.deployment
    if deployment.profile == "none":
        return {}
    own = run.config.deployment == deployment
    found = clock.recorded(run) if own else clock.imagined(run, deployment)
    told = clock.told(found, run.config, run.result["bytes"], fa_retrained)
    return {"deployment": deployment.profile, **told}


def trained(run: RunDirectory) -> dict[tuple[str, int], float]:
    """What a run has trained so far: full-round equivalents by (phase, round).

    1 is a pass over all examples that all clients hold, whether the whole model learns from it or an adapter alone.
    """
    config, clients = run.config, run.table("clients").to_pylist()
    there = Counter((row["phase"], row["round"]) for row in clients)
    # where not every client has a row, the round's own says it
    summed = {
        (row["phase"], row["round"]): row["examples_shown"]
        for row in run.table("rounds").to_pylist()
        if row.get("examples_shown") is not None and there[row["phase"], row["round"]] < row["clients_used"]
    }
    if not clients and not summed:
        return {}
    everything = sum(run.read_json("scenario.json")["examples"])
    rounds: dict[tuple[str, int], float] = {key: shown / everything for key, shown in summed.items()}
    for row in clients:
        key = row["phase"], row["round"]
        if key not in summed:
            rounds[key] = rounds.get(key, 0.0) + config.method.shown(config, *key, row["examples"]) / everything
    return rounds


_PARTS = ("train", "aggregate", "evaluate")


def _figures(metrics: Mapping[str, float], suffix: str) -> dict[str, float | None]:
    return {f"{name}{suffix}": metrics.get(name) for name in ("ra", "fa", "ca")}


def _audited(audit: Mapping[str, Any]) -> dict[str, Any]:
    accuracy, relearning, index = audit["accuracy"], audit["relearning"], audit["index"]
    distance, opposition = audit["distance"], audit["opposition"]
    ratio = relearning["ratio"] or {"low": None, "high": None, "text": "blind"}
    return {
        "trivial": audit["trivial"],
        **_figures({view: accuracies["weighted"] for view, accuracies in accuracy["control"].items()}, "_control"),
        "ra_macro": accuracy["after"]["ra"]["macro"],
        "fa_macro": accuracy["after"]["fa"]["macro"],
        "rea": relearning["after"]["accuracy"],
        "rea_retrained": relearning["retrained"]["accuracy"],
        "relearn_steps": relearning["after"]["steps"],
        "relearn_ratio": ratio["low"] if ratio["low"] == ratio["high"] else None,
        "relearn_text": ratio["text"],
        **_membership(audit["membership"]),
        "js_forget": distance["forget"]["js"],
        "js_floor": distance["floor"] and distance["floor"]["forget"]["js"],
        "phi": opposition and (opposition["adapter"] or opposition["everywhere"])["phi"],
        "index": index and index["value"],
        "index_why": index and index["why"],
        "head_recovery": audit["head_recovery"]["after"]["accuracy"],
        "head_recovery_retrained": audit["head_recovery"]["retrained"]["accuracy"],
        "verdict": audit["verdict"],
        "verdict_sentence": audit["sentence"],
        "verdict_rules": audit["rules"],
        "findings": "; ".join(finding["name"] for finding in audit["findings"]),
        "metrics_failed": "; ".join(audit["audit_metrics_failed"]),
        **further.columns(audit["audit_metrics"]),
    }


def _membership(attacks: Mapping[str, Any] | None) -> dict[str, Any]:
    if attacks is None:
        return {}
    attack = "shadow" if attacks["after"]["shadow"] else "loss"
    return {
        "mia_auc": attacks["after"][attack]["auc"],
        "mia_tpr": attacks["after"][attack]["tpr"],
        "mia_auc_retrained": attacks["retrained"][attack]["auc"],
    }
