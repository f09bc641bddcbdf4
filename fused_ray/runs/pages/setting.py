"""What a run was: who held what, its configuration, versions, placement, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fused_ray.config.paths import remote
from fused_ray.pages import charts
from fused_ray.pages.parts import Code, Part, Section, Table, Terms, Words
from fused_ray.runs.pages.known import NOT_RECORDED, Known
from fused_ray.runs.remaining import told
from fused_ray.storage.folder import Folder
from fused_ray.storage.mirror import in_words

_CELLS, _CLIENTS, _CLASSES = 2000, 60, 100
"""Most cells, rows and columns of the field of clients and classes."""


def holdings(known: Known) -> Section:
    """Clients by classes."""
    rows = known.directory.held
    if rows is None:
        return Section("Who held what", [Words([f"Who held how much of which class was {NOT_RECORDED}."])])
    names = [row["client_name"] or str(row["client"]) for row in rows]
    most = min(_CLIENTS, max(1, _CELLS // len(known.classes)))
    parts: list[Part] = []
    if len(known.classes) <= _CLASSES:
        values = [row["held"] for row in rows[:most]]
        gone = [(y, c) for y, row in enumerate(rows[:most]) for c, count in enumerate(row["to_forget"]) if count]
        title = "Training examples by client and class" + (", outlined: some must be forgotten" if gone else "")
        columns = [str(c) for c in range(len(known.classes))]
        about = "A row per client, a column per class, the darker the more examples; exact figures are in the table."
        shown = [[str(count) for count in line] for line in values]
        parts += charts.only(charts.heat(title, about, names[:most], columns, values, shown=shown, across="class",
                                         down="client", outlined=gone))  # fmt: skip
    parts.append(_held(rows, names, known.classes))
    if len(rows) > most or len(rows) < known.config.federation.clients:
        parts.append(Words([f"The chart has {min(most, len(rows))} of {known.config.federation.clients:,} clients."]))
    parts.append(Terms([("partition", known.result["partition_sha256"])]))
    return Section("Who held what", parts)


def _held(rows: Sequence[Mapping[str, Any]], names: Sequence[str], classes: Sequence[str]) -> Table:
    few = len(classes) <= 20
    head = ("client", "examples", "to forget", *(classes if few else ("classes", "most of")))
    body = []
    for name, row in zip(names[:200], rows[:200], strict=True):
        held = row["held"]
        largest = max(range(len(held)), key=held.__getitem__)
        more = (
            map(str, held) if few else (str(sum(count > 0 for count in held)), f"{held[largest]} of {classes[largest]}")
        )
        body.append((name, str(sum(held)), str(sum(row["to_forget"])), *more))
    return Table("Training examples of each client", head, body, folded=True)


def configuration(known: Known) -> Section:
    """All of it, to look up and to repeat."""
    result, config = known.result, known.config
    pairs = [("method", result["method"]), ("scenario", result["scenario"]), ("seed", str(config.seed))]
    pairs += [*_when(result), *_hashes(result["hash"])]
    return Section(
        "Configuration and versions",
        [*repeat(known.directory, "run"), Terms(pairs), *_placement(result), *machine(known.directory)],
    )


def _when(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("started", "ended"):
        if name in result:
            yield name, result[name]
    if "wall_seconds" in result:
        starts = result.get("starts", 1)
        yield "took", told(result["wall_seconds"]) + (f" (the last of {starts} starts)" if starts > 1 else "")
    if failures := result.get("failures"):
        yield "clients left out", str(failures)


def _hashes(hashes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, meaning in (
        ("base", "M_r, SHA-256"),
        ("unlearned", "M_f, SHA-256"),
        ("restored", "adapter off, SHA-256"),
    ):
        if hashes.get(name):
            yield meaning, hashes[name]


def _placement(result: Mapping[str, Any]) -> Iterator[Part]:
    placed = result.get("placement")
    if placed is None:
        yield Words([f"Where its clients ran was {NOT_RECORDED}."])
        return
    body = [
        tuple(str(each[name]) for name in ("node", "device", "torch", "cpus", "gpus", "actors"))
        for each in placed["workers"]
    ]
    yield Table(
        f"Placement: {placed['actors']} worker(s) on {placed['nodes']} node(s)",
        ("node", "device", "torch", "CPUs", "GPUs", "workers"),
        body,
    )


def repeat(directory: Folder, command: str) -> Iterator[Part]:
    """The command that makes a run or a study once more, and its configuration."""
    there = remote(str(directory.path)) or in_words(str(directory.path))
    file, again = (shlex.quote(f"{there}{end}") for end in (f"/{directory.CONFIG}", "-again"))
    yield Code("The command that repeats it", f"fused-ray {command} {file} --set output.dir={again}")
    text = (directory.path / directory.CONFIG).read_text(encoding="utf-8")
    yield Code(f"The whole configuration ({directory.CONFIG})", text, folded=True)


def machine(directory: Folder) -> Iterator[Part]:
    """What a run or a study depended on besides its configuration."""
    about = directory.read_json("environment.json")
    pairs = [
        (name, str(about[name])) for name in ("python", "platform", "processor", "cores", "revision") if about.get(name)
    ]
    pairs += [(name, str(version)) for name, version in about.get("packages", {}).items() if version]
    yield Table("Versions", ("what", "version"), pairs, folded=True, left=("version",))
