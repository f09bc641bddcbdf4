"""Locks in a folder: each is one process's, and is let go however that process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path

from fused_ray.errors import RunDirectoryError

WRITER = "lock"
"""Held by the process that writes the folder: on Ray the driver."""
COMMAND = "command.lock"
"""Held by the command that works on the folder, from before the folder is at its place, until the command is over.

On Ray some time passes until the driver has taken its own lock: this one keeps other commands out meanwhile.
"""
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
"""What says that another process holds a lock; any other error says that there are none."""


class Lock:
    """A lock file of some name. It says who holds it: the process, and a word that is new each time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: int | None = None
        self._token = ""

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._handle is not None

    def take(self, folder: Path, wait: float, waiting: Callable[[str], None] = lambda owner: None) -> None:
        """Hold it; wait that many seconds for an earlier holder, which may be dying, to let go.

        `waiting` is told meanwhile, again and again, which process holds it; what it raises ends the wait. Raises
        RunDirectoryError if the holder does not let go.
        """
        deadline = time.monotonic() + wait
        try:
            handle = os.open(folder / self._name, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunDirectoryError(f"{folder} cannot be written: {error.strerror}") from None
        self._close = weakref.finalize(self, os.close, handle)
        try:  # whatever interrupts this, a signal too, leaves no lock behind
            _wait(handle, folder, deadline, waiting)
            if not _is_at(handle, folder / self._name):  # it was removed or replaced while this one waited
                raise RunDirectoryError(f"{folder} was taken over by another run; start again")
            self._token = f"{os.getpid()} {uuid.uuid4().hex}"
            os.ftruncate(handle, 0)
            os.pwrite(handle, self._token.encode(), 0)
            self._handle = handle
        except BaseException:
            self._handle = None
            self._close()
            raise

    def release(self) -> None:
        """Let the next one in."""
        if self._handle is not None:
            self._close()
            self._handle = None

    def holds(self, folder: Path) -> bool:
        """Whether it is this folder that it keeps others out of: the folder may have been replaced, say."""
        if self._handle is None or not _is_at(self._handle, folder / self._name):
            return False
        return os.pread(self._handle, 200, 0).decode() == self._token


def holder(folder: Path) -> str | None:
    """The process that writes a folder or works on it, as its lock tells; None: there is none."""
    for name in (WRITER, COMMAND):
        with contextlib.suppress(OSError):
            handle = os.open(folder / name, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment: whoever wants it tries again
            except OSError as error:
                if error.errno in _HELD:
                    return _owner(handle)
            finally:
                os.close(handle)
    return None


def _owner(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace").split(" ")[0] or "unknown"


def _wait(handle: int, folder: Path, deadline: float, waiting: Callable[[str], None]) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _HELD:
                raise RunDirectoryError(
                    f"{folder}: its file system has no locks ({error.strerror}), without which two processes "
                    "could write there at once; choose an output.dir on another one"
                ) from None
        owner = _owner(handle)
        if time.monotonic() > deadline:
            raise RunDirectoryError(
                f"{folder} is being written by another run (process {owner}); wait for it or end it"
            )
        waiting(owner)
        time.sleep(0.1)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one at some place."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False
