"""Critical layer identification: which layers move most when clients train (FUSED, arXiv 2502.20709, section 3.2).

A layer is a module that owns a weight; its bias belongs to it. An attention's queries, keys and values are one layer,
its output projection another. Normalisation layers are left out. For every layer l,
`Diff_l = sum_k (n_k / n) * ||p_l^k - p_l||_1` over all clients k. Its size depends on the layer's, so three
readings are always reported: `sum` (Diff_l), `mean` (Diff_l / entries) and `relative` (Diff_l / ||p_l||_1).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fused_ray.config.parts.adapters import SELECTION
from fused_ray.config.parts.door import chosen
from fused_ray.errors import ConfigError
from fused_ray.seeding import permutation
from fused_ray.types import ClientReport

Ranking = Literal["mean", "sum", "relative"]


@dataclass(frozen=True)
class Sensitivity:
    """One layer's sensitivity in the three readings."""

    layer: str
    mean: float
    sum: float
    relative: float


def layer_parameters(state: Iterable[str], layer: str) -> list[str]:
    """The names in a state of the layer's parameters: its weight, then its bias if it has one.

    nn.MultiheadAttention calls those of its queries, keys and values in_proj_weight and in_proj_bias.
    """
    names, kinds = set(state), ("weight", "in_proj_weight", "bias", "in_proj_bias")
    return [name for kind in kinds if (name := f"{layer}.{kind}") in names]


def layer_vector(state: Mapping[str, NDArray[np.generic]], layer: str) -> NDArray[np.float32]:
    """The layer's entries in one float32 vector: weight, then bias, each in logical order."""
    parts = [np.asarray(state[name]).ravel() for name in layer_parameters(state, layer)]
    return np.concatenate(parts).astype(np.float32, copy=False)


def distances(
    after: Mapping[str, NDArray[np.generic]], before: Mapping[str, NDArray[np.generic]], layers: Sequence[str]
) -> tuple[float, ...]:
    """Layer after layer ||after - before||_1, then ||before||_1, in float64."""
    result = []
    for layer in layers:
        old = layer_vector(before, layer).astype(np.float64)
        new = layer_vector(after, layer).astype(np.float64)
        result += [float(np.abs(new - old).sum()), float(np.abs(old).sum())]
    return tuple(result)


def sensitivities(
    reports: Sequence[ClientReport], layers: Sequence[str], entries: Mapping[str, int]
) -> list[Sensitivity]:
    """Diff_l of every layer from the clients' distances, weighted by their examples, summed in client order."""
    ordered = sorted(reports, key=lambda report: report.client)
    total = sum(report.examples for report in ordered)
    result = []
    for index, layer in enumerate(layers):
        diff = sum(report.examples * report.figures[2 * index] for report in ordered) / total
        size = ordered[0].figures[2 * index + 1]
        result.append(Sensitivity(layer, diff / entries[layer], diff, diff / size if size else 0.0))
    return result


def rank(measured: Sequence[Sensitivity], by: Ranking, input_layer: str | None) -> list[Sensitivity]:
    """Most sensitive first; `input_layer`, if given, is no candidate and comes last. Ties keep the model's order."""
    return sorted(measured, key=lambda item: (item.layer == input_layer, -float(getattr(item, by))))


def allocate(budget: int, measured: Sequence[Sensitivity], by: Ranking, entries: Mapping[str, int]) -> dict[str, int]:
    """One budget of values over several layers, by sensitivity: how many each gets, by layer.

    A layer's share is its reading times its entries, so its density follows its reading; none gets more than it has
    entries, and what is left over goes to the others. Shares are rounded by largest remainder, ties to the earlier
    layer, so that the total is the budget exactly, or all entries if these are fewer.
    """
    sizes = [entries[item.layer] for item in measured]
    weights = [Fraction(getattr(item, by)) * size for item, size in zip(measured, sizes, strict=True)]  # exact
    open_, left = list(range(len(measured))), min(budget, sum(sizes))
    counts = [0] * len(measured)
    while True:
        total = sum(weights[i] for i in open_)
        # layers that did not move at all share what the others cannot take
        parts = weights if total else [Fraction(size) for size in sizes]
        whole = sum(parts[i] for i in open_)
        shares = {i: left * parts[i] / whole for i in open_}
        full = [i for i in open_ if shares[i] >= sizes[i]]
        if not full:
            break
        for i in full:
            counts[i] = sizes[i]
        left -= sum(sizes[i] for i in full)
        open_ = [i for i in open_ if i not in full]
    for i in open_:
        counts[i] = int(shares[i])
    remainders = sorted(open_, key=lambda i: (counts[i] - shares[i], i))
    for i in remainders[: left - sum(counts[i] for i in open_)]:
        counts[i] += 1
    return {item.layer: count for item, count in zip(measured, counts, strict=True)}


@dataclass(frozen=True)
class Candidates:
    """The layers that a selection puts in order."""

    names: Sequence[str]
    """In the model's order."""
    ranking: Sequence[Sensitivity]
    """The most sensitive first; empty where the selection does not need it."""
    seed: int
    draw: int
    """Which of the seed's draws is wanted."""


def choose(
    selection: str,
    names: Sequence[str],
    count: int,
    ranking: Sequence[Sensitivity],
    input_layer: str | None,
    seed: int,
    draw: int,
    never: Collection[str] = (),
    args: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """The `count` layers that the selection of that name wants most, in the model's order.

    `input_layer`, if given, is taken only when all the others are, and none of `never`. Raises ConfigError where the
    selection, which may be another package's, names a layer that there is not.
    """
    part, settings = chosen(SELECTION, selection, args, "selection_args")
    known = ranking if part.ranks else ()
    wanted = part.function(Candidates(names, known, seed, draw), settings)
    if not isinstance(wanted, Sequence):
        raise ConfigError(f"unlearn.selection: {selection} gave {type(wanted).__name__}, not the names of layers")
    ordered = list(dict.fromkeys(wanted))
    unknown = sorted({*ordered} - {*names})
    if unknown or len(ordered) < min(count, len(names)):
        what = (
            f"{', '.join(map(repr, unknown))}, of {', '.join(names)}"
            if unknown
            else f"{len(ordered)} layers of {count}"
        )
        raise ConfigError(f"unlearn.selection: {selection} names {what}")
    ordered = sorted((name for name in ordered if name not in never), key=lambda name: name == input_layer)
    taken = set(ordered[:count])
    return [name for name in names if name in taken]


def critical(candidates: Candidates, settings: None) -> list[str]:
    """The most sensitive first (FUSED, section 3.2)."""
    return [item.layer for item in candidates.ranking]


def last(candidates: Candidates, settings: None) -> list[str]:
    """Those nearest the output first."""
    return list(reversed(candidates.names))


def at_random(candidates: Candidates, settings: None) -> list[str]:
    """In an order that depends on (seed, draw) alone."""
    order = permutation(len(candidates.names), candidates.seed, f"layers/{candidates.draw}")
    return [candidates.names[i] for i in order]


def density_count(density: float, entries: int) -> int:
    """How many of a layer's entries a mask of this density keeps: the nearest whole number, at least 1."""
    return max(1, math.floor(density * entries + 0.5))
