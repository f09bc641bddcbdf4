"""A sweep's page: what is recommended, the front, heat maps, and every setting."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations

from fused_ray.pages import charts
from fused_ray.pages.charts import Axis, Point, Series
from fused_ray.pages.parts import Chart, Code, Section, Subject, Table, Tile, Tiles, Words
from fused_ray.runs.figures import accuracy_limits
from fused_ray.runs.pages.setting import machine, repeat
from fused_ray.runs.screen import number, size
from fused_ray.storage.mirror import in_words
from fused_ray.studies.sweeps import tables
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.display import found_cases, told
from fused_ray.studies.sweeps.front import Case, Setting, short

_ACCURACIES = {"ra": "kept data (RA)", "fa": "forgotten data (FA)"}
_MOST_POINTS, _MOST_LINES = 1500, 80
_MOST_CELLS, _MOST_PAIRS = 30, 3


def subject(directory: SweepDirectory) -> Subject:
    """Everything that is told of a sweep, as far as it has come; of an earlier version's the tables that it wrote."""
    here = in_words(str(directory.path))
    setting = Section("Configuration and versions", [*repeat(directory, "sweep"), *machine(directory)])
    if directory.older:
        table = directory.path / "table.md"
        text = table.read_text(encoding="utf-8") if table.exists() else f"Not finished: {directory.how_to_go_on}"
        earlier = Section("Tables of an earlier version", [Code("table.md", text)])
        return Subject("Sweep", "sweep", here, [earlier, setting])
    config, cases = directory.config, found_cases(directory)
    lines = [*tables.failures(directory.rows), *map(in_words, told(directory))]
    return Subject(
        title=f"Sweep over {', '.join(map(short, config.space))}",
        kind="sweep",
        about=f"{config.base.data.name}, {config.base.model.label}, {config.base.federation.clients:,} clients; {here}",
        leading=[
            Words(list(map(_recommended, cases))),
            Tiles(list(_tiles(directory, cases))),
            Words(lines, listed=True),
        ],
        sections=[*(section for case in cases for section in _case(case, directory)), setting],
    )


def _recommended(case: Case) -> str:
    line = tables.recommendation(case)
    return f"{case.name}: {line}" if case.name else f"{line[:1].upper()}{line[1:]}"


def _tiles(directory: SweepDirectory, cases: Sequence[Case]) -> Iterator[Tile]:
    trials = {row["trial"]: row["status"] for row in directory.rows}
    yield Tile("Trials", str(len(trials)), f"{sum(status == 'done' for status in trials.values())} done")
    settings = sum(setting.last for case in cases for setting in case.settings)
    yield Tile("Settings", str(settings), "each with all its rounds")
    yield Tile("On the front", str(sum(len(case.front) for case in cases)), "of RA, FA and bytes")
    yield Tile("Audited", str(sum(len(case.audited) for case in cases)), "models")


def _case(case: Case, directory: SweepDirectory) -> Iterator[Section]:
    """A case's charts, and its tables."""
    suffix = f": {case.name}" if case.name else ""
    yield Section(f"Pareto front{suffix}", charts.only(*(_front(case, name) for name in _ACCURACIES)))
    if heats := charts.only(*_heats(case)):
        yield Section(f"Heat maps{suffix}", heats)
    if rounds := charts.only(*(_rounds(case, name) for name in _ACCURACIES)):
        yield Section(f"Rounds{suffix}", rounds)
    for layout in tables.layouts([case], directory.config.base):
        title = "Every setting" if layout.head[-1] == "front" else "The front"
        table = Table(layout.title, layout.head, layout.body, left=("adapted",))
        yield Section(
            f"{title}{suffix}", [table, Words([note.removeprefix("- ") for note in layout.notes], listed=True)]
        )


def _tip(setting: Setting) -> str:
    figures = f"RA {number(setting['ra'])}, FA {number(setting['fa'])}"
    return f"{setting.title}\n{figures}\nup {size(setting['bytes_up_total'])} in all"


