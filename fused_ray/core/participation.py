"""Who takes part in a round, where not everybody does: clients drawn from those that could.

Drawn from (seed, phase, round) alone, without repeats, so that nothing depends on where clients are computed or on what
came before. `uniform`: each as likely as any other. `weighted`: by their examples, one draw after the other among those
that are left (Efraimidis and Spirakis 2006: the largest u ** (1 / n_k), u uniform).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import cache
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


def participants(
    candidates: Sequence[int],
    examples: Callable[[int], int],
    participation: float,
    sampling: Sampling,
    seed: int,
    phase: str,
    always: Collection[int] = (),
) -> Who:
    """Who of the candidates takes part in the rounds of a phase.

    `examples` says how many a candidate has. Those of `always` are in every round; the others are drawn.
    """
    fixed = set(always)
    others = [client for client in candidates if client not in fixed]
    if participation == 1 or not others:
        return list(candidates)
    sizes = np.array([examples(client) for client in others], np.int64)
    number = count(participation, len(others))

    @cache
    def who(round: int) -> Sequence[int]:
        chosen = drawn(sizes, number, sampling, seed, f"participation/{phase}", round)
        return sorted([*always, *(others[i] for i in chosen)])

    return who
