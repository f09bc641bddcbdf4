"""What models depend on, as keys: equal keys give the same model, bit for bit, so that it need not be trained again.

Files count by what is in them, not by where they are. Of a model of the user's own, of another package's parts and of
data behind a URI only the name counts, and a part's settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from fused_ray.config.parts.scenarios import SCENARIOS
from fused_ray.config.sections import DataConfig, FederationConfig, ForgetConfig
from fused_ray.config.settings import Settings
from fused_ray.config.training import TrainConfig

_FIRST = {"lr", "momentum", "weight_decay", "batch_size", "local_epochs"}
_TRAINING = TrainConfig.model_fields.keys() - _FIRST
_SERVER = {"aggregate", "aggregate_args", "server", "server_args"}
"""Fields of training and of the server that came after the first keys."""


def pretrain_key(config: Settings) -> str:
    """SHA-256 over all that pre-training reads, and so M_r depends on."""
    read = _read(config) | {
        "pretrain": config.pretrain.model_dump(mode="json", exclude={"from_", "history", "participation"})
    }
    read |= _participation(config, "pretrain")
    forget = _shaping(config)
    if config.forget.scenario == "exclusive":
        read["forget"] = [forget["classes"], forget["owner"], forget["overlap"]]
    elif config.forget.scenario not in SCENARIOS:
        read["forget"] = forget
    elif forget:
        read["forget"] = [{k: v for k, v in forget.items() if k not in ("poison", "share")}, forget["share"]]
    return _hashed(read)


def read_by_pretraining(config: Settings) -> dict[str, Any]:
    """The same by dotted field."""
    read = _read(config)
    sections = {"data": read["data"], "model": read["model"], "train": config.train.model_dump(mode="json")}
    sections["federation"] = config.federation.model_dump(mode="json", include={"clients", *_SERVER})
    sections["forget"] = _shaping(config)
    fields = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
    rounds: dict[str, Any] = {
        "pretrain.rounds": config.pretrain.rounds,
        "pretrain.participation": config.participation("pretrain"),
    }
    if config.participation("pretrain") != 1:
        rounds["federation.sampling"] = config.federation.sampling
    if config.federation.on_failure == "skip":
        rounds["federation.on_failure"] = "skip"
    rounds |= {f"deployment.{name}": value for name, value in _deployment(config).items() if name != "known"}
    return {"seed": config.seed, **fields, **rounds}


def _shaping(config: Settings) -> dict[str, Any]:
    """What of `forget` shapes what clients hold, or what their data say."""
    forget = config.forget
    if forget.scenario not in SCENARIOS:  # what another package's does to labels is not known
        return {name: value for name, value in _with_settings(forget).items() if name in ("scenario", "args")}
    if forget.scenario == "exclusive":
        told = forget.model_dump(mode="json", include={"scenario", "owner", "overlap"})
        return told | {"classes": config.forget_classes}
    if forget.scenario == "class" or not forget.poison:
        return {}
    names = {"scenario", "poison", "clients"}
    if forget.scenario == "sample":
        names |= {"examples", "examples_share", "target", "trigger"}
    return forget.model_dump(mode="json", include=names) | {"share": config.forget_share}


def retrain_key(config: Settings) -> str:
    """SHA-256 over all that retraining without the forgotten data reads."""
    forget = _with_settings(config.forget)
    return _hashed(
        _read(config) | {"forget": forget, "rounds": config.retrain_rounds} | _participation(config, "retrain")
    )


def _participation(config: Settings, phase: str) -> dict[str, Any]:
    """Who takes part in the rounds of a phase; nothing where everybody does, which leaves earlier keys as they were.

    A model that clients may have failed in is never one that they may not.
    """
    share, sampling = config.taking_part(phase)
    read: dict[str, Any] = {} if share == 1 else {"participation": [share, sampling]}
    read |= {"deployment": deployment} if (deployment := _deployment(config)) else {}
    return read | ({"on_failure": "skip"} if config.federation.on_failure == "skip" else {})


def _deployment(config: Settings) -> dict[str, Any]:
    """What says who counts; nothing where everybody does, for then the clock changes no bit."""
    deployment = config.deployment
    if not deployment.decides:
        return {}
    read = deployment.model_dump(mode="json") | {"known": dict(deployment.known)}
    return read | ({"trace": _content(deployment.trace)} if deployment.trace else {})


def _read(config: Settings) -> dict[str, Any]:
    """What any training of a whole model reads."""
    data = _with_settings(config.data)
    if config.data.known is not None:
        data.pop("root")
    elif config.data.root:
        data["root"] = _content(config.data.root)
    # in full, so that a set's published constants and the same ones written down are the same
    data["mean"], data["std"] = (given[:1] if len(set(given)) == 1 else given for given in config.data.constants)
    if config.data.partition_file:
        data["partition_file"] = _content(config.data.partition_file)
    model = {name: value for name, value in config.model.model_dump(mode="json").items() if value}
    if config.model.factory:
        model.pop("name")
    if config.model.weights:
        model["weights"] = _content(config.model.weights)
    train = config.train.model_dump(mode="json", include=_FIRST) | _later(
        config.train, _TRAINING, "schedule", "optimiser"
    )
    read = {"seed": config.seed, "data": data, "model": model, "train": train, "clients": config.federation.clients}
    server = _later(config.federation, _SERVER, "aggregate", "server")
    return read | ({"server": server} if server else {})


def _later(section: TrainConfig | FederationConfig, names: Collection[str], *parts: str) -> dict[str, Any]:
    """What fields that came after the first keys say, but for their defaults, which leave earlier keys as they were."""
    values = section.model_dump(mode="json", include=set(names))
    for name in parts:  # its settings in full, however few of them are written
        _, given = getattr(section, f"{name}_part")
        values[f"{name}_args"] = given.model_dump(mode="json") if given else {}
    return {name: value for name, value in values.items() if value != type(section).model_fields[name].default}


def _with_settings(section: DataConfig | ForgetConfig) -> dict[str, Any]:
    """All that a section says, with the settings of another package's parts in full; without these where it has none,
    which leaves earlier keys as they were."""
    values = section.model_dump(mode="json")
    given = {"args": section.settings}
    if isinstance(section, DataConfig):
        given["partition_args"] = section.partition_settings
    for name, settings in given.items():
        values.pop(name)
        if settings is not None:
            values[name] = settings.model_dump(mode="json")
    return values


def _hashed(read: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def _content(where: str) -> str:
    """A digest of a file, or of the Parquet files in a folder and up to two below it; of anything else, its name."""
    path = Path(where).expanduser()
    try:
        if path.is_file():
            return _digest(path)
        if path.is_dir():
            files = sorted(file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}*.parquet"))
            return _hashed({file.relative_to(path).as_posix(): _digest(file) for file in files})
    except OSError:  # whoever loads it says so better
        pass
    return where


def _digest(file: Path) -> str:
    status = file.stat()
    return _digest_once(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_once(file: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, which is read again only when its size or its time of change is another."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
