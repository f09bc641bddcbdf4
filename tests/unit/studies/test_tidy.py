"""`fused-ray clean`: only what nothing needs goes, only on request, and what is told of it is true."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fused_ray import SweepConfig
from fused_ray.cli.app import main
from fused_ray.core.rounds import Saved
from fused_ray.errors import RunDirectoryError
from fused_ray.runs.checkpoints import encode_saved
from fused_ray.runs.directory import RunDirectory
from fused_ray.studies.store import pretraining
from fused_ray.studies.sweeps.directory import SweepDirectory
from fused_ray.studies.tidy import Tidied, clear, look
from fused_ray.types import Payload
from tests.pages import results

OLD = Path(__file__).parents[1] / "runs"
CHECKPOINT = encode_saved(Saved(round=1, payload=Payload(np.ones(9, np.float32)), metrics={}))
ONE = len(CHECKPOINT)
TENSORS = save({"x": np.ones(3, np.float32)})
"""What a training once more for an audit leaves; it is no checkpoint."""
SPARE = {
    *("checkpoints/pretrain", "checkpoints/unlearn", "checkpoints/retrain", "history/000000", "history/000001"),
    *("audit/shadow-1", "audit/retrain-2"),
}
ANEW = "audit/anew/swap-1"
KEPT = {"checkpoints/rank"}
"""What a later run takes over."""
STRANGE = {"checkpoints/mine", "history/mine", "checkpoints/.pretrain"}
"""Files that have the right content, but no name of this program's."""


def furnished(run: Path) -> Path:
    """A finished run with all that it kept to go on, files that nobody knows among it."""
    shutil.copytree(OLD / "old_run", run, dirs_exist_ok=True)
    for name in SPARE | KEPT | STRANGE:
        path = run / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(CHECKPOINT)
    (run / "audit" / "anew").mkdir()
    (run / f"{ANEW}.safetensors").write_bytes(TENSORS)
    (run / "checkpoints" / "saliency.safetensors").write_text("not one")
    (run / "audit" / "notes.safetensors").write_bytes(TENSORS)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return furnished(tmp_path / "run")


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def names(found: Tidied) -> set[str]:
    return {each.name.removesuffix(".safetensors") for each in found.files}


def test_looking_changes_nothing_and_deleting_removes_what_was_shown(run: Path) -> None:
    before = tree(run)
    shown = look(run)
    assert tree(run) == before
    assert names(shown) == SPARE | {ANEW}
    assert shown.left == []
    assert shown.bytes == len(SPARE) * ONE + len(TENSORS)
    assert clear(run) == shown
    assert before - tree(run) == {each.name for each in shown.files}
    assert tree(run) - before == {"lock", "command.lock"}
    assert look(run).files == []


def test_a_file_that_is_linked_twice_frees_nothing(run: Path, tmp_path: Path) -> None:
    os.link(run / "history" / "000000.safetensors", tmp_path / "again")
    shown = look(run)
    assert "history/000000" in names(shown)
    assert shown.bytes == sum((run / each.name).stat().st_size for each in shown.files) - ONE


