"""The table of clusters in docs/clusters.md: its arithmetic is today's, and what can be made here runs as planned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "clusters.py"


@pytest.fixture(scope="module")
def clusters() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        import clusters

        return clusters


def test_the_page_has_the_arithmetic_of_today(clusters: ModuleType) -> None:
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    rows = page.partition(clusters.BEGIN)[2].partition(clusters.END)[0].strip().splitlines()
    ran = {
        name: row.rpartition(" | ")[2].removesuffix(" |") for name, row in zip(clusters.CASES, rows[2:], strict=True)
    }
    assert rows == clusters.table(ran)
    how = {"run": "a run: the same", "seats": "empty actors: the same", "arithmetic": "arithmetic only"}
    assert ran == {name: how[case.how] for name, case in clusters.CASES.items()}


NAMES = (
    *("one machine", "uneven nodes", "fractions of cores, from the node itself"),
    *("GPUs that are worth more than the other node's cores", "a quarter of a GPU each, and fewer cores than actors"),
    *("GPUs with few and with many cores", "a head without cores", "labels", "little memory on one node"),
    *("what others hold is left to them", "a share that would span two GPUs", "labels that no node has"),
)


def test_all_that_can_be_made_is_made(clusters: ModuleType) -> None:
    assert set(NAMES) == {name for name, case in clusters.CASES.items() if case.how != "arithmetic"}


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", NAMES)
def test_what_runs_is_what_was_planned(clusters: ModuleType, name: str) -> None:
    command = [sys.executable, str(SCRIPT), "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.strip().splitlines()[-1] == clusters.planned(clusters.CASES[name])
