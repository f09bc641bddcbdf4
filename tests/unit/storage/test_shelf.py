"""Folders of results as they lie: which there are, what they take, who works on them; nothing of them is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fused_ray.errors import RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.shelf import found
from tests.unit.storage.places import finished


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Two runs at different depths, one of them in a study, beside what is none."""
    finished(tmp_path / "one")
    finished(tmp_path / "deep" / "below" / "two")
    finished(tmp_path / "study" / "trials" / "0000")
    (tmp_path / "study" / "environment.json").write_text("{}")
    (tmp_path / "study" / "sweep.yaml").write_text("x: 1234")
    (tmp_path / "study" / "command.lock").write_text("")
    (tmp_path / "other" / "src").mkdir(parents=True)
    (tmp_path / "other" / "result.json").write_text("{}")  # one such name alone is anybody's
    (tmp_path / ".hidden").mkdir()
    finished(tmp_path / ".hidden" / "three")
    return tmp_path


def places(root: Path, inside: bool = False) -> list[str]:
    return [os.path.relpath(each.place, root) for each in found(root, inside)]


def test_folders_of_results_are_found_at_any_depth_and_those_of_studies_on_request(shelf: Path) -> None:
    assert places(shelf) == ["deep/below/two", "one", "study"]
    assert places(shelf, inside=True) == ["deep/below/two", "one", "study", "study/trials/0000"]
    assert places(shelf / "study", inside=True) == [".", "trials/0000"]
    assert places(shelf / "other") == []


def test_a_folder_has_the_bytes_of_all_its_files_and_one_inside_its_own(shelf: Path) -> None:
    study, trial = found(shelf / "study", inside=True)
    inside = sum(path.stat().st_size for path in (shelf / "study" / "trials").rglob("*") if path.is_file())
    assert trial.bytes == inside > 0
    assert study.bytes == inside + len("{}") + len("x: 1234")
    assert trial.json("result.json") == {"metrics": 1}
    assert study.text("sweep.yaml") == "x: 1234"


def test_a_link_is_followed_to_a_folder_of_results_alone_and_never_inside_one(shelf: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    os.symlink(shelf / "one", away / "linked")
    os.symlink(shelf, away / "loop")
    assert places(away) == ["linked"]
    before = found(shelf / "one")[0].bytes
    os.symlink(shelf / "deep", shelf / "one" / "more")
    (whole,) = found(shelf / "one", inside=True)
    assert whole.bytes - before == os.lstat(shelf / "one" / "more").st_size


def test_who_holds_a_lock_is_told_and_not_disturbed(shelf: Path) -> None:
    run = RunDirectory.open(shelf / "one")
    run.lock(0)
    assert found(shelf / "one")[0].owner == str(os.getpid())
    run.write("note", b"still the only writer")
    run.unlock()
    assert found(shelf / "one")[0].owner is None
    run.lock(0)
    run.unlock()


def test_what_cannot_be_read_is_one_line(shelf: Path) -> None:
    with pytest.raises(RunDirectoryError, match="there is no such folder"):
        found(shelf / "none")
    study = found(shelf / "study")[0]
    (shelf / "study" / "sweep.yaml").unlink()
    for name, told in (("result.json", "it has no result.json"), ("sweep.yaml", "sweep.yaml cannot be read")):
        with pytest.raises(RunDirectoryError, match=told):
            study.text(name)
    (shelf / "study" / "environment.json").write_text("[1")
    with pytest.raises(RunDirectoryError, match=r"environment\.json cannot be read"):
        found(shelf / "study")[0].json("environment.json")
