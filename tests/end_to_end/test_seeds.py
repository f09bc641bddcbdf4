"""`fused-ray run --seeds`: a run with several seeds is a comparison of one method on one scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray import CompareConfig, RunConfig, SweepConfig, compare, load_comparison, load_run, run, sweep
from fused_ray.cli.app import main

SMALL = [
    *("data.limit=300", "federation.clients=3", "pretrain.rounds=2", "unlearn.rounds=1", "retrain.rounds=1"),
    *("unlearn.layers=1", "audit.enabled=false", "output.plots=none", "engine.backend=local"),
]
ARGUMENTS = [part for field in SMALL for part in ("--set", field)]


def test_every_seed_gives_what_a_run_with_it_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["run", "--seeds", "4", "1", *ARGUMENTS, "--set", f"output.dir={tmp_path / 'seeds'}"])
    assert done.value.code == 0
    rows = load_comparison(tmp_path / "seeds").rows
    assert [(row["method"], row["scenario"], row["seed"], row["status"]) for row in rows] == [
        ("fused", "class", 4, "done"),
        ("fused", "class", 1, "done"),
    ]
    assert "±" in capsys.readouterr().out
    alone = run(RunConfig.from_dict({}, [*SMALL, "seed=1", f"output.dir={tmp_path / 'alone'}"]))
    assert rows[1]["sha256"] == alone["hash"]["unlearned"]
    base = load_run(tmp_path / "seeds" / "bases" / "class-1").result
    assert base["hash"]["base"] == alone["hash"]["base"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds"], "--seeds"),
        (["--seeds", "one"], "write whole numbers, as in --seeds 0 1 2 (given: one)"),
        (["--seeds", "-1"], "--seeds"),
        (["--seeds", "2", "2"], "seeds: [2, 2] names a seed twice"),
        (["--seeds", "2", "--set", "pretrain.from=x"], "pretrain"),
        (["--resume", "x", "--seeds", "2"], "--resume"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["run", *words])
    assert done.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_part_of_ones_own_names_its_folders_by_its_last_name() -> None:
    from fused_ray.studies.comparisons.seeds import over_seeds

    config = RunConfig.from_dict({}, ["unlearn.method=fused_ray_plugin.methods.ridge:METHOD"])
    (cell,) = over_seeds(config, [7]).cells
    assert cell.name == "class-7-ridge-METHOD"


def test_a_comparison_finds_a_sweeps_models_again(tmp_path: Path) -> None:
    """With a store, and the figures are those of a comparison that makes its own."""
    base = {"base": RunConfig.from_dict({}, SMALL).model_dump(mode="json", by_alias=True)}
    store = str(tmp_path / "store")
    space = {"unlearn.layers": {"grid": [1]}}
    output = {"dir": str(tmp_path / "sweep"), "store": store, "plots": "none"}
    sweep(SweepConfig.from_dict({**base, "space": space, "output": output}))
    made = {path: path.stat().st_mtime_ns for path in Path(store).glob("*/*/result.json")}
    assert len(made) == 2
    asked = {**base, "methods": ["retrain", "fused", "finetune"], "scenarios": ["class"], "audit": False}
    heard: list[str] = []
    compare(
        CompareConfig.from_dict({**asked, "output": {"dir": str(tmp_path / "with"), "store": store}}),
        listener=lambda progress: heard.append(progress.model),
    )
    assert not any(heard)
    assert {path: path.stat().st_mtime_ns for path in Path(store).glob("*/*/result.json")} == made
    compare(CompareConfig.from_dict({**asked, "output": {"dir": str(tmp_path / "without")}}))
    rows = [load_comparison(tmp_path / name).rows for name in ("with", "without")]
    for there, here in zip(*rows, strict=True):
        for name in ("method", "status", "ra", "fa", "ra_before", "ra_retrained", "sha256", "bytes_up_total", "rounds"):
            assert there[name] == here[name], (name, there["method"])
    federaser = {**asked, "methods": ["federaser"], "scenarios": ["exclusive"]}
    compare(CompareConfig.from_dict({**federaser, "output": {"dir": str(tmp_path / "history"), "store": store}}))
    assert load_comparison(tmp_path / "history").rows[0]["status"] == "done"
