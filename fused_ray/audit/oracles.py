"""Training and forgetting once more, for audits that ask how models come out that might have been: SWAP, KLoM, RULI.

Each such training is an ordinary one by the run's own method, on whatever pool there is. Only what its models answer is
kept: a few arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fused_ray.audit.klom import SETS, Klom, by_set, margins
from fused_ray.audit.membership import Sample, answers, draw
from fused_ray.audit.ruli import Ruli, canaries, request, roles, ruli, scores
from fused_ray.audit.swap import Answers, Swap, swap, swapped
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import AuditConfig, RunConfig
from fused_ray.core import methods
from fused_ray.core.methods import fedavg
from fused_ray.core.rounds import Federation
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays, flatten, unflatten
from fused_ray.core.workspace import Workspace
from fused_ray.errors import DataError
from fused_ray.seeding import derive
from fused_ray.types import ImageData, Payload, Scenario

Kept = Mapping[str, Arrays]
"""What was kept of each training, by its name."""


@dataclass(frozen=True)
class Anew:
    """A training and forgetting to come."""

    name: str
    config: RunConfig
    """The run's own with another seed, so that models and batches are others."""
    data: ImageData
    scenario: Scenario
    answers: Callable[[Payload], Arrays]
    """What is kept of a model."""
    retrains: bool = False
    """Whether a model is retrained without the forgotten data as well."""


def planned(space: Workspace) -> Iterator[Anew]:
    """All trainings that the configuration's audit asks for. Raises DataError where the data do not allow one."""
    config, data, scenario, seed = space.config, space.data, space.scenario, space.config.seed
    settings = config.audit

    def other(name: str) -> RunConfig:
        return config.model_copy(update={"seed": derive(seed, f"oracle/{name}")})

    for number in range(1, settings.swap + 1):
        sample, name = draw(space, number), f"swap-{number}"
        if len(sample.members) < 2:
            raise DataError(
                "audit.swap: an attack found on half of the pairs is tried on the others, and there is one pair; "
                "forget more examples"
            )

        def of_pairs(payload: Payload, sample: Sample = sample) -> Arrays:
            return {"answers": answers(space, payload, sample)}

        yield Anew(name, other(name), swapped(data, sample), scenario, of_pairs)
    for number in range(1, settings.klom + 1):
        name = f"klom-{number}"
        yield Anew(name, other(name), data, scenario, lambda payload: {**margins(space, payload)}, retrains=True)
    if settings.ruli:
        chosen = canaries(data, scenario, seed)
        for number, role in enumerate(roles(len(chosen.indices), settings.ruli, seed), 1):
            name = f"ruli-{number}"
            asked = request(scenario, chosen, role)
            yield Anew(name, other(name), data, asked, lambda payload: {"scores": scores(space, payload, chosen)})


@standard()
def train(federation: Federation, anew: Anew) -> Arrays:
    """Train, forget, retrain if asked, and keep what the models answer, by `before`, `after`, `retrained`.

    The federation's pool holds the training's own clients and data. Raises what training and the method raise.
    """
    start = fedavg.initial(federation, "pretrain")
    base = unflatten(fedavg.pretrain(federation, flatten(start)).payload, start)
    federation.pool.install(flatten(base))
    found = {"before": flatten(base), "after": flatten(methods.unlearn(federation, base).state)}
    if anew.retrains:
        name, config = "retrain-2", federation.config  # the method may have a phase `retrain` of its own
        rounds = config.retrain_rounds or config.pretrain.rounds
        fresh = flatten(fedavg.initial(federation, name))
        found["retrained"] = fedavg.fedavg(federation, fresh, name, "retained", rounds).payload
    return {
        f"{kind}.{name}": np.ascontiguousarray(array)  # safetensors would write a column's memory, not its values
        for kind, model in found.items()
        for name, array in anew.answers(model).items()
    }


@dataclass(frozen=True)
class Found:
    """What the audits came to; None for those that were not asked for."""

    swap: Swap | None = None
    klom: Mapping[str, Klom] | None = None
    ruli: Ruli | None = None


