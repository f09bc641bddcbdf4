"""A scaling study as tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fused_ray.runs.screen import Screen, make_table, size
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.scaling.measure import PARTS
from fused_ray.studies.scaling.model import held_out, paper_lacks

Rows = Sequence[Mapping[str, Any]]
_LEFT = ("payload", "parameter", "unit", "source", "meaning", "cluster", "scaling")


@dataclass(frozen=True)
class Layout:
    """A table in plain text, ready for any format."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def layouts(points: Rows, parameters: Rows, paper: Rows, config: ScaleConfig) -> Iterator[Layout]:
    """Points and what their seconds went to, efficiency, the cost model and its errors, clusters on paper."""
    yield _seconds(points, config)
    yield from _efficiency(points)
    if parameters:
        yield _model(parameters)
        yield from _held_out(points, len(config.held_out))
        yield _paper(paper, paper_lacks(parameters, points))


def _seconds(points: Rows, config: ScaleConfig) -> Layout:
    head = ("clients", "actors", "nodes", "payload", "a client receives", "seconds", "range", *PARTS, "Ray moves",
            "actor", "driver")  # fmt: skip
    body = [
        (
            *_point(row),
            size(row["payload_bytes"]),
            _short(row["seconds"]),
            f"{_short(row['least'])} to {_short(row['most'])}",
            *(_percent(row[part]) for part in PARTS),
            size(row["cluster_bytes"]),
            *(size(row[name]) if row[name] else "-" for name in ("memory_worker", "memory_driver")),
        )
        for row in points
    ]
    rounds = f"{config.repeats} runs of {config.rounds} rounds each, points in turn, {config.warmup} more to warm up"
    notes = (
        f"Seconds of a round of {config.phase}, its start to the next one's: median and range ({rounds}).",
        "Train to idle are an average actor's; record: rows and checkpoint written. Actor and driver: most memory in "
        "RAM of a process, whatever ran in it before. Ray moves: by arithmetic; 0 in one process.",
        *_simulated(points),
    )
    return Layout("Seconds of a round, and what they go to", head, tuple(body), notes)


def _simulated(points: Rows) -> Iterator[str]:
    if max(row["nodes"] for row in points) > 1:
        yield (
            "Nodes are those of the Ray cluster that the study ran on; several of them on one machine (as tests make "
            "them) share its cores and its memory, and say nothing of a network."
        )


def _efficiency(points: Rows) -> Iterator[Layout]:
    compared = {
        "strong": [row for row in points if row["strong"] is not None],
        "weak": [row for row in points if row["weak"] is not None],
    }
    body = [
        (kind, *_point(row), _short(row["clients"] / row["actors"]), _short(row["seconds"]), f"{row[kind]:.2f}")
        for kind, rows in compared.items()
        for row in sorted(rows, key=lambda row: (row["payload"], row["clients"] / _fixed(kind, row), row["actors"]))
    ]
    head = ("scaling", "clients", "actors", "nodes", "payload", "clients an actor", "seconds", "efficiency")
    notes = (
        "Strong: as many clients in all, t0 a0 / (t a); weak: as many an actor, t0 / t; 0 is the fewest actors.",
        "An actor takes a core, and the driver one more for part of a round: with as many actors as cores they share.",
    )
    if body:
        yield Layout("Efficiency", head, tuple(body), notes)


def _fixed(kind: str, row: Mapping[str, Any]) -> float:
    return 1.0 if kind == "strong" else float(row["actors"])


def _model(parameters: Rows) -> Layout:
    body = [
        (" of payload ".join(filter(None, (row["name"], row["payload"]))), _number(row["value"]), _range(row, _number),
         row["unit"], row["source"], row["meaning"])
        for row in parameters
    ]  # fmt: skip
    notes = (
        "seconds = round + client n + work k (steps x step + add) + byte B + test e; k clients of the fullest actor.",
        "Range: of what is fitted when one of the points is left out; none where that tells it no more.",
    )
    head = ("parameter", "value", "range", "unit", "source", "meaning")
    return Layout("Cost model", head, tuple(body), notes)


