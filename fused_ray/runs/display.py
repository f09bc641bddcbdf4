"""What a run shows in the terminal while it goes on: notes, and a live bar or a line per finished round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from fused_ray.config import schedule
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.remaining import told
from fused_ray.runs.screen import (
    Notes,
    Screen,
    make_screen,
    number,
    progress_screen,
    shown,
    size,
    sparkline,
)

if TYPE_CHECKING:
    from fused_ray.runs.progress import Finished, Progress

WIDTH = 20
"""Rounds that a sparkline shows, the last ones, and a gap between two phases."""


@contextmanager
def show_progress(path: Path) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows progress on standard error: a live bar on a terminal, else a line per finished round.

    Ray's own noise goes to ray.log in the run directory meanwhile.
    """
    with progress_screen(path) as screen, listening(screen) as listener:
        yield listener


@contextmanager
def listening(screen: Screen) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows progress on a screen."""
    if screen.is_terminal:
        with Bar(screen, TextColumn("{task.fields[phase]:<11}", markup=False), BarColumn(bar_width=10)) as bar:
            yield _Live(bar, screen)
    else:
        yield _Lines(screen)


class Bar(RichProgress):
    """A live line of these columns with a text behind them, and a line of figures below."""

    def __init__(self, screen: Screen, *columns: TextColumn | BarColumn) -> None:
        self._screen, self._below = screen, ""
        super().__init__(*columns, TextColumn("{task.fields[text]}", markup=False), console=screen)

    def below(self, text: str) -> None:
        """Show this below, or nothing; what a narrow terminal has no room for is cut off."""
        self._below = shown(text, self._screen.encoding)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._below:
            yield Text(self._below, no_wrap=True, overflow="crop")


def figures(progress: Progress) -> str:
    """RA and FA with their course, how long a round takes, and who was left out; empty before the first accuracy."""
    if progress.ra is None:
        return ""
    parts = [f"{name.upper()} {number(getattr(progress, name))} {_course(progress, name)}" for name in ("ra", "fa")]
    if progress.round_seconds is not None:
        parts.append(f"{progress.round_seconds:.1f} s a round")
    if progress.failures:
        parts.append(f"failed clients left out: {progress.failures}")
    return "  ".join(parts)


def _course(progress: Progress, name: str) -> str:
    """The sparkline of an accuracy."""
    shares: list[float | None] = []
    phase = ""
    for finished in progress.recent:
        share = getattr(finished, name)
        if share is not None:
            shares += [None] if shares and finished.phase != phase else []
            shares.append(share)
            phase = finished.phase
    return sparkline(shares[-WIDTH:]).lstrip()


def left(seconds: float | None) -> str:
    """How long it goes on, as far as that is known, to be put behind other words."""
    return "" if seconds is None else f"  about {told(seconds)} left"


class _Live:
    """One bar over the rounds of a phase; beside it round, the whole run's time left, clients, bytes; figures below."""

    def __init__(self, bar: Bar, screen: Screen) -> None:
        self._bar, self._notes = bar, Notes(screen)
        self._task = bar.add_task("", total=None, phase="start", text="starting")

    def __call__(self, progress: Progress) -> None:
        self._notes(progress.notes)
        if not progress.rounds:
            return
        if progress.phase == "audit":
            self._bar.below("")
            self._bar.update(self._task, total=None, phase="audit", text=left(progress.seconds_left).strip())
            return
        done = progress.round - 1 + progress.clients_done / max(1, progress.clients)
        phase = schedule.title(progress.phase)
        text = f"{progress.round}/{progress.rounds}{left(progress.seconds_left)}"  # a narrow terminal cuts the rest off
        if progress.clients:  # who only watches does not know of them
            text += f"  clients {progress.clients_done}/{progress.clients}"
        text += f"  up {size(progress.bytes_up)}"
        self._bar.below(figures(progress))
        self._bar.update(self._task, total=progress.rounds, completed=done, phase=phase, text=text)


class _Lines:
    """A line per finished round, with what it led to, and one when the audit begins, or goes on after training."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._notes = screen, Notes(screen)
        self._said: set[tuple[str, int]] = set()
        self._auditing = False

    def __call__(self, progress: Progress) -> None:
        self._notes(progress.notes)
        fresh = [finished for finished in progress.recent if (finished.phase, finished.round) not in self._said]
        for finished in fresh:
            self._said.add((finished.phase, finished.round))
            self._screen.say(_line(finished) + (left(progress.seconds_left) if finished is fresh[-1] else ""))
        if progress.phase == "audit" and not self._auditing:
            self._screen.say(f"{progress.seconds:7.1f} s  audit{left(progress.seconds_left)}")
        self._auditing = progress.phase == "audit"


def lines(progress: Progress) -> list[str]:
    """Where a run is, for whoever looks once."""
    title = schedule.title(progress.phase)
    where = title if progress.phase == "audit" else f"{title} round {progress.round}/{progress.rounds}"
    return [text for text in (where + left(progress.seconds_left), figures(progress)) if text]


def _line(finished: Finished) -> str:
    title = schedule.title(finished.phase)
    text = f"{finished.seconds:7.1f} s  {title} round {finished.round}/{finished.rounds}"
    if finished.ra is not None:
        text += f"  RA {number(finished.ra)}  FA {number(finished.fa)}"
    return f"{text}  up {size(finished.bytes_up)}"


def show_unfinished(directory: RunDirectory, *, to_error: bool = False) -> None:
    """How far a run has come."""
    last = so_far(directory)["reached"]
    reached = f"it reached {last['phase']} round {last['round']}" if last else "no round is finished yet"
    make_screen(to_error).say(f"{directory.path} is not finished: {reached}; {directory.how_to_go_on}")


def so_far(directory: RunDirectory) -> dict[str, Any]:
    """The same in plain values."""
    rows = directory.table("rounds").to_pylist()
    reached = {name: rows[-1][name] for name in ("phase", "round")} if rows else None
    return {"finished": False, "reached": reached, "go_on": directory.how_to_go_on}
