"""Groups: a pre-training of its own, after FedSGT's idea of modules trained by groups of clients in sequence.

The clients fall into groups. A chain of models is kept, each trained a little further by one more group; to forget a
client, the chain is cut before its group and the model there goes on with the retained clients of the later groups.
"""

from dataclasses import replace

from fused_ray.api import (
    Arrays,
    Federation,
    FullTraining,
    Method,
    ModelEvaluation,
    Phase,
    Saved,
    Section,
    Unlearned,
    finetune,
    flatten,
    initial,
)


class Groups(Section):
    groups: int = 4
    """Into how many groups the clients fall, by their numbers."""
    rounds: int = 4
    """Rounds of each group."""


def unlearn(federation: Federation, base: Arrays) -> Unlearned:
    config, options = federation.config, federation.config.method_options
    everybody, targets = federation.scenario.clients("held"), {*federation.scenario.clients("forgotten")}
    groups = [everybody[at :: options.groups] for at in range(options.groups)]
    clean = next(at for at, group in enumerate(groups) if targets.intersection(group))
    start = flatten(initial(federation, "pretrain"))

    def chain(count: int) -> Saved:
        phase = Phase(
            name="groups",
            rounds=count * options.rounds,
            clients=lambda number: groups[(number - 1) // options.rounds],
            work=lambda number: FullTraining("groups", number, config.seed, config.train, "held"),
            evaluation=ModelEvaluation(),
        )
        return federation.run(phase, start) if count else Saved(round=0, payload=start, metrics={})

    cut, whole = chain(clean), chain(len(groups))
    stored = len(groups) * start.values.nbytes  # a model after each group
    return replace(finetune(federation, cut.payload, base, stored), before=whole.metrics)


def phases(settings: object) -> dict[str, int]:
    options = settings.method_options
    return {"groups": options.groups * options.rounds, "unlearn": settings.unlearn.rounds}


METHOD = Method(unlearn, ("client", "exclusive"), phases=phases, section=Groups)
