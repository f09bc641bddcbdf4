"""The place of a new folder: taken in one step, and given back as it was if nothing comes of the folder."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from fused_ray.errors import RunDirectoryError
from fused_ray.storage.lock import COMMAND, Lock

Mark = tuple[int, int, int]


def mark(folder: Path) -> Mark | None:
    """What tells a folder from any later one at its place; None if there is none.

    The time of its environment.json, which stays as it was when that is added to, tells apart what got the number of a
    removed folder again.
    """
    try:
        place, about = os.stat(folder), os.stat(folder / "environment.json")
    except OSError:
        return None
    return place.st_dev, place.st_ino, about.st_mtime_ns


def waiting(target: Path) -> Path:
    """Where what stood at a place is kept until its successor is worth something."""
    target = Path(os.path.realpath(target))  # beside the folder, not beside a link to it
    return target.parent / f".{target.name}.before-overwrite"


def told(target: Path) -> str:
    """To be put behind other words: that something waits, and how to bring it back; nothing where nothing does."""
    old = waiting(target)
    if not os.path.isdir(old):
        return ""
    there = Path(os.path.realpath(target))
    remove = f"rm -r {shlex.quote(str(there))} && " if os.path.lexists(there) else ""
    back = f"{remove}mv {shlex.quote(str(old))} {shlex.quote(str(there))}"
    return f"; what --overwrite was to replace is still beside it, and comes back with: {back}"


def recover(target: Path) -> None:
    """Bring back what waits where nothing stands: who took it away was killed before its successor was there.

    Not while that command lives, which holds a lock on it, nor where nothing may be written.
    """
    target, old, command = Path(os.path.realpath(target)), waiting(target), Lock(COMMAND)
    if os.path.lexists(target) or not os.path.isdir(old):
        return
    with contextlib.suppress(RunDirectoryError, OSError):
        command.take(old, 0)
        try:
            old.rename(target)
        finally:
            command.release()


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
