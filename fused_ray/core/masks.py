"""The sparse adapter of a run: entries chosen by the configured mask rule, set by the configured start."""

from __future__ import annotations

from fused_ray.core import adapter, saliency, wire
from fused_ray.core.adapter import Masks
from fused_ray.core.making import Made, Making
from fused_ray.core.model_check import check_reset


def sparse(making: Making, settings: None) -> Made:
    """Single entries of the layers. Raises ConfigError where the start would set to zero what cannot learn again."""
    federation, config = making.federation, making.federation.config
    rule, given = config.mask_part
    masks: Masks = rule.function(making, given)
    input_layer = federation.anatomy.layers[0]
    whole = [m.layer for m in masks.layers if len(m.positions) == m.entries and m.layer != input_layer]
    check_reset(config, federation.data.shape, federation.data.classes, whole)
    start, args = config.adapter_start, config.unlearn.start_args
    values = adapter.start_values(masks, making.base, start, input_layer, args)
    return Made(masks, values, wire.mask_bytes(masks) if rule.told else 0)


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
