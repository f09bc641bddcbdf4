"""Joining or starting Ray, and leaving it as it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from fused_ray.errors import FusedRayError
from fused_ray.results.environment import usable_cpus

TESTED = (2, 60)
"""The Ray that the tests run with; pyproject.toml says which others should do."""


class SessionError(FusedRayError):
    """Ray cannot be joined or started."""


@contextmanager
def session(address: str | None) -> Iterator[bool]:
    """A connection to Ray; yields whether the Ray is a private one that ends with the run.

    In this order: the Ray that this process is connected to already; `address`; RAY_ADDRESS, which a Ray job sets
    too; else a private local Ray with the CPUs that this process may use.
    """
    if ray.is_initialized():
        yield False
        return
    where = address or os.environ.get("RAY_ADDRESS")
    private = where is None or where == "local"
    options: dict[str, Any] = {"num_cpus": usable_cpus(), "include_dashboard": False} if private else {}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keep CUDA visible as it is; Ray warns otherwise
    try:
        ray.init(address=where or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises the bare class too, when a node does not start in time
        what = "start a private Ray" if private else f"join Ray at {where}"
        reason = str(error).rstrip(".")
        raise SessionError(f"cannot {what}: {reason}; is the machine overloaded, or the address wrong?") from None
    try:
        yield private
    finally:
        ray.shutdown()


def version_note() -> str | None:
    """A remark if the installed Ray is not the tested one."""
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) == TESTED:
        return None
    return f"Ray {ray.__version__}: this version of fused_ray is tested with Ray {TESTED[0]}.{TESTED[1]}"
