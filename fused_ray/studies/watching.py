"""Runs and studies that other processes work on: how far they are, by what they write to disk alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fused_ray.config.kinds import COMPARISON, SCALING, SWEEP
from fused_ray.errors import RunDirectoryError
from fused_ray.runs import display as of_runs
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.progress import Progress as RunProgress
from fused_ray.runs.remaining import typical
from fused_ray.runs.screen import Screen, make_screen
from fused_ray.runs.watching import WatchedRun
from fused_ray.storage.folder import Folder, fetched, kind_of_folder
from fused_ray.studies import display
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.progress import Progress
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.status import failed
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.front import best_of, cases

AnyDirectory = ComparisonDirectory | SweepDirectory | ScalingDirectory
_STUDIES: Mapping[str, type[AnyDirectory]] = {
    COMPARISON: ComparisonDirectory,
    SWEEP: SweepDirectory,
    SCALING: ScalingDirectory,
}
_STARTED = ("*/*/starts.json", "store/*/*/starts.json")
"""In the folders of a study's runs and shared models that were begun."""


class Watched(Protocol):
    """Something to look at again and again."""

    @property
    def directory(self) -> Folder:
        """Its folder."""
        ...

    def look(self) -> Any:
        """How far it is now. Raises RunDirectoryError where a file cannot be read."""
        ...

    def listening(self, screen: Screen) -> AbstractContextManager[Callable[[Any], None]]:
        """What shows that on a screen."""
        ...

    def lines(self, progress: Any) -> list[str]:
        """The same for whoever looks once."""
        ...

    def show_outcome(self) -> None:
        """What came of it, once it is finished."""
        ...


def fetch(path: str | Path) -> str | Path:
    """A folder as of now; of one on S3, what tells how far it is."""
    return fetched(path, _tells)


def _tells(name: str) -> bool:
    """Whether a file is small and read here: neither a model, nor what clients did."""
    return name.endswith((".json", ".yaml", ".parquet", "/")) and "clients.parquet/" not in name


def opened(path: str | Path) -> Watched:
    """A run or a study, by its folder. Raises RunDirectoryError if it is none."""
    place = fetch(path)
    kind = kind_of_folder(place)
    directory = (_STUDIES.get(kind) or RunDirectory).open(place, older=True)
    if directory.older and not directory.finished:
        raise RunDirectoryError(f"{directory.path} is not finished; {directory.how_to_go_on}")
    return WatchedRun(directory) if isinstance(directory, RunDirectory) else WatchedStudy(directory)


@dataclass
class _Member:
    """A run of a study that was begun."""

    watched: WatchedRun
    shared: bool
    """Whether it makes a model that others rest on."""
    seconds: float | None = None
    """What it took, once it is finished."""

    @property
    def name(self) -> str:
        path = self.watched.directory.path
        return f"{path.parent.name}/{path.name}"


class WatchedStudy:
    """A study to look at again and again; of its runs, finished ones are read once."""

    def __init__(self, directory: AnyDirectory) -> None:
        self.directory = directory
        self._members: dict[Path, _Member] = {}
        self._best: tuple[int, str] = (0, "")

    @cached_property
    def _count(self) -> int:
        """How many runs the study will have. Raises RunDirectoryError where its configuration cannot be read."""
        return self.directory.config.count

    def look(self) -> Progress:
        running = self._running()
        seen = {member.name: member.watched.look() for member in running}
        own = [seen[member.name] for member in running if not member.shared]
        alone, statuses = running[0] if len(running) == 1 else None, self.directory.statuses
        return Progress(
            model=alone.name if alone and alone.shared else "",
            now=alone.name if alone and not alone.shared else "",
            run=seen[alone.name] if alone else RunProgress(),
            count=self._count,
            done=len(statuses),
            running=len(own),
            failed=sum(map(failed, statuses)),
            best=self._best_of(len(statuses)),
            seconds_left=self._left(self._count - len(statuses) - len(own), own),
        )

    def listening(self, screen: Screen) -> AbstractContextManager[Callable[[Progress], None]]:
        return display.listening(screen, self.directory.RUNS)

    def lines(self, progress: Progress) -> list[str]:
        return [
            display.words(progress, self.directory.RUNS),
            *(of_runs.lines(progress.run) if progress.run.rounds else ()),
        ]

    def show_outcome(self) -> None:
        lost, place = self.directory.result.get("failed"), shlex.quote(str(self.directory.path))
        but = f", but {lost} of its {self.directory.RUNS} failed" if lost else ""
        make_screen().say(f"finished{but}; its tables: fused-ray show {place}")

    def _running(self) -> list[_Member]:
        """The runs that go on."""
        for pattern in _STARTED:
            for found in sorted(self.directory.path.glob(pattern)):
                if found.parent not in self._members:
                    watched = WatchedRun(RunDirectory.open(found.parent))
                    self._members[found.parent] = _Member(watched, found.parent.parent.name != self.directory.RUNS)
        running = []
        for member in (member for member in self._members.values() if member.seconds is None):
            directory = member.watched.directory
            worked_on = directory.worker is not None  # asked first: who has let go by now has written all
            if directory.finished:
                member.seconds = float(directory.result["wall_seconds"])
            elif worked_on:
                running.append(member)
        return running

    def _left(self, waiting: int, running: list[RunProgress]) -> float | None:
        """Seconds until all runs are over, as many at a time as now, each about as long as others took."""
        took = [m.seconds for m in self._members.values() if m.seconds is not None and not m.shared]
        each = typical(took) if took else None
        rest = [run.seconds_left if each is None else max(0.0, each - run.seconds) for run in running]
        if each is None and (waiting or None in rest):
            return None
        total = sum(left for left in rest if left is not None) + max(0, waiting) * (each or 0.0)
        return total / max(1, len(running))

    def _best_of(self, done: int) -> str:
        """The best trial so far, in words; computed anew when more are over."""
        if isinstance(self.directory, SweepDirectory) and done != self._best[0]:
            config = self.directory.config
            found = cases(self.directory.rows, config.ra_margin, config.fa_margin, config.draws)
            self._best = done, best_of(found)
        return self._best[1]
