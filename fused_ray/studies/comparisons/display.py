"""What a comparison shows in the terminal: which of its runs goes on and how far it is, and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fused_ray.audit.rules import outdated
from fused_ray.runs.report import OUTDATED
from fused_ray.runs.screen import make_screen
from fused_ray.studies.comparisons import tables
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.display import failures

if TYPE_CHECKING:
    pass


def show_comparison(directory: ComparisonDirectory, *, to_error: bool = False) -> None:
    """The tables as far as the comparison has come, and what it took."""
    screen, rows = make_screen(to_error), directory.rows
    tables.show(screen, rows, directory.config)
    for line in told(directory, rows):
        screen.say(line)


def told(directory: ComparisonDirectory, rows: list[dict[str, Any]]) -> Iterator[str]:
    """What is left, what it took, what failed, and where everything is."""
    if older := sum(map(outdated, rows)):
        yield f"{older} of {len(rows)} rows: {OUTDATED}{directory.RESUME} {directory.path}"
    yield from failures(rows)
    if not directory.finished:
        yield f"Not finished: {len(rows)} of {len(directory.config.cells)} cells; {directory.how_to_go_on}"
        return
    result: Mapping[str, Any] = directory.result
    took = result["equivalents"]
    parts = ", ".join(f"{name} {took[name]:.1f}" for name in took if name != "total" and took[name])
    yield f"It took {took['total']:.1f} full-round equivalents ({parts})."
    if result["failed"]:
        yield f"{result['failed']} of {result['cells']} cells failed; to try them again: {directory.RESUME} " + str(
            directory.path
        )
    yield f"Everything is in {directory.path}: results.parquet, table.md, table.tex, plots/, and a directory per run."


def so_far(directory: ComparisonDirectory) -> dict[str, Any]:
    """How far an unfinished one has come."""
    return {
        "finished": False,
        "done": len(directory.rows),
        "count": len(directory.config.cells),
        "go_on": directory.how_to_go_on,
    }
