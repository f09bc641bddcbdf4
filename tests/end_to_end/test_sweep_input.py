"""Sweeps that cannot run, and plans: what is said, and that nothing starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fused_ray import FusedRayError, sweep
from fused_ray.cli.app import main
from tests.end_to_end.sweeps import SMALL, settings

# -- bad input


def test_a_sweep_of_which_nothing_can_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(FusedRayError, match="no trial could be run; failed: its models model: client 0, pretrain"):
        sweep(settings(tmp_path / "s", "base.train.lr=900"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a YAML file"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (
            ["s.yaml", "--set", "space.unlearn.layer={grid: [1]}"],
            "did you mean unlearn.layers?",
        ),
        (["s.yaml", "--set", "space={}"], "space: it is empty"),
        (["s.yaml", "--set", "space.seed=3"], "write it as space.unlearn.lr="),
        (["s.yaml", "--set", "max_trials=3"], "more than the 3 allowed"),
        (["s.yaml", "--set", "scheduler=asha"], "asha takes one objective"),
        (["s.yaml", "--set", "base.data.root=/nowhere"], "data.root"),
        (["s.yaml", "--set", "output.dir=."], "exists already"),
        (["s.yaml", "--set", "output.dir=.", "--overwrite"], "no sweep directory"),
        (["--resume", "nowhere"], "no such folder"),
        (["--resume", "."], "no sweep directory"),
        (["s.yaml", "--resume", "."], "give nothing but --set"),
        (["--resume", ".", "--preset", "paper"], "give nothing but --set"),
        (["s.yaml", "--preset", "nope"], "there is no preset 'nope'"),
        (["show", "."], "no sweep directory"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["sweep", *arguments])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_plan_says_what_would_run_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(tmp_path / "s.yaml"), "--set", f"output.dir={tmp_path / 'planned'}"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "16 trials (grid)" in said
    assert "24 unlearning rounds in 12 trials; 4 trials train the input layer" in said
    assert "; 4 to make (10 full rounds)." in said
    assert re.search(r"About \d+ s on one core", said)
    assert not (tmp_path / "planned").exists()
    assert "are audited" not in said
    proposed = ["search=optuna", "samples=5", "base.engine.backend=ray", "base.audit.enabled=true"]
    with pytest.raises(SystemExit):
        main(["plan", str(tmp_path / "s.yaml"), *[part for field in proposed for part in ("--set", field)]])
    assert re.search(
        r"one by one.*\n.*\nIn the end, of each case at most 5 candidates are audited.*\nAbout \d+ s on the \d+ core",
        capsys.readouterr().out,
    )
