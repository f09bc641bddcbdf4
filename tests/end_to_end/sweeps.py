"""Small sweeps, and what they leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fused_ray import SweepConfig

SMALL: dict[str, Any] = {
    "base": {
        "data": {"limit": 400},
        "federation": {"clients": 4},
        "train": {"lr": 0.02, "batch_size": 16},
        "pretrain": {"rounds": 2},
        "unlearn": {"rounds": 2, "selection": "critical", "mask": "random"},
        "audit": {"enabled": False},
        "engine": {"backend": "local"},
    },
    "space": {
        "forget.scenario": {"grid": ["class", "exclusive"]},
        "unlearn.layers": {"grid": [1, "all"]},
        "unlearn.start": {"grid": ["reset"]},
        "unlearn.sparsity": {"grid": [0, 0.9]},
        "unlearn.lr": {"grid": [0.2, 900]},
    },
}


def settings(path: Path, *changes: str) -> SweepConfig:
    return SweepConfig.from_dict(SMALL, [f"output.dir={path}", *changes])
