"""What was made before: a model to unlearn from, an earlier run's or the user's own, and an earlier run's ranking."""

from __future__ import annotations

from pathlib import Path

from fused_ray import models
from fused_ray.config import RunConfig
from fused_ray.config.fields import Constants
from fused_ray.core.pretrained import fitted
from fused_ray.core.state import Arrays, arrays
from fused_ray.errors import RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.earlier import check_earlier, earlier_run
from fused_ray.storage.files import encode_state, read_model
from fused_ray.types import ImageData

RANKING = "checkpoints/rank.safetensors"


def given_model(directory: RunDirectory, config: RunConfig, data: ImageData) -> tuple[Arrays, str, list[str]]:
    """M_r of `pretrain.from`, kept in this run's directory; where it comes from; and warnings.

    Raises RunDirectoryError if it is missing, unreadable, not of this run's model, or trained on images that were
    normalised by another mean and deviation, and what `check_earlier` raises.
    """
    source = Path(str(config.pretrain.from_))
    own = directory.path / "base.safetensors"
    file = source / "base.safetensors" if source.is_dir() else source
    warnings = [] if own.exists() else check_earlier(config)
    told: Constants | None = None
    if source.is_dir():
        earlier = RunDirectory.open(source)
        told = earlier.constants if earlier.finished else None
    # a run that goes on uses its own copy: the source may have gone
    state, saved = read_model(own if own.exists() else file)
    warnings += _check_constants(source, saved or told, (data.mean, data.std))
    like = arrays(models.build(config.model, data.shape, data.classes))
    try:
        given = fitted(state, like, str(file), config.model.label)
    except ValueError as error:
        raise RunDirectoryError(f"pretrain.from: {error}") from None
    directory.write("base.safetensors", encode_state(given, (data.mean, data.std)))
    return given, str(source.absolute()), warnings


def _check_constants(source: Path, trained: Constants | None, ours: Constants) -> list[str]:
    """A warning if nobody knows what the model was trained on. Raises RunDirectoryError if that was something else."""
    now = "data.mean={} and data.std={}".format(*map(list, ours))
    if trained is None:
        return [f"{source} does not say by what its model's images were normalised; {now} are taken to be right"]
    if trained != ours:
        then = "data.mean={} and data.std={}".format(*map(list, trained))
        raise RunDirectoryError(
            f"pretrain.from: the model of {source} was trained on images normalised otherwise than this run's ({now}); "
            f"set {then}"
        )
    return []


def adopt_ranking(directory: RunDirectory, config: RunConfig) -> None:
    """Take the round that ranked the layers over from the earlier run, if it is the one that this run would repeat.

    It depends on what pre-training depends on, on M_r, on who takes part, and on how much data they use. Its seconds
    are those that it took then.
    """
    source, unlearn = earlier_run(config), config.unlearn
    ranks = unlearn.method == "fused" and isinstance(unlearn.layers, int) and unlearn.selection_part[0].alone
    own = directory.path / RANKING
    if source is None or not ranks or own.exists() or not (source / RANKING).exists():
        return
    both = RunDirectory.open(source).config, config
    same = [(one.pretrain_key(), one.taking_part("rank"), one.unlearn.retain, one.unlearn.retain_by) for one in both]
    if same[0] != same[1]:
        return
    for table in ("rounds", "clients"):
        for part in (source / f"{table}.parquet").glob("[!._]*-rank-*.parquet"):
            directory.write(f"{table}.parquet/{part.name}", part.read_bytes())
    directory.write(RANKING, (source / RANKING).read_bytes())  # last: it says that the round is complete
