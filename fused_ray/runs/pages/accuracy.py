"""A run's accuracies: of its models, by class, by client, round by round, and what is taken for what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fused_ray.config import schedule
from fused_ray.pages import charts
from fused_ray.pages.charts import Axis, Point, Series
from fused_ray.pages.parts import Chart, Part, Section, Table, Tile, Tiles, Words
from fused_ray.runs.pages.known import MODELS, NOT_RECORDED, Known
from fused_ray.runs.remaining import told
from fused_ray.runs.report import model_rows
from fused_ray.runs.screen import number, size

ACCURACIES = {"ra": "kept data (RA)", "fa": "forgotten data (FA)", "ca": "overlap (CA)"}
MOST_CLASSES, MOST_CLIENTS, MOST_ROUNDS = 40, 200, 300
"""What tables and fields are cut off at."""
_PAIRS = 30


def tiles(known: Known) -> Tiles:
    """The figures to look at first."""
    result, metrics = known.result, known.result["metrics"]
    found = []
    for name, meaning in (("ra", "Kept data (RA)"), ("fa", "Forgotten data (FA)")):
        beside = f"before {number(metrics['before'][name])}"
        if metrics["retrained"]:
            beside += f", retrained {number(metrics['retrained'][name])}"
        found.append(Tile(meaning, number(metrics["after"][name]), beside))
    sent, seconds = _spent(result)
    if result["method"] != "retrain":
        found.append(Tile("Sent up in all", size(sent[0]), f"retraining {size(sent[1])}" if sent[1] else ""))
        found.append(Tile("Training time", f"{seconds[0]:.1f} s", f"retraining {seconds[1]:.1f} s" if sent[1] else ""))
    speed = known.audit and known.audit["relearning"]["ratio"]
    if speed:
        found.append(Tile("Relearning ratio", speed["text"], "steps / retrained model's"))
    return Tiles(found)


def _spent(result: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[float, float]]:
    """Bytes up and training seconds, of the method and of retraining."""
    own = [phase for phase in result["bytes"] if phase not in ("pretrain", "retrain")]
    sent = sum(result["bytes"][phase]["up_total"] for phase in own), result["bytes"]["retrain"]["up_total"]
    seconds = sum(result["seconds"][phase]["train"] for phase in own), result["seconds"]["retrain"]["train"]
    return sent, seconds


def models(known: Known) -> Section:
    """Before, after, with the adapter removed, retrained: the terminal's table."""
    head, body = model_rows(known.config, known.result)
    return Section(
        "Before, after, retrained",
        [Table("The models on the test set", tuple(name.replace("\n", " ") for name in head), body)],
    )


def by_class(known: Known) -> Section:
    """Accuracy on the test images of each class."""
    found = {m: row["class_accuracy"] for m, row in known.last.items() if row.get("class_accuracy")}
    if not found:
        return Section("By class", [Words([f"The accuracy by class was {NOT_RECORDED}."])])
    shown, names = [m for m in MODELS if m in found], known.classes
    rows = [(name, *(number(found[m][c]) for m in shown)) for c, name in enumerate(names)]
    parts: list[Part] = []
    if len(names) <= MOST_CLASSES:
        points = {m: [Point(c, value, f"{names[c]}\n{m} {number(value)}") for c, value in enumerate(found[m])
                      if value is not None] for m in shown}  # fmt: skip
        series = [Series(m, points[m], joined=False, hollow=m == "before", style=MODELS[m]) for m in shown]
        about = "Accuracy of each model on the test images of each class, by the class's number."
        axes = Axis("class", limits=(-0.5, len(names) - 0.5), whole=True), Axis("accuracy", limits=(-0.04, 1.04))
        parts += charts.only(charts.points("Accuracy by class", about, series, *axes))
    marked = [c for c in known.forgotten_classes if c < len(names)]
    caption = "Accuracy on the test images of each class" + ("; what is forgotten is marked" if marked else "")
    parts.append(Table(caption, ("class", *shown), rows, folded=len(names) > MOST_CLASSES, marked=marked))
    parts += _missing(found)
    return Section("By class", parts)


def _missing(found: Mapping[str, Any]) -> Iterator[Words]:
    lacking = [m for m in MODELS if m not in found]
    if lacking:
        yield Words([f"Of the model {' and '.join(lacking)}, none was recorded in this run."])


def by_client(known: Known) -> Section:
    """The last global models by each client's own mix of classes."""
    found = {m: _clients(known, m) for m in MODELS if m in known.last}
    found = {m: rows for m, rows in found.items() if rows}
    if not found:
        return Section(
            "By client", [Words(["Figures by client were not kept (output.clients), or " + NOT_RECORDED + "."])]
        )
    shown, everybody = list(found), sorted({client for rows in found.values() for client in rows})
    head = ("client", *(f"{name.upper()} {m}" for name in ("ra", "fa") for m in shown))
    body = []
    for client in everybody[:MOST_CLIENTS]:
        rows = [found[m].get(client, {}) for m in shown]
        named = next((row["client_name"] for row in rows if row.get("client_name")), str(client))
        body.append((named, *(number(row.get(name)) for name in ("ra", "fa") for row in rows)))
    more = len(everybody) - len(body)
    words = [
        "Each model is the global one; its classes are weighted as in the client's own data. FA is told of clients "
        "that must forget something. A dash: the client had no part in that model's last round."
    ]
    words += [f"{more} more clients are in clients.parquet."] if more else []
    return Section("By client", [Table("Accuracy by client", head, body), Words(words)])


