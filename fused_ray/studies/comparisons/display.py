"""What a comparison shows in the terminal: which of its runs goes on and how far it is, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn
from rich.progress import Progress as Bar

from fused_ray.audit.rules import outdated
from fused_ray.config import schedule
from fused_ray.runs.display import left, live_bar
from fused_ray.runs.report import OUTDATED
from fused_ray.runs.screen import Notes, Screen, make_screen, number, progress_screen
from fused_ray.studies.comparisons import tables
from fused_ray.studies.comparisons.directory import ComparisonDirectory

if TYPE_CHECKING:
    from fused_ray.studies.comparisons.execute import Progress


@contextmanager
def show_progress(path: Path) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows progress on standard error: a live bar on a terminal, else a line per run that starts.

    Ray's own noise goes to ray.log in the directory meanwhile.
    """
    with progress_screen(path) as screen:
        if screen.is_terminal:
            with live_bar(screen, BarColumn(bar_width=10)) as bar:
                yield _Live(bar, screen)
        else:
            yield _Lines(screen)


class _Live:
    """One bar over all runs; beside it the time left, the run, its phase, round and last accuracies."""

    def __init__(self, bar: Bar, screen: Screen) -> None:
        self._bar, self._notes = bar, Notes(screen)
        self._task = bar.add_task("", total=None, text="starting")

    def __call__(self, progress: Progress) -> None:
        self._notes(progress.run.notes)
        run = progress.run
        share = (run.round - 1 + run.clients_done / max(1, run.clients)) / max(1, run.rounds)
        text = f"{_where(progress)}  {schedule.title(run.phase)}"
        if run.rounds:
            text += f" {run.round}/{run.rounds}  RA {number(run.ra)}  FA {number(run.fa)}"
        done = progress.step - 1 + max(0.0, share)
        self._bar.update(self._task, total=progress.steps, completed=done, text=text)


class _Lines:
    """A line per run that starts."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._notes, self._last = screen, Notes(screen), ""

    def __call__(self, progress: Progress) -> None:
        self._notes(progress.run.notes)
        if progress.name != self._last:
            self._last = progress.name
            self._screen.say(_where(progress))


def _where(progress: Progress) -> str:
    return f"{progress.step}/{progress.steps}{left(progress.seconds_left)}  {progress.name}"


def show_comparison(directory: ComparisonDirectory, *, to_error: bool = False) -> None:
    """The tables as far as the comparison has come, and what it took."""
    screen, rows = make_screen(to_error), directory.rows
    tables.show(screen, rows, directory.config)
    for line in _in_words(directory, rows):
        screen.say(line)


def _in_words(directory: ComparisonDirectory, rows: list[dict[str, Any]]) -> Iterator[str]:
    if older := sum(map(outdated, rows)):
        yield f"{older} of {len(rows)} rows: {OUTDATED}{directory.RESUME} {directory.path}"
    if not directory.finished:
        cells = len(directory.config.cells)
        yield f"Not finished: {len(rows)} of {cells} cells; {directory.how_to_go_on}"
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
