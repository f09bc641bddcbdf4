"""A start that came to nothing takes back what is its own alone, and puts back what stood there."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from fused_ray.errors import (
    ClientFailedError,
    DataError,
    FusedRayError,
    RunDirectoryError,
)
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage import folder
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from tests.unit.storage.places import CONFIG, OTHER, ROWS, finished, names


def fail(run: RunDirectory, error: Exception | None = None) -> str:
    """A start that fails within two attempts, as a command's does within a call's; what it says."""
    error = error or DataError("bad data")
    with pytest.raises(type(error)) as caught, run.attempt(), run.attempt():
        raise error
    return str(caught.value)


# -- whose the folder is


def test_a_start_that_failed_is_gone(place: Path) -> None:
    assert "continue with" not in fail(RunDirectory.create(place, CONFIG), ClientFailedError("its actor died"))
    assert names(place) == []
    fail(RunDirectory.create(place, CONFIG), TypeError("a fault"))
    assert names(place) == []


def test_what_another_process_writes_stays(place: Path) -> None:
    first = RunDirectory.create(place, CONFIG)
    second = RunDirectory.open(place)
    second.lock(0)
    with pytest.raises(RunDirectoryError, match="is being written by another run"), first.attempt():
        first.lock(0)
    second.write_part("rounds", "1-pretrain-000001", ROWS)
    second.unlock()
    fail(first)
    assert RunDirectory.open(place).table("rounds").num_rows == 1


@pytest.mark.parametrize("locked", [False, True])
def test_a_later_folder_at_the_same_place_stays(place: Path, locked: bool) -> None:
    first = RunDirectory.create(place, CONFIG)
    first.lock(0)
    shutil.rmtree(place)
    later = RunDirectory.create(place, OTHER)
    if locked:
        later.lock(0)
    with pytest.raises(RunDirectoryError, match="was taken over"), first.attempt():
        first.write("note.txt", b"")
    first.unlock()
    assert RunDirectory.open(place).config == OTHER
    assert names(place) == ["one"]


def test_a_number_that_the_disk_gives_again_is_no_proof(place: Path) -> None:
    """Disks give the numbers of removed files to new ones; the rest of a mark tells them apart."""
    first = RunDirectory.create(place, CONFIG)
    about = place / "environment.json"
    before = about.stat()
    os.utime(about, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    fail(first)
    assert names(place) == ["one"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LOCK_WAIT", 0.0)
    monkeypatch.setattr(folder, "OVERWRITE_WAIT", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("resumed", [False, True])
def test_a_second_start_is_refused_before_the_driver_of_the_first_has_the_lock(place: Path, resumed: bool) -> None:
    """On Ray some time passes until the driver locks the folder."""
    first = RunDirectory.create(place, CONFIG)
    if resumed:
        del first  # and killed
        first = RunDirectory.open(place)
    with first.attempt():
        for _ in range(2):
            with pytest.raises(RunDirectoryError, match=f"being written by another run .process {os.getpid()}."):
                RunDirectory.create(place, OTHER, overwrite=True)
        with (
            pytest.raises(RunDirectoryError, match="being written by another run"),
            RunDirectory.open(place).attempt(),
        ):
            raise AssertionError("no second attempt begins")
        driver = RunDirectory.open(place, first.mark)
        driver.lock(0)
        driver.write_part("rounds", "1-pretrain-000001", ROWS)
        driver.unlock()
    assert RunDirectory.open(place).config == CONFIG
    RunDirectory.create(place, OTHER, overwrite=True)  # once the first is over


def test_a_driver_that_comes_late_leaves_a_later_folder_alone(place: Path) -> None:
    """The command that started it was killed, and so will it be; meanwhile another start replaced the folder."""
    first = RunDirectory.create(place, CONFIG)
    mark, driver, resumed = first.mark, RunDirectory.open(place, first.mark), RunDirectory.open(place)
    del first
    second = RunDirectory.create(place, OTHER, overwrite=True)
    late = RunDirectory.open(place, mark)
    for writer in (driver, late, resumed):
        with pytest.raises(RunDirectoryError, match="was taken over by another run"):
            writer.lock(0)
    second.lock(0)  # they let go of it
    second.unlock()
    assert RunDirectory.open(place).table("rounds").num_rows == 0


def test_a_lock_of_a_folder_that_is_gone_is_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(place, CONFIG)
    flock = fcntl.flock

    def late(handle: int, operation: int) -> None:
        place.rename(place.with_name("gone"))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(RunDirectoryError, match="was taken over"):
        run.lock(0)


# -- what stood there before


def test_an_earlier_run_comes_back(place: Path) -> None:
    finished(place)
    fail(RunDirectory.create(place, OTHER, overwrite=True))
    assert RunDirectory.open(place).config == CONFIG
    assert RunDirectory.open(place).result == {"metrics": 1}
    assert names(place) == ["one"]


def test_an_earlier_run_is_gone_once_the_new_one_is_of_worth(place: Path) -> None:
    finished(place)
    run = RunDirectory.create(place, OTHER, overwrite=True)
    run.lock(0)
    run.write_part("rounds", "1-pretrain-000001", ROWS)
    run.unlock()
    assert ".one.before-overwrite" in names(place)
    fail(run)
    assert RunDirectory.open(place).config == OTHER
    assert names(place) == ["one"]


def test_an_earlier_run_outlives_starts_that_were_killed(place: Path) -> None:
    finished(place)
    for _ in range(2):
        RunDirectory.create(place, OTHER, overwrite=True)  # and killed: no attempt ends
    fail(RunDirectory.create(place, OTHER, overwrite=True))
    assert RunDirectory.open(place).config == CONFIG
    RunDirectory.create(place, OTHER, overwrite=True)
    resumed = RunDirectory.open(place)
    with resumed.attempt():
        resumed.lock(0)
        resumed.write_part("rounds", "1-pretrain-000001", ROWS)
    assert names(place) == ["one"]


def test_a_sweep_with_runs_in_it_comes_back(place: Path) -> None:
    config = SweepConfig.from_dict({"base": {}, "space": {"unlearn.sparsity": {"grid": [0.5]}}})
    SweepDirectory.create(place, config)
    finished(place / "trials" / "0")
    with pytest.raises(FusedRayError), SweepDirectory.create(place, config, overwrite=True).attempt():
        raise DataError("bad data")
    assert (place / "trials" / "0" / "result.json").exists()


def test_an_empty_folder_of_the_users_comes_back_as_it_was(place: Path) -> None:
    place.mkdir(mode=0o700)
    before = place.stat()
    fail(RunDirectory.create(place, CONFIG))
    after = place.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert names(place) == ["one"]


def test_a_link_to_a_folder_stays_one(place: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    place.symlink_to(tmp_path / "disk")
    finished(place)
    fail(RunDirectory.create(place, OTHER, overwrite=True))
    assert place.is_symlink()
    assert RunDirectory.open(place).config == CONFIG
    assert names(place) == ["disk", "one"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_ends_the_exchange_in_between_undoes_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    finished(place)
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if Path(target) == place and (self / "config.yaml").read_text() == OTHER.to_yaml():
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises((RunDirectoryError, KeyboardInterrupt)):
        RunDirectory.create(place, OTHER, overwrite=True)
    assert RunDirectory.open(place).config == CONFIG
    assert names(place) == ["one"]
