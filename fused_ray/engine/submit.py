"""The submitting side of a job on Ray: starts the driver actor, passes progress on, and ends both on Ctrl-C."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from fused_ray.config import EngineConfig
from fused_ray.engine.autoscale import withdraw
from fused_ray.engine.driver import Job, start_driver
from fused_ray.engine.reason import reason
from fused_ray.engine.session import session
from fused_ray.errors import ClientFailedError, FusedRayError, Interrupted, PlacementError, out_of_memory
from fused_ray.stopping import requested

_POLL = 0.25
"""Seconds between two questions for progress."""
_PATIENCE = 15.0
"""Seconds that a driver which was asked to stop may take before it is killed."""


def execute_on_ray(job: Job, engine: EngineConfig, listener: Callable[[Any], None]) -> dict[str, Any]:
    """Do a job in a driver actor and return the content of its result.json. Raises what the job raises.

    Raises PlacementError if the driver actor has not started within `engine.start_timeout`.
    """
    with session(engine.address) as private:
        if private and engine.autoscale:
            raise PlacementError(
                "engine.autoscale: a private Ray of the run's own has no autoscaler; set engine.address to a cluster "
                "that has one, or leave it out"
            )
        driver = start_driver(job)
        try:
            return _watch(driver, engine.start_timeout, listener)
        except BaseException:
            if engine.autoscale:
                withdraw()  # a driver that died has not
            raise
        finally:
            with contextlib.suppress(RayError):
                ray.kill(driver)


def _watch(driver: Any, limit: float, listener: Callable[[Any], None]) -> dict[str, Any]:
    started, outcome = driver.progress.remote(), driver.run.remote()
    deadline = time.monotonic() + limit
    try:
        while not ray.wait([outcome], timeout=_POLL)[0]:
            if requested():
                raise KeyboardInterrupt
            if time.monotonic() > deadline and not ray.wait([started], timeout=0)[0]:
                raise PlacementError(
                    f"the driver actor has not started within {limit:g} s (engine.start_timeout); is this node's Ray "
                    "alive, and can it start processes?"
                )
            _tell(driver, listener)
        _tell(driver, listener)
        return _result(outcome)
    except KeyboardInterrupt:
        # who ends this process may have ended Ray's at the same time, as Slurm does: then the driver has no say
        with contextlib.suppress(RayError, ClientFailedError):
            driver.stop.remote()
            _result(outcome, timeout=_PATIENCE)  # raises Interrupted, unless the run was over by then
        raise Interrupted("stopped") from None


def _tell(driver: Any, listener: Callable[[Any], None]) -> None:
    """Pass on what the driver last said; a busy or dying one says nothing, and its outcome tells."""
    with contextlib.suppress(RayError):
        progress = ray.get(driver.progress.remote(), timeout=5)
        if progress is not None:
            listener(progress)


def _result(outcome: Any, timeout: float | None = None) -> dict[str, Any]:
    try:
        result: dict[str, Any] = ray.get(outcome, timeout=timeout)
        return result
    except RayTaskError as error:
        cause = out_of_memory(error.cause) or error.cause
        if isinstance(cause, FusedRayError):
            raise cause from error  # with the traceback in the driver
        raise
    except GetTimeoutError:
        raise
    except RayError as error:
        raise ClientFailedError(f"the driver actor died: {reason(error)}") from None
