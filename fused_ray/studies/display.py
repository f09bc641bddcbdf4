"""What a study shows in the terminal while it goes on: a live bar, or a line for each model and each run that ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn

from fused_ray.config import schedule
from fused_ray.runs.display import Bar, figures, left
from fused_ray.runs.screen import Notes, Screen, progress_screen

if TYPE_CHECKING:
    from fused_ray.studies.progress import Progress


@contextmanager
def show_progress(path: Path, runs: str) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows progress on standard error: a live bar on a terminal, else a line per step.

    `runs` is what the study calls its runs. Ray's own noise goes to ray.log in the directory meanwhile.
    """
    with progress_screen(path) as screen, listening(screen, runs) as listener:
        yield listener


@contextmanager
def listening(screen: Screen, runs: str) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows progress on a screen."""
    if screen.is_terminal:
        with Bar(screen, BarColumn(bar_width=10)) as bar:
            yield _Live(bar, screen, runs)
    else:
        yield _Lines(screen, runs)


class _Live:
    """A bar over the rounds of a shared model, then one over all runs."""

    def __init__(self, bar: Bar, screen: Screen, runs: str) -> None:
        self._bar, self._notes, self._runs = bar, Notes(screen), runs
        self._task = bar.add_task("", total=None, text="starting")

    def __call__(self, progress: Progress) -> None:
        self._notes((*progress.notes, *progress.run.notes))
        run = progress.run
        share = max(0, run.round - 1) + run.clients_done / max(1, run.clients)
        text, of_run = words(progress, self._runs), ""
        if run.rounds:
            of_run = f"  {schedule.title(run.phase)} {run.round}/{run.rounds}"
        self._bar.below(figures(run))
        if progress.model:
            self._bar.update(self._task, total=run.rounds or None, completed=share, text=text + of_run)
        else:
            done = progress.done + share / max(1, run.rounds)
            self._bar.update(self._task, total=progress.count, completed=done, text=text + of_run)


class _Lines:
    """A line per shared model, per run that begins alone or ends, and per audit."""

    def __init__(self, screen: Screen, runs: str) -> None:
        self._screen, self._notes, self._runs, self._last = screen, Notes(screen), runs, ("", 0)

    def __call__(self, progress: Progress) -> None:
        self._notes((*progress.notes, *progress.run.notes))
        where = progress.model or progress.now, progress.done
        between = not where[0] and not progress.running and progress.done < progress.count
        if where != self._last and not between:
            self._last = where
            self._screen.say(words(progress, self._runs))


def words(progress: Progress, runs: str) -> str:
    """Where a study is, in one line."""
    if progress.model:
        return f"shared model {progress.model}{left(progress.seconds_left)}"
    parts = [f"{progress.done}/{progress.count} {runs}{left(progress.seconds_left)}"]
    parts += [progress.now] if progress.now else [f"{progress.running} running"] if progress.running else []
    parts += [f"{progress.failed} failed"] if progress.failed else []
    return "  ".join(parts + ([f"best so far: {progress.best}"] if progress.best else []))


def failures(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """That clients failed and were left out in some of the runs, if it is so."""
    if concerned := sum(bool(row.get("failures")) for row in runs):
        yield f"NOT BIT-REPRODUCIBLE: clients failed and were left out in {concerned} of {len(runs)} runs (failures)."
