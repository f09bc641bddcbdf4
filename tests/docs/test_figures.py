"""Pages whose tables a script writes are what it makes of the results that are kept beside them."""

from __future__ import annotations

import runpy

from tests.docs.blocks import ROOT


def test_the_tables_of_depth_are_those_of_the_kept_results() -> None:
    page = (ROOT / "docs/depth.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "benchmarks/deep.py"))["page"](page) == page
