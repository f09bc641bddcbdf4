"""Every block of README, docs and cluster/README runs, or is checked and says in the table why it cannot run here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.blocks import LANGUAGES, PAGES, ROOT, blocks, commands, commands_in_text
from tests.docs.commands import check
from tests.docs.follow import Hasty, Patient, follow
from tests.docs.table import LATER, ROWS, WHOLE, row_of

ELSEWHERE = ("docs/data.md",)
"""Followed at its full size in tests/end_to_end/test_own_data.py."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: what a checkout has that nobody has run anything in."""
    for name in ("benchmarks", "cluster", "constraints.txt", "examples"):
        os.symlink(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_has_one_row_and_every_row_a_block() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) > 25
    for block in found:
        assert block.language in LANGUAGES, f"{block}: name the language of the fence, one of {LANGUAGES}"
    rows = [row_of(block) for block in found]
    assert sorted(map(repr, rows)) == sorted(map(repr, ROWS))
    for row in rows:
        assert row.why or row.how in ("runs", "printed"), row


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in LATER else ())
        for page in sorted({row.page for row in ROWS if row.how == "runs"} - set(ELSEWHERE))
    ],
)
def test_a_page_can_be_followed(page: str, folder: Path) -> None:
    follow(page, folder, Hasty())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", WHOLE)
def test_a_page_can_be_followed_word_by_word(page: str, folder: Path) -> None:
    follow(page, folder, Patient(folder, {"PYTHONPATH": str(ROOT)}))


@pytest.mark.parametrize("page", PAGES)
def test_what_does_not_run_is_right(page: str, folder: Path) -> None:
    for block in blocks(page):
        how = row_of(block).how
        if how == "checked" or (how == "elsewhere" and block.language != "python"):
            for words in commands(block.text, folder):
                check(words)
    for command in commands_in_text(page):
        for words in commands(command, folder):
            check(words)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("fused-ray rum examples/demo.yaml", "no command rum"),
        ("fused-ray run examples/demo.yaml --sets a=1", "write --set a=1"),
        ("fused-ray run examples/demo.yaml --set unlearn.round=10", "unlearn.round"),
        ("fused-ray run examples/demos.yaml", "there is no examples/demos.yaml"),
        ("fused-ray compare --preset paper-mnist", "paper-mnist"),
        ("fused-ray plan examples/demo.yaml", "examples/demo.yaml"),
        ("python cluster/job.py run --set train.rate=1", "train.rate"),
        ("ray job submit --adress http://HEAD:8265 -- python cluster/job.py run", "No such option"),
        ("ray job submit -- python cluster/job.py run --set train.rate=1", "train.rate"),
        ("sbatch cluster/slurm.sh run --set train.rate=1", "train.rate"),
        ("docker build -f cluster/Dockerfil .", "there is no cluster/Dockerfil"),
        ("make demos", "make knows no demos"),
        ("make demo PIPARGS=", "make knows no PIPARGS"),
        ("python benchmarks/depth.py run --scenario class|exclusive", "exclusive: command not found"),
        ("python benchmarks/bench.py --pairs 5 --set seed=1", "unrecognized arguments: --set seed=1"),
        ("python benchmarks/models.py wire --unlearn lr=0.02", "no field lr=0.02"),
    ],
)
def test_a_wrong_command_is_found(command: str, named: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def checked() -> None:
        for words in commands(command, folder):
            check(words)

    with pytest.raises((Exception, SystemExit)) as found:
        checked()
    assert named in str(found.value) + capsys.readouterr().err
