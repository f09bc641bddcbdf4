"""examples/little-data.yaml: what it compares, and all of it in a tiny form."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray import CompareConfig, RunConfig, compare, load_comparison, load_run, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "little-data.yaml"
METHODS, SHARES = ("saliency", "default", "paper", "finetune", "retrain"), (1, 0.5, 0.1, 0.05, 0.01)
TINY = (
    *("base.data.limit=400", "base.federation.clients=3", "base.pretrain.rounds=1", "base.retrain.rounds=1"),
    *("base.unlearn.rounds=1", "base.train.batch_size=32", "base.engine.backend=local", "scenarios=[class]"),
    *("seeds=[200]", "audit.enabled=false"),
)


def test_it_compares_five_methods_at_five_shares() -> None:
    config = CompareConfig.from_yaml(EXAMPLE)
    cells = {cell.method: cell for cell in config.cells if cell.scenario == "class" and cell.seed == 200}
    assert list(cells) == [f"{method}-{100 * share:g}" for method in METHODS for share in SHARES]
    for name, cell in cells.items():
        method, _, percent = name.partition("-")
        assert cell.config is not None
        assert cell.config.unlearn.retain == float(percent) / 100
        assert (cell.config.unlearn.rounds == 0) == (method == "saliency")
        assert cell.is_base == (name == "retrain-100")
        assert cell.base.unlearn.retain == 1  # the standard has all


@pytest.mark.slow
def test_all_of_it_in_a_tiny_form(tmp_path: Path) -> None:
    config = CompareConfig.from_yaml(EXAMPLE, [*TINY, f"output.dir={tmp_path / 'c'}"])
    compare(config)
    found = load_comparison(tmp_path / "c")
    assert {row["status"] for row in found.rows} == {"done"}
    assert len(found.rows) == 25
    ends = {}
    for row in found.rows:
        one = load_run(tmp_path / "c" / row["directory"])
        ends[row["method"]] = one.result["hash"]["unlearned"]
    assert len({*ends.values()}) == 25  # every share of every method ends elsewhere
    assert len({row["fa_retrained"] for row in found.rows}) == 1


def test_a_run_on_a_part_by_herding(tmp_path: Path) -> None:
    small = ("data.limit=300", "federation.clients=3", "pretrain.rounds=1", "retrain.rounds=1", "engine.backend=local")
    fields = (
        *small,
        "unlearn.method=retrain",
        "unlearn.retain=0.1",
        "unlearn.retain_by=herding",
        "audit.enabled=false",
    )
    result = run(RunConfig.from_dict({}, [*fields, f"output.dir={tmp_path / 'r'}"]))
    rows = load_run(tmp_path / "r").table("clients").to_pylist()
    examples = {(row["phase"], row["client"]): row["examples"] for row in rows}
    for client in range(3):
        assert examples["unlearn", client] == max(1, int(0.1 * examples["retrain", client] + 0.5))
    assert result["metrics"]["after"] != result["metrics"]["retrained"]
