"""What a finished run shows in the terminal: the verdict first, then the figures that a newcomer understands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fused_ray.audit.rules import outdated
from fused_ray.config import RunConfig, schedule
from fused_ray.config.parts.methods import changed, undone
from fused_ray.config.parts.scenarios import SCENARIOS
from fused_ray.runs.remaining import told
from fused_ray.runs.screen import make_screen, make_table, number, size
from fused_ray.storage.folder import study_of

COLOURS = {
    "forgotten": "green",
    "shallow": "yellow",
    "not forgotten": "red",
    "damaged": "red",
    "vacuous": "magenta",
    "unjudged": "cyan",
}
"""Of the verdict's word, on a terminal that has colours."""

PASSES = {True: "passes", False: "FAILS", None: "untold"}
"""How the answer to a question of the audit begins."""

OUTDATED = "Judged by the rules of another version; to judge by this one's, without any training: "
"""Said of verdicts before the command that judges anew."""

_COLUMNS = {
    "ra": "kept data\nRA, higher\nis better",
    "fa": "forgotten\nFA, lower\nis better",
    "ca": "overlap\nCA, higher\nis better",
}


def show_result(path: Path, config: RunConfig, result: Mapping[str, Any], *, to_error: bool = False) -> None:
    """The verdict with its findings, the run's figures as a table, what was sent in all, and whether it comes off."""
    screen = make_screen(to_error)
    if result.get("verdict"):
        screen.say(f"Verdict: {result['verdict']}", style=f"bold {COLOURS.get(result['verdict'], '')}".strip())
    for line in verdict_lines(result):
        screen.tell(line)
    if result.get("verdict"):
        for finding in result["findings"]:
            screen.tell(f"- {finding['name']}: {finding['sentence']}")
        if outdated(result):
            screen.say(f"{OUTDATED}fused-ray audit {path}")
    else:
        if study := study_of(path):
            screen.say(f"what was found out about it, its {study[0]} tells: fused-ray show {study[1]}")
        else:
            screen.say(f"not audited: fused-ray audit {path}")
    screen.say("")
    classes = result["data"]["class_names"]
    screen.tell(f"Forgetting {what(config, classes)} ({config.data.name}, {config.model.label}, "
                f"{config.federation.clients} clients, seed {config.seed})")  # fmt: skip
    head, body = model_rows(config, result)
    screen.print(make_table(head, body, left=("model",)))
    for line in [*in_words(config, result), *_further(result)]:
        screen.say(line)
    screen.say(f"Everything is in {path}; M_f as a file: fused-ray apply {path} --out model.safetensors")


def verdict_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Why the verdict is what it is; without an audit, what can be said all the same."""
    if result.get("verdict"):
        sentence = result["verdict_sentence"]
        yield sentence[:1].upper() + sentence[1:]
    else:
        yield from _unjudged(result)


def model_rows(config: RunConfig, result: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A model a row: its accuracies, what making it sent, and how long that trained."""
    metrics, sizes, seconds = result["metrics"], result["bytes"], result["seconds"]
    names = [name for name in _COLUMNS if name in metrics["before"]]
    own = "retrain" if config.retrains else schedule.main_phase({**sizes, "retrain": {"up_total": 0}})
    rows = [
        ("before: it remembers", metrics["before"], "pretrain"),
        (_after(result), metrics["after"], own),
        *([("adapter removed", metrics["before"], None)] if result["adapter"] else []),
        ("retrained without the data", metrics["retrained"], "retrain"),
    ]
    body = []
    for title, accuracies, phase in rows:
        if accuracies is not None:
            told_of = phase is not None and sizes[phase]["up_total"] > 0
            sent = size(sizes[phase]["up_per_client_per_round"]) if told_of else "-"
            took = f"{seconds[phase]['train']:.1f} s" if told_of else "-"
            body.append((title, *(number(accuracies[name]) for name in names), sent, took))
    head = ("model", *(_COLUMNS[name] for name in names), "sent up\nby a client\nin a round", "training\ntime")
    return head, body


def summary(result: Mapping[str, Any]) -> tuple[str, ...]:
    """RA and FA of the model after and of the retrained one, and what all clients sent up for it."""
    metrics = result["metrics"]
    retrained = metrics["retrained"] or {"ra": None, "fa": None}
    own = [sums for phase, sums in result["bytes"].items() if phase not in ("pretrain", "retrain")]
    accuracies = (metrics["after"]["ra"], metrics["after"]["fa"], retrained["ra"], retrained["fa"])
    return (*map(number, accuracies), size(sum(sums["up_total"] for sums in own)))


def _after(result: Mapping[str, Any]) -> str:
    if not result["adapter"]:
        return f"after: {brief(result['method'])} changed {changed(result['method'])}"
    adapter, layers = result["adapter"], ", ".join(result["layers"]["chosen"])
    heal = f" ({healing} of them heal)" if (healing := adapter.get("heal_values")) else ""  # earlier versions: unknown
    return f"after: {adapter['values']} adapter values{heal} on {layers}"


def brief(part: str) -> str:
    """The name of a part, or of the module that it is in, for tables."""
    return part.partition(":")[0].rpartition(".")[2] if ":" in part else part