def _clients(known: Known, model: str) -> dict[int, dict[str, Any]]:
    """By client the row of the round that made a model."""
    row = known.last[model]
    rows = known.directory.clients_of(row["phase"], row["round"]) if row in known.rounds else []
    return {client["client"]: client for client in rows if client["ra"] is not None or client["fa"] is not None}


def rounds(known: Known) -> Section:
    """RA and FA over the rounds of every phase that makes models."""
    metrics = known.result["metrics"]
    names = [name for name in ACCURACIES if metrics["before"].get(name) is not None]
    parts: list[Part] = []
    for phase, rows in known.phases.items():
        rows = [row for row in rows if row["ra"] is not None]
        if rows:
            parts += charts.only(_rounds(phase, rows, names, metrics))
    head = ("phase", "round", *(name.upper() for name in names), "sent up", "received", "training", "averaging",
            "evaluation", "loss", "clients")  # fmt: skip
    body = [_round(row, names) for row in known.rounds]
    caption = "Every round" if len(body) <= MOST_ROUNDS else f"The last {MOST_ROUNDS} of {len(body)} rounds"
    parts.append(Table(caption, head, body[-MOST_ROUNDS:], folded=True))
    return Section("Rounds", parts)


def _rounds(
    phase: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], metrics: Mapping[str, Any]
) -> Chart | None:
    own = phase not in ("pretrain", "retrain")
    series = []
    for style, name in enumerate(names):
        points = [Point(row["round"], row[name], _tip(row)) for row in rows if row[name] is not None]
        if own:
            start = metrics["before"][name]
            points.insert(0, Point(0, start, f"before unlearning\n{name.upper()} {number(start)}"))
        rule = metrics["retrained"][name] if own and metrics["retrained"] else None
        series.append(Series(ACCURACIES[name], points, style=style, rule=rule))
    title = f"Accuracy by round: {schedule.title(phase)}"
    about = "Accuracy on the test set after each round" + (", from the model before (round 0)." if own else ".")
    x = Axis("round (0: before)" if own else "round", limits=_ends(series), whole=True)
    return charts.points(
        title, about, series, x, Axis("accuracy", limits=(-0.04, 1.04)), against="where retraining ends"
    )


def _ends(series: Sequence[Series]) -> tuple[float, float]:
    places = [point.x for one in series for point in one.points]
    room = max(0.5, 0.03 * (max(places) - min(places)))
    return min(places) - room, max(places) + room


def _tip(row: Mapping[str, Any]) -> str:
    seconds = sum(row[f"{part}_seconds"] for part in ("train", "aggregate", "evaluate"))
    return (
        f"{schedule.title(row['phase'])} round {row['round']}\nRA {number(row['ra'])}, FA {number(row['fa'])}\n"
        f"up {size(row['bytes_up'])}, down {size(row['bytes_down'])}\n{seconds:.2f} s"
    )


def _round(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    seconds = (f"{row[f'{part}_seconds']:.3f} s" for part in ("train", "aggregate", "evaluate"))
    loss = "-" if row.get("loss") is None else f"{row['loss']:.4f}"
    clients = str(row.get("clients_used", "-"))
    accuracies = (number(row[name]) for name in names)
    return (
        row["phase"],
        str(row["round"]),
        *accuracies,
        size(row["bytes_up"]),
        size(row["bytes_down"]),
        *seconds,
        loss,
        clients,
    )


def confusion(known: Known) -> Section:
    """Which class is taken for which, before and after."""
    found = {m: row["confusion"] for m, row in known.last.items() if row.get("confusion")}
    if not found:
        return Section(
            "Confusion", [Words([f"What is taken for what was {NOT_RECORDED}, or there are too many classes."])]
        )
    classes, shown = len(known.classes), [m for m in MODELS if m in found]
    counts = {m: [found[m][c * classes : (c + 1) * classes] for c in range(classes)] for m in shown}
    parts: list[Part] = []
    if classes <= MOST_CLASSES:
        parts += charts.only(*(_field(m, counts[m], known) for m in shown))
    parts.append(_pairs(counts, known.classes))
    parts += _missing(found)
    return Section("Confusion", parts)


def _field(model: str, counts: Sequence[Sequence[int]], known: Known) -> Chart | None:
    """A row per true class, in shares of its test images."""
    names = [str(c) for c in range(len(known.classes))]
    values = [[count / sum(line) if sum(line) else None for count in line] for line in counts]
    shown = [["" if value is None else f"{100 * value:.0f}" for value in line] for line in values]
    about = "A row per true class, a column per class that its test images are taken for, in percent of the row."
    title, gone = f"Confusion {model}: percent of the true class", [(c, c) for c in known.forgotten_classes]
    labels = {"across": "taken for", "down": "true class"}
    return charts.heat(
        title, about, known.classes, names, values, shown=shown, limits=(0.0, 1.0), outlined=gone, **labels
    )


def _pairs(counts: Mapping[str, Sequence[Sequence[int]]], names: Sequence[str]) -> Table:
    """The mistakes that are most frequent in any of the models."""
    pairs = [(true, taken) for true in range(len(names)) for taken in range(len(names)) if true != taken]
    pairs.sort(key=lambda pair: -max(each[pair[0]][pair[1]] for each in counts.values()))
    body = [(names[a], names[b], *(str(each[a][b]) for each in counts.values())) for a, b in pairs[:_PAIRS]]
    return Table(
        "The most frequent mistakes, in test images",
        ("true class", "taken for", *counts),
        body,
        folded=True,
        left=("taken for",),
    )


def took(known: Known) -> str:
    """How long the run took, in words; empty where that is not known."""
    return told(known.result["wall_seconds"]) if "wall_seconds" in known.result else ""