def _held_out(points: Rows, count: int) -> Iterator[Layout]:
    """Of so many points that were to be held out."""
    if not count:
        return
    measured, known = [row for row in points if row["held_out"]], [row for row in points if row["error"] is not None]
    body = [
        (*_point(row), _short(row["seconds"]), _short(row["predicted"]), f"{row['error']:+.0%}")
        for row in known
        if row["held_out"]
    ]
    notes = [f"{len(measured)} of {count} held-out points were measured. Which are held out stands in scaling.yaml."]
    if len(body) < len(measured):
        notes.append(f"{len(measured) - len(body)} of these cannot be predicted: the fitted points do not tell.")
    if body:
        notes.insert(0, f"Errors of the held-out points: {', '.join(held_out_errors(points))}; {_of_fitted(known)}.")
    head = ("clients", "actors", "nodes", "payload", "measured", "predicted", "error")
    yield Layout("Points that the cost model has not seen", head, tuple(body), tuple(notes))


def held_out_errors(points: Rows) -> tuple[str, str]:
    """The median of the absolute errors at the held-out points, and the largest error and where, in words."""
    found = held_out(points)
    row = next(row for row in points if row["held_out"] and row["error"] == found["held_out_worst"])
    where = f"{row['clients']:,} clients, {row['actors']} actors, payload {row['payload']}"
    return f"median {found['held_out_error']:.0%}", f"worst {found['held_out_worst']:+.0%}, at {where}"


def _of_fitted(known: Rows) -> str:
    errors = [abs(row["error"]) for row in known if not row["held_out"]]
    return f"of the {len(errors)} that were fitted: median {median(errors):.0%}"


def _paper(paper: Rows, lacks: str) -> Layout:
    body = [
        (row["cluster"], *_point(row), _short(row["seconds"]), _range(row, _short), _short(row["work"]),
         _short(row["network"]), size(row["network_bytes"]), size(row["memory_node"]) if row["memory_node"] else "-")
        for row in paper
    ]  # fmt: skip
    head = ("cluster", "clients", "actors", "nodes", "payload", "seconds", "range", "work", "network", "between nodes",
            "memory of a node")  # fmt: skip
    notes = ["Predicted, not measured: an actor on each core, cores as fast as here, and the assumed network."]
    if lacks:
        notes.append(f"No cluster is put on paper: {lacks}.")
    elif paper:
        notes.append("Range: of the seconds when one of the fitted points is left out.")
    return Layout("On paper", head, tuple(body), tuple(notes))


def _range(row: Mapping[str, Any], told: Callable[[float], str]) -> str:
    """From the least to the most; tables of earlier versions have none."""
    return "-" if row.get("least") is None else f"{told(row['least'])} to {told(row['most'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _point(row: Mapping[str, Any]) -> tuple[str, ...]:
    return f"{row['clients']:,}", str(row["actors"]), str(row["nodes"]), row["payload"]


def _short(number: float) -> str:
    """Three digits, and no exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def show(screen: Screen, found: Iterator[Layout]) -> None:
    """The tables in a terminal."""
    for layout in found:
        screen.tell(layout.title)
        screen.print(make_table(layout.head, layout.body, _LEFT))
        for note in layout.notes:
            screen.tell(note)
        screen.say("")


def markdown(points: Rows, parameters: Rows, paper: Rows, config: ScaleConfig) -> str:
    """The tables for a document."""
    parts = []
    for layout in layouts(points, parameters, paper, config):
        lines = [f"### {layout.title}", "", _pipes(layout.head), _pipes(["---"] * len(layout.head))]
        parts.append("\n".join([*lines, *map(_pipes, layout.body), "", *layout.notes]))
    return "\n\n".join(parts) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
