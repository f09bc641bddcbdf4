"""Two runs beside each other: what their configurations, figures, bits and versions differ in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.screen import make_screen, make_table, number, size
from fused_ray.storage.folder import Folder
from fused_ray.storage.headers import header
from fused_ray.storage.mirror import in_words

Value = float | str | bool | None
_PLACE = "output.dir"
"""What differs wherever two folders do."""
_NOT_VERSIONS = ("format", "drivers", "nodes")


class Figure(NamedTuple):
    """A figure of a run, and its unit, by which it is shown."""

    value: Value
    unit: str = ""
    """`bytes`, `s`, or empty: an accuracy, a number or a word."""


@dataclass(frozen=True)
class Difference:
    """What two folders of one kind differ in; `a` is the first one."""

    kind: str
    a: str
    b: str
    configuration: Mapping[str, tuple[Any, Any]]
    """Fields with other values, by dotted name."""
    figures: Mapping[str, tuple[Figure | None, Figure | None]]
    """All that one of both has."""
    versions: Mapping[str, tuple[Any, Any]]
    """What is other of machine, programs and revision."""
    same_bits: Mapping[str, bool] = field(default_factory=dict)
    """By model, whether both have the same bits; of models that both have."""
    unfinished: tuple[str, ...] = ()
    """Those of both that have no figures yet."""


def of_runs(a: RunDirectory, b: RunDirectory) -> Difference:
    """What two runs differ in. Raises RunDirectoryError where one cannot be read."""
    return Difference(
        kind="run",
        a=in_words(str(a.path)),
        b=in_words(str(b.path)),
        configuration=of_configurations(a.config, b.config),
        figures=side_by_side(*(dict(_figures(run)) if run.finished else {} for run in (a, b))),
        versions=of_versions(a, b),
        same_bits=_same_bits(a, b),
        unfinished=not_finished(a, b),
    )


def of_configurations(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """The fields of two configurations of a kind that have other values, but for the place of the results."""
    ours, theirs = (dict(_flat(each.model_dump(mode="json", by_alias=True))) for each in (a, b))
    return _other(ours, theirs, without=(_PLACE,))


def of_versions(a: Folder, b: Folder) -> dict[str, tuple[Any, Any]]:
    """What two environment.json say otherwise of machine, programs and revision."""
    found = [each.read_json("environment.json") for each in (a, b)]
    ours, theirs = (dict(_flat({k: v for k, v in about.items() if k not in _NOT_VERSIONS})) for about in found)
    return {name.removeprefix("packages."): values for name, values in _other(ours, theirs).items()}


def side_by_side(a: Mapping[str, Figure], b: Mapping[str, Figure]) -> dict[str, tuple[Figure | None, Figure | None]]:
    """The figures of both by name, in the order of the first, then what the second alone has."""
    return {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])}


def not_finished(*folders: Folder) -> tuple[str, ...]:
    """Those that are not finished."""
    return tuple(in_words(str(folder.path)) for folder in folders if not folder.finished)


def _other(a: Mapping[str, Any], b: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, tuple[Any, Any]]:
    names = (name for name in dict.fromkeys([*a, *b]) if name not in without)
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


# -- a run's figures


def _figures(run: RunDirectory) -> Iterator[tuple[str, Figure]]:
    result = run.result
    yield "verdict", Figure(result.get("verdict"))
    for model in ("before", "after", "retrained"):
        accuracies = result["metrics"][model] or {}
        for view in ("ra", "fa", "ca"):
            if view in accuracies:
                yield f"{view.upper()} {model}", Figure(accuracies[view])
    yield "adapter's values", Figure(result["adapter"] and result["adapter"]["values"])
    own = [phase for phase in result["bytes"] if phase not in ("pretrain", "retrain")]
    for way in ("up", "down"):
        for name, phases in (("unlearning", own), ("retraining", ["retrain"])):
            yield f"sent {way} for {name}", Figure(sum(result["bytes"][p][f"{way}_total"] for p in phases), "bytes")
    for name, phases in (("pre-training", ["pretrain"]), ("unlearning", own), ("retraining", ["retrain"])):
        yield f"time of {name}", Figure(sum(sum(result["seconds"][p].values()) for p in phases), "s")
    yield "time of the audit", Figure(result["seconds"].get("audit"), "s")
    if result.get("verdict") and (run.path / "audit.json").exists():
        yield from _depth(run.read_json("audit.json"))


def _depth(audit: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """What the audit saw inside."""
    for model in ("after", "retrained"):
        relearned = audit["relearning"][model] or {}
        yield f"relearning steps {model}", Figure(relearned.get("steps"))
        yield f"FA relearned {model}", Figure(relearned.get("accuracy"))
    for model in ("after", "retrained"):
        yield f"head recovery {model}", Figure((audit["head_recovery"][model] or {}).get("accuracy"))
    yield "index by stage", Figure((audit.get("index") or {}).get("value"))
    for model in ("after", "retrained"):
        attack = (audit["membership"] or {}).get(model) or {}
        yield f"attack's AUC {model}", Figure((attack.get("loss") or {}).get("auc"))
    yield "distance from the retrained", Figure(((audit["distance"] or {}).get("forget") or {}).get("js"))
    for metric in audit.get("audit_metrics", ()):
        yield metric["name"], Figure(metric["value"])


def _same_bits(a: RunDirectory, b: RunDirectory) -> dict[str, bool]:
    """By their hashes, of the models that both have."""
    hashes = [_hashes(run) for run in (a, b)]
    return {name: hashes[0][name] == hashes[1][name] for name in hashes[0] if name in hashes[1]}


def _hashes(run: RunDirectory) -> dict[str, str]:
    if not run.finished:
        return {}
    told = run.result["hash"]
    retrained = (header(run.path / "retrained.safetensors") or {}).get("sha256")
    return {"M_r": told["base"], "M_f": told["unlearned"], **({"retrained": retrained} if retrained else {})}


# -- shown


def show(found: Difference, *, all_figures: bool = True) -> None:
    """The difference as tables; `all_figures`: those that are the same, too."""
    screen = make_screen()
    screen.say(f"A: {found.a}")
    screen.say(f"B: {found.b}")
    _show_other(found.configuration, "field", "the same configuration")
    pairs = {name: pair for name, pair in found.figures.items() if (_value(pair[0]), _value(pair[1])) != (None, None)}
    shown = {name: pair for name, pair in pairs.items() if all_figures or _value(pair[0]) != _value(pair[1])}
    screen.say("")
    if shown:
        body = [(name, _shown(a), _shown(b), _less(a, b)) for name, (a, b) in shown.items()]
        screen.print(make_table(("figure", "A", "B", "B - A"), body, left=("figure",)))
    if same := len(pairs) - len(shown):
        screen.say(f"{same} more figures are the same")
    for path in found.unfinished:
        screen.say(f"{path} is not finished")
    for model, same_bits in found.same_bits.items():
        screen.say(f"{model}: {'the same bits' if same_bits else 'other bits'}")
    _show_other(found.versions, "machine or program", "the same machine, programs and revision")


def _show_other(values: Mapping[str, tuple[Any, Any]], what: str, same: str) -> None:
    screen = make_screen()
    screen.say("")
    if values:
        body = [(name, _text(a), _text(b)) for name, (a, b) in values.items()]
        screen.print(make_table((what, "A", "B"), body, left=(what, "A", "B")))
    else:
        screen.say(same)


def _text(value: Any) -> str:
    if value is None:
        return "unset"
    return value if isinstance(value, str) else json.dumps(value)


def _value(figure: Figure | None) -> Value:
    return figure and figure.value


def _shown(figure: Figure | None) -> str:
    value, unit = figure or Figure(None)
    if value is None:
        return "-"
    if isinstance(value, str | bool):
        return _text(value)
    if unit == "bytes":
        return size(value)
    if unit == "s":
        return f"{value:.1f} s"
    return f"{value:,}" if isinstance(value, int) else number(value)


def _less(a: Figure | None, b: Figure | None) -> str:
    """B less A, of numbers."""
    first, second = _value(a), _value(b)
    if first == second:
        return "same" if first is not None else ""
    if isinstance(first, str | bool | None) or isinstance(second, str | bool | None):
        return ""
    assert b is not None
    less = second - first
    sign = "+" if less > 0 else "-"
    return sign + _shown(Figure(abs(less), b.unit))


def plain(found: Difference) -> dict[str, Any]:
    """The difference for JSON: of every field, figure and version A's value and B's."""

    def pair(figures: tuple[Figure | None, Figure | None]) -> dict[str, Any]:
        a, b = map(_value, figures)
        told: dict[str, Any] = {"a": a, "b": b}
        if isinstance(a, str | bool | None) or isinstance(b, str | bool | None):
            return told
        return told | {"difference": b - a}

    return {
        "kind": found.kind,
        "a": found.a,
        "b": found.b,
        "configuration": {name: {"a": a, "b": b} for name, (a, b) in found.configuration.items()},
        "figures": {name: pair(figures) for name, figures in found.figures.items()},
        "same_bits": dict(found.same_bits),
        "versions": {name: {"a": a, "b": b} for name, (a, b) in found.versions.items()},
        "unfinished": list(found.unfinished),
    }
