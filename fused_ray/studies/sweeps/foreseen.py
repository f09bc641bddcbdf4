"""Which layers a trial will adapt, as far as that can be known before it runs.

Named, last and drawn layers are known. Those that a ranking chooses are known once the shared model is there, which
was ranked; before that, three choices stand for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fused_ray.config import RunConfig, consistency
from fused_ray.core import layers
from fused_ray.core.layers import Sensitivity
from fused_ray.runs.faults import naming_parts

_QUANTILES = (1 / 6, 1 / 2, 5 / 6)
"""Of the lowest layer, if any K layers are as likely as any others."""


@dataclass(frozen=True)
class Foreseen:
    """The layers of a trial."""

    choices: tuple[tuple[str, ...], ...]
    """All as likely; one if the layers are known."""
    below: tuple[str, ...]
    """The layers below the lowest one: the frozen prefix, at the most where the layers are not known."""

    @property
    def known(self) -> bool:
        """Whether there is no doubt."""
        return len(self.choices) == 1


def foresee(config: RunConfig, ranking: Sequence[Sensitivity] = ()) -> Foreseen | None:
    """What a run will train, by the ranking of its shared model if there is one; None if its model is not known yet."""
    model, unlearn = config.model.known, config.unlearn
    if unlearn.method != "fused":
        return Foreseen((model.layers,), ()) if model else None
    if not isinstance(unlearn.layers, int):
        return Foreseen((unlearn.layers,), _below(model.layers, unlearn.layers) if model else ())
    if model is None:
        return None
    names = list(model.ranked)
    closed = None if unlearn.input_layer else model.layers[0]
    never = set(consistency.resettable(config, model.layers, names)) & set(model.gated)
    never = never if consistency.resets_whole_layers(config) else set()  # a whole layer of zeros would never learn
    open_ = [name for name in names if name != closed and name not in never]
    selection, _ = unlearn.selection_part
    if selection.shares:
        choices = [tuple(open_)]
    elif not selection.ranks or ranking or unlearn.layers >= len(open_):
        ordered = layers.rank(ranking or [Sensitivity(name, 0.0, 0.0, 0.0) for name in names], unlearn.ranking, closed)
        with naming_parts(config):
            chosen = layers.choose(
                *(unlearn.selection, names, unlearn.layers, ordered, closed, config.seed, unlearn.draw, never),
                args=unlearn.selection_args,
            )
        choices = [tuple(chosen)]
    else:
        choices = [_from(open_, unlearn.layers, share) for share in _QUANTILES]
        return Foreseen(tuple(choices), _below(model.layers, open_[-unlearn.layers :]))
    return Foreseen(tuple(choices), _below(model.layers, choices[0]))


def _below(names: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[: min(map(names.index, chosen))])


def _from(names: Sequence[str], count: int, share: float) -> tuple[str, ...]:
    """`count` of the layers, the lowest of them where it is lower in that share of all ways to choose them."""
    ways = math.comb(len(names), count)
    below = 0
    for index in range(len(names) - count + 1):
        below += math.comb(len(names) - 1 - index, count - 1)  # the lowest is this one
        if below >= share * ways:
            break
    return (names[index], *names[len(names) - count + 1 :])
