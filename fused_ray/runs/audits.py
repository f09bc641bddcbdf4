"""The audit of a run's model: what it is measured against, the models trained for it, and audit.json.

Shadow models and further retrained models are trained by the run's own pool, and kept beside what is audited, so that
an audit that is killed goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fused_ray.audit import rules
from fused_ray.audit.evidence import Means
from fused_ray.audit.oracles import Kept
from fused_ray.audit.report import Restored, Subject, audit
from fused_ray.audit.shadow import Shadow, train_shadows
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import AuditConfig, RunConfig, schedule
from fused_ray.core import state
from fused_ray.core.adapter import Masks
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Federation, RoundRecord, Saved
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays
from fused_ray.core.workspace import Workspace
from fused_ray.errors import Interrupted, RunDirectoryError, in_one_line
from fused_ray.runs.checkpoints import encode_saved, read_saved
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.handles import model_that_forgot
from fused_ray.runs.progress import RECENT, Finished, Progress
from fused_ray.runs.remaining import seconds_left
from fused_ray.storage.files import read_adapter, read_state
from fused_ray.storage.folder import Folder
from fused_ray.types import ImageData, IntVector, PartialSum, Scenario

RETRAINED = "retrained.safetensors"
FAILED = "the audit failed: "
"""What the sentence of a verdict begins with where an audit came to none."""


ANEW = ("swap", "klom", "ruli")
"""Settings that an audit of an earlier version lacks, and that are as if they were not there where they are 0."""
FURTHER = ("audit_metrics", "audit_metrics_failed", "audit_answers")
"""What a report says of further metrics: their figures, in one line each why one has none, and what was asked."""
METRICS = "metrics"
"""What rounds of further metrics are counted under, whatever their phases are called."""


class AuditRecorder(MemoryRecorder):
    """Keeps models trained for an audit in a folder, once an epoch, each with how many examples it was trained on."""

    def __init__(
        self,
        config: RunConfig,
        settings: AuditConfig,
        directory: Folder,
        folder: str,
        listener: Callable[[Progress], None],
        stopped: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._train = config.train
        self._directory, self._folder = directory, folder
        self._listener, self._stopped = listener, stopped
        self._progress = Progress()
        self._started = self._round_started = time.monotonic()
        self._took: list[float] = []
        """Seconds of each round; one is like the other."""
        self._left = {phase: rounds - self._reached(phase) for phase, rounds in _wanted(config, settings).items()}
        """Rounds that are still to come, by phase."""
        self._left[METRICS] = settings.further_rounds(config)

    def resume(self, phase: str) -> Saved | None:
        path = self._directory.path / self._folder / f"{phase}.safetensors"
        return read_saved(path) if path.exists() else None

    def _reached(self, phase: str) -> int:
        saved = self.resume(phase)
        return saved.round if saved else 0

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        recent, self._round_started = self._progress.recent, time.monotonic()
        self._progress = Progress(phase=phase, round=round, rounds=rounds, clients=clients, recent=recent)
        self.clients_done(0)

    def clients_done(self, count: int) -> None:
        if self._stopped():
            raise Interrupted(f"stopped in {self._progress.phase} round {self._progress.round}")
        self._tell(clients_done=self._progress.clients_done + count)

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        earlier = self.resume(record.phase)
        shown = sum(self._train.shown(report.examples) for report in total.reports)
        examples = shown / self._train.local_epochs + (earlier.figures["examples"] if earlier else 0)
        kept = encode_saved(replace(saved, figures={**saved.figures, "examples": examples}))
        self._directory.write(f"{self._folder}/{record.phase}.safetensors", kept)
        self._took.append(time.monotonic() - self._round_started)
        if record.phase in self._left:
            self._left[record.phase] = self._progress.rounds - record.round
        else:
            self._left[METRICS] = max(0, self._left[METRICS] - 1)
        over = Finished(
            phase=record.phase,
            round=record.round,
            rounds=self._progress.rounds,
            ra=record.metrics.get("ra"),
            fa=record.metrics.get("fa"),
            bytes_up=record.bytes_up * record.clients_received,
            seconds=time.monotonic() - self._started,
        )
        self._tell(finished=record.round, recent=(*self._progress.recent[1 - RECENT :], over))

    def _tell(self, **changes: Any) -> None:
        now = replace(self._progress, seconds=time.monotonic() - self._started, **changes)
        under_way = now.clients_done / max(1, now.clients) if now.round > now.finished else 0.0
        left = {"round": max(0.0, sum(self._left.values()) - under_way), "audit": 1.0}
        estimate = seconds_left(left, {"round": self._took}, {"round": 1.0, "audit": schedule.COST["audit"]})
        self._progress = replace(now, seconds_left=estimate)
        self._listener(self._progress)


@dataclass(frozen=True)
class Trained:
    """Models trained for an audit alone."""

    shadows: Sequence[Shadow] = ()
    retrained: Sequence[Arrays] = ()


def train(federation: Federation, settings: AuditConfig) -> Trained:
    """Shadow models, trained like M_r from the same initial model, and more models without the forgotten data.

    They are kept, and gone on with, by the federation's recorder.
    """
    config = federation.config
    start = fedavg.initial(federation, "pretrain")
    shadows = train_shadows(federation, state.flatten(start), settings.shadows, config.pretrain.rounds)
    retrained = []
    for number in range(2, settings.retrained + 1):
        name = f"retrain-{number}"
        initial = state.flatten(fedavg.initial(federation, name))
        rounds = _retrain_rounds(config)
        retrained.append(state.unflatten(fedavg.fedavg(federation, initial, name, "retained", rounds).payload, start))
    return Trained(shadows, retrained)


def are_trained(folder: Path, config: RunConfig, settings: AuditConfig) -> bool:
    """Whether all models that `train` makes are in a folder already, to their last round."""
    files = {folder / f"{name}.safetensors": rounds for name, rounds in _wanted(config, settings).items()}
    return all(path.exists() and read_saved(path).round == rounds for path, rounds in files.items())


def _wanted(config: RunConfig, settings: AuditConfig) -> dict[str, int]:
    """The rounds of every model that `train` makes, by its phase."""
    shadows = {f"shadow-{number}": config.pretrain.rounds for number in range(1, settings.shadows + 1)}
    return shadows | {f"retrain-{number}": _retrain_rounds(config) for number in range(2, settings.retrained + 1)}


def _retrain_rounds(config: RunConfig) -> int:
    return config.retrain_rounds or config.pretrain.rounds


def equivalents(folder: Path, base: RunDirectory) -> float:
    """Full-round equivalents that the models in a folder took so far."""
    examples = sum(read_saved(path).figures["examples"] for path in sorted(folder.glob("[!.]*.safetensors")))
    if not examples:
        return 0.0
    return float(examples * base.config.train.local_epochs / sum(base.read_json("scenario.json")["examples"]))


def yardstick(
    config: RunConfig,
    base: Path,
    data: ImageData,
    scenario: Scenario,
    settings: AuditConfig,
    trained: Trained,
    retrained: Path | None,
    others: Sequence[Path] = (),
) -> Yardstick:
    """What models that forgot what `config` says, from the M_r of the run in the folder `base`, are measured against.

    `retrained` is the file of a model without the forgotten data; if there is none, the first trained for the audit is
    taken. `others` are those of other seeds, left out where what is forgotten differs from seed to seed, so that they
    may have seen it.
    """
    alike = config.forget.scenario in ("class", "exclusive") or len(scenario.poisoned) > 0
    with standard():
        space = Workspace(config, data, scenario)
    without = [*([read_state(retrained)] if retrained else []), *trained.retrained]
    return Yardstick(
        space=space,
        before=read_state(base / "base.safetensors"),
        retrained=without[0] if without else None,
        others=[*without[1:], *map(read_state, others if alike else ())],
        shadows=trained.shadows,
        probes=settings.probes,
        steps=settings.relearn_steps,
        repeats=settings.relearn_repeats,
    )


@dataclass(frozen=True)
class Standard:
    """What a run's model is measured against: the files that it rests on, and the yardstick made of them."""

    files: Sequence[Path]
    """Of M_r and of retrained models; those that do not exist count as absent."""
    yardstick: Callable[[], Yardstick]
    oracles: Callable[[], Kept] = dict
    """What all trained anew came to, where the audit asks for it; after the yardstick."""

    @property
    def digests(self) -> list[str | None]:
        """SHA-256 of each file."""
        return [hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None for path in self.files]


