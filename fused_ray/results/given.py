"""A model to unlearn from that was trained before: an earlier run's, or the user's own safetensors file."""

from __future__ import annotations

from pathlib import Path

from fused_ray import models
from fused_ray.config import RunConfig
from fused_ray.core.pretrained import fitted
from fused_ray.core.state import Arrays, arrays
from fused_ray.errors import RunDirectoryError
from fused_ray.results.directory import RunDirectory
from fused_ray.results.files import encode_state, read_state
from fused_ray.types import ImageData


def earlier_run(config: RunConfig) -> Path | None:
    """The run directory that `pretrain.from` names; None if it names none."""
    source = None if config.pretrain.from_ is None else Path(config.pretrain.from_).expanduser()
    return source if source is not None and source.is_dir() else None


def given_model(directory: RunDirectory, config: RunConfig, data: ImageData) -> tuple[Arrays, str, list[str]]:
    """M_r of `pretrain.from`, kept in this run's directory; where it comes from; and warnings.

    Raises RunDirectoryError if it is missing, unreadable, or not of this run's model.
    """
    source = Path(str(config.pretrain.from_)).expanduser()
    own = directory.path / "base.safetensors"
    warnings: list[str] = []
    if source.is_dir():
        earlier = RunDirectory.open(source)
        file = source / "base.safetensors"
        if not file.exists():
            raise RunDirectoryError(f"pretrain.from: {source} has not finished pre-training; continue it first")
        if earlier.config.pretrain_key() != config.pretrain_key():
            warnings.append(f"the model of {source} was pre-trained on other data or settings than this run's")
    else:
        file = source
    # a run that goes on uses its own copy: the source may have gone
    state = read_state(own if own.exists() else file)
    channels, height, width = data.train_images.shape[1:]
    like = arrays(models.build(config.model, (channels, height, width), data.classes))
    try:
        given = fitted(state, like, str(file), config.model.label)
    except ValueError as error:
        raise RunDirectoryError(f"pretrain.from: {error}") from None
    directory.write("base.safetensors", encode_state(given))
    return given, str(source.absolute()), warnings
