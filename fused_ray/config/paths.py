"""Paths as people write them: `~` stands for a home folder wherever a path may stand."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fused_ray.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
"""How a URI begins; of two slashes, a command line's paths keep one."""


def home_expanded(where: str) -> str:
    """A path with a leading `~` or `~user` replaced; a URI stays as it is. Raises ValueError for what is no path."""
    if not where:
        raise ValueError("the path is empty; leave it out")
    try:
        if b"\0" in os.fsencode(where):
            raise ValueError("a path has no NUL character")
    except UnicodeEncodeError:
        raise ValueError("a path cannot have such characters here") from None
    whole = os.path.expanduser(where)
    if where.startswith("~") and whole == where:
        raise ValueError(f"the home folder {where.partition('/')[0]} is not known here; write the whole path")
    return whole


def local(where: str) -> str:
    """The same of what can be a folder or file of this machine alone. Raises ValueError for a URI."""
    if scheme := _SCHEME.match(where):
        raise ValueError(
            f"a file or folder of this machine is wanted, not {scheme[1]}:; copy from or to a store by its own tools"
        )
    return home_expanded(where)


def remote(where: str | Path) -> str | None:
    """The URI of a folder on S3, which is the only store that results can be written to; None of any other path."""
    found = re.fullmatch(r"s3:/+(.*?)/*", str(where))
    return f"s3://{found[1]}" if found else None


def results(where: str) -> str:
    """Where results go: a folder of this machine, or a URI of one on S3. Raises ValueError for any other URI."""
    if uri := remote(where):
        return uri
    if (scheme := _SCHEME.match(where)) is not None:
        raise ValueError(f"results go to a folder of this machine or to s3://BUCKET/FOLDER, not to {scheme[1]}:")
    return home_expanded(where)


def expanded(where: str | Path) -> Path:
    """The same as a Path. Raises ConfigError."""
    try:
        return Path(local(str(where)))
    except ValueError as error:
        raise ConfigError(f"{str(where)!r}: {error}") from None


def absolute(where: Any) -> Any:
    """A path as it is called from any folder; a URI, or what is no path, stays as it is."""
    return where if not isinstance(where, str) or "://" in where else str(expanded(where).absolute())