def check_standard(run: RunDirectory, settings: AuditConfig) -> None:
    """Raise RunDirectoryError where a new audit would have no retrained model, and the one that is there had."""
    if settings.retrained > 1 or (run.path / RETRAINED).exists() or not (run.path / "audit.json").exists():
        return
    earlier = run.read_json("audit.json")
    if any(earlier["standard"][1:]) or earlier["settings"]["retrained"] > 1:
        raise RunDirectoryError(
            f"{run.path} was judged against a retrained model that this audit would not have, so nothing could be told "
            f"any more; put {RETRAINED} back, or take others: fused-ray audit --full {run.path}"
        )


def examine(
    run: RunDirectory,
    result: dict[str, Any],
    standard: Standard,
    settings: AuditConfig,
    label: str,
    federation: Federation | None = None,
) -> dict[str, Any]:
    """The audit of a run's model, kept as audit.json: the one that is there, if all that it rests on is the same.

    `result` is what the run came to; `federation` trains what further metrics ask for. Only for the holder of the run's
    lock. Raises what an audit raises.
    """
    about = _about(result, standard, settings)
    if (earlier := current(run, result, standard, settings)) is not None:
        return earlier
    started = time.perf_counter()
    adapter = read_adapter(run.path / "adapter.safetensors") if result["adapter"] else None
    report = audit(
        Subject(
            yardstick=standard.yardstick(),
            settings=settings,
            oracles=standard.oracles(),
            method=label,
            before=result["metrics"]["before"],
            after=model_that_forgot(run.path),
            masks=adapter[0] if adapter and isinstance(adapter[0], Masks) else None,
            restored=Restored(result["hash"]["base"], result["hash"]["restored"]) if adapter else None,
            comparable=result["numerics"]["comparable"],
            metrics=settings.further,
            means=Means(adapter, federation),
        )
    )
    whole = about | report | {"seconds": time.perf_counter() - started}
    run.write_json("audit.json", whole)
    return whole


