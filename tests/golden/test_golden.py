"""A small run's exact trajectory: whole numbers agree everywhere, trained floats where the fingerprint is known.

After a change that is meant to move bits, remove lenet.json, which other machines' old floats are in as well; then
`python tests/golden/test_golden.py` records the new trajectory. With the file there, it adds this machine's.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fused_ray import RunConfig, load_run, run

GOLDEN = Path(__file__).with_name("lenet.json")
FIELDS = [
    "engine.backend=local",
    "federation.clients=6",
    "data.limit=1500",
    "train.batch_size=32",
    "train.lr=0.05",
    "pretrain.rounds=3",
    "unlearn.rounds=2",
    "unlearn.layers=2",
    "unlearn.selection=critical",
    "unlearn.sparsity=0.5",
    "unlearn.mask=random",
    "unlearn.start=zero",
    "unlearn.lr=0.5",
    "retrain.rounds=2",
    "output.plots=false",
]


def trajectory(folder: Path) -> dict[str, Any]:
    result = run(RunConfig.from_dict({}, [*FIELDS, f"output.dir={folder / 'run'}"]))
    rounds = load_run(folder / "run").table("rounds").to_pylist()
    return {
        "exact": {
            "partition": result["partition_sha256"],
            "masks": {"zero": result["adapter"]["sha256"], "values": result["adapter"]["values"]},
            "bytes": result["bytes"],
        },
        "fingerprint": result["numerics"]["fingerprint"],
        "hash": result["hash"],
        "rounds": [{k: row[k] for k in ("phase", "round", "ra", "fa", "loss")} for row in rounds],
    }


def test_the_trajectory_is_the_recorded_one(tmp_path: Path) -> None:
    golden, found = json.loads(GOLDEN.read_text()), trajectory(tmp_path)
    if found["fingerprint"] in golden["known"]:
        known = golden["known"][found["fingerprint"]]
        assert found["hash"] == known["hash"]
        assert found["rounds"] == known["rounds"]
        assert found["exact"] == golden["exact"]
    else:
        reference = next(iter(golden["known"].values()))
        assert found["exact"]["partition"] == golden["exact"]["partition"]
        for ours, theirs in zip(found["rounds"], reference["rounds"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)


if __name__ == "__main__":
    content = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"known": {}}
    with tempfile.TemporaryDirectory() as folder:
        new = trajectory(Path(folder))
    exact = new.pop("exact")
    if content.get("exact") != exact:
        content = {"exact": exact, "known": {}}
    content["known"][new.pop("fingerprint")] = new
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
