"""Pages whose tables a script writes are what it makes of the results that are kept beside them."""

from __future__ import annotations

import runpy

import pytest

from tests.docs.blocks import ROOT


@pytest.mark.parametrize(("script", "page"), [("deep", "depth"), ("leaderboard", "comparison")])
def test_the_tables_are_those_of_the_kept_results(script: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / f"benchmarks/{script}.py"))["page"](text) == text
