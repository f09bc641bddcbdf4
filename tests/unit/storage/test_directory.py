"""A run directory is whole from the start, has one writer, and is never taken for what it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from fused_ray.config import RunConfig
from fused_ray.errors import RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage.lock import Lock

CONFIG = RunConfig.from_dict({"seed": 5, "unlearn": {"layers": ["fc3"]}})
ROWS = pa.table({"round": [1, 2]})
HOLDER = """
import sys, time
from fused_ray.runs.directory import RunDirectory
directory = RunDirectory.open(sys.argv[1])
directory.lock(0)
print("locked", flush=True)
time.sleep(300)
"""


@pytest.fixture
def run(tmp_path):
    """A run directory that this process may write."""
    directory = RunDirectory.create(tmp_path / "runs" / "one", CONFIG)
    directory.lock(0)
    yield directory
    directory.unlock()


def tree(folder):
    """Every file below a folder with its content."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(path, **options):
    """The one-line message with which creating or opening a run there is refused."""
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.create(path, CONFIG, **options) if options else RunDirectory.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- creating


def test_a_new_run_is_complete_at_once_and_leaves_nothing_else(tmp_path):
    directory = RunDirectory.create(tmp_path / "runs" / "one", CONFIG)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one"]
    assert RunDirectory.open(directory.path).config == CONFIG
    assert directory.table("rounds").num_rows == 0
    assert (directory.path.stat().st_mode & 0o777) == 0o755


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "one").mkdir()
    assert RunDirectory.create(tmp_path / "one", CONFIG).config == CONFIG


def test_an_earlier_run_is_refused_with_what_can_be_done(run):
    run.write("note.txt", b"keep me")
    before = tree(run.path)
    message = refused(run.path, overwrite=False)
    assert "--resume" in message
    assert "--overwrite" in message
    assert tree(run.path) == before


