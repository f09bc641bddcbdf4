"""`fused-ray ls`: a row for each folder of results, from small files alone; none is opened, and no PyTorch loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fused_ray.config.kinds import COMPARISON, RUN, SCALING, SWEEP
from fused_ray.config.yaml_text import parsed
from fused_ray.errors import FusedRayError, RunDirectoryError
from fused_ray.runs.screen import fits, make_screen, make_table, number, size
from fused_ray.storage import shelf
from fused_ray.storage.folder import kind_of_format
from fused_ray.storage.shelf import Found

DONE, RUNNING, INTERRUPTED, FAILED = "done", "running", "interrupted", "failed"
NOT_STARTED, DAMAGED = "not started", "damaged"
_CONFIG = {RUN: "config.yaml", SWEEP: "sweep.yaml", COMPARISON: "comparison.yaml", SCALING: "scaling.yaml"}
_HEAD = ("kind", "state", "verdict", "RA", "FA", "last change", "size", "what")
_Values = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """What is known of a folder."""

    place: str
    kind: str | None
    """None of a damaged one."""
    state: str
    verdict: str | None
    """Of a run; of a sweep with one case that of the recommended setting."""
    ra: float | None
    fa: float | None
    when: str
    """When it was finished, or else when something was last written there; UTC."""
    bytes: int
    """What its files take."""
    what: str
    """Scenario and method of a run, what a study is over, or what is wrong with a damaged folder."""
    runs_failed: int = 0
    """Of a study that is done."""
    reason: str = ""
    """Why a run failed, or which process works on it."""
    inside: bool = False
    """Whether it lies in another row's folder, whose bytes have its own."""


def rows(where: str | Path, inside: bool = False) -> list[Row]:
    """A row for each folder of results at a path or URI, and below it; `inside`: those within studies too.

    Raises RunDirectoryError where there is no such folder, or what the bucket raises.
    """
    listed: list[Row] = []
    last = ""
    for found in shelf.found(where, inside):
        within = bool(last) and found.place.startswith(f"{last}/")
        last = last if within else found.place
        listed.append(_row(found, within))
    return listed


def show(where: str | Path, listed: Sequence[Row]) -> None:
    """The rows as a table, with names from `where`, and what all of them take."""
    screen = make_screen()
    if not listed:
        screen.say(f"no results in {where}")
        return
    body = [(row.place.removeprefix(f"{_root(where)}/"), *_cells(row)) for row in listed]
    table = make_table(("name", *_HEAD), body, left=("name", "kind", "state", "verdict", "what"))
    if fits(screen, table):
        screen.print(table)
    else:  # in a narrow window the figures count most
        few = [(line[0], *line[2:6], line[7]) for line in body]
        screen.print(make_table(("name", *_HEAD[1:5], "size"), few, left=("name", "state", "verdict")))
        for row, line in zip(listed, body, strict=True):
            if row.reason or row.state == DAMAGED:
                screen.say(f"{line[0]}: {row.reason or row.what}")
    whole = [row for row in listed if not row.inside]
    screen.say(f"{len(listed)} {'folder' if len(listed) == 1 else 'folders'}, {size(sum(r.bytes for r in whole))}")


def _cells(row: Row) -> tuple[str, ...]:
    """A row as it is shown, behind its name."""
    return (
        row.kind or "-",
        f"{row.state}, {row.runs_failed} failed" if row.runs_failed else row.state,
        row.verdict or "-",
        number(row.ra),
        number(row.fa),
        datetime.fromisoformat(row.when).astimezone().strftime("%Y-%m-%d %H:%M") if row.when else "-",
        size(row.bytes),
        f"{row.what}: {row.reason}" if row.reason else row.what,
    )


