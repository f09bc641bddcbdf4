"""A study: many runs on shared models. First the models, then the runs that are left, then what they come to.

Comparisons and sweeps are views of it: each says which runs and models there are, and what its tables hold. Who
carries the runs out is given: `one_by_one` here, Ray Tune in studies.tune. Every run has an ordinary directory of its
own, so a killed study goes on from its last round. A finished run is never made again; one that fails is recorded with
its reason, the others go on, and a resumed study tries it once more.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from fused_ray.config import RunConfig
from fused_ray.core.standard import standard
from fused_ray.errors import Interrupted, in_one_line
from fused_ray.runs.execute import MakePool
from fused_ray.runs.progress import Progress as RunProgress
from fused_ray.runs.remaining import Remaining
from fused_ray.runs.sinks import Guarded
from fused_ray.storage.table_folder import TableFolder
from fused_ray.studies.progress import Progress
from fused_ray.studies.status import FAILED, failed, unsupported
from fused_ray.studies.tools import Tools, preparer


class Item(Protocol):
    """A run of a study: a cell of a comparison, a trial of a sweep. It travels to workers."""

    @property
    def number(self) -> int:
        """Its place in the study's list, from 0."""
        ...

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def values(self) -> Mapping[str, Any]:
        """What tells it from the others, by name."""
        ...

    @property
    def config(self) -> RunConfig | None:
        """Its run; None where there can be none."""
        ...

    @property
    def reason(self) -> str:
        """Why there can be none."""
        ...


class Plan(Protocol):
    """What a study's runs are, for whoever carries them out; it travels to workers."""

    @property
    def step_by_step(self) -> bool:
        """Whether a run's next round waits until the one before was reported."""
        ...

    def carry_out(self, item: Any, tools: Tools) -> str:
        """Run it to its end and say how it ended. Raises Interrupted when stopped."""
        ...

    def report(self, item: Any | None, status: str) -> dict[str, Any]:
        """What a scheduler or searcher hears of a run as far as it has come; None: of one that gave no figures."""
        ...


@dataclass(frozen=True)
class Model:
    """Something that several runs rest on, made before them."""

    key: str
    """What runs know it by."""
    name: str
    """What messages call it."""
    kind: str
    """Models of one kind take about as long."""
    cost: float
    """A guess of how long, in rounds of pre-training."""
    make: Callable[[Tools], object]
    needs: str = ""
    """The key of a model that must be there; empty: of none."""


