"""What a start that was killed left: whoever asks hears of it, and gets it back."""

from __future__ import annotations

import json
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from fused_ray.config import RunConfig
from fused_ray.errors import (
    ConfigError,
    DataError,
    OutOfMemoryError,
    RunDirectoryError,
)
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.display import show_unfinished
from fused_ray.runs.start import prepare
from fused_ray.storage import place as place_module
from fused_ray.storage.folder import kind_of_folder
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.comparisons.display import show_comparison
from fused_ray.studies.sweeps.config import SweepConfig
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.sweeps.display import show_sweep
from tests.unit.storage.places import CONFIG, OTHER, ROWS, finished, names

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