def current(
    run: RunDirectory, result: Mapping[str, Any], standard: Standard, settings: AuditConfig
) -> dict[str, Any] | None:
    """The audit that a run has, if all that it rests on is the same still."""
    if not (run.path / "audit.json").exists():
        return None
    earlier = run.read_json("audit.json")
    same = all(earlier.get(name) == value for name, value in _about(result, standard, settings).items())
    # a metric that failed may have been mended since
    return earlier if same and not earlier["audit_metrics_failed"] else None


def _about(result: Mapping[str, Any], standard: Standard, settings: AuditConfig) -> dict[str, Any]:
    """What an audit rests on."""
    return {
        "rules": rules.RULES,
        "settings": {
            name: value for name, value in settings.model_dump(mode="json").items() if name not in ANEW or value
        },
        "sha256": result["hash"]["unlearned"],
        "standard": standard.digests,
    }


def judged(
    run: RunDirectory,
    result: dict[str, Any],
    standard: Standard,
    settings: AuditConfig,
    federation: Federation | None = None,
) -> dict[str, Any]:
    """What the audit adds to result.json. Whatever goes wrong in it, the run's own figures are not lost.

    Its seconds are those that it took when it was made, also where the one that is there is taken.
    """
    started = time.perf_counter()
    took: list[float] = []

    def work() -> dict[str, Any]:
        report = examine(run, result, standard, settings, result["method"], federation)
        took.append(report["seconds"])
        return report

    conclusion = concluded(work)
    seconds = took[0] if took else time.perf_counter() - started
    return {**result, **conclusion, "verdict_rules": rules.RULES, "seconds": {**result["seconds"], "audit": seconds}}


def concluded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Verdict, sentence, findings and further figures of an audit; one that fails has a verdict as well, `unjudged`."""
    try:
        report = work()
        word, sentence, findings = report["verdict"], report["sentence"], report["findings"]
        further = {name: report[name] for name in FURTHER}
    except Interrupted:
        raise
    except Exception as error:  # the model may be the user's own
        word, sentence, findings = "unjudged", f"{FAILED}{in_one_line(error)}", []
        further = {name: [] for name in FURTHER}
    return {"verdict": word, "verdict_sentence": sentence, "findings": findings, **further}
