"""docs/reference/ says what the code says; `make docs` writes it anew."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

import fused_ray.api
from fused_ray.config import describe
from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "reference.py"))


@pytest.mark.parametrize("name", ["configuration.md", "commands.md", "python.md"])
def test_a_page_is_what_the_script_makes(script: dict[str, Any], name: str) -> None:
    assert sorted(script["PAGES"]) == sorted(path.name for path in (ROOT / "docs" / "reference").glob("*.md"))
    assert kept(name) == script["page"](name)


def kept(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def test_every_field_stands_there_with_its_meaning(script: dict[str, Any]) -> None:
    page = kept("configuration.md")
    for key, _, _, doc in describe():
        assert doc, key
        assert f"| `{key.rpartition('.')[2]}` |" in page
        assert script["cell"](doc) in page


def test_everything_of_the_api_stands_there(script: dict[str, Any]) -> None:
    page = kept("python.md")
    for name, found in vars(fused_ray.api).items():
        if script["is_public"](name, found):
            assert f"\n### {name}\n" in page