def test_links_are_not_followed(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (run / "history").rename(elsewhere)
    os.symlink(elsewhere, run / "history")
    (run / "checkpoints" / "retrain.safetensors").unlink()
    os.symlink(elsewhere / "000000.safetensors", run / "checkpoints" / "retrain.safetensors")
    before = tree(elsewhere)
    found = clear(run)
    assert names(found) == {*SPARE, ANEW} - {"history/000000", "history/000001", "checkpoints/retrain"}
    assert tree(elsewhere) == before
    assert (run / "checkpoints" / "retrain.safetensors").is_symlink()


def test_a_link_that_is_named_stands_for_its_run(run: Path, tmp_path: Path) -> None:
    os.symlink(run, tmp_path / "linked")
    assert names(clear(tmp_path / "linked")) == SPARE | {ANEW}
    assert not (run / "checkpoints" / "pretrain.safetensors").exists()


def test_an_unfinished_run_is_left_alone(run: Path) -> None:
    (run / "result.json").unlink()
    before = tree(run)
    for found in (look(run), clear(run)):
        assert found.files == []
        assert found.left == [f"{run} is not finished; continue it with: fused-ray run --resume {run}"]
    assert before <= tree(run)


def test_a_run_that_somebody_works_on_is_left_alone(run: Path) -> None:
    directory = RunDirectory.open(run)
    directory.lock(0)
    before = tree(run)
    for found in (look(run), clear(run)):
        assert found.files == []
        (line,) = found.left
        assert line == f"{run} is being written by another run (process {os.getpid()}); wait for it or end it"
    assert before <= tree(run)
    directory.unlock()
    assert names(clear(run)) == SPARE | {ANEW}


@pytest.mark.parametrize("place", ["mine", "empty"])
def test_what_is_no_folder_of_results_is_refused_before_anything_goes(
    run: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "checkpoints").mkdir()
    (tmp_path / "mine" / "checkpoints" / "pretrain.safetensors").write_bytes(CHECKPOINT)
    before = tree(tmp_path)
    with pytest.raises(RunDirectoryError):
        clear(tmp_path / place)
    with pytest.raises(SystemExit) as ended:
        main(["clean", str(run), str(tmp_path / place), "--delete"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert tree(tmp_path) == before


def test_nothing_beside_the_folder_is_touched(run: Path) -> None:
    waiting = run.parent / ".run.before-overwrite"  # of an --overwrite that was killed
    waiting.mkdir()
    (waiting / "result.json").write_text("{}")
    beside = tree(run.parent) - {f"run/{name}" for name in tree(run)}
    assert names(clear(run)) == SPARE | {ANEW}
    assert tree(run.parent) - {f"run/{name}" for name in tree(run)} == beside


def test_a_run_whose_configuration_cannot_be_read_is_left_alone(run: Path) -> None:
    (run / "config.yaml").write_text("unlearn: {method: other}")
    for found in (look(run), clear(run)):
        assert found.files == []
        (line,) = found.left
        assert line.startswith(f"{run} cannot be read: ")
    assert (run / "checkpoints" / "pretrain.safetensors").exists()


def test_a_run_of_an_earlier_version_is_left_alone(tmp_path: Path) -> None:
    old = Path(shutil.copytree(OLD / "released_run", tmp_path / "old"))
    (old / "checkpoints").mkdir()
    (old / "checkpoints" / "pretrain.safetensors").write_bytes(CHECKPOINT)
    assert clear(old) == Tidied(str(old), [], [f"{old} is of an earlier version"])
    assert (old / "checkpoints" / "pretrain.safetensors").exists()


# -- studies


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished comparison with a cell, a base, a run that is not finished, and shadow models."""
    study = results.comparison(tmp_path / "compared")
    for name in ("cells/class-0-good", "bases/class-0", "cells/class-1-good"):
        furnished(study / name)
    (study / "cells" / "class-1-good" / "result.json").unlink()
    (study / "shadows" / "class-0").mkdir()
    (study / "shadows" / "class-0" / "shadow-1.safetensors").write_bytes(CHECKPOINT)
    return study


def test_a_finished_study_is_rid_of_what_its_finished_runs_and_its_audits_kept(study: Path) -> None:
    before = tree(study)
    found = clear(study)
    inner = {f"{name}.safetensors" for name in SPARE | {ANEW}}
    expected = {f"{run}/{name}" for run in ("cells/class-0-good", "bases/class-0") for name in inner}
    assert before - tree(study) == expected | {"shadows/class-0/shadow-1.safetensors"}
    assert found.bytes == 2 * (len(SPARE) * ONE + len(TENSORS)) + ONE
    assert found.left == [f"1 run(s) in {study} that are not finished"]


@pytest.mark.parametrize("failed", [0, 1])
def test_of_a_study_that_may_go_on_checkpoints_alone_can_go(study: Path, failed: int) -> None:
    result = json.loads((study / "result.json").read_text())
    if failed:
        (study / "result.json").write_text(json.dumps(result | {"failed": failed}))
    else:
        (study / "result.json").unlink()
    found = clear(study)
    assert {each.kind for each in found.files} == {"checkpoints"}
    assert found.left[0] == f"{study} may go on: only checkpoints of its finished runs can go"
    assert (study / "shadows" / "class-0" / "shadow-1.safetensors").exists()
    assert (study / "bases" / "class-0" / "history" / "000000.safetensors").exists()


def test_of_a_run_in_a_study_checkpoints_alone_can_go(study: Path) -> None:
    assert {each.kind for each in clear(study / "bases" / "class-0").files} == {"checkpoints"}


def test_a_model_that_studies_share_keeps_its_history(tmp_path: Path) -> None:
    config = RunDirectory.open(furnished(tmp_path / "run")).config
    swept = SweepConfig.from_dict({"space": {"unlearn.layers": {"grid": [1, 2]}}})
    sweep = SweepDirectory.create(tmp_path / "sweep", swept)
    with sweep.attempt():
        sweep.lock(0)
        sweep.write_json("result.json", {"failed": 0})
        sweep.unlock()
    shared = Path(pretraining(sweep.path / "store", config).output.dir)
    shutil.copytree(tmp_path / "run", shared)
    inside = f"store/models/{shared.name}"
    (tmp_path / "link").symlink_to(shared)
    # neither its place by a link, nor a field that was changed since, makes it another model
    (shared / "config.yaml").write_text((shared / "config.yaml").read_text().replace("alpha: 1.0", "alpha: 2.0"))
    for found in (look(sweep.path), look(shared), look(tmp_path / "link")):
        assert {each.kind for each in found.files} == {"checkpoints", "models of audits"}
    clear(sweep.path)
    assert (sweep.path / inside / "history" / "000000.safetensors").exists()
    assert not (sweep.path / inside / "checkpoints" / "pretrain.safetensors").exists()


# -- shown


def test_it_says_first_what_is_lost_and_then_what_was_freed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["clean", str(run), *words])
        assert ended.value.code == 0
        return capsys.readouterr().out

    whole = look(run).bytes
    shown = said()
    assert "history: no later or unfinished run can begin with these runs' models" in shown
    assert f"nothing was removed; with --delete it is, and that frees {whole / 1000:.1f} KB" in shown
    told = json.loads(said("--delete", "--json"))
    assert (told["deleted"], told["bytes"], told["folders"][0]["bytes"]) == (True, whole, whole)
    assert told["folders"][0]["kinds"]["history"] == {"files": 2, "bytes": 2 * ONE}
    assert said("--delete") == "freed 0 B\n"
    assert said() == "nothing can go\n"
