"""Ends from outside, and starts that fail: each leaves nothing in the way, and says how it goes on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fused_ray import RunConfig, resume, run
from fused_ray.data import torchvision_sets
from fused_ray.data.torchvision_import import import_torchvision
from fused_ray.errors import DataError, RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.stopping import sigterm_kept
from tests.brought.stopping import BASE, SMALL, command, settings
from tests.processes import family, start, wait_until

pytestmark = pytest.mark.usefixtures("here")


def terminated(when: Callable[[], bool], *arguments: object) -> str:
    """The last line of a command that SIGTERM ended as soon as something was true."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            if when():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        code, lines = command(*arguments)
    finally:
        over.set()
        watcher.join()
    assert code == 143, lines
    return lines[-1]


def some(pattern: str) -> Callable[[], bool]:
    """Whether there is a file like this that was not there before."""
    known = set(Path().glob(pattern))
    return lambda: any(path not in known for path in Path().glob(pattern))


def facts(path: Path) -> dict[str, Any]:
    result = json.loads((path / "result.json").read_text())
    return {name: result[name] for name in ("hash", "metrics", "layers", "adapter", "bytes", "verdict")}


# -- SIGTERM ------------------------------------------------------------------------------------------------

MOMENTS = [
    "run/lock",
    "run/rounds.parquet/*-pretrain-*1.parquet",
    "run/rounds.parquet/*-rank-*",
    "run/rounds.parquet/*-saliency-*1.parquet",
    "run/rounds.parquet/*-unlearn-*1.parquet",
    "run/rounds.parquet/*-retrain-*1.parquet",
    "run/retrained.safetensors",
]
"""Files that say that a phase is under way: the start, each phase of rounds, the audit."""


@pytest.mark.parametrize("moments", [MOMENTS[4::2], pytest.param(MOMENTS, marks=pytest.mark.slow)])
def test_sigterm_in_each_phase_and_then_the_same_bits(tmp_path: Path, moments: list[str]) -> None:
    fields = settings(*SMALL, "engine.backend=local")
    arguments: list[object] = ["run", *fields, "--set", "output.dir=run"]
    stopped = 0
    for moment in moments:
        if any(Path().glob(moment)):  # the run got further than that before it stopped
            continue
        line = terminated(some(moment), *arguments)
        assert line.startswith("fused-ray: stopped")
        assert line.endswith(f"; continue with: fused-ray run --resume {tmp_path / 'run'}")
        arguments = ["run", "--resume", "run"]
        stopped += 1
    assert 2 * stopped >= len(moments)
    assert command(*arguments)[0] == 0
    assert command("run", *fields, "--set", "output.dir=whole")[0] == 0
    assert facts(tmp_path / "run") == facts(tmp_path / "whole")


def test_each_command_says_how_it_goes_on(tmp_path: Path) -> None:
    local = settings("base.engine.backend=local", "base.output.plots=none", "output.dir=a b")
    for name, text in (
        ("sweep", "space: {unlearn.sparsity: {grid: [0.5, 0.9]}}"),
        ("compare", "methods: [fused]\nscenarios: [class]"),
    ):
        Path(f"{name}.yaml").write_text(f"base: {BASE}\n{text}\n")
        line = terminated(some("a b/lock"), name, f"{name}.yaml", *local)
        assert line.endswith(f"; continue with: fused-ray {name} --resume '{tmp_path / 'a b'}'")
        Path("a b").rename(name)


def test_an_audit_that_was_stopped_is_started_again(tmp_path: Path) -> None:
    short = [f"{phase}.rounds=1" for phase in ("pretrain", "unlearn", "retrain")]
    config = RunConfig.from_dict({}, [*SMALL, *short, "engine.backend=local", "audit.enabled=false", "output.dir=one"])
    run(config)
    line = terminated(some("one/audit/*"), "audit", "one", "--full")
    assert line.endswith(f"; continue with: fused-ray audit {tmp_path / 'one'} --full")


@pytest.mark.slow
def test_an_audit_that_was_stopped_in_a_run_goes_on_with_it(tmp_path: Path) -> None:
    fields = settings(*SMALL, "engine.backend=local", "audit.shadows=1", "output.dir=two")
    line = terminated(some("two/audit/*"), "run", *fields)
    assert line.endswith(f"; continue with: fused-ray run --resume {tmp_path / 'two'}")


def test_sigterm_is_the_callers_again() -> None:
    came = []
    signal.signal(signal.SIGTERM, ours := lambda number, frame: came.append(number))
    with sigterm_kept():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(15))
    assert signal.getsignal(signal.SIGTERM) is ours
    with contextlib.suppress(SystemExit), sigterm_kept():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(15))
        signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is ours
    command("show", "nowhere")
    assert signal.getsignal(signal.SIGTERM) is ours


