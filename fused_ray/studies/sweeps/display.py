"""What a sweep shows in the terminal: how far it is, its tables, and its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn
from rich.progress import Progress as Bar

from fused_ray.config import schedule
from fused_ray.runs.display import left, live_bar
from fused_ray.runs.report import OUTDATED
from fused_ray.runs.screen import Notes, Screen, make_screen, number, progress_screen
from fused_ray.studies.sweeps import tables
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.front import cases, settled

if TYPE_CHECKING:
    from fused_ray.studies.sweeps.execute import Progress


@contextmanager
def show_progress(path: Path) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows progress on standard error: a live bar on a terminal, else a line per step.

    Ray's own noise goes to ray.log in the directory meanwhile.
    """
    with progress_screen(path) as screen:
        if screen.is_terminal:
            with live_bar(screen, BarColumn(bar_width=10)) as bar:
                yield _Live(bar, screen)
        else:
            yield _Lines(screen)


class _Live:
    """A bar over the shared model's rounds, then one over all trials."""

    def __init__(self, bar: Bar, screen: Screen) -> None:
        self._bar, self._notes = bar, Notes(screen)
        self._task = bar.add_task("", total=None, text="starting")

    def __call__(self, progress: Progress) -> None:
        self._notes((*progress.notes, *progress.run.notes))
        if progress.model:
            run = progress.run
            done = max(0, run.round - 1) + run.clients_done / max(1, run.clients)
            self._bar.update(self._task, total=run.rounds or None, completed=done, text=_model(progress))
        else:
            self._bar.update(self._task, total=progress.trials, completed=progress.done, text=_trials(progress))


class _Lines:
    """A line per shared model, and per trial that ends."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._notes, self._last = screen, Notes(screen), ""

    def __call__(self, progress: Progress) -> None:
        self._notes((*progress.notes, *progress.run.notes))
        now = progress.model or progress.audit or str(progress.done)
        if now != self._last:
            self._last = now
            model = f"shared model {progress.model}{left(progress.seconds_left)}"
            self._screen.say(model if progress.model else _trials(progress))


def _model(progress: Progress) -> str:
    run = progress.run
    text = f"{progress.model}{left(progress.seconds_left)}  {schedule.title(run.phase)}"
    return f"{text} {run.round}/{run.rounds}  RA {number(run.ra)}  FA {number(run.fa)}" if run.rounds else text


def _trials(progress: Progress) -> str:
    if progress.audit:
        return progress.audit
    text = f"{progress.done}/{progress.trials} trials{left(progress.seconds_left)}"
    text += f"  {progress.running} running  {progress.failed} failed"
    return text + (f"  best so far: {progress.best}" if progress.best else "")


def show_sweep(directory: SweepDirectory, *, to_error: bool = False) -> None:
    """The tables as far as the sweep has come."""
    screen, rows, config = make_screen(to_error), directory.rows, directory.config
    found = cases(rows, config.ra_margin, config.fa_margin, config.draws)
    if directory.finished:
        found = [settled(case, directory.result["cases"]) for case in found]
    tables.show(screen, found, config.base)
    for line in (*tables.failures(rows), *_in_words(directory)):
        screen.say(line)


def _in_words(directory: SweepDirectory) -> Iterator[str]:
    trials = {row["trial"]: row["status"] for row in directory.rows}
    if not directory.finished:
        count = directory.config.count
        yield f"Not finished: {len(trials)} of {count} trials; {directory.how_to_go_on}"
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
