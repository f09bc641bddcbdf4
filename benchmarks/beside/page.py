"""Where the figures go: a Parquet file that keeps every repeat, tables between two marks of a page, and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from beside.measure import Row

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
OURS = "fused_ray"
PLOT = "images/benchmarks.png"
"""Where the plot is, from the page."""
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("part", "case", "system", "measure", "unit")),
        ("values", pa.list_(pa.float64())),
        *((name, pa.float64()) for name in ("median", "least", "most")),
        ("repeats", pa.int32()),
        *((name, pa.string()) for name in ("machine", "versions", "measured")),
    ]
)
"""A row a figure; `values` in the order of the repeats, which are the same moments for all systems of a case."""


@dataclass(frozen=True)
class Target:
    """What a ratio should be: at most, or at least, `bound`."""

    part: str
    case: str
    said: str
    bound: float
    peer: str | None = None
    """fused_ray's seconds over this one's; without, the measure `full round / round` of fused_ray."""


TARGETS = (
    Target("full", "50 clients", "a full round, over the plain loop's", 0.95, "plain loop"),
    Target("full", "50 clients", "a full round, over Flower's", 0.75, "Flower 1.42"),
    Target("full", "50 clients", "a full round, over pfl-research's", 0.95, "pfl-research 0.6"),
    Target("fused", "fc3", "a full round, over a cached one on fc3", 15),
)

Kept = dict[str, Any]
"""A row as the file has it."""


def merge(path: Path, part: str, rows: Sequence[Row], machine: str, versions: Mapping[str, str], when: str) -> None:
    """Put a part's rows into the file instead of those that it has of this part."""
    others = [row for row in read(path) if row["part"] != part]
    told = {"machine": machine, "versions": json.dumps(versions), "measured": when}
    added = [
        {
            **{name: getattr(row, name) for name in ("part", "case", "system", "measure", "unit")},
            "values": list(row.values),
            "median": statistics.median(row.values),
            "least": min(row.values),
            "most": max(row.values),
            "repeats": len(row.values),
            **told,
        }
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([*others, *added], SCHEMA), path)


def read(path: Path) -> list[Kept]:
    """All rows; none if there is no file."""
    return pq.read_table(path).to_pylist() if path.exists() else []


def in_order(rows: Sequence[Kept], parts: Sequence[str]) -> list[Kept]:
    """Rows by part, in whatever order the parts were measured."""
    return sorted(rows, key=lambda row: parts.index(row["part"]))


def ratios(rows: Sequence[Kept], part: str, case: str, peer: str, measure: str = "round") -> list[float]:
    """fused_ray's seconds over a peer's, repeat by repeat: both of a pair had the same moment of the machine."""
    found = {
        row["system"]: row["values"]
        for row in rows
        if (row["part"], row["case"], row["measure"]) == (part, case, measure)
    }
    # a peer may have been measured in the first repeats alone
    return [a / b for a, b in zip(found.get(OURS, []), found.get(peer, []), strict=False)]


def figure_of(values: Sequence[float]) -> str:
    """Median and spread."""
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def markdown(rows: Sequence[Kept], intros: Mapping[str, str]) -> Iterator[str]:
    """Lines: the plot, the targets, then for every part a table with a column a system."""
    yield from (f"![Rounds beside the peers]({PLOT})", "")
    yield from _targets(rows)
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]
        yield from (f"## {part}", "", intros.get(part, ""), "")
        yield from _table(own)
        yield from ("", *_origins(own), "")


def _targets(rows: Sequence[Kept]) -> Iterator[str]:
    yield from ("## Targets", "", "| what | wanted | measured | met |", "|---|---|---|---|")
    for target in TARGETS:
        if target.peer:
            found = ratios(rows, target.part, target.case, target.peer)
        else:
            key = (target.part, target.case, OURS, "full round / round")
            names = ("part", "case", "system", "measure")
            found = next((row["values"] for row in rows if tuple(row[name] for name in names) == key), [])
        sign = "at most" if target.peer else "at least"
        if not found:
            yield f"| {target.said} | {sign} {target.bound:g} | not measured | |"
            continue
        middle = statistics.median(found)
        met = middle <= target.bound if target.peer else middle >= target.bound
        yield f"| {target.said} | {sign} {target.bound:g} | {figure_of(found)} | {'yes' if met else 'no'} |"
    yield ""


def _table(rows: Sequence[Kept]) -> Iterator[str]:
    systems = list(dict.fromkeys(row["system"] for row in rows))
    yield f"| case | measure | {' | '.join(systems)} |"
    yield "|---|---|" + "---|" * len(systems)
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        for measure in dict.fromkeys(row["measure"] for row in own):
            cells = {row["system"]: figure_of(row["values"]) for row in own if row["measure"] == measure}
            unit = next(row["unit"] for row in own if row["measure"] == measure)
            yield f"| {case} | {measure}, {unit} | {' | '.join(cells.get(name, '') for name in systems)} |"
            if measure == "round" and len(cells) > 1:
                found = {name: ratios(own, own[0]["part"], case, name) for name in systems if name != OURS}
                shares = [figure_of(found[name]) if found.get(name) else "" for name in systems]
                yield f"| {case} | {OURS}'s round / this one's | {' | '.join(shares)} |"


def _origins(rows: Sequence[Kept]) -> Iterator[str]:
    """What the figures of a part were measured on."""
    for machine, versions, when in dict.fromkeys((row["machine"], row["versions"], row["measured"]) for row in rows):
        parts = [f"{name}: {said}" for name, said in json.loads(versions).items()]
        yield f"Measured {when}; {machine}. {'; '.join(parts)}."


def write(page: Path, lines: Iterator[str]) -> None:
    """Replace what is between the marks of a page; a page without them is begun."""
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    body = "\n".join(lines).strip("\n")
    page.write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}")


def plotted(rows: Sequence[Kept]) -> Figure:
    """Three panels: a full round, empty rounds by clients, and rounds by the size of what is sent."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    bars, *lines = figure.subplots(1, 3)
    own = [row for row in rows if (row["part"], row["measure"]) == ("full", "round")]
    heights = [row["median"] for row in own]
    spread = [[row["median"] - row["least"] for row in own], [row["most"] - row["median"] for row in own]]
    bars.bar([row["system"] for row in own], heights, yerr=spread, capsize=4, color="tab:blue", alpha=0.8)
    bars.tick_params(axis="x", rotation=20)
    bars.set(title="A full round, 50 clients", ylabel="seconds")
    for axes, part, title in zip(
        lines,
        ("empty", "payload"),
        ("An empty round, by clients", "A round of 10 clients, by values sent"),
        strict=True,
    ):
        some = [row for row in rows if (row["part"], row["measure"]) == (part, "round")]
        for system in dict.fromkeys(row["system"] for row in some):
            points = [(_leading(row["case"]), row["median"]) for row in some if row["system"] == system]
            axes.loglog(*zip(*sorted(points), strict=True), marker="o", label=system)
        axes.set(title=title, ylabel="seconds")
        axes.grid(alpha=0.3)
        if some:
            axes.legend(frameon=False)
    return figure


def draw(rows: Sequence[Kept], path: Path) -> None:
    """The plot, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plotted(rows).savefig(path, dpi=110)


def _leading(case: str) -> int:
    """The number that a case begins with."""
    return int(case.split()[0].replace(",", ""))
