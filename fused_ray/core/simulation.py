"""One simulation from end to end, on any pool: pre-train, unlearn, retrain, and prove that removal is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fused_ray.config import RunConfig
from fused_ray.core import methods, state
from fused_ray.core.methods import Unlearned, fedavg
from fused_ray.core.metrics import Metrics
from fused_ray.core.pools import ClientPool
from fused_ray.core.removal import removal_hash
from fused_ray.core.rounds import Federation, Recorder
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays
from fused_ray.core.timetable import Timetable
from fused_ray.core.work import ModelEvaluation
from fused_ray.core.workspace import STEP, Workspace
from fused_ray.errors import NumericsError
from fused_ray.types import Identity, ImageData, Scenario

VACUOUS_MARGIN = 0.05
"""There was something to forget if FA before exceeds FA of the retrained model by more than this."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulation found. Metrics by name: `ra`, `fa`, and `ca` in the exclusive scenario."""

    before: Metrics
    unlearned: Unlearned
    retrained: Metrics | None
    vacuous: bool | None
    """Whether there was nothing to forget; None without a retrained model."""
    base_hash: str
    unlearned_hash: str
    restored_hash: str | None
    """Of the model after the adapter came off; None where a method changed the whole model."""
    identities: Sequence[Identity]


@standard()
def simulate(
    config: RunConfig,
    data: ImageData,
    scenario: Scenario,
    pool: ClientPool,
    recorder: Recorder,
    given: Arrays | None = None,
    clock: Timetable | None = None,
) -> Outcome:
    """Run every phase, each from where the recorder last saved it.

    `given` is a model to unlearn from instead of pre-training one, `clock` that of the configuration's deployment.
    Raises NumericsError when training diverges or a worker's base model changed; and what the pool and the recorder
    raise.
    """
    federation = Federation(config, data, scenario, pool, recorder, clock)
    check_numerics(config, pool.identities)
    like = fedavg.initial(federation, "pretrain")
    base = given or state.unflatten(fedavg.pretrain(federation, state.flatten(like)).payload, like)
    recorder.save_model("base", base)
    base_hash = state.state_hash(base)
    pool.install(state.flatten(base))
    before = federation.evaluate(ModelEvaluation(), state.flatten(base))
    unlearned = methods.unlearn(federation, base)
    _prove_frozen(pool, base_hash, "unlearn")
    if unlearned.adapter is None or unlearned.values is None:
        recorder.save_model("unlearned", unlearned.state)
    else:
        recorder.save_adapter(unlearned.adapter, unlearned.values, _about(config, base_hash))
    retrained: Metrics | None = None
    if config.retrain_rounds:
        end = fedavg.retrain(federation, state.flatten(fedavg.initial(federation, "retrain")))
        retrained = end.metrics
        recorder.save_model("retrained", state.unflatten(end.payload, like))
        _prove_frozen(pool, base_hash, "retrain")
    before = unlearned.before or before
    return Outcome(
        before=before,
        unlearned=unlearned,
        retrained=retrained,
        vacuous=None if retrained is None else vacuous(before["fa"], retrained["fa"]),
        base_hash=base_hash,
        unlearned_hash=state.state_hash(unlearned.state),
        restored_hash=_restored_hash(config, data, scenario, base, unlearned),
        identities=pool.identities,
    )


def _about(config: RunConfig, base_hash: str) -> dict[str, str]:
    """What the adapter's file says of it."""
    return {"kind": config.unlearn.adapter, "start": config.adapter_start, "base": base_hash}


def vacuous(fa_before: float, fa_retrained: float) -> bool:
    """Whether there was nothing to forget."""
    return fa_before - fa_retrained <= VACUOUS_MARGIN


def check_numerics(config: RunConfig, identities: Sequence[Identity]) -> bool:
    """Whether all workers compute the same bits. Raises NumericsError if not and `engine.numerics` is strict."""
    kinds = {identity.fingerprint: identity for identity in identities}
    if len(kinds) > 1 and config.engine.numerics == "strict":
        places = "; ".join(f"{i.fingerprint[:12]} on {i.node} ({i.device}, torch {i.torch})" for i in kinds.values())
        raise NumericsError(
            f"the nodes are not bit-comparable: {places}; use one kind of machine, or engine.numerics=report"
        )
    return len(kinds) == 1


def _prove_frozen(pool: ClientPool, expected: str, phase: str) -> None:
    """Raise NumericsError unless every worker has M_r, wherever it has it."""
    held = pool.base_hashes()
    assert len(held) == len(pool.identities)
    if any(set(hashes) != {expected} for hashes in held):
        raise NumericsError(
            f"after {phase}, a worker's base model is not the one it was given: a fault of this program"
        )


def _restored_hash(
    config: RunConfig, data: ImageData, scenario: Scenario, base: Arrays, unlearned: Unlearned
) -> str | None:
    """The hash of a live model after the adapter went on, answered on test images and came off; None without one."""
    if unlearned.adapter is None or unlearned.values is None:
        return None
    space = Workspace(config, data, scenario)
    images = space.images("test", np.arange(min(STEP, len(data.test_labels))))
    return removal_hash(space.model, base, unlearned.adapter, unlearned.values, images)
