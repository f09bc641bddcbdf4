"""Importing torchvision beside a PyTorch that it was not built for.

torchvision from PyPI wants the CUDA build of its C++ library; beside a CPU build of PyTorch its import fails because
two operators were never registered. Registering their schemas mends the import (models, datasets and transforms
work; `ops.nms` and image decoding do not). Doing so where the pair matches would abort the process, so it is done only
after an import failed with that very message.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import Any, TypeVar

from packaging.requirements import Requirement

_MESSAGE = "operator torchvision::nms does not exist"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept_alive: list[Any] = []
Made = TypeVar("Made")


def with_torchvision(do: Callable[[], Made]) -> Made:
    """What a user's code makes that may import torchvision itself: once more, after the mend, if it needs that."""
    try:
        return do()
    except RuntimeError as error:
        if str(error) != _MESSAGE:
            raise
    import_torchvision()
    return do()


def import_torchvision() -> ModuleType:
    """The torchvision module with `datasets` and `models`, mended if need be. Raises what its import raises."""
    try:
        return _import()
    except RuntimeError as error:
        import torch

        if str(error) != _MESSAGE or torch.version.cuda is not None or not _accepts(torch.__version__):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + _SCHEMA)
        _kept_alive.append(library)
        return _import()


def _import() -> ModuleType:
    module = importlib.import_module("torchvision")
    importlib.import_module("torchvision.datasets")
    importlib.import_module("torchvision.models")
    return module


def _accepts(torch_version: str) -> bool:
    """Whether the installed torchvision says that it works with this version of PyTorch."""
    for line in metadata.requires("torchvision") or []:
        requirement = Requirement(line)
        if requirement.name == "torch":
            return requirement.specifier.contains(torch_version.partition("+")[0], prereleases=True)
    return False