def concluded(yardstick: Yardstick, after: Arrays, settings: AuditConfig, kept: Kept) -> Found:
    """The audits' figures of the model `after`, from what was kept of the trainings."""
    return Found(
        swap=_swap(yardstick, after, [kept[f"swap-{number + 1}"] for number in range(settings.swap)]),
        klom=_klom(yardstick, after, [kept[f"klom-{number + 1}"] for number in range(settings.klom)]),
        ruli=_ruli(yardstick.space, [kept[f"ruli-{number + 1}"] for number in range(settings.ruli)]),
    )


def figures(found: Found) -> dict[str, float]:
    """The figures for tables, by name."""
    of_swap, of_ruli = found.swap, found.ruli
    return {
        **({} if of_swap is None else _named("swap", of_swap, ("after", "before", "retrained"))),
        **{
            name: value
            for part, of_klom in (found.klom or {}).items()
            for name, value in _named(f"klom_{part}", of_klom, ("mean", "mean_floor", "mean_before")).items()
        },
        **({} if found.klom is None else _named("klom_forget", found.klom["forget"], ("after", "floor", "before"))),
        **({} if of_ruli is None else _named("ruli", of_ruli, ("privacy", "efficacy", "before", "floor", "spread"))),
    }


def _named(prefix: str, found: Any, fields: Sequence[str]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name in fields if (value := getattr(found, name)) is not None}


MEANINGS = {
    "swap_after": "advantage of an attacker who asks which of two like examples was forgotten; 0 is none",
    "swap_before": "the same where nothing is done to forget",
    "swap_retrained": "the same by chance, between two retrained models",
    **{
        f"klom_{name}_{kind}": f"divergence of margins on {of} from retrained models', nats, mean over examples{what}"
        for name, of in (("forget", "what is forgotten"), ("retain", "what stays"), ("test", "the test set"))
        for kind, what in (
            ("mean", ""), ("mean_floor", ": of half of them from the rest"), ("mean_before", ": where nothing is done")
        )
    },
    "klom_forget_after": "the same on what is forgotten, 95th percentile over examples",
    "klom_forget_floor": "the same, of half of the retrained models from the others",
    "klom_forget_before": "the same, where nothing is done",
    "ruli_privacy": "AUC of telling forgotten canaries from ones that were never there; .5 is guessing",
    "ruli_efficacy": "AUC of telling forgotten canaries from ones as a retrained model has them; .5 is guessing",
    "ruli_before": "the same where nothing is done to forget; near .5 the attack can find nothing",
    "ruli_floor": "the same among canaries that were never there: chance",
    "ruli_spread": "standard deviation of that over draws",
}  # fmt: skip
"""What each of these figures is."""


def _swap(yardstick: Yardstick, after: Arrays, kept: Sequence[Arrays]) -> Swap | None:
    if not kept:
        return None
    space = yardstick.space
    samples = [draw(space, number) for number in range(1, len(kept) + 1)]

    def against(model: Arrays, others: Sequence[Any]) -> list[Answers]:
        found = [answers(space, flatten(model), sample) for sample in samples]
        return [Answers(one, other) for one, other in zip(found, others, strict=True)]

    retrained: list[Answers] = []
    if yardstick.retrained is not None and yardstick.others:
        second = flatten(yardstick.others[0])
        retrained = against(yardstick.retrained, [answers(space, second, sample) for sample in samples])
    return swap(
        against(after, [each["after.answers"] for each in kept]),
        against(yardstick.before, [each["before.answers"] for each in kept]),
        retrained,
        space.config.seed,
    )


def _klom(yardstick: Yardstick, after: Arrays, kept: Sequence[Arrays]) -> Mapping[str, Klom] | None:
    if not kept:
        return None
    models = {
        kind: [{name: np.asarray(each[f"{kind}.{name}"], np.float64) for name in SETS} for each in kept]
        for kind in ("after", "retrained", "before")
    }
    if yardstick.retrained is not None:  # the run's own training is one more like the others
        own = {"after": after, "retrained": yardstick.retrained, "before": yardstick.before}
        for kind, model in own.items():
            models[kind].append(margins(yardstick.space, flatten(model)))
    return by_set(models)


def _ruli(space: Workspace, kept: Sequence[Arrays]) -> Ruli | None:
    if not kept:
        return None
    before, after = (
        np.stack([np.asarray(e[f"{kind}.scores"], np.float64) for e in kept]) for kind in ("before", "after")
    )
    return ruli(before, after, roles(before.shape[1], len(kept), space.config.seed), space.config.seed)
