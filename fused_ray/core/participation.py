"""Who takes part in a round, where not everybody does: clients drawn from those that could.

Drawn from (seed, phase, round) alone, without repeats, so that nothing depends on where clients are computed or on what
came before. `uniform`: each as likely as any other. `weighted`: by their examples, one draw after the other among those
that are left (Efraimidis and Spirakis 2006: the largest u ** (1 / n_k), u uniform).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fused_ray.seeding import bits, permutation
from fused_ray.types import IntVector

Sampling = Literal["uniform", "weighted"]
Who = Sequence[int] | Callable[[int], Sequence[int]]
"""The clients of a phase, ascending: the same in every round, or by the round's number (from 1)."""


def of_round(who: Who, round: int) -> Sequence[int]:
    """Who takes part in a round."""
    return who(round) if callable(who) else who


def count(participation: float, candidates: int) -> int:
    """How many candidates take part: of a share (up to 1) the nearest whole number, at least 1; else as it says."""
    wanted = math.floor(participation * candidates + 0.5) if participation <= 1 else int(participation)
    return min(max(1, wanted), candidates)


def drawn(examples: IntVector, number: int, sampling: Sampling, seed: int, purpose: str, round: int) -> IntVector:
    """Ascending positions [number] among candidates with so many examples each [candidates]."""
    if sampling == "uniform":
        return np.sort(permutation(len(examples), seed, purpose, round)[:number])
    u = ((bits(len(examples), seed, purpose, round) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.sort(np.argsort(-np.log(u) / examples, kind="stable")[:number])


@dataclass(frozen=True, eq=False)
class Draw:
    """Who takes part in the rounds of a phase: some, in every round; of the others, some that are drawn anew."""

    always: Sequence[int]
    others: Sequence[int]
    """Ascending."""
    sizes: IntVector
    """Examples of each of the others."""
    participation: float
    sampling: Sampling
    seed: int
    phase: str
    _known: dict[int, Sequence[int]] = field(default_factory=dict, init=False)

    def __call__(self, round: int) -> Sequence[int]:
        """Who takes part in a round where everybody is there, ascending."""
        if round not in self._known:
            number = count(self.participation, len(self.others))
            self._known[round] = sorted([*self.always, *self.asked(round, range(len(self.others)), number)])
        return self._known[round]

    def asked(self, round: int, there: Sequence[int], number: int) -> list[int]:
        """So many of those others that are there, by their positions among all, ascending."""
        places = np.asarray(there, np.int64)
        chosen = drawn(self.sizes[places], number, self.sampling, self.seed, f"participation/{self.phase}", round)
        return [self.others[i] for i in places[chosen]]


def participants(
    candidates: Sequence[int],
    examples: Callable[[int], int],
    participation: float,
    sampling: Sampling,
    seed: int,
    phase: str,
    always: Collection[int] = (),
    absences: bool = False,
) -> Who:
    """Who of the candidates takes part in the rounds of a phase.

    `examples` says how many a candidate has. Those of `always` are in every round; the others are drawn. With
    `absences`, clients may be away or late, so that everybody is a draw as well.
    """
    fixed = set(always)
    others = [client for client in candidates if client not in fixed]
    if not others or (participation == 1 and not absences):
        return list(candidates)
    sizes = np.array([examples(client) for client in others], np.int64)
    return Draw([*always], others, sizes, participation, sampling, seed, phase)
