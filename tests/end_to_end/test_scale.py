"""`fused-ray scale` from end to end: what a study leaves behind, what a kill leaves of it, and nodes of a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fused_ray import FusedRayError, ScaleConfig, load_scale, resume_scale, scale
from fused_ray.cli.app import main
from fused_ray.cli.options import RUNS_FAILED
from fused_ray.errors import Interrupted, RunDirectoryError
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
    fields = [*SMALL, "points=[{clients: [4, 6, 8]}]", "repeats=2", "base.output.plots=svg", f"output.dir={place}"]
    assert exit_code("scale", str(EXAMPLE), *sets(fields), "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert (result["runs"], result["done"], result["failed"]) == (6, 6, 0)
    for title in ("Seconds of a round", "Cost model", "Points that the cost model has not seen", "On paper"):
        assert title in printed.err
    study = load_scale(place)
    assert study.table.schema.names == rows.MEASURED.names
    assert len(study.rows) == 6
    for row in study.rows:
        assert sum(row[part] for part in PARTS) == pytest.approx(row["seconds"], abs=1e-5)
        assert min(row[part] for part in PARTS) >= -1e-5
        assert row["memory_worker"] > 50e6
        # 18 hidden ones of 16 numbers, 10 classes; a message of one tensor has a head of 72 bytes
        assert (row["payload_bytes"], row["cluster_bytes"], row["steps"]) == (4 * (17 * 18 + 19 * 10) + 72, 0, 1.0)
    points = study.made("points")
    assert [(point["clients"], point["held_out"], point["rounds"]) for point in points] == [
        (4, False, 2), (6, True, 2), (8, False, 2),
    ]  # fmt: skip
    # 6 lies between 4 and 8; on a cluster it would take bytes, which two points in one process say nothing of
    assert result["held_out_error"] == abs(points[1]["error"]) == abs(result["held_out_worst"])
    assert (result["held_out_worst_point"], result["held_out_points"], result["held_out_measured"]) == (
        "c6-a1-n1-500", 1, 1,
    )  # fmt: skip
    assert study.made("paper") == []
    assert "No cluster is put on paper: the fitted points do not tell client, byte, test." in printed.err
    for name, schema in {"points": rows.POINTS, "model": rows.MODEL, "paper": rows.PAPER}.items():
        assert pq.read_schema(place / f"{name}.parquet").names == schema.names
    assert {path.name for path in (place / "plots").iterdir()} == {"seconds.svg", "split.svg", "predicted.svg"}
    text = (place / "tables.md").read_text()
    assert "### Cost model" in text
    (place / "tables.md").write_text("of an earlier version")
    resume_scale(place, ["base.output.plots=png"])
    assert (place / "tables.md").read_text() == text
    assert (place / "plots" / "predicted.png").exists()
    assert load_scale(place).result == result


def test_a_study_that_was_stopped_goes_on_and_times_the_run_that_was_cut_short_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr("fused_ray.storage.folder.LOCK_WAIT", 0.1)  # instead of a minute
    with load_scale(study.path).attempt(), pytest.raises(RunDirectoryError, match="is being written by another run"):
        resume_scale(study.path)
    with pytest.raises(FusedRayError, match=r"engine\.address=auto': a scaling study goes on"):
        resume_scale(study.path, ["base.engine.address=auto"])
    with pytest.raises(FusedRayError, match=r"clients_per_actor=2': a scaling study goes on"):
        resume_scale(study.path, ["base.federation.clients_per_actor=2"])
    assert resume_scale(study.path, ["base.engine.start_timeout=200"])["done"] == 2
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
    assert "0 of 1 held-out points were measured" in (place / "tables.md").read_text()
    # it ran to its end, but was no such run: to try again is to make it anew, and not to find it finished
    first, refused = (Path(take.config.output.dir) for take in load_scale(place).config.takes)
    before = [(run / "result.json").stat().st_mtime_ns for run in (first, refused)]
    assert resume_scale(place)["failed"] == 1
    after = [(run / "result.json").stat().st_mtime_ns for run in (first, refused)]
    assert (after[0], after[1] > before[1]) == (before[0], True)


def test_unlearning_is_measured_too(tmp_path: Path) -> None:
    """FedQuit's first round is another one: of the 3 rounds after it the first warms up, too, and one counts."""
    more = [
        "phase=unlearn",
        "base.unlearn.method=fedquit",
        "base.forget.scenario=sample",
        "base.forget.poison=false",
        "warmup=2",
        "hold_out=[]",
    ]
    place = tmp_path / "study"
    assert scale(small(place, *more, "points=[{clients: 4}]", "repeats=1"))["done"] == 1
    assert [row["round"] for row in load_scale(place).rows] == [3]


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on(tmp_path: Path) -> None:
    place = tmp_path / "study"
    fields = [*SMALL, "rounds=60", "repeats=1", f"output.dir={place}"]
    with subprocess.Popen([sys.executable, "-m", "fused_ray", "scale", str(EXAMPLE), *sets(fields)]) as process:
        while not (place / "measured.parquet").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    study = load_scale(place)
    assert not study.finished
    first, cut = (Path(take.config.output.dir) for take in study.config.takes)
    whole = (first / "result.json").stat().st_mtime_ns
    assert resume_scale(place)["done"] == 2
    assert (first / "result.json").stat().st_mtime_ns == whole
    assert len(json.loads((cut / "starts.json").read_text())["starts"]) == 1
    assert len(load_scale(place).rows) == 120


@pytest.mark.slow
def test_on_ray_actors_and_nodes_are_those_of_the_point(cluster: Any, tmp_path: Path) -> None:
    """And nodes that are not there, or have no core for an actor, are a row that says so."""
    nodes = [cluster.add_node(num_cpus=cores, object_store_memory=STORE) for cores in (1, 0)]
    try:
        grids = "[{clients: 6, actors: [1, 2]}, {clients: 6, actors: 3, nodes: 2}, {clients: 6, actors: 3, nodes: 3}]"
        config = small(tmp_path / "study", "base.engine.backend=ray", f"points={grids}", "hold_out=[]", "repeats=1")
        result = scale(config)
    finally:
        for node in nodes:
            cluster.remove_node(node)
    assert (result["done"], result["failed"], result["held_out_error"]) == (3, 1, None)
    study = load_scale(tmp_path / "study")
    *done, failed = sorted(study.rows, key=lambda row: (row["nodes"], row["actors"]))
    assert "the cluster has 2 node(s) for actors, not 3" in failed["status"]
    assert [row["cluster_bytes"] // row["payload_bytes"] for row in done] == [1 + 2, 1 + 4, 2 + 6]
    for row in done:
        assert sum(row[part] for part in PARTS) == pytest.approx(row["seconds"], abs=1e-5)
    points = study.made("points")
    assert [point["strong"] is not None for point in points] == [True, True, True]
