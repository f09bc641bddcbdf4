"""A scaling study's page: seconds of a round, efficiency, what seconds go to, and the fitted model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fused_ray.pages import charts
from fused_ray.pages.charts import Axis, Point, Series
from fused_ray.pages.parts import Chart, Part, Section, Subject, Table, Tile, Tiles, Words
from fused_ray.runs.pages.setting import machine, repeat
from fused_ray.storage.mirror import in_words
from fused_ray.studies.scaling import tables
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.scaling.display import made_tables, told
from fused_ray.studies.scaling.measure import PARTS
from fused_ray.studies.scaling.model import held_out
from fused_ray.studies.scaling.plots import lines

Rows = Sequence[Mapping[str, Any]]
_LEFT = ("unit", "source", "meaning", "payload", "cluster")


def subject(directory: ScalingDirectory) -> Subject:
    """Everything that is told of a scaling study, as far as it has come."""
    points, model, paper = made_tables(directory)
    config = directory.config
    about = f"{config.repeats} runs of {config.rounds} rounds a point, phase {config.phase}"
    return Subject(
        title=f"How a round's seconds grow: {len(points)} points",
        kind="scaling study",
        about=f"{about}; {in_words(str(directory.path))}",
        leading=[Tiles(list(_tiles(points))), Words([in_words(line) for line in told(directory)], listed=True)],
        sections=[
            *(_curves(points) if points else ()),
            *map(_section, tables.layouts(points, model, paper, config) if points else ()),
            Section("Configuration and versions", [*repeat(directory, "scale"), *machine(directory)]),
        ],
    )


def _section(layout: tables.Layout) -> Section:
    table = Table(layout.title, layout.head, layout.body, left=_LEFT)
    return Section(layout.title, [table, Words(list(layout.notes), listed=True)])


def _tiles(points: Rows) -> Iterator[Tile]:
    yield Tile("Points", str(len(points)), f"{sum(row['rounds'] for row in points)} rounds measured")
    if points:
        clients, actors = (max(row[name] for row in points) for name in ("clients", "actors"))
        yield Tile("Most clients", f"{clients:,}", f"on at most {actors} actors")
    if (error := held_out(points)["held_out_error"]) is not None:
        yield Tile("Error of the model", f"{error:.0%}", "median over points that it has not seen")


def _curves(points: Rows) -> Iterator[Section]:
    fitted = any(row["predicted"] is not None for row in points if "predicted" in row)
    parts: list[Part] = [*charts.only(_seconds(points, fitted), _predicted(points) if fitted else None)]
    yield Section("Seconds of a round" + (", and the fitted model" if fitted else ""), parts)
    if efficiency := charts.only(*(_efficiency(points, kind) for kind in ("strong", "weak"))):
        yield Section("Strong and weak scaling", efficiency)
    names = [f"{row['clients']:,} / {row['actors']} / {row['nodes']} / {row['payload']}" for row in points]
    shares = [[row[part] for part in PARTS] for row in points]
    title = "Share of a round's seconds, by clients / actors / nodes / payload"
    about = "A bar per point, cut into what an average round's seconds went to."
    yield Section("What the seconds go to", [charts.shares(title, about, names, PARTS, shares)])


def _name(row: Mapping[str, Any]) -> str:
    nodes = f", {row['nodes']} nodes" if row["nodes"] > 1 else ""
    return f"{row['clients']:,} clients, {row['actors']} actors, {row['payload']}{nodes}"


def _seconds(points: Rows, fitted: bool) -> Chart | None:
    """Measured medians with their range, and beside them, hollow, what the model says."""
    series = []
    for style, (title, group) in enumerate(lines(points, ("payload", "actors", "nodes"))):
        rows = sorted(group, key=lambda row: row["clients"])
        series.append(Series(title, [_measured(row) for row in rows], style=style))
        known = [_modelled(row) for row in rows if fitted and row["predicted"] is not None]
        series.append(Series("by the model", known, style=style, joined=False, hollow=True))
    about = "Median seconds of a round with their range, over clients; hollow: by the fitted model. Log scales."
    axes = Axis("clients", log=True), Axis("seconds", log=True)
    return charts.points("Seconds of a round by clients (log scales)", about, series, *axes, height=300)


def _measured(row: Mapping[str, Any]) -> Point:
    tip = f"{_name(row)}\n{row['seconds']:.3g} s ({row['least']:.3g} to {row['most']:.3g})"
    return Point(row["clients"], row["seconds"], tip, row["least"], row["most"])


def _modelled(row: Mapping[str, Any]) -> Point:
    tip = f"{_name(row)}\nby the model {row['predicted']:.3g} s, {row['error']:+.0%}"
    return Point(row["clients"], row["predicted"], tip)


def _predicted(points: Rows) -> Chart | None:
    known = [row for row in points if row["predicted"] is not None]
    series = []
    for style, (out, name) in enumerate(((False, "fitted"), (True, "held out"))):
        found = [_against(row) for row in known if row["held_out"] == out]
        series.append(Series(name, found, joined=False, style=style))
    ends = sorted(row["seconds"] for row in known)
    same = [Point(end, end, f"as measured: {end:.3g} s") for end in (ends[0], ends[-1])] if ends else []
    series.append(Series("as measured", same, style=7))
    about = "The model's seconds over the measured ones, on logarithmic axes; on the line they are the same."
    axes = Axis("measured seconds", log=True), Axis("predicted seconds", log=True)
    return charts.points("Predicted against measured seconds", about, series, *axes, height=300)


def _against(row: Mapping[str, Any]) -> Point:
    tip = f"{_name(row)}\nmeasured {row['seconds']:.3g} s, predicted {row['predicted']:.3g} s"
    return Point(row["seconds"], row["predicted"], tip)


def _efficiency(points: Rows, kind: str) -> Chart | None:
    fixed = "clients" if kind == "strong" else "clients an actor"
    compared = [row for row in points if row[kind] is not None]
    rows = [{**row, "clients an actor": round(row["clients"] / row["actors"], 1)} for row in compared]
    if not rows:
        return None
    series = []
    for title, group in lines(rows, (fixed, "payload")):
        along = sorted(group, key=lambda row: (row["actors"], row["nodes"]))
        found = [Point(row["actors"], row[kind], f"{_name(row)}\nefficiency {row[kind]:.2f}") for row in along]
        series.append(Series(title, found))
    highest = max(1.05, *(row[kind] for row in rows)) * 1.04
    about, axes = (
        "Efficiency by the number of actors; 1 is perfect.",
        (Axis("actors", whole=True), Axis("efficiency", limits=(0.0, highest))),
    )
    return charts.points(f"{kind} scaling: efficiency", about, series, *axes)