def plain(listed: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for JSON."""
    return [asdict(row) for row in listed]


def _root(where: str | Path) -> str:
    from fused_ray.config.paths import expanded, remote

    return remote(where) or str(expanded(where))


def _row(found: Found, inside: bool) -> Row:
    try:
        if found.problem:
            raise RunDirectoryError(found.problem)
        return _told(found, inside)
    except (FusedRayError, LookupError, TypeError, ValueError, AttributeError) as error:  # whatever lies in its files
        reason = (
            str(error) if isinstance(error, FusedRayError) else f"its files are not what this program writes: {error}"
        )
        when = _changed(found)
        return Row(found.place, None, DAMAGED, None, None, None, when, found.bytes, reason, inside=inside)


def _told(found: Found, inside: bool) -> Row:
    """What the files say. Raises RunDirectoryError, or whatever comes of content that is not this program's."""
    kind = kind_of_format(found.json("environment.json")["format"])
    if kind is None:
        raise RunDirectoryError("its environment.json does not say what it is")
    result = found.json("result.json") if "result.json" in found.files else None
    state, reason = _state(found, result)
    verdict, ra, fa = (None, None, None) if result is None else _figures(kind, result)
    return Row(
        place=found.place,
        kind=kind,
        state=state,
        verdict=verdict,
        ra=ra,
        fa=fa,
        when=_ended(result or {}) or _changed(found),
        bytes=found.bytes,
        what=_what(kind, found, result or {}),
        runs_failed=int((result or {}).get("failed", 0)),
        reason=reason,
        inside=inside,
    )


def _state(found: Found, result: _Values | None) -> tuple[str, str]:
    """Whether it goes on, and how it ended; with the process, or the reason of a failure."""
    if found.owner is not None:
        return RUNNING, f"process {found.owner}" if found.owner.isdecimal() else found.owner
    if result is not None:
        return DONE, ""
    starts = found.json("starts.json") if "starts.json" in found.files else {}
    if "error" in starts:
        return FAILED, str(starts["error"])
    begun = any("rounds.parquet/" in name for name in found.files)
    return INTERRUPTED if begun else NOT_STARTED, ""


def _figures(kind: str, result: _Values) -> tuple[str | None, float | None, float | None]:
    """Verdict, RA and FA, where there is one of each."""
    if kind == RUN:
        after = result["metrics"]["after"]
        return _word(result.get("verdict")), float(after["ra"]), float(after["fa"])
    if kind == SWEEP and len(result["cases"]) == 1 and (best := result["cases"][0]["recommended"]) is not None:
        return _word(best.get("verdict")), float(best["ra"]), float(best["fa"])
    return None, None, None


def _word(verdict: Any) -> str | None:
    return None if verdict is None else str(verdict)


def _ended(result: _Values) -> str:
    """When it was finished, if that is told. Raises ValueError where it is no time."""
    return datetime.fromisoformat(result["ended"]).isoformat(timespec="seconds") if "ended" in result else ""


def _what(kind: str, found: Found, result: _Values) -> str:
    """What it is about, in a few words."""
    if kind == RUN and {"scenario", "method"} <= result.keys():
        return f"{result['scenario']}, {result['method']}"
    values = parsed(found.text(_CONFIG[kind]), _CONFIG[kind])
    if kind == RUN:
        return f"{values['forget']['scenario']}, {values['unlearn']['method']}"
    if kind == SWEEP:
        return f"{values['search']} over {', '.join(values['space'])}{_seeds(values)}"
    if kind == COMPARISON:
        return f"{_labels(values['methods'])} in {_labels(values['scenarios'])}{_seeds(values)}"
    return f"{len(values['points'])} grid(s) of points"


def _labels(entries: Sequence[Any]) -> str:
    return ", ".join(entry if isinstance(entry, str) else str(entry["label"]) for entry in entries)


def _seeds(values: _Values) -> str:
    seeds = values.get("seeds") or ()
    return f", {len(seeds)} seeds" if len(seeds) > 1 else ""


def _changed(found: Found) -> str:
    last = max((file.changed for file in found.files.values()), default=None)
    return "" if last is None else datetime.fromtimestamp(last, timezone.utc).isoformat(timespec="seconds")
