"""Resurfacing: whether what was forgotten comes back while the federation simply goes on.

FedAvg of the whole model on D_r, from M_f with its adapter merged and from the retrained model: what a retrained model
learns of D_u from D_r is no fault of unlearning. The batches are the same for both. With the adapter on, M_r stays
frozen and the adapter's values alone go on learning, as in unlearning. A second retrained model, put through the same,
is the control. Nobody goes on for longer than M_r was trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fused_ray.audit.evidence import Evidence, Known
from fused_ray.audit.margins import of_share
from fused_ray.config.parts.metrics import Answer
from fused_ray.core.adapter import Adapter
from fused_ray.core.methods.fedavg import FullTraining, averaging
from fused_ray.core.methods.fused import AdapterTraining
from fused_ray.core.rounds import Federation, Phase, Saved
from fused_ray.core.server import served
from fused_ray.core.simulation import vacuous
from fused_ray.core.state import flatten
from fused_ray.core.training import AdapterStep
from fused_ray.core.work import AdapterEvaluation, Update
from fused_ray.core.workspace import Workspace
from fused_ray.errors import DataError
from fused_ray.types import FloatVector, Payload

ROUNDS = (1, 5, 20)
"""After which it is looked, the last one being M_r's own where that is fewer."""
PHASE = "resurface"
Curve = list[dict[str, float]]
"""`ra` and `fa` after each round."""
Looks = dict[int, float]
"""FA, or a distance of FA, by the round that is looked after."""
_TITLES = {
    "merged": "merged",
    "adapter": "with the adapter on",
    "retrained": "retrained",
    "second": "of another retrained model",
}


def measure(evidence: Evidence) -> Answer:
    """FA after further rounds, beside the retrained model's. Raises DataError without one."""
    retrained, others = evidence.retrained, evidence.others[:1]
    rounds = sorted({min(r, evidence.space.config.pretrain.rounds) for r in ROUNDS})
    if retrained is None:
        raise DataError("there is no retrained model to go on beside")
    federation = replace(evidence.federation, clock=None)  # nobody is away: models differ by where they begin alone
    config = federation.config
    # a comparison's methods may train otherwise: then retrained models go on in that way as well
    alike = config.train, config.participation(PHASE), config.deployment.decides

    def going_on(model: Known) -> Curve:
        return whole(federation, flatten(model.weights), max(rounds))

    curves = {"merged": going_on(evidence.after)}
    if evidence.adapter is not None:
        base = flatten(evidence.before.weights)
        curves["adapter"] = adapter_on(federation, base, *evidence.adapter, max(rounds))
    for name, model in zip(("retrained", "second"), (retrained, *others), strict=False):
        curves[name] = evidence.remembered(f"{name} {alike}", partial(going_on, model))
    return _answer(evidence, curves, rounds, evidence.accuracy(retrained)["fa"])


def _answer(evidence: Evidence, curves: Mapping[str, Curve], rounds: Sequence[int], fa_retrained: float) -> Answer:
    last, examples, fa_before = max(rounds), len(evidence.labels["fa"]), evidence.accuracy(evidence.before)["fa"]
    fa = {name: {r: curve[r - 1]["fa"] for r in rounds} for name, curve in curves.items()}
    gap, allowed = against(fa, examples)
    control = gap.pop("second", {})
    back = any(by[r] > allowed[r] for by in gap.values() for r in rounds)
    ra = {name: curve[last - 1]["ra"] for name, curve in curves.items()}

    figures = {f"gap_{r}": gap["merged"][r] for r in rounds}
    figures |= {f"gap_{r}_adapter": value for r, value in gap.get("adapter", {}).items()}
    figures |= {f"gap_{last}_control": control[last]} if control else {}
    figures |= {f"ra_{last}": ra["merged"], f"ra_{last}_retrained": ra["retrained"]}
    nothing = vacuous(fa_before, fa_retrained)
    if not nothing:
        figures[f"share_{last}"] = gap["merged"][last] / (fa_before - fa_retrained)
    word = "cannot tell, there was nothing to forget" if nothing else "it comes back" if back else "it stays away"
    said = (
        f"{word}: FA after {_row(rounds, 'd')} further rounds is "
        + "; ".join(f"{_row(of.values())} {_TITLES[name]}" for name, of in fa.items())
        + f"; {_row(allowed.values())} above the retrained model's are allowed; RA after {last} is {ra['merged']:.3f}, "
        f"retrained {ra['retrained']:.3f}"
    )
    return Answer(figures, None if nothing else not back, said, curves)


