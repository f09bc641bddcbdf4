"""A scaling study as tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fused_ray.runs.screen import Screen, make_table, size
from fused_ray.studies.scaling.config import ScaleConfig
from fused_ray.studies.scaling.measure import PARTS
from fused_ray.studies.scaling.model import held_out_error

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
        yield from _held_out(points)
        yield _paper(paper)


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
        "RAM of a process. Ray moves: by arithmetic; 0 in one process.",
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
        (" of payload ".join(filter(None, (row["name"], row["payload"]))), f"{row['value']:.3g}", row["unit"],
         row["source"], row["meaning"])
        for row in parameters
    ]  # fmt: skip
    note = "seconds = round + client n + work k (steps x step + add) + byte B + test e; k clients of the fullest actor."
    return Layout("Cost model", ("parameter", "value", "unit", "source", "meaning"), tuple(body), (note,))


def _held_out(points: Rows) -> Iterator[Layout]:
    known = [row for row in points if row["error"] is not None]
    body = [
        (*_point(row), _short(row["seconds"]), _short(row["predicted"]), f"{row['error']:+.0%}")
        for row in known
        if row["held_out"]
    ]
    if not body:
        return
    found, fitted = held_out_error(points), [abs(row["error"]) for row in known if not row["held_out"]]
    notes = (
        f"Median error of the {len(body)} held-out points: {found:.0%}; of the {len(fitted)} that were fitted: "
        f"{median(fitted):.0%}. Which are held out was written down before anything was measured.",
    )
    head = ("clients", "actors", "nodes", "payload", "measured", "predicted", "error")
    yield Layout("Points that the cost model has not seen", head, tuple(body), notes)


def _paper(paper: Rows) -> Layout:
    body = [
        (row["cluster"], *_point(row), _short(row["seconds"]), _short(row["work"]), _short(row["network"]),
         size(row["network_bytes"]), size(row["memory_node"]) if row["memory_node"] else "-")
        for row in paper
    ]  # fmt: skip
    head = ("cluster", "clients", "actors", "nodes", "payload", "seconds", "work", "network", "between nodes",
            "memory of a node")  # fmt: skip
    note = "Predicted, not measured: an actor on each core, cores as fast as here, and the assumed network."
    return Layout("On paper", head, tuple(body), (note,))


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
