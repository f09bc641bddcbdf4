"""`fused-ray scale` from end to end: what a study leaves behind, what a kill leaves of it, and nodes of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fused_ray import FusedRayError, ScaleConfig, load_scale, resume_scale, scale
from fused_ray.cli.app import main
from fused_ray.cli.options import RUNS_FAILED
from fused_ray.errors import Interrupted
from fused_ray.studies.progress import Progress
from fused_ray.studies.scaling import rows
from fused_ray.studies.scaling.measure import PARTS
from tests.conftest import STORE

EXAMPLE = Path(__file__).parents[2] / "examples" / "scale.yaml"
SMALL = [
    "base.engine.backend=local",
    "base.output.plots=none",
    "payloads=[500]",
    "points=[{clients: [4, 6]}]",
    "hold_out=[{clients: 6}]",
    "rounds=1",
    "warmup=0",
    "paper.clusters=[2x2c]",
    "paper.clients=[8]",
]


def small(folder: Path, *more: str) -> ScaleConfig:
    return ScaleConfig.from_yaml(EXAMPLE, [*SMALL, f"output.dir={folder}", *more])


def sets(fields: list[str]) -> list[str]:
    return [word for field in fields for word in ("--set", field)]


def exit_code(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_a_study_and_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "study"
    fields = [*SMALL, "repeats=2", "base.output.plots=svg", f"output.dir={place}"]
    assert exit_code("scale", str(EXAMPLE), *sets(fields), "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert (result["runs"], result["done"], result["failed"]) == (4, 4, 0)
    for title in ("Seconds of a round", "Cost model", "Points that the cost model has not seen", "On paper"):
        assert title in printed.err
    study = load_scale(place)
    assert study.table.schema.names == rows.MEASURED.names
    assert len(study.rows) == 4
    for row in study.rows:
        assert sum(row[part] for part in PARTS) == pytest.approx(row["seconds"], abs=1e-5)
        assert min(row[part] for part in PARTS) >= -1e-5
        assert row["memory_worker"] > 50e6
        # 18 hidden ones of 16 numbers, 10 classes; a message of one tensor has a head of 72 bytes
        assert (row["payload_bytes"], row["cluster_bytes"], row["steps"]) == (4 * (17 * 18 + 19 * 10) + 72, 0, 1.0)
    points = study.made("points")
    assert [(point["clients"], point["held_out"], point["rounds"]) for point in points] == [(4, False, 2), (6, True, 2)]
    assert result["held_out_error"] == abs(points[1]["error"])
    for name, schema in {"points": rows.POINTS, "model": rows.MODEL, "paper": rows.PAPER}.items():
        assert pq.read_schema(place / f"{name}.parquet").names == schema.names
    assert {path.name for path in (place / "plots").iterdir()} == {"seconds.svg", "split.svg", "predicted.svg"}
    assert "### Cost model" in (place / "tables.md").read_text()


def test_a_study_that_was_stopped_goes_on_and_times_the_run_that_was_cut_short_anew(tmp_path: Path) -> None:
    config = small(tmp_path / "study", "rounds=2", "repeats=1")

    def stop(progress: Progress) -> None:
        if progress.done == 1 and progress.run.round == 2:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        scale(config, listener=stop)
    study = load_scale(tmp_path / "study")
    assert [row["clients"] for row in study.rows] == [4, 4]
    first, cut = (Path(take.config.output.dir) for take in study.config.takes)
    assert not (cut / "result.json").exists()
    whole = (first / "result.json").stat().st_mtime_ns
    with pytest.raises(FusedRayError, match="a scaling study goes on with the configuration it was started with"):
        resume_scale(study.path, ["repeats=5"])
    assert resume_scale(study.path)["done"] == 2
    assert (first / "result.json").stat().st_mtime_ns == whole
    assert len(json.loads((cut / "starts.json").read_text())["starts"]) == 1
    assert [row["clients"] for row in study.rows] == [4, 4, 6, 6]


def test_a_run_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six clients with two thirds of the data that they want."""
    place = tmp_path / "study"
    fields = [*SMALL, "repeats=1", "base.data.args.examples=40", f"output.dir={place}"]
    assert exit_code("scale", str(EXAMPLE), *sets(fields)) == RUNS_FAILED
    done, failed = load_scale(place).rows
    assert (done["clients"], done["status"]) == (4, "done")
    assert failed["clients"] == 6
    assert "its clients hold 6 to 7 examples, not 8; the data have too few" in failed["status"]
    assert "1 of 2 runs failed" in capsys.readouterr().out


@pytest.mark.slow
def test_on_ray_actors_and_nodes_are_those_of_the_point(cluster: Any, tmp_path: Path) -> None:
    """And nodes that are not there are a row that says so."""
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    try:
        grids = "[{clients: 6, actors: [1, 2]}, {clients: 6, actors: 3, nodes: 2}, {clients: 6, actors: 3, nodes: 3}]"
        config = small(tmp_path / "study", "base.engine.backend=ray", f"points={grids}", "hold_out=[]", "repeats=1")
        result = scale(config)
    finally:
        cluster.remove_node(node)
    assert (result["done"], result["failed"], result["held_out_error"]) == (3, 1, None)
    study = load_scale(tmp_path / "study")
    *done, failed = sorted(study.rows, key=lambda row: (row["nodes"], row["actors"]))
    assert "the cluster has 2 node(s), not 3" in failed["status"]
    assert [row["cluster_bytes"] // row["payload_bytes"] for row in done] == [1 + 2, 1 + 4, 2 + 6]
    for row in done:
        assert sum(row[part] for part in PARTS) == pytest.approx(row["seconds"], abs=1e-5)
    points = study.made("points")
    assert [point["strong"] is not None for point in points] == [True, True, True]
