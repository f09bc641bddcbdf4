"""A Ray or a machine that cannot do what is asked: each is told in one line."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError
from ray.util import get_node_ip_address

from fused_ray import FusedRayError, RunConfig, run
from fused_ray.core.pools import ClientPool
from fused_ray.engine.reason import reason
from fused_ray.engine.session import SessionError, session
from fused_ray.errors import out_of_memory
from fused_ray.studies.tools import Tools, preparer
from tests.brought.stopping import BASE, SMALL, command, settings
from tests.processes import family, start, wait_until

pytestmark = pytest.mark.usefixtures("here")


# -- Ray ----------------------------------------------------------------------------------------------------


def alone(code: str, **variables: str) -> list[str]:
    """The lines that a process of its own, which is connected to no Ray, printed to standard error."""
    text = f"import os; os.environ.update({variables!r})\n{code}"
    process = start([sys.executable, "-c", text])
    return process.communicate(timeout=200)[1].splitlines()


def test_a_temporary_folder_too_long_for_sockets_says_so(tmp_path: Path) -> None:
    enter = "from fused_ray.engine.session import session\nwith session(None): pass"
    lines = alone(enter, RAY_TMPDIR=str(tmp_path / ("long" * 25)))
    assert "SessionError: cannot start a private Ray: " in lines[-1]
    assert "a path too long for them: set RAY_TMPDIR to a short one" in lines[-1]
    (tmp_path / "file").touch()
    assert alone(enter, RAY_TMPDIR=str(tmp_path / "file"))[-1].endswith("Without Ray: engine.backend=local")
    lines = alone(enter, RAY_ADDRESS="ray://head:10001")
    assert "RAY_ADDRESS: ray://head:10001: by Ray Client, " in lines[-1]
    assert " ray job submit" in lines[-1]


def test_ray_client_is_refused() -> None:
    code, lines = command("run", "--set", "engine.address=ray://head:10001", "--set", "output.dir=run")
    assert (code, len(lines)) == (2, 1)
    assert "engine.address: by Ray Client" in lines[0]


@pytest.mark.slow
def test_an_address_beside_a_ray_that_is_there(cluster: Any) -> None:
    port = cluster.address.rpartition(":")[2]
    names = [f"{name}:{port}" for name in ("localhost", "127.0.0.1", socket.gethostname(), get_node_ip_address())]
    for address in (None, "auto", cluster.address, *names):
        with session(address) as private:
            assert not private
    for address in ("local", "10.1.2.3:6379"):
        said = f"{address}, but this process is connected to Ray at {cluster.address}"
        with pytest.raises(SessionError, match=said), session(address):
            pass
    with pytest.raises(FusedRayError, match="is connected to Ray at"):
        run(RunConfig.from_dict({}, [*SMALL, "engine.address=local", "output.dir=run"]))
    assert not Path("run").exists()


def test_why_an_actor_died_is_told_whole() -> None:
    text = (
        "The actor is dead because its node was out of memory. " + "Its largest processes were these. " * 40 + "the end"
    )
    context = ActorDiedErrorContext(class_name="DriverActor", actor_id=bytes(16), pid=7, error_message=text)
    assert reason(ActorDiedError(context)).endswith(text)


@pytest.mark.slow
def test_a_sweep_whose_broker_died_does_not_end_well(tmp_path: Path) -> None:
    Path("s.yaml").write_text(f"base: {BASE}\nspace: {{unlearn.sparsity: {{grid: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}}}}\n")
    fields = settings("output.dir=sweep", "max_concurrent=1", "base.audit.enabled=false", "base.output.plots=none")
    process = start([sys.executable, "-m", "fused_ray", "sweep", "s.yaml", *fields])
    wait_until(lambda: Path("sweep/trials.parquet").exists(), process)
    (broker,) = [member for member in family(process) if "Broker" in member.name()]
    broker.kill()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2, errors
    assert "the process that gives workers to trials died: " in errors
    assert errors.endswith(f"; continue with: fused-ray sweep --resume {tmp_path / 'sweep'}\n")
    assert "Traceback" not in errors
    code, lines = command("sweep", "--resume", "sweep")
    assert code == 0, lines
    assert json.loads(Path("sweep/result.json").read_text())["done"] == 6


# -- memory -------------------------------------------------------------------------------------------------


HUNGRY = """
import numpy as np, torch
from torch import nn

class Hungry(nn.Sequential):
    def forward(self, x):
        if self.training and len(x) > 3:
            EAT
        return super().forward(x)

def model(shape, classes):
    return Hungry(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB in total"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        MemoryError(),
    ],
)
def test_memory_of_an_accelerator_runs_out_as_well(error: Exception) -> None:
    found = out_of_memory(error)
    assert found is not None
    assert found.can_go_on
    assert out_of_memory(RuntimeError("size mismatch")) is None
    assert out_of_memory(ValueError("out of memory of what was said")) is None


def test_a_trial_whose_memory_ran_out_is_one_that_failed() -> None:
    def hungry(*arguments: object) -> ClientPool:
        raise MemoryError("Unable to allocate 8 PiB")

    config = RunConfig.from_dict({}, [*SMALL, "engine.backend=local", "output.dir=trial"])
    with pytest.raises(FusedRayError, match=r"memory ran out \(Unable to allocate 8 PiB\)"):
        Tools(hungry, preparer()).finish(config)


@pytest.mark.parametrize("eat", ["np.ones(10**15)", "torch.ones(10**15)"])
def test_memory_that_ran_out_is_one_line(monkeypatch: pytest.MonkeyPatch, eat: str) -> None:
    name = f"hungry_{eat[:2]}"
    Path(f"{name}.py").write_text(HUNGRY.replace("EAT", eat))
    monkeypatch.syspath_prepend(".")
    code, lines = command(
        "run", *settings(*SMALL, "engine.backend=local", f"model.factory={name}:model", "output.dir=r")
    )
    assert code == 2
    assert lines[-1].startswith("fused-ray: memory ran out (")
    assert "allocate" in lines[-1]
    assert not Path("r").exists()
