"""Whose fault it is when a part of another package raises: the part, what it raised, and where, in one line."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fused_ray.config import RunConfig
from fused_ray.errors import FusedRayError, out_of_memory


class PartError(FusedRayError):
    """A part of another package raised something in a run."""

    can_go_on = True


def told(config: RunConfig, raised: BaseException) -> BaseException:
    """What was raised as the user should hear it: of another package's part, that it was this one."""
    if not isinstance(raised, Exception) or isinstance(raised, FusedRayError) or out_of_memory(raised):
        return raised
    return _blamed(config, raised) or raised


@contextmanager
def naming_parts(config: RunConfig) -> Iterator[None]:
    """What another package's part raises within becomes a PartError."""
    try:
        yield
    except Exception as raised:
        error = told(config, raised)
        if error is raised:
            raise
        raise error from raised


def _blamed(config: RunConfig, error: Exception) -> PartError | None:
    """The same as an error that names the part, if it came out of one's code; the innermost such place counts."""
    places = {_place(module): f"{field}: {config.outside[field]}" for field, module in config.modules.items()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        for place, part in places.items():
            if place == file or place in file.parents:
                told = " ".join(f"{type(error).__name__}: {error}".split())
                return PartError(f"{part} raised {told} ({file}, line {frame.lineno})")
    return None


def _place(module: str) -> Path | None:
    """Where a part's code is: the folder of the package that it is in, or its file."""
    for name in (module.partition(".")[0], module):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            return Path(file).parent if Path(file).name == "__init__.py" else Path(file)
    return None
