"""Real trackers hold a run's figures: an MLflow server, TensorBoard's own reader, files of Weights & Biases."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fused_ray import RunConfig, SweepConfig, load_run, resume, run, sweep
from fused_ray.errors import Interrupted
from fused_ray.runs.events import Callback

pytestmark = pytest.mark.slow
SMALL = (
    *("engine.backend=local", "federation.clients=3", "data.limit=200", "output.plots=none", "train.batch_size=32"),
    *("pretrain.rounds=2", "unlearn.rounds=2", "unlearn.layers=[fc3]", "unlearn.mask=random", "retrain.rounds=1"),
    *("audit.relearn_steps=2", "audit.relearn_repeats=1", "output.report=false"),
)
TOLD = ("ra", "fa", "loss", "bytes_up_total", "bytes_down_total")


def config(path: Path, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*SMALL, f"output.dir={path}", *fields])


class Early(Callback):
    """Ends a run after its third round."""

    def __init__(self) -> None:
        self.rounds = 0

    def on_round(self, event: Any) -> None:
        self.rounds += 1
        if self.rounds == 3:
            raise Interrupted("seen enough")


def stopped_and_resumed(path: Path, tracker: str) -> dict[str, Any]:
    with pytest.raises(Interrupted):
        run(config(path, f"output.trackers=[{tracker}]"), callbacks=[Early()])
    return resume(path)


def expected(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Of each figure of each phase its steps and values, by the run's own table."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, row in enumerate(load_run(path).rounds.to_pylist(), 1):
        for name in TOLD:
            if row[name] is not None:
                found.setdefault(f"{row['phase']}/{name}", []).append((step, row[name]))
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(config(tmp_path_factory.mktemp("runs") / "run"))


def check_same(result: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    assert (result["hash"], result["metrics"]) == (undisturbed["hash"], undisturbed["metrics"])
    assert [note for note in result["notes"] if "trackers" in note] == []


# -- TensorBoard


def test_tensorboard_reads_it(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    pytest.importorskip("tensorboard", reason="the reader is TensorBoard's own")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "run"
    result = stopped_and_resumed(path, "tensorboard")
    check_same(result, undisturbed)
    reader = EventAccumulator(str(path / "tensorboard"))
    reader.Reload()
    for name, points in expected(path).items():
        assert [(event.step, event.value) for event in reader.Scalars(name)] == pytest.approx(points)
    assert reader.Scalars("result/metrics/after/fa")[0].value == pytest.approx(result["metrics"]["after"]["fa"])
    text = reader.Tensors("verdict/text_summary")[0].tensor_proto
    assert text.string_val[0].decode() == result["verdict"]
    assert "_hparams_/session_start_info" in reader.PluginTagToContent("hparams")


# -- MLflow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server."""
    pytest.importorskip("mlflow.server", reason="an MLflow server is asked: pip install mlflow")
    place = tmp_path_factory.mktemp("mlflow")
    process, address = serve(place)
    yield address
    process.terminate()
    process.wait(30)


def serve(place: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "files")]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *store, *where],
        cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return process, address
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return MlflowClient(server)


def test_an_mlflow_server_holds_it(
    client: Any, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "forgetting")
    path = tmp_path / "run"
    result = stopped_and_resumed(path, "mlflow")
    check_same(result, undisturbed)
    (found,) = client.search_runs([client.get_experiment_by_name("forgetting").experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    for name, points in expected(path).items():
        history = client.get_metric_history(found.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in history) == points
    assert found.data.metrics["result/metrics/after/fa"] == result["metrics"]["after"]["fa"]
    assert found.data.tags["verdict"] == result["verdict"]
    assert found.data.tags["verdict_sentence"] == result["verdict_sentence"]
    assert found.data.params["pretrain.rounds"] == "2"
    assert not {"forget.clients", "forget.examples", "forget.owner"} & set(found.data.params)


def test_trials_of_a_sweep_are_runs_of_one_group(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "swept")
    base = RunConfig.from_dict({}, [*SMALL, "output.trackers=[mlflow]"]).model_dump(mode="json", by_alias=True)
    values = {"base": base, "space": {"unlearn.lr": {"grid": [0.1, 0.05]}}, "audits": 1}
    sweep(SweepConfig.from_dict(values, [f"output.dir={tmp_path / 'sweep'}", "max_concurrent=1"]))
    found = client.search_runs([client.get_experiment_by_name("swept").experiment_id])
    assert {run.data.tags["fused_ray.study"] for run in found} == {"sweep"}
    assert {"0000", "0001"} < {run.info.run_name for run in found}
    assert {run.info.status for run in found} == {"FINISHED"}
    audited = [run for run in found if "verdict" in run.data.tags]
    assert len(audited) == 1
    assert audited[0].info.run_name in ("0000", "0001")


def test_a_server_that_goes_away_is_one_warning(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow.server", reason="an MLflow server is ended: pip install mlflow")
    process, address = serve(tmp_path)

    class End(Callback):
        def on_round(self, event: Any) -> None:
            if process.poll() is None and event.round == 2:
                os.killpg(process.pid, 9)
                process.wait()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    result = run(config(tmp_path / "run", "output.trackers=[mlflow]"), callbacks=[End()])
    assert result["hash"] == undisturbed["hash"]
    (note,) = [note for note in result["notes"] if "trackers" in note]
    assert note.startswith("output.trackers: mlflow: ")
    assert note.endswith("; it hears no more, everything else goes on")
    assert capfd.readouterr().err.count("output.trackers: mlflow: ") == 1


# -- Weights & Biases


def records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: a log as LevelDB writes it, in blocks of 32 KiB behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_files_of_weights_and_biases_hold_it(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts, two files of one run; `wandb sync` puts them together."""
    pytest.importorskip("wandb", reason="its client writes the files: pip install 'fused-ray[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    path = tmp_path / "run"
    result = stopped_and_resumed(path, "wandb")
    check_same(result, undisturbed)
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    told: dict[str, list[tuple[int, float]]] = {}
    summary, settings, ids, kinds = {}, {}, set(), set()
    for record in [record for file in files for record in records(file)]:
        kinds.add(record.WhichOneof("record_type"))
        for item in record.history.item:
            name = item.key or item.nested_key[0]
            told.setdefault(name, []).append((record.history.step.num, json.loads(item.value_json)))
        summary |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update}
        settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        ids |= {record.run.run_id} - {""}
    assert (len(files), len(ids)) == (2, 1)
    for name, points in expected(path).items():
        assert told[name] == points
    assert summary["verdict"] == result["verdict"]
    assert summary["result/metrics/after/fa"] == result["metrics"]["after"]["fa"]
    assert settings["pretrain.rounds"] == 2
    assert not {"output_raw", "files", "stats"} & kinds
