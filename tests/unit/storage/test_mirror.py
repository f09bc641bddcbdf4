"""A folder on S3, against an emulation of S3 behind a single thread: who may write, and what is there at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import numpy as np
import pytest

from fused_ray.config import RunConfig
from fused_ray.core.rounds import Saved
from fused_ray.errors import ConfigError, NotWrittenError, RunDirectoryError
from fused_ray.runs.checkpoints import encode_saved
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage import mirror as mirrors
from fused_ray.storage.bucket import Bucket
from fused_ray.storage.mirror import MANIFEST, Mirror
from fused_ray.studies import listing, tidy
from fused_ray.types import Payload
from tests.s3 import client, served

OLD = Path(__file__).parents[1] / "runs" / "old_run"
CHECKPOINT = encode_saved(Saved(round=1, payload=Payload(np.ones(9, np.float32)), metrics={}))


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with served() as variables:
        yield variables


@pytest.fixture
def bucket(server: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A bucket `bucket`, empty at first."""
    for name, value in {**server, mirrors.LEASE: "1"}.items():
        monkeypatch.setenv(name, value)
    s3 = client(server)
    s3.create_bucket(Bucket="bucket")
    yield s3
    for found in s3.list_objects_v2(Bucket="bucket").get("Contents", []):
        s3.delete_object(Bucket="bucket", Key=found["Key"])
    s3.delete_bucket(Bucket="bucket")


def elsewhere(uri: str = "s3://bucket/runs/x") -> Mirror:
    """The folder as another machine has it: what this process has mounted is forgotten."""
    mirrors._mounted.clear()
    mirror = Mirror.mount(uri)
    mirror.fetch()
    return mirror


def begun() -> Mirror:
    """A new folder with one file."""
    mirror = elsewhere()
    mirror.take(fresh=True)
    write(mirror, "a.txt", "first")
    return mirror


