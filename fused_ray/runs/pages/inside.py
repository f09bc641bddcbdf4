"""Where a run's adapter sits, and how deep its forgetting is: relearning, index by stage, head recovery, attacks."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fused_ray.pages import charts
from fused_ray.pages.charts import Axis, Bar, Point, Series
from fused_ray.pages.parts import Chart, Part, Section, Table, Terms, Words
from fused_ray.runs.pages.known import MODELS, Known
from fused_ray.runs.report import PASSES
from fused_ray.runs.screen import number, size

_READINGS = {"mean": "change per parameter", "sum": "change in all", "relative": "change / own size"}
_STYLES = {**MODELS, "shuffled": 3}


def layers(known: Known) -> Section:
    """How much each layer moves when clients train, which were chosen, and what the adapter is."""
    about, adapter = known.result["layers"], known.result["adapter"]
    parts: list[Part] = []
    if ranking := about["ranking"]:
        by = about["by"] or "mean"
        bars = [Bar(each["layer"], each[by], f"{each[by]:.3g}", each["layer"] in about["chosen"]) for each in ranking]
        title = f"How much each layer moves: {_READINGS[by]} (ranked by this)"
        told = "A bar per layer, the first of the ranking on top; the adapted layers have the second colour."
        parts += charts.only(charts.bars(title, told, bars, legend=("not adapted", "adapted")))
        head = ("layer", "adapted", *_READINGS.values())
        body = [
            (each["layer"], "yes" if each["layer"] in about["chosen"] else "", *(f"{each[r]:.4g}" for r in _READINGS))
            for each in ranking
        ]
        parts.append(Table("Sensitivity of the layers", head, body, left=("adapted",)))
    elif about["chosen"]:
        parts.append(Words([f"Adapted without a ranking: {', '.join(about['chosen'])}."]))
    parts.append(
        Terms(list(_adapter(adapter)))
        if adapter
        else Words(["The method changed the whole model: no layer was chosen."])
    )
    return Section("Layers and adapter", parts)


def _adapter(adapter: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    heal = f", {healing:,} of them heal" if (healing := adapter.get("heal_values")) else ""
    yield "adapter", f"{adapter['kind']}, {adapter['values']:,} values{heal}"
    if adapter.get("sparsity") is not None:
        yield "sparsity", f"{adapter['sparsity']:.1%} of the chosen layers' entries stay as they are"
    if adapter.get("mask"):
        yield "entries chosen by", f"{adapter['mask']} ({size(adapter['mask_bytes'])} say which, sent once)"
    yield "start", str(adapter["start"])
    yield "learning rate", f"{adapter['lr']:g}"
    yield "SHA-256", adapter["sha256"]


def depth(known: Known) -> Section:
    """What the audit saw beyond RA and FA."""
    report = known.audit
    if report is None:
        told = "Not audited: how deep the forgetting is has not been looked at."
        return Section("Depth", [Words([told])])
    parts: list[Part] = [*charts.only(_relearning(report), _recovery(report), *_stages(report))]
    parts.append(
        Table("What was looked at inside", ("measure", "after", "retrained", "before"), list(_measures(report)))
    )
    parts += list(_distances(report))
    index = report.get("index")
    if index is None:
        parts.append(Words([f"The index by stage was not measured: fused-ray audit {known.directory.path}"]))
    elif index.get("why"):
        parts.append(Words([f"Index: {index['why']}."]))
    if answers := report.get("audit_answers"):
        rows = [(each["name"], PASSES[each["passes"]], each["said"]) for each in answers]
        left = ("answer", "figures")
        parts.append(Table("Questions of the full audit", ("question", *left), rows, left=left))
    if metrics := report.get("audit_metrics"):
        body = [(each["name"], f"{each['value']:.4g}", each["meaning"]) for each in metrics]
        parts.append(Table("Further metrics", ("metric", "value", "meaning"), body, left=("meaning",)))
    if failed := report.get("audit_metrics_failed"):
        parts.append(Words(failed, listed=True))
    return Section("Depth", parts)


def _relearning(report: Mapping[str, Any]) -> Chart | None:
    curves = {name: each["curve"] for name, each in report["relearning"].items() if each and "curve" in each}
    series = [
        Series(name, [Point(step, fa, f"{name}\nstep {step}: FA {number(fa)}") for step, fa in enumerate(curve)],
               style=_STYLES[name])
        for name, curve in curves.items()
    ]  # fmt: skip
    before = report["accuracy"]["before"]
    if series and before:
        series[0] = Series(series[0].name, series[0].points, style=series[0].style, rule=before["fa"]["weighted"] / 2)
    about = "FA after each step of training on the forgotten data again; who forgot learns as fast as a retrained one."
    axes = Axis("step", whole=True), Axis("FA", limits=(-0.04, 1.04))
    return charts.points("Relearning: FA by step", about, series, *axes, against="half of FA before")


def _recovery(report: Mapping[str, Any]) -> Chart | None:
    bars = [
        Bar(name, each["accuracy"], number(each["accuracy"]), name == "after",
            f"{name}: {number(each['accuracy'])}\ndraws {', '.join(map(number, each['draws']))}")
        for name, each in report["head_recovery"].items()
        if each
    ]  # fmt: skip
    about = "FA of a new output layer that is trained on each model's features."
    return charts.bars("Head recovery: FA of a new output layer", about, bars)


def _stages(report: Mapping[str, Any]) -> Iterator[Chart | None]:
    """What a probe of each stage knows, of each model."""
    index = report.get("index") or {}
    models = {"before": index.get("before"), "after": index.get("after")}
    models["retrained"] = (index.get("retrained") or [None])[0]
    series, names = [], []
    for name, each in models.items():
        if each:
            names = each["names"]
            means = [statistics.fmean(column) for column in zip(*each["stages"], strict=True)]
            points = [
                Point(place, mean, f"{name}\nstage {names[place]}: {mean:.4f} nats") for place, mean in enumerate(means)
            ]
            series.append(Series(name, points, style=_STYLES[name]))
    about = "Information that each stage has of what must be forgotten, by linear probes, mean over the draws."
    stages = Axis("stage", whole=True, show=lambda place: names[int(place)] if place in range(len(names)) else "")
    yield charts.points("Index by stage: information, nats", about, series, stages, Axis("nats"))


def _measures(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    learned, recovered = report["relearning"], report["head_recovery"]
    steps = [_steps(learned[name]) for name in ("after", "retrained")]
    yield "steps until half of FA is back", steps[0], steps[1], "-"
    yield (
        "FA after the fixed number of steps (ReA)",
        *(_of(learned[name], "accuracy") for name in ("after", "retrained")),
        "-",
    )
    yield (
        "head recovery: FA of a new output layer",
        *(_of(recovered[n], "accuracy") for n in ("after", "retrained", "before")),
    )
    if index := report.get("index"):
        yield "index (0: as retrained, 1: as before)", number(index.get("value")), "0", "1"
    if member := report["membership"]:
        for attack in ("loss", "shadow", "gaussian"):
            pair = [_of((member[name] or {}).get(attack), "auc") for name in ("after", "retrained")]
            if pair[0] != "-":
                yield f"membership attack by {attack}: AUC", *pair, "-"
    for where, told in (("everywhere", "all parameters"), ("adapter", "the adapter's entries")):
        if (opposed := (report["opposition"] or {}).get(where)) is not None:
            yield f"gradient opposition on {told}: cosine", f"{opposed['phi']:.3f}", "-", "-"


def _steps(relearned: Mapping[str, Any] | None) -> str:
    if relearned is None:
        return "-"
    return f"more than {len(relearned['curve']) - 1}" if relearned["steps"] is None else f"{relearned['steps']:.1f}"


def _of(found: Mapping[str, Any] | None, name: str) -> str:
    return "-" if not found else number(found[name])


def _distances(report: Mapping[str, Any]) -> Iterator[Table]:
    """How far the model's answers are from the retrained one's."""
    distance = report["distance"]
    if distance:
        kinds: Sequence[str] = [name for name in ("forget", "retain", "test") if name in distance]
        body = [(name, *(f"{distance[name][d]:.4f}" for d in ("js", "kl", "disagreement"))) for name in kinds]
        head = ("data", "Jensen-Shannon, nats", "Kullback-Leibler, nats", "other answers, share")
        yield Table("Distance from the retrained model", head, body)
