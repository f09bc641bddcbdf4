"""The place of a new folder: taken in one step, and given back as it was if nothing comes of the folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

Mark = tuple[int, int, int]


def mark(folder: Path) -> Mark | None:
    """What tells a folder from any later one at its place; None if there is none.

    Its environment.json is written once, and the time tells apart what got the number of a removed file again.
    """
    try:
        found = os.stat(folder / "environment.json")
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def waiting(target: Path) -> Path:
    """Where what stood at a place is kept until its successor is worth something."""
    return target.with_name(f".{target.name}.before-overwrite")


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A new folder beside another place on the same disk; it is gone again unless it was moved there."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def put(fresh: Path, target: Path, keep: bool) -> None:
    """Move a whole folder to its place. What stands there waits if it is to be kept, and is removed otherwise.

    Whatever ends this in between, something whole is at the place.
    """
    there = os.path.lexists(target)
    old = waiting(target) if keep else Path(f"{fresh}.old")
    if there:
        shutil.rmtree(old, ignore_errors=True)
    try:
        if there:
            target.rename(old)
        fresh.rename(target)
    except BaseException:
        if there and not os.path.lexists(target):
            old.rename(target)
        raise
    if there and not keep:
        shutil.rmtree(old, ignore_errors=True)


def give_back(target: Path) -> None:
    """Remove the folder there, and put back what waits. Raises OSError if the folder cannot be moved."""
    gone = target.rename(target.with_name(f".{target.name}.{uuid.uuid4().hex}"))  # at once: nobody finds a half
    with contextlib.suppress(FileNotFoundError):
        waiting(target).rename(target)
    shutil.rmtree(gone, ignore_errors=True)


def settle(target: Path) -> None:
    """Let go of what waits: its successor is worth something."""
    shutil.rmtree(waiting(target), ignore_errors=True)
