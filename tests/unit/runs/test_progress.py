"""What a run says while it goes on: a line for every finished round, with that round's figures, at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fused_ray import RunConfig, audit_run, load_run, run
from fused_ray.config import schedule
from fused_ray.runs import display
from fused_ray.runs.display import figures, show_progress
from fused_ray.runs.progress import Finished, Progress
from fused_ray.runs.screen import Screen, number

SMALL = [
    *("engine.backend=local", "federation.clients=3", "data.limit=200", "output.plots=none", "train.batch_size=32"),
    *("pretrain.rounds=2", "unlearn.rounds=2", "unlearn.layers=1", "retrain.rounds=2"),
    *("audit.relearn_steps=2", "audit.relearn_repeats=1"),
]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """A run, and all that it told."""
    told: list[Progress] = []
    path = tmp_path_factory.mktemp("runs") / "[bold]run"
    run(RunConfig.from_dict({}, [*SMALL, f"output.dir={path}"]), listener=told.append)
    return path, told


def expected(path: Path) -> list[str]:
    rounds = load_run(path).table("rounds").to_pylist()
    last = {row["phase"]: row["round"] for row in rounds}
    return [
        f"{schedule.title(row['phase'])} round {row['round']}/{last[row['phase']]}"
        + ("" if row["ra"] is None else f"  RA {number(row['ra'])}  FA {number(row['fa'])}")
        for row in rounds
    ]


@pytest.mark.parametrize("every", [1, 7, 1_000])
def test_a_line_for_each_finished_round_whoever_seldom_looks(heard: Any, terminal: Any, every: int) -> None:
    path, told = heard
    stream = terminal()
    show = display._Lines(Screen(stream))
    for progress in [*told[::every], told[-1]]:
        show(progress)
    lines = [line.split(" s  ", 1)[1].split("  up ")[0] for line in stream.text.splitlines() if "note:" not in line]
    assert lines[:-1] == expected(path)
    assert lines[-1].startswith("audit  about ")


def test_no_line_waits_for_the_next_round(heard: Any, terminal: Any) -> None:
    path, told = heard
    stream = terminal()
    show, finished = display._Lines(Screen(stream)), 0
    for progress in told:
        show(progress)
        finished += progress.finished == progress.round and progress.clients_done == progress.clients > 0
        assert stream.text.count(" round ") == finished
    assert finished == len(expected(path))


def test_time_left_is_that_of_the_whole_run(heard: Any) -> None:
    """After the first round, 1 + 2 x .5 + 2 x .3 + 2 + 4 more of its length are to come, by the guess."""
    _, told = heard
    first = next(progress for progress in told if progress.finished)
    assert all(progress.seconds_left is None for progress in told[: told.index(first)])
    took = first.recent[0].seconds - next(p.seconds for p in told if p.round)
    assert first.seconds_left == pytest.approx(8.6 * took, rel=0.2)
    assert all(progress.seconds_left is not None for progress in told[told.index(first) :])
    last = next(progress for progress in told if progress.phase == "audit")
    assert 0 < last.seconds_left < schedule.COST["audit"] * last.seconds  # nothing else, of some rounds' mean length


def test_an_audit_that_trains_tells_its_rounds_and_the_time_left(heard: Any, terminal: Any) -> None:
    """Two shadow models and two retrained ones of 2 rounds each, 4 that go on for as many, and the audit, by the guess
    4 more of their length."""
    path, _ = heard
    stream, again = terminal(), list[Progress]()
    audit_run(path, full=True, listener=again.append)
    show = display._Lines(Screen(stream))
    for progress in again:
        show(progress)
    lines = [line.split(" s  ", 1)[1] for line in stream.text.splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("audit  about "))
    rounds, going_on = lines[:at], lines[at + 1 :]
    trained = [f"{name} round {n}/2" for name in ("shadow-1", "shadow-2", "retrain-2", "retrain-3") for n in (1, 2)]
    assert [line.split("  ")[0] for line in rounds] == trained
    assert all(re.search(r"  about \d+ s left$", line) for line in rounds)
    assert len(going_on) == 8
    assert all(re.match(r"resurface-[0-9a-f-]+ round [12]/2  ", line) for line in going_on)
    first = next(progress for progress in again if progress.finished)
    took = first.recent[0].seconds - again[0].seconds
    assert first.seconds_left == pytest.approx((7 + 8 + 4) * took, rel=0.2)
    resumed: list[Progress] = []
    audit_run(path, full=True, listener=resumed.append)  # all is there, and nothing is judged anew
    assert [progress.phase for progress in resumed] == []
    audit_run(path, listener=resumed.append)
    assert [progress.phase for progress in resumed] == ["audit"]


@pytest.mark.parametrize("phase", ["retrain", "audit"])
def test_a_terminal_shows_it_in_80_columns(
    heard: Any, terminal: Any, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """The live line as it stands last: of rounds what they led to, of the audit that it goes on."""
    path, told = heard
    told = told[: max(number for number, progress in enumerate(told) if progress.phase == phase) + 1]
    stream = terminal(tty=True)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with show_progress(path) as listener:
        for progress in told:
            listener(progress)
    assert f"fused-ray: {path}" in stream.text
    line, *below = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.text.strip().rpartition("\r")[2]).split("\n")
    assert len(line.rstrip()) <= 80
    assert line.startswith(phase)
    assert " about " in line
    assert [text.strip() for text in below if text.strip()] == [figures(told[-1])][: phase == "retrain"]


def test_the_course_of_ra_and_fa() -> None:
    """The last 20 rounds that made a model, a gap between two phases among them; n/16 is in eighth n/2."""
    of_phases = [("pretrain", 12), ("rank", 1), ("unlearn", 8)]
    rounds = [(phase, n, count) for phase, count in of_phases for n in range(1, count + 1)]
    recent = tuple(
        Finished(phase, n, count, *((None, None) if phase == "rank" else (n / 16, 1 - n / 16)), 0, 0.0)
        for phase, n, count in rounds
    )
    progress = Progress(ra=0.5, fa=0.5, recent=recent, round_seconds=2.04)
    assert figures(progress) == "RA 0.500 ▂▂▃▃▄▄▅▅▆▆▇ ▁▂▂▃▃▄▄▅  FA 0.500 █▇▇▆▆▅▅▄▄▃▃ ██▇▇▆▆▅▅  2.0 s a round"
    assert figures(Progress(recent=recent)) == ""
