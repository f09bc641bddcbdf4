"""The sparse adapter of a run: entries chosen by the configured mask rule, set by the configured start.

With `unlearn.heal` further entries of the same layers take part. They start at zero, where the model is as it was, and
make up for what the chosen ones cost: what is negated to forget need not bring the rest of the accuracy back as well.
"""

from __future__ import annotations

import math

import numpy as np

from fused_ray.config.parts.adapters import START
from fused_ray.core import adapter, saliency, wire
from fused_ray.core.adapter import Mask, Masks
from fused_ray.core.layers import layer_vector
from fused_ray.core.making import Made, Making
from fused_ray.core.model_check import check_reset
from fused_ray.errors import ConfigError
from fused_ray.seeding import permutation
from fused_ray.types import FloatVector


def sparse(making: Making, settings: None) -> Made:
    """Single entries of the layers. Raises ConfigError where the start would set to zero what cannot learn again."""
    federation, config = making.federation, making.federation.config
    rule, given = config.mask_part
    masks = _fitting(making, rule.function(making, given))
    input_layer = federation.anatomy.layers[0]
    whole = [m.layer for m in masks.layers if len(m.positions) == m.entries and m.layer != input_layer]
    check_reset(config, federation.data.shape, federation.data.classes, whole)
    partly = any(mask.layer == input_layer and len(mask.positions) < mask.entries for mask in masks.layers)
    at_zero = None if config.unlearn.start_input and partly else input_layer  # without it nothing reaches the others
    start, args = config.adapter_start, config.unlearn.start_args
    if config.unlearn.start and START.find(start).moves and {mask.layer for mask in masks.layers} == {at_zero}:
        raise ConfigError(
            f"unlearn.start: a mask of all of the input layer {input_layer} starts at zero, for nothing would reach "
            "the other layers; set unlearn.start=zero, choose fewer of its entries or name other layers"
        )
    values = adapter.start_values(masks, making.base, start, at_zero, args)
    told = wire.mask_bytes(masks) if rule.told and not config.all_heal else 0
    wider, begun = healing(making, masks, values)
    return Made(wider, begun, told, wider.size - (0 if config.all_heal else masks.size))


def healing(making: Making, masks: Masks, values: FloatVector) -> tuple[Masks, FloatVector]:
    """The masks and their values [V], with a share of the layers' other entries, at zero.

    Which ones, the seed says, and so nobody is told.
    """
    config = making.federation.config
    if not (share := config.unlearn.heal):
        return masks, values
    chosen = {mask.layer: mask.positions for mask in masks.layers}
    start = dict(zip(chosen, np.split(values, np.cumsum(masks.sizes)[:-1]), strict=True))
    wider, parts = [], []
    for layer in making.names:
        entries = layer_vector(making.base, layer).size
        full = np.zeros(entries, np.float32)
        taken = np.zeros(entries, bool)
        if layer in chosen:
            full[chosen[layer]], taken[chosen[layer]] = start[layer], True
        others = np.flatnonzero(~taken)
        if share < 1:
            order = permutation(len(others), config.seed, f"heal/{layer}/{entries}/{config.unlearn.draw}")
            others = others[order[: math.floor(share * len(others) + 0.5)]]
        taken[others] = True
        if taken.any():
            wider.append(Mask(layer, entries, np.flatnonzero(taken)))
            parts.append(full[taken])
    return Masks(tuple(wider)), np.concatenate(parts)


def _fitting(making: Making, masks: object) -> Masks:
    """What a mask rule, which may be another package's, gave. Raises ConfigError where it does not fit the layers."""
    rule = f"unlearn.mask: {making.federation.config.adapter_mask}"
    if not isinstance(masks, Masks) or not masks.size:
        raise ConfigError(f"{rule} gave no entries of any layer; a mask rule returns Masks with some")
    for mask in masks.layers:
        entries = layer_vector(making.base, mask.layer).size if mask.layer in making.chosen else 0
        inside = np.asarray(mask.positions)
        if mask.entries != entries or not len(inside) or inside[0] < 0 or inside[-1] >= entries:
            raise ConfigError(f"{rule} gave entries of {mask.layer} that it has not; it has {entries}")
        if (np.diff(inside) <= 0).any():
            raise ConfigError(f"{rule} gave positions in {mask.layer} that do not ascend, or one twice")
    return masks


def at_random(making: Making, settings: None) -> Masks:
    """Entries drawn from the seed: each layer's share of a budget, or that many of all, or what the sparsity leaves."""
    config, names, counts = making.federation.config, making.names, making.counts
    wanted = config.unlearn
    if counts is None and wanted.budget is not None:
        return adapter.random_budget(config.seed, making.base, names, wanted.budget, wanted.draw)
    if counts is not None:
        return adapter.random_counts(config.seed, making.base, counts, wanted.draw)
    return adapter.random_masks(config.seed, making.base, names, config.adapter_density, wanted.draw)


def salient(making: Making, settings: None) -> Masks:
    """Entries whose removal most raises the loss on what must be forgotten (core.saliency)."""
    if making.federation.config.keeps_all:  # whatever the gradients are
        return at_random(making, None)
    return saliency.masks(making.federation, making.base, making.names, making.delivery, making.counts)
