"""A comparison's page: verdicts, a leaderboard a scenario, what is forgotten against what stays and what is sent."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fused_ray.audit.verdict import WORDS
from fused_ray.pages import charts
from fused_ray.pages.charts import Axis, Bar, Point, Series
from fused_ray.pages.parts import Chart, Part, Section, Subject, Table, Tile, Tiles, Words
from fused_ray.runs.figures import accuracy_limits
from fused_ray.runs.pages.setting import machine, repeat
from fused_ray.runs.screen import number, size
from fused_ray.storage.mirror import in_words
from fused_ray.studies.comparisons import tables
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.display import told
from fused_ray.studies.pareto import unbeaten
from fused_ray.studies.status import DONE

Rows = Sequence[Mapping[str, Any]]


def subject(directory: ComparisonDirectory) -> Subject:
    """Everything that is told of a comparison, as far as it has come."""
    rows, config = directory.rows, directory.config
    about = f"{len(config.methods)} method(s), {len(config.scenarios)} scenario(s), {len(config.seeds)} seed(s)"
    here = in_words(str(directory.path))
    lines = [in_words(line) for line in told(directory, rows)]
    return Subject(
        title=f"Comparison of {len(config.methods)} method(s)",
        kind="comparison",
        about=f"{about}; {here}",
        leading=[Tiles(list(_tiles(rows))), Words(lines, listed=True)],
        sections=[
            *_leaderboards(directory, rows),
            _forgetting(rows),
            _price(rows),
            Section("Every cell", [_cells(rows)]),
            Section("Configuration and versions", [*repeat(directory, "compare"), *machine(directory)]),
        ],
    )


def _tiles(rows: Rows) -> Iterator[Tile]:
    yield Tile("Cells", str(len(rows)), f"{sum(row['status'] == DONE for row in rows)} done")
    said = [row["verdict"] for row in rows if row.get("verdict")]
    for word in WORDS[::-1]:
        if word in said:
            yield Tile(word, str(said.count(word)), f"of {len(said)} verdicts")


def _leaderboards(directory: ComparisonDirectory, rows: Rows) -> Iterator[Section]:
    """The tables of the terminal, and the verdicts of all scenarios beside each other."""
    if not rows:
        return
    scenarios, methods = _in_order(rows, "scenario"), _in_order(rows, "method")
    if any(row.get("verdict") for row in rows):
        body = [(method, *(_verdict(rows, method, scenario) for scenario in scenarios)) for method in methods]
        head = ("method", *scenarios)
        yield Section("Verdicts", [Table("Verdict by method and scenario", head, body, left=scenarios)])
    layouts = tables.layouts(rows, directory.config)
    for layout in layouts:
        parts: list[Part] = [Table(layout.title, layout.head, layout.body, left=("verdict",))]
        parts += [Words(layout.notes, listed=True)] if layout.notes else []
        yield Section(f"Leaderboard: {layout.title.partition(':')[0]}", parts)
    yield Section("What the columns mean", [Words(list(tables.meanings(layouts, directory.config)), listed=True)])


def _verdict(rows: Rows, method: str, scenario: str) -> str:
    here = (row["verdict"] for row in rows if (row["method"], row["scenario"]) == (method, scenario))
    said = [word for word in here if word]
    return tables.words(said) if said else "-"


def _forgetting(rows: Rows) -> Section:
    """RA over FA, a chart a scenario, and who is not beaten in RA, FA and bytes."""
    rows = [row for row in rows if row.get("ra") is not None]
    styles = {method: place for place, method in enumerate(_in_order(rows, "method"))}
    parts: list[Part] = []
    front: list[tuple[str, ...]] = []
    for scenario in _in_order(rows, "scenario"):
        here = [row for row in rows if row["scenario"] == scenario]
        means = [_mean([row for row in here if row["method"] == method]) for method in _in_order(here, "method")]
        parts += charts.only(_plane(scenario, means, styles, here))
        for best in unbeaten(means, lambda mean: (-mean.ra, mean.fa, mean.sent)):
            front.append((best.method, scenario, number(best.ra), number(best.fa), size(best.sent)))
    head = ("method", "scenario", "RA", "FA", "sent up in all")
    caption = "Pareto front: no other method is as good in RA, FA and bytes, and better in one"
    return Section("Forgetting against keeping", [*parts, Table(caption, head, front, left=("scenario",))])


@dataclass(frozen=True)
class _Mean:
    """A method in one scenario, mean over its seeds."""

    method: str
    ra: float
    fa: float
    sent: float


def _mean(rows: Rows) -> _Mean:
    ra, fa, sent = (statistics.fmean(row[name] for row in rows) for name in ("ra", "fa", "bytes_up_total"))
    return _Mean(rows[0]["method"], ra, fa, sent)


def _plane(scenario: str, means: Sequence[_Mean], styles: Mapping[str, int], rows: Rows) -> Chart | None:
    series = []
    for mean in means:
        tip = f"{mean.method}\nRA {number(mean.ra)}, FA {number(mean.fa)}\nup {size(mean.sent)} in all"
        series.append(Series(mean.method, [Point(mean.fa, mean.ra, tip)], joined=False, style=styles[mean.method]))
    for kind, name, style in (("before", "before: it remembers", 6), ("retrained", "retrained without the data", 7)):
        known = [row for row in rows if row.get(f"ra_{kind}") is not None]
        if known:
            ra, fa = (statistics.fmean(row[f"{which}_{kind}"] for row in known) for which in ("ra", "fa"))
            tip = f"{name}\nRA {number(ra)}, FA {number(fa)}"
            series.append(Series(name, [Point(fa, ra, tip)], joined=False, hollow=True, style=style))
    about = "A point per method, mean over seeds; left is more forgotten, up is more kept."
    points = [point for one in series for point in one.points]
    x = Axis("forgotten data (FA), lower is better", limits=accuracy_limits(point.x for point in points))
    y = Axis("kept data (RA), higher is better", limits=accuracy_limits(point.y for point in points))
    return charts.points(f"{scenario}: kept against forgotten", about, series, x, y)


def _price(rows: Rows) -> Section:
    """What each method sends and trains, the largest over scenarios and seeds."""
    rows = [row for row in rows if row.get("bytes_up_total") is not None]
    about = "A bar per method, the largest over scenarios and seeds."
    sent = [Bar(method, most, size(most)) for method, most in _most(rows, "bytes_up_total")]
    took = [Bar(method, most, f"{most:.1f} s") for method, most in _most(rows, "seconds_train")]
    parts = charts.only(
        charts.bars("Sent up by all clients in all rounds (log scale)", about, sent, log=True),
        charts.bars("Seconds of local training", about, took),
    )
    return Section("Price", parts)


def _most(rows: Rows, name: str) -> list[tuple[str, float]]:
    """By method the largest of a figure; the least first."""
    most: dict[str, float] = {}
    for row in rows:
        most[row["method"]] = max(row[name], most.get(row["method"], 0.0))
    return sorted(most.items(), key=lambda item: item[1])


def _cells(rows: Rows) -> Table:
    head = ("method", "scenario", "seed", "status", "verdict", "why", "directory")
    body = [
        (row["method"], row["scenario"], str(row["seed"]), row["status"], row.get("verdict") or "-",
         row.get("verdict_sentence") or "-", row.get("directory") or "-")
        for row in rows
    ]  # fmt: skip
    return Table("Every cell with its verdict", head, body, left=head[1:])


def _in_order(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))
