"""What can only be checked with the model at hand: that it can be built, what its layers are, that its weights fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fused_ray import models
from fused_ray.config import RunConfig, consistency
from fused_ray.config.parts.adapters import START
from fused_ray.core import pretrained, state
from fused_ray.core.layers import density_count
from fused_ray.core.server import check_memory
from fused_ray.core.standard import standard
from fused_ray.errors import ConfigError
from fused_ray.models.anatomy import Anatomy, anatomy, gated


@standard()  # on its probe of a few rows, threads would only wait for each other
def check_model(config: RunConfig, shape: Sequence[int], classes: int) -> Anatomy:
    """Build the configured model for inputs of a shape, of images (channels, height, width), and look at it.

    Raises ConfigError in one line: no such factory, nothing usable from it, layers that it lacks, weights that do not
    fit.
    """
    known = anatomy(config.model, shape, classes)
    check_memory(config, known.parameters, _looked_at(config, known, classes))
    try:
        stuck = never_reset(config, shape, classes, known)
        consistency.check_layers(config, known.layers, known.ranked, known.barred(config.model.label), stuck)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    check_reset(config, shape, classes, _covered(config, known))
    if config.model.weights is not None:
        like = state.arrays(models.build(config.model, tuple(shape), classes))
        pretrained.read(Path(config.model.weights), like, config.model.label)
    return known


def _looked_at(config: RunConfig, model: Anatomy, classes: int) -> int | None:
    """Values of a message that the method's server looks at singly; None where that is a whole model."""
    message = config.method.message
    return message and message(model.entries[-1] // classes - 1, classes)


def never_reset(config: RunConfig, shape: Sequence[int], classes: int, model: Anatomy) -> Sequence[str]:
    """The layers that the configured start would set wholly to zero, from where no gradient would move them."""
    if not consistency.resets_whole_layers(config):
        return ()
    return _gated(config, shape, classes, consistency.resettable(config, model.layers, model.ranked))


def check_reset(config: RunConfig, shape: Sequence[int], classes: int, whole: Sequence[str]) -> None:
    """Raise ConfigError if a mask that covers these layers wholly, reset to zero, could not be learned from again."""
    start = config.unlearn.start
    if start is None or not START.find(start).zeroes or not whole:
        return
    stuck = whole if len(whole) > 1 else _gated(config, shape, classes, whole)
    if stuck:
        by = "unlearn.sparsity" if config.unlearn.budget is None else "unlearn.budget"
        raise ConfigError(
            f"unlearn.start: {start} with this {by} would set {' and '.join(stuck)} wholly to zero, where no gradient "
            f"reaches {'it' if len(stuck) == 1 else 'them'}; use the output layer alone, a smaller unlearn.budget or a "
            "larger unlearn.sparsity"
        )


def _gated(config: RunConfig, shape: Sequence[int], classes: int, layers: Sequence[str]) -> Sequence[str]:
    """Those of the layers that no gradient reaches once they are zero."""
    known = config.model.known
    if known is not None:
        return [name for name in layers if name in known.gated]
    with standard():
        return gated(config.model, shape, classes, layers)


def _covered(config: RunConfig, model: Anatomy) -> list[str]:
    """The layers but the first that masks are bound to cover wholly, as far as that can be told before any ranking."""
    unlearn, input_layer = config.unlearn, model.layers[0]
    entries = dict(zip(model.layers, model.entries, strict=True))
    if not config.masked:
        return []
    if not isinstance(unlearn.layers, int):
        names = list(unlearn.layers)
    elif unlearn.selection_part[0].shares:
        names = [name for name in model.ranked if unlearn.input_layer or name != input_layer]
    else:
        return []
    if unlearn.budget is not None:
        whole = names if unlearn.budget >= sum(entries[name] for name in names) else []
    else:
        whole = [name for name in names if density_count(config.adapter_density, entries[name]) == entries[name]]
    return [name for name in whole if name != input_layer]
