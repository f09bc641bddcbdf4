"""What a release says of itself, in each of the places that say it."""

from __future__ import annotations

import re

import pytest
import yaml

import fused_ray
from fused_ray import RunConfig
from tests.release.contents import LICENCES, MADE, ROOT, package, wrong_in_wheel

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_every_place_has_the_same_version() -> None:
    version = fused_ray.__version__
    assert re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE) == [version]
    assert CITATION["version"] == version
    pages = [path.read_text() for path in sorted((ROOT / "cluster").iterdir()) if path.is_file()]
    images = [image for page in pages for image in re.findall(r"fused-ray:(\d[\w.]*\w)", page)]
    assert len(images) > 5
    assert set(images) == {version}


def test_the_citation_names_the_paper_that_the_licence_page_names() -> None:
    (paper,) = CITATION["references"]
    notice = " ".join((ROOT / "NOTICE").read_text(encoding="utf-8").split())
    assert paper["title"] in notice
    (identifier,) = paper["identifiers"]
    assert identifier["value"].removeprefix("arXiv:") in notice
    assert paper["url"].rpartition("/")[2] in notice
    assert CITATION["authors"] == [{"name": "The fused_ray authors"}]


def test_the_demo_is_what_a_run_does_by_itself() -> None:
    """So somebody who has the wheel alone, without examples/, types `fused-ray run`."""
    demo = RunConfig.from_yaml(ROOT / "examples" / "demo.yaml")
    alone = RunConfig.from_dict({})
    assert demo.forget_classes == alone.forget_classes
    assert demo == RunConfig.from_dict({"forget": {"classes": alone.forget_classes}, "output": {"dir": "runs/demo"}})


WHEEL = {
    **dict.fromkeys(package(), b""),
    **{f"fused_ray-1.dist-info/{name}": b"" for name in (*MADE, *(f"licenses/{name}" for name in LICENCES))},
}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, None),
        ({"fused_ray/config/presets/run/deep.yaml": None}, "fused_ray/config/presets/run/deep.yaml is missing"),
        ({"fused_ray/py.typed": None}, "fused_ray/py.typed is missing"),
        ({"fused_ray-1.dist-info/licenses/NOTICE": None}, "fused_ray-1.dist-info/licenses/NOTICE is missing"),
        ({"tests/conftest.py": b""}, "tests/conftest.py is too much"),
        ({"fused_ray/errors.py": f"# {ROOT}/x".encode()}, "fused_ray/errors.py names a place of this machine"),
        ({"other-1.dist-info/METADATA": b""}, "2 folders .dist-info"),
    ],
)
def test_a_wrong_wheel_is_found(change: dict[str, bytes | None], complaint: str | None) -> None:
    files = {name: text for name, text in {**WHEEL, **change}.items() if text is not None}
    assert wrong_in_wheel(files, package()) == ([complaint] if complaint else [])
