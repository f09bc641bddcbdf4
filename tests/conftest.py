"""Shared by all tests: a Ray of their own, away from whatever else runs on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
# a short path: Ray's sockets lie below it, and a socket's name has little room
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="fr", dir="/tmp")
# a lost node is noticed in some four seconds instead of thirteen, and a slow one on a busy machine is not lost
for name in ("initial_delay_ms", "period_ms", "timeout_ms"):
    os.environ[f"RAY_health_check_{name}"] = "500"
os.environ["RAY_health_check_failure_threshold"] = "8"  # noqa: SIM112

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"
WITH_PLUGIN = {"PYTHONPATH": os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))}
"""What a node is started with, so that its workers find the example plugin."""
STORE = 200_000_000
"""Object store memory of a test node, bytes."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A Ray cluster of one node with two CPUs, shared by all tests that need one; this process is connected to it.

    Its workers find the example plugin, as this process does by pytest's `pythonpath`.
    """
    import ray
    from ray.cluster_utils import Cluster

    about: dict[str, Any] = {"num_cpus": 2, "object_store_memory": STORE, "env_vars": WITH_PLUGIN}
    # nobody looks at a dashboard or follows logs here, and their processes take seconds to start
    about |= {"include_dashboard": False, "include_log_monitor": False}
    nodes = Cluster(initialize_head=True, head_node_args=about)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
