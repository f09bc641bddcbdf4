"""A start that came to nothing takes back what is its own alone, and leaves the place as it found it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from fused_ray.config import RunConfig
from fused_ray.errors import (
    ClientFailedError,
    ConfigError,
    DataError,
    FusedRayError,
    OutOfMemoryError,
    RunDirectoryError,
)
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.display import show_unfinished
from fused_ray.runs.start import prepare
from fused_ray.storage import folder
from fused_ray.storage import place as place_module
from fused_ray.storage.folder import kind_of_folder
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.display import show_comparison
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.display import show_sweep

CONFIG = RunConfig.from_dict({"seed": 5})
OTHER = RunConfig.from_dict({"seed": 6})
ROWS = pa.table({"round": [1]})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "one"


def names(place: Path) -> list[str]:
    """What lies at the place and beside it."""
    return sorted(path.name for path in place.parent.iterdir())


def finished(place: Path, config: RunConfig = CONFIG) -> RunDirectory:
    run = RunDirectory.create(place, config)
    run.lock(0)
    run.write_part("rounds", "1-pretrain-000001", ROWS)
    run.write_json("result.json", {"metrics": 1})
    run.unlock()
    return run


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


# -- what a start that was killed left


def killed_in_between(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier folder has gone, its successor has not come, and nothing is undone any more."""
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if Path(target) == place:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", broken)
        with pytest.raises(KeyboardInterrupt):
            RunDirectory.create(place, OTHER, overwrite=True)
    assert names(place) == [".one.before-overwrite"]


def refused(place: Path) -> None:
    with pytest.raises(RunDirectoryError, match="exists already"):
        RunDirectory.create(place, OTHER)


@pytest.mark.parametrize(
    "touched",
    [RunDirectory.open, kind_of_folder, refused],
    ids=["open", "show", "run"],
)
@pytest.mark.parametrize("linked", [False, True])
def test_an_earlier_run_that_waits_comes_back_to_an_empty_place(
    place: Path, monkeypatch: pytest.MonkeyPatch, touched: Callable[[Path], object], linked: bool
) -> None:
    finished(place)
    killed_in_between(place, monkeypatch)
    if linked:
        (place.parent / "link").symlink_to(place)
    touched(place.parent / "link" if linked else place)
    assert RunDirectory.open(place).result == {"metrics": 1}
    assert names(place) == (["link"] if linked else []) + ["one"]


def test_a_request_that_begins_with_it_says_how_it_comes_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(place)
    killed_in_between(place, monkeypatch)
    with pytest.raises(ConfigError, match=f"there is no run or file {place}; what .*: mv .*before-overwrite {place}$"):
        prepare(RunConfig.from_dict({}, [f"pretrain.from={place}", f"output.dir={place.parent / 'other'}"]))


def test_what_another_command_is_just_replacing_is_left_to_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(place)
    rename = Path.rename

    def seen(self: Path, target: Path) -> Path:
        if Path(target) == place and not place.exists():
            with pytest.raises(RunDirectoryError, match="no such folder; what --overwrite was to replace is still"):
                RunDirectory.open(place)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", seen)
    assert RunDirectory.create(place, OTHER, overwrite=True).config == OTHER


@pytest.mark.parametrize("linked", [False, True])
def test_whoever_asks_hears_how_the_earlier_run_comes_back(
    place: Path, capsys: pytest.CaptureFixture[str], linked: bool
) -> None:
    finished(place)
    if linked:
        (place.parent / "link").symlink_to(place)
    asked = place.parent / "link" if linked else place
    RunDirectory.create(asked, OTHER, overwrite=True)  # and killed
    new = RunDirectory.open(asked)
    how = f"rm -r {place} && mv {place.with_name('.one.before-overwrite')} {place}"
    with pytest.raises(RunDirectoryError, match="is not finished; continue it with: ") as unfinished:
        new.result  # noqa: B018
    with pytest.raises(RunDirectoryError, match="exists already") as refused:
        RunDirectory.create(asked, OTHER)
    show_unfinished(new)
    for said in (str(unfinished.value), str(refused.value), capsys.readouterr().out.strip()):
        assert said.endswith(f"what --overwrite was to replace is still beside it, and comes back with: {how}")
        assert "\n" not in said
    subprocess.run(how, shell=True, check=True)
    assert RunDirectory.open(asked).result == {"metrics": 1}
    assert place_module.told(asked) == ""


def test_what_waits_is_let_go_by_who_goes_on_through_a_link(place: Path) -> None:
    (place.parent / "disk").mkdir()
    place.symlink_to(place.parent / "disk")
    finished(place)
    RunDirectory.create(place, OTHER, overwrite=True)  # and killed
    run = RunDirectory.open(place)
    with run.attempt():
        run.lock(0)
        run.write_part("rounds", "1-pretrain-000001", ROWS)
    assert names(place) == ["disk", "one"]


def test_a_name_that_leaves_no_room_for_another_beside_it(tmp_path: Path) -> None:
    place = tmp_path / ("n" * 250)
    with pytest.raises(RunDirectoryError, match=r"there is no such folder$"):
        RunDirectory.open(place)
    finished(tmp_path / "one").path.rename(place)
    assert RunDirectory.open(place).result == {"metrics": 1}
    with pytest.raises(RunDirectoryError, match=r"with --overwrite$"):
        RunDirectory.create(place, OTHER)
    with pytest.raises(RunDirectoryError, match=r"cannot create .*: File name too long"):
        RunDirectory.create(place, OTHER, overwrite=True)
    assert RunDirectory.open(place).result == {"metrics": 1}


def test_a_sweep_and_a_comparison_say_it_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = SweepConfig.from_dict({"base": {}, "space": {"unlearn.sparsity": {"grid": [0.5]}}})
    comparison = CompareConfig.from_dict({"methods": ["fused"], "scenarios": ["class"]})
    for kind, config, show in (
        (SweepDirectory, sweep, show_sweep),
        (ComparisonDirectory, comparison, show_comparison),
    ):
        there = place / kind.FORMAT.split()[1]
        finished(kind.create(there, config).path / "x")
        kind.create(there, config, overwrite=True)
        show(kind.open(there))
        assert f"comes back with: rm -r {there} && mv " in capsys.readouterr().out


# -- what is said


def test_the_users_traceback_is_kept(place: Path) -> None:
    def users() -> None:
        json.loads("{")

    def read() -> None:
        try:
            users()
        except ValueError as error:
            raise DataError("bad data") from error

    with pytest.raises(DataError) as caught, RunDirectory.create(place, CONFIG).attempt():
        read()
    assert "in users" in "".join(traceback.format_exception(caught.value))


def test_memory_that_ran_out_goes_on_and_keeps_its_traceback(place: Path) -> None:
    with pytest.raises(OutOfMemoryError) as caught, finished(place).attempt():
        raise MemoryError
    assert isinstance(caught.value.__cause__, MemoryError)
    assert str(caught.value).endswith(f"; continue with: fused-ray run --resume {place}")
