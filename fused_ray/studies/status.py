"""How a run of a study ended."""

from __future__ import annotations

DONE, STOPPED, UNSUPPORTED, FAILED = "done", "stopped", "unsupported", "failed: "
"""The last with the reason behind it; `unsupported` with one behind a colon where there is one."""


def failed(status: str) -> bool:
    """Whether a resumed study tries such a run once more."""
    return status.startswith(FAILED)


def unsupported(reason: str) -> str:
    """The status of a run that cannot be made at all."""
    return f"{UNSUPPORTED}: {reason}" if reason else UNSUPPORTED
