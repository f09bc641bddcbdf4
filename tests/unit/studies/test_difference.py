"""`fused-ray diff`: every field, figure, hash and version that differs, of two runs or two studies of a kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fused_ray import CompareConfig, FusedRayError
from fused_ray.runs.difference import Figure, plain, show
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.difference import difference
from tests.pages import results

OLD = Path(__file__).parents[1] / "runs"


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / "old_run", tmp_path / "a"))


@pytest.fixture
def b(tmp_path: Path) -> Path:
    """The same, but for some figures, a field, a model and a version."""
    place = Path(shutil.copytree(OLD / "old_run", tmp_path / "b"))
    config = (place / "config.yaml").read_text()
    (place / "config.yaml").write_text(config.replace("patch: 7", "patch: 14").replace("dir: runs/old", "dir: runs/b"))

    def forget(result: dict[str, Any]) -> None:
        result["verdict"] = "forgotten"
        result["metrics"]["after"]["ra"] += 0.25
        result["hash"]["unlearned"] = "0" * 64
        result["bytes"]["unlearn"]["up_total"] += 1500

    changed(place / "result.json", forget)
    changed(place / "environment.json", lambda about: about["packages"].update(torch="2.14.0"))
    return place


def changed(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_only_what_differs_is_told_of_configuration_and_versions(a: Path, b: Path) -> None:
    found = difference(a, b)
    assert found.configuration == {"model.args.patch": (7, 14)}  # not the folder
    assert found.versions == {"torch": ("2.13.0+cpu", "2.14.0")}
    assert found.same_bits == {"M_r": True, "M_f": False, "retrained": True}


def test_all_figures_stand_side_by_side(a: Path, b: Path) -> None:
    result = json.loads((a / "result.json").read_text())
    after, sent = result["metrics"]["after"]["ra"], result["bytes"]
    own = sum(sent[phase]["up_total"] for phase in ("rank", "saliency", "replay", "unlearn"))
    figures = difference(a, b).figures
    assert figures["verdict"] == (Figure("damaged"), Figure("forgotten"))
    assert figures["RA after"] == (Figure(after), Figure(after + 0.25))
    assert figures["sent up for unlearning"] == (Figure(own, "bytes"), Figure(own + 1500, "bytes"))
    assert figures["adapter's values"] == (Figure(17), Figure(17))
    assert figures["head recovery retrained"] == (Figure(0.16), Figure(0.16))
    told = plain(difference(a, b))
    assert told["figures"]["RA after"]["difference"] == pytest.approx(0.25)
    assert "difference" not in told["figures"]["verdict"]
    assert json.loads(json.dumps(told)) == told


def test_it_is_shown_with_signs_and_units(a: Path, b: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(difference(a, b))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [f"A: {a}", f"B: {b}"]
    assert "model.args.patch 7 14" in lines
    assert "verdict damaged forgotten" in lines
    assert "RA after 0.133 0.383 +0.250" in lines
    assert "FA after 0.000 0.000 same" in lines
    assert "sent up for unlearning 5.8 KB 7.3 KB +1.5 KB" in lines
    assert {"M_r: the same bits", "M_f: other bits", "retrained: the same bits"} <= {*lines}
    show(difference(b, a))
    assert "RA after 0.383 0.133 -0.250" in [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_run_and_its_copy_differ_in_nothing(a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(a, tmp_path / "copy")
    show(difference(a, copy))
    said = capsys.readouterr().out
    assert "the same configuration" in said
    assert "the same machine, programs and revision" in said
    assert "other bits" not in said
    assert "+" not in said.replace(str(copy), "")


def test_an_unfinished_run_has_no_figures_yet(a: Path, b: Path) -> None:
    (b / "result.json").unlink()
    found = difference(a, b)
    assert found.unfinished == (str(b),)
    assert found.figures["RA after"][1] is None
    assert found.same_bits == {}
    assert found.configuration


def test_two_comparisons_are_compared_cell_by_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = results.comparison(tmp_path / "one")
    values = {"methods": ["fused", "not"], "scenarios": ["class"], "seeds": [0, 1]}
    other = ComparisonDirectory.create(tmp_path / "other", CompareConfig.from_dict(values))
    shutil.copy(one / "results.parquet", other.path)
    found = difference(one, other.path)
    assert list(found.configuration) == ["methods"]
    assert found.unfinished == (str(other.path),)
    assert found.figures["class, good, seed 0: RA"] == (Figure(0.7), Figure(0.7))
    assert found.figures["class, costly, seed 1: sent up"] == (Figure(90_000, "bytes"), Figure(90_000, "bytes"))
    show(found, all_figures=False)
    assert f"{len(found.figures)} more figures are the same" in capsys.readouterr().out


def test_of_sweeps_and_scaling_studies_each_run_is_known_by_what_tells_it_from_the_others(tmp_path: Path) -> None:
    swept, scaled = results.sweep(tmp_path / "swept"), results.scaling(tmp_path / "scaled")
    figures = difference(swept, swept).figures
    assert figures["unlearn.layers=2, unlearn.sparsity=0.5: RA"][0] == Figure(0.6)
    assert difference(scaled, scaled).figures["8 clients, 2 actors, 1 nodes, lenet: a round"][0] == Figure(2.5, "s")


def test_two_of_different_kinds_are_refused(a: Path, tmp_path: Path) -> None:
    compared = results.comparison(tmp_path / "compared")
    with pytest.raises(FusedRayError, match=f"{a} is a run and {compared} a comparison: name two of a kind"):
        difference(a, compared)
