"""A run inside its directory, on any pool: lock, load the data, simulate, write the result."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fused_ray.audit.oracles import Kept
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import DataConfig, RunConfig, schedule
from fused_ray.config.fields import Plots
from fused_ray.core.model_check import check_model, never_reset
from fused_ray.core.pools import ClientPool
from fused_ray.core.rounds import Federation
from fused_ray.core.simulation import check_numerics, simulate
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays
from fused_ray.data import datasets, scenarios
from fused_ray.data.reading import some
from fused_ray.errors import (
    FusedRayError,
    Interrupted,
    NotWrittenError,
    RunDirectoryError,
    in_one_line,
    naming_memory,
)
from fused_ray.models.anatomy import Anatomy
from fused_ray.runs import audits, plots
from fused_ray.runs.checkpoints import Checkpoints
from fused_ray.runs.clock import abandoned, timed, timetable
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.earlier import earlier_run, made_elsewhere
from fused_ray.runs.events import AuditOver, RunEnds
from fused_ray.runs.faults import told
from fused_ray.runs.given import adopt_ranking, given_model
from fused_ray.runs.oracles import trained_anew
from fused_ray.runs.progress import Progress, Teller
from fused_ray.runs.recorder import DirectoryRecorder, check_same_data, facts_of
from fused_ray.runs.result import content, now
from fused_ray.runs.sinks import Guarded, Sinks
from fused_ray.storage.folder import LOCK_WAIT
from fused_ray.types import ImageData, Scenario

MakePool = Callable[[RunConfig, ImageData, Scenario], ClientPool]
Load = Callable[[DataConfig, int], ImageData]
Prepare = Callable[[RunConfig], tuple[ImageData, Scenario]]


def prepared(config: RunConfig, load: Load = datasets.load) -> tuple[ImageData, Scenario]:
    """The data, as the scenario leaves them, and who holds and forgets what of them."""
    config.check_parts()
    data = load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    return scenarios.extended(config, data, scenario), scenario


@standard()
def execute(
    directory: RunDirectory,
    config: RunConfig,
    make_pool: MakePool,
    listener: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
    notes: Sequence[str] = (),
    prepare: Prepare = prepared,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Run what is still to be done and return the content of result.json.

    `callbacks` are objects of this process, beside those that the configuration names.
    """
    config.check_parts_of_driver()
    directory.lock(LOCK_WAIT)
    try:
        return _carried_out(directory, config, make_pool, listener, stopped, notes, prepare, callbacks)
    finally:
        directory.unlock()


