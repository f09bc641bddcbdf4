"""The main job through `ray job submit`, on a real local Ray with its dashboard."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fused_ray import RunConfig, resume, run
from tests.docs.blocks import blocks, commands
from tests.s3 import make_bucket, served

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).parent / "ray")
SMALL = ["federation.clients=4", "data.limit=400", "pretrain.rounds=2", "unlearn.rounds=2", "output.plots=none"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def head(log: Path, environment: dict[str, str], cpus: int = 2, port: int | None = None) -> Iterator[str]:
    """The dashboard's address of a Ray of this test's own; its processes end with the one that is started here."""
    port, address = port or free_port(), f"http://127.0.0.1:{(web := free_port())}"
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={web}", f"--num-cpus={cpus}"]
    command += ["--include-dashboard=true", "--object-store-memory=200000000", "--disable-usage-stats"]
    # agents of several nodes on one machine would share these ports
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    with log.open("w") as out:
        head = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=2)
                break
            except urllib.error.HTTPError:
                break  # it answers, if only that it wants a token
            except OSError:
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        yield address
    finally:
        head.terminate()
        head.wait(timeout=30)


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with head(tmp_path_factory.mktemp("ray") / "head.log", environment()) as address:
        yield address


def environment(*dropped: str, **added: str) -> dict[str, str]:
    """No RAY_ADDRESS and no proxies: the job talks to this machine alone. `python` is the one that runs the tests."""
    dropped = (*dropped, "RAY_ADDRESS", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **added}


def submit(dashboard: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", f"--address={dashboard}", "--working-dir", str(ROOT), "--"]
    job = [sys.executable, "cluster/job.py", *arguments]
    done = subprocess.run(
        [*command, *job], capture_output=True, text=True, timeout=240, check=False, env=environment(), cwd=ROOT
    )
    return done


def test_the_main_job_comes_back_with_its_table_and_a_bad_config_fails_it(dashboard: str, tmp_path: Path) -> None:
    settings = [part for field in [*SMALL, f"output.dir={tmp_path / 'run'}"] for part in ("--set", field)]
    done = submit(dashboard, "run", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "retrained without the data" in done.stdout
    assert "Reversible: with the adapter off" in done.stdout
    assert (tmp_path / "run" / "result.json").exists()
    bad = submit(dashboard, "run", "--set", "unlearn.layers=9")
    assert bad.returncode != 0
    printed = bad.stdout + bad.stderr
    assert "fused-ray: unlearn.layers: 9 is more than the 5 layers" in printed
    assert "Traceback" not in printed


@contextmanager
def worker(log: Path, environment: dict[str, str], port: int) -> Iterator[str]:
    """The address of a second node, which joins the head with that port."""
    address = "127.0.0.2"
    command = [RAY, "start", "--block", f"--address=127.0.0.1:{port}", f"--node-ip-address={address}", "--num-cpus=2"]
    command += ["--object-store-memory=200000000", "--disable-usage-stats"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    with log.open("w") as out:
        node = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield address
    finally:
        node.terminate()
        node.wait(timeout=30)


@pytest.mark.slow
def test_a_driver_that_is_not_on_the_head_writes_to_s3_and_the_submitter_shows_it(tmp_path: Path) -> None:
    port, where = free_port(), "s3://bucket/runs/job"
    settings = [part for field in [*SMALL, f"output.dir={where}"] for part in ("--set", field)]
    with ExitStack() as stack:
        variables = stack.enter_context(served())
        make_bucket(variables, "bucket")
        address = stack.enter_context(head(tmp_path / "head.log", environment(), 0, port))
        there = stack.enter_context(worker(tmp_path / "worker.log", environment(), port))
        command = [RAY, "job", "submit", f"--address={address}", "--working-dir", str(ROOT), "--submission-id=off-head"]
        command += ["--entrypoint-num-cpus=1", "--runtime-env-json", json.dumps({"env_vars": variables})]
        job = [sys.executable, "cluster/job.py", "run", *settings]
        done = subprocess.run(
            [*command, "--", *job], capture_output=True, text=True, timeout=240, env=environment(), cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with urllib.request.urlopen(f"{address}/api/jobs/off-head") as answer:
            assert there in json.load(answer)["driver_agent_http_address"]
        show = [sys.executable, "-m", "fused_ray", "show", "--json", where]
        shown = subprocess.run(show, capture_output=True, text=True, timeout=120, env=environment(**variables))
    assert shown.returncode == 0, shown.stderr
    local = run(RunConfig.from_dict({}, [*SMALL, f"output.dir={tmp_path / 'run'}", "engine.backend=local"]))
    assert json.loads(shown.stdout.splitlines()[-1])["hash"] == local["hash"]


@pytest.mark.slow
def test_tokens_are_as_cluster_README_says(tmp_path: Path) -> None:
    """Its commands as they stand, but for the address, the folder and a small run."""

    def documented(begins: str, address: str = "") -> list[list[str]]:
        (block,) = [block for block in blocks("cluster/README.md") if block.text.startswith(begins)]
        text = block.text.replace("http://HEAD:8265", address).replace("/data/runs", str(tmp_path))
        return commands(text, tmp_path)

    def run(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=240, check=False, env=environment, cwd=ROOT
        )

    home = tmp_path / "home"
    home.mkdir()
    ours = environment(HOME=str(home), RAY_AUTH_MODE="token")
    generate, start = documented("export RAY_AUTH_MODE=token ")
    assert start == ["ray", "start", "--head"]
    assert run(generate, ours).returncode == 0
    assert (home / ".ray" / "auth_token").exists()
    with head(tmp_path / "head.log", ours) as address:
        (submit,) = documented("ray job submit", address)
        submit += [part for field in SMALL for part in ("--set", field)]
        done = run(submit, ours)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Reversible: with the adapter off" in done.stdout
        assert (tmp_path / "demo" / "result.json").exists()
        listing, stopping = documented("ray job list", address)
        assert "SUCCEEDED" in run(listing, ours).stdout
        assert "does not exist" in run(stopping, ours).stderr  # it asked with the token
        silent = run(submit, environment("RAY_AUTH_MODE", HOME=str(home)))
        assert silent.returncode != 0
        assert "Missing authentication token" in silent.stderr
        foreign = run(submit, {**ours, "RAY_AUTH_TOKEN": "0" * 32})
        assert foreign.returncode != 0
        assert "Invalid authentication token" in foreign.stderr


@pytest.mark.slow
def test_a_job_that_is_stopped_says_how_to_go_on_and_has_the_same_bits(dashboard: str, tmp_path: Path) -> None:
    fields = ["federation.clients=4", "data.limit=400", "pretrain.rounds=40", "unlearn.rounds=2", "retrain.rounds=0"]
    fields += ["output.plots=false", "audit.enabled=false"]
    settings = [part for field in fields for part in ("--set", field)]
    job, path = "to-be-stopped", tmp_path / "run"
    command = [RAY, "job", "submit", f"--address={dashboard}", "--working-dir", str(ROOT), "--no-wait"]
    command += ["--submission-id", job, "--", sys.executable, "cluster/job.py", "run", *settings]
    subprocess.run(
        [*command, "--set", f"output.dir={path}"], check=True, capture_output=True, env=environment(), cwd=ROOT
    )
    deadline = time.monotonic() + 200
    while not list((path / "rounds.parquet").glob("*-pretrain-*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for verb in ("stop", "logs"):
        asked = [RAY, "job", verb, f"--address={dashboard}", job]
        done = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=100, env=environment())
    assert f"; continue with: fused-ray run --resume {path}" in done.stdout + done.stderr
    assert not (path / "result.json").exists()
    resumed = resume(path, ["engine.backend=local"])
    whole = run(RunConfig.from_dict({}, [*fields, "engine.backend=local", f"output.dir={tmp_path / 'whole'}"]))
    assert resumed["hash"] == whole["hash"]


@pytest.mark.slow
def test_a_sweep_comes_back_with_its_table(dashboard: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "base:\n  federation: {clients: 4}\n  data: {limit: 400}\n  pretrain: {rounds: 2}\n  unlearn: {rounds: 1}\n"
        "space:\n  unlearn.layers: {grid: [1, 2]}\n  unlearn.sparsity: {grid: [0.5, 0.95]}\nmax_concurrent: 2\n"
        f"output: {{dir: {tmp_path / 'sweep'}}}\n"
    )
    done = submit(dashboard, "sweep", str(tmp_path / "sweep.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Pareto front of RA, FA and bytes" in done.stdout
    assert "nothing is recommended: " in done.stdout  # two rounds of training teach too little
    assert (tmp_path / "sweep" / "trials.parquet").exists()
    bad = submit(dashboard, "sweep", str(tmp_path / "sweep.yaml"), "--set", "space.unlearn.layer={grid: [1]}")
    assert bad.returncode != 0
    assert "space.unlearn.layer: there is no such field; did you mean unlearn.layers?" in bad.stdout + bad.stderr
