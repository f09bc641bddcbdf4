"""A release as its users have it: built from a clean copy, installed elsewhere, run with no repository around."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import fused_ray
from tests.layered import done, layered
from tests.release.contents import BESIDE, ROOT, only, package, sdist, wheel, wrong_in_sdist, wrong_in_wheel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TINY = {
    "data.limit": 200,
    "federation.clients": 4,
    "pretrain.rounds": 1,
    "unlearn.rounds": 1,
    "audit.relearn_repeats": 1,
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    for name in sorted(BESIDE | package()):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    # without isolation: the setuptools that is installed here, and no network
    done([sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "source"], folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that holds the wheel."""
    return layered(
        tmp_path_factory.mktemp("fresh"), "--no-deps", "--no-index", "--ignore-installed", only(dist, ".whl")
    )


def test_both_hold_the_package_and_no_more(dist: Path) -> None:
    assert wrong_in_sdist(sdist(only(dist, ".tar.gz")), package()) == []
    assert wrong_in_wheel(wheel(only(dist, ".whl")), package()) == []
    assert only(dist, ".whl").name == f"fused_ray-{fused_ray.__version__}-py3-none-any.whl"


def test_what_runs_is_the_wheel(installed: Path, tmp_path: Path) -> None:
    program = "import fused_ray, importlib.metadata as m; print(fused_ray.__file__, m.version('fused-ray'))"
    file, version = done([installed / "python", "-c", program], tmp_path).split()
    assert Path(file).is_relative_to(installed.parent)
    assert version == fused_ray.__version__
    assert done([installed / "fused-ray", "--version"], tmp_path) == f"fused-ray {version}\n"


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_the_first_result_needs_no_repository(installed: Path, tmp_path: Path, backend: str) -> None:
    def command(*arguments: str) -> str:
        return done([installed / "fused-ray", *arguments], tmp_path)

    command("init", "my.yaml")
    settings = {**TINY, "engine.backend": backend}
    command("run", "my.yaml", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))
    run = tmp_path / "runs" / "run"
    result = json.loads((run / "result.json").read_text())
    assert result["reversible"]
    assert result["version"] == fused_ray.__version__
    assert result["verdict_sentence"] in " ".join(command("show", "runs/run").split())
    assert json.loads(command("show", "runs/run", "--json").splitlines()[-1]) == result
    command("report", "runs/run", "--out", "mine.html")
    assert (tmp_path / "mine.html").stat().st_size > 10_000
    assert (run / "report.html").is_file()
    assert json.loads((run / "environment.json").read_text())["drivers"][0]["revision"] is None


def test_presets_are_inside(installed: Path, tmp_path: Path) -> None:
    done([installed / "fused-ray", "init", "my.yaml", "--preset", "deep"], tmp_path)
    assert "preset deep" in (tmp_path / "my.yaml").read_text()