def _unjudged(result: Mapping[str, Any]) -> Iterator[str]:
    """What can be said without an audit."""
    before, after, retrained = (result["metrics"][name] for name in ("before", "after", "retrained"))
    if result["vacuous"]:
        yield (f"VACUOUS: the model before (FA {before['fa']:.3f}) knew no more of the forgotten data than a retrained "
               f"one (FA {retrained['fa']:.3f}): there was nothing to forget.")  # fmt: skip
    else:
        than = f", retrained {retrained['fa']:.3f}" if retrained else ""
        yield f"Forgetting: FA went from {before['fa']:.3f} to {after['fa']:.3f}{than}."


def in_words(config: RunConfig, result: Mapping[str, Any]) -> Iterator[str]:
    """What was sent in all, whether it comes off again, and what else holds for the whole run."""
    hashes = result["hash"]
    if not config.retrains:
        yield from totals(result)
    if result["reversible"]:
        yield f"Reversible: with the adapter off, the model's hash is that from before, bit for bit: {hashes['base']}"
    elif not result["adapter"]:
        name = result["method"]
        how = undone(name) or "Not reversible"
        yield f"{how}: the method {brief(name)} changed {changed(name)}; M_r is kept as base.safetensors."
    else:
        yield f"NOT REVERSIBLE: the hash is {hashes['restored']}, before it was {hashes['base']}"
    if not result["numerics"]["comparable"]:
        yield "The nodes are not bit-comparable: the same run elsewhere may give other bits."
    if failures := result.get("failures", 0):  # earlier versions left nobody out
        yield f"NOT BIT-REPRODUCIBLE: {failures} times a client failed and was left out of a round."
    yield from _imagined(result.get("deployment"))
    yield from _audit_share(result["seconds"])


def _further(result: Mapping[str, Any]) -> Iterator[str]:
    """Further metrics of the audit, and why one has no figure; a run of an earlier version has none.

    One that answers a question says its figures in the answer.
    """
    answers = result.get("audit_answers", ())
    for figure in result.get("audit_metrics", ()):
        if not any(figure["name"].startswith(f"{answer['name']}_") for answer in answers):
            yield f"{figure['name']} {figure['value']:.4g}: {figure['meaning']}"
    for answer in answers:
        yield f"{PASSES[answer['passes']]} {answer['name']}: {answer['said']}"
    yield from result.get("audit_metrics_failed", ())


def totals(result: Mapping[str, Any]) -> Iterator[str]:
    """What all clients sent and received in all rounds of the method, against retraining where there was any."""
    sent = result["bytes"]
    own = [sums for phase, sums in sent.items() if phase not in ("pretrain", "retrain")]
    about = "All clients, all rounds: "
    for way in ("up", "down"):
        ours, retrained = sum(sums[f"{way}_total"] for sums in own), sent["retrain"][f"{way}_total"]
        against = f" against {size(retrained)} to retrain: {_times(ours, retrained)}" if retrained else ""
        yield f"{about}{way} {size(ours)}{against}"
        about = " " * len(about)


def _times(ours: int, other: int) -> str:
    if ours == 0:
        return "nothing"
    ratio = max(ours, other) / min(ours, other)
    shown = f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}"
    return "as much" if shown == "1.0" else f"{shown} times {'less' if ours < other else 'more'}"


def _imagined(deployment: Mapping[str, Any] | None) -> Iterator[str]:
    """How long it would take on the deployment's devices."""
    if deployment is None:
        return
    seconds, until = map(imagined_time, (deployment["simulated_seconds"], deployment["seconds_to_forget"]))
    after = deployment["rounds_to_forget"]
    line = f"On {deployment['profile']} (simulated): {seconds} in all"
    if waited := deployment["waited_seconds"]:
        line += f", {imagined_time(waited)} of them waiting for clients"
    if after is None:
        yield f"{line}; not forgotten for three rounds"
    else:
        yield f"{line}; forgotten from round {after} on, after {until}"


def imagined_time(seconds: float | None) -> str:
    """A simulated time for people; some are far below a second."""
    if seconds is None:
        return "a time not known"
    return told(seconds) if seconds >= 10 else f"{seconds:.2g} s"


def _audit_share(seconds: Mapping[str, Any]) -> Iterator[str]:
    if audit := seconds.get("audit"):
        whole = audit + sum(sum(parts.values()) for phase, parts in seconds.items() if phase != "audit")
        yield f"The audit took {told(audit)} of the {told(whole)} that rounds and audit took ({audit / whole:.0%})."


def what(config: RunConfig, class_names: Sequence[str]) -> str:
    """What must be forgotten, in words; classes by number and name."""
    if config.forget.scenario not in SCENARIOS:
        return config.scenario.what or f"what {config.forget.scenario} says"
    classes = [class_label(number, class_names) for number in config.forget_classes]
    if config.forget.scenario == "class":
        return f"{'class' if len(classes) == 1 else 'classes'} {', '.join(classes)}"
    if config.forget.scenario == "client":
        who = config.forget_count if config.forget.clients is None else len(config.forget.clients)
        how = " whose labels are flipped" if config.forget.poison else ""
        return f"{who} {'client' if who == 1 else 'clients'}{how}"
    if config.forget.scenario == "sample":
        return "single examples" + (" that carry a backdoor" if config.forget.poison else "")
    return f"all that client {config.forget.owner} knew: class {classes[0]} alone, most of class {classes[1]}"


def class_label(number: int, class_names: Sequence[str]) -> str:
    """A class by its number, and its name where it has one of its own."""
    name = class_names[number].replace("\n", "\\n") if number < len(class_names) else str(number)
    return str(number) if name == str(number) else f"{number} ({name})"
