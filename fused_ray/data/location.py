"""Paths and URIs in one form, so that data may lie on this machine or in a store that the whole cluster sees."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow.fs import FileSystem, LocalFileSystem

from fused_ray.errors import DataError


def locate(where: str, field: str) -> tuple[FileSystem, str]:
    """The file system and the path there of a local path or a URI (file://, s3://, gs://, hdfs://).

    Raises DataError naming the configuration field that says where.
    """
    if "://" not in where:
        return LocalFileSystem(), str(Path(where).expanduser().absolute())
    try:
        located: tuple[FileSystem, str] = FileSystem.from_uri(where)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{field}: {where} is no URI that can be read: {error}") from None
    return located


def is_file(where: str, field: str) -> bool:
    """Whether there is a file at a path or URI. Raises DataError if that cannot be asked."""
    filesystem, path = locate(where, field)
    try:
        return bool(filesystem.get_file_info(path).is_file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{field}: {where} cannot be reached: {error}") from None
