"""Groups: a pre-training of its own, after FedSGT's idea of modules trained by groups of clients in sequence.

The clients fall into groups. A chain of models is kept, each trained a little further by one more group; to forget a
client, the chain is cut before its group and the model there goes on with the retained clients of the later groups.
"""

from collections.abc import Sequence
from dataclasses import replace

from fused_ray.api import (
    Arrays,
    Federation,
    FullTraining,
    Method,
    ModelEvaluation,
    Payload,
    Phase,
    Saved,
    Section,
    Unlearned,
    fedavg,
    flatten,
    initial,
    whole_model,
)  # fmt: skip


class Groups(Section):
    groups: int = 4
    """Into how many groups the clients fall, by their numbers."""
    rounds: int = 4
    """Rounds of each group."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    config, options = federation.config, federation.config.method_options
    everybody = federation.scenario.clients("held")
    groups = [everybody[at :: options.groups] for at in range(options.groups)]
    targets = set(federation.scenario.clients("forgotten"))
    clean = next(at for at, group in enumerate(groups) if targets.intersection(group))
    start = flatten(initial(federation, "pretrain"))

    def turn(number: int) -> Sequence[int]:
        return groups[(number - 1) // options.rounds]

    def chain(rounds: int) -> Saved:
        return federation.run(
            Phase(
                name="groups",
                rounds=rounds,
                clients=turn,
                work=lambda number: FullTraining("groups", number, config.seed, config.train, "held"),
                evaluation=ModelEvaluation(),
            ),
            start,
        )

    cut = chain(clean * options.rounds) if clean else Saved(round=0, payload=start, metrics={})
    at_cut = cut.payload
    whole = chain(len(groups) * options.rounds)
    end = fedavg(federation, at_cut, "unlearn", "retained", config.unlearn.rounds)
    before = federation.evaluate(ModelEvaluation(), at_cut)
    unlearned = whole_model(end.payload, base, end.metrics or before, before, _stored(len(groups), at_cut))
    return replace(unlearned, before=whole.metrics)


def _stored(groups: int, model: Payload) -> int:
    """A model after each group, bytes."""
    return groups * model.values.nbytes


METHOD = Method(
    unlearn,
    ("client", "exclusive"),
    phases=lambda settings: {
        "groups": settings.method_options.groups * settings.method_options.rounds,
        "unlearn": settings.unlearn.rounds,
    },
    section=Groups,
)