def write(mirror: Mirror, name: str, text: str, later: bool = False) -> None:
    (mirror.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (mirror.folder / name).write_text(text)
    mirror.add([name], later=later)


def fall_silent(mirror: Mirror) -> None:
    """As if its process slept: the lease is renewed no more."""
    assert mirror._beats is not None
    mirror._beats.set()


def keys(s3: Any) -> list[str]:
    return [found["Key"].removeprefix("runs/x/") for found in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]


def test_a_file_is_read_elsewhere_as_it_was_last_written(bucket: Any) -> None:
    mirror = begun()
    write(mirror, "sub/b.txt", "b")
    write(mirror, "a.txt", "second")
    there = elsewhere()
    assert {name: (there.folder / name).read_text() for name in there.files} == {"a.txt": "second", "sub/b.txt": "b"}
    assert len(keys(bucket)) == 3, "a replaced object is removed"
    mirror.release()


def test_what_comes_later_is_named_with_the_next_file_and_not_before(bucket: Any) -> None:
    mirror = begun()
    write(mirror, "part", "rows", later=True)
    assert elsewhere().files == ["a.txt"]
    write(mirror, "checkpoint", "round")
    assert elsewhere().files == ["a.txt", "checkpoint", "part"]
    mirror.release()


def test_a_second_writer_is_refused_while_the_first_one_lives(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mirrors.LEASE, "30")
    mirror = begun()
    Timer(0.7, write, (mirror, "b.txt", "b")).start()
    with pytest.raises(RunDirectoryError, match=r"s3://bucket/runs/x is being written by another run \(.*process \d+"):
        elsewhere().take()
    mirror.release()
    other = elsewhere()
    other.take()
    other.release()


def test_who_only_looks_sees_who_writes_and_fetches_what_is_wanted(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begun()
    write(writer, "base.safetensors", "large")
    mirrors._mounted.clear()
    looking = Mirror.mount("s3://bucket/runs/x")
    looking.fetch(lambda name: not name.endswith(".safetensors"))
    assert (looking.files, [path.name for path in looking.folder.iterdir()]) == (["a.txt"], ["a.txt"])
    fall_silent(writer)
    time.sleep(2.1)  # objects say when they were written in whole seconds
    assert looking.writer() is None
    looking.fetch()
    assert looking.files == ["a.txt", "base.safetensors"]
    monkeypatch.setenv(mirrors.LEASE, "30")
    looking.take()
    assert looking.writer() == f"{os.uname().nodename}, process {os.getpid()}"
    looking.release()
    assert looking.writer() is None


def test_a_zombie_writes_nothing_after_its_lease_was_taken(bucket: Any) -> None:
    zombie = begun()
    fall_silent(zombie)
    heir = elsewhere()
    heir.take()
    write(heir, "a.txt", "the heir's")
    named = keys(bucket)
    for _ in range(2):
        with pytest.raises(RunDirectoryError, match="was taken over by another run; this one stops writing"):
            write(zombie, "a.txt", "the zombie's")
    zombie.release()
    assert (elsewhere().folder / "a.txt").read_text() == "the heir's"
    assert set(named) <= set(keys(bucket)), "nor did it remove anything"
    write(heir, "b.txt", "goes on")
    heir.release()
    after = elsewhere()
    after.take()  # removes what the zombie uploaded in vain
    after.release()
    assert len(keys(bucket)) == 3


def test_a_zombie_that_wakes_while_it_removes_orphans_removes_nothing_of_its_heirs(bucket: Any) -> None:
    zombie = begun()
    manifest = zombie._read()["manifest"]
    fall_silent(zombie)
    heir = elsewhere()
    heir.take()
    write(heir, "b.txt", "the heir's")
    zombie._remove_orphans(manifest)
    assert sorted(name.partition("~")[0] for name in keys(bucket)) == ["a.txt", "b.txt", MANIFEST]
    heir.release()


def test_an_upload_that_was_never_named_does_not_count(bucket: Any) -> None:
    mirror = begun()
    bucket.put_object(Bucket="bucket", Key="runs/x/a.txt~1-000000000000", Body=b"half")
    fall_silent(mirror)
    there = elsewhere()
    there.take()
    assert (there.folder / "a.txt").read_text() == "first"
    assert "a.txt~1-000000000000" not in keys(bucket)
    there.release()


def test_neither_a_folder_inside_nor_a_file_of_the_users_is_an_orphan(bucket: Any) -> None:
    inner = elsewhere("s3://bucket/runs/x/inner")
    inner.take(fresh=True)
    write(inner, "a.txt", "the inner one's")
    inner.release()
    begun().release()
    bucket.put_object(Bucket="bucket", Key="runs/x/notes~1", Body=b"a user's")
    outer = elsewhere()
    outer.take()  # its generation is above the inner one's
    outer.release()
    assert (elsewhere("s3://bucket/runs/x/inner").folder / "a.txt").read_text() == "the inner one's"
    assert "notes~1" in keys(bucket)


def test_an_upload_longer_than_the_lease_keeps_the_lease(bucket: Any) -> None:
    mirror = begun()
    put = mirror._bucket.put

    def slowly(files: Any) -> None:
        time.sleep(3.5)  # objects say when they were written in whole seconds
        put(files)

    mirror._bucket.put = slowly  # type: ignore[method-assign]
    writer = Thread(target=write, args=(mirror, "b.txt", "b"))
    writer.start()
    with pytest.raises(RunDirectoryError, match="is being written by another run"):
        elsewhere().take()
    writer.join()
    mirror.release()
    assert elsewhere().files == ["a.txt", "b.txt"]


def test_a_renewal_whose_answer_was_lost_shuts_nobody_out(bucket: Any) -> None:
    mirror = begun()
    swap = mirror._bucket.swap

    def lost(name: str, body: bytes, etag: str | None) -> str | None:
        swap(name, body, etag)
        raise NotWrittenError("no answer")

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(mirror._bucket, "swap", lost)
        with pytest.raises(NotWrittenError):
            mirror._swap(mirror._read(), mirror._read()["manifest"])
    write(mirror, "b.txt", "b")
    mirror.release()
    assert elsewhere().files == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    "uri", ["s3://bucket/..", "s3://bucket/a/../b", "s3://bucket/.", f"s3://bucket/{mirrors._HERE}"]
)
def test_a_folder_that_would_lie_elsewhere_here_is_refused(bucket: Any, uri: str) -> None:
    with pytest.raises(RunDirectoryError, match="no part of a folder on S3 can be"):
        Mirror.mount(uri)


def test_an_object_that_was_removed_by_hand_is_one_line(bucket: Any) -> None:
    begun().release()
    bucket.delete_object(Bucket="bucket", Key=f"runs/x/{next(key for key in keys(bucket) if 'a.txt' in key)}")
    with pytest.raises(RunDirectoryError, match=r"lacks objects that its manifest\.json names; they were removed"):
        elsewhere()


def test_a_manifest_that_names_files_outside_the_folder_is_refused(bucket: Any) -> None:
    for name in ("../x", "a/../../x", "/x"):
        manifest = {**mirrors._empty(), "files": {name: "x~1-000000000000"}}
        bucket.put_object(Bucket="bucket", Key=f"runs/x/{MANIFEST}", Body=json.dumps(manifest).encode())
        with pytest.raises(RunDirectoryError, match="is not what this version of the program writes"):
            elsewhere()


@pytest.mark.parametrize("seconds", ["abc", "0", "-1", "nan", ""])
def test_a_lease_of_no_seconds_is_refused(bucket: Any, monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv(mirrors.LEASE, seconds)
    with pytest.raises(ConfigError, match="FUSED_RAY_LEASE_SECONDS: a number of seconds above 0 is wanted"):
        elsewhere().take(fresh=True)


def test_an_endpoint_that_is_no_url_is_one_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(NotWrittenError, match=r"the service fails \(Invalid endpoint: nonsense\); is AWS_ENDPOINT_URL"):
        elsewhere()


@pytest.mark.parametrize("status", [200, 404])
def test_a_web_server_that_is_no_store_is_one_line(bucket: Any, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html><br></html>")

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as page:
        Thread(target=page.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{page.server_port}")
        with pytest.raises(NotWrittenError, match="the service fails"):
            elsewhere()
        page.shutdown()


def test_a_temporary_folder_that_is_not_there_is_one_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(NotWrittenError, match="no folder for it can be made in TMPDIR: No such file"):
        elsewhere()


def test_an_answer_that_was_lost_is_no_lost_race(bucket: Any) -> None:
    mirror = begun()
    swap = mirror._bucket.swap

    def twice(name: str, body: bytes, etag: str | None) -> str | None:
        assert swap(name, body, etag) is not None
        return swap(name, body, etag)

    mirror._bucket.swap = twice  # type: ignore[method-assign]
    write(mirror, "b.txt", "b")
    assert elsewhere().files == ["a.txt", "b.txt"]
    mirror.release()


def test_a_replacement_is_given_back_or_settled(bucket: Any) -> None:
    first = begun()
    write(first, "result.json", "{}")
    first.release()
    second = elsewhere()
    second.take(fresh=True)
    write(second, "c.txt", "new")
    assert elsewhere().files == ["c.txt"]
    second.give_back()
    second.release()
    assert elsewhere().files == ["a.txt", "result.json"]
    third = elsewhere()
    third.take(fresh=True)
    write(third, "d.txt", "new")
    third.release(settled=True)
    assert elsewhere().files == ["d.txt"]
    assert len(keys(bucket)) == 2


def test_a_bucket_that_vanishes_is_one_line(bucket: Any) -> None:
    mirror = begun()
    for key in keys(bucket):
        bucket.delete_object(Bucket="bucket", Key=f"runs/x/{key}")
    bucket.delete_bucket(Bucket="bucket")
    with pytest.raises(NotWrittenError, match=r"^s3://bucket/runs/x: there is no bucket bucket$"):
        write(mirror, "b.txt", "b")
    fall_silent(mirror)
    bucket.create_bucket(Bucket="bucket")


def test_a_foreign_manifest_is_refused(bucket: Any) -> None:
    contents: tuple[Any, ...] = ({"a": 1}, {"format": mirrors.FORMAT}, [])
    for content in contents:
        bucket.put_object(Bucket="bucket", Key=f"runs/x/{MANIFEST}", Body=json.dumps(content).encode())
        with pytest.raises(RunDirectoryError, match="is not what this version of the program writes"):
            elsewhere()


@pytest.mark.slow
def test_a_folder_with_files_of_somebody_else_is_not_taken(bucket: Any) -> None:
    bucket.put_object(Bucket="bucket", Key="runs/x/inner/manifest.json", Body=b"{}")  # a folder of its own
    bucket.put_object(Bucket="bucket", Key="runs/x/thesis.tex", Body=b"text")
    with pytest.raises(RunDirectoryError, match=r"s3://bucket/runs/x has objects that are of no run \(thesis.tex\)"):
        elsewhere().take(fresh=True)
    bucket.delete_object(Bucket="bucket", Key="runs/x/thesis.tex")
    elsewhere().take(fresh=True)


def test_a_name_that_no_bucket_has_and_a_profile_that_is_not_there_are_named(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotWrittenError, match="My_Bucket! or the folder's name is not one that S3 takes") as found:
        elsewhere("s3://My_Bucket!/runs/x")
    assert "\n" not in str(found.value)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(NotWrittenError, match=r"nobody.*set AWS_PROFILE"):
        elsewhere()


def test_missing_credentials_and_a_service_that_is_not_there_are_one_line(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as changed:
        changed.delenv("AWS_ACCESS_KEY_ID")
        changed.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with pytest.raises(NotWrittenError, match="there are no credentials"):
            elsewhere()
    with monkeypatch.context() as changed:
        changed.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(NotWrittenError, match="the service fails"):
            elsewhere()


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RunDirectoryError, match=r"s3fs is not installed: pip install 'fused-ray\[s3\]'"):
        Mirror.mount("s3://bucket/runs/y")


def test_a_local_folder_imports_nothing_of_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import fused_ray.cli.app; from fused_ray.storage.folder import Folder; "
        f"Folder(Path({str(tmp_path)!r}) / 'run'); "
        "sys.exit(bool({'s3fs', 'fsspec', 'botocore'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", [".mirror", ".fused_ray-s3"])
def test_a_folder_beside_one_of_such_a_name_is_an_ordinary_one(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert Mirror.of(tmp_path / "runs" / "first") is None


# -- many folders


def placed(s3: Any, folder: str, files: dict[str, bytes], lease: dict[str, Any] | None = None) -> None:
    """A folder there as a writer leaves it, or is about to."""
    keys = {name: f"{name}~1-0123456789ab" for name in files}
    for name, content in files.items():
        s3.put_object(Bucket="bucket", Key=f"{folder}/{keys[name]}", Body=content)
    manifest = {"format": mirrors.FORMAT, "id": "1", "generation": 1, "version": "1", "lease": lease, "before": None}
    manifest["files"] = {**keys, "plots/": ""}
    s3.put_object(Bucket="bucket", Key=f"{folder}/{MANIFEST}", Body=json.dumps(manifest).encode())


def test_folders_there_are_listed_by_their_small_files(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: (OLD / name).read_bytes() for name in ("config.yaml", "environment.json", "result.json")}
    begun = {**small, "rounds.parquet/1-pretrain-000001.parquet": b"rows", "base.safetensors": b"a model"}
    lives = {"owner": "there, process 7", "token": "x", "seconds": 30.0}
    placed(bucket, "runs/done", begun)
    del begun["result.json"]
    placed(bucket, "runs/deep/lives", begun, lives)
    placed(bucket, "runs/deep/silent", begun, lives | {"seconds": 0.0})
    placed(bucket, "runs/nothing", {})
    bucket.put_object(Bucket="bucket", Key="runs/broken/manifest.json", Body=b"{")
    bucket.put_object(Bucket="bucket", Key="runs/mine.txt", Body=b"12345")
    asked: list[str] = []
    read = Bucket.read

    def noted(self: Bucket, name: str) -> Any:
        asked.append(name)
        return read(self, name)

    monkeypatch.setattr(Bucket, "read", noted)
    rows = listing.rows("s3://bucket/runs")
    assert [(row.place.removeprefix("s3://bucket/runs/"), row.state) for row in rows] == [
        *(("broken", "damaged"), ("deep/lives", "running"), ("deep/silent", "interrupted"), ("done", "done")),
    ]
    assert (rows[1].reason, rows[3].verdict) == ("there, process 7", "damaged")
    assert rows[3].bytes == sum(map(len, small.values())) + len(b"rows") + len(b"a model")
    assert not any("safetensors" in name or "parquet" in name for name in asked)
    assert [row.state for row in listing.rows("s3://bucket/runs/done")] == ["done"]


@pytest.mark.slow
def test_a_folder_there_is_rid_of_what_it_no_longer_needs(bucket: Any) -> None:
    run = RunDirectory.create("s3://bucket/runs/x", RunConfig.from_dict({"seed": 5}))
    with run.attempt():
        run.lock(0)
        for name in ("result.json", "base.safetensors"):
            run.write(name, (OLD / name).read_bytes())
        run.write("checkpoints/pretrain.safetensors", CHECKPOINT)
        run.unlock()
    before = keys(bucket)
    shown = tidy.look("s3://bucket/runs/x")
    assert (shown.place, shown.bytes) == ("s3://bucket/runs/x", len(CHECKPOINT))
    assert keys(bucket) == before
    assert tidy.clear("s3://bucket/runs/x") == shown
    (gone,) = {name.partition("~")[0] for name in before} - {name.partition("~")[0] for name in keys(bucket)}
    assert gone == "checkpoints/pretrain.safetensors"
    assert "checkpoints/pretrain.safetensors" not in elsewhere().files
    (row,) = listing.rows("s3://bucket/runs")
    assert (row.state, row.verdict) == ("done", "damaged")
