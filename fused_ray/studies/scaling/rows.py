"""The tables of a scaling study: rounds, points, the cost model, and clusters on paper; what each column means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import pyarrow as pa

from fused_ray.studies.scaling.grid import Point
from fused_ray.studies.scaling.measure import PARTS
from fused_ray.studies.status import DONE

_STRING, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_Columns = Mapping[str, tuple[pa.DataType, str]]
_MEDIANS = ("busy", "steps", "step_seconds", "add_seconds")
"""Columns of rounds whose medians a point has."""
_SAME = ("payload_bytes", "cluster_bytes", "tests", "device")
"""Those that are the same in all rounds of a point."""
_POINT: _Columns = {
    "clients": (_INT, "clients"),
    "actors": (_INT, "client actors"),
    "nodes": (_INT, "nodes that they are on"),
    "payload": (_STRING, "label of the payload"),
}
_MEANS = {
    "train": "an average actor computed its clients",
    "transfer": "payload and calls went to the actors, and sums came back",
    "aggregate": "updates were checked and added by an average actor, and sums by the driver",
    "evaluate": "the new model was evaluated",
    "idle": "an average actor waited for the last one",
    "record": "rows and checkpoint were written, until the next round began",
}
_ROUND: _Columns = {
    **_POINT,
    "repeat": (_INT, "which run of the point, from 0"),
    "status": (_STRING, "done; failed: and the reason, and then nothing of a round"),
    "round": (_INT, "round within its phase"),
    "seconds": (_FLOAT, "wall seconds from its start to the next one's"),
    **{part: (_FLOAT, f"of them those in which {what}") for part, what in _MEANS.items()},
    "busy": (_FLOAT, "wall seconds that the clients of the busiest actor took, their updates' adding included"),
    "steps": (_FLOAT, "mean of the clients' steps"),
    "step_seconds": (_FLOAT, "wall seconds of a client's training, over its steps"),
    "add_seconds": (_FLOAT, "wall seconds of checking and adding a client's update"),
    "payload_bytes": (_INT, "protocol bytes that a client receives"),
    "cluster_bytes": (
        _INT,
        "bytes that Ray moves, by arithmetic: the payload to every node, a sum of 8 bytes a value from every actor; "
        "0 in one process",
    ),
    "memory_worker": (_INT, "most bytes in RAM of an actor's process when it was done with a client"),
    "memory_driver": (_INT, "bytes in RAM of the driver's process after the round"),
    "tests": (_INT, "examples that are evaluated"),
    "device": (_STRING, "what clients were computed on: cpu, or cuda if any was; null: an earlier version measured"),
}
_OF_POINT: _Columns = {
    **_POINT,
    "held_out": (_BOOL, "whether the cost model was not fitted on it, but tried on it"),
    "rounds": (_INT, "rounds that were measured, over all repeats"),
    "seconds": (_FLOAT, "median of their wall seconds"),
    "least": (_FLOAT, "least of them"),
    "most": (_FLOAT, "most of them"),
    **{part: (_FLOAT, f"share of all of them in which {what}") for part, what in _MEANS.items()},
    **{
        name: (kind, f"median over the rounds: {about}" if name in _MEDIANS else about)
        for name, (kind, about) in _ROUND.items()
        if name in (*_MEDIANS, *_SAME)
    },
    "memory_worker": (_INT, "most bytes in RAM of an actor's process, over the rounds"),
    "memory_driver": (_INT, "most bytes in RAM of the driver's process, over the rounds"),
    "strong": (
        _FLOAT,
        "efficiency at as many clients: t0 a0 / (t a), 0 being the fewest actors; null: nothing to compare",
    ),
    "weak": (_FLOAT, "efficiency at as many clients an actor: t0 / t; null likewise"),
    "predicted": (_FLOAT, "seconds by the cost model; null where the fitted points do not tell"),
    "error": (_FLOAT, "of that: predicted over measured, less 1"),
}
_PARAMETER: _Columns = {
    "name": (_STRING, "parameter"),
    "payload": (_STRING, "of which payload; empty: of all"),
    "value": (_FLOAT, "its value; null: the fitted points do not tell it from others"),
    "least": (_FLOAT, "if it is fitted: least value when one of the points is left out; null: that tells it no more"),
    "most": (_FLOAT, "most value, likewise"),
    "unit": (_STRING, "its unit"),
    "source": (_STRING, "measured, fitted (to measured rounds), not told (by these) or assumed"),
    "meaning": (_STRING, "what it stands for"),
}
_ON_PAPER: _Columns = {
    "cluster": (_STRING, "nodes, in the words of `--cluster` of `fused-ray plan`"),
    **{name: (kind, about) for name, (kind, about) in _POINT.items()},
    "seconds": (_FLOAT, "predicted seconds of a round"),
    "least": (_FLOAT, "least of them when one of the fitted points is left out; null: the others tell it no more"),
    "most": (_FLOAT, "most of them, likewise"),
    "work": (_FLOAT, "of them those of the fullest actor's clients"),
    "network": (_FLOAT, "of them those of the network, by the assumed bandwidth"),
    "cluster_bytes": (_INT, "bytes that Ray moves in a round"),
    "network_bytes": (_INT, "of them those between the driver's node and the others"),
    "memory_node": (_INT, "bytes in RAM of the actors of a node, each as large as the largest that was measured"),
}


def _schema(columns: _Columns) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"doc": doc}) for name, (kind, doc) in columns.items()])


MEASURED, POINTS, MODEL, PAPER = map(_schema, (_ROUND, _OF_POINT, _PARAMETER, _ON_PAPER))


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; what a row does not have is null."""
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def by_point(rows: Sequence[Mapping[str, Any]], held_out: frozenset[Point]) -> list[dict[str, Any]]:
    """A row for each point that has rounds: medians, spread, shares and efficiencies."""
    groups: dict[Point, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == DONE:
            groups.setdefault(point_of(row), []).append(row)
    untold = {"predicted": None, "error": None}
    found = [_of_point(point, group) | {"held_out": point in held_out} | untold for point, group in groups.items()]
    add_efficiency(found)
    return found


def point_of(row: Mapping[str, Any]) -> Point:
    """The point that a row is of."""
    return Point(*(row[name] for name in _POINT))


def _of_point(point: Point, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [row["seconds"] for row in rounds]
    return {
        "clients": point.clients,
        "actors": point.actors,
        "nodes": point.nodes,
        "payload": point.payload,
        "rounds": len(rounds),
        "seconds": median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        **{part: sum(row[part] for row in rounds) / sum(seconds) for part in PARTS},
        **{name: median(row[name] for row in rounds) for name in _MEDIANS},
        **{name: rounds[0].get(name) for name in _SAME},
        **{name: max(row[name] for row in rounds) for name in ("memory_worker", "memory_driver")},
    }


def add_efficiency(points: Sequence[dict[str, Any]]) -> None:
    """Fill in `strong` and `weak`: against the fewest actors, and of these on the fewest nodes."""
    for kind in ("strong", "weak"):
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in points:
            size = row["clients"] if kind == "strong" else row["clients"] / row["actors"]
            groups.setdefault((size, row["payload"]), []).append(row)
        for group in groups.values():
            first = min(group, key=lambda row: (row["actors"], row["nodes"]))
            for row in group:
                more = row["actors"] / first["actors"] if kind == "strong" else 1.0
                compared = len({other["actors"] for other in group}) > 1
                row[kind] = first["seconds"] / (row["seconds"] * more) if compared else None
