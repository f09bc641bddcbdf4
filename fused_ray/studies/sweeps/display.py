"""What a sweep shows in the terminal: how far it is, its tables, and its plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fused_ray.runs.report import OUTDATED
from fused_ray.runs.screen import make_screen
from fused_ray.studies.display import failures
from fused_ray.studies.sweeps import tables
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.front import Case, cases, settled

if TYPE_CHECKING:
    pass


def show_sweep(directory: SweepDirectory, *, to_error: bool = False) -> None:
    """The tables as far as the sweep has come; of an earlier version's those that it wrote, by its own rules."""
    screen = make_screen(to_error)
    if directory.older:
        table = directory.path / "table.md"
        screen.say(table.read_text(encoding="utf-8") if table.exists() else f"Not finished: {directory.how_to_go_on}")
        return
    tables.show(screen, found_cases(directory), directory.config.base)
    for line in (*tables.failures(directory.rows), *told(directory)):
        screen.say(line)


def found_cases(directory: SweepDirectory) -> list[Case]:
    """What the trials say so far, with verdicts and recommendations where the sweep is finished."""
    config = directory.config
    found = cases(directory.rows, config.ra_margin, config.fa_margin, config.draws)
    return [settled(case, directory.result["cases"]) for case in found] if directory.finished else found


def told(directory: SweepDirectory) -> Iterator[str]:
    """What is left, what failed, and where everything is."""
    yield from failures([row for row in directory.rows if row["last"]])
    if not directory.finished:
        count = directory.config.count
        yield f"Not finished: {len(directory.statuses)} of {count} trials; {directory.how_to_go_on}"
        return
    result = directory.result
    if directory.outdated:
        yield f"{OUTDATED}{directory.RESUME} {directory.path}"
    if result["failed"]:
        yield f"{result['failed']} of {result['trials']} trials failed; to try them again: {directory.RESUME} " + str(
            directory.path
        )
    tune = directory.path / "tune"  # without Ray there is none
    curves = f"; TensorBoard: tensorboard --logdir {tune}" if tune.is_dir() else ""
    yield (
        f"Everything is in {directory.path}: trials.parquet, front.parquet, table.md, plots/, a run directory per trial"
        f"{curves}"
    )


def so_far(directory: SweepDirectory) -> dict[str, Any]:
    """How far an unfinished one has come; of an earlier version's not how far it was to go."""
    return {
        "finished": False,
        "done": len({row["trial"] for row in directory.rows}),
        "count": None if directory.older else directory.config.count,
        "go_on": directory.how_to_go_on,
    }
