"""Audits of a comparison's cells: one yardstick per scenario and seed, shadow models trained once for it.

An audit is kept as audit.json in the run directory of the model that was audited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fused_ray.audit.report import Restored, Subject, audit
from fused_ray.audit.shadow import Shadow, train_shadows
from fused_ray.audit.yardstick import Yardstick
from fused_ray.comparison import AuditConfig
from fused_ray.config import RunConfig
from fused_ray.core import state
from fused_ray.core.adapter import Masks
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Federation, RoundRecord, Saved, one_thread
from fused_ray.core.workspace import Workspace
from fused_ray.errors import Interrupted
from fused_ray.models.anatomy import anatomy
from fused_ray.results.comparison.directory import ComparisonDirectory
from fused_ray.results.directory import RunDirectory
from fused_ray.results.execute import MakePool
from fused_ray.results.export import model_that_forgot
from fused_ray.results.files import read_adapter, read_state
from fused_ray.results.folder import LOCK_WAIT
from fused_ray.results.recorder import Progress, encode_saved, read_saved
from fused_ray.types import ImageData, IntVector, PartialSum, Scenario


class ShadowRecorder(MemoryRecorder):
    """Keeps shadow models in a comparison's directory, each with the number of examples that it was trained on."""

    def __init__(
        self,
        directory: ComparisonDirectory,
        folder: str,
        listener: Callable[[Progress], None],
        stopped: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._directory, self._folder = directory, folder
        self._listener, self._stopped = listener, stopped
        self._progress = Progress()

    def resume(self, phase: str) -> Saved | None:
        path = self._directory.path / self._folder / f"{phase}.safetensors"
        return read_saved(path) if path.exists() else None

    def begin_round(self, phase: str, round: int, rounds: int, clients: int) -> None:
        self._progress = Progress(phase=phase, round=round, rounds=rounds, clients=clients)
        self.clients_done(0)

    def clients_done(self, count: int) -> None:
        if self._stopped():
            raise Interrupted(f"stopped in {self._progress.phase} round {self._progress.round}")
        self._progress = replace(self._progress, clients_done=self._progress.clients_done + count)
        self._listener(self._progress)

    def finish_round(self, record: RoundRecord, total: PartialSum, predictions: IntVector | None, saved: Saved) -> None:
        earlier = self.resume(record.phase)
        examples = total.weight + (earlier.figures["examples"] if earlier else 0)
        kept = encode_saved(replace(saved, figures={"examples": examples}))
        self._directory.write(f"{self._folder}/{record.phase}.safetensors", kept)


def shadow_models(
    config: RunConfig,
    data: ImageData,
    scenario: Scenario,
    make_pool: MakePool,
    recorder: ShadowRecorder,
    count: int,
) -> list[Shadow]:
    """Shadow models, trained like the base run's model, as many rounds and from the same initial one."""
    with contextlib.closing(make_pool(config, data, scenario)) as pool:
        federation = Federation(config, data, scenario, pool, recorder)
        initial = state.flatten(fedavg.initial(federation, "pretrain"))
        return train_shadows(federation, initial, count, config.pretrain.rounds)


def shadow_equivalents(folder: Path, base: RunDirectory) -> float:
    """Full-round equivalents that the shadow models in a folder took so far."""
    examples = sum(read_saved(path).figures["examples"] for path in sorted(folder.glob("[!.]*.safetensors")))
    if not examples:
        return 0.0
    return float(examples * base.config.train.local_epochs / sum(base.read_json("scenario.json")["examples"]))


def yardstick(
    base: RunDirectory,
    again: RunDirectory | None,
    data: ImageData,
    scenario: Scenario,
    shadows: Sequence[Shadow],
    settings: AuditConfig,
) -> Yardstick:
    """What the cells of a base run are measured against; `again` is the base run of another seed."""
    config = base.config
    # what goes elsewhere differs from seed to seed, so that the other seed's model may have seen it
    alike = config.forget.scenario in ("class", "exclusive") or config.forget.poison
    with one_thread():
        space = Workspace(config, data, scenario)
    return Yardstick(
        space=space,
        before=read_state(base.path / "base.safetensors"),
        layers=anatomy(config.model, data.train_images.shape[1:], data.classes).layers,
        retrained=read_state(base.path / "retrained.safetensors"),
        retrained_again=read_state(again.path / "retrained.safetensors") if again and alike else None,
        shadows=shadows,
        steps=settings.relearn_steps,
        repeats=settings.relearn_repeats,
    )


def examine(run: RunDirectory, measure: Callable[[], Yardstick], label: str) -> dict[str, Any]:
    """The audit of a finished run's model: the one that is there, else a new one. Raises what an audit raises."""
    if (run.path / "audit.json").exists():
        return run.read_json("audit.json")
    result, adapter = run.result, None
    if result["adapter"]:
        adapter, _ = read_adapter(run.path / "adapter.safetensors")
    report = audit(
        Subject(
            yardstick=measure(),
            method=label,
            after=model_that_forgot(run),
            masks=adapter if isinstance(adapter, Masks) else None,
            restored=Restored(result["hash"]["base"], result["hash"]["restored"]) if adapter else None,
        )
    )
    run.lock(LOCK_WAIT)
    try:
        run.write_json("audit.json", report)
    finally:
        run.unlock()
    return report
