"""Commands on s3://, against an emulation of S3: killed and resumed, two writers, a bucket that vanishes, studies."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fused_ray.storage.mirror import LEASE
from tests.processes import kill, start, wait_until
from tests.s3 import client, served

pytestmark = pytest.mark.slow
FIELDS = [
    *("federation.clients=4", "data.limit=400", "pretrain.rounds=60", "unlearn.rounds=30", "retrain.rounds=60"),
    *("engine.backend=local", "output.plots=none", "audit.enabled=false"),
]
KILLS = 20


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    with served() as found:
        client(found).create_bucket(Bucket="bucket")
        yield {**os.environ, **found, LEASE: "2"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fused_ray", *arguments]


def a_run(where: str | Path, *more: str) -> list[str]:
    fields = [*FIELDS, f"output.dir={where}", *more]
    return command("run", "--json", *(part for field in fields for part in ("--set", field)))


def done(words: list[str], variables: dict[str, str], code: int = 0) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(words, env=variables, text=True, capture_output=True)
    assert ended.returncode == code, ended.stderr
    return ended


def result(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def manifest(variables: dict[str, str], folder: str) -> dict[str, Any]:
    found = client(variables).get_object(Bucket="bucket", Key=f"{folder}/manifest.json")["Body"].read()
    about: dict[str, Any] = json.loads(found)
    return about


def check_whole(variables: dict[str, str], folder: str) -> None:
    """Whatever the manifest names must be there; while a writer lives, it may go with the manifest."""
    for key in filter(None, manifest(variables, folder)["files"].values()):
        client(variables).head_object(Bucket="bucket", Key=f"{folder}/{key}")


def rounds(variables: dict[str, str], folder: str) -> int:
    """Finished rounds that are there; -1 before the first manifest."""
    s3 = client(variables)
    try:
        files = manifest(variables, folder)["files"]
    except s3.exceptions.NoSuchKey:
        return -1
    return sum(name.startswith("rounds.parquet/") and not name.endswith("/") for name in files)


@pytest.mark.timeout(1800)
def test_a_run_killed_at_random_has_the_hashes_of_one_that_never_was(variables: dict[str, str], tmp_path: Path) -> None:
    whole, chance, where = result(done(a_run(tmp_path / "run"), variables)), random.Random(7), "s3://bucket/killed"
    words, kills, reached = a_run(where), 0, list[int]()
    began = time.monotonic()
    while kills < KILLS:
        process, before = start(words, env=variables), max(0, *reached, 0)
        if (kills + 1) % 4:  # amid its rounds
            wait_until(lambda before=before: rounds(variables, "killed") > before, process)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.3))
        else:  # while it starts, waits for the lease, or fetches
            time.sleep(chance.uniform(0.5, 3.0))
        assert process.poll() is None, "it ended by itself: there must be more rounds"
        kill(process)
        kills, words = kills + 1, command("run", "--json", "--resume", where)
        check_whole(variables, "killed")
        reached.append(rounds(variables, "killed"))
        print(f"kill {kills} at {time.monotonic() - began:.1f} s: {reached[-1]} rounds are there", flush=True)
    resumed = result(done(command("run", "--json", "--resume", where), variables))
    print(f"{kills} kills; rounds there after each: {reached}; M_f {resumed['hash']['unlearned']}")
    assert resumed["hash"] == whole["hash"]
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["bytes"] == whole["bytes"]
    assert reached == sorted(reached), "nothing that was finished was lost"


def test_a_report_is_written_where_the_results_are(variables: dict[str, str]) -> None:
    where = "s3://bucket/reported"
    few = ["federation.clients=2", "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=1"]
    done(a_run(where, *few), variables)
    key = manifest(variables, "reported")["files"]["report.html"]
    own = client(variables).get_object(Bucket="bucket", Key=f"reported/{key}")["Body"].read()
    assert f"fused-ray run {where}/config.yaml".encode() in own
    assert done(command("report", where), variables).stdout == f"wrote {where}/report.html\n"
    again = manifest(variables, "reported")["files"]["report.html"]
    assert again != key
    assert client(variables).get_object(Bucket="bucket", Key=f"reported/{again}")["Body"].read() == own


def test_a_run_is_watched_from_another_machine(variables: dict[str, str]) -> None:
    """While it goes on, after its writer was killed, and to its end; no model is fetched for that."""
    where = "s3://bucket/runs/watched"
    process = start(a_run(where), env=variables)
    wait_until(lambda: rounds(variables, "runs/watched") > 2, process)
    looked = done(command("watch", "--once", where), variables).stdout
    assert re.match(r"pre-train round \d+/60  about .* left\nRA ", looked), looked
    kill(process)
    time.sleep(4)  # the lease is of 2 s, and objects say when they were written in whole seconds
    ended = done(command("watch", where), variables, code=2)
    assert ended.stderr == (
        f"fused-ray: nobody works on {where} any more; continue it with: fused-ray run --resume {where}\n"
    )
    process = start(command("run", "--resume", where), env=variables)
    watched = done(command("watch", "--every", "0.5", where), variables)
    process.communicate(timeout=120)
    assert "Reversible: " in watched.stdout


def test_of_two_writers_one_is_refused(variables: dict[str, str]) -> None:
    first = start(a_run("s3://bucket/two"), env=variables)
    try:
        wait_until(lambda: rounds(variables, "two") >= 1, first)
        refused = done(command("run", "--resume", "s3://bucket/two"), variables, 2)
        assert "is being written by another run" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        out, error = first.communicate()
        assert first.returncode == 0, (out, error)
    finally:
        kill(first)


def test_a_bucket_that_vanishes_is_one_line(variables: dict[str, str]) -> None:
    s3 = client(variables)
    s3.create_bucket(Bucket="vanishes")
    process = start(a_run("s3://vanishes/run"), env=variables)

    def begun() -> bool:
        return any("checkpoints/" in o["Key"] for o in s3.list_objects_v2(Bucket="vanishes").get("Contents", []))

    wait_until(begun, process)
    while True:  # the run goes on meanwhile
        for found in s3.list_objects_v2(Bucket="vanishes").get("Contents", []):
            s3.delete_object(Bucket="vanishes", Key=found["Key"])
        try:
            s3.delete_bucket(Bucket="vanishes")
            break
        except s3.exceptions.ClientError:
            pass
    error = process.communicate()[1].splitlines()
    assert process.returncode == 2, error
    assert error[-1].startswith("fused-ray: s3://vanishes/run: there is no bucket vanishes"), error


STUDY = """
base:
  data: {limit: 400}
  federation: {clients: 4}
  pretrain: {rounds: 2}
  unlearn: {rounds: 2}
  engine: {backend: local}
  output: {plots: none}