def test_an_earlier_run_is_replaced_only_when_asked(tmp_path):
    first = RunDirectory.create(tmp_path / "one", CONFIG)
    with first.attempt():
        (first.path / "result.json").write_text("{}")
    other = RunConfig.from_dict({"seed": 6})
    second = RunDirectory.create(tmp_path / "one", other, overwrite=True)
    with second.attempt():
        second.lock(0)
        second.write_part("rounds", "1-pretrain-000001", ROWS)
    second.unlock()
    assert RunDirectory.open(tmp_path / "one").config == other
    assert not (tmp_path / "one" / "result.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    "content", [{"thesis.txt": "years of work"}, {"config.yaml": "seed: 1"}, {"environment.json": "{}"}]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, content, overwrite):
    (tmp_path / "mine").mkdir()
    for name, text in content.items():
        (tmp_path / "mine" / name).write_text(text)
    before = tree(tmp_path)
    refused(tmp_path / "mine", overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced_by_a_run(tmp_path, overwrite):
    (tmp_path / "mine").write_text("a file")
    refused(tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine").read_text() == "a file"


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot create" in refused(tmp_path / "file" / "run", overwrite=False)


# -- one writer


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the run in `one`."""
    RunDirectory.create(tmp_path / "one", CONFIG)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "one"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_kept_out_until_the_first_is_killed(tmp_path, holder):
    directory = RunDirectory.open(tmp_path / "one")
    with pytest.raises(RunDirectoryError, match=f"another run .process {holder.pid}.") as caught:
        directory.lock(0)
    assert "\n" not in str(caught.value)
    with pytest.raises(AssertionError, match="not locked"):
        directory.write("note.txt", b"")
    holder.kill()  # SIGKILL: it has no chance to clean up
    holder.wait()
    directory.lock(0)
    directory.write("note.txt", b"mine now")
    assert (tmp_path / "one" / "note.txt").read_bytes() == b"mine now"
    directory.unlock()


def test_two_writers_in_one_process_keep_each_other_out(run):
    other = RunDirectory.open(run.path)
    with pytest.raises(RunDirectoryError, match=f"process {os.getpid()}"):
        other.lock(0)
    run.unlock()
    other.lock(0)
    other.write("note.txt", b"")
    other.unlock()


def test_reading_needs_no_lock(run):
    run.write_json("result.json", {"metrics": 1})
    run.write_part("rounds", "1-pretrain-000001", ROWS)
    reader = RunDirectory.open(run.path)
    assert reader.result == {"metrics": 1}
    assert reader.table("rounds").to_pydict() == {"round": [1, 2]}


def test_a_writer_whose_folder_was_replaced_stops(run):
    run.path.rename(run.path.with_name("moved"))
    fresh = RunDirectory.create(run.path, CONFIG)
    before = tree(run.path)
    for write in (
        lambda: run.write("note.txt", b"stale"),
        lambda: run.write_json("result.json", {}),
        lambda: run.write_part("rounds", "1-pretrain-000001", ROWS),
        lambda: run.drop_parts({}),
    ):
        with pytest.raises(RunDirectoryError, match="taken over by another run"):
            write()
    fresh.lock(0)
    with pytest.raises(RunDirectoryError, match="taken over"):
        run.write("note.txt", b"stale")
    assert tree(run.path).keys() - before.keys() <= {"lock"}
    fresh.unlock()


def test_a_writer_whose_folder_is_gone_stops(run):
    run.path.rename(run.path.with_name("moved"))
    with pytest.raises(RunDirectoryError, match="taken over"):
        run.write("note.txt", b"stale")
    assert not run.path.exists()


# -- writing


def test_a_file_is_replaced_whole_and_nothing_partial_stays(run, monkeypatch):
    run.write("checkpoints/unlearn.safetensors", b"first")
    before = tree(run.path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fused_ray.storage.folder.os.fsync", full)
    with pytest.raises((OSError, RunDirectoryError)):
        run.write("checkpoints/unlearn.safetensors", b"second")
    monkeypatch.undo()
    after = tree(run.path)
    assert {name: after[name] for name in before} == before
    run.write("checkpoints/unlearn.safetensors", b"third")
    assert tree(run.path) == before | {"checkpoints/unlearn.safetensors": b"third"}


def test_a_part_that_was_cut_off_while_written_is_not_read(run):
    run.write_part("rounds", "1-pretrain-000001", ROWS)
    (run.path / "rounds.parquet" / ".1-pretrain-000002.parquet.tmp").write_bytes(b"PAR1")
    assert run.table("rounds").num_rows == 2


def test_parts_are_read_in_the_order_of_phases_and_rounds(run):
    for phase, number in (("3-unlearn", 1), ("1-pretrain", 10), ("1-pretrain", 9), ("2-rank", 1)):
        run.write_part("rounds", f"{phase}-{number:06d}", pa.table({"at": [f"{phase} {number}"]}))
    found = run.table("rounds").column("at").to_pylist()
    assert found == ["1-pretrain 9", "1-pretrain 10", "2-rank 1", "3-unlearn 1"]


def test_parts_beyond_what_was_saved_are_dropped(run):
    for table in ("rounds", "clients"):
        for part in ("1-pretrain-000001", "1-pretrain-000002", "1-pretrain-000003", "2-rank-000001"):
            run.write_part(table, part, ROWS)
    run.drop_parts({"1-pretrain": 2})
    for table in ("rounds", "clients"):
        names = sorted(path.name for path in (run.path / f"{table}.parquet").iterdir())
        assert names == ["1-pretrain-000001.parquet", "1-pretrain-000002.parquet"]
    run.drop_parts({})
    assert run.table("rounds").num_rows == run.table("clients").num_rows == 0


# -- damage


def test_an_unfinished_run_says_how_to_continue(run):
    with pytest.raises(RunDirectoryError, match="is not finished; continue it with: fused-ray run --resume"):
        _ = run.result


@pytest.mark.parametrize("content", [b"", b'{"metrics": {"before"', b"[1, 2]", b"\xff\xfe", b"null"])
def test_a_damaged_result_is_refused_in_one_line(run, content):
    (run.path / "result.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"result\.json") as caught:
        _ = run.result
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_not_opened(tmp_path):
    assert "there is no such folder" in refused(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "it has no environment.json" in refused(tmp_path / "empty")


@pytest.mark.parametrize("content", ['{"format": "fused_ray run 0"}', "{}", "[]", '{"format"', ""])
def test_a_run_of_another_version_or_none_is_not_opened(run, content):
    (run.path / "environment.json").write_text(content)
    assert str(run.path) in refused(run.path)


def test_a_run_without_its_configuration_is_not_opened(run):
    (run.path / "config.yaml").unlink()
    assert "config.yaml" in refused(run.path) or "no run directory" in refused(run.path)


@pytest.mark.parametrize(
    "content", ["seed: 1\nno_such_section: {}", "unlearn: {method: of-tomorrow}", "- a list", "{", "a: [1"]
)
def test_a_configuration_of_another_version_is_refused_in_one_line(run, content):
    (run.path / "config.yaml").write_text(content)
    with pytest.raises(RunDirectoryError, match="cannot be read") as caught:
        _ = RunDirectory.open(run.path).config
    assert "\n" not in str(caught.value)


def test_a_damaged_table_is_refused_in_one_line(run):
    run.write_part("rounds", "1-pretrain-000001", ROWS)
    part = run.path / "rounds.parquet" / "1-pretrain-000001.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(RunDirectoryError, match=r"rounds\.parquet cannot be read") as caught:
        run.table("rounds")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_lock_that_a_signal_came_into_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def signalled(*arguments: object) -> None:
        raise KeyboardInterrupt

    broken = Lock("lock")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, signalled)
        with pytest.raises(KeyboardInterrupt):
            broken.take(tmp_path, 0)
    assert not broken.held
    other = Lock("lock")
    other.take(tmp_path, 0)
    assert other.holds(tmp_path)
    with pytest.raises(RunDirectoryError, match="is being written by another run"):
        broken.take(tmp_path, 0)
    other.release()
    broken.take(tmp_path, 0)
    assert broken.holds(tmp_path)
