"""Why a call on Ray failed, in one line. Imports no PyTorch."""

from __future__ import annotations

from ray.exceptions import ActorDiedError, RayError, RayTaskError


def reason(error: RayError) -> str:
    """What the call raised, or Ray's own words, whole; without the ids that it puts before what killed an actor."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        return lines[-1].strip()  # what its constructor raised; before it stands the traceback
    return " ".join(line.strip() for line in lines if not line.startswith("\t"))