def _front(case: Case, name: str) -> Chart | None:
    """Every setting and round, those on the front in colour."""

    def points(settings: Sequence[Setting]) -> list[Point]:
        return [Point(s["bytes_up_total"], s[name], _tip(s)) for s in settings if s["bytes_up_total"] > 0]

    every, rule = points(case.settings[:_MOST_POINTS]), case.settings[0].mean[f"{name}_retrained"]
    best = points([case.recommended] if case.recommended else [])
    series = [
        Series("settings, every round", every, joined=False, style=7, rule=rule),
        Series("Pareto front of RA, FA and bytes", points(case.front), joined=False, style=1),
        Series("recommended", best, joined=False, style=6, hollow=True),
    ]
    about = "A point per setting and number of rounds, over the bytes that all clients sent up for it."
    x = Axis("bytes sent up in all (log scale)", log=True, show=_size)
    title, against = f"{_ACCURACIES[name]} against bytes", "retrained without the data"
    return charts.points(title, about, series, x, _accuracy(name, series), against=against)


def _accuracy(name: str, series: Sequence[Series]) -> Axis:
    """An axis of accuracies, none of which is below 0."""
    values = [point.y for one in series for point in one.points]
    rules = [one.rule for one in series if one.rule is not None]
    return Axis(_ACCURACIES[name], limits=accuracy_limits([*values, *rules] or [0.0]))


def _size(value: float) -> str:
    return size(value).replace(".0 ", " ")


def _heats(case: Case) -> Iterator[Chart | None]:
    """RA and FA over pairs of swept fields, the mean over everything else, after the last round."""
    last = [setting for setting in case.settings if setting.last]
    several = {key: _values(last, key) for key in (last[0].values if last else ())}
    keys = [key for key, values in several.items() if 2 <= len(values) <= _MOST_CELLS]
    for down, across in list(combinations(keys, 2))[:_MOST_PAIRS]:
        for name in _ACCURACIES:
            yield _heat(last, name, (down, several[down]), (across, several[across]))


_Swept = tuple[str, list[str]]
"""A swept field and its values, as JSON."""


def _heat(settings: Sequence[Setting], name: str, down: _Swept, across: _Swept) -> Chart | None:
    cells: dict[tuple[str, str], list[float]] = {}
    for setting in settings:
        place = json.dumps(setting.values[down[0]]), json.dumps(setting.values[across[0]])
        cells.setdefault(place, []).append(setting[name])
    means = [
        [statistics.fmean(cells[row, column]) if (row, column) in cells else None for column in across[1]]
        for row in down[1]
    ]
    shown = [["" if value is None else f"{value:.3f}" for value in line] for line in means]
    rows, columns = ([value.strip('"') for value in values] for _, values in (down, across))
    names = {"down": short(down[0]), "across": short(across[0])}
    title = f"{_ACCURACIES[name]} over {names['down']} and {names['across']}"
    about = "Mean over all else that was swept, after the last round."
    return charts.heat(title, about, rows, columns, means, shown=shown, across=names["across"], down=names["down"])


def _values(settings: Sequence[Setting], key: str) -> list[str]:
    """The values that a field has, as JSON; numbers in order."""
    values = list(dict.fromkeys(json.dumps(setting.values[key]) for setting in settings))
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def _rounds(case: Case, name: str) -> Chart | None:
    """A line per setting over the rounds, the recommended one's in colour."""
    if not case.settings or max(setting.round for setting in case.settings) < 1:
        return None
    curves: dict[str, list[Setting]] = {}
    for setting in case.settings:
        curves.setdefault(json.dumps(setting.values), []).append(setting)
    best = case.recommended and json.dumps(case.recommended.values)
    series = []
    for values in sorted(list(curves)[:_MOST_LINES], key=lambda values: values == best):
        points, chosen = [Point(s.round, s[name], _tip(s)) for s in curves[values]], values == best
        series.append(Series("recommended setting" if chosen else "settings", points, style=0 if chosen else 7))
    about = "Accuracy over the rounds of unlearning; round 0 is the adapter as it starts."
    axes = Axis("rounds I", whole=True), _accuracy(name, series)
    return charts.points(f"{_ACCURACIES[name]} by round", about, series, *axes)
