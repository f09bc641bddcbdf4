"""A run or a study of another process is told by its files alone: how far it is, who works on it, and its end."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Timer

import pyarrow as pa
import pytest

from fused_ray.cli import watch as command
from fused_ray.cli.app import main
from fused_ray.config import RunConfig
from fused_ray.runs.directory import RunDirectory
from fused_ray.storage import schemas
from fused_ray.storage.lock import COMMAND, Lock, holder
from fused_ray.studies.watching import WatchedStudy, opened
from tests.pages import results

CONFIG = RunConfig.from_dict({}, ["unlearn.method=finetune", "pretrain.rounds=4", "unlearn.rounds=3",
                                  "retrain.rounds=0", "audit.enabled=false"])  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
FINISHED = Path(__file__).parent / "old_run"


def begun(place: Path) -> RunDirectory:
    """A run that has begun, locked as its driver has it."""
    run = RunDirectory.create(place, CONFIG)
    run.lock(0)
    run._command.release()
    run.started(START.isoformat())
    return run


def add(
    run: RunDirectory, phase: str, round: int, seconds: float, ra: float | None, fa: float | None, used: int = 3
) -> None:
    """A finished round that began `10 x round` seconds after the start, or 100 s later in unlearning."""
    row = {
        "phase": phase, "round": round, "ra": ra, "fa": fa, "bytes_up": 1000 * round, "clients_expected": 3,
        "clients_used": used, "train_seconds": seconds, "aggregate_seconds": 0.0, "evaluate_seconds": 0.0,
        "started_at": START + timedelta(seconds=10 * round + 100 * (phase == "unlearn")),
    }  # fmt: skip
    prefix = {"pretrain": 1, "unlearn": 5}[phase]
    run.write_part("rounds", f"{prefix}-{phase}-{round:06d}", pa.Table.from_pylist([row], schema=schemas.ROUNDS))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = begun(tmp_path / "run")
    add(run, "pretrain", 1, 2.0, 0.25, 0.75)
    add(run, "pretrain", 2, 4.0, 0.5, 1.0, used=2)
    return run


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["watch", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_one_look_at_a_run(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """Two rounds took 2 and 4 s, so each of the 2 + 3 that are left takes 3 s."""
    code, out, _ = said(capsys, str(run.path), "--once")
    assert (code, out.splitlines()) == (
        0,
        [
            "pre-train round 3/4  about 15 s left",
            "RA 0.500 ▃▅  FA 1.000 ▇█  3.0 s a round  failed clients left out: 1",
        ],
    )


def test_what_is_read_of_a_run(run: RunDirectory) -> None:
    watched = opened(run.path)
    assert [(f.round, f.rounds, f.seconds, f.bytes_up) for f in watched.look().recent] == [
        (1, 4, 12.0, 1000),
        (2, 4, 24.0, 2000),
    ]
    for round in (3, 4):
        add(run, "pretrain", round, 2.0, 0.5, 0.5)
    add(run, "unlearn", 1, 5.0, 0.5, 0.0)
    now = watched.look()
    assert (now.phase, now.round, now.rounds, now.finished, now.failures) == ("unlearn", 2, 3, 1, 1)
    assert (now.round_seconds, now.seconds_left, now.fa) == (5.0, 10.0, 0.0)
    run.drop_parts({"1-pretrain": 1})  # as one that goes on does
    assert [(f.phase, f.round) for f in watched.look().recent] == [("pretrain", 1)]


def test_who_works_on_a_folder(run: RunDirectory) -> None:
    assert holder(run.path) == run.worker == str(os.getpid())
    run.unlock()
    assert run.worker is None
    lock = Lock(COMMAND)
    lock.take(run.path, 0)
    assert RunDirectory.open(run.path).worker == str(os.getpid())
    lock.release()
    assert holder(run.path) is None
    run.lock(0)  # a look keeps nobody out


def test_nobody_works_on_it_any_more(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    run.unlock()
    for once in ([], ["--once"]):
        code, out, err = said(capsys, str(run.path), *once)
        assert (code, "round 2/4" in out or "round 3/4" in out) == (2, True)
        assert err == (
            f"fused-ray: nobody works on {run.path} any more; continue it with: fused-ray run --resume {run.path}\n"
        )


def test_it_is_shown_until_it_ends(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines as the run itself says them, the next round's once it is there, then what came of it."""

    def end() -> None:
        for name in ("result.json", "config.yaml"):
            shutil.copy(FINISHED / name, run.path / name)
        run.unlock()

    timers = [Timer(0.15, add, (run, "pretrain", 3, 3.0, 0.75, 0.5)), Timer(0.35, end)]
    for timer in timers:
        timer.start()
    code, out, _ = said(capsys, str(run.path), "--every", "0.1")
    lines = out.splitlines()
    assert (code, lines[:3]) == (
        0,
        [
            "   12.0 s  pre-train round 1/4  RA 0.250  FA 0.750  up 1.0 KB",
            "   24.0 s  pre-train round 2/4  RA 0.500  FA 1.000  up 2.0 KB  about 15 s left",
            "   33.0 s  pre-train round 3/4  RA 0.750  FA 0.500  up 3.0 KB  about 12 s left",
        ],
    )
    assert lines[3] == "Verdict: damaged"


def test_a_path_where_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = said(capsys, str(tmp_path / "none"), "--once")
    assert (code, err) == (2, f"fused-ray: {tmp_path / 'none'} is no run directory: there is no such folder\n")
    monkeypatch.setattr(command, "_PATIENCE", 5.0)
    run = begun(tmp_path / "later")
    shutil.copy(FINISHED / "result.json", run.path)
    shutil.copy(FINISHED / "config.yaml", run.path)
    run.path.rename(tmp_path / "away")
    Timer(0.2, (tmp_path / "away").rename, (tmp_path / "later",)).start()
    assert said(capsys, str(tmp_path / "later"))[0] == 0


def test_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four trials are over, of six; one of the others goes on, one was left by a worker that died."""
    place = results.sweep(tmp_path / "sweep")
    settings = place / "sweep.yaml"
    settings.write_text(settings.read_text().replace("- 0.9", "- 0.9\n    - 0.95"))
    study = Lock(COMMAND)
    study.take(place, 0)
    (place / "trials").mkdir(exist_ok=True)
    going, left = begun(place / "trials" / "0004"), begun(place / "trials" / "0005")
    add(going, "pretrain", 1, 2.0, 0.25, 0.75)
    left.unlock()
    code, out, _ = said(capsys, str(place), "--once")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("4/6 trials  trials/0004  best so far: layers ")
    assert lines[1:] == ["pre-train round 2/4  about 12 s left", "RA 0.250 ▃  FA 0.750 ▇  2.0 s a round"]
    watched = opened(place)
    assert isinstance(watched, WatchedStudy)
    assert watched.look().running == 1
    study.release()
    going.unlock()
    code, _, err = said(capsys, str(place), "--once")
    assert (code, err.split(";")[1]) == (2, f" continue it with: fused-ray sweep --resume {place}\n")
    (place / "result.json").write_text('{"failed": 1}')
    assert said(capsys, str(place))[:2] == (
        3,
        f"finished, but 1 of its trials failed; its tables: fused-ray show {place}\n",
    )
