"""Models that runs of studies share, each made by an ordinary run in a folder that is called by what it depends on.

Studies that name one store find each other's models again: comparisons as well as sweeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fused_ray.config import RunConfig
from fused_ray.config.validation import put, validated

_RANK = {"layers": 1, "selection": "critical", "mask": "random", "start": "zero", "rounds": 0}


def pretraining(store: Path, config: RunConfig) -> RunConfig:
    """The run that pre-trains for `config`, and ranks the layers, the same for all that begin with its model."""
    history = config.keeps_history
    folder = config.pretrain_key()[:24] + ("-history" if history else "")
    sections: dict[str, Any] = {"unlearn": _RANK, "retrain": {"rounds": 0}}
    return _shared(store / "models" / folder, config, sections, {"pretrain.history": history})


def retraining(store: Path, config: RunConfig) -> RunConfig | None:
    """The run that retrains without what `config` forgets; None where that is left out."""
    if config.retrain_rounds == 0:
        return None
    trained = config.retrain.model_dump(mode="json") | {"rounds": config.retrain_rounds}
    sections = {"unlearn": {"method": "retrain"}, "retrain": trained}
    before = pretraining(store, config).output.dir
    return _shared(
        store / "retrained" / config.retrain_key()[:24],
        config,
        sections,
        {"pretrain.from": before, "pretrain.history": False},
    )


def _shared(place: Path, config: RunConfig, sections: Mapping[str, Any], fields: Mapping[str, Any]) -> RunConfig:
    values = config.model_dump(mode="json", by_alias=True) | dict(sections)
    own = {"audit.enabled": False, "output.plots": "none", "output.report": False, "output.dir": str(place)}
    for key, value in {**fields, **own}.items():
        put(values, key, value, place.name)
    return validated(RunConfig, values, source=place.name)