def _carried_out(
    directory: RunDirectory,
    config: RunConfig,
    make_pool: MakePool,
    listener: Callable[[Progress], None],
    stopped: Callable[[], bool],
    notes: Sequence[str],
    prepare: Prepare,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """`execute` for the holder of the directory's lock: whoever hears of the run hears how it ended."""
    hear = Guarded("the listener to progress", listener, lambda text: sinks.note(text))
    sinks = Sinks(Teller(config, hear), config.output, callbacks)
    try:
        result = _Run(directory, config, make_pool, hear, stopped, sinks).result(notes, prepare)
    except BaseException as raised:
        error = told(config, raised)
        _remember(directory, error)
        sinks(RunEnds(result=None, error=in_one_line(error)))
        if error is raised:
            raise
        raise error from raised
    sinks(RunEnds(result=result, error=None))
    return result


def _remember(directory: RunDirectory, error: BaseException) -> None:
    """Keep why a run failed for those who look for it, if that can be written; an interruption is no failure."""
    if isinstance(error, Exception) and not isinstance(error, Interrupted | NotWrittenError):
        with contextlib.suppress(FusedRayError):
            directory.failed(in_one_line(error))


@dataclass(frozen=True)
class _Run:
    """One start of a run in its locked directory."""

    directory: RunDirectory
    config: RunConfig
    make_pool: MakePool
    hear: Callable[[Progress], None]
    stopped: Callable[[], bool]
    sinks: Sinks

    def result(self, notes: Sequence[str], prepare: Prepare) -> dict[str, Any]:
        """Run what is left, judge, draw, and write result.json."""
        directory, config, sinks, began = self.directory, self.config, self.sinks, time.monotonic()
        starts = directory.started(now())
        data, scenario = prepare(config)
        about = data.shape, data.classes
        model = check_model(config, *about)
        # before anything is trained, for it may lack a figure
        clock = timetable(config, *about)
        given: Arrays | None = None
        extra: dict[str, Any] = {"pretrained_from": None, "model": _about(config, model)}
        if config.pretrain.from_ is not None:
            given, extra["pretrained_from"], warning = given_model(directory, config, data)
            notes = (*notes, *warning)
            adopt_ranking(directory, config)
        checkpoints = Checkpoints(directory, schedule.phases(config), earlier_run(config))
        recorder = DirectoryRecorder(
            directory, data, scenario, checkpoints=checkpoints, sinks=sinks, stopped=self.stopped, clock=clock
        )
        stuck = never_reset(config, *about, model)
        for note in (*notes, *data.notes, *scenario.notes, *_of_model(config, data, model, stuck)):
            sinks.note(note)
        with contextlib.closing(self.make_pool(config, data, scenario)) as pool:
            for note in (_workers(pool), *made_elsewhere(config, pool.identities)):
                sinks.note(note)
            if not check_numerics(config, pool.identities):
                sinks.note("the nodes are not bit-comparable: the same run elsewhere may give other bits")
            directory.ran_on(pool.identities, starts[-1])
            try:
                outcome = simulate(config, data, scenario, pool, recorder, given, clock)
            finally:  # a worker that died came back on another node, perhaps
                directory.ran_on(pool.identities, now())
            result = content(directory, data, scenario, outcome, extra)
            if clock is not None:
                result["deployment"] = timed(directory, clock, result)
                for note in abandoned(directory):
                    sinks.note(note)
            if config.audit.enabled:
                recorder.begin_round("audit", 1, 1, 1)
                result = _judged(directory, result, config, data, scenario, pool, self.hear, self.stopped)
                for failure in result["audit_metrics_failed"]:
                    sinks.note(failure)
                sinks(audit_over(directory, result))
        plots.draw(directory, result, config.output.plots)
        result |= {"started": starts[0], "starts": len(starts), "ended": now()}
        result |= {"wall_seconds": time.monotonic() - began, "notes": list(sinks.notes)}
        written(directory, result, config.output.report, sinks.note)
        result["notes"] = list(sinks.notes)
        directory.write_json("result.json", result)  # last: it says that the run is complete
        return result


def _of_model(config: RunConfig, data: ImageData, model: Anatomy, stuck: Sequence[str]) -> Iterator[str]:
    """What the user should know of a model."""
    if model.cut == "none":
        yield (
            f"{config.model.label} declares no stages, and no chain of stages could be traced that gives its bits: "
            "nothing of it is cached in unlearning, every round runs the whole model"
        )
    if len(data.shape) == 3 and not model.channels_last:
        yield (
            f"{config.model.label} fails on channels-last tensors (a .view after a convolution, as a rule), so it "
            "runs in PyTorch's usual memory format, in which convolutions may be slower; .flatten(1) suits both"
        )
    if model.derived:
        yield (
            f"the weight of {some(model.derived)} is computed from other parameters (weight_norm, "
            "spectral_norm, pruning): these are trained, but neither ranked nor adapted"
        )
    if model.frozen:
        yield f"frozen in {config.model.label}, so neither ranked nor adapted: {some(model.frozen)}"
    if stuck and config.unlearn.method == "fused":
        yield (
            f"none of {', '.join(stuck)} is chosen: reset at sparsity 0 would set all of it to zero, and no "
            "gradient passes the ReLU behind it"
        )


def audit_over(directory: RunDirectory, result: Mapping[str, Any]) -> AuditOver:
    """What the audit of a run came to, with all its figures where it was not in vain."""
    report = {name: result[name] for name in ("verdict", "verdict_sentence", "findings")}
    if not result["verdict_sentence"].startswith(audits.FAILED):
        report = directory.read_json("audit.json")
    return AuditOver(directory=directory.path, report=report)


def written(directory: RunDirectory, result: Mapping[str, Any], wanted: bool, note: Callable[[str], None]) -> None:
    """Write report.html if it is wanted. What cannot be told of a run is no reason to lose it."""
    if not wanted:
        return
    from fused_ray.runs.pages import whole as page  # most runs, a study's, have none

    try:
        page.write(directory, result)
    except Interrupted:
        raise
    except Exception as error:
        note(f"there is no report.html: {in_one_line(error)}")


def redraw(directory: RunDirectory, form: Plots) -> None:
    """Draw a finished run's plots once more, in another format."""
    directory.lock(LOCK_WAIT)
    try:
        plots.draw(directory, directory.result, form)
    finally:
        directory.unlock()


@standard()
def finish(
    config: RunConfig,
    make_pool: MakePool,
    listener: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
    notes: Sequence[str] = (),
    prepare: Prepare = prepared,
) -> RunDirectory:
    """The finished run of a configuration: it is begun, or goes on, or has been finished already.

    While another process makes it, this one waits, and takes what that one finished, or goes on with what it left.
    Raises FusedRayError, where memory runs out too: whoever has more runs to do goes on with them.
    """
    directory = _begun(Path(config.output.dir), config)
    if directory.finished:
        return directory
    config.check_parts_of_driver()
    with naming_memory(), alone(directory, listener, stopped):
        if not directory.finished:  # by whoever held the lock until now
            _carried_out(directory, config, make_pool, listener, stopped, notes, prepare)
    return directory


def _begun(path: Path, config: RunConfig) -> RunDirectory:
    """A run's directory, made if there is none yet, by whichever process comes first."""
    if not path.exists():
        try:
            return RunDirectory.create(path, config)
        except RunDirectoryError:
            if not path.exists():
                raise
    return RunDirectory.open(path)


@contextlib.contextmanager
def alone(directory: RunDirectory, listener: Callable[[Progress], None], stopped: Callable[[], bool]) -> Iterator[None]:
    """The lock of a directory that others may work on as well: it is waited for as long as its holder lives.

    The listener is told for whom. Raises Interrupted when stopped meanwhile.
    """
    told: set[str] = set()

    def waiting(owner: str) -> None:
        if stopped():
            raise Interrupted(f"stopped while process {owner} worked on {directory.path}")
        if owner not in told:
            told.add(owner)
            listener(Progress(notes=(f"process {owner} works on {directory.path}; this one waits until it is done",)))

    directory.lock(math.inf, waiting)
    try:
        yield
    finally:
        directory.unlock()


def as_trained(directory: RunDirectory, config: RunConfig, prepare: Prepare) -> tuple[ImageData, Scenario]:
    """A finished run's data, as its models were fed, whatever this version would feed them.

    Raises RunDirectoryError if the data are others now.
    """
    data, scenario = prepare(config)
    check_same_data(directory, facts_of(data, scenario))
    mean, std = directory.constants
    if (data.mean, data.std) != (mean, std):  # else the very objects that workers hold
        data = replace(data, mean=mean, std=std)
    return data, scenario


@standard()
def audit(
    directory: RunDirectory,
    config: RunConfig,
    make_pool: MakePool,
    listener: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
    prepare: Prepare = prepared,
) -> dict[str, Any]:
    """Judge the model of a finished run once more, as `config.audit` says, and return the content of result.json.

    Raises RunDirectoryError, and leaves the earlier verdict, where the audit fails.
    """
    config.check_parts_of_driver()
    result = directory.result
    audits.check_standard(directory, config.audit)
    directory.lock(LOCK_WAIT)
    try:
        listener = Guarded("the listener to progress", listener)
        data, scenario = as_trained(directory, config, prepare)
        with contextlib.ExitStack() as held:
            pool = None
            if config.audit.needs_workers(config):
                pool = held.enter_context(contextlib.closing(make_pool(config, data, scenario)))
            else:
                listener(Progress(phase="audit", round=1, rounds=1, clients=1))
            judged = _judged(directory, result, config, data, scenario, pool, listener, stopped)
        if judged["verdict_sentence"].startswith(audits.FAILED):  # what was known before stays
            raise RunDirectoryError(f"{directory.path}: {judged['verdict_sentence']}")
        directory.write_json("result.json", judged)
        written(directory, judged, config.output.report, lambda text: listener(Progress(phase="audit", notes=(text,))))
        Sinks(lambda event: None, config.output)(audit_over(directory, judged))
        return judged
    finally:
        directory.unlock()


def _judged(
    directory: RunDirectory,
    result: dict[str, Any],
    config: RunConfig,
    data: ImageData,
    scenario: Scenario,
    pool: ClientPool | None,
    listener: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> dict[str, Any]:
    """A run's result with its verdict. `pool` trains what the audit asks for; None if that is nothing."""
    retrained, federation = directory.path / audits.RETRAINED, None
    if pool is not None:
        recorder = audits.AuditRecorder(config, config.audit, directory, "audit", listener, stopped)
        federation = Federation(config, data, scenario, pool, recorder, timetable(config, data.shape, data.classes))

    def measure() -> Yardstick:
        trained = audits.Trained()
        if config.audit.trains and federation is not None:
            trained = audits.train(federation, config.audit)
            federation.recorder.begin_round("audit", 1, 1, 1)
        known = retrained if retrained.exists() else None
        return audits.yardstick(config, directory.path, data, scenario, config.audit, trained, known)

    def anew() -> Kept:
        if not config.audit.anew or pool is None:
            return {}
        return trained_anew(config, data, scenario, pool, directory, listener, stopped)

    yardstick = audits.Standard([directory.path / "base.safetensors", retrained], measure, anew)
    return audits.judged(directory, result, yardstick, config.audit, federation)


def _about(config: RunConfig, model: Anatomy) -> dict[str, Any]:
    """The model in result.json."""
    return {
        "name": config.model.label,
        "parameters": model.parameters,
        "layers": list(model.layers),
        "norms": list(model.norms),
        "stages": model.stages,
        "stages_from": model.cut,
    }


def _workers(pool: ClientPool) -> str:
    """Who computes, for the run's first lines."""
    nodes = {identity.node for identity in pool.identities}
    kinds = sorted({f"{i.device}, torch {i.torch}, numeric fingerprint {i.fingerprint[:12]}" for i in pool.identities})
    return f"{len(pool.identities)} worker(s) on {len(nodes)} node(s): {'; '.join(kinds)}"
