"""Joining or starting Ray, and leaving it as it was."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from fused_ray.config.execution import CLIENT, NO_CLIENT
from fused_ray.errors import FusedRayError
from fused_ray.stopping import sigterm_kept
from fused_ray.storage.environment import usable_cpus

TESTED = (2, 60)
"""The Ray that the tests run with; pyproject.toml says which others should do."""


class SessionError(FusedRayError):
    """Ray cannot be joined or started."""


@contextmanager
def session(address: str | None) -> Iterator[bool]:
    """A connection to Ray; yields whether the Ray is a private one that ends with the run.

    In this order: the Ray that this process is connected to already, which must be the one at `address` if that is
    given; `address`; RAY_ADDRESS, which a Ray job sets too; else a private local Ray with the CPUs that this process
    may use. Raises SessionError.
    """
    if ray.is_initialized():
        _check_connected(address)
        yield False
        return
    where = address or os.environ.get("RAY_ADDRESS")
    if where is not None and where.startswith(CLIENT):
        raise SessionError(f"RAY_ADDRESS: {where}: {NO_CLIENT}")
    private = where is None or where == "local"
    options: dict[str, Any] = {"num_cpus": usable_cpus(), "include_dashboard": False} if private else {}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keep CUDA visible as it is; Ray warns otherwise
    try:
        with sigterm_kept():
            ray.init(address=where or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises the bare class too, when a node does not start in time
        what = "start a private Ray" if private else f"join Ray at {where}"
        reason = str(error).rstrip(".")
        raise SessionError(f"cannot {what}: {reason}; {_remedy(reason, private)}") from None
    try:
        yield private
    finally:
        ray.shutdown()


def _check_connected(address: str | None) -> None:
    """Raises SessionError unless this process is connected to a Ray that will do."""
    from ray.util.client import ray as client  # takes a while

    if client.is_connected():
        raise SessionError(f"this process is connected to Ray at {CLIENT}...: {NO_CLIENT}")
    connected = ray.get_runtime_context().gcs_address
    if address not in (None, "auto") and not same_address(str(address), connected):
        raise SessionError(
            f"engine.address: {address}, but this process is connected to Ray at {connected} already; leave "
            "engine.address unset to use that, or call ray.shutdown() first"
        )


def same_address(one: str, other: str) -> bool:
    """Whether two HOST:PORT name one place: a machine has several names, and addresses of its own beside them."""
    (host, _, port), (other_host, _, other_port) = one.strip().rpartition(":"), other.strip().rpartition(":")
    if port != other_port:
        return False
    ours, others = _addresses(host), _addresses(other_host)
    return host == other_host or bool(ours & others) or (_is_here(ours) and _is_here(others))


def _addresses(host: str) -> set[str]:
    """The IP addresses of a host; none where nobody knows it."""
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), None)}
    except (OSError, UnicodeError):
        return set()


def _is_here(addresses: set[str]) -> bool:
    """Whether one of them is this machine's: on no other can a socket be bound."""
    for address in addresses:
        with contextlib.suppress(OSError):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))
                return True
    return False


def _remedy(error: str, private: bool) -> str:
    """What to do about a Ray that did not start or could not be joined."""
    if not private:
        return (  # of a token Ray says no word, if it does not know that one is wanted
            "is the address right, does that Ray run, and is it of this version? If it asks for a token, set "
            "RAY_AUTH_MODE=token here too, and RAY_AUTH_TOKEN to its own"
        )
    if "AF_UNIX" in error:
        return "its sockets lie below RAY_TMPDIR or TMPDIR, a path too long for them: set RAY_TMPDIR to a short one"
    if "memory" in error:
        return "free memory on this machine, or ask for more"
    return "is the machine overloaded, or RAY_TMPDIR full or not to be written to? Without Ray: engine.backend=local"


def version_note() -> str | None:
    """A remark if the installed Ray is not the tested one."""
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) == TESTED:
        return None
    return f"Ray {ray.__version__}: this version of fused_ray is tested with Ray {TESTED[0]}.{TESTED[1]}"