IN_C = """
import ctypes, importlib.util, signal
handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)
ctypes.CDLL(None).signal(signal.SIGTERM, handler)
found = importlib.util.find_spec("_signal")
found.loader.exec_module(importlib.util.module_from_spec(found))  # reads the handlers anew, as Python's start does
assert signal.getsignal(signal.SIGTERM) is None
from fused_ray.stopping import sigterm_as_ctrl_c
with sigterm_as_ctrl_c():
    pass
"""


def test_a_handler_in_c_cannot_be_given_back() -> None:
    process = start([sys.executable, "-c", IN_C])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_what_is_stopped_outside_its_work_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(os, "mkdir", create)
    code, lines = command("run", *settings("engine.backend=local", "output.dir=run"))
    assert (code, lines) == (143, ["fused-ray: interrupted"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_on_ray_in_each_phase_and_then_the_same_bits(tmp_path: Path) -> None:
    longer = [*SMALL, "pretrain.rounds=20", "unlearn.rounds=40", "retrain.rounds=20"]
    command("run", *settings(*longer, "engine.backend=local", "output.dir=whole"))
    arguments = ["run", *settings(*longer, "output.dir=run")]
    stopped = 0
    for moment in MOMENTS:
        if any(Path().glob(moment)):  # the run got further than that before it stopped
            continue
        there = some(moment)
        process = start([sys.executable, "-m", "fused_ray", *arguments])
        wait_until(there, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143, errors
        assert errors.endswith(f"; continue with: fused-ray run --resume {tmp_path / 'run'}\n")
        assert "Traceback" not in errors
        arguments = ["run", "--resume", "run"]
        stopped += 1
    assert stopped >= 4
    assert resume("run")["reversible"]
    assert facts(tmp_path / "run") == facts(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["run", "run/rounds.parquet/*-pretrain-*"])
def test_sigterm_for_all_of_ray_as_well(tmp_path: Path, moment: str) -> None:
    """As a batch system ends a step: each of its processes gets the signal."""
    process = start(
        [sys.executable, "-m", "fused_ray", "run", *settings(*SMALL, "pretrain.rounds=50", "output.dir=run")]
    )
    wait_until(some(moment), process)
    members = family(process)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 143, errors
    assert errors.endswith(f"; continue with: fused-ray run --resume {tmp_path / 'run'}\n")
    _, alive = psutil.wait_procs(members, timeout=20)
    assert not alive


# -- a start that fails -------------------------------------------------------------------------------------

FAILING = ["data.partition=file", "data.partition_file=bad.csv"]
"""What is wrong with it shows once the data are read."""


@pytest.fixture
def _bad(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("client,example\n0,0\n")


@pytest.mark.usefixtures("_bad")
def test_a_start_that_failed_is_not_in_the_way(tmp_path: Path) -> None:
    fields = [*SMALL, "engine.backend=local", "output.dir=run"]
    code, lines = command("run", *settings(*fields, *FAILING))
    assert (code, Path("run").exists()) == (2, False), lines
    assert not any(tmp_path.glob(".*")), "nor anything beside it"
    RunDirectory.create("run", RunConfig.from_dict({}, fields))
    for name, text in (
        ("sweep", "space: {unlearn.sparsity: {grid: [0.5, 0.9]}}"),
        ("compare", "methods: [fused]\nscenarios: [class]"),
    ):
        Path("c.yaml").write_text(f"base: {BASE}\n{text}\n")
        local = ["base.engine.backend=local", f"output.dir={name}", *(f"base.{field}" for field in FAILING)]
        code, lines = command(name, "c.yaml", *settings(*local))
        assert (code, Path(name).exists()) == (2, False), lines


@pytest.mark.usefixtures("_bad")
def test_what_was_there_stays_when_it_fails(tmp_path: Path) -> None:
    """A method that does not learn after pre-training did, and a run that is resumed where its data are not."""
    fields = [*SMALL, "engine.backend=local", "output.dir=run", "unlearn.lr=1e-12", "pretrain.rounds=1"]
    code, lines = command("run", *settings(*fields))
    assert code == 2
    assert "training changed nothing" in lines[-1]
    assert len(list(Path("run/rounds.parquet").glob("*-pretrain-*"))) == 1
    directory = RunDirectory.create("other", RunConfig.from_dict({}, [*SMALL, "engine.backend=local", *FAILING]))
    with directory.attempt():
        pass  # who made it is gone
    code, lines = command("run", "--resume", directory.path)
    assert code == 2
    assert "bad.csv" in lines[-1]
    assert Path("other/config.yaml").exists()


@pytest.mark.usefixtures("_bad")
def test_an_earlier_run_comes_back_when_its_successor_fails() -> None:
    fields = [*SMALL, "engine.backend=local", "output.dir=run"]
    earlier = RunDirectory.create("run", RunConfig.from_dict({}, [*fields, "seed=5"]))
    with earlier.attempt():
        pass  # who made it is gone
    (earlier.path / "result.json").write_text("{}")
    code, lines = command("run", "--overwrite", *settings(*fields, *FAILING))
    assert code == 2
    assert "bad.csv" in lines[-1]
    assert RunDirectory.open("run").config.seed == 5
    assert Path("run/result.json").exists()


class Whole:
    """torchvision's loader on a good connection."""

    def __init__(self, root: str, download: bool = False) -> None:
        folder = Path(root) / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for file in torchvision_sets._IDX:
            (folder / f"{file}.gz").write_bytes(b"here")


class BrokenOff(Whole):
    """The same on a connection that ends within the last file."""

    def __init__(self, root: str, download: bool = False) -> None:
        super().__init__(root, download)
        raise RuntimeError("connection reset")


def test_a_download_that_broke_off_is_not_taken_for_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_sets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(import_torchvision().datasets, "MNIST", BrokenOff)
    with pytest.raises(DataError, match="connection reset"):
        torchvision_sets.read("mnist", torchvision_sets.find("mnist", None))
    assert torchvision_sets.find("mnist", None) is None
    assert not any((tmp_path / "cache").rglob("*.gz"))


@pytest.mark.parametrize("faster", [True, False])
def test_of_two_downloads_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    """The other one comes to its end at the last moment, or left a part of the files long ago."""
    monkeypatch.setattr(torchvision_sets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(import_torchvision().datasets, "MNIST", Whole)
    target, files = tmp_path / "cache" / "MNIST" / "raw", [f"{file}.gz" for file in torchvision_sets._IDX]
    rename = Path.rename

    def other(names: list[str]) -> None:
        target.mkdir(parents=True)
        for name in names:
            (target / name).write_bytes(b"there")

    def late(self: Path, place: Path) -> Path:
        if faster and not target.exists():
            other(files)
        return rename(self, place)

    if not faster:
        other(files[:2])
    monkeypatch.setattr(Path, "rename", late)
    assert torchvision_sets._download("mnist") == target
    assert {file: (target / file).read_bytes() for file in files} == dict.fromkeys(
        files, b"there" if faster else b"here"
    )
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["MNIST"]


def test_a_disk_without_locks_is_told_from_a_busy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory.create("run", RunConfig())
    other = RunDirectory.open("run")
    other.lock(0)
    with pytest.raises(RunDirectoryError, match=f"is being written by another run .process {os.getpid()}"):
        directory.lock(0)
    other.unlock()
    for code in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        monkeypatch.setattr(fcntl, "flock", refusing(code))
        began = time.monotonic()
        with pytest.raises(
            RunDirectoryError, match=r"its file system has no locks .*; choose an output.dir on another"
        ):
            directory.lock(60)
        assert time.monotonic() - began < 5


def refusing(code: int) -> Callable[[int, int], None]:
    def flock(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    return flock


@pytest.mark.parametrize("uri", ["gs://bucket/run", "file:///tmp/r", "S3A://b/r"])
def test_results_go_to_folders_and_s3_alone(tmp_path: Path, uri: str) -> None:
    scheme = uri.partition(":")[0]
    Path("s.yaml").write_text(f"base: {BASE}\nspace: {{unlearn.sparsity: {{grid: [0.5]}}}}\n")
    Path("c.yaml").write_text(f"base: {BASE}\nmethods: [fused]\nscenarios: [class]\n")
    for arguments in (
        ("run", "--set", f"output.dir={uri}"),
        ("sweep", "s.yaml", "--set", f"output.dir={uri}"),
        ("sweep", "s.yaml", "--set", f"output.store={uri}"),
        ("compare", "c.yaml", "--set", f"output.dir={uri}"),
        ("run", "--resume", uri),
        ("show", uri),
        ("audit", uri),
        ("init", f"{uri}.yaml"),
    ):
        code, lines = command(*arguments)
        assert (code, len(lines)) == (2, 1), (arguments, lines)
        assert (
            f"of this machine is wanted, not {scheme}:" in lines[0]
            or f"s3://BUCKET/FOLDER, not to {scheme}:" in lines[0]
        )
    for arguments in (
        ("sweep", "s.yaml", "--set", "output.store=s3://bucket/store"),
        ("init", "s3://bucket/run.yaml"),
    ):
        code, lines = command(*arguments)
        assert (code, len(lines)) == (2, 1), (arguments, lines)
        assert "a file or folder of this machine is wanted, not s3:" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "s.yaml"]
