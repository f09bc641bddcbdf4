"""What a run asks of an autoscaler, on one: Ray's own, with a provider whose nodes are processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler.v2.sdk import get_cluster_status

from fused_ray import load_run
from tests.conftest import WITH_PLUGIN
from tests.processes import family, kill, start

HEAD = "f" * 51 + "00000"
WORKERS = 2
SMALL = ["federation.clients=4", "data.limit=400", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=0"]
SMALL += ["output.plots=none", "audit.enabled=false", "engine.autoscale=true"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def configuration(address: str) -> dict[str, Any]:
    """A head with a core, and up to two workers with two and a label, which go after six seconds without work."""
    module = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    provider = {"type": "external", "module": module, "gcs_address": address, "head_node_id": HEAD}
    worker = {"resources": {"CPU": 2, "object_store_memory": 100_000_000}, "node_config": {}, "labels": {"zone": "a"}}
    commands = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
    commands += ("head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter")
    return {name: [] for name in (*commands, "cluster_synced_files")} | {
        "cluster_name": "made-up",
        "upscaling_speed": 10,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "max_workers": WORKERS,
        "idle_timeout_minutes": 0.1,
        "provider": provider | {"launch_multiple": True, "disable_node_updaters": True},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": worker | {"min_workers": 0, "max_workers": WORKERS},
        },
        "head_node_type": "ray.head.default",
    }


@pytest.fixture(scope="module")
def autoscaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """The head of a Ray with an autoscaler, in a session of its own; all of that Ray are its children."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    file = tmp_path_factory.mktemp("autoscaler") / "cluster.yaml"
    file.write_text(yaml.safe_dump(configuration(f"127.0.0.1:{port}")))
    environment = {**os.environ, **WITH_PLUGIN, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    environment |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD}
    environment |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_TMPDIR": tempfile.mkdtemp(prefix="fa", dir="/tmp")}
    about = ["--num-cpus=1", f"--port={port}", "--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--autoscaling-config={file}"]
    head = start([*map(str, command), *about, "--include-dashboard=false"], env=environment)
    assert head.stdout is not None
    try:
        assert any("Ray runtime started" in line for line in head.stdout), head.communicate()[1]
        yield head
    finally:
        kill(head)


@pytest.fixture
def address(autoscaled: subprocess.Popen[str]) -> str:
    (port,) = (word.partition("=")[2] for word in autoscaled.args if word.startswith("--port="))
    return f"127.0.0.1:{port}"


def until(true: Callable[[], bool], limit: float) -> None:
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def requested(address: str) -> int:
    """How many bundles are asked for now."""
    asked = get_cluster_status(address).resource_demands.cluster_constraint_demand
    return sum(bundle.count for demand in asked for bundle in demand.bundles_by_count)


def nodes(address: str) -> int:
    status = get_cluster_status(address)
    return len(status.active_nodes) + len(status.idle_nodes)


def begun(address: str, path: Path, *fields: str) -> subprocess.Popen[str]:
    settings = [*SMALL, f"engine.address={address}", f"output.dir={path}", *fields]
    return start([sys.executable, "-m", "fused_ray", "run", *(f for field in settings for f in ("--set", field))])


def test_nodes_come_for_a_run_and_go_after_it(address: str, tmp_path: Path) -> None:
    process = begun(address, tmp_path / "run", "federation.actor_labels={zone: a}")
    until(lambda: requested(address) == 4, 60)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "note: asked the autoscaler for 4 x (1 CPU): all there after" in " ".join(errors.split())
    workers = load_run(tmp_path / "run").result["placement"]["workers"]
    assert sorted(worker["actors"] for worker in workers) == [2, 2]
    assert HEAD not in {worker["node"] for worker in workers}
    assert requested(address) == 0
    until(lambda: nodes(address) == 1, 60)


def test_what_does_not_come_is_done_without(address: str, tmp_path: Path) -> None:
    process = begun(address, tmp_path / "run", "federation.actor_cpus=2", "engine.wait_nodes=120")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    told = " ".join(errors.split())
    assert "asked the autoscaler for 4 x (2 CPU): room for 2 there after" in told
    assert json.loads((tmp_path / "run" / "result.json").read_text())["placement"]["actors"] == 2
    assert requested(address) == 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_asked_any_more_when_a_run_is_stopped(address: str, tmp_path: Path, ending: int) -> None:
    process = begun(address, tmp_path / "run", "federation.actor_cpus=2")
    until(lambda: requested(address) == 4, 60)
    process.send_signal(ending)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + ending, errors
    assert requested(address) == 0


def test_nothing_is_asked_any_more_when_the_driver_dies(
    autoscaled: subprocess.Popen[str], address: str, tmp_path: Path
) -> None:
    process = begun(address, tmp_path / "run", "federation.actor_cpus=2")
    until(lambda: requested(address) == 4, 60)
    (driver,) = (member for member in family(autoscaled) if "DriverActor" in " ".join(member.cmdline()))
    driver.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "the driver actor died" in errors
    assert requested(address) == 0


def test_a_private_ray_has_no_autoscaler(tmp_path: Path) -> None:
    settings = [*SMALL, f"output.dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "fused_ray", "run", *(f for field in settings for f in ("--set", field))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "engine.autoscale: a private Ray of the run's own has no autoscaler" in done.stderr