class Study(ABC):
    """What is known of a study while it goes on; the only writer of its tables."""

    plan: Plan

    def __init__(
        self,
        directory: TableFolder,
        count: int,
        listener: Callable[[Progress], None] = lambda progress: None,
        stopped: Callable[[], bool] = lambda: False,
        notes: Sequence[str] = (),
    ) -> None:
        self.directory, self.stopped = directory, stopped
        self._listener = Guarded("the listener to progress", listener)
        self._without: dict[str, str] = {}
        """Models that could not be made, and why."""
        self._running: set[str] = set()
        self.left: Sequence[Item] = ()
        """The runs that are still to be made, in order, as `look` found them; of a list that is not known, none."""
        self._progress = Progress(count=count, notes=tuple(notes))
        self._remaining = Remaining((), {})
        self.prepare = preparer()

    # -- what a view says

    @property
    @abstractmethod
    def models(self) -> list[Model]:
        """What the runs that are left rest on, and is not there; in order."""

    @abstractmethod
    def look(self) -> None:
        """Find out what is left. It may read many files: once before the models are made, and once after."""

    @property
    def waiting(self) -> int:
        """How many are."""
        return len(self.left)

    @abstractmethod
    def rests_on(self, item: Any) -> list[str]:
        """The keys of the models that a run needs, in order."""

    @abstractmethod
    def kind(self, item: Any | None) -> str:
        """What kind of run it is: those of one kind take about as long. None: one that was just proposed."""

    def group(self, item: Any) -> str:
        """Runs of one group share what a process builds for them, so they are best carried out by one; empty: none."""
        return ""

    @property
    @abstractmethod
    def kinds(self) -> Sequence[tuple[str, float]]:
        """Of every run that is left its kind, and about how many rounds of pre-training such a run takes."""

    @abstractmethod
    def keep(self, item: Any, status: str) -> None:
        """Keep the rows of a run that is over."""

    @property
    @abstractmethod
    def statuses(self) -> Sequence[str]:
        """How the runs ended that are over."""

    @abstractmethod
    def conclude(self, make_pool: MakePool) -> dict[str, Any]:
        """Tables and pictures; the content of result.json. Raises RunDirectoryError if no run at all could be made."""

    @property
    def best(self) -> str:
        """The best so far, in words."""
        return ""

    # -- what goes on

    def tools(self, make_pool: MakePool, listener: Callable[[RunProgress], None] = lambda run: None) -> Tools:
        """What this process carries out runs with."""
        return Tools(make_pool, self.prepare, listener, self.stopped)

    def make_models(self, make_pool: MakePool) -> None:
        """Make what the runs need and the store lacks; what fails is remembered with its reason."""
        models = self.models
        kinds = self.kinds
        cost = {model.kind: max(0.1, model.cost) for model in models} | dict(kinds)
        self._remaining = Remaining([*(model.kind for model in models), *(kind for kind, _ in kinds)], cost)
        for number, model in enumerate(models, 1):
            if reason := self._without.get(model.needs):
                self._without[model.key] = reason
                self._remaining.skip(model.kind)
                continue
            name = f"{number}/{len(models)} {model.name}"
            self._remaining.begin(model.key, model.kind, time.monotonic())
            try:
                model.make(self.tools(make_pool, partial(self._hear_model, name)))
            except Interrupted:
                raise
            except (Exception, SystemExit) as error:  # parts from elsewhere raise anything: the other runs go on
                self._without[model.key] = in_one_line(error)
            self._remaining.end(model.key, time.monotonic())
        if models:  # a finished run may have been judged without one of them
            self.look()
        self.tell(model="", run=RunProgress())

    def _hear_model(self, name: str, run: RunProgress) -> None:
        self.hear(run, model=name)

    def runnable(self, item: Item) -> bool:
        """Whether a run can be made; else what is wrong with it is recorded."""
        if item.config is None:
            self.over(item, unsupported(item.reason))
            return False
        for key in self.rests_on(item):
            if key in self._without:
                self.over(item, f"{FAILED}{self.lacking(key)}: {self._without[key]}")
                return False
        return True

    def lacking(self, key: str) -> str:
        """What a message calls a model that could not be made."""
        return f"its model {key}"

    def begun(self, item: Item | None, name: str) -> None:
        """A run has started, by that name; None: one that was just proposed."""
        self._running.add(name)
        self._remaining.begin(name, self.kind(item), time.monotonic())
        self.tell(now=name if item and len(self._running) == 1 else "", run=RunProgress())

    def hear(self, run: RunProgress, **changes: Any) -> None:
        """How far what goes on is."""
        expected = None if run.seconds_left is None else run.seconds + run.seconds_left
        left = self._remaining.seconds_left(time.monotonic(), expected)
        self.tell(run=run, seconds_left=left, **changes)

    def over(self, item: Item, status: str, name: str = "") -> None:
        """A run has ended, one way or another; `name` as when it began, if it did."""
        if name in self._running:
            self._running.discard(name)
            self._remaining.end(name, time.monotonic())
        else:
            self._remaining.skip(self.kind(item))
        self.keep(item, status)
        self.tell(now="", run=RunProgress(), best=self.best)

    def tell(self, **changes: Any) -> None:
        """Tell the listener where the study is."""
        now = {
            "done": len(self.statuses),
            "running": len(self._running),
            "failed": sum(map(failed, self.statuses)),
            "seconds_left": self._remaining.seconds_left(time.monotonic()),
        }
        self._progress = replace(self._progress, **{**now, **changes})
        self._listener(self._progress)


class CarryOut(Protocol):
    """Carries out what is left of a study's runs and tells the study what became of each."""

    def __call__(self, study: Study) -> None: ...


@standard()
def execute(study: Study, make_pool: MakePool, carry_out: CarryOut) -> dict[str, Any]:
    """Run what is still to be done and return the content of result.json; only for the holder of the folder's lock.

    Shared models, and what audits need, are made on `make_pool`'s, which is best a lease. Raises Interrupted when
    stopped, and RunDirectoryError if no run at all could be made.
    """
    study.make_models(make_pool)
    if study.waiting:
        carry_out(study)
    return study.conclude(make_pool)


def one_by_one(make_pool: MakePool) -> CarryOut:
    """The runs of a list one after the other on one lent pool."""

    def carry_out(study: Study) -> None:
        for item in study.left:
            if study.runnable(item):
                study.begun(item, item.name)
                tools = study.tools(make_pool, study.hear)
                study.over(item, study.plan.carry_out(item, tools), item.name)

    return carry_out