"""
COMPARISON = STUDY + "methods: [fused, retrain]\nscenarios: [client]\nseeds: [0]\naudit: false\n"
SWEEP = STUDY + "  audit: {enabled: false}\nspace:\n  unlearn.layers: {grid: [1, 2]}\n"


@pytest.mark.parametrize(("kind", "text"), [("compare", COMPARISON), ("sweep", SWEEP)])
def test_a_study_is_killed_and_goes_on(variables: dict[str, str], tmp_path: Path, kind: str, text: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    words = command(kind, str(tmp_path / "study.yaml"), "--json", "--set")
    here = result(done([*words, f"output.dir={tmp_path / 'here'}"], variables))
    process = start([*words, f"output.dir=s3://bucket/{kind}"], env=variables)

    def begun() -> bool:
        found = client(variables).list_objects_v2(Bucket="bucket", Prefix=f"{kind}/").get("Contents", [])
        return any("checkpoints/unlearn" in o["Key"] for o in found)

    wait_until(begun, process)
    kill(process)
    there = result(done(command(kind, "--json", "--resume", f"s3://bucket/{kind}"), variables))
    for about in (here, there):
        about.pop("seconds", None)
    assert there.keys() == here.keys()
    assert (there["failed"], there.get("done")) == (here["failed"], here.get("done"))
    shown = done(command("show", f"s3://bucket/{kind}"), variables).stdout
    assert f"s3://bucket/{kind}" in shown
    assert "/tmp" not in shown
