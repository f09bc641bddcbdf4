"""The earlier run that `pretrain.from` names: that its model is the one which this run's configuration describes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fused_ray.config import RunConfig, keys
from fused_ray.errors import ConfigError, NumericsError, RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.types import Identity


def earlier_run(config: RunConfig) -> Path | None:
    """The run directory that `pretrain.from` names; None if it names none."""
    source = None if config.pretrain.from_ is None else Path(config.pretrain.from_)
    return source if source is not None and source.is_dir() else None


def check_earlier(config: RunConfig) -> list[str]:
    """Whether the earlier run's model is the one that this configuration describes; what is to be said of it.

    Raises RunDirectoryError if there is no model yet, and ConfigError naming the fields that would make another one. Of
    `train` another value is allowed and told, for unlearning reads it too, unless the method goes back over
    pre-training.
    """
    source = earlier_run(config)
    if source is None:
        return []
    directory = RunDirectory.open(source)
    if not (source / "base.safetensors").exists():
        raise RunDirectoryError(f"pretrain.from: {source} has not finished pre-training; continue it first")
    made_with = directory.result["pretrain_key"] if directory.finished else None
    if made_with == config.pretrain_key():
        return []
    earlier = directory.config
    other = _differences(earlier, config)
    if not other:
        if made_with is None or not set(earlier.inputs) - {"pretrain.from"}:
            return []  # another version of this program may make other keys
        raise ConfigError(
            f"pretrain.from: what the model of {source} was trained on is not what its data and model sections name now"
        )
    told = ", ".join(f"{field} ({was} there, {now} here)" for field, (was, now) in other.items())
    method = config.unlearn.method
    goes_back = config.method.needs_history
    if all(field.startswith("train.") for field in other):
        if not goes_back:
            return [f"the model of {source} was trained with other settings: {told}"]
        raise ConfigError(
            f"pretrain.from: {method} goes back over pre-training, and cannot change {told}; leave them out to take "
            "them over"
        )
    raise ConfigError(
        f"pretrain.from: the model of {source} is another one: {told}; leave these out to take them over, "
        + ("set forget.poison=false, " if told.endswith("with poison here)") else "")
        + "or leave out pretrain.from to train anew"
    )


def failures_of_model(config: RunConfig) -> int:
    """How often a client had failed and was left out when the earlier run's model was made; 0 without one."""
    source = earlier_run(config)
    if source is None:
        return 0
    directory = RunDirectory.open(source, older=True)
    if directory.finished:  # of an earlier version, that left nobody out
        return int(directory.result.get("failures_of_model", 0))
    rounds = directory.table("rounds").to_pylist()
    return left_out(directory.config, (row for row in rounds if row["phase"] == "pretrain"))


def left_out(config: RunConfig, rounds: Iterable[Mapping[str, Any]]) -> int:
    """How often a client failed and was left out, by rows of rounds.parquet; late in a deployment is no failure."""
    if config.deployment.decides:
        return 0
    return sum(row["clients_expected"] - row["clients_used"] for row in rounds)


def made_elsewhere(config: RunConfig, identities: Sequence[Identity]) -> list[str]:
    """Says so where the earlier run's workers compute other bits than this one's, on another kind of device, say.

    Raises NumericsError if `engine.numerics` is strict.
    """
    source = earlier_run(config)
    directory = RunDirectory.open(source) if source is not None else None
    if directory is None or not directory.finished:
        return []
    known = set(directory.result["numerics"]["fingerprints"])
    if known == {identity.fingerprint for identity in identities}:
        return []
    text = f"the model of {source} was made by workers whose floating point gives other bits than this run's"
    if config.engine.numerics == "strict":
        raise NumericsError(f"pretrain.from: {text}; use the same kind of machine, or engine.numerics=report")
    return [f"{text}: pre-training here would give another model"]


def _differences(earlier: RunConfig, config: RunConfig) -> dict[str, tuple[str, str]]:
    """What pre-training reads and finds different, by field, as it was and as it is; files differ by their content."""
    was, now = keys.read_by_pretraining(earlier), keys.read_by_pretraining(config)
    other = [field for field in dict.fromkeys([*was, *now]) if was.get(field) != now.get(field)]
    if "forget.scenario" in other:  # its other fields mean something else, or nothing
        other = [field for field in other if not field.startswith("forget.")] + ["forget.scenario"]
    return {field: (_shown(earlier, field, was), _shown(config, field, now)) for field in other}


def _shown(config: RunConfig, field: str, read: Mapping[str, Any]) -> str:
    if field == "forget.scenario":
        poisoned = " with poison" if read.get("forget.poison") else ""
        return f"{config.forget.scenario}{poisoned}"
    value = config.inputs.get(field, read.get(field))
    return "unset" if value is None else value if isinstance(value, str) else json.dumps(value)
