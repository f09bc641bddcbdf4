"""One hierarchy of errors.

Every message is one line: what is wrong, where, and how to mend it. The command line prints it and exits with
`exit_code`; with `--debug` the traceback comes too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FusedRayError(Exception):
    """Base of all errors that a user can mend. `exit_code` is what the command line returns."""

    exit_code = 2
    can_go_on = False
    """Whether what was begun goes on from its last finished round; who knows the command for that adds it."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(FusedRayError):
    """A configuration key, type, range or combination is wrong."""


class DataError(FusedRayError):
    """A data set is missing or malformed, or a partition cannot be made."""


class RunDirectoryError(FusedRayError):
    """A run directory is missing, foreign, damaged, in use, or would be overwritten."""


class PlacementError(FusedRayError):
    """The clients cannot be placed on the resources that there are."""


class NumericsError(FusedRayError):
    """A value is not finite or leaves the range of exact aggregation, or nodes are not bit-comparable."""


class OutOfMemoryError(FusedRayError):
    """Memory ran out."""

    can_go_on = True


_MEMORY = ("allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""What PyTorch says of the machine's memory, of an accelerator's, and what CUDA's libraries do."""


def out_of_memory(error: Exception) -> OutOfMemoryError | None:
    """What Python, NumPy or PyTorch raises where memory runs out as an error of ours; None for any other."""
    text = " ".join(str(error).split())
    named = type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _MEMORY)
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and named):
        return None
    return OutOfMemoryError(
        f"memory ran out ({text or type(error).__name__}); make data.limit, train.batch_size or the model smaller, or "
        "use a machine with more"
    )


@contextmanager
def naming_memory() -> Iterator[None]:
    """Inside, what `out_of_memory` knows is raised as OutOfMemoryError."""
    try:
        yield
    except Exception as raised:
        if (error := out_of_memory(raised)) is None:
            raise
        raise error from raised


class ClientFailedError(FusedRayError):
    """A client's work failed or killed its actor more often than is allowed."""

    can_go_on = True


class NotWrittenError(RunDirectoryError):
    """A file of a run directory cannot be written: the disk is full, say."""

    can_go_on = True


class Interrupted(FusedRayError):
    """The user stopped the run; the run directory is complete up to the last finished round."""

    exit_code = 130
    can_go_on = True


def in_one_line(error: BaseException) -> str:
    """What went wrong, and its kind where it is none of ours."""
    told = str(error) if isinstance(error, FusedRayError) else f"{type(error).__name__}: {error}"
    return " ".join(told.split())
