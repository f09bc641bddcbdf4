"""Trackers hear figures and settings, nothing of the data, and neither they nor their faults change a run."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboardX.proto.event_pb2 import Event

from fused_ray import FusedRayError, RunConfig, load_run, resume, run
from fused_ray.config.parts.trackers import check_installed
from fused_ray.errors import ConfigError, Interrupted
from fused_ray.runs.events import Callback
from fused_ray.runs.tracking import of_result, subject_of

SMALL = (
    *("engine.backend=local", "federation.clients=3", "data.limit=200", "output.plots=none", "train.batch_size=32"),
    *("pretrain.rounds=2", "unlearn.rounds=1", "unlearn.layers=[fc3]", "unlearn.mask=random", "retrain.rounds=0"),
    *("audit.enabled=false", "output.report=false", "forget.scenario=client", "forget.clients=[1]"),
)


def config(path: Path, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*SMALL, f"output.dir={path}", *fields])


class Early(Callback):
    """Ends a run after its first round."""

    def on_round(self, event: Any) -> None:
        raise Interrupted("seen enough")


def events(path: Path) -> list[Event]:
    """All records of event files: a length in 8 bytes, 4 of its checksum, the record, 4 of its checksum."""
    found = []
    for file in sorted((path / "tensorboard").iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that was stopped after its first round, and went on."""
    path = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(Interrupted):
        run(config(path, "output.trackers=tensorboard"), callbacks=[Early()])
    return path, resume(path)


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(path):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_each_round_is_told_once_by_its_number_in_the_run(tracked: Any) -> None:
    path, _ = tracked
    rows, told = load_run(path).rounds.to_pylist(), scalars(path)
    for step, row in enumerate(rows, 1):
        for name in ("ra", "fa", "loss", "bytes_up_total", "bytes_down_total"):
            values = dict(told[f"{row['phase']}/{name}"])
            assert values[step] == pytest.approx(row[name])
        assert dict(told[f"{row['phase']}/round"])[step] == row["round"]
        seconds = sum(row[f"{part}_seconds"] for part in ("train", "aggregate", "evaluate"))
        assert dict(told[f"{row['phase']}/seconds"])[step] == pytest.approx(seconds)
    assert [step for step, _ in told["pretrain/ra"]] == [1, 2]
    assert [step for step, _ in told["unlearn/ra"]] == [3]


def test_what_came_of_it_is_told(tracked: Any) -> None:
    path, result = tracked
    told = scalars(path)
    assert told["result/metrics/after/ra"] == [(0, pytest.approx(result["metrics"]["after"]["ra"]))]
    assert told["result/bytes/unlearn/up_total"] == [(0, pytest.approx(result["bytes"]["unlearn"]["up_total"]))]
    assert told["result/reversible"] == [(0, 1.0)]


def test_a_tracker_changes_nothing_and_a_broken_one_is_one_warning(
    tracked: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        run(config(tmp_path / "run"), callbacks=[Early()])
    (tmp_path / "run" / "tensorboard").touch()
    capsys.readouterr()
    result = resume(tmp_path / "run", ["output.trackers=[tensorboard]"])
    assert result["hash"] == tracked[1]["hash"]
    assert [note for note in result["notes"] if "trackers" in note] == capsys.readouterr().err.splitlines()
    (note,) = [note for note in result["notes"] if "trackers" in note]
    assert note.startswith("output.trackers: tensorboard: FileExistsError: ")
    assert note.endswith("; it hears no more, everything else goes on")


def test_nothing_says_who_or_what_is_forgotten(tracked: Any, tmp_path: Path) -> None:
    path, _ = tracked
    directory = load_run(path)
    subject = subject_of(path, directory.config)
    assert subject.settings["forget.scenario"] == "client"
    assert subject.settings["federation.clients"] == 3
    assert subject.settings["unlearn.layers"] == '["fc3"]'
    assert not {"forget.clients", "forget.owner", "forget.examples"} & set(subject.settings)
    other = shutil.copytree(path, tmp_path / "other")
    values = yaml.safe_load((other / "config.yaml").read_text())
    values["forget"]["clients"] = [client for client in range(3) if [client] != values["forget"]["clients"]][:1]
    (other / "config.yaml").write_text(yaml.safe_dump(values))
    assert subject_of(other, directory.config).key == subject.key  # so that no key tells which client it was
    tags = {value.tag for event in events(path) for value in event.summary.value}
    assert {tag.split("/")[0] for tag in tags} == {"pretrain", "unlearn", "result", "_hparams_"}
    assert not any("class" in tag or "confusion" in tag for tag in tags)


def test_it_is_known_again_where_it_is_moved(tracked: Any, tmp_path: Path) -> None:
    path, _ = tracked
    known = subject_of(path, load_run(path).config)
    (tmp_path / "moved").symlink_to(path)
    assert subject_of(tmp_path / "moved", load_run(path).config).key == known.key
    assert (known.name, known.study) == ("run", "")


def test_figures_of_a_result_by_hand() -> None:
    result = {
        "metrics": {"before": {"ra": 0.5}, "start": None, "after": {"ra": float("nan"), "fa": 0.25}},
        "bytes": {"unlearn": {"up_total": 7}}, "seconds": {}, "figures": {"odd name (%)": 1.5, "list": [1, 2]},
        "storage_bytes": 3, "failures": 0, "retries": 0, "reversible": True, "wall_seconds": 2.5,
        "audit_metrics": [{"name": "giveaway", "value": 0.125}], "layers": {"ranking": [1]},
    }  # fmt: skip
    assert of_result(result) == {
        "result/metrics/before/ra": 0.5, "result/metrics/after/fa": 0.25, "result/bytes/unlearn/up_total": 7.0,
        "result/figures/odd name ___": 1.5, "result/storage_bytes": 3.0, "result/failures": 0.0,
        "result/retries": 0.0, "result/reversible": 1.0, "result/wall_seconds": 2.5,
        "result/audit_metrics/giveaway": 0.125,
    }  # fmt: skip


def test_one_that_is_not_installed_is_refused_before_a_folder_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = r"output.trackers: wandb is not installed: pip install 'fused-ray\[wandb\]'"
    with pytest.raises(FusedRayError, match=said):
        run(config(tmp_path / "run", "output.trackers=[tensorboard, wandb]"))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_its_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb leaves one behind where a run was started."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="wandb is not installed"):
        check_installed(["wandb"])


def test_a_tracker_is_no_part_of_what_is_computed() -> None:
    plain, told = RunConfig.from_dict({}), RunConfig.from_dict({}, ["output.trackers=[mlflow]"])
    assert (plain.pretrain_key(), plain.retrain_key()) == (told.pretrain_key(), told.retrain_key())
    assert json.loads(told.model_dump_json())["output"]["trackers"] == ["mlflow"]