def against(fa: Mapping[str, Looks], examples: int) -> tuple[dict[str, Looks], Looks]:
    """How far each model's FA is above the retrained one's, and how far it may be, by the round that is looked after.

    What another retrained model needs is allowed to everybody.
    """
    retrained = fa["retrained"]
    gap = {name: {r: of[r] - retrained[r] for r in of} for name, of in fa.items() if name != "retrained"}
    control = gap.get("second", {})
    return gap, {r: of_share(p, examples) + max(0.0, control.get(r, 0.0)) for r, p in retrained.items()}


def _row(values: Iterable[float], form: str = ".3f") -> str:
    return " / ".join(f"{value:{form}}" for value in values)


# -- the rounds


@dataclass(frozen=True)
class GoingOn(FullTraining):
    """Training whose batches depend on the round and the client, not on which model goes on."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        return FullTraining.update(replace(self, phase=PHASE), space, payload, client)


@dataclass(frozen=True)
class AdapterGoingOn(AdapterTraining):
    """The same of an adapter's values."""

    def update(self, space: Workspace, payload: Payload, client: int) -> Update:
        return AdapterTraining.update(replace(self, phase=PHASE), space, payload, client)


def whole(federation: Federation, start: Payload, rounds: int) -> Curve:
    """FedAvg of the whole model goes on."""
    usual, name = averaging(federation, PHASE, "retained", rounds), _name(start)

    def work(number: int) -> GoingOn:
        made = usual.work(number)
        assert isinstance(made, FullTraining)
        return GoingOn(name, number, made.seed, made.train, made.on, frozen=made.frozen)

    return _curve(federation, replace(usual, name=name, work=work), start)


def adapter_on(federation: Federation, base: Payload, adapter: Adapter, values: FloatVector, rounds: int) -> Curve:
    """The adapter's values go on learning, above the frozen base."""
    config, start = federation.config, Payload(values)
    step = AdapterStep(config.adapter_lr, config.train.momentum, config.unlearn.weight_decay)
    name = f"{_name(base)}-{_name(start).rpartition('-')[2]}"
    federation.pool.install(base)
    phase = Phase(
        name=name,
        rounds=rounds,
        clients=federation.participants(PHASE, "retained"),
        work=lambda number: AdapterGoingOn(name, number, config.seed, config.train, step, adapter),
        evaluation=AdapterEvaluation(adapter),
        learns=adapter.names,
    )
    return _curve(federation, served(config, phase, step=False), start)


def _name(start: Payload) -> str:
    """A phase's, by what it begins with: an audit that is made again takes the rounds that were made from there."""
    digest = hashlib.sha256(start.values.tobytes() + start.counters.tobytes())
    return f"{PHASE}-{digest.hexdigest()[:12]}"


def _curve(federation: Federation, phase: Phase, start: Payload) -> Curve:
    """The accuracies after every round of a phase."""

    def earlier(before: Saved, payload: Payload) -> Mapping[str, Any]:
        return {"curve": _with_last(before)}

    return _with_last(federation.run(replace(phase, figures=earlier), start))


def _with_last(saved: Saved) -> Curve:
    if not saved.round:
        return []
    return [*saved.figures["curve"], {name: saved.metrics[name] for name in ("ra", "fa")}]
